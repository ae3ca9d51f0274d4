//! The leader's care for archives: what the watcher that archives tells enters the account, so that people are
//! told once.

use super::leading::Leading;
use super::machine::{Setup, Watcher};
use crate::clock::{Moment, Now, WallTime};
use crate::decision::backup::archive::account::{self, ArchiveView, Seen};
use crate::decision::backup::chore::Chore;
use crate::decision::cluster::{Command, State};
use crate::decision::topology::ClusterName;
use crate::decision::view::FindingView;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often the account is compared with what was told.
const PACE: Duration = Duration::from_secs(1);

/// The archives of all clusters, as far as their account goes.
#[derive(Debug)]
pub(super) struct Archives {
    clusters: BTreeSet<ClusterName>,
    next: Moment,
    /// The last entry proposed about them; nothing is compared before that is applied.
    proposed: u64,
}

impl Archives {
    /// Of all clusters whose binary log the watchers archive, or did.
    pub(super) fn of_all(now: Moment, setup: &Setup, state: &State) -> Archives {
        let accounts = state.clusters.iter().filter(|(_, state)| !state.archive.is_empty());
        let known = accounts.map(|(name, _)| name).chain(setup.archives.keys());
        let declared = known.filter(|name| setup.clusters.contains_key(*name));
        Archives { clusters: declared.cloned().collect(), next: now, proposed: 0 }
    }

    pub(super) fn next(&self) -> Option<Moment> {
        (!self.clusters.is_empty()).then_some(self.next)
    }
}

impl Watcher {
    /// Compares the accounts with what was told; true when anything was proposed.
    pub(super) fn look_after_archives(&mut self, now: Now, leading: &mut Leading) -> bool {
        if leading.archives.next > now.moment {
            return false;
        }
        leading.archives.next = now.moment + PACE;
        if leading.archives.proposed > self.applied {
            return false;
        }
        let mut commands = Vec::new();
        for cluster in &leading.archives.clusters {
            let wanted = self.setup.archives.get(cluster);
            let Some(state) = self.state.clusters.get(cluster) else { continue };
            let change = state.archive.changes(wanted, seen(leading, cluster), now.wall);
            commands
                .extend(change.map(|change| Command::Archive { cluster: cluster.clone(), change }));
        }
        if commands.is_empty() {
            return false;
        }
        let Some(index) = self.propose(now, commands) else { return false };
        leading.archives.proposed = index;
        true
    }

    /// The archive of a cluster as people see it; none where the watchers archive nothing.
    pub(super) fn shown_archive(
        &self,
        now: WallTime,
        leading: &Leading,
        cluster: &ClusterName,
    ) -> Option<ArchiveView> {
        let wanted = self.setup.archives.get(cluster)?;
        let state = self.state.clusters.get(cluster)?;
        Some(account::shown(&state.archive, wanted, seen(leading, cluster), now))
    }
}

/// What the watcher that archives a cluster's binary log tells.
fn seen<'a>(leading: &'a Leading, cluster: &ClusterName) -> Option<&'a Seen> {
    leading.charges.work(cluster, Chore::Archive)?.archive.as_deref()
}

/// What is wrong with an archive, beside what is wrong with the servers.
pub(super) fn finding(archive: &ArchiveView) -> Option<FindingView> {
    (!archive.alert.is_empty()).then(|| FindingView {
        kind: "archive_behind".to_owned(),
        server: None,
        text: format!("binary log at target {}: {}", archive.target, archive.alert),
        evidence: Vec::new(),
    })
}
