//! The journal only grows, nothing ends that did not begin, and no deposed leader acts.

use regent::decision::cluster::ClusterState;
use regent::decision::procedure::What;
use std::collections::BTreeMap;

/// How far the journals were seen, per watcher and procedure.
#[derive(Debug, Default)]
pub struct Journals {
    seen: BTreeMap<usize, (u64, usize, usize)>,
    /// The newest term in which a step changed anything.
    term: u64,
}

impl Journals {
    pub fn forget(&mut self, watcher: usize) {
        self.seen.remove(&watcher);
    }

    pub fn check(&mut self, watcher: usize, state: &ClusterState) -> Result<(), String> {
        let Some(open) = &state.procedure else {
            return Ok(());
        };
        let now = (open.id, open.plan.len(), open.journal.len());
        let before = self.seen.insert(watcher, now).unwrap_or_default();
        if before.0 > now.0 {
            return Err(format!("procedure {} follows {}", now.0, before.0));
        }
        let known = if before.0 == now.0 { before } else { (now.0, 0, 0) };
        if known.1 > now.1 || known.2 > now.2 {
            return Err(format!("procedure {} got shorter: {known:?} to {now:?}", open.id));
        }
        for (place, entry) in open.journal.iter().enumerate().skip(known.2) {
            let mine = |one: &&regent::decision::procedure::Entry| {
                (one.stage, one.step) == (entry.stage, entry.step)
            };
            let last = open.journal[..place].iter().rev().find(mine);
            let fits = match (&entry.what, last) {
                (What::Began { .. }, None) => entry.attempt == 1,
                (What::Began { .. }, Some(last)) => entry.attempt == last.attempt + 1,
                (What::Finished(_), Some(last)) => {
                    last.attempt == entry.attempt && matches!(last.what, What::Began { .. })
                }
                (What::Finished(_), None) => false,
            };
            if !fits {
                return Err(format!("journal of procedure {}: {entry:?} after {last:?}", open.id));
            }
        }
        Ok(())
    }

    pub fn statement(&mut self, term: u64) -> Result<(), String> {
        if term < self.term {
            return Err(format!("acts in term {term} after somebody acted in term {}", self.term));
        }
        self.term = term;
        Ok(())
    }
}
