//! Orders that are withdrawn while they are carried out, because their procedure was given up.
//!
//! One step at a time acts on a server. One that waits, for an applier that will never get what it
//! is to apply perhaps, would keep whatever comes next from that server until its limit.

use crate::decision::topology::ClusterName;
use std::collections::BTreeMap;
use std::future::Future;
use tokio::sync::watch;

/// The newest withdrawn procedure of each cluster; all earlier ones are over as well.
#[derive(Debug, Default)]
pub struct Withdrawals(watch::Sender<Newest>);

type Newest = BTreeMap<ClusterName, u64>;

impl Withdrawals {
    /// That procedure was given up.
    pub fn note(&self, cluster: ClusterName, procedure: u64) {
        self.0.send_modify(|known| {
            let newest = known.entry(cluster).or_default();
            *newest = procedure.max(*newest);
        });
    }

    /// Tells whether an order of that procedure is withdrawn.
    pub fn of(&self, cluster: &ClusterName, procedure: u64) -> Withdrawal {
        Withdrawal(Some((cluster.clone(), procedure, self.0.subscribe())))
    }
}

/// Whether one order is withdrawn; never, by default.
#[derive(Clone, Debug, Default)]
pub struct Withdrawal(Option<(ClusterName, u64, watch::Receiver<Newest>)>);

impl Withdrawal {
    /// What a withdrawn order is answered with.
    pub const WHY: &str = "withdrawn, as its procedure was given up";

    /// Whether it is by now.
    pub fn is_over(&self) -> bool {
        let Some((cluster, procedure, known)) = &self.0 else {
            return false;
        };
        known.borrow().get(cluster).is_some_and(|newest| newest >= procedure)
    }

    /// What comes of `work`; nothing once the order is withdrawn.
    pub async fn unless_over<T>(self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.over() => None,
            done = work => Some(done),
        }
    }

    async fn over(mut self) {
        while !self.is_over() {
            let changed = match &mut self.0 {
                Some((_, _, known)) => known.changed().await.is_ok(),
                None => false,
            };
            if !changed {
                return std::future::pending().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Withdrawal, Withdrawals};
    use std::future::{pending, ready};

    #[tokio::test]
    async fn what_was_given_up_ends_and_what_comes_next_does_not() {
        let withdrawals = Withdrawals::default();
        let (old, next) = (withdrawals.of(&"shop".into(), 4), withdrawals.of(&"shop".into(), 5));
        let elsewhere = withdrawals.of(&"blog".into(), 4);
        let waiting = tokio::spawn(old.clone().unless_over(pending::<()>()));
        assert!(!old.is_over());
        withdrawals.note("shop".into(), 4);
        assert_eq!(waiting.await.unwrap(), None);
        withdrawals.note("shop".into(), 3);
        assert!(old.is_over() && !next.is_over() && !elsewhere.is_over());
        assert_eq!(old.unless_over(ready(())).await, None, "not even begun");
        assert_eq!(next.unless_over(ready(7)).await, Some(7));
        assert_eq!(Withdrawal::default().unless_over(ready(7)).await, Some(7));
    }
}
