//! Faults: what goes wrong, how often, for how long, and its undoing.

use crate::network::{Cut, Node, Side};
use crate::setting;
use crate::world::{CALM, Event, HEALED, MILLI, SECOND, World};
use regent::decision::report::Writable;
use regent::decision::view::Request;
use regent::watcher::Input;

/// The end of a fault.
#[derive(Clone, Copy, Debug)]
pub enum Undo {
    Mend(u64),
    StartWatcher(usize),
    QuickDisk(usize),
    StartServer(usize),
    WakeServer(usize),
    ApplyFast(usize),
    Heal,
}

const WEIGHTS: [(&str, u64); 19] = [
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
    ("replica lags", 6),
    ("slow network", 3),
    ("request", 9),
];

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
        let primary = self.invariants.primary.unwrap_or(server);
        let watcher = self.random.index(self.watchers.len());
        let place = self.random.index(3);
        let node = self.some_node();
        let other = self.some_node();
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
            "watcher crash" => self.fail_watcher(watcher),
            "leader crash" => {
                let leader = self.watchers.iter().position(|host| host.leads());
                self.fail_watcher(leader.unwrap_or(watcher));
            }
            "slow disk" => {
                self.watchers[watcher].disk_delay = self.random.range(10, 500) * MILLI;
                self.later(Undo::QuickDisk(watcher));
            }
            "primary crash" => self.fail_server(primary),
            "server crash" => self.fail_server(server),
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
            "replica lags" => {
                self.servers[server].apply_gap = self.random.range(50, 600) * MILLI;
                self.later(Undo::ApplyFast(server));
            }
            "slow network" => {
                self.network.slowness = self.random.range(10, 400) * MILLI;
                let id = self.id();
                self.later(Undo::Mend(id));
            }
            _ => self.after(0, Event::Request { watcher }),
        }
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

    fn fail_watcher(&mut self, watcher: usize) {
        if self.watchers[watcher].watcher.is_some() {
            self.crash_watcher(watcher);
            self.later(Undo::StartWatcher(watcher));
        }
    }

    fn fail_server(&mut self, server: usize) {
        if self.servers[server].up {
            self.say(|| format!("db{} crashes", server + 1));
            self.servers[server].crash();
            self.sessions_end(server);
            self.later(Undo::StartServer(server));
        }
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
            Undo::ApplyFast(server) => self.servers[server].apply_gap = 0,
            Undo::Heal => self.heal(),
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
            self.undo(Undo::ApplyFast(server));
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
        let request = match self.random.weighted(&[10, 3, 1, 2, 2, 1, 1]) {
            0 => Request::Switchover { cluster, to, dry_run },
            1 => Request::Failover { cluster, to, accept_loss: false, dry_run },
            2 => Request::Adopt { cluster, primary: server },
            3 => Request::Explain { cluster, without: to },
            4 => Request::Status { cluster: None },
            5 => Request::Events { after: 0, limit: 100, cluster: None },
            _ => Request::Procedure { cluster, id: None },
        };
        self.say(|| format!("w{} is asked for {request:?}", watcher + 1));
        let leader = self.watchers.iter().position(|host| host.leads());
        let asked = leader.filter(|_| self.random.permille(800)).unwrap_or(watcher);
        let id = self.id();
        self.feed(asked, Input::Request { id, request });
    }

    /// Late in the run: is everything well again?
    pub fn look(&mut self) {
        let wrong = self.unwell();
        let now = self.now;
        match wrong {
            None => {
                let since = *self.invariants.well_since.get_or_insert(now);
                if now - since >= crate::world::STEADY {
                    self.finish(since);
                    return;
                }
            }
            Some(what) if now >= HEALED => {
                return self.broken(format!("not healed: {what}"));
            }
            Some(_) => self.invariants.well_since = None,
        }
        self.after(100 * MILLI, Event::Look);
    }
}
