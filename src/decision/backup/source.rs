//! Which server a backup asked for by hand is taken from.

use crate::decision::report::{Receiver, Sight};
use crate::decision::topology::ServerName;
use std::time::Duration;

/// Why no server is fit, server by server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no replica can be backed up now ({}); name a server with --server", self.shown())]
pub struct NoSource(Vec<(ServerName, String)>);

impl NoSource {
    fn shown(&self) -> String {
        let each: Vec<String> =
            self.0.iter().map(|(server, why)| format!("{server}: {why}")).collect();
        each.join("; ")
    }
}

/// The replica that follows its source and is the least behind; of equals, the one declared first.
pub fn pick(seen: &[(ServerName, Sight)]) -> Result<ServerName, NoSource> {
    let mut best: Option<(Duration, &ServerName)> = None;
    let mut passed_over = Vec::new();
    for (server, sight) in seen {
        match lag(sight) {
            Ok(lag) if best.is_none_or(|(least, _)| lag < least) => best = Some((lag, server)),
            Ok(_) => {}
            Err(why) => passed_over.push((server.clone(), why)),
        }
    }
    best.map(|(_, server)| server.clone()).ok_or(NoSource(passed_over))
}

/// How far behind a replica is that follows; else why it is passed over.
fn lag(sight: &Sight) -> Result<Duration, String> {
    let status = sight.status().ok_or_else(|| sight.to_string())?;
    let channel = status.channel().ok_or_else(|| "follows nobody".to_owned())?;
    if channel.receiver != Receiver::Connected || !channel.applying {
        return Err("its replication does not run".to_owned());
    }
    if !channel.delay.is_zero() {
        return Err("is delayed on purpose".to_owned());
    }
    channel.lag.ok_or_else(|| "its lag is unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::gtid::Gtids;
    use crate::decision::report::{Channel, SemiSync, Settings, Status, Writable};
    use crate::decision::topology::{Flavor, ServerSpec, Version};

    fn replica(lag: Option<u64>) -> Sight {
        let source = ServerSpec::new("db1".into(), "10.0.0.1:3306".parse().unwrap(), "x".into());
        let executed = Gtids::empty(Flavor::MySql);
        let mut channel = Channel::steady(&source, &executed);
        channel.lag = lag.map(Duration::from_secs);
        Sight::Alive(Box::new(Status {
            flavor: Flavor::MySql,
            version: Version::default(),
            server_id: 1,
            uuid: None,
            writable: Writable::Closed,
            executed,
            replicated: None,
            channels: vec![channel],
            semi_sync: SemiSync::default(),
            settings: Settings::default(),
            crowded: false,
        }))
    }

    fn primary() -> Sight {
        let Sight::Alive(mut status) = replica(None) else { return Sight::Refused };
        status.channels.clear();
        Sight::Alive(status)
    }

    #[test]
    fn the_least_behind_is_taken_and_never_the_primary() {
        let seen = |sights: Vec<Sight>| -> Vec<(ServerName, Sight)> {
            let named = |(at, sight)| (ServerName(format!("db{}", at + 1)), sight);
            sights.into_iter().enumerate().map(named).collect()
        };
        let all = seen(vec![primary(), replica(Some(3)), replica(Some(1)), replica(Some(1))]);
        assert_eq!(pick(&all), Ok("db3".into()));
        let none = pick(&seen(vec![primary(), replica(None), Sight::Hung])).unwrap_err();
        let text = none.to_string();
        assert!(text.contains("db1: follows nobody; db2: its lag is unknown; db3:"), "{text}");
    }
}
