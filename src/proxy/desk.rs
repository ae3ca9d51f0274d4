//! Drives the routes: the one place where they are locked, asked, and their effects applied.

use super::metrics::{ClusterMetrics, Metrics};
use super::routes::{Decision, Effect, Forward, Purpose, Routes, SessionId};
use crate::clock::{Clock, Moment};
use crate::config::WatcherSpec;
use crate::decision::lease::FromProxy;
use crate::decision::topology::{ClusterName, ServerName, WatcherName};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Messages that wait for one watcher; more are dropped, since renewals soon repeat.
const OUTBOX: usize = 32;

/// The routes with everything their effects touch.
#[derive(Debug)]
pub(super) struct Desk {
    clock: Clock,
    state: Mutex<State>,
    clusters: BTreeMap<ClusterName, Arc<ClusterDesk>>,
    outboxes: BTreeMap<WatcherName, mpsc::Sender<FromProxy>>,
    /// The timer's next deadline may have come closer.
    sooner: Notify,
}

#[derive(Debug)]
struct State {
    routes: Routes,
    open: BTreeMap<SessionId, Open>,
}

#[derive(Debug)]
struct Open {
    cluster: Arc<ClusterDesk>,
    cut: CancellationToken,
}

/// What all sessions of one cluster share.
#[derive(Debug)]
pub(super) struct ClusterDesk {
    pub(super) name: ClusterName,
    pub(super) hold: Duration,
    pub(super) permits: Arc<Semaphore>,
    pub(super) metrics: ClusterMetrics,
    /// The end of the write lease as a `Moment`, read before each chunk.
    lease_end: AtomicU64,
    opened: watch::Sender<()>,
}

impl ClusterDesk {
    pub(super) fn with(
        name: &ClusterName,
        hold: Duration,
        limit: usize,
        metrics: &Metrics,
    ) -> ClusterDesk {
        ClusterDesk {
            name: name.clone(),
            hold,
            permits: Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))),
            metrics: metrics.of(name),
            lease_end: AtomicU64::new(0),
            opened: watch::Sender::new(()),
        }
    }

    /// Changes whenever a route opens; subscribe before asking, so that none is missed.
    pub(super) fn opened(&self) -> watch::Receiver<()> {
        self.opened.subscribe()
    }
}

impl Desk {
    /// Returns the desk and one outbox per watcher, in their order.
    pub(super) fn new(
        clock: Clock,
        routes: Routes,
        clusters: BTreeMap<ClusterName, Arc<ClusterDesk>>,
        watchers: &[WatcherSpec],
    ) -> (Desk, Vec<mpsc::Receiver<FromProxy>>) {
        let mut outboxes = BTreeMap::new();
        let mut receivers = Vec::new();
        for watcher in watchers {
            let (sender, receiver) = mpsc::channel(OUTBOX);
            outboxes.insert(watcher.id.clone(), sender);
            receivers.push(receiver);
        }
        let state = Mutex::new(State { routes, open: BTreeMap::new() });
        (Desk { clock, state, clusters, outboxes, sooner: Notify::new() }, receivers)
    }

    pub(super) fn cluster(&self, name: &ClusterName) -> Arc<ClusterDesk> {
        Arc::clone(self.clusters.get(name).expect("only declared clusters have listeners"))
    }

    pub(super) fn now(&self) -> Moment {
        self.clock.now().moment
    }

    /// Reads something from the routes.
    pub(super) fn look<T>(&self, read: impl FnOnce(&Routes) -> T) -> T {
        read(&self.lock().routes)
    }

    pub(super) fn all_routed(&self) -> bool {
        let now = self.now();
        self.look(|routes| self.clusters.keys().all(|name| routes.lease_end(name) > now))
    }

    /// Changes the routes and applies what follows, as one.
    pub(super) fn drive(&self, change: impl FnOnce(&mut Routes, Moment) -> Vec<Effect>) {
        let mut state = self.lock();
        let now = self.now();
        let effects = change(&mut state.routes, now);
        for effect in effects {
            self.apply(&state, effect);
        }
        for (name, cluster) in &self.clusters {
            let end = state.routes.lease_end(name);
            cluster.lease_end.store(end.0, Ordering::Release);
            let left = i64::try_from(now.until(end).as_millis()).unwrap_or(i64::MAX);
            cluster.metrics.lease.set(if end == Moment(u64::MAX) { -1 } else { left });
            let epoch = state.routes.epoch(name).0;
            cluster.metrics.epoch.set(i64::try_from(epoch).unwrap_or(i64::MAX));
        }
        drop(state);
        self.sooner.notify_one();
    }

    /// Asks for a route; the permission must be dropped when the session has ended.
    pub(super) fn open(
        self: &Arc<Self>,
        cluster: &Arc<ClusterDesk>,
        purpose: Purpose,
        failed: &[ServerName],
    ) -> Option<Permission> {
        let mut state = self.lock();
        let now = self.now();
        match state.routes.open(now, &cluster.name, purpose, failed) {
            Decision::Hold => None,
            Decision::Forward(forward) => {
                let cut = CancellationToken::new();
                let open = Open { cluster: Arc::clone(cluster), cut: cut.clone() };
                state.open.insert(forward.session, open);
                let (desk, cluster) = (Arc::clone(self), Arc::clone(cluster));
                Some(Permission { desk, cluster, forward, cut })
            }
        }
    }

    /// Calls `tick` whenever it is due, for ever.
    pub(super) async fn keep_time(self: Arc<Self>) {
        loop {
            self.drive(Routes::tick);
            let deadline = self.look(Routes::next_deadline);
            let wait = self.now().until(deadline);
            // Drains the notice that `drive` above left behind.
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.earlier_than(deadline) => {}
            }
        }
    }

    async fn earlier_than(&self, deadline: Moment) {
        loop {
            self.sooner.notified().await;
            if self.look(Routes::next_deadline) < deadline {
                return;
            }
        }
    }

    fn apply(&self, state: &State, effect: Effect) {
        match effect {
            Effect::Send { to: Some(watcher), message } => {
                if let Some(outbox) = self.outboxes.get(&watcher) {
                    let _ = outbox.try_send(message);
                }
            }
            Effect::Send { to: None, message } => {
                for outbox in self.outboxes.values() {
                    let _ = outbox.try_send(message.clone());
                }
            }
            Effect::Cut { session, reason } => {
                if let Some(open) = state.open.get(&session) {
                    open.cluster.metrics.cut(reason);
                    open.cut.cancel();
                }
            }
            Effect::Opened { cluster } => {
                if let Some(cluster) = self.clusters.get(&cluster) {
                    cluster.opened.send_replace(());
                }
            }
        }
    }

    /// A panic elsewhere cannot leave the routes half changed in a way that matters more than
    /// going on: every deadline in them is absolute.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The permission to carry one session; gives it back when dropped.
#[derive(Debug)]
pub(super) struct Permission {
    desk: Arc<Desk>,
    cluster: Arc<ClusterDesk>,
    pub(super) forward: Forward,
    cut: CancellationToken,
}

impl Permission {
    /// Whether a chunk may be forwarded at this very moment.
    pub(super) fn holds(&self) -> bool {
        let leased = || self.cluster.lease_end.load(Ordering::Acquire) > self.desk.now().0;
        !self.cut.is_cancelled() && (!self.forward.writable || leased())
    }

    /// Waits until the session must end.
    pub(super) async fn is_cut(&self) {
        self.cut.cancelled().await;
    }
}

impl Drop for Permission {
    fn drop(&mut self) {
        let session = self.forward.session;
        let ended = self.desk.lock().open.remove(&session);
        if ended.is_some() {
            self.desk.drive(|routes, now| routes.close(now, &self.cluster.name, session));
        }
    }
}
