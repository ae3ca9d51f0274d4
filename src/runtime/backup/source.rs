//! Finding the server to back up.

use super::BackupError;
use crate::config::ClusterConfig;
use crate::config::backups::Method;
use crate::decision::adoption::{self, Verdict};
use crate::decision::backup::choice::{self, NoSource, Wish};
use crate::decision::report::{Sight, Status};
use crate::decision::situation::Situation;
use crate::decision::topology::{ServerName, ServerSpec, Timing};
use crate::runtime::mysql::probe::Prober;
use std::sync::Arc;
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

/// A healthy replica that a failover would not promote first, as far as one look from here tells; one with
/// an agent where files are copied.
pub async fn choose(
    cluster: &ClusterConfig,
    timing: Timing,
    method: Method,
) -> Result<Source, BackupError> {
    let mut seen = Vec::new();
    for server in &cluster.spec.servers {
        seen.push((server.name.clone(), look(cluster, timing, server).await));
    }
    let situation = Situation::at_a_glance(Arc::new(cluster.spec.clone()), timing, seen);
    let wish = Wish { only: method.beside(&cluster.agents), ..Wish::default() };
    let mut choice = choice::choose(&situation, &wish, &[]);
    let chosen = choice.server.as_ref().and_then(|name| situation.spec.server(name));
    let found = chosen.and_then(|server| Some((server, situation.status(&server.name)?)));
    match found {
        Some((server, status)) => Ok(Source { server: server.clone(), status: status.clone() }),
        None => {
            if let Verdict::Unclear { seen } = adoption::verdict(&situation) {
                choice.hindrance =
                    Some(format!("nobody can tell the primary: {}", seen.join("; ")));
            }
            Err(NoSource(choice).into())
        }
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
