//! Which server an archive is read from.

use crate::decision::gtid::Gtids;
use crate::decision::report::{Receiver, Sight, Status, Writable};
use crate::decision::topology::ServerName;
use std::fmt;
use std::time::Duration;

/// The servers that can be read from, and why the others cannot.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Those that have all that is archived, the best first: replicas by their lag, then the primary.
    pub fit: Vec<ServerName>,
    /// The primary, when nobody has all that is archived: a failover lost the rest.
    pub forked: Option<Forked>,
    /// The others.
    pub passed_over: Vec<(ServerName, String)>,
}

/// A primary that goes on without transactions that are archived.
#[derive(Clone, Debug, PartialEq)]
pub struct Forked {
    /// The primary.
    pub server: ServerName,
    /// What it has of the archive.
    pub from: Gtids,
    /// What it lacks.
    pub lost: Gtids,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = |(server, why): &(ServerName, String)| format!("{server}: {why}");
        f.write_str(&self.passed_over.iter().map(why).collect::<Vec<_>>().join("; "))
    }
}

/// Sorts servers by how fit they are to go on from that position, or from anywhere.
pub fn choose(seen: &[(ServerName, Sight)], position: Option<&Gtids>) -> Choice {
    let (mut fit, mut passed_over, mut primaries) = (Vec::new(), Vec::new(), Vec::new());
    for (server, sight) in seen {
        match rank(sight) {
            Ok((rank, status)) => {
                let lacking = position.map(|position| lacks(status, position));
                match lacking.filter(|lost| !lost.is_empty()) {
                    None => fit.push((rank, server.clone())),
                    Some(lost) => {
                        passed_over.push((server.clone(), "lacks what is archived".to_owned()));
                        if rank == Rank::Primary {
                            primaries.push((server.clone(), status, lost));
                        }
                    }
                }
            }
            Err(why) => passed_over.push((server.clone(), why)),
        }
    }
    fit.sort_by_key(|(rank, _)| *rank);
    let forked = match (primaries.as_slice(), fit.is_empty(), position) {
        ([(server, status, lost)], true, Some(position)) => Some(Forked {
            server: server.clone(),
            from: position.common(&status.executed),
            lost: lost.clone(),
        }),
        _ => None,
    };
    Choice { fit: fit.into_iter().map(|(_, server)| server).collect(), forked, passed_over }
}

/// The one server that is open and follows nobody.
pub fn primary(seen: &[(ServerName, Sight)]) -> Option<(&ServerName, &Status)> {
    let is_primary = |(_, sight): &&(ServerName, Sight)| {
        rank(sight).is_ok_and(|(rank, _)| rank == Rank::Primary)
    };
    let mut primaries = seen.iter().filter(is_primary);
    let only = primaries.next().filter(|_| primaries.next().is_none());
    only.and_then(|(server, sight)| Some((server, sight.status()?)))
}

/// Whether a server is still one to read from.
pub fn is_fit(sight: &Sight) -> Result<(), String> {
    rank(sight).map(|_| ())
}

/// Replicas before the primary, which has enough to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Replica(Duration),
    Primary,
}

fn rank(sight: &Sight) -> Result<(Rank, &Status), String> {
    let status = sight.status().ok_or_else(|| sight.to_string())?;
    if !status.settings.binlog {
        return Err("writes no binary log".to_owned());
    }
    if status.channels.is_empty() {
        return match status.writable {
            Writable::Open => Ok((Rank::Primary, status)),
            _ => Err("follows nobody and is closed".to_owned()),
        };
    }
    let channel = status.channel().ok_or_else(|| "follows several servers".to_owned())?;
    if !status.settings.logs_replica_updates {
        return Err("does not log what it receives".to_owned());
    }
    if channel.receiver != Receiver::Connected || !channel.applying {
        return Err("its replication does not run".to_owned());
    }
    if !channel.delay.is_zero() {
        return Err("is delayed on purpose".to_owned());
    }
    let lag = channel.lag.ok_or_else(|| "its lag is unknown".to_owned())?;
    Ok((Rank::Replica(lag), status))
}

/// What of a position a server lacks. What a primary numbered itself it has: replicas may have received a
/// commit that still waits for its acknowledgement there.
fn lacks(status: &Status, position: &Gtids) -> Gtids {
    let lacking = position.minus(&status.executed);
    match status.channels.is_empty() {
        true => lacking.without_origin(status.uuid.as_deref(), status.server_id),
        false => lacking,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::report::{Channel, SemiSync, Settings};
    use crate::decision::topology::{Flavor, ServerSpec, Version};

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "8f1ac2f0-71ca-11e1-9e33-c80aa9429562";

    fn gtids(text: &str) -> Gtids {
        Gtids::parse(Flavor::MySql, &text.replace('A', A).replace('B', B)).unwrap()
    }

    fn server(name: &str, executed: &str, lag: Option<u64>) -> (ServerName, Sight) {
        let source = ServerSpec::new("db9".into(), "10.0.0.1:3306".parse().unwrap(), "x".into());
        let executed = gtids(executed);
        let mut channel = Channel::steady(&source, &executed);
        channel.lag = lag.map(Duration::from_secs);
        let status = Status {
            flavor: Flavor::MySql,
            version: Version::default(),
            server_id: 1,
            uuid: Some(B.to_owned()),
            writable: if lag.is_some() { Writable::Closed } else { Writable::Open },
            executed,
            replicated: None,
            channels: lag.map(|_| channel).into_iter().collect(),
            semi_sync: SemiSync::default(),
            settings: Settings::default(),
            crowded: false,
        };
        (ServerName::from(name), Sight::Alive(Box::new(status)))
    }

    #[test]
    fn replicas_come_before_the_primary() {
        let all = [
            server("db1", "A:1-9", None),
            server("db2", "A:1-9", Some(3)),
            server("db3", "A:1-9", Some(1)),
            server("db4", "A:1-6", Some(0)),
        ];
        let names = |position: &str| -> Vec<String> {
            let choice = choose(&all, Some(&gtids(position)));
            choice.fit.iter().map(ToString::to_string).collect()
        };
        assert_eq!(names("A:1-8"), ["db3", "db2", "db1"]);
        assert_eq!(names("A:1-5"), ["db4", "db3", "db2", "db1"]);
        assert_eq!(choose(&all, None).fit.len(), 4);
        assert_eq!(primary(&all).unwrap().0, &ServerName::from("db1"));
    }

    #[test]
    fn only_a_primary_that_lacks_what_others_wrote_has_forked() {
        let all = [server("db1", "A:1-6,B:1-2", None), server("db2", "A:1-6", Some(0))];
        let choice = choose(&all, Some(&gtids("A:1-8")));
        let forked = choice.forked.unwrap();
        assert_eq!((forked.from, forked.lost), (gtids("A:1-6"), gtids("A:7-8")));
        assert!(choice.fit.is_empty());
        // A commit of its own that waits to be acknowledged.
        let choice = choose(&all, Some(&gtids("A:1-6,B:1-3")));
        assert_eq!((choice.fit.len(), choice.forked), (1, None));
        let two = [server("db1", "A:1-6", None), server("db2", "A:1-6", None)];
        assert_eq!(choose(&two, Some(&gtids("A:1-8"))).forked, None, "who is it?");
        assert!(primary(&two).is_none());
        let closed = [server("db2", "A:1-6", Some(0))];
        assert_eq!(choose(&closed, Some(&gtids("A:1-8"))).forked, None, "it may catch up");
    }
}
