//! Once faults are over, all is well within bounded time: one leader, one writable primary that the
//! others follow, routes open, no procedure open, and clients write.

use crate::servers::Server;
use crate::setting;
use crate::world::{SECOND, World};
use regent::decision::cluster::Writer;
use regent::decision::report::Writable;

impl World {
    /// What is not well; `None` when all is.
    pub fn unwell(&self) -> Option<String> {
        let mut leaders = self.watchers.iter().filter(|host| host.leads());
        let (Some(leader), None) = (leaders.next(), leaders.next()) else {
            return Some("there is no single leader".to_owned());
        };
        let state = leader.watcher.as_ref()?.state().clusters.get(&setting::cluster());
        let Some(state) = state else {
            return Some("the cluster was not adopted".to_owned());
        };
        let Writer::Open { primary } = &state.writer else {
            let last = state.ended.back().map(|last| &last.ending);
            return Some(format!("{:?}, last procedure ended {last:?}", state.writer));
        };
        if let Some(open) = &state.procedure {
            return Some(format!("{} {} is open: {}", open.kind, open.id, open.cause));
        }
        if self.setting.lossless() && !state.protection.in_force {
            return Some("commits are not protected".to_owned());
        }
        let primary = setting::server_number(primary);
        self.servers_unwell(primary).or_else(|| self.clients_unwell(primary))
    }

    fn servers_unwell(&self, primary: usize) -> Option<String> {
        let source = &self.servers[primary];
        if !source.up || source.writable != Writable::Open || source.following.is_some() {
            return Some(format!("the primary db{} takes no writes", primary + 1));
        }
        for server in self.servers.iter().filter(|server| server.number != primary) {
            let name = self.server_name(server.number);
            if server.writable == Writable::Open {
                return Some(format!("{name} takes writes too"));
            }
            if self.diverged(server, primary) {
                continue; // People decide what becomes of it.
            }
            let follows = server.following.as_ref().is_some_and(|one| {
                one.source == primary && one.connected && one.applier && one.error.is_none()
            });
            if !follows {
                let why = server
                    .following
                    .as_ref()
                    .map(|one| (one.source, one.receiver, one.connected, one.applier, one.error));
                return Some(format!(
                    "{name} does not follow {}: {why:?}",
                    self.server_name(primary)
                ));
            }
            let behind = source.executed.of(primary).saturating_sub(server.executed.of(primary));
            if behind > 300 {
                return Some(format!("{name} is {behind} transactions behind"));
            }
        }
        None
    }

    /// Whether a server holds what the primary never had.
    fn diverged(&self, server: &Server, primary: usize) -> bool {
        let mut written = self.servers[primary].executed.clone();
        written.raise(primary, self.servers[primary].last_seq);
        !written.contains(&server.executed)
    }

    fn clients_unwell(&self, primary: usize) -> Option<String> {
        for (number, proxy) in self.proxies.iter().enumerate() {
            let newest = |session: &crate::proxies::Session| {
                session.server == primary && session.epoch == self.invariants.newest
            };
            let open = proxy.clients.iter().filter_map(|client| client.session.as_ref());
            if !open.into_iter().any(newest) {
                return Some(format!("p{} has no session on the primary", number + 1));
            }
        }
        // With nobody left who may hold its commits, a lossless primary has to wait for people.
        let mut others = self.servers.iter().filter(|server| server.number != primary);
        if self.setting.lossless() && others.all(|server| self.diverged(server, primary)) {
            return None;
        }
        if self.now > self.invariants.last_acknowledged + SECOND {
            let source = &self.servers[primary];
            return Some(format!(
                "nothing was acknowledged for a second: db{} waits {} for {} of {} connected, \
                 {} commits",
                primary + 1,
                if source.source_on { "on" } else { "off" },
                source.acks,
                self.semi_sync_clients(primary),
                source.waiting.len()
            ));
        }
        None
    }
}
