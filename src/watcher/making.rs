//! Backups that this watcher makes, because the account says that it does.
//!
//! An attempt begins when its leader confirms it, and goes on as long as that is confirmed again
//! and again. So nobody takes over an attempt that still reads from its server, and one that was
//! given up ends although its watcher is cut off. What a watcher made for an attempt that was given
//! up stays until its run has ended, since a later attempt may have found it.

use super::Output;
use super::PeerMessage;
use super::machine::Watcher;
use crate::clock::Moment;
use crate::decision::backup::duty::{BEAT, TRUSTED};
use crate::decision::backup::names::BackupId;
use crate::decision::backup::reached::Reached;
use crate::decision::backup::runs::{Attempt, Outcome};
use crate::decision::cluster::State;
use crate::decision::topology::{ClusterName, ScheduleName, ServerName, WatcherName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Something to be done about a backup, on this watcher's machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupOrder {
    /// Make one; answer how it ended in any case.
    Make {
        /// The cluster.
        cluster: ClusterName,
        /// For which attempt.
        attempt: Attempt,
        /// The server to read from.
        server: ServerName,
    },
    /// Break that attempt off, and leave nothing of it.
    BreakOff {
        /// The cluster.
        cluster: ClusterName,
        /// Which.
        attempt: Attempt,
    },
    /// Nobody counts on that backup: take it away.
    Discard {
        /// The cluster.
        cluster: ClusterName,
        /// The attempt that made it.
        attempt: Attempt,
        /// Which.
        backup: BackupId,
    },
    /// That attempt's backup counts, so older ones may go.
    Prune {
        /// The cluster.
        cluster: ClusterName,
        /// The attempt.
        attempt: Attempt,
    },
}

/// What became of an order to make a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupNews {
    /// The cluster.
    pub cluster: ClusterName,
    /// The attempt.
    pub attempt: Attempt,
    /// What became of it.
    pub said: BackupSaid,
}

/// What is said of an attempt by whoever makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupSaid {
    /// It is so far.
    Reached(Reached),
    /// It ended.
    Ended(BackupEnd),
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupEnd {
    /// It made a backup, which is whole.
    Made {
        /// Which.
        backup: BackupId,
        /// How many bytes it has at each target.
        bytes: u64,
        /// The targets that do not have it, each with why. Older versions tell of none.
        #[serde(default)]
        lacking: Vec<String>,
    },
    /// An earlier attempt of the same run had made one.
    Found {
        /// Which.
        backup: BackupId,
        /// How many bytes it has at its target.
        bytes: u64,
    },
    /// It made none.
    Failed {
        /// Why.
        why: String,
    },
}

/// What watchers tell each other about an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupMessage {
    /// The cluster.
    pub cluster: ClusterName,
    /// The attempt.
    pub attempt: Attempt,
    /// When its watcher said this, by that watcher's own clock; it comes back with the answer.
    pub sent: Moment,
    /// What is said.
    pub word: BackupWord,
    /// How far it is, beside the bytes stored: older watchers neither send nor read that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<Reached>,
}

/// See [`BackupMessage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupWord {
    /// The watcher could begin.
    Ready,
    /// It has stored so many bytes.
    Stored(u64),
    /// It has ended.
    Ended(BackupEnd),
    /// The leader's answer to the first two: it is the newest attempt of an open run.
    GoOn,
}

/// The attempts of one watcher.
#[derive(Debug, Default)]
pub(super) struct Making {
    mine: BTreeMap<(ClusterName, ScheduleName), Mine>,
    left: Vec<Left>,
}

#[derive(Debug)]
struct Mine {
    attempt: Attempt,
    server: ServerName,
    stage: Stage,
    /// When the leader is to hear of it next.
    report: Moment,
    /// Until when it may go on.
    until: Moment,
}

#[derive(Debug)]
enum Stage {
    /// The leader has not confirmed it yet.
    Ready,
    /// It is so far.
    Running(Reached),
    /// It ended, and the account does not say so yet.
    Ended(BackupEnd),
    /// It was given up here.
    Over,
}

/// A backup of an attempt that is not, or no longer, the newest one of an open run.
#[derive(Debug)]
struct Left {
    cluster: ClusterName,
    attempt: Attempt,
    backup: BackupId,
    /// Whether that attempt made it, and did not find it.
    made: bool,
}

impl Making {
    /// Compares what is made with the account. What it already said when this watcher started is
    /// no news: those attempts ended with the process that made them.
    pub(super) fn follow(
        &mut self,
        now: Moment,
        own: &WatcherName,
        state: &State,
        news: bool,
    ) -> Vec<BackupOrder> {
        let asked = asked_of(own, state);
        let mut orders = Vec::new();
        let is_asked = |key: &(ClusterName, ScheduleName), mine: &Mine| {
            asked.get(key).is_some_and(|(attempt, _)| *attempt == mine.attempt)
        };
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.mine).into_iter().partition(|(key, it)| is_asked(key, it));
        self.mine = kept;
        for ((cluster, _), Mine { attempt, stage, .. }) in gone {
            match stage {
                Stage::Ready | Stage::Over => {}
                Stage::Running(_) => orders.push(BackupOrder::BreakOff { cluster, attempt }),
                Stage::Ended(end) => self.left.extend(Left::of(cluster, attempt, end)),
            }
        }
        for (key, (attempt, server)) in asked {
            let stage = if news { Stage::Ready } else { Stage::Over };
            let fresh = Mine { attempt, server, stage, report: now, until: now + TRUSTED };
            self.mine.entry(key).or_insert(fresh);
        }
        let left = std::mem::take(&mut self.left);
        let (waits, known) = left.into_iter().partition(|left| left.is_open(state));
        self.left = waits;
        orders.extend(known.into_iter().filter_map(|left: Left| left.order(state)));
        orders
    }

    /// An attempt went on or ended.
    fn note(&mut self, now: Moment, news: BackupNews) {
        let BackupNews { cluster, attempt, said } = news;
        let key = (cluster.clone(), attempt.schedule.clone());
        let mine = self.mine.get_mut(&key).filter(|mine| mine.attempt == attempt);
        match (mine, said) {
            (Some(mine), said) if matches!(mine.stage, Stage::Running(_)) => match said {
                BackupSaid::Reached(reached) => mine.stage = Stage::Running(reached),
                BackupSaid::Ended(end) => {
                    mine.stage = Stage::Ended(end);
                    mine.report = now;
                }
            },
            (_, BackupSaid::Ended(end)) => self.left.extend(Left::of(cluster, attempt, end)),
            (_, BackupSaid::Reached(_)) => {}
        }
    }

    /// The leader confirmed what was said then; true when the attempt begins with that.
    fn go_on(
        &mut self,
        now: Moment,
        cluster: &ClusterName,
        attempt: &Attempt,
        sent: Moment,
    ) -> bool {
        let key = (cluster.clone(), attempt.schedule.clone());
        let Some(mine) = self.mine.get_mut(&key).filter(|mine| mine.attempt == *attempt) else {
            return false;
        };
        mine.until = mine.until.max(sent.min(now) + TRUSTED);
        let begins = matches!(mine.stage, Stage::Ready) && now < mine.until;
        if begins {
            mine.stage = Stage::Running(Reached::default());
        }
        begins
    }

    /// What the leader is to hear now, and what must not go on.
    fn due(&mut self, now: Moment) -> (Vec<BackupMessage>, Vec<BackupOrder>) {
        let (mut messages, mut orders) = (Vec::new(), Vec::new());
        for ((cluster, _), mine) in &mut self.mine {
            let mut reached = None;
            let word = match &mine.stage {
                Stage::Over => continue,
                Stage::Ended(end) => BackupWord::Ended(end.clone()),
                Stage::Ready | Stage::Running(_) if now >= mine.until => {
                    let (cluster, attempt) = (cluster.clone(), mine.attempt.clone());
                    if matches!(mine.stage, Stage::Running(_)) {
                        orders.push(BackupOrder::BreakOff { cluster, attempt });
                    }
                    mine.stage = Stage::Over;
                    continue;
                }
                Stage::Ready => BackupWord::Ready,
                Stage::Running(so_far) => {
                    reached = Some(so_far.clone());
                    BackupWord::Stored(so_far.stored)
                }
            };
            if now >= mine.report {
                mine.report = now + BEAT;
                let (cluster, attempt) = (cluster.clone(), mine.attempt.clone());
                messages.push(BackupMessage { cluster, attempt, sent: now, word, reached });
            }
        }
        (messages, orders)
    }

    /// When something is due at the latest.
    pub(super) fn next(&self) -> Option<Moment> {
        let due = self.mine.values().filter_map(|mine| match mine.stage {
            Stage::Over => None,
            Stage::Ended(_) => Some(mine.report),
            Stage::Ready | Stage::Running(_) => Some(mine.report.min(mine.until)),
        });
        due.min()
    }

    fn server_of(&self, cluster: &ClusterName, attempt: &Attempt) -> Option<ServerName> {
        let mine = self.mine.get(&(cluster.clone(), attempt.schedule.clone()))?;
        (mine.attempt == *attempt).then(|| mine.server.clone())
    }
}

impl Left {
    fn of(cluster: ClusterName, attempt: Attempt, end: BackupEnd) -> Option<Left> {
        let (backup, made) = match end {
            BackupEnd::Made { backup, .. } => (backup, true),
            BackupEnd::Found { backup, .. } => (backup, false),
            BackupEnd::Failed { .. } => return None,
        };
        Some(Left { cluster, attempt, backup, made })
    }

    /// Whether its run may still end with it.
    fn is_open(&self, state: &State) -> bool {
        let account = account(state, &self.cluster, &self.attempt.schedule);
        let run = account.and_then(|account| account.open.as_ref());
        run.is_some_and(|run| run.slot == self.attempt.slot)
    }

    fn order(self, state: &State) -> Option<BackupOrder> {
        let account = account(state, &self.cluster, &self.attempt.schedule);
        let is_it = |outcome: &Outcome| matches!(outcome, Outcome::Done { backup, .. } if *backup == self.backup);
        let counts = account.is_some_and(|it| it.ended.iter().any(|it| is_it(&it.outcome)));
        let Left { cluster, attempt, backup, made } = self;
        match (counts, made) {
            (true, _) => Some(BackupOrder::Prune { cluster, attempt }),
            (false, true) => Some(BackupOrder::Discard { cluster, attempt, backup }),
            (false, false) => None,
        }
    }
}

fn account<'s>(
    state: &'s State,
    cluster: &ClusterName,
    schedule: &ScheduleName,
) -> Option<&'s crate::decision::backup::runs::Account> {
    state.clusters.get(cluster)?.backups.schedules.get(schedule)
}

/// The attempts that the account asks of a watcher, with the servers to read from.
fn asked_of(
    own: &WatcherName,
    state: &State,
) -> BTreeMap<(ClusterName, ScheduleName), (Attempt, ServerName)> {
    let mut asked = BTreeMap::new();
    for (cluster, state) in &state.clusters {
        for (schedule, account) in &state.backups.schedules {
            let running = account.open.as_ref().and_then(|run| run.running(schedule));
            if let Some((attempt, _, server)) = running.filter(|(_, watcher, _)| *watcher == own) {
                asked.insert((cluster.clone(), schedule.clone()), (attempt, server.clone()));
            }
        }
    }
    asked
}

impl Watcher {
    /// The account of backups changed.
    pub(super) fn follow_backups(&mut self, now: Moment, news: bool) {
        let orders = self.making.follow(now, &self.setup.own, &self.state, news);
        orders.into_iter().for_each(|order| self.push(Output::Backup(order)));
    }

    /// A backup that was ordered here went on or ended.
    pub(super) fn backup_news(&mut self, now: Moment, news: BackupNews) {
        self.making.note(now, news);
        self.follow_backups(now, true);
    }

    /// Another watcher says something about an attempt.
    pub(super) fn backup_message(
        &mut self,
        now: Moment,
        from: &WatcherName,
        message: BackupMessage,
    ) {
        if message.word == BackupWord::GoOn {
            return self.backup_goes_on(now, &message);
        }
        if let Some(answer) = self.confirm_backup(now, from, message) {
            let (to, message) = (from.clone(), PeerMessage::Backup(answer));
            self.push(Output::Send { to, message });
        }
    }

    /// Tells the leader what it is to hear, wherever it is.
    pub(super) fn report_backups(&mut self, now: Moment) {
        let (messages, orders) = self.making.due(now);
        orders.into_iter().for_each(|order| self.push(Output::Backup(order)));
        for message in messages {
            let own = self.setup.own.clone();
            if self.leading.is_some() {
                if let Some(answer) = self.confirm_backup(now, &own, message) {
                    self.backup_goes_on(now, &answer);
                }
            } else if let Some(to) = self.consensus.leader().cloned() {
                self.push(Output::Send { to, message: PeerMessage::Backup(message) });
            }
        }
    }

    fn backup_goes_on(&mut self, now: Moment, answer: &BackupMessage) {
        let BackupMessage { cluster, attempt, sent, .. } = answer;
        if self.making.go_on(now, cluster, attempt, *sent)
            && let Some(server) = self.making.server_of(cluster, attempt)
        {
            let (cluster, attempt) = (cluster.clone(), attempt.clone());
            self.push(Output::Backup(BackupOrder::Make { cluster, attempt, server }));
        }
    }
}
