//! What the steps of a rejoin do on a model server.

use crate::network::Node;
use crate::servers::Held;
use crate::steps::Task;
use crate::world::World;
use regent::decision::gtid::Gtids;
use regent::decision::plan::{Export, Facts, Fork, Outcome};
use regent::decision::report::Writable;
use regent::decision::topology::{Flavor, WatcherName};

/// An attempt waits so many turns for appliers and for commits that are acknowledged, not yet done.
const PATIENCE: u32 = 400;

/// Copying takes so many turns at the most.
const COPYING: u64 = 120;

impl World {
    pub(crate) fn detach(&mut self, task: &Task) -> Outcome {
        if let Err(outcome) = self.permitted(task) {
            return outcome;
        }
        let server = &mut self.servers[task.server];
        server.following = None;
        server.relay.clear();
        Outcome::Done(server.facts())
    }

    pub(crate) fn export(
        &mut self,
        task: &Task,
        source: usize,
        known: Option<Gtids>,
    ) -> Option<Outcome> {
        let server = &self.servers[task.server];
        let receives = server.following.as_ref().is_some_and(|one| one.receiver);
        if server.writable != Writable::Closed || receives {
            return Some(Outcome::Failed("somebody opened it".to_owned()));
        }
        let primary = &self.servers[source];
        let reached = self.network.connects(Node::Watcher(task.watcher), Node::Server(source));
        if !reached || !primary.answers(self.now) {
            return Some(Outcome::Retry("the primary does not answer".to_owned()));
        }
        let theirs = primary.executed.gtids();
        let executed = server.executed.gtids();
        let pending = server.received().gtids().minus(&executed).minus(&theirs);
        let beyond = executed.minus(&theirs);
        let mut own = Held::default();
        own.raise(source, u64::MAX / 4);
        let lost = beyond.minus(&beyond.minus(&own.gtids()));
        if !pending.is_empty() || !lost.is_empty() {
            let text = format!("not settled: {pending} {lost}");
            return (task.turn > PATIENCE).then_some(Outcome::Failed(text));
        }
        let told = known.is_some_and(|known| known.contains(&beyond));
        let export = (!beyond.is_empty() && !told).then(|| Export {
            gtids: beyond.clone(),
            transactions: beyond.count_beyond(&Gtids::empty(Flavor::MySql)),
            rows: 1,
            watcher: WatcherName(format!("w{}", task.watcher + 1)),
            path: "somewhere".to_owned(),
        });
        let fork = Fork { beyond, primary: theirs, clock: self.now, export };
        Some(Outcome::Done(Facts { fork: Some(Box::new(fork)), ..server.facts() }))
    }

    pub(crate) fn rebuild(&mut self, task: &Task, donor: usize, since: u64) -> Option<Outcome> {
        let mine = (task.order.id.procedure, task.order.id.attempt);
        let now = self.now;
        if task.turn == 0 {
            if self.servers[task.server].copied.is_some_and(|begun| begun >= since) {
                return Some(Outcome::Done(self.servers[task.server].facts()));
            }
            if let Err(outcome) = self.permitted(task) {
                return Some(outcome);
            }
            let server = &mut self.servers[task.server];
            server.empty();
            server.rebuilder = Some((mine, now));
            return None;
        }
        let begun = match self.servers[task.server].rebuilder {
            Some((theirs, begun)) if theirs == mine => begun,
            _ => return Some(Outcome::Retry("a later attempt took over".to_owned())),
        };
        let there = self.network.connects(Node::Server(task.server), Node::Server(donor));
        if !there || !self.servers[donor].answers(now) {
            return Some(Outcome::Retry("the donor does not answer".to_owned()));
        }
        if !self.random.permille(1000 / COPYING) {
            return None;
        }
        let (log, executed) =
            (self.servers[donor].log.clone(), self.servers[donor].executed.clone());
        let committed = log.into_iter().filter(|txn| executed.of(txn.origin) >= txn.seq).collect();
        let restarts = self.random.permille(500);
        let server = &mut self.servers[task.server];
        (server.log, server.last_seq) = (committed, executed.of(task.server));
        server.executed = executed;
        (server.copied, server.rebuilder) = (Some(begun), None);
        if restarts {
            // As MySQL does; the connection is gone, and the next attempt finds it done.
            server.restart(now, 0, true, false);
            self.sessions_end(task.server);
        }
        Some(Outcome::Done(self.servers[task.server].facts()))
    }
}
