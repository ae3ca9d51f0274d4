//! Somebody who gives a replica other data out of a backup, as `regent rejoin --from-backup` does: the watchers
//! leave the server alone and hold its word for nothing, it is emptied, gets what the primary once held, follows,
//! and is given back when it has caught up. Whoever does that may give up at any point.

use crate::servers::{Following, Held};
use crate::setting::{self, Flaw};
use crate::world::{CALM, Event, MILLI, SECOND, World};
use regent::decision::cluster::{ClusterState, Writer};
use regent::decision::report::Writable;
use regent::decision::view::Request;
use std::time::Duration;

/// Between two looks at how far it is.
const BETWEEN: u64 = 100 * MILLI;
/// How often the watchers are asked for what they have not done yet.
const ASKED: u64 = 500 * MILLI;

/// A server that gets other data.
#[derive(Clone, Debug)]
pub struct Replacing {
    server: usize,
    point: Point,
    asked: u64,
    /// When whoever does it loses patience.
    until: u64,
}

#[derive(Clone, Debug)]
enum Point {
    /// The watchers are asked to leave it alone.
    Asking,
    /// It holds nothing.
    Emptied { loaded: u64 },
    /// It follows, and is to hold that before it is given back.
    Following { wanted: Held },
}

impl World {
    /// Begins it, or goes on with it.
    pub fn replace_data(&mut self) {
        let Some(mut replacing) = self.replacing.take() else {
            return self.begin_replacing();
        };
        let goes_on = self.now < replacing.until && self.go_on_replacing(&mut replacing);
        if goes_on {
            self.replacing = Some(replacing);
            return self.after(BETWEEN, Event::ReplaceData);
        }
        let wait = self.random.range(500 * MILLI, 3 * SECOND);
        self.after(wait, Event::ReplaceData);
    }

    fn begin_replacing(&mut self) {
        if self.now >= CALM {
            return;
        }
        let server = self.random.index(self.servers.len());
        let until = self.now + self.random.range(4, 12) * SECOND;
        self.say(|| format!("db{} is to get other data", server + 1));
        self.replacing = Some(Replacing { server, point: Point::Asking, asked: 0, until });
        self.after(0, Event::ReplaceData);
    }

    /// False when it has come to its end, or cannot go on.
    fn go_on_replacing(&mut self, replacing: &mut Replacing) -> bool {
        let Some((left_alone, counts)) = self.treated(replacing.server) else { return true };
        let trusted = self.setting.flaw == Flaw::ReplacedTrusted;
        match replacing.point.clone() {
            Point::Asking if left_alone && (trusted || !counts) => self.empty(replacing),
            Point::Asking => self.ask_to_leave_alone(replacing, !trusted),
            // The watchers look after it again, and replace its data themselves.
            Point::Emptied { .. } | Point::Following { .. } if !left_alone => return false,
            Point::Emptied { loaded } if self.now < loaded => {}
            Point::Emptied { .. } => self.load(replacing),
            Point::Following { wanted } => {
                if !self.servers[replacing.server].executed.contains(&wanted) {
                    return true;
                }
                if replacing.asked + ASKED <= self.now {
                    replacing.asked = self.now;
                    self.tally.count("replaced", "given back");
                    let (cluster, by) = (setting::cluster(), String::new());
                    let server = Some(setting::server_name(replacing.server));
                    let new_data = !trusted;
                    self.ask_leader(Request::EndMaintenance { cluster, server, by, new_data });
                }
            }
        }
        true
    }

    /// Whether the watchers leave a server alone, and whether what it holds counts; none while nobody leads.
    fn treated(&self, server: usize) -> Option<(bool, bool)> {
        let state = self.agreed()?;
        let name = setting::server_name(server);
        let left_alone = state.maintenance.servers.contains_key(&name);
        Some((left_alone, !state.rebuilding.contains_key(&name)))
    }

    fn agreed(&self) -> Option<&ClusterState> {
        let leader = self.watchers.iter().find(|host| host.leads())?.watcher.as_ref()?;
        leader.state().clusters.get(&setting::cluster())
    }

    fn ask_to_leave_alone(&mut self, replacing: &mut Replacing, new_data: bool) {
        if replacing.asked + ASKED > self.now {
            return;
        }
        replacing.asked = self.now;
        let new_data = new_data && self.random.permille(700);
        let lasts = Duration::from_millis(self.random.range(1_000, 8_000));
        let (cluster, by) = (setting::cluster(), String::new());
        let (server, reason) = (Some(setting::server_name(replacing.server)), "backup".into());
        self.ask_leader(Request::Maintain { cluster, server, lasts, reason, by, new_data });
    }

    fn empty(&mut self, replacing: &mut Replacing) {
        let now = self.now;
        let server = &mut self.servers[replacing.server];
        if !server.answers(now) {
            return;
        }
        self.tally.count("replaced", "emptied");
        self.say(|| format!("db{} is emptied", replacing.server + 1));
        let server = &mut self.servers[replacing.server];
        server.end_sessions();
        server.empty();
        (server.rebuilder, server.writable) = (None, Writable::Closed);
        let loaded = now + self.random.range(100 * MILLI, 4 * SECOND);
        replacing.point = Point::Emptied { loaded };
    }

    /// It gets what the primary held at some time, at least all that it numbered itself: it would pass over the
    /// rest of that.
    fn load(&mut self, replacing: &mut Replacing) {
        let Some(Writer::Open { primary }) = self.agreed().map(|state| state.writer.clone()) else {
            return;
        };
        let source = setting::server_number(&primary);
        let there = self.servers[source].answers(self.now)
            && self.servers[source].writable == Writable::Open
            && self.servers[replacing.server].answers(self.now);
        if source == replacing.server || !there {
            return;
        }
        let wanted = self.servers[source].executed.clone();
        let log = &self.servers[source].log;
        let committed: Vec<_> =
            log.iter().filter(|txn| wanted.of(txn.origin) >= txn.seq).copied().collect();
        let own = committed.iter().rposition(|txn| txn.origin == replacing.server);
        let least = own.map_or(0, |at| at + 1);
        let length = least + self.random.index(committed.len() - least + 1);
        let server = &mut self.servers[replacing.server];
        server.log = committed[..length].to_vec();
        server.executed = Held::default();
        for txn in &committed[..length] {
            server.executed.raise(txn.origin, txn.seq);
        }
        server.last_seq = server.executed.of(replacing.server);
        server.following = Some(Following::begin(source));
        self.tally.count("replaced", "loaded");
        self.say(|| format!("db{} has {length} transactions again", replacing.server + 1));
        replacing.point = Point::Following { wanted };
    }
}
