//! The leader's care for proofs: what their watcher saw enters the account, so that people are told once.

use super::leading::Leading;
use super::machine::{Setup, Watcher};
use crate::clock::{Moment, Now, WallTime};
use crate::decision::backup::chore::Chore;
use crate::decision::backup::proofs::{self, ProofView, Seen};
use crate::decision::cluster::{Command, State};
use crate::decision::topology::ClusterName;
use crate::decision::view::FindingView;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often the account is compared with what was seen.
const PACE: Duration = Duration::from_secs(1);

/// The proofs of all clusters, as far as their account goes.
#[derive(Debug)]
pub(super) struct Proofs {
    clusters: BTreeSet<ClusterName>,
    next: Moment,
    /// The last entry proposed about them; nothing is compared before that is applied.
    proposed: u64,
}

impl Proofs {
    /// Of all clusters that want proofs, or wanted some.
    pub(super) fn of_all(now: Moment, setup: &Setup, state: &State) -> Proofs {
        let accounts = state.clusters.iter().filter(|(_, state)| !state.proofs.is_empty());
        let known = accounts.map(|(name, _)| name).chain(setup.proofs.keys());
        let declared = known.filter(|name| setup.clusters.contains_key(*name));
        Proofs { clusters: declared.cloned().collect(), next: now, proposed: 0 }
    }

    pub(super) fn next(&self) -> Option<Moment> {
        (!self.clusters.is_empty()).then_some(self.next)
    }
}

impl Watcher {
    /// Compares the accounts with what was seen; true when anything was proposed.
    pub(super) fn look_after_proofs(&mut self, now: Now, leading: &mut Leading) -> bool {
        if leading.proofs.next > now.moment {
            return false;
        }
        leading.proofs.next = now.moment + PACE;
        if leading.proofs.proposed > self.applied {
            return false;
        }
        let mut commands = Vec::new();
        for cluster in &leading.proofs.clusters {
            let wanted = self.setup.proofs.get(cluster);
            let known = self.state.clusters.get(cluster);
            let account = known.map(|state| state.proofs.clone()).unwrap_or_default();
            let changes = account.changes(wanted, seen(leading, cluster), now.wall);
            let command = |change| Command::Proof { cluster: cluster.clone(), change };
            commands.extend(changes.into_iter().map(command));
        }
        if commands.is_empty() {
            return false;
        }
        let Some(index) = self.propose(now, commands) else { return false };
        leading.proofs.proposed = index;
        true
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
        proofs::shown(&state.proofs, wanted, seen(leading, cluster), now)
    }
}

/// What the watcher that proves saw of a cluster's targets.
fn seen<'a>(leading: &'a Leading, cluster: &ClusterName) -> &'a [Seen] {
    leading.charges.work(cluster, Chore::Prove).map_or(&[], |work| &work.proofs)
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
