//! The promises, checked after each event: one file per promise.

mod agreement;
mod healing;
mod journal;
mod lossless;
mod one_writer;

use crate::proxies::Write;
use crate::servers::Held;
use crate::setting;
use crate::world::World;
use regent::decision::cluster::Writer;
use regent::decision::procedure::Ending;
use regent::decision::topology::Epoch;
use regent::watcher::Watcher;
use std::collections::BTreeMap;

/// What has to be remembered to tell whether promises are kept.
#[derive(Debug)]
pub struct Invariants {
    /// The first broken promise.
    pub broken: Option<String>,
    /// The primary of the newest epoch.
    pub primary: Option<usize>,
    pub newest: Epoch,
    pub well_since: Option<u64>,
    pub written: u64,
    pub acknowledged: u64,
    pub last_acknowledged: u64,
    agreement: agreement::Agreement,
    journal: journal::Journals,
    one_writer: one_writer::OneWriter,
    lossless: lossless::Lossless,
}

impl Invariants {
    pub fn new(servers: usize) -> Invariants {
        Invariants {
            broken: None,
            primary: None,
            newest: Epoch::default(),
            well_since: None,
            written: 0,
            acknowledged: 0,
            last_acknowledged: 0,
            agreement: agreement::Agreement::default(),
            journal: journal::Journals::default(),
            one_writer: one_writer::OneWriter::default(),
            lossless: lossless::Lossless { acknowledged: Held(vec![0; servers]) },
        }
    }

    /// A watcher starts again from its disk, which may be behind what it had applied.
    pub fn forget_watcher(&mut self, watcher: usize) {
        self.agreement.forget(watcher);
        self.journal.forget(watcher);
        self.one_writer.forget(watcher);
    }
}

impl World {
    /// After each input a watcher took.
    pub fn watcher_moved(&mut self, number: usize) {
        let Some(watcher) = &self.watchers[number].watcher else {
            return;
        };
        let applied = watcher.applied();
        if !self.invariants.agreement.is_news(number, applied) {
            return;
        }
        let state = watcher.state();
        let checks = &mut self.invariants;
        let mut found = checks.agreement.check(number, applied, state).err();
        let Some(of_cluster) = state.clusters.get(&setting::cluster()) else {
            return;
        };
        found = found.or(checks.one_writer.state(number, of_cluster).err());
        found = found.or(checks.journal.check(number, of_cluster).err());
        if of_cluster.epoch >= checks.newest {
            checks.newest = of_cluster.epoch;
            if let Writer::Open { primary } = &of_cluster.writer {
                checks.primary = Some(setting::server_number(primary));
            }
        }
        if let Some(text) = found {
            self.broken(format!("w{}: {text}", number + 1));
        }
    }

    /// A leader's step sends a changing statement.
    pub fn statement(&mut self, term: u64, watcher: usize, procedure: u64) {
        if self.gave_up(watcher, procedure) {
            self.broken(format!("w{} acts for {procedure}, which it gave up", watcher + 1));
        }
        if let Err(text) = self.invariants.journal.statement(term) {
            self.broken(format!("w{}: {text}", watcher + 1));
        }
    }

    /// Whether a watcher knows that a procedure ended without success.
    pub fn gave_up(&self, watcher: usize, procedure: u64) -> bool {
        let state = self.watchers[watcher].watcher.as_ref().map(Watcher::state);
        let cluster = state.and_then(|state| state.clusters.get(&setting::cluster()));
        let ending = cluster.and_then(|it| it.find_procedure(procedure)?.ending.as_ref());
        ending.is_some_and(|ending| !matches!(ending, Ending::Done { .. }))
    }

    /// A step made a server writable.
    pub fn server_opened(&mut self, server: usize, epoch: Epoch) {
        let newest = self.invariants.newest;
        self.say(|| format!("db{} is open under epoch {epoch}", server + 1));
        if epoch < newest {
            self.broken(format!(
                "db{} opened under epoch {epoch}, after {newest} began",
                server + 1
            ));
        }
        let now = self.now;
        self.invariants.one_writer.opened(server, now);
        self.check_nothing_lost(server);
        self.check_former_fenced(server, epoch);
    }

    /// A client is told that its write is committed.
    pub fn client_told(&mut self, write: &Write, seq: u64, committed_at: u64) {
        let opened = self.invariants.one_writer.open_at(committed_at);
        let held = self.servers[opened].received().of(write.server) >= seq;
        let checks = &mut self.invariants;
        checks.acknowledged += 1;
        checks.last_acknowledged = self.now;
        checks.lossless.acknowledged.raise(write.server, seq);
        let told = checks.one_writer.told((write.epoch, write.server), committed_at, held);
        if let Err(text) = told {
            self.broken(text);
        }
        let open = self.invariants.one_writer.open_at(self.now);
        if open != write.server {
            self.check_nothing_lost(open);
        }
    }

    /// The run ends well.
    pub fn finish(&mut self, since: u64) {
        self.over = true;
        let healed_after = since.saturating_sub(crate::world::CALM) / crate::world::MILLI;
        self.tally.count("run", "healed");
        self.tally.add("run", "healing ms", healed_after);
        self.compare_all();
        if let Some(primary) = self.invariants.primary {
            self.check_nothing_lost(primary);
        }
    }
}

/// Facts of one epoch.
type ByEpoch<T> = BTreeMap<Epoch, T>;
