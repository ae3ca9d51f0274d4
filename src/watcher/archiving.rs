//! The leader's care for archives: what the watcher that archives tells enters the account, so that people are
//! told once.

use super::charging::Charges;
use super::leading::Leading;
use super::machine::Watcher;
use crate::clock::{Now, WallTime};
use crate::decision::backup::archive::account::{self, ArchiveView, Seen};
use crate::decision::backup::chore::Chore;
use crate::decision::cluster::Command;
use crate::decision::topology::ClusterName;
use crate::decision::view::FindingView;

impl Watcher {
    /// Compares the accounts of archives with what was told; true when anything was proposed.
    pub(super) fn look_after_archives(&mut self, now: Now, leading: &mut Leading) -> bool {
        let Leading { archives, charges, .. } = leading;
        self.compare(now, archives, |watcher, cluster| {
            let state = watcher.state.clusters.get(cluster)?;
            let wanted = watcher.setup.archives.get(cluster);
            let change = state.archive.changes(wanted, seen(charges, cluster), now.wall)?;
            Some(Command::Archive { cluster: cluster.clone(), change })
        })
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
        Some(account::shown(&state.archive, wanted, seen(&leading.charges, cluster), now))
    }
}

/// What the watcher that archives a cluster's binary log tells.
fn seen<'a>(charges: &'a Charges, cluster: &ClusterName) -> Option<&'a Seen> {
    charges.work(cluster, Chore::Archive)?.archive.as_deref()
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
