//! One writer: one primary per epoch, epochs only grow, and clients hear only of commits on a server
//! that was the primary of their epoch, made while it was the one opened last.

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
    /// When which server was opened for writes, oldest first.
    openings: Vec<(u64, usize)>,
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

    /// A server was opened for writes.
    pub fn opened(&mut self, server: usize, now: u64) {
        self.openings.push((now, server));
    }

    /// The server that was opened last by then; the first primary was open from the beginning.
    pub fn open_at(&self, at: u64) -> usize {
        let before = self.openings.iter().rev().find(|(opened, _)| *opened <= at);
        before.map_or(0, |(_, server)| *server)
    }

    /// A proxy that hears no watcher may go on under an old epoch, as long as what it writes to is
    /// in truth the primary. After that it may still hear of a commit that the next primary `held`
    /// already: one whose acknowledgement was on its way while the former one hung.
    pub fn told(
        &mut self,
        (epoch, server): (Epoch, usize),
        at: u64,
        held: bool,
    ) -> Result<(), String> {
        self.is_primary(epoch, server)?;
        let open = self.open_at(at);
        if open != server && !held {
            return Err(format!(
                "a commit of {at} on db{} under epoch {epoch} was acknowledged after db{} opened",
                server + 1,
                open + 1
            ));
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

    /// Whether a proxy that hears no watcher still takes a server for the primary, as it was told last. Should a
    /// person open that server by hand, what clients write there through it is acknowledged and lost: nothing but
    /// that person's knowledge stands against it.
    pub fn is_still_routed_to(&self, server: usize) -> bool {
        let primaries = &self.invariants.one_writer.primaries;
        self.proxies.iter().any(|proxy| {
            let newest = proxy.allowed.last_key_value();
            newest.is_some_and(|(epoch, (_, kept))| *kept && primaries.get(epoch) == Some(&server))
        })
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
