//! The world of one run: one thread, one seed, one queue of events on a simulated clock.
//!
//! Time is in microseconds of a clock that nobody in the world can read; each watcher and proxy has
//! its own, with a zero and a rate of its own.

use crate::backups::Backups;
use crate::chores::AtWork;
use crate::faults::{Trap, Undo};
use crate::invariants::Invariants;
use crate::network::{Network, Node};
use crate::proxies::ProxyHost;
use crate::random::Random;
use crate::replacing::Replacing;
use crate::servers::Server;
use crate::setting::{self, Flaw, Setting};
use crate::steps::Task;
use crate::tally::Tally;
use crate::trace::Trace;
use crate::watchers::WatcherHost;
use regent::clock::{Moment, Now, WallTime};
use regent::decision::backup::runs::Attempt;
use regent::decision::lease::{FromProxy, ToProxy};
use regent::decision::report::Writable;
use regent::watcher::{Input, PeerMessage, Record, StepOrder};
use std::collections::{BTreeMap, BTreeSet};

pub const MILLI: u64 = 1_000;
pub const SECOND: u64 = 1_000_000;

/// Faults begin, and end, at these times.
pub const TROUBLE: u64 = 5 * SECOND;
pub const CALM: u64 = 30 * SECOND;
/// By then everything must be well, and stay so.
pub const HEALED: u64 = 60 * SECOND;
/// The same where backups are made, which may be taken over twice, or where several servers in a row lost their data.
pub const HEALED_LATE: u64 = 120 * SECOND;
/// For so long it must stay well.
pub const STEADY: u64 = 2 * SECOND;

/// A clock of one process.
#[derive(Clone, Copy, Debug)]
pub struct LocalClock {
    pub zero: u64,
    pub start: u64,
    /// Its microseconds per million real ones.
    pub rate: u64,
    /// By how many milliseconds its wall clock is wrong.
    pub wall: i64,
}

impl LocalClock {
    pub fn draw(random: &mut Random, now: u64) -> LocalClock {
        LocalClock {
            zero: now,
            start: random.range(1, 90) * SECOND,
            rate: random.range(980_000, 1_020_001),
            wall: 0,
        }
    }

    pub fn read(&self, now: u64) -> Moment {
        Moment(self.start + (now - self.zero) * self.rate / 1_000_000)
    }

    /// The first real microsecond at which it reads at least that.
    pub fn when(&self, moment: Moment) -> u64 {
        let since = moment.0.saturating_sub(self.start).min(u64::MAX / 2_000_000);
        self.zero + (since * 1_000_000).div_ceil(self.rate)
    }
}

/// Something that will happen.
#[derive(Debug)]
pub enum Event {
    Wakeup { watcher: usize, life: u32 },
    Input { watcher: usize, life: u32, input: Input },
    Written { watcher: usize, life: u32, ticket: u64, record: Record },
    Peer { from: usize, to: usize, message: PeerMessage },
    ToProxy { from: usize, to: usize, message: ToProxy },
    FromProxy { from: usize, to: usize, message: FromProxy },
    Probe { watcher: usize, life: u32, server: usize, began: u64 },
    StepArrives { watcher: usize, life: u32, term: u64, order: StepOrder },
    StepGoesOn { task: u64 },
    BackupStored { watcher: usize, life: u32, attempt: Attempt },
    ServerTick { server: usize },
    Acknowledged { source: usize, source_life: u32, replica: usize, seq: u64 },
    ProxyTick { proxy: usize },
    Close { proxy: usize, session: u64 },
    Client { proxy: usize, client: usize },
    WriteArrives { write: u64 },
    WriteReplied { write: u64, committed: Option<(u64, u64)> },
    WriteTimesOut { write: u64 },
    Fault,
    Undo(Undo),
    Flap { server: usize, times: u32 },
    Request { watcher: usize },
    ReplaceData,
    Look,
}

/// All of a run.
pub struct World {
    pub now: u64,
    pub random: Random,
    pub setting: Setting,
    pub network: Network,
    pub watchers: Vec<WatcherHost>,
    pub servers: Vec<Server>,
    pub proxies: Vec<ProxyHost>,
    pub tasks: BTreeMap<u64, Task>,
    pub backups: Backups,
    pub chores: AtWork,
    pub replacing: Option<Replacing>,
    pub traps: BTreeSet<Trap>,
    pub invariants: Invariants,
    pub tally: Tally,
    pub trace: Trace,
    pub last_id: u64,
    pub over: bool,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
}

impl World {
    pub fn new(setting: Setting, print: bool) -> World {
        let mut random = Random::new(setting.seed);
        let mut network = Network::default();
        for (number, place) in setting.watchers.iter().enumerate() {
            network.place(Node::Watcher(number), *place);
        }
        for (number, place) in setting.servers.iter().enumerate() {
            network.place(Node::Server(number), *place);
        }
        for (number, place) in setting.proxies.iter().enumerate() {
            network.place(Node::Proxy(number), *place);
        }
        let count = setting.servers.len();
        let mut servers: Vec<_> =
            (0..count).map(|number| Server::new(number, (number > 0).then_some(0))).collect();
        servers[0].closed_at_restart = !setting.opens_at_restart;
        if setting.flaw == Flaw::ReceivedIgnored {
            // One that applied all that it got, and one that got more: nothing tells them apart else.
            servers[count - 1].apply_gap = 200 * MILLI;
        }
        if setting.unclear {
            servers[1].writable = Writable::Open;
        }
        let watchers = (0..setting.watchers.len()).map(WatcherHost::new).collect();
        let proxies = (0..setting.proxies.len())
            .map(|number| ProxyHost::new(&setting, number, LocalClock::draw(&mut random, 0)))
            .collect();
        let mut world = World {
            now: 0,
            random,
            network,
            watchers,
            servers,
            proxies,
            tasks: BTreeMap::new(),
            backups: Backups::default(),
            chores: AtWork::default(),
            replacing: None,
            traps: BTreeSet::new(),
            invariants: Invariants::new(setting.servers.len()),
            tally: Tally::default(),
            trace: Trace::new(print),
            last_id: 0,
            over: false,
            queue: BTreeMap::new(),
            sequence: 0,
            setting,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for watcher in 0..self.watchers.len() {
            self.start_watcher(watcher);
        }
        for server in 0..self.servers.len() {
            self.after(server as u64, Event::ServerTick { server });
        }
        for proxy in 0..self.proxies.len() {
            self.after(0, Event::ProxyTick { proxy });
            for client in 0..self.proxies[proxy].clients.len() {
                let wait = self.random.range(1, 50 * MILLI);
                self.client_later(proxy, client, wait);
            }
        }
        if self.setting.unclear {
            self.after(2 * SECOND, Event::Undo(Undo::CloseServer(1)));
        }
        if self.setting.replaces {
            self.after(TROUBLE, Event::ReplaceData);
        }
        self.after(TROUBLE, Event::Fault);
        self.after(CALM, Event::Look);
    }

    /// Runs to the end, or to the first broken promise.
    pub fn run(&mut self) {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            self.trace.mark(at, &event);
            self.happen(event);
            if self.over || self.invariants.broken.is_some() {
                return;
            }
        }
    }

    pub fn after(&mut self, wait: u64, event: Event) {
        self.at(self.now + wait, event);
    }

    pub fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), event);
    }

    pub fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// What a process with that clock reads now; wall clocks are off by some seconds.
    pub fn read(&self, clock: &LocalClock) -> Now {
        // So that the time of the schedule comes amid the faults.
        let ahead = if self.setting.backups { 25_000 } else { 0 };
        let wall = 1_700_000_000_000 + ahead + self.now / MILLI + clock.rate % 5_000;
        Now { moment: clock.read(self.now), wall: WallTime(wall.saturating_add_signed(clock.wall)) }
    }

    pub fn say(&self, text: impl FnOnce() -> String) {
        self.trace.say(self.now, text);
    }

    /// A promise is broken.
    pub fn broken(&mut self, text: String) {
        let now = self.now;
        self.trace.say(now, || format!("BROKEN: {text}"));
        if self.invariants.broken.is_none() {
            let at = format!("{}.{:06} s", now / SECOND, now % SECOND);
            self.invariants.broken = Some(format!("at {at}: {text}"));
        }
    }

    /// Whether faults may happen now.
    pub fn troubled(&self) -> bool {
        (TROUBLE..CALM).contains(&self.now)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wakeup { watcher, life } => self.wake(watcher, life),
            Event::Input { watcher, life, input } => {
                if self.watchers[watcher].life == life {
                    self.feed(watcher, input);
                }
            }
            Event::Written { watcher, life, ticket, record } => {
                self.written(watcher, life, ticket, record);
            }
            Event::Peer { from, to, message } => {
                let from = self.watchers[from].name.clone();
                self.feed(to, Input::PeerMessage { from, message });
            }
            Event::ToProxy { from, to, message } => self.proxy_hears(from, to, message),
            Event::FromProxy { from, to, message } => {
                let proxy = self.proxies[from].name.clone();
                self.feed(to, Input::ProxyMessage { proxy, message });
            }
            Event::Probe { watcher, life, server, began } => {
                self.probed(watcher, life, server, began);
            }
            Event::StepArrives { watcher, life, term, order } => {
                self.begin_step(watcher, life, term, order);
            }
            Event::StepGoesOn { task } => self.go_on(task),
            Event::BackupStored { watcher, life, attempt } => {
                self.backup_stored(watcher, life, attempt);
            }
            Event::ServerTick { server } => self.server_tick(server),
            Event::Acknowledged { source, source_life, replica, seq } => {
                self.acknowledged(source, source_life, replica, seq);
            }
            Event::ProxyTick { proxy } => self.proxy_tick(proxy),
            Event::Close { proxy, session } => self.close_session(proxy, session),
            Event::Client { proxy, client } => self.client_acts(proxy, client),
            Event::WriteArrives { write } => self.write_arrives(write),
            Event::WriteReplied { write, committed } => self.write_replied(write, committed),
            Event::WriteTimesOut { write } => self.write_times_out(write),
            Event::Fault => self.fault(),
            Event::Undo(undo) => self.undo(undo),
            Event::Flap { server, times } => self.flap(server, times),
            Event::Request { watcher } => self.ask(watcher),
            Event::ReplaceData => self.replace_data(),
            Event::Look => self.look(),
        }
    }

    pub fn server_name(&self, number: usize) -> String {
        setting::server_name(number).0
    }
}
