//! Removing what processes that died left, beside a backup that is being taken. Failing at that hinders no
//! backup: the next one tries again.

use super::spool;
use super::target::{MOST_LISTED, Target, TargetError};
use crate::clock::WallTime;
use crate::config::backups::Backups;
use crate::decision::backup::leftovers::lost;
use crate::decision::backup::names;
use crate::decision::topology::ClusterName;
use std::time::Duration;
use tokio::task::JoinSet;

/// A backup that is done waits no longer for this.
const ENDING: Duration = Duration::from_secs(10);

/// The work of sweeping; it ends with whoever drops this.
#[derive(Debug)]
pub(super) struct Sweeping(JoinSet<()>);

impl Sweeping {
    /// Sweeps folders first, so that nothing of this backup can be taken for a leftover.
    pub(super) async fn begin(
        targets: &[Target],
        backups: &Backups,
        cluster: &ClusterName,
        now: WallTime,
    ) -> Sweeping {
        let mut sweeping = JoinSet::new();
        for target in targets {
            let (far, target, cluster) = (target.is_far(), target.clone(), cluster.clone());
            let work = async move {
                if let Err(error) = sweep(&target, &cluster, now).await {
                    let target = &target.name;
                    tracing::debug!(target, %error, "leftovers could not be looked for");
                }
            };
            match far {
                true => drop(sweeping.spawn(work)),
                false => work.await,
            }
        }
        if let Some(declared) = backups.storing.spool.clone() {
            let cluster = cluster.clone();
            sweeping.spawn_blocking(move || {
                if let Err(error) = spool::sweep(&declared, &cluster) {
                    tracing::debug!(%error, "leftovers could not be looked for in the spool");
                }
            });
        }
        Sweeping(sweeping)
    }

    /// Waits a while for the end of it.
    pub(super) async fn end(mut self) {
        let ended = async { while self.0.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(ENDING, ended).await;
    }
}

async fn sweep(target: &Target, cluster: &ClusterName, now: WallTime) -> Result<(), TargetError> {
    let folder = names::data_of(cluster);
    // Not every server can list uploads; those that cannot have a rule of their own for them.
    let uploads = target.sweep(&folder, now).await;
    let data = target.listed(&folder).await?;
    let manifests = target.list(&names::manifests_of(cluster)).await?;
    // A list that is not whole says nothing about what is missing.
    if data.len() < MOST_LISTED && manifests.len() < MOST_LISTED {
        let data: Vec<_> = data.into_iter().map(|it| (it.object, it.stored)).collect();
        for object in lost(cluster, &data, &manifests, now) {
            target.remove(&object).await?;
            tracing::info!(target = target.name, object, "removed data that has no manifest");
        }
    }
    uploads
}
