//! At equal applied index all watchers hold equal state.

use crate::world::World;
use regent::decision::cluster::State;
use std::collections::BTreeMap;

/// Whole states are compared at every so many entries; short accounts of them at each.
const WHOLE_EVERY: u64 = 64;

/// What watchers held at each index.
#[derive(Debug, Default)]
pub struct Agreement {
    applied: BTreeMap<usize, u64>,
    accounts: BTreeMap<u64, u64>,
    whole: BTreeMap<u64, u32>,
}

impl Agreement {
    pub fn forget(&mut self, watcher: usize) {
        self.applied.remove(&watcher);
    }

    pub fn is_news(&mut self, watcher: usize, applied: u64) -> bool {
        self.applied.insert(watcher, applied) != Some(applied)
    }

    pub fn check(&mut self, watcher: usize, applied: u64, state: &State) -> Result<(), String> {
        let account = account(state);
        if *self.accounts.entry(applied).or_insert(account) != account {
            return Err(format!("watcher {watcher} disagrees on the state at entry {applied}"));
        }
        if applied.is_multiple_of(WHOLE_EVERY) {
            let hash = whole(state);
            if *self.whole.entry(applied).or_insert(hash) != hash {
                return Err(format!("watcher {watcher} holds another state at {applied}"));
            }
        }
        Ok(())
    }
}

impl World {
    /// At the end, all of the states of those that are equally far.
    pub fn compare_all(&mut self) {
        let mut states = BTreeMap::new();
        let mut found = None;
        for watcher in self.watchers.iter().filter_map(|host| host.watcher.as_ref()) {
            let hash = whole(watcher.state());
            if *states.entry(watcher.applied()).or_insert(hash) != hash {
                found = Some(watcher.applied());
            }
        }
        if let Some(applied) = found {
            self.broken(format!("watchers hold different states at entry {applied}"));
        }
    }
}

fn whole(state: &State) -> u32 {
    crc32fast::hash(&serde_json::to_vec(state).unwrap())
}

fn account(state: &State) -> u64 {
    let mut text = format!("{} {}", state.last_event, state.events.len());
    for cluster in state.clusters.values() {
        let open = cluster.procedure.as_ref().map(|open| (open.plan.len(), open.journal.len()));
        text.push_str(&format!(
            "{} {:?} {:?} {:?} {} {open:?} {}",
            cluster.epoch,
            cluster.writer,
            cluster.protection,
            cluster.preparing,
            cluster.last_procedure,
            cluster.ended.len()
        ));
    }
    u64::from(crc32fast::hash(text.as_bytes()))
}
