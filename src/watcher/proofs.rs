//! The leader's care for proofs: what their watcher saw enters the account, so that people are told once.

use super::charging::Charges;
use super::leading::Leading;
use super::machine::Watcher;
use crate::clock::{Now, WallTime};
use crate::decision::backup::chore::Chore;
use crate::decision::backup::proofs::{self, ProofView, Seen};
use crate::decision::cluster::Command;
use crate::decision::topology::ClusterName;
use crate::decision::view::FindingView;

impl Watcher {
    /// Compares the accounts of proofs with what was seen; true when anything was proposed.
    pub(super) fn look_after_proofs(&mut self, now: Now, leading: &mut Leading) -> bool {
        let Leading { proofs, charges, .. } = leading;
        self.compare(now, proofs, |watcher, cluster| {
            let known = watcher.state.clusters.get(cluster);
            let account = known.map(|state| state.proofs.clone()).unwrap_or_default();
            let wanted = watcher.setup.proofs.get(cluster);
            let changes = account.changes(wanted, seen(charges, cluster), now.wall);
            let command = |change| Command::Proof { cluster: cluster.clone(), change };
            changes.into_iter().map(command).collect::<Vec<_>>()
        })
    }

    /// The proofs of a cluster as people see them.
    pub(super) fn shown_proofs(
        &self,
        now: WallTime,
        leading: &Leading,
        cluster: &ClusterName,
    ) -> Vec<ProofView> {
        let both = (self.state.clusters.get(cluster), self.setup.proofs.get(cluster));
        let (Some(state), Some(wanted)) = both else { return Vec::new() };
        proofs::shown(&state.proofs, wanted, seen(&leading.charges, cluster), now)
    }
}

/// What the watcher that proves saw of a cluster's targets.
fn seen<'a>(charges: &'a Charges, cluster: &ClusterName) -> &'a [Seen] {
    charges.work(cluster, Chore::Prove).map_or(&[], |work| &work.proofs)
}

/// What is wrong with proofs, beside what is wrong with the servers.
pub(super) fn findings(proofs: &[ProofView]) -> impl Iterator<Item = FindingView> {
    let alarmed = proofs.iter().filter(|proof| !proof.alert.is_empty());
    alarmed.map(|proof| FindingView {
        kind: "backup_unproven".to_owned(),
        server: None,
        text: format!("target {}: {}", proof.target, proof.alert),
        evidence: Vec::new(),
    })
}
