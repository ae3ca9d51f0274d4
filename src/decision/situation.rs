//! A situation: everything a decision about one cluster looks at, as one value.
//!
//! The leader makes one from its table of reports and the replicated state; `regent explain
//! --situation` makes one from a file. All times in it are ages, so it means the same anywhere.

use super::adoption::{self, Verdict};
use super::cluster::{ClusterState, Command, Writer};
use super::gtid::Gtids;
use super::procedure::{Ending, Kind};
use super::report::{Channel, Receiver, Sight, Status, StorageFault};
use super::topology::{ClusterSpec, DataCenter, ServerName, ServerSpec, Timing, WatcherName};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Everything a decision about one cluster looks at.
#[derive(Clone, Debug)]
pub struct Situation {
    /// The cluster as declared.
    pub spec: Arc<ClusterSpec>,
    /// What the watchers have agreed on.
    pub state: ClusterState,
    /// How long things take.
    pub timing: Timing,
    /// All declared watchers, and where they stand.
    pub watchers: BTreeMap<WatcherName, DataCenter>,
    /// What each watcher last saw of each server.
    pub views: BTreeMap<ServerName, BTreeMap<WatcherName, View>>,
    /// For how long the leader's canary row could not be written on the primary although it was
    /// tried; `None` while writing it works, or while nobody tries.
    pub canary_stalled: Option<Duration>,
    /// Why the primary refused the leader's last canary row, where its storage is to blame.
    pub canary_refused: Option<StorageFault>,
}

/// So many probes of each watcher are remembered, to tell a server that comes and goes.
pub const PROBES_REMEMBERED: u32 = 32;

/// What one watcher last saw of one server.
#[derive(Clone, Debug)]
pub struct View {
    /// What it saw.
    pub sight: Sight,
    /// How old that is.
    pub age: Duration,
    /// For how long it has seen this kind of thing without a break.
    pub lasting: Duration,
    /// In how many probes in a row; failed ones confirm each other, whatever their kind.
    pub times: u32,
    /// How often the server ceased to answer within the last [`PROBES_REMEMBERED`] probes.
    pub falls: u32,
    /// How long ago the server was last seen to receive something from its source, be it only a
    /// heartbeat; `None` when never.
    pub heard_source: Option<Duration>,
    /// For how long it has been set to follow what it follows, as far as was seen.
    pub following: Duration,
    /// How long ago it was last alive to this watcher; `None` when never.
    pub last_alive: Option<Duration>,
    /// What it held when it was last alive to this watcher, if it no longer is.
    pub held: Option<Gtids>,
}

impl View {
    /// A view of this moment, for tests and files.
    pub fn fresh(sight: Sight) -> View {
        View {
            sight,
            age: Duration::from_millis(100),
            lasting: Duration::from_secs(10),
            times: 50,
            falls: 0,
            heard_source: None,
            following: Duration::from_secs(10),
            last_alive: None,
            held: None,
        }
    }
}

impl Situation {
    /// What one look at each server shows to somebody who asks no watcher.
    pub fn at_a_glance(
        spec: Arc<ClusterSpec>,
        timing: Timing,
        seen: Vec<(ServerName, Sight)>,
    ) -> Situation {
        let here = WatcherName::from("here");
        let place = spec.servers.first().map(|server| server.data_center.clone());
        let view = |sight: Sight| {
            let channel = sight.status().and_then(Status::channel);
            let connected = channel.is_some_and(|it| it.receiver == Receiver::Connected);
            View { heard_source: connected.then_some(Duration::ZERO), ..View::fresh(sight) }
        };
        let views = seen
            .into_iter()
            .map(|(server, sight)| (server, BTreeMap::from([(here.clone(), view(sight))])));
        let mut situation = Situation {
            views: views.collect(),
            watchers: place.into_iter().map(|place| (here.clone(), place)).collect(),
            spec,
            state: ClusterState::default(),
            timing,
            canary_stalled: None,
            canary_refused: None,
        };
        if let Verdict::Primary { server: primary, .. } = adoption::verdict(&situation) {
            situation.state.writer = Writer::Open { primary };
        }
        situation
    }

    /// Watchers that make a majority.
    pub fn majority(&self) -> usize {
        self.watchers.len() / 2 + 1
    }

    /// The age from which on a view says nothing any more: three intervals, and never less than
    /// one timed-out probe with the interval before and after it.
    pub fn stale_after(&self) -> Duration {
        stale_after(&self.timing)
    }

    /// The views of a server that are not stale.
    pub fn fresh(&self, server: &ServerName) -> impl Iterator<Item = (&WatcherName, &View)> {
        let limit = self.stale_after();
        self.views.get(server).into_iter().flatten().filter(move |(_, view)| view.age <= limit)
    }

    /// The newest status of a server among fresh views.
    pub fn status(&self, server: &ServerName) -> Option<&Status> {
        let alive = self.fresh(server).filter(|(_, view)| view.sight.status().is_some());
        alive.min_by_key(|(_, view)| view.age).and_then(|(_, view)| view.sight.status())
    }

    /// How many watchers see the server alive right now.
    pub fn alive_to(&self, server: &ServerName) -> usize {
        self.fresh(server).filter(|(_, view)| view.sight.shows_life()).count()
    }

    /// The primary of the current epoch, or the one being replaced.
    pub fn primary(&self) -> Option<&ServerSpec> {
        let name = match &self.state.writer {
            Writer::Open { primary } => primary,
            Writer::Closed { former } => former,
            Writer::Unassigned => return None,
        };
        self.spec.server(name)
    }

    /// Whether a server is set to follow that one, by its newest status.
    pub fn follows(&self, server: &ServerName, source: &ServerSpec) -> bool {
        let channel = self.status(server).and_then(Status::channel);
        channel.is_some_and(|channel| channel.source == source.address)
    }

    /// Whether what a server follows is the primary, or the server that its declaration allows it
    /// to follow instead and that replicates from the primary itself.
    pub fn leads_to_primary(&self, server: &ServerSpec) -> bool {
        let Some(primary) = self.primary() else {
            return false;
        };
        let relay = server.follows.as_ref().and_then(|name| self.spec.server(name));
        let relays = |relay: &ServerSpec| {
            let channel = self.status(&relay.name).and_then(Status::channel);
            channel.is_some_and(|it| it.source == primary.address && it.listens() && it.applying)
        };
        self.follows(&server.name, primary)
            || relay.is_some_and(|relay| self.follows(&server.name, relay) && relays(relay))
    }

    /// All declared servers but the primary.
    pub fn replicas(&self) -> impl Iterator<Item = &ServerSpec> {
        let primary = self.primary().map(|server| server.name.clone());
        self.spec.servers.iter().filter(move |server| Some(&server.name) != primary.as_ref())
    }

    /// What a cluster does whose open rejoin must not be in the way: it gives way, and is made again.
    pub fn make_way(&self, to: &str) -> Option<Command> {
        let open = self.state.procedure.as_ref().filter(|open| open.kind == Kind::Rejoin)?;
        Some(Command::Close {
            cluster: self.spec.name.clone(),
            procedure: open.id,
            ending: Ending::Yielded { text: to.to_owned() },
        })
    }

    /// Whether a server's data is being replaced, so that it holds nothing that counts.
    pub fn is_rebuilding(&self, server: &ServerName) -> bool {
        self.state.rebuilding.contains_key(server)
    }

    /// The replicas that hold whatever they say they hold.
    pub fn whole_replicas(&self) -> impl Iterator<Item = &ServerSpec> {
        self.replicas().filter(|server| !self.is_rebuilding(&server.name))
    }

    /// Replicas that lately received something from the primary, with how long ago: each of them
    /// proves that it lives.
    pub fn witnesses(&self) -> Vec<(&ServerName, Duration)> {
        let Some(primary) = self.primary() else {
            return Vec::new();
        };
        let window = witness_window(&self.timing);
        let mut witnesses = Vec::new();
        for replica in self.replicas() {
            let heard = self.fresh(&replica.name).filter_map(|(_, view)| {
                let channel = view.sight.status()?.channel()?;
                let connected = channel.receiver == Receiver::Connected;
                let heard = view.heard_source? + view.age;
                (connected && channel.source == primary.address && heard <= window).then_some(heard)
            });
            if let Some(heard) = heard.min() {
                witnesses.push((&replica.name, heard));
            }
        }
        witnesses
    }

    /// Replicas that try to receive from the primary and hear nothing, though they are well and had time
    /// to come to terms with it: over a long line that alone takes two seconds.
    pub fn deaf(&self) -> Vec<&ServerName> {
        let witnesses = self.witnesses();
        let heard =
            |replica: &&ServerSpec| witnesses.iter().any(|(name, _)| **name == replica.name);
        let listens = |replica: &&ServerSpec| {
            let channel = self.status(&replica.name).and_then(Status::channel);
            let of_primary = |channel: &&Channel| {
                self.primary().is_some_and(|primary| channel.source == primary.address)
            };
            channel.filter(of_primary).is_some_and(Channel::listens)
        };
        let settled = |replica: &&ServerSpec| {
            let least = witness_window(&self.timing) * 3;
            self.fresh(&replica.name).all(|(_, view)| view.following >= least)
        };
        let deaf = self
            .replicas()
            .filter(|replica| listens(replica) && settled(replica) && !heard(replica));
        deaf.map(|replica| &replica.name).collect()
    }

    /// The same situation, did these servers follow the primary already.
    #[must_use]
    pub fn joined_by(&self, servers: &[&ServerSpec], primary: &ServerSpec) -> Situation {
        let mut changed = self.clone();
        for server in servers {
            let views = changed.views.get_mut(&server.name);
            for view in views.into_iter().flat_map(BTreeMap::values_mut) {
                if let Sight::Alive(status) = &mut view.sight {
                    status.channels = vec![Channel::steady(primary, &status.executed)];
                }
            }
        }
        changed
    }

    /// The same situation, had that server just died and everybody noticed.
    #[must_use]
    pub fn without(&self, server: &ServerName) -> Situation {
        let mut changed = self.clone();
        for (name, views) in &mut changed.views {
            for view in views.values_mut() {
                if name == server {
                    let seen = view.sight.status().map(|status| status.executed.clone());
                    let last_alive = seen.is_some().then_some(view.age).or(view.last_alive);
                    let held = seen.or(view.held.take());
                    *view = View { last_alive, held, ..View::fresh(Sight::Refused) };
                } else if self.primary().is_some_and(|primary| &primary.name == server) {
                    view.heard_source = None;
                    if let Sight::Alive(status) = &mut view.sight {
                        for channel in &mut status.channels {
                            if channel.receiver == Receiver::Connected {
                                channel.receiver = Receiver::Connecting;
                            }
                        }
                    }
                }
            }
        }
        changed
    }
}

/// See [`Situation::stale_after`].
pub fn stale_after(timing: &Timing) -> Duration {
    (timing.probe_interval * 3).max(timing.probe_timeout + timing.probe_interval * 2)
}

/// For how long after the last heartbeat a replica still counts as proof that the primary lives:
/// four heartbeats, since one or two may be late on a busy machine.
pub fn witness_window(timing: &Timing) -> Duration {
    timing.replication_heartbeat * 4
}
