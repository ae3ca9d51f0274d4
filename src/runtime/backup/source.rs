//! Finding the server to back up.

use super::BackupError;
use crate::config::ClusterConfig;
use crate::decision::backup::source::pick;
use crate::decision::report::{Sight, Status};
use crate::decision::topology::{ServerName, ServerSpec, Timing};
use crate::runtime::mysql::probe::Prober;
use std::time::Duration;

/// The first look at a server may take longer than one probe.
const LOOKS: u32 = 8;
const BETWEEN: Duration = Duration::from_millis(100);

/// A server to back up, as it was just seen.
#[derive(Clone, Debug)]
pub struct Source {
    /// As declared.
    pub server: ServerSpec,
    /// Its state.
    pub status: Status,
}

/// The server of that name, whatever it is, as long as it answers.
pub async fn named(
    cluster: &ClusterConfig,
    timing: Timing,
    name: &str,
) -> Result<Source, BackupError> {
    let Some(server) = cluster.spec.server(&ServerName::from(name)) else {
        let known: Vec<&str> = cluster.spec.servers.iter().map(|it| it.name.as_str()).collect();
        let text =
            format!("{} has no server {name:?}; it has {}", cluster.spec.name, known.join(", "));
        return Err(BackupError::Unknown(text));
    };
    match look(cluster, timing, server).await {
        Sight::Alive(status) => Ok(Source { server: server.clone(), status: *status }),
        sight => Err(BackupError::server(&server.name, sight)),
    }
}

/// The replica that is the least behind.
pub async fn choose(cluster: &ClusterConfig, timing: Timing) -> Result<Source, BackupError> {
    let mut seen = Vec::new();
    for server in &cluster.spec.servers {
        seen.push((server.name.clone(), look(cluster, timing, server).await));
    }
    let chosen = pick(&seen)?;
    let status = seen.into_iter().find(|(name, _)| name == &chosen);
    match (cluster.spec.server(&chosen), status) {
        (Some(server), Some((_, Sight::Alive(status)))) => {
            Ok(Source { server: server.clone(), status: *status })
        }
        _ => Err(BackupError::Unknown(format!("{chosen} was seen and is gone"))),
    }
}

pub(super) async fn look(cluster: &ClusterConfig, timing: Timing, server: &ServerSpec) -> Sight {
    let account = cluster.credentials.monitor.clone();
    let mut prober = Prober::new(server, account, timing);
    let mut sight = prober.probe().await;
    for _ in 1..LOOKS {
        match sight {
            Sight::Hung | Sight::Unreachable | Sight::Useless(_) => {}
            _ => break,
        }
        tokio::time::sleep(BETWEEN).await;
        sight = prober.probe().await;
    }
    sight
}
