//! Procedures: a plan, the journal of what was begun and finished, and what to do next.
//!
//! The journal is replicated, so a procedure can be continued by any later leader. `next` is pure:
//! it looks at plan and journal, and at what only the leader of the day can know ([`Standing`]).

use super::backup::archive::account;
use super::backup::{proofs, runs};
use super::plan::{Outcome, Step};
use super::topology::{Epoch, ServerName};
use crate::clock::WallTime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// How often one step is attempted before it counts as failed, where a plan says nothing else.
pub const ATTEMPTS: u32 = 5;

/// Why a command had no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// The cluster has a primary already.
    AlreadyAdopted,
    /// The cluster has none yet.
    NotAdopted,
    /// Another procedure is open.
    ProcedureOpen,
    /// That procedure is not open.
    NoSuchProcedure,
    /// The epoch or the plan moved on meanwhile.
    MovedOn,
    /// The journal does not allow it now.
    OutOfOrder,
    /// The account of backups does not allow it.
    Backup(runs::Rejected),
    /// The account of proofs does not allow it.
    Proof(proofs::Rejected),
    /// The account of the archive does not allow it.
    Archive(account::Rejected),
}

/// A plan in execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Procedure {
    /// Its number within its cluster.
    pub id: u64,
    /// What it is for.
    pub kind: Kind,
    /// Why it was opened, as a sentence.
    pub cause: String,
    /// The kind of finding that caused it; empty when a person did. Budgets count by it.
    #[serde(default)]
    pub finding: String,
    /// The epoch it acts under.
    pub epoch: Epoch,
    /// The primary when it was opened.
    pub from: ServerName,
    /// The server that becomes primary: asked for, then chosen.
    pub to: Option<ServerName>,
    /// Whether it goes on although acknowledged transactions may be lost.
    pub accept_loss: bool,
    /// What may be lost by it, as a sentence; empty when it is proven that nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub loss: String,
    /// Of a rejoin: who comes back, and how far that may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejoin: Option<Rejoin>,
    /// When it was opened.
    pub opened: WallTime,
    /// The stages, in order; grows only at its end.
    pub plan: Vec<Stage>,
    /// What was begun and finished, in order; grows only at its end.
    pub journal: Vec<Entry>,
    /// How it ended.
    pub ending: Option<Ending>,
    /// When it ended.
    #[serde(default)]
    pub closed: Option<WallTime>,
    /// What newer versions added.
    #[serde(flatten)]
    pub unknown: super::cluster::Unknown,
}

/// What a procedure is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Replace a lost primary.
    Failover,
    /// Move the role of a healthy primary.
    Switchover,
    /// Bring servers to their declared role without changing the primary.
    Repair,
    /// Let a server whose history diverged follow again.
    Rejoin,
}

/// Who comes back, and how far that may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejoin {
    /// Who.
    pub server: ServerName,
    /// Whether its data may be replaced when that is needed.
    pub rebuild: bool,
    /// Whether its data is replaced even when that is not needed.
    #[serde(default)]
    pub anew: bool,
    /// Whose data it gets; the best donor when absent.
    #[serde(default)]
    pub donor: Option<ServerName>,
}

impl Kind {
    /// Whether clients have no primary while it runs.
    pub fn closes_route(self) -> bool {
        match self {
            Kind::Failover | Kind::Switchover => true,
            Kind::Repair | Kind::Rejoin => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Failover => "failover",
            Kind::Switchover => "switchover",
            Kind::Repair => "repair",
            Kind::Rejoin => "rejoin",
        })
    }
}

/// Steps that may run together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name, an imperative.
    pub name: String,
    /// Its steps. Steps of one server run in this order, others side by side.
    pub steps: Vec<Planned>,
    /// How many of the steps that count must succeed.
    pub at_least: usize,
    /// How often each step is attempted before it counts as failed.
    pub attempts: u32,
    /// What must hold before its first step.
    pub guard: Option<Guard>,
    /// Whether the rest of the plan is decided from what this stage learned.
    pub decides: bool,
    /// Whether the procedure can only go forward once this stage has begun.
    pub no_return: bool,
    /// Whether clients are kept away from the primary, under a new epoch, from the stage's first step
    /// until all of its steps are done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closes_route: bool,
}

/// A step and how much depends on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// What to bring about.
    pub step: Step,
    /// How much depends on it.
    pub need: Need,
}

/// How much depends on a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// The stage fails with it.
    Must,
    /// The stage needs `at_least` of these.
    Counts,
    /// Does not count, but is given the same time as those that do.
    Helps,
    /// Nothing waits for it; the procedure ends when it has ended.
    May,
}

/// What a stage waits for; judged by the leader of the day, by its own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// The former primary can complete no write that a client would see acknowledged: it has
    /// confirmed to be read-only, or too few replicas are left to acknowledge and it comes back from
    /// a restart closed, or every lease on an older epoch's route is over.
    FormerPrimaryFenced,
}

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The step's stage.
    pub stage: usize,
    /// Its place in the stage.
    pub step: usize,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// When, for people.
    pub at: WallTime,
    /// What happened.
    pub what: What,
}

/// What a journal line says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// An attempt is about to be made by the leader of that Raft term.
    Began {
        /// The term.
        term: u64,
    },
    /// The attempt ended.
    Finished(Outcome),
}

/// How a procedure ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// All that had to succeed did.
    Done {
        /// What came of it, as a sentence.
        text: String,
    },
    /// Given up before the point of no return, nothing lost.
    Abandoned {
        /// Why.
        text: String,
    },
    /// Gave way to something more important; it will be made again.
    Yielded {
        /// To what.
        text: String,
    },
    /// Failed after the point of no return; a person is needed.
    Stuck {
        /// Why, and what to do.
        text: String,
    },
}

/// The state of one step, derived from the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepState {
    /// Not begun.
    Waiting,
    /// Begun by the leader of that term, not finished.
    Running {
        /// The attempt.
        attempt: u32,
        /// The term it was begun in.
        term: u64,
    },
    /// The last attempt failed and another may be made.
    Retry {
        /// Attempts made.
        attempts: u32,
    },
    /// Done.
    Done,
    /// Failed for good.
    Failed,
}

/// What to do next with a procedure.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Begin these attempts: (stage, step, attempt).
    Perform(Vec<(usize, usize, u32)>),
    /// Nothing now; something runs, or a guard or a pause is in the way.
    Wait(Waiting),
    /// All stages so far are done: decide the rest of the plan.
    Decide,
    /// That stage cannot succeed any more.
    Failed {
        /// Its place in the plan.
        stage: usize,
    },
    /// Everything has ended.
    Finished,
}

/// Why nothing is to be done right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// For running steps.
    Steps,
    /// For a guard.
    Guard(Guard),
    /// For the pause before another attempt, or for stragglers of a stage that has enough.
    Pause,
}

/// What only the leader of the day can know about a procedure.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Its Raft term; attempts begun in an older one are made again.
    pub term: u64,
    /// Guards that hold.
    pub guards: BTreeSet<Guard>,
    /// Stages whose stragglers have been waited for long enough.
    pub graced: BTreeSet<usize>,
    /// Steps whose pause before another attempt is not over: (stage, step).
    pub pausing: BTreeSet<(usize, usize)>,
}

impl Procedure {
    /// What to do next.
    pub fn next(&self, standing: &Standing) -> Next {
        for stage in 0..self.plan.len() {
            match self.progress(stage, standing) {
                Progress::Complete => {}
                Progress::Failed => return Next::Failed { stage },
                Progress::Open => {
                    let guard = self.plan[stage].guard;
                    let missing = guard.filter(|guard| !standing.guards.contains(guard));
                    let begun = self.journal.iter().any(|entry| entry.stage == stage);
                    if let Some(guard) = missing.filter(|_| !begun) {
                        return Next::Wait(Waiting::Guard(guard));
                    }
                    return self.perform(stage, standing);
                }
            }
        }
        if self.plan.last().is_none_or(|stage| stage.decides) {
            return Next::Decide;
        }
        if !self.anything_unfinished() {
            return Next::Finished;
        }
        self.perform(self.plan.len() - 1, standing)
    }

    /// The state of one step.
    pub fn step_state(&self, stage: usize, step: usize) -> StepState {
        let of_step = |entry: &&Entry| entry.stage == stage && entry.step == step;
        let limit = self.plan.get(stage).map_or(ATTEMPTS, |stage| stage.attempts);
        match self.journal.iter().rev().find(of_step) {
            None => StepState::Waiting,
            Some(Entry { attempt, what, .. }) => match what {
                What::Began { term } => StepState::Running { attempt: *attempt, term: *term },
                What::Finished(Outcome::Done(_)) => StepState::Done,
                What::Finished(Outcome::Failed(_)) => StepState::Failed,
                What::Finished(Outcome::Retry(_)) if *attempt >= limit => StepState::Failed,
                What::Finished(Outcome::Retry(_)) => StepState::Retry { attempts: *attempt },
            },
        }
    }

    /// Steps that are done, with what they learned.
    pub fn done(&self) -> impl Iterator<Item = (&Step, &super::plan::Facts)> {
        self.journal.iter().filter_map(|entry| match &entry.what {
            What::Finished(Outcome::Done(facts)) => {
                Some((&self.plan.get(entry.stage)?.steps.get(entry.step)?.step, facts))
            }
            What::Finished(_) | What::Began { .. } => None,
        })
    }

    /// Servers that have confirmed to receive nothing more.
    pub fn stopped(&self) -> BTreeSet<&ServerName> {
        let stops = self.done().filter_map(|(step, _)| match step {
            Step::ReceiverStopped { server } => Some(server),
            _ => None,
        });
        stops.collect()
    }

    /// Whether the former primary has confirmed that it takes no writes.
    pub fn former_is_read_only(&self) -> bool {
        self.done()
            .any(|(step, _)| matches!(step, Step::ReadOnly { server } if server == &self.from))
    }

    /// Whether the former primary can take no writes, by its own word or by force.
    pub fn former_is_fenced(&self) -> bool {
        let by_force = |(step, _): (&Step, _)| matches!(step, Step::Fenced { server, .. } if server == &self.from);
        self.former_is_read_only() || self.done().any(by_force)
    }

    /// Whether a rule opened it to let commits go on unprotected.
    pub fn degrades(&self) -> bool {
        self.finding == super::diagnosis::FindingKind::CommitsBlocked.to_string()
    }

    /// Whether a stage that keeps clients away has nothing left to do.
    pub fn route_reopens(&self, stage: usize) -> bool {
        self.plan.get(stage).is_some_and(|planned| {
            let mut steps = 0..planned.steps.len();
            planned.closes_route && steps.all(|it| self.step_state(stage, it) == StepState::Done)
        })
    }

    /// Whether it can only go forward.
    pub fn past_return(&self) -> bool {
        self.journal.iter().any(|entry| self.plan.get(entry.stage).is_some_and(|s| s.no_return))
    }

    /// The last answer of a stage's failed steps, for people.
    pub fn failures(&self, stage: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for step in 0..self.plan.get(stage).map_or(0, |stage| stage.steps.len()) {
            let answer = self.journal.iter().rev().find_map(|entry| match &entry.what {
                What::Finished(Outcome::Failed(text) | Outcome::Retry(text))
                    if (entry.stage, entry.step) == (stage, step) =>
                {
                    Some(text)
                }
                _ => None,
            });
            if let (StepState::Failed, Some(text)) = (self.step_state(stage, step), answer) {
                texts.push(format!("{}: {text}", self.plan[stage].steps[step].step));
            }
        }
        texts
    }

    /// Whether steps are left that the procedure should see end. Those of a deciding stage are
    /// not: a former primary that hangs must not keep a finished failover open.
    fn anything_unfinished(&self) -> bool {
        let executing = self.plan.iter().enumerate().filter(|(_, planned)| !planned.decides);
        executing.into_iter().any(|(stage, planned)| {
            (0..planned.steps.len()).any(|step| match self.step_state(stage, step) {
                StepState::Done | StepState::Failed => false,
                StepState::Waiting | StepState::Running { .. } | StepState::Retry { .. } => true,
            })
        })
    }

    /// Whether a stage has as many of its counting steps done as it needs, others being open.
    pub fn has_enough(&self, stage: usize) -> bool {
        let Some(planned) = self.plan.get(stage) else {
            return false;
        };
        let done = planned.steps.iter().enumerate().filter(|(step, planned)| {
            planned.need == Need::Counts && self.step_state(stage, *step) == StepState::Done
        });
        planned.at_least > 0 && done.count() >= planned.at_least
    }

    fn progress(&self, stage: usize, standing: &Standing) -> Progress {
        let planned = &self.plan[stage];
        let mut counted = Tally::default();
        let mut must = Tally::default();
        let mut helping = Tally::default();
        for (step, Planned { need, .. }) in planned.steps.iter().enumerate() {
            let tally = match need {
                Need::Must => &mut must,
                Need::Counts => &mut counted,
                Need::Helps => &mut helping,
                Need::May => continue,
            };
            match self.step_state(stage, step) {
                StepState::Done => tally.done += 1,
                StepState::Failed => tally.failed += 1,
                StepState::Waiting | StepState::Running { .. } | StepState::Retry { .. } => {
                    tally.open += 1;
                }
            }
        }
        if must.failed > 0 || counted.done + counted.open < planned.at_least {
            return Progress::Failed;
        }
        let enough = counted.done >= planned.at_least;
        let settled = counted.open + helping.open == 0 || standing.graced.contains(&stage);
        if must.open == 0 && enough && settled { Progress::Complete } else { Progress::Open }
    }

    /// Attempts to begin in stages up to `last`: all that are due and whose server is not busy
    /// with an earlier step.
    fn perform(&self, last: usize, standing: &Standing) -> Next {
        let mut busy: BTreeSet<&ServerName> = BTreeSet::new();
        let mut due = Vec::new();
        let mut pausing = false;
        for (stage, planned) in self.plan.iter().enumerate().take(last + 1) {
            for (step, Planned { step: wanted, .. }) in planned.steps.iter().enumerate() {
                let attempt = match self.step_state(stage, step) {
                    StepState::Done | StepState::Failed => continue,
                    StepState::Running { term, .. } if term >= standing.term => None,
                    // The leader that began it is gone; what came of it is unknown.
                    StepState::Running { attempt, .. } => Some(attempt + 1),
                    StepState::Waiting => Some(1),
                    StepState::Retry { .. } if standing.pausing.contains(&(stage, step)) => {
                        pausing = true;
                        None
                    }
                    StepState::Retry { attempts } => Some(attempts + 1),
                };
                let free = wanted.is_external() || busy.insert(wanted.server());
                if let Some(attempt) = attempt.filter(|_| free) {
                    due.push((stage, step, attempt));
                }
            }
        }
        if due.is_empty() {
            return Next::Wait(if pausing { Waiting::Pause } else { Waiting::Steps });
        }
        Next::Perform(due)
    }
}

impl Procedure {
    /// Journals the beginning of an attempt; attempts of one step only grow.
    pub(super) fn begin(&mut self, entry: Entry) -> Result<(), Rejected> {
        if self.plan.get(entry.stage).is_none_or(|stage| entry.step >= stage.steps.len()) {
            return Err(Rejected::OutOfOrder);
        }
        let allowed = match self.step_state(entry.stage, entry.step) {
            StepState::Waiting => entry.attempt == 1,
            StepState::Running { attempt, .. } => entry.attempt == attempt + 1,
            StepState::Retry { attempts } => entry.attempt == attempts + 1,
            StepState::Done | StepState::Failed => false,
        };
        if !allowed {
            return Err(Rejected::OutOfOrder);
        }
        self.journal.push(entry);
        Ok(())
    }

    /// Journals the end of the running attempt and returns when it began; the late result of an
    /// older attempt is rejected.
    pub(super) fn finish(&mut self, entry: Entry) -> Result<WallTime, Rejected> {
        match self.step_state(entry.stage, entry.step) {
            StepState::Running { attempt, .. } if attempt == entry.attempt => {}
            StepState::Running { .. }
            | StepState::Waiting
            | StepState::Retry { .. }
            | StepState::Done
            | StepState::Failed => return Err(Rejected::OutOfOrder),
        }
        let same = |old: &&Entry| (old.stage, old.step) == (entry.stage, entry.step);
        let began = self.journal.iter().rev().find(same).map_or(entry.at, |old| old.at);
        self.journal.push(entry);
        Ok(began)
    }
}

enum Progress {
    Open,
    Complete,
    Failed,
}

#[derive(Default)]
struct Tally {
    done: usize,
    failed: usize,
    open: usize,
}
