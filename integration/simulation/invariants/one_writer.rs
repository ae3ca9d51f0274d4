//! One writer: one primary per epoch, epochs only grow, and clients hear only of commits on the
//! primary of their epoch, made before any later epoch's.

use super::ByEpoch;
use crate::setting;
use crate::world::World;
use regent::decision::cluster::{ClusterState, Writer};
use regent::decision::report::Writable;
use regent::decision::topology::Epoch;
use std::collections::BTreeMap;

/// What is known of epochs.
#[derive(Debug, Default)]
pub struct OneWriter {
    primaries: ByEpoch<usize>,
    /// First and last commit that a client was told of.
    commits: ByEpoch<(u64, u64)>,
    /// Per watcher.
    epochs: BTreeMap<usize, Epoch>,
}

impl OneWriter {
    pub fn forget(&mut self, watcher: usize) {
        self.epochs.remove(&watcher);
    }

    pub fn state(&mut self, watcher: usize, state: &ClusterState) -> Result<(), String> {
        let before = self.epochs.insert(watcher, state.epoch).unwrap_or_default();
        if before > state.epoch {
            return Err(format!("epoch {before} is followed by {}", state.epoch));
        }
        if let Writer::Open { primary } = &state.writer {
            let primary = setting::server_number(primary);
            let known = *self.primaries.entry(state.epoch).or_insert(primary);
            if known != primary {
                let (a, b) = (known + 1, primary + 1);
                return Err(format!("epoch {} has two primaries, db{a} and db{b}", state.epoch));
            }
        }
        Ok(())
    }

    pub fn told(&mut self, epoch: Epoch, server: usize, at: u64) -> Result<(), String> {
        self.is_primary(epoch, server)?;
        let (first, last) = self.commits.entry(epoch).or_insert((at, at));
        (*first, *last) = ((*first).min(at), (*last).max(at));
        for (other, (first, last)) in &self.commits {
            if (*other > epoch && *first < at) || (*other < epoch && *last > at) {
                return Err(format!(
                    "a commit under epoch {epoch} at {at} and one under epoch {other} at \
                     {first} to {last} were both acknowledged"
                ));
            }
        }
        Ok(())
    }

    fn is_primary(&self, epoch: Epoch, server: usize) -> Result<(), String> {
        match self.primaries.get(&epoch) {
            Some(primary) if *primary == server => Ok(()),
            other => Err(format!(
                "a session of epoch {epoch} uses db{}, whose primary is {other:?}",
                server + 1
            )),
        }
    }
}

impl World {
    /// A proxy forwards a new session.
    pub fn forwarded(&mut self, proxy: usize, server: usize, epoch: Epoch) {
        if let Err(text) = self.invariants.one_writer.is_primary(epoch, server) {
            self.broken(format!("p{}: {text}", proxy + 1));
        }
        let now = self.proxy_now(proxy);
        let allowed = self.proxies[proxy].allowed.get(&epoch);
        let allowed = allowed.is_some_and(|(until, kept)| *kept || now < *until);
        if !allowed {
            self.broken(format!("p{} forwards on an expired route of epoch {epoch}", proxy + 1));
        }
    }

    /// Fence before promote: when a server opens, no proxy may still write elsewhere, unless that
    /// could not be acknowledged anyway.
    pub fn check_former_fenced(&mut self, opened: usize, epoch: Epoch) {
        if self.setting.lossless() {
            return; // Shown by what clients are told of.
        }
        let mut open = None;
        for (number, proxy) in self.proxies.iter().enumerate() {
            for session in proxy.clients.iter().filter_map(|client| client.session.as_ref()) {
                let former = &self.servers[session.server];
                let writes = former.up && former.writable == Writable::Open;
                if session.epoch < epoch && session.server != opened && writes {
                    open = Some((number, session.server, session.epoch));
                }
            }
        }
        if let Some((proxy, server, old)) = open {
            self.broken(format!(
                "db{} opens under epoch {epoch} while p{} still writes to db{} under epoch {old}",
                opened + 1,
                proxy + 1,
                server + 1
            ));
        }
    }
}
