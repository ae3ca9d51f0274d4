//! Watchers with their disks: carries out what they order, and tells them what came of it.

use crate::faults::Trap;
use crate::network::Node;
use crate::setting::{self, Flaw};
use crate::world::{Event, LocalClock, MILLI, SECOND, World};
use regent::decision::cluster::ClusterState;
use regent::decision::procedure::{Kind, Procedure};
use regent::decision::report::{Sight, Trouble};
use regent::decision::topology::{DataCenter, ProxyName, ServerName, WatcherName};
use regent::watcher::{
    CanaryResult, Input, Output, PeerMessage, Record, Setup, StepOrder, Stored, Watcher,
};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// One watcher's machine.
pub struct WatcherHost {
    pub name: WatcherName,
    pub life: u32,
    pub clock: LocalClock,
    pub watcher: Option<Watcher>,
    disk: Stored,
    /// Records on their way to the disk, oldest first.
    writing: VecDeque<Record>,
    written_at: u64,
    /// Microseconds a write takes.
    pub disk_delay: u64,
    wake_at: u64,
    /// The newest procedure whose orders were withdrawn.
    pub withdrawn: u64,
    /// Whether backups there were told that something goes before them.
    first: bool,
    /// Servers whose last probe showed it no life.
    silent: BTreeSet<ServerName>,
}

impl WatcherHost {
    pub fn new(number: usize) -> WatcherHost {
        WatcherHost {
            name: WatcherName(format!("w{}", number + 1)),
            life: 0,
            clock: LocalClock { zero: 0, start: 0, rate: 1_000_000, wall: 0 },
            watcher: None,
            disk: Stored::default(),
            writing: VecDeque::new(),
            written_at: 0,
            disk_delay: MILLI,
            wake_at: u64::MAX,
            withdrawn: 0,
            first: false,
            silent: BTreeSet::new(),
        }
    }

    pub fn leads(&self) -> bool {
        self.watcher.as_ref().is_some_and(|watcher| watcher.consensus().is_leader())
    }
}

impl World {
    /// Starts a watcher from what its disk holds.
    pub fn start_watcher(&mut self, number: usize) {
        let clock = LocalClock::draw(&mut self.random, self.now);
        let now = self.read(&clock);
        let place =
            |number: usize| DataCenter::from(setting::PLACES[self.setting.watchers[number]]);
        let all = self.watchers.iter().enumerate().map(|(n, host)| (host.name.clone(), place(n)));
        let alone = self.setting.flaw == Flaw::NoQuorum;
        let host = &self.watchers[number];
        let life = host.life + 1;
        let setup = Setup {
            own: host.name.clone(),
            watchers: all.filter(|(name, _)| !alone || *name == host.name).collect(),
            clusters: self.setting.clusters(),
            backups: self.setting.schedules(),
            chores: self.setting.chores(),
            proofs: std::collections::BTreeMap::new(),
            archives: std::collections::BTreeMap::new(),
            timing: self.setting.watcher_timing(),
            seed: self.setting.seed ^ (number as u64) << 32 ^ u64::from(life) << 48,
        };
        let started = Watcher::start(setup, &host.disk, now);
        let host = &mut self.watchers[number];
        (host.life, host.clock, host.wake_at, host.written_at) = (life, clock, u64::MAX, self.now);
        (host.withdrawn, host.first) = (0, false);
        host.silent.clear();
        match started {
            Ok(watcher) => host.watcher = Some(watcher),
            Err(fatal) => self.broken(format!("w{} cannot start: {fatal}", number + 1)),
        }
        self.invariants.forget_watcher(number);
        self.say(|| format!("w{} starts", number + 1));
        self.feed(number, Input::Wakeup);
        self.tell_links(number, true);
    }

    /// Kills a watcher; of what was on its way to disk, a part may have arrived.
    pub fn crash_watcher(&mut self, number: usize) {
        let kept = self.random.index(self.watchers[number].writing.len() + 1);
        let host = &mut self.watchers[number];
        host.watcher = None;
        host.life += 1;
        let writing: Vec<_> = host.writing.drain(..).take(kept).collect();
        for record in writing {
            store(&mut host.disk, record);
        }
        self.say(|| format!("w{} crashes", number + 1));
        self.tell_links(number, false);
    }

    /// Proxies notice that a watcher's process came or went.
    fn tell_links(&mut self, number: usize, up: bool) {
        for proxy in 0..self.proxies.len() {
            if self.network.connects(Node::Watcher(number), Node::Proxy(proxy)) {
                self.proxy_link(proxy, number, up);
            }
        }
    }

    pub fn wake(&mut self, number: usize, life: u32) {
        let host = &mut self.watchers[number];
        if host.life == life && host.wake_at == self.now {
            host.wake_at = u64::MAX;
            self.feed(number, Input::Wakeup);
        }
    }

    /// Gives a watcher an input and carries out what it orders.
    pub fn feed(&mut self, number: usize, input: Input) {
        let now = self.read(&self.watchers[number].clock);
        let host = &mut self.watchers[number];
        let Some(watcher) = host.watcher.as_mut() else {
            return;
        };
        if let Input::ProbeDone { server, sight } = &input {
            match sight.shows_life() {
                true => host.silent.remove(&server.server),
                false => host.silent.insert(server.server.clone()),
            };
        }
        let outputs = match watcher.handle(now, input) {
            Ok(outputs) => outputs,
            Err(fatal) => {
                let text = format!("w{} cannot go on: {fatal}", number + 1);
                return self.broken(text);
            }
        };
        let wake = host.clock.when(watcher.next_wakeup()).max(self.now + 1);
        if wake < host.wake_at {
            host.wake_at = wake;
            let life = host.life;
            self.at(wake, Event::Wakeup { watcher: number, life });
        }
        let life = self.watchers[number].life;
        for output in outputs {
            // It may die in the middle of it.
            if self.watchers[number].life != life {
                return;
            }
            self.carry_out(number, output);
        }
        self.backups_know(number);
        self.watcher_moved(number);
    }

    /// A backup that stands still for nothing, or goes on beside a failover, was told wrongly.
    fn backups_know(&mut self, number: usize) {
        let host = &self.watchers[number];
        let Some(watcher) = &host.watcher else { return };
        let cluster = watcher.state().clusters.get(&setting::cluster());
        let silent = |state: &ClusterState| {
            state.writer.primary().is_some_and(|primary| host.silent.contains(primary))
        };
        let first = cluster.is_some_and(|state| state.comes_first() || silent(state));
        if first != host.first {
            let text = format!("w{} told backups {}, and it is {first}", number + 1, host.first);
            self.broken(text);
        }
    }

    fn carry_out(&mut self, number: usize, output: Output) {
        let life = self.watchers[number].life;
        match output {
            Output::Send { to, message } => self.send_peer(number, &to, message),
            Output::Persist { record, .. }
                if !record.entries.is_empty()
                    && self.drives(number)
                    && self.springs(Trap::BeforeEntry) =>
            {
                self.fail_watcher(number);
            }
            Output::Persist { ticket, record } => {
                let delay = self.watchers[number].disk_delay;
                let spread = self.random.range(delay / 2, delay * 2);
                let host = &mut self.watchers[number];
                host.written_at = host.written_at.max(self.now + spread);
                host.writing.push_back(record.clone());
                let at = host.written_at;
                self.at(at, Event::Written { watcher: number, life, ticket, record });
            }
            Output::Probe { server } => {
                let server = setting::server_number(&server.server);
                self.probe(number, life, server);
            }
            // The row leaves nothing that others could lack.
            Output::Canary { server, .. } => {
                let (wait, result) = self.canary(number, setting::server_number(&server.server));
                let input = Input::CanaryDone { server, result };
                self.after(wait, Event::Input { watcher: number, life, input });
            }
            Output::Perform(order) => {
                let candidate = self.is_candidate(number, order.step.server());
                let server = setting::server_number(order.step.server());
                self.send_step(number, life, order);
                if candidate && self.springs(Trap::Candidate) {
                    self.lose_candidate(server);
                }
                if self.springs(Trap::AfterEntry) {
                    self.fail_watcher(number);
                }
            }
            Output::Withdraw { procedure, .. } => {
                let host = &mut self.watchers[number];
                host.withdrawn = host.withdrawn.max(procedure);
            }
            Output::Backup(order) => self.order_backup(number, life, order),
            Output::GoesFirst { others, .. } => self.watchers[number].first = others,
            Output::Chore(order) => self.order_chore(number, life, &order),
            Output::Reply { response, .. } => {
                let word = crate::tally::word(&response);
                self.tally.count("answer", word);
                self.say(|| format!("w{} answers {word}: {response:?}", number + 1));
            }
            Output::ToProxy { proxy, message } => self.send_to_proxy(number, &proxy, message),
            Output::ToProxies { message } => {
                for proxy in self.proxies.iter().map(|host| host.name.clone()).collect::<Vec<_>>() {
                    self.send_to_proxy(number, &proxy, message.clone());
                }
            }
            Output::Announce(event) => {
                if event.kind == "finding_began" {
                    let finding = event.text.split(':').next().unwrap_or_default().to_owned();
                    self.tally.count("finding", &finding);
                }
                self.say(|| format!("w{} {}: {}", number + 1, event.kind, event.text));
            }
        }
    }

    /// How long a canary row takes, and what comes of it.
    fn canary(&self, number: usize, server: usize) -> (u64, CanaryResult) {
        let reached = self.network.connects(Node::Watcher(number), Node::Server(server));
        let one = &self.servers[server];
        match (reached && one.up && !one.full, one.stalled || one.hung, one.refuses) {
            (false, _, _) => (10 * MILLI, CanaryResult::Unknown),
            (true, true, Some(fault)) => (SECOND, CanaryResult::Refused(fault)),
            (true, true, None) => (SECOND, CanaryResult::Stalled),
            (true, false, _) => (2 * MILLI, CanaryResult::Written),
        }
    }

    fn open_procedure(&self, number: usize) -> Option<&Procedure> {
        let watcher = self.watchers[number].watcher.as_ref()?;
        watcher.state().clusters.get(&setting::cluster())?.procedure.as_ref()
    }

    /// Whether a watcher leads and has a procedure to drive.
    fn drives(&self, number: usize) -> bool {
        self.watchers[number].leads() && self.open_procedure(number).is_some()
    }

    /// Whether a failover is about to promote that server.
    fn is_candidate(&self, number: usize, server: &ServerName) -> bool {
        self.open_procedure(number)
            .is_some_and(|open| open.kind == Kind::Failover && open.to.as_ref() == Some(server))
    }

    fn send_peer(&mut self, number: usize, to: &WatcherName, message: PeerMessage) {
        let Some(to) = self.watchers.iter().position(|host| &host.name == to) else {
            return;
        };
        let (from_node, to_node) = (Node::Watcher(number), Node::Watcher(to));
        if !self.arrives(from_node, to_node) {
            return;
        }
        let raft = matches!(message, PeerMessage::Raft(_));
        let at = match raft {
            true => self.now + self.network.delay(&mut self.random, from_node, to_node),
            false => self.network.in_order(&mut self.random, from_node, to_node, self.now),
        };
        if raft && self.network.doubled > 0 && self.random.permille(self.network.doubled) {
            let again = self.now + self.network.delay(&mut self.random, from_node, to_node);
            self.at(again, Event::Peer { from: number, to, message: message.clone() });
        }
        self.at(at, Event::Peer { from: number, to, message });
    }

    fn send_to_proxy(
        &mut self,
        number: usize,
        proxy: &ProxyName,
        message: regent::decision::lease::ToProxy,
    ) {
        let Some(to) = self.proxies.iter().position(|host| &host.name == proxy) else {
            return;
        };
        let (from_node, to_node) = (Node::Watcher(number), Node::Proxy(to));
        if self.arrives(from_node, to_node) {
            let at = self.network.in_order(&mut self.random, from_node, to_node, self.now);
            self.at(at, Event::ToProxy { from: number, to, message });
        }
    }

    /// Whether a message sent now gets through.
    pub fn arrives(&mut self, from: Node, to: Node) -> bool {
        let lost = self.network.loss > 0 && self.random.permille(self.network.loss);
        !lost && self.network.reaches(from, to)
    }

    /// A record reached the disk.
    pub fn written(&mut self, number: usize, life: u32, ticket: u64, record: Record) {
        let host = &mut self.watchers[number];
        if host.life != life {
            return;
        }
        host.writing.pop_front();
        store(&mut host.disk, record);
        self.feed(number, Input::Persisted { ticket });
    }

    fn probe(&mut self, number: usize, life: u32, server: usize) {
        let began = self.now;
        let way = self.network.delay(&mut self.random, Node::Watcher(number), Node::Server(server));
        self.after(way, Event::Probe { watcher: number, life, server, began });
    }

    /// A probe arrives at its server, or does not.
    pub fn probed(&mut self, number: usize, life: u32, server: usize, began: u64) {
        let (watcher, host) = (Node::Watcher(number), Node::Server(server));
        let timeout = u64::try_from(self.setting.timing.probe_timeout.as_micros()).unwrap();
        let seen = &self.servers[server];
        let (sight, at) = if !self.network.connects(watcher, host) {
            (Sight::Unreachable, began + timeout / 2)
        } else if !seen.up {
            (Sight::Refused, self.now + self.network.delay(&mut self.random, host, watcher))
        } else if seen.hung {
            (Sight::Hung, began + timeout)
        } else if seen.full && !self.setting.side_door {
            (Sight::Useless(Trouble::TooManyConnections), self.now + MILLI)
        } else if seen.busy > 0 && self.now + seen.busy > began + timeout {
            (Sight::Hung, began + timeout)
        } else if self.now < seen.ready_at {
            (Sight::Useless(Trouble::NotReady), self.now + MILLI)
        } else {
            let mut status = seen.status(self.now, self.semi_sync_clients(server));
            status.settings.relay_log_recovery = self.setting.endangered;
            let way = self.network.delay(&mut self.random, host, watcher);
            let sight = match self.setting.flaw {
                Flaw::ReceivedIgnored => Sight::Alive(Box::new(crate::flaws::blind(status))),
                _ => Sight::Alive(Box::new(status)),
            };
            (sight, self.now + way + seen.busy)
        };
        let key = regent::decision::topology::ServerKey {
            cluster: setting::cluster(),
            server: setting::server_name(server),
        };
        let input = Input::ProbeDone { server: key, sight };
        self.at(at, Event::Input { watcher: number, life, input });
    }

    fn send_step(&mut self, number: usize, life: u32, order: StepOrder) {
        let server = setting::server_number(order.step.server());
        let term =
            self.watchers[number].watcher.as_ref().map_or(0, |watcher| watcher.consensus().term());
        self.tally.count("step ordered", order.step.kind());
        self.say(|| {
            let id = &order.id;
            let place = (id.procedure, id.stage, id.step, id.attempt);
            format!("w{} orders {place:?}: {}", number + 1, order.step)
        });
        let way = self.network.delay(&mut self.random, Node::Watcher(number), Node::Server(server));
        self.after(way, Event::StepArrives { watcher: number, life, term, order });
    }

    pub fn reading(&self, number: usize) -> regent::clock::Moment {
        self.watchers[number].clock.read(self.now)
    }

    /// When that much time has passed on a watcher's own clock.
    pub fn when_passed(&self, number: usize, span: Duration) -> u64 {
        let clock = &self.watchers[number].clock;
        clock.when(clock.read(self.now) + span)
    }
}

/// What the store does with a record.
fn store(disk: &mut Stored, record: Record) {
    if let Some(covered) = record.compact_to {
        disk.entries.retain(|(index, _)| *index > covered);
    }
    if let Some((first, _)) = record.entries.first() {
        disk.entries.retain(|(index, _)| index < first);
    }
    disk.entries.extend(record.entries);
    disk.snapshot = record.snapshot.or(disk.snapshot.take());
    disk.hard_state = record.hard_state.or(disk.hard_state.take());
}
