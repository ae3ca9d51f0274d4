//! Where sessions may go, until when, and which must end: pure, driven by messages and the time.
//!
//! Every method takes the present and returns what is to be done, in order. A lease counts from the
//! moment a renewal was sent, on this proxy's own clock. Sessions that can write are cut when their
//! epoch is superseded or the lease runs out; only when the last of an older epoch has really
//! ended does a renewal report the newer epoch as seen, for that is what the leader waits for.
//!
//! Sessions on replicas outlive a lease: a replica takes no writes. They end when their server
//! becomes the primary, and when an epoch was missed in which it may have been.

use crate::clock::Moment;
use crate::decision::lease::{FromProxy, Route, Target, ToProxy};
use crate::decision::topology::{ClusterName, DataCenter, Epoch, ServerName, Timing, WatcherName};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

/// The least time between two renewals that something new has caused.
const URGENT_SPACING: Duration = Duration::from_millis(5);
/// The least time between two renewals because sessions wait or a server could not be reached.
const WAITING_SPACING: Duration = Duration::from_millis(20);
/// Between two renewals while no leader is known.
const SEARCH_SPACING: Duration = Duration::from_millis(100);
/// More renewals than this are never awaited at once; the oldest are given up.
const AWAITED: usize = 512;

/// All routes a proxy holds, and the sessions it carries on them.
#[derive(Clone, Debug)]
pub struct Routes {
    timing: Timing,
    data_center: Option<DataCenter>,
    leader: Option<WatcherName>,
    /// When renewals were sent whose lease could still run; oldest first.
    sent: VecDeque<Moment>,
    /// The newest `sent` that was granted; older grants say nothing new.
    granted: Moment,
    next_renewal: Moment,
    clusters: BTreeMap<ClusterName, Held>,
    last_session: u64,
}

/// What is known of one cluster.
#[derive(Clone, Debug, Default)]
struct Held {
    /// The newest epoch heard of.
    known: Epoch,
    /// The one server that this epoch names as primary, once it has named one.
    primary: Option<ServerName>,
    /// Where writes go; only ever of the epoch `known`.
    write: Option<Target>,
    reads: Vec<Target>,
    until: Moment,
    kept: bool,
    sessions: BTreeMap<SessionId, Session>,
    /// How many clients wait for a route.
    waiting: usize,
    /// A server could not be reached since the last renewal.
    unreached: bool,
}

#[derive(Clone, Debug)]
struct Session {
    epoch: Epoch,
    server: ServerName,
    writable: bool,
    cut: bool,
}

/// Names one session of one proxy; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// What a client came for, by the port it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The primary.
    Write,
    /// A replica, or the primary when there is none.
    Read,
}

impl Purpose {
    /// For logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Write => "write",
            Purpose::Read => "read",
        }
    }
}

/// What to do with a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Connect it; call [`Routes::close`] with the session when it has ended.
    Forward(Forward),
    /// Let it wait; ask again after [`Effect::Opened`].
    Hold,
}

/// A session that may be carried now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Its name.
    pub session: SessionId,
    /// Where to.
    pub target: Target,
    /// The epoch it belongs to.
    pub epoch: Epoch,
    /// Whether it reaches the primary, so that the lease governs it.
    pub writable: bool,
    /// The end of the lease as it stands; later grants move it.
    pub until: Moment,
}

/// Something to be done by whoever drives [`Routes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send to a watcher; to all of them when none is named.
    Send {
        /// To whom.
        to: Option<WatcherName>,
        /// What.
        message: FromProxy,
    },
    /// End a session at once, then call [`Routes::close`].
    Cut {
        /// Which.
        session: SessionId,
        /// Why.
        reason: CutReason,
    },
    /// A route opened or changed: clients that wait may ask again.
    Opened {
        /// Whose.
        cluster: ClusterName,
    },
}

/// Why a session was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CutReason {
    /// Its epoch is over.
    Superseded,
    /// The lease ran out.
    LeaseRanOut,
    /// The leader took the route away.
    Revoked,
    /// It reads from a server that became the primary.
    Promoted,
}

impl CutReason {
    /// All of them.
    pub const ALL: [CutReason; 4] =
        [CutReason::Superseded, CutReason::LeaseRanOut, CutReason::Revoked, CutReason::Promoted];

    /// For logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            CutReason::Superseded => "superseded",
            CutReason::LeaseRanOut => "lease_ran_out",
            CutReason::Revoked => "revoked",
            CutReason::Promoted => "promoted",
        }
    }
}

impl fmt::Display for CutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Routes {
    /// Knows no route and asks all watchers at its first `tick`.
    pub fn new(timing: Timing, data_center: Option<DataCenter>) -> Routes {
        Routes {
            timing,
            data_center,
            leader: None,
            sent: VecDeque::new(),
            granted: Moment::ZERO,
            next_renewal: Moment::ZERO,
            clusters: BTreeMap::new(),
            last_session: 0,
        }
    }

    /// Call at [`Routes::next_deadline`], or whenever; ends leases and sends renewals that are due.
    pub fn tick(&mut self, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        for held in self.clusters.values_mut() {
            if held.write.is_some() && !held.kept && now >= held.until {
                held.write = None;
                held.cut(&mut effects, CutReason::LeaseRanOut, |session| session.writable);
            }
        }
        self.renew_if_due(now, &mut effects);
        effects
    }

    /// When `tick` has something to do next.
    pub fn next_deadline(&self) -> Moment {
        let governed = |held: &&Held| held.write.is_some() && !held.kept;
        let leases = self.clusters.values().filter(governed).map(|held| held.until);
        leases.min().map_or(self.next_renewal, |first| first.min(self.next_renewal))
    }

    /// Takes in what a watcher says.
    pub fn on_message(&mut self, now: Moment, from: &WatcherName, message: ToProxy) -> Vec<Effect> {
        let mut effects = self.tick(now);
        match message {
            ToProxy::Granted { sent, span, routes } => {
                self.granted(now, from, Grant { sent, until: sent + span, routes }, &mut effects);
            }
            ToProxy::Changed { cluster, epoch, leader } => {
                let held = self.clusters.entry(cluster).or_default();
                if epoch >= held.known {
                    let newer = epoch > held.known;
                    held.supersede(epoch, &mut effects);
                    self.leader = leader.or(self.leader.take());
                    self.renew_within(now, if newer { Duration::ZERO } else { URGENT_SPACING });
                }
            }
            ToProxy::NotLeader { leader } => self.not_leader(now, from, leader),
        }
        self.renew_if_due(now, &mut effects);
        effects
    }

    /// The link to a watcher came up or went down; a new one is worth asking, a lost leader is not.
    pub fn on_link(&mut self, now: Moment, watcher: &WatcherName, up: bool) -> Vec<Effect> {
        if !up && self.leader.as_ref() == Some(watcher) {
            self.leader = None;
        }
        if self.leader.is_none() {
            self.renew_within(now, URGENT_SPACING);
        }
        self.tick(now)
    }

    /// Decides on a client now, and enters the session if it may be carried.
    ///
    /// `failed` names servers that this client was just unable to reach; a read avoids them as long
    /// as there is another.
    pub fn open(
        &mut self,
        now: Moment,
        cluster: &ClusterName,
        purpose: Purpose,
        failed: &[ServerName],
    ) -> Decision {
        let Some(held) = self.clusters.get_mut(cluster) else {
            return Decision::Hold;
        };
        let target = match purpose {
            Purpose::Write => held.write_target(now).cloned(),
            Purpose::Read => held.read_target(now, self.data_center.as_ref(), failed).cloned(),
        };
        let Some(target) = target else {
            return Decision::Hold;
        };
        let writable = held.primary.as_ref() == Some(&target.server);
        self.last_session += 1;
        let session = SessionId(self.last_session);
        let (epoch, server) = (held.known, target.server.clone());
        held.sessions.insert(session, Session { epoch, server, writable, cut: false });
        let until = held.lease_end();
        Decision::Forward(Forward { session, target, epoch, writable, until })
    }

    /// Notes that a session has ended: not a byte of it will be forwarded any more.
    pub fn close(&mut self, now: Moment, cluster: &ClusterName, session: SessionId) -> Vec<Effect> {
        let Some(held) = self.clusters.get_mut(cluster) else {
            return Vec::new();
        };
        let before = held.seen();
        held.sessions.remove(&session);
        if held.seen() == before {
            return Vec::new();
        }
        self.renew_within(now, Duration::ZERO);
        self.tick(now)
    }

    /// A server to which a client was to be connected refused or did not answer. Clients come back at once when
    /// theirs dies, and so find out before its next probe is due; the watchers are told, who look for themselves.
    pub fn unreached(&mut self, now: Moment, cluster: &ClusterName) -> Vec<Effect> {
        if let Some(held) = self.clusters.get_mut(cluster) {
            held.unreached = true;
            self.renew_within(now, WAITING_SPACING);
        }
        self.tick(now)
    }

    /// A client waits for a route of this cluster: watchers are asked sooner until it stops.
    pub fn wait(&mut self, now: Moment, cluster: &ClusterName) -> Vec<Effect> {
        self.clusters.entry(cluster.clone()).or_default().waiting += 1;
        self.renew_within(now, WAITING_SPACING);
        self.tick(now)
    }

    /// A client that waited has stopped.
    pub fn stop_waiting(&mut self, cluster: &ClusterName) {
        if let Some(held) = self.clusters.get_mut(cluster) {
            held.waiting = held.waiting.saturating_sub(1);
        }
    }

    /// Until when writable sessions of the newest epoch may forward; past when there is no route.
    pub fn lease_end(&self, cluster: &ClusterName) -> Moment {
        self.clusters.get(cluster).map_or(Moment::ZERO, Held::lease_end)
    }

    /// The newest epoch heard of.
    pub fn epoch(&self, cluster: &ClusterName) -> Epoch {
        self.clusters.get(cluster).map_or(Epoch::default(), |held| held.known)
    }

    /// Sessions entered and not closed yet.
    pub fn sessions(&self, cluster: &ClusterName) -> usize {
        self.clusters.get(cluster).map_or(0, |held| held.sessions.len())
    }

    /// The watcher that is believed to lead.
    pub fn leader(&self) -> Option<&WatcherName> {
        self.leader.as_ref()
    }

    fn granted(
        &mut self,
        now: Moment,
        from: &WatcherName,
        grant: Grant,
        effects: &mut Vec<Effect>,
    ) {
        // Newer epochs are news whenever they come; leases only count as answers to our own asking.
        for (cluster, route) in &grant.routes {
            let held = self.clusters.entry(cluster.clone()).or_default();
            if route.epoch > held.known {
                held.supersede(route.epoch, effects);
                self.next_renewal = now;
            }
        }
        if !self.sent.contains(&grant.sent) || grant.sent < self.granted {
            return;
        }
        self.granted = grant.sent;
        self.leader = Some(from.clone());
        for (cluster, held) in &mut self.clusters {
            match grant.routes.get(cluster) {
                Some(route) if held.install(now, route, grant.until, effects) => {
                    effects.push(Effect::Opened { cluster: cluster.clone() });
                }
                Some(_) => {}
                None => held.revoke(effects),
            }
        }
    }

    fn not_leader(&mut self, now: Moment, from: &WatcherName, leader: Option<WatcherName>) {
        let believed = self.leader.as_ref() == Some(from);
        match leader {
            Some(other) if &other != from && (believed || self.leader.is_none()) => {
                self.leader = Some(other);
                self.renew_within(now, WAITING_SPACING);
            }
            Some(_) | None if believed => {
                self.leader = None;
                self.renew_within(now, WAITING_SPACING);
            }
            Some(_) | None => {}
        }
    }

    /// Makes the next renewal due now, or `spacing` after the last one if that is later.
    fn renew_within(&mut self, now: Moment, spacing: Duration) {
        let earliest = self.sent.back().map_or(now, |last| (*last + spacing).max(now));
        self.next_renewal = self.next_renewal.min(earliest);
    }

    fn renew_if_due(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if now < self.next_renewal {
            return;
        }
        // A leader that left the last regular renewal unanswered may be gone.
        let overdue = self.sent.back().is_some_and(|last| {
            *last > self.granted && now.since(self.granted) > self.timing.lease_renewal * 2
        });
        if overdue {
            self.leader = None;
        }
        let lease = self.timing.lease;
        while self.sent.front().is_some_and(|sent| *sent + lease <= now) {
            self.sent.pop_front();
        }
        if self.sent.len() >= AWAITED {
            self.sent.pop_front();
        }
        if self.sent.back() != Some(&now) {
            self.sent.push_back(now);
        }
        self.next_renewal = now + self.spacing();
        let count = |held: &Held| held.sessions.len() as u64;
        let seen = self.clusters.iter().map(|(name, held)| (name.clone(), held.seen())).collect();
        let sessions =
            self.clusters.iter().map(|(name, held)| (name.clone(), count(held))).collect();
        let unreached = self.take_unreached();
        let message = FromProxy::Renew { sent: now, seen, sessions, unreached };
        effects.push(Effect::Send { to: self.leader.clone(), message });
    }

    fn take_unreached(&mut self) -> BTreeSet<ClusterName> {
        let taken = |held: &mut Held| std::mem::take(&mut held.unreached);
        let clusters =
            self.clusters.iter_mut().filter_map(|(name, held)| taken(held).then_some(name));
        clusters.cloned().collect()
    }

    fn spacing(&self) -> Duration {
        let waiting = self.clusters.values().any(|held| held.waiting > 0);
        let regular = self.timing.lease_renewal;
        match (&self.leader, waiting) {
            (_, true) => regular.min(WAITING_SPACING * 2),
            (None, false) => regular.min(SEARCH_SPACING),
            (Some(_), false) => regular,
        }
    }
}

/// A grant with its end on this proxy's clock.
struct Grant {
    sent: Moment,
    until: Moment,
    routes: BTreeMap<ClusterName, Route>,
}

impl Held {
    fn write_target(&self, now: Moment) -> Option<&Target> {
        self.write.as_ref().filter(|_| self.kept || now < self.until)
    }

    fn read_target(
        &self,
        now: Moment,
        home: Option<&DataCenter>,
        failed: &[ServerName],
    ) -> Option<&Target> {
        let primary = self.primary.as_ref();
        let replicas = || self.reads.iter().filter(|read| Some(&read.server) != primary);
        let load = |read: &&Target| {
            self.sessions.values().filter(|session| session.server == read.server).count()
        };
        let near = |read: &&Target| home == Some(&read.data_center);
        let fresh = |read: &&Target| !failed.contains(&read.server);
        replicas()
            .filter(fresh)
            .filter(near)
            .min_by_key(load)
            .or_else(|| replicas().filter(fresh).min_by_key(load))
            .or_else(|| self.write_target(now).filter(fresh))
            .or_else(|| replicas().min_by_key(load))
            .or_else(|| self.write_target(now))
    }

    fn lease_end(&self) -> Moment {
        match (&self.write, self.kept) {
            (None, _) => Moment::ZERO,
            (Some(_), true) => Moment(u64::MAX),
            (Some(_), false) => self.until,
        }
    }

    /// The newest epoch of which no older writable session is left.
    fn seen(&self) -> Epoch {
        let open = self.sessions.values().filter(|session| session.writable);
        open.map(|session| session.epoch).min().map_or(self.known, |oldest| oldest.min(self.known))
    }

    /// A newer epoch exists: nothing of an older one may be forwarded to a primary from here on.
    fn supersede(&mut self, epoch: Epoch, effects: &mut Vec<Effect>) {
        if epoch <= self.known {
            return;
        }
        // Whoever was primary in an epoch that was missed, sessions on it look like reads to us.
        let missed = self.known.next() < epoch && self.known > Epoch::default();
        self.known = epoch;
        self.primary = None;
        self.write = None;
        self.kept = false;
        self.cut(effects, CutReason::Superseded, |session| session.writable || missed);
    }

    /// Takes over a route of the known epoch; true when something opened or moved.
    fn install(
        &mut self,
        now: Moment,
        route: &Route,
        until: Moment,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if route.epoch != self.known {
            return false;
        }
        let server = route.write.as_ref().map(|target| &target.server);
        // One epoch has one primary. A leader that names another is not to be believed.
        if self.primary.is_some() && server.is_some() && self.primary.as_ref() != server {
            return false;
        }
        if server.is_none() {
            self.cut(effects, CutReason::Revoked, |session| session.writable);
        } else if self.primary.is_none() {
            self.primary = server.cloned();
            let promoted = |session: &Session| !session.writable && Some(&session.server) == server;
            self.cut(effects, CutReason::Promoted, promoted);
        }
        // The primary is no replica whatever a list says: a session on it must know that it writes.
        let replica = |read: &&Target| Some(&read.server) != self.primary.as_ref();
        let reads: Vec<Target> = route.reads.iter().filter(replica).cloned().collect();
        let moved = self.write != route.write || self.reads != reads;
        self.until = self.until.max(until);
        self.kept = route.kept_without_quorum;
        let usable = self.kept || now < self.until;
        self.write = route.write.clone().filter(|_| usable);
        self.reads = reads;
        moved
    }

    /// The leader knows of no route for this cluster.
    fn revoke(&mut self, effects: &mut Vec<Effect>) {
        self.write = None;
        self.reads.clear();
        self.kept = false;
        self.cut(effects, CutReason::Revoked, |_| true);
    }

    fn cut(
        &mut self,
        effects: &mut Vec<Effect>,
        reason: CutReason,
        which: impl Fn(&Session) -> bool,
    ) {
        for (id, session) in &mut self.sessions {
            if !session.cut && which(session) {
                session.cut = true;
                effects.push(Effect::Cut { session: *id, reason });
            }
        }
    }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
