//! Route leases: what a proxy may do until when, and the leader's account of what it gave.
//!
//! A proxy counts a lease from the moment it *sent* the request, on its own clock; the leader
//! counts it from its answer, on its own, and adds a margin. So the leader never believes a lease
//! to be over while a proxy still holds it, and no two clocks are compared.

use super::topology::{ClusterName, DataCenter, Endpoint, Epoch, ProxyName, ServerName, Timing};
use crate::clock::Moment;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Where one cluster's traffic may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The epoch it belongs to; a proxy drops anything older.
    pub epoch: Epoch,
    /// The writable primary; `None` while there is none, and clients wait.
    pub write: Option<Target>,
    /// Replicas healthy enough to read from, best first; empty means read from the primary.
    pub reads: Vec<Target>,
    /// Whether proxies keep it when the watchers lose their quorum.
    pub kept_without_quorum: bool,
}

/// One server a proxy may forward to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its name, for logs and metrics.
    pub server: ServerName,
    /// Its address.
    pub address: Endpoint,
    /// Where it stands; proxies prefer their own data center for reads.
    pub data_center: DataCenter,
}

/// What a proxy tells the watchers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromProxy {
    /// Renews the lease on every cluster's route.
    Renew {
        /// When the proxy sent this, on its own clock; comes back unchanged.
        sent: Moment,
        /// Per cluster the newest epoch it knows, all sessions of older ones being cut already.
        seen: BTreeMap<ClusterName, Epoch>,
        /// How many client sessions it carries per cluster, for people.
        sessions: BTreeMap<ClusterName, u64>,
        /// Clusters of which a server could not be reached for a client since it last sent this: to be looked
        /// at. A hint and no evidence; the first proxies do not send it.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        unreached: BTreeSet<ClusterName>,
    },
}

/// What a watcher tells a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToProxy {
    /// A lease on all these routes, until `sent` plus `span` on the proxy's clock.
    Granted {
        /// The request's own time.
        sent: Moment,
        /// How long the lease lasts from then.
        span: Duration,
        /// All routes; a cluster that is missing has none.
        routes: BTreeMap<ClusterName, Route>,
    },
    /// A cluster's epoch or route changed: cut sessions of older epochs at once, and renew.
    Changed {
        /// Whose.
        cluster: ClusterName,
        /// Its epoch now.
        epoch: Epoch,
        /// Who leads, as far as the sender knows: ask there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leader: Option<super::topology::WatcherName>,
    },
    /// This watcher does not lead; ask that one.
    NotLeader {
        /// The leader it knows of, by watcher id.
        leader: Option<super::topology::WatcherName>,
    },
}

/// The leader's account of the leases it gave.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Leases of a former leader, unknown to this one, are over by then.
    inherited_until: Moment,
    given: BTreeMap<ProxyName, Given>,
}

#[derive(Clone, Debug)]
struct Given {
    until: Moment,
    seen: BTreeMap<ClusterName, Epoch>,
}

impl Ledger {
    /// A new leader's: it must reckon with any lease its predecessor may have given until now.
    pub fn inherited(now: Moment, timing: &Timing) -> Ledger {
        let inherited_until = now + timing.lease + timing.lease_margin();
        Ledger { inherited_until, given: BTreeMap::new() }
    }

    /// Notes what a proxy says it has seen; true when that is news.
    pub fn note_seen(&mut self, proxy: &ProxyName, seen: &BTreeMap<ClusterName, Epoch>) -> bool {
        match self.given.get_mut(proxy) {
            Some(given) if &given.seen != seen => {
                given.seen.clone_from(seen);
                true
            }
            Some(_) => false,
            None => {
                let given = Given { until: Moment::ZERO, seen: seen.clone() };
                self.given.insert(proxy.clone(), given);
                true
            }
        }
    }

    /// Notes a lease granted at `now`.
    pub fn grant(&mut self, proxy: &ProxyName, now: Moment, timing: &Timing) {
        let until = now + timing.lease + timing.lease_margin();
        let fresh = || Given { until, seen: BTreeMap::new() };
        self.given.entry(proxy.clone()).or_insert_with(fresh).until = until;
    }

    /// From when on no proxy can hold a lease on a route of `cluster` older than `epoch`.
    pub fn free_from(&self, cluster: &ClusterName, epoch: Epoch) -> Moment {
        let holds = |given: &&Given| given.seen.get(cluster).is_none_or(|seen| *seen < epoch);
        let latest = self.given.values().filter(holds).map(|given| given.until).max();
        latest.unwrap_or_default().max(self.inherited_until)
    }

    /// Whether every proxy there may be has said that it cut all sessions of older epochs: the silence of
    /// one whose lease is over says nothing of its sessions, as some routes outlive their leases.
    pub fn all_cut(&self, cluster: &ClusterName, epoch: Epoch, now: Moment) -> bool {
        let cut = |given: &Given| given.seen.get(cluster).is_some_and(|seen| *seen >= epoch);
        now >= self.inherited_until && self.given.values().all(cut)
    }

    /// Proxies in the account.
    pub fn known(&self) -> impl Iterator<Item = &ProxyName> {
        self.given.keys()
    }

    /// Proxies that hold a lease, as far as the leader can know.
    pub fn holders(&self, now: Moment) -> impl Iterator<Item = &ProxyName> {
        self.given.iter().filter(move |(_, given)| given.until >= now).map(|(name, _)| name)
    }

    /// Forgets proxies whose leases ended long ago, so that the account stays bounded.
    pub fn forget(&mut self, now: Moment, timing: &Timing) {
        let horizon = now - timing.lease * 30;
        self.given.retain(|_, given| given.until >= horizon || given.until == Moment::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(epoch: u64) -> BTreeMap<ClusterName, Epoch> {
        BTreeMap::from([(ClusterName::from("shop"), Epoch(epoch))])
    }

    #[test]
    fn an_epoch_is_free_once_all_have_seen_it_or_run_out() {
        let timing = Timing::default();
        let shop = ClusterName::from("shop");
        let whole = timing.lease + timing.lease_margin();
        let mut ledger = Ledger::inherited(Moment(0), &timing);
        assert_eq!(ledger.free_from(&shop, Epoch(2)), Moment(0) + whole);

        let later = Moment(0) + timing.lease * 10;
        for proxy in ["p1", "p2"] {
            ledger.note_seen(&proxy.into(), &seen(1));
            ledger.grant(&proxy.into(), later, &timing);
        }
        assert_eq!(ledger.free_from(&shop, Epoch(1)), Moment(0) + whole, "epoch 1 is not older");
        assert_eq!(ledger.free_from(&shop, Epoch(2)), later + whole);
        assert!(ledger.note_seen(&"p1".into(), &seen(2)));
        assert_eq!(ledger.free_from(&shop, Epoch(2)), later + whole, "p2 has not seen it");
        assert!(!ledger.all_cut(&shop, Epoch(2), later + whole * 9), "p2 has said nothing");
        assert!(ledger.note_seen(&"p2".into(), &seen(2)));
        assert_eq!(ledger.free_from(&shop, Epoch(2)), Moment(0) + whole);
        assert!(ledger.all_cut(&shop, Epoch(2), later));
        assert!(!ledger.all_cut(&shop, Epoch(2), Moment(0)), "a former leader may know others");
    }
}
