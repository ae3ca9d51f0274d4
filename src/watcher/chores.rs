//! Chores that this watcher does, because its leader gave them to it and confirms that again and again.

use super::machine::Watcher;
use super::{Output, PeerMessage};
use crate::clock::Moment;
use crate::decision::backup::chore::{Chore, Hold, Work};
use crate::decision::backup::duty::BEAT;
use crate::decision::backup::reason::shortened;
use crate::decision::topology::{ClusterName, WatcherName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Something to be done about a chore, on this watcher's machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChoreOrder {
    /// The cluster.
    pub cluster: ClusterName,
    /// The chore.
    pub chore: Chore,
    /// What is to be done.
    pub what: ChoreDoing,
}

/// See [`ChoreOrder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChoreDoing {
    /// Do it until it is broken off; what is left of an earlier time ends first.
    Begin,
    /// Something happened that it may be about: look at once.
    Look,
    /// End it.
    BreakOff,
}

/// What became of a chore that this watcher does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChoreNews {
    /// The cluster.
    pub cluster: ClusterName,
    /// The chore.
    pub chore: Chore,
    /// What became of it.
    pub said: ChoreSaid,
}

/// See [`ChoreNews`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChoreSaid {
    /// It goes on.
    Goes(Box<Work>),
    /// It ended, since this watcher cannot do it.
    Ended {
        /// Why.
        why: String,
    },
}

/// What watchers tell each other about a chore. A watcher of a former version ignores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChoreMessage {
    /// The cluster.
    pub cluster: ClusterName,
    /// The chore.
    pub chore: Chore,
    /// When it was said, by the clock of the one who does the chore; it comes back with the answer.
    pub sent: Moment,
    /// What is said.
    pub word: ChoreWord,
}

/// See [`ChoreMessage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChoreWord {
    /// The leader's: this chore is yours.
    Take,
    /// The answer: it could begin.
    Ready,
    /// It is done.
    Goes(Box<Work>),
    /// It cannot be done there, and has ended.
    GivenUp {
        /// Why.
        why: String,
    },
    /// The leader's answer to the former two: nobody else has it.
    GoOn,
}

/// The chores of one watcher.
#[derive(Debug, Default)]
pub(super) struct Holding {
    mine: BTreeMap<(ClusterName, Chore), Mine>,
}

#[derive(Debug)]
struct Mine {
    hold: Hold,
    /// When the leader is to hear of it next.
    report: Moment,
    work: Box<Work>,
    /// Why it ended here, until that is told.
    ended: Option<String>,
}

impl Holding {
    fn take(&mut self, now: Moment, key: (ClusterName, Chore)) {
        let fresh =
            || Mine { hold: Hold::given(now), report: now, work: Box::default(), ended: None };
        self.mine.entry(key).or_insert_with(fresh);
    }

    fn note(&mut self, now: Moment, news: ChoreNews) {
        let ChoreNews { cluster, chore, said } = news;
        let Some(mine) = self.mine.get_mut(&(cluster, chore)) else { return };
        match said {
            _ if !mine.hold.is_working() => {}
            ChoreSaid::Goes(work) => *mine.work = work.bounded(),
            ChoreSaid::Ended { why } => {
                mine.ended = Some(shortened(&why));
                mine.report = now;
            }
        }
    }

    /// True when the work begins.
    fn go_on(&mut self, now: Moment, key: &(ClusterName, Chore), sent: Moment) -> bool {
        let mine = self.mine.get_mut(key);
        mine.is_some_and(|mine| mine.hold.confirmed(now, sent))
    }

    /// What the leader is to hear now, and what must not go on.
    fn due(&mut self, now: Moment) -> (Vec<ChoreMessage>, Vec<ChoreOrder>) {
        let ended = self.mine.extract_if(.., |_, mine| mine.hold.is_over(now));
        let broken_off = ended.filter(|(_, mine)| mine.hold.is_working() && mine.ended.is_none());
        let what = ChoreDoing::BreakOff;
        let orders = broken_off.map(|((cluster, chore), _)| ChoreOrder { cluster, chore, what });
        let orders = orders.collect();
        let mut messages = Vec::new();
        for ((cluster, chore), mine) in &mut self.mine {
            if now >= mine.report {
                mine.report = now + BEAT;
                let (cluster, chore) = (cluster.clone(), *chore);
                messages.push(ChoreMessage { cluster, chore, sent: now, word: mine.word() });
            }
        }
        (messages, orders)
    }

    /// When something is due at the latest.
    pub(super) fn next(&self) -> Option<Moment> {
        self.mine.values().map(|mine| mine.report.min(mine.hold.until())).min()
    }

    /// Whether that is being done here.
    pub(super) fn does(&self, cluster: &ClusterName, chore: Chore) -> bool {
        let mine = self.mine.get(&(cluster.clone(), chore));
        mine.is_some_and(|mine| mine.hold.is_working() && mine.ended.is_none())
    }
}

impl Mine {
    fn word(&self) -> ChoreWord {
        match &self.ended {
            Some(why) => ChoreWord::GivenUp { why: why.clone() },
            None if self.hold.is_working() => ChoreWord::Goes(self.work.clone()),
            None => ChoreWord::Ready,
        }
    }
}

impl Watcher {
    /// A chore that was ordered here goes on or ended.
    pub(super) fn chore_news(&mut self, now: Moment, news: ChoreNews) {
        self.holding.note(now, news);
    }

    /// Another watcher says something about a chore.
    pub(super) fn chore_message(&mut self, now: Moment, from: &WatcherName, said: ChoreMessage) {
        match said.word {
            ChoreWord::Take if self.consensus.leader() == Some(from) => self.take_chore(now, said),
            ChoreWord::Take => {}
            ChoreWord::GoOn => self.chore_goes_on(now, &said),
            ChoreWord::Ready | ChoreWord::Goes(_) | ChoreWord::GivenUp { .. } => {
                if let Some(answer) = self.confirm_chore(now, from, said) {
                    let (to, message) = (from.clone(), PeerMessage::Chore(answer));
                    self.push(Output::Send { to, message });
                }
            }
        }
    }

    /// The leader gives this watcher a chore. One that this watcher was not told of it refuses silently.
    pub(super) fn take_chore(&mut self, now: Moment, said: ChoreMessage) {
        let ChoreMessage { cluster, chore, .. } = said;
        if self.setup.chores.get(&cluster).is_some_and(|chores| chores.contains(&chore)) {
            self.holding.take(now, (cluster, chore));
        }
    }

    /// Tells the leader what it is to hear, wherever it is.
    pub(super) fn report_chores(&mut self, now: Moment) {
        let (messages, orders) = self.holding.due(now);
        orders.into_iter().for_each(|order| self.push(Output::Chore(order)));
        for message in messages {
            let own = self.setup.own.clone();
            if self.leading.is_some() {
                if let Some(answer) = self.confirm_chore(now, &own, message) {
                    self.chore_goes_on(now, &answer);
                }
            } else if let Some(to) = self.consensus.leader().cloned() {
                self.push(Output::Send { to, message: PeerMessage::Chore(message) });
            }
        }
    }

    fn chore_goes_on(&mut self, now: Moment, answer: &ChoreMessage) {
        let (cluster, chore) = (answer.cluster.clone(), answer.chore);
        if self.holding.go_on(now, &(cluster.clone(), chore), answer.sent) {
            self.push(Output::Chore(ChoreOrder { cluster, chore, what: ChoreDoing::Begin }));
        }
    }

    /// Something happened that a chore may be about.
    pub(super) fn stir_chore(&mut self, cluster: &ClusterName, chore: Chore) {
        if self.holding.does(cluster, chore) {
            let (cluster, what) = (cluster.clone(), ChoreDoing::Look);
            self.push(Output::Chore(ChoreOrder { cluster, chore, what }));
        }
    }
}
