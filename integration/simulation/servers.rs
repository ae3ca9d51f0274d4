//! Model MySQL servers: what they hold, what they wait for, and what survives a crash.
//!
//! A server numbers its own transactions without gaps and sends its log in order, so what a server
//! holds of another one's transactions is always a prefix: a [`Held`] keeps its length per origin.

use crate::setting;
use regent::decision::gtid::Gtids;
use regent::decision::plan::Facts;
use regent::decision::report::{
    Channel, Receiver, ReplicationError, SemiSync, Settings, Status, StorageFault, Writable,
};
use regent::decision::topology::{Flavor, Version};
use std::collections::VecDeque;
use std::time::Duration;

/// How many transactions of each origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held(pub Vec<u64>);

impl Held {
    pub fn of(&self, origin: usize) -> u64 {
        self.0.get(origin).copied().unwrap_or(0)
    }

    pub fn raise(&mut self, origin: usize, seq: u64) {
        if self.0.len() <= origin {
            self.0.resize(origin + 1, 0);
        }
        self.0[origin] = self.0[origin].max(seq);
    }

    pub fn forget(&mut self, origin: usize) {
        if let Some(seq) = self.0.get_mut(origin) {
            *seq = 0;
        }
    }

    pub fn contains(&self, other: &Held) -> bool {
        other.0.iter().enumerate().all(|(origin, seq)| self.of(origin) >= *seq)
    }

    pub fn union(&self, other: &Held) -> Held {
        let mut both = self.clone();
        for (origin, seq) in other.0.iter().enumerate() {
            both.raise(origin, *seq);
        }
        both
    }

    pub fn gtids(&self) -> Gtids {
        let parts = self.0.iter().enumerate().filter(|(_, seq)| **seq > 0);
        let text: Vec<_> = parts.map(|(origin, seq)| format!("{}:1-{seq}", uuid(origin))).collect();
        Gtids::parse(Flavor::MySql, &text.join(",")).unwrap()
    }
}

/// One transaction.
#[derive(Clone, Copy, Debug)]
pub struct Txn {
    pub origin: usize,
    pub seq: u64,
    /// When it was written, for lag.
    pub at: u64,
}

/// A commit in the binary log that waits to be acknowledged (`AFTER_SYNC`).
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub seq: u64,
    pub write: u64,
    /// Bit per replica that has it.
    pub acked: u32,
}

/// A replica's connection to its source.
#[derive(Clone, Debug)]
pub struct Following {
    pub source: usize,
    pub receiver: bool,
    pub connected: bool,
    /// The source's life that the connection belongs to.
    pub source_life: u32,
    pub retry_at: u64,
    pub heard_at: u64,
    /// How much of the source's log was sent.
    pub position: usize,
    /// Whether it acknowledges; fixed when it connects.
    pub semi: bool,
    pub applier: bool,
    pub error: Option<u32>,
    /// With which error its last attempt to connect ended.
    pub turned_away: Option<u32>,
    pub received: Held,
    pub beats: u64,
}

/// A model server.
#[derive(Clone, Debug)]
pub struct Server {
    pub number: usize,
    pub up: bool,
    pub hung: bool,
    /// Answers nobody before that.
    pub ready_at: u64,
    pub life: u32,
    /// Client sessions of an older generation are gone.
    pub generation: u64,
    pub writable: Writable,
    pub closed_at_restart: bool,
    pub log: Vec<Txn>,
    pub executed: Held,
    pub relay: VecDeque<Txn>,
    pub following: Option<Following>,
    pub waiting: VecDeque<Waiting>,
    pub last_seq: u64,
    pub source_on: bool,
    pub acks: u32,
    pub replica_on: bool,
    /// The applier takes one transaction per so long.
    pub apply_gap: u64,
    pub applied_at: u64,
    /// Writes, its own replication's too, do not end; reads answer.
    pub stalled: bool,
    /// All connection slots are taken.
    pub full: bool,
    /// Why its storage takes nothing more: writes wait, and whoever makes a file is told.
    pub refuses: Option<StorageFault>,
    /// How much longer than usual an answer takes.
    pub busy: u64,
    /// The applier leaves each transaction for so long, on purpose.
    pub delay: u64,
    /// Writes that came while it hung: (write, generation).
    pub backlog: Vec<(u64, u64)>,
    /// The attempt that replaces its data right now, and since when.
    pub rebuilder: Option<((u64, u32), u64)>,
    /// When the copy that it holds was begun.
    pub copied: Option<u64>,
}

impl Server {
    pub fn new(number: usize, source: Option<usize>) -> Server {
        Server {
            number,
            up: true,
            hung: false,
            ready_at: 0,
            life: 1,
            generation: 1,
            writable: if source.is_some() { Writable::Closed } else { Writable::Open },
            closed_at_restart: true,
            log: Vec::new(),
            executed: Held::default(),
            relay: VecDeque::new(),
            following: source.map(Following::begin),
            waiting: VecDeque::new(),
            last_seq: 0,
            source_on: false,
            acks: 1,
            replica_on: false,
            apply_gap: 0,
            applied_at: 0,
            stalled: false,
            full: false,
            refuses: None,
            busy: 0,
            delay: 0,
            backlog: Vec::new(),
            rebuilder: None,
            copied: None,
        }
    }

    /// Loses all that it holds.
    pub fn empty(&mut self) {
        self.following = None;
        self.copied = None;
        self.log.clear();
        self.relay.clear();
        self.executed = Held::default();
    }

    pub fn answers(&self, now: u64) -> bool {
        self.up && !self.hung && now >= self.ready_at
    }

    /// Whether it runs and has applied all that it received.
    pub fn is_settled(&self) -> bool {
        self.up && self.relay.is_empty() && self.executed.contains(&self.received())
    }

    /// Lets commits wait for so many acknowledgements; zero leaves it as it is.
    pub fn wait_for(&mut self, acks: u32) {
        if acks > 0 {
            (self.source_on, self.acks) = (true, acks);
        }
    }

    pub fn received(&self) -> Held {
        match &self.following {
            Some(following) => self.executed.union(&following.received),
            None => self.executed.clone(),
        }
    }

    pub fn facts(&self) -> Facts {
        let (executed, received) = (self.executed.gtids(), self.received().gtids());
        Facts { executed: Some(executed), received: Some(received), ..Facts::default() }
    }

    /// Writes a transaction to the log; it is committed at once, or waits.
    pub fn write(&mut self, write: u64, now: u64) -> Option<u64> {
        self.last_seq = self.last_seq.max(self.executed.of(self.number)) + 1;
        let seq = self.last_seq;
        self.log.push(Txn { origin: self.number, seq, at: now });
        if self.source_on {
            self.waiting.push_back(Waiting { seq, write, acked: 0 });
            return None;
        }
        self.executed.raise(self.number, seq);
        Some(seq)
    }

    /// A replica says it has everything up to `seq`.
    pub fn acknowledge(&mut self, replica: usize, seq: u64) {
        for waiting in self.waiting.iter_mut().take_while(|waiting| waiting.seq <= seq) {
            waiting.acked |= 1 << replica;
        }
    }

    /// Commits that have waited long enough, in order.
    pub fn complete(&mut self) -> Vec<Waiting> {
        let mut done = Vec::new();
        let need = if self.source_on { self.acks } else { 0 };
        while let Some(first) = self.waiting.front() {
            if first.acked.count_ones() < need {
                break;
            }
            done.extend(self.waiting.pop_front());
        }
        for waiting in &done {
            self.executed.raise(self.number, waiting.seq);
        }
        done
    }

    /// Ends all client sessions; a commit that waits is committed, but nobody is told.
    pub fn end_sessions(&mut self) {
        self.generation += 1;
        for waiting in std::mem::take(&mut self.waiting) {
            self.executed.raise(self.number, waiting.seq);
        }
    }

    pub fn crash(&mut self) {
        self.up = false;
        (self.hung, self.stalled, self.full) = (false, false, false);
        self.refuses = None;
        self.backlog.clear();
        if let Some(following) = &mut self.following {
            following.connected = false;
        }
    }

    /// What is in the log is committed by recovery, acknowledged or not.
    pub fn restart(&mut self, now: u64, ready_in: u64, skip_start: bool, forgets: bool) {
        self.up = true;
        self.ready_at = now + ready_in;
        self.life += 1;
        self.end_sessions();
        self.writable = if self.closed_at_restart { Writable::Closed } else { Writable::Open };
        if forgets {
            (self.source_on, self.replica_on) = (false, false);
        }
        if let Some(following) = &mut self.following {
            following.connected = false;
            following.receiver = !skip_start;
            following.applier = !skip_start;
        }
    }

    /// Lets the applier take what it can by now.
    pub fn apply(&mut self, now: u64) {
        let running = self.following.as_ref().is_some_and(|one| one.applier && one.error.is_none());
        // A replica that waits for acknowledgements itself applies nothing without any.
        if !running || self.source_on {
            return;
        }
        let mut budget = 50;
        while let Some(first) = self.relay.front().copied() {
            if now < first.at + self.delay {
                break;
            }
            if budget == 0 || (self.apply_gap > 0 && now < self.applied_at + self.apply_gap) {
                break;
            }
            budget -= 1;
            self.relay.pop_front();
            self.applied_at = now;
            if self.executed.of(first.origin) < first.seq {
                self.executed.raise(first.origin, first.seq);
                self.log.push(first);
            }
        }
    }

    /// What a probe reads.
    pub fn status(&self, now: u64, clients: u32) -> Status {
        Status {
            flavor: Flavor::MySql,
            version: Version { major: 8, minor: 4, patch: 0 },
            server_id: u32::try_from(self.number).unwrap() + 1,
            uuid: Some(uuid(self.number)),
            writable: self.writable,
            executed: self.executed.gtids(),
            replicated: None,
            channels: self.following.iter().map(|one| self.channel(one, now)).collect(),
            semi_sync: SemiSync {
                available: true,
                source: self.source_on,
                replica: self.replica_on,
                acks: self.acks,
                timeout: Duration::from_secs(1_000_000),
                clients,
                waiting: u32::try_from(self.waiting.len()).unwrap(),
            },
            settings: Settings {
                restarts_open: Some(!self.closed_at_restart),
                ..Settings::default()
            },
            crowded: self.full,
        }
    }

    fn channel(&self, following: &Following, now: u64) -> Channel {
        let error =
            following.error.map(|code| ReplicationError { code, text: "injected".to_owned() });
        let behind = self.relay.front().map_or(0, |first| now.saturating_sub(first.at));
        Channel {
            name: String::new(),
            source: setting::address(following.source),
            receiver: match (following.receiver, following.connected) {
                (false, _) => Receiver::Stopped,
                (true, true) => Receiver::Connected,
                (true, false) => Receiver::Connecting,
            },
            applying: following.applier && following.error.is_none(),
            received: following.received.gtids(),
            beats: following.beats,
            lag: following.applier.then(|| Duration::from_secs(behind / 1_000_000)),
            delay: Duration::from_micros(self.delay),
            error,
            by_gtid: true,
            turned_away: following
                .turned_away
                .filter(|_| following.receiver && !following.connected),
        }
    }
}

impl Following {
    pub fn begin(source: usize) -> Following {
        Following {
            source,
            receiver: true,
            connected: false,
            source_life: 0,
            retry_at: 0,
            heard_at: 0,
            position: 0,
            semi: false,
            applier: true,
            error: None,
            turned_away: None,
            received: Held::default(),
            beats: 0,
        }
    }

    pub fn stop_receiver(&mut self) {
        self.receiver = false;
        self.connected = false;
    }

    pub fn start(&mut self, now: u64) {
        (self.receiver, self.turned_away) = (true, None);
        self.applier = true;
        self.retry_at = now;
    }
}

fn uuid(number: usize) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}
