//! Faults: what goes wrong, how often, for how long, and its undoing.

use crate::network::{Cut, Node, Side};
use crate::servers::Following;
use crate::setting;
use crate::world::{CALM, Event, MILLI, SECOND, World};
use regent::decision::report::{StorageFault, Writable};
use regent::decision::topology::ServerName;
use regent::decision::view::Request;
use regent::watcher::Input;
use std::time::Duration;

/// The end of a fault.
#[derive(Clone, Copy, Debug)]
pub enum Undo {
    Mend(u64),
    StartWatcher(usize),
    QuickDisk(usize),
    StartServer(usize),
    WakeServer(usize),
    Unload(usize),
    CloseServer(usize),
    Heal,
}

/// Something that goes wrong once the watchers have come to a certain point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trap {
    /// The leader dies with a journal entry in hand.
    BeforeEntry,
    /// The leader dies when an attempt was journaled and ordered.
    AfterEntry,
    /// The server that is about to be promoted dies.
    Candidate,
}

/// Everything that can go wrong, and how often beside the others.
pub const WEIGHTS: [(&str, u64); 41] = [
    ("nodes cut apart", 6),
    ("one way cut", 4),
    ("data centers cut apart", 3),
    ("data center isolated", 3),
    ("node isolated", 5),
    ("proxy cut off", 3),
    ("watcher crash", 7),
    ("leader crash", 4),
    ("slow disk", 4),
    ("primary crash", 9),
    ("server crash", 6),
    ("primary hangs", 6),
    ("server hangs", 3),
    ("primary read-only", 3),
    ("replica stopped", 3),
    ("replica broken", 2),
    ("replica opened", 2),
    ("replica misdirected", 2),
    ("replica lags", 6),
    ("slow network", 3),
    ("request", 9),
    ("data center lost", 2),
    ("replication cut", 3),
    ("two servers die", 2),
    ("quick restart", 3),
    ("primary flaps", 2),
    ("storage stalled", 3),
    ("storage full", 3),
    ("storage failing", 2),
    ("too many connections", 3),
    ("primary busy", 4),
    ("replica delayed", 2),
    ("errant transaction", 1),
    ("all watchers restart", 2),
    ("stale watcher", 2),
    ("clock jumps", 3),
    ("leader dies before an entry", 3),
    ("leader dies after an entry", 3),
    ("candidate dies", 3),
    ("maintenance", 4),
    ("end of maintenance", 1),
];

/// Faults that come without being drawn.
pub const OTHERS: [&str; 2] = ["step fails", "answer lost"];

/// Whom a fault may hit.
struct Drawn {
    server: usize,
    primary: usize,
    watcher: usize,
    place: usize,
}

impl World {
    /// Something goes wrong, and the next thing will soon.
    pub fn fault(&mut self) {
        if self.now >= CALM {
            return;
        }
        if self.network.loss == 0 {
            (self.network.loss, self.network.doubled) = (self.setting.loss, self.setting.doubled);
            self.at(CALM, Event::Undo(Undo::Heal));
        }
        let wait = self.random.range(100 * MILLI, 2_500 * MILLI);
        self.after(wait, Event::Fault);
        let weights: Vec<_> = WEIGHTS.iter().map(|(_, weight)| *weight).collect();
        let (name, _) = WEIGHTS[self.random.weighted(&weights)];
        self.tally.count("fault", name);
        self.say(|| format!("fault: {name}"));
        self.commit_fault(name);
    }

    fn commit_fault(&mut self, name: &str) {
        let server = self.random.index(self.servers.len());
        let drawn = Drawn {
            server,
            primary: self.invariants.primary.unwrap_or(server),
            watcher: self.random.index(self.watchers.len()),
            place: self.random.index(3),
        };
        let known = self.network_fault(name, &drawn)
            || self.watcher_fault(name, &drawn)
            || self.crash(name, &drawn)
            || self.hindrance(name, &drawn);
        if !known {
            self.after(0, Event::Request { watcher: drawn.watcher });
        }
    }

    fn network_fault(&mut self, name: &str, drawn: &Drawn) -> bool {
        let node = self.some_node();
        let other = self.some_node();
        let &Drawn { place, primary, .. } = drawn;
        match name {
            "nodes cut apart" => self.apart(Side::Node(node), Side::Node(other), true),
            "one way cut" => self.apart(Side::Node(node), Side::Node(other), false),
            "data centers cut apart" => {
                self.apart(Side::Place(place), Side::Place((place + 1) % 3), true);
            }
            "data center isolated" => {
                for elsewhere in (0..3).filter(|one| *one != place) {
                    self.apart(Side::Place(place), Side::Place(elsewhere), true);
                }
            }
            "node isolated" => self.apart(Side::Node(node), Side::Anybody, true),
            "proxy cut off" => {
                let proxy = Node::Proxy(self.random.index(self.proxies.len()));
                for watcher in 0..self.watchers.len() {
                    self.apart(Side::Node(proxy), Side::Node(Node::Watcher(watcher)), true);
                }
            }
            "replication cut" => {
                for other in (0..self.servers.len()).filter(|other| *other != primary) {
                    let (a, b) = (Node::Server(primary), Node::Server(other));
                    self.apart(Side::Node(a), Side::Node(b), true);
                }
            }
            "slow network" => {
                self.network.slowness = self.random.range(10, 400) * MILLI;
                let id = self.id();
                self.later(Undo::Mend(id));
            }
            _ => return false,
        }
        true
    }

    fn watcher_fault(&mut self, name: &str, drawn: &Drawn) -> bool {
        let &Drawn { watcher, server, .. } = drawn;
        match name {
            "watcher crash" => self.fail_watcher(watcher),
            "leader crash" => {
                let leader = self.watchers.iter().position(|host| host.leads());
                self.fail_watcher(leader.unwrap_or(watcher));
            }
            "slow disk" => {
                self.watchers[watcher].disk_delay = self.random.range(10, 500) * MILLI;
                self.later(Undo::QuickDisk(watcher));
            }
            "all watchers restart" => {
                (0..self.watchers.len()).for_each(|watcher| self.fail_watcher(watcher));
            }
            "stale watcher" => {
                if self.watchers[watcher].watcher.is_some() {
                    self.crash_watcher(watcher);
                    let wait = self.random.range(8, 20) * SECOND;
                    self.after(wait, Event::Undo(Undo::StartWatcher(watcher)));
                }
            }
            "clock jumps" => {
                let day = 24 * 3_600_000;
                let wall = self.random.range(0, 2 * day);
                self.watchers[watcher].clock.wall = wall.cast_signed() - day.cast_signed();
            }
            "leader dies before an entry" => drop(self.traps.insert(Trap::BeforeEntry)),
            "leader dies after an entry" => drop(self.traps.insert(Trap::AfterEntry)),
            "candidate dies" => drop(self.traps.insert(Trap::Candidate)),
            "maintenance" | "end of maintenance" => {
                let request = self.some_maintenance(name == "maintenance", server);
                self.request(watcher, request);
            }
            _ => return false,
        }
        true
    }

    /// Servers that die, for a moment or longer.
    fn crash(&mut self, name: &str, drawn: &Drawn) -> bool {
        let &Drawn { server, primary, .. } = drawn;
        match name {
            "primary crash" => self.fail_server(primary),
            "server crash" => self.fail_server(server),
            "data center lost" => self.lose_place(self.setting.servers[primary]),
            "two servers die" => {
                self.fail_server(primary);
                self.fail_server((primary + 1) % self.servers.len());
            }
            "quick restart" => self.flap(primary, 1),
            "primary flaps" => self.flap(primary, 4),
            _ => return false,
        }
        true
    }

    /// Servers that live and do not do what they should.
    fn hindrance(&mut self, name: &str, drawn: &Drawn) -> bool {
        let &Drawn { server, primary, .. } = drawn;
        match name {
            "primary hangs" => self.hang(primary),
            "server hangs" => self.hang(server),
            "primary read-only" => {
                self.servers[primary].end_sessions();
                self.servers[primary].writable = Writable::ReadOnly;
                self.sessions_end(primary);
            }
            "replica stopped" => {
                if let Some(one) = &mut self.servers[server].following {
                    one.stop_receiver();
                }
            }
            "replica broken" => {
                if let Some(one) = &mut self.servers[server].following {
                    one.error = Some(1062);
                }
            }
            "replica opened" => {
                let useless = server == primary || self.is_still_routed_to(server);
                if !useless && self.servers[server].answers(self.now) {
                    self.servers[server].writable = Writable::Open;
                }
            }
            "replica misdirected" => {
                let other = self.random.index(self.servers.len());
                if server != primary && other != server && self.servers[server].is_settled() {
                    self.servers[server].following = Some(Following::begin(other));
                }
            }
            "errant transaction" => {
                if server != primary && self.servers[server].answers(self.now) {
                    self.servers[server].write(0, self.now);
                }
            }
            "replica lags" => {
                self.servers[server].apply_gap = self.random.range(50, 600) * MILLI;
                self.later(Undo::Unload(server));
            }
            "replica delayed" => {
                self.servers[server].delay = self.random.range(1, 20) * SECOND;
                self.later(Undo::Unload(server));
            }
            "storage stalled" => {
                self.servers[primary].stalled = true;
                self.later(Undo::Unload(primary));
            }
            "storage full" => self.refuse_writes(primary, StorageFault::Full),
            "storage failing" => self.refuse_writes(primary, StorageFault::Failing),
            "too many connections" => {
                self.servers[primary].full = true;
                self.later(Undo::Unload(primary));
            }
            "primary busy" => {
                self.servers[primary].busy = self.random.range(50, 480) * MILLI;
                self.later(Undo::Unload(primary));
            }
            _ => return false,
        }
        true
    }

    /// Its storage takes no further write for a while, and says why when asked for a new file.
    fn refuse_writes(&mut self, server: usize, fault: StorageFault) {
        let one = &mut self.servers[server];
        (one.stalled, one.refuses) = (true, Some(fault));
        self.later(Undo::Unload(server));
    }

    fn some_node(&mut self) -> Node {
        match self.random.index(3) {
            0 => Node::Watcher(self.random.index(self.watchers.len())),
            1 => Node::Server(self.random.index(self.servers.len())),
            _ => Node::Proxy(self.random.index(self.proxies.len())),
        }
    }

    /// The fault will be over after a while.
    fn later(&mut self, undo: Undo) {
        let wait = match self.random.permille(600) {
            true => self.random.range(100 * MILLI, 2 * SECOND),
            false => self.random.range(SECOND, 9 * SECOND),
        };
        self.after(wait, Event::Undo(undo));
    }

    fn apart(&mut self, from: Side, to: Side, both: bool) {
        if from == to {
            return;
        }
        let id = self.id();
        self.say(|| format!("cut {id}: {from:?} to {to:?}, both ways: {both}"));
        self.network.cut(Cut { id, from, to });
        if both {
            self.network.cut(Cut { id, from: to, to: from });
        }
        self.later(Undo::Mend(id));
    }

    pub fn fail_watcher(&mut self, watcher: usize) {
        if self.watchers[watcher].watcher.is_some() {
            self.crash_watcher(watcher);
            self.later(Undo::StartWatcher(watcher));
        }
    }

    pub fn fail_server(&mut self, server: usize) {
        if self.servers[server].up {
            self.say(|| format!("db{} crashes", server + 1));
            self.servers[server].crash();
            self.sessions_end(server);
            self.later(Undo::StartServer(server));
        }
    }

    /// A data center is gone for a while, with all that stands in it.
    fn lose_place(&mut self, place: usize) {
        let there = |places: &[usize]| -> Vec<usize> {
            (0..places.len()).filter(|number| places[*number] == place).collect()
        };
        let (servers, watchers) = (there(&self.setting.servers), there(&self.setting.watchers));
        servers.into_iter().for_each(|server| self.fail_server(server));
        watchers.into_iter().for_each(|watcher| self.fail_watcher(watcher));
    }

    /// A server dies and is back within a second, that many times.
    pub fn flap(&mut self, server: usize, times: u32) {
        if times == 0 || self.now >= CALM {
            return;
        }
        if self.servers[server].up {
            self.say(|| format!("db{} flaps", server + 1));
            self.servers[server].crash();
            self.sessions_end(server);
        }
        let back = self.random.range(50, 900) * MILLI;
        self.after(back, Event::Undo(Undo::StartServer(server)));
        let again = back + self.random.range(200, 3_000) * MILLI;
        self.after(again, Event::Flap { server, times: times - 1 });
    }

    /// Whether a trap was set for that; it is gone then.
    pub fn springs(&mut self, trap: Trap) -> bool {
        let springs = self.now < CALM && self.traps.remove(&trap);
        if springs {
            self.tally.count("trap", &format!("{trap:?}"));
        }
        springs
    }

    /// The server that is about to be promoted dies in a moment.
    pub fn lose_candidate(&mut self, server: usize) {
        let wait = self.random.range(0, 60 * MILLI);
        self.after(wait, Event::Flap { server, times: 1 });
    }

    fn hang(&mut self, server: usize) {
        if self.servers[server].answers(self.now) {
            self.say(|| format!("db{} hangs", server + 1));
            self.servers[server].hung = true;
            self.later(Undo::WakeServer(server));
        }
    }

    pub fn undo(&mut self, undo: Undo) {
        self.say(|| format!("{undo:?}"));
        match undo {
            Undo::Mend(id) => {
                self.network.mend(id);
                self.network.slowness = 0;
            }
            Undo::StartWatcher(watcher) => {
                if self.watchers[watcher].watcher.is_none() {
                    self.start_watcher(watcher);
                }
            }
            Undo::QuickDisk(watcher) => self.watchers[watcher].disk_delay = MILLI,
            Undo::StartServer(server) => self.start_server(server),
            Undo::WakeServer(server) => self.server_wakes(server),
            Undo::Unload(server) => self.unload(server),
            Undo::CloseServer(server) => self.servers[server].writable = Writable::Closed,
            Undo::Heal => self.heal(),
        }
    }

    /// A server has its usual speed, space and connections again.
    fn unload(&mut self, server: usize) {
        let one = &mut self.servers[server];
        (one.apply_gap, one.busy, one.delay) = (0, 0, 0);
        (one.stalled, one.full, one.refuses) = (false, false, None);
        if !one.hung {
            self.take_up(server);
        }
    }

    fn start_server(&mut self, server: usize) {
        if self.servers[server].up {
            return;
        }
        let ready = self.random.range(10, 1_500) * MILLI;
        let (skip, forgets) = (self.setting.skip_start, self.setting.forgets_semi_sync);
        let now = self.now;
        self.servers[server].restart(now, ready, skip, forgets);
    }

    /// All faults end.
    fn heal(&mut self) {
        self.network.heal();
        for watcher in 0..self.watchers.len() {
            self.undo(Undo::QuickDisk(watcher));
            self.undo(Undo::StartWatcher(watcher));
        }
        for server in 0..self.servers.len() {
            self.start_server(server);
            self.undo(Undo::WakeServer(server));
            self.undo(Undo::Unload(server));
            // What only people can mend.
            if let Some(one) = &mut self.servers[server].following {
                one.error = None;
            }
        }
    }

    /// Somebody asks a watcher for something.
    pub fn ask(&mut self, watcher: usize) {
        let cluster = setting::cluster();
        let server = setting::server_name(self.random.index(self.servers.len()));
        let to = self.random.permille(500).then(|| server.clone());
        let dry_run = self.random.permille(150);
        let request = match self.random.weighted(&[10, 3, 1, 2, 2, 1, 1, 2, 4]) {
            0 => Request::Switchover { cluster, to, dry_run },
            1 => Request::Failover { cluster, to, accept_loss: false, dry_run },
            2 => Request::Adopt { cluster, primary: server },
            3 => Request::Explain { cluster, without: to },
            4 => Request::Status { cluster: None },
            5 => Request::Events { after: 0, limit: 100, cluster: None },
            6 => Request::Procedure { cluster, id: None },
            7 => Request::Repair { cluster, dry_run },
            _ => self.some_rejoin(server, dry_run),
        };
        self.request(watcher, request);
    }

    /// That a server should follow again, sometimes with new data although its own would do.
    fn some_rejoin(&mut self, server: ServerName, dry_run: bool) -> Request {
        let (rebuild, named) = (self.random.permille(600), self.random.permille(300));
        let donor = setting::server_name(self.random.index(self.servers.len()));
        let (cluster, donor) = (setting::cluster(), named.then_some(donor));
        Request::Rejoin { cluster, server, rebuild, donor, accept_loss: false, dry_run }
    }

    /// Maintenance that begins, of a server or all, or ends.
    fn some_maintenance(&mut self, begins: bool, server: usize) -> Request {
        let (cluster, by) = (setting::cluster(), String::new());
        let server = self.random.permille(700).then(|| setting::server_name(server));
        let lasts = Duration::from_millis(self.random.range(200, 8_000));
        match begins {
            true => {
                let reason = "new disks".into();
                Request::Maintain { cluster, server, lasts, reason, by, new_data: false }
            }
            false => Request::EndMaintenance { cluster, server, by, new_data: false },
        }
    }

    /// A watcher, mostly the leader, gets a request.
    fn request(&mut self, watcher: usize, request: Request) {
        let leader = self.watchers.iter().position(|host| host.leads());
        let asked = leader.filter(|_| self.random.permille(800)).unwrap_or(watcher);
        self.ask_one(asked, request);
    }

    /// The leader gets a request, if there is one.
    pub fn ask_leader(&mut self, request: Request) {
        if let Some(leader) = self.watchers.iter().position(|host| host.leads()) {
            self.ask_one(leader, request);
        }
    }

    fn ask_one(&mut self, watcher: usize, request: Request) {
        self.say(|| format!("w{} is asked for {request:?}", watcher + 1));
        let id = self.id();
        self.feed(watcher, Input::Request { id, request });
    }

    /// Late in the run: is everything well again?
    pub fn look(&mut self) {
        let wrong = self.unwell().or_else(|| self.backups_unwell());
        let wrong = wrong.or_else(|| self.chores_unwell());
        let now = self.now;
        match wrong {
            None => {
                let since = *self.invariants.well_since.get_or_insert(now);
                if now - since >= crate::world::STEADY {
                    self.finish(since);
                    return;
                }
            }
            Some(what) if now >= self.setting.healed() => {
                return self.broken(format!("not healed: {what}"));
            }
            Some(_) => self.invariants.well_since = None,
        }
        self.after(100 * MILLI, Event::Look);
    }
}
