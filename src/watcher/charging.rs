//! The leader's care for chores: it gives each to one watcher, and to another one when that is silent or
//! cannot do it.

use super::chores::{ChoreMessage, ChoreWord};
use super::leading::Leading;
use super::machine::{Setup, Watcher};
use super::{Output, PeerMessage};
use crate::clock::Moment;
use crate::decision::backup::chore::{Charge, Chore, ChoreView, Work};
use crate::decision::backup::duty::BEAT;
use crate::decision::backup::maker::{self, Watchers};
use crate::decision::topology::{ClusterName, DataCenter, WatcherName};
use std::collections::BTreeMap;

/// All chores, as their leader knows them.
#[derive(Debug)]
pub(super) struct Charges {
    next: Moment,
    each: BTreeMap<(ClusterName, Chore), Charged>,
}

#[derive(Debug)]
struct Charged {
    charge: Charge,
    /// What its holder said last.
    work: Box<Work>,
}

impl Charges {
    pub(super) fn begin(now: Moment, setup: &Setup) -> Charges {
        let charged = || Charged { charge: Charge::begin(now), work: Box::default() };
        let all = setup.chores.iter().flat_map(|(cluster, chores)| {
            chores.iter().map(move |chore| ((cluster.clone(), *chore), charged()))
        });
        Charges { next: now, each: all.collect() }
    }

    pub(super) fn next(&self) -> Option<Moment> {
        (!self.each.is_empty()).then_some(self.next)
    }

    /// What the holder of a chore said last, if anybody has it.
    pub(super) fn work(&self, cluster: &ClusterName, chore: Chore) -> Option<&Work> {
        let charged = self.each.get(&(cluster.clone(), chore))?;
        charged.charge.is_worked_at().then_some(&*charged.work)
    }

    /// The chores of a cluster as people see them.
    pub(super) fn shown(&self, cluster: &ClusterName) -> Vec<ChoreView> {
        let of = self.each.iter().filter(|((name, _), _)| name == cluster);
        of.map(|((_, chore), it)| ChoreView::of(*chore, &it.charge, &it.work)).collect()
    }
}

impl Watcher {
    /// Sees to it that every chore has somebody who does it.
    pub(super) fn look_after_chores(&mut self, now: Moment, leading: &mut Leading) {
        if leading.charges.next > now {
            return;
        }
        leading.charges.next = now + BEAT;
        let mut given = Vec::new();
        for ((cluster, chore), charged) in &mut leading.charges.each {
            charged.charge.look(now);
            if charged.charge.is_free(now) {
                self.give_chore(now, *chore, &mut charged.charge);
            }
            if let Some(to) = charged.charge.holder().cloned() {
                let (cluster, chore) = (cluster.clone(), *chore);
                let word = ChoreWord::Take;
                given.push((to, ChoreMessage { cluster, chore, sent: Moment::ZERO, word }));
            }
        }
        for (to, message) in given {
            if to == self.setup.own {
                self.take_chore(now, message);
            } else {
                self.push(Output::Send { to, message: PeerMessage::Chore(message) });
            }
        }
    }

    /// Rather not to the leader, which has failovers to do.
    fn give_chore(&self, now: Moment, chore: Chore, charge: &mut Charge) {
        let (reachable, tried) = (self.reachable(now), charge.tried());
        let watchers = Watchers {
            declared: &self.setup.watchers,
            reachable: &reachable,
            leader: &self.setup.own,
        };
        let stands = match chore {
            // Nobody knows where a target stands, nor which server will be read tomorrow.
            Chore::Prove | Chore::Archive => DataCenter::from(""),
        };
        let picked = maker::pick(watchers, &stands, &tried);
        if let Some(watcher) = picked.filter(|watcher| !tried.contains(watcher)) {
            charge.give(now, &watcher);
        }
    }

    /// The answer to what a watcher says of its chore, if there is one.
    pub(super) fn confirm_chore(
        &mut self,
        now: Moment,
        from: &WatcherName,
        said: ChoreMessage,
    ) -> Option<ChoreMessage> {
        // Another leader may have given it to somebody else.
        if self.consensus.surely_leads_until().is_none_or(|until| until <= now) {
            return None;
        }
        let charges = &mut self.leading.as_mut()?.charges;
        let charged = charges.each.get_mut(&(said.cluster.clone(), said.chore))?;
        let (working, work) = match &said.word {
            ChoreWord::Ready => (false, Box::default()),
            ChoreWord::Goes(work) => (true, work.clone()),
            ChoreWord::GivenUp { why } => {
                if charged.charge.gave_up(now, said.chore, from, why) {
                    charges.next = now;
                }
                return None;
            }
            ChoreWord::Take | ChoreWord::GoOn => return None,
        };
        if !charged.charge.hear(now, from, working) {
            return None;
        }
        *charged.work = work.bounded();
        Some(ChoreMessage { word: ChoreWord::GoOn, ..said })
    }
}
