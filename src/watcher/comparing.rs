//! When the leader compares an account with what watchers tell, so that people are told once of each change.

use super::machine::{Setup, Watcher};
use crate::clock::{Moment, Now};
use crate::decision::cluster::{ClusterState, Command, State};
use crate::decision::topology::ClusterName;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often an account is compared with what is told.
const PACE: Duration = Duration::from_secs(1);

/// Accounts of one kind that are compared, one of each cluster.
#[derive(Debug)]
pub(super) struct Comparing {
    clusters: BTreeSet<ClusterName>,
    next: Moment,
    /// The last entry proposed about them; nothing is compared before that is applied.
    proposed: u64,
}

impl Comparing {
    /// Those of the clusters that want such an account, and of those where something is in it yet.
    pub(super) fn begin<'a>(
        now: Moment,
        (setup, state): (&'a Setup, &'a State),
        wanted: impl Iterator<Item = &'a ClusterName>,
        is_empty: fn(&ClusterState) -> bool,
    ) -> Comparing {
        let kept = state.clusters.iter().filter(|(_, state)| !is_empty(state));
        let known = kept.map(|(name, _)| name).chain(wanted);
        let declared = known.filter(|name| setup.clusters.contains_key(*name));
        Comparing { clusters: declared.cloned().collect(), next: now, proposed: 0 }
    }

    pub(super) fn next(&self) -> Option<Moment> {
        (!self.clusters.is_empty()).then_some(self.next)
    }

    /// The clusters whose accounts are to be compared now.
    fn due(&mut self, now: Moment, applied: u64) -> Option<&BTreeSet<ClusterName>> {
        if self.next > now {
            return None;
        }
        self.next = now + PACE;
        (self.proposed <= applied).then_some(&self.clusters)
    }
}

impl Watcher {
    /// Proposes what accounts that are due lack; true when anything was proposed.
    pub(super) fn compare<C>(
        &mut self,
        now: Now,
        comparing: &mut Comparing,
        changes: impl Fn(&Watcher, &ClusterName) -> C,
    ) -> bool
    where
        C: IntoIterator<Item = Command>,
    {
        let Some(clusters) = comparing.due(now.moment, self.applied) else { return false };
        let commands: Vec<_> = clusters.iter().flat_map(|name| changes(self, name)).collect();
        if commands.is_empty() {
            return false;
        }
        let Some(index) = self.propose(now, commands) else { return false };
        comparing.proposed = index;
        true
    }
}
