//! The replicated state: what the watchers have agreed on, and how commands change it.
//!
//! `apply` checks and records. It never decides, reads no clock and touches nothing else, so every
//! watcher that applied the same commands holds the same state, whatever its version: fields of a
//! newer version are kept (`unknown`), and an entry that needs a newer format stops the watcher
//! with that message instead of letting it go its own way.

mod route;

pub use super::command::{Command, FORMAT, Proposal};
pub use route::Writer;

use super::backup::archive::account::Account;
use super::backup::proofs::Proofs;
use super::backup::runs::Runs;
use super::durability::Protection;
use super::gtid::Gtids;
use super::maintenance::Maintenance;
use super::plan::{Export, Facts, Outcome, Step};
pub use super::procedure::Rejected;
use super::procedure::{Ending, Entry, Kind, Planned, Procedure, What};
use super::response::Answered;
use super::restarts::Restarts;
use super::topology::{ClusterName, Epoch, ServerName};
use super::view::EventView;
use crate::clock::WallTime;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Events kept.
const EVENTS_KEPT: usize = 1_000;

/// Ended procedures kept per cluster.
const PROCEDURES_KEPT: usize = 20;

/// Fields a newer version wrote and this one does not know; kept and written back.
pub type Unknown = BTreeMap<String, serde_json::Value>;

/// Everything the watchers have agreed on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Per cluster, once something was agreed about it.
    #[serde(default)]
    pub clusters: BTreeMap<ClusterName, ClusterState>,
    /// The newest events, oldest first.
    #[serde(default)]
    pub events: VecDeque<EventView>,
    /// The number of the newest event ever.
    #[serde(default)]
    pub last_event: u64,
    /// What newer versions added.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What is agreed about one cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterState {
    /// Grows with every change of primary.
    pub epoch: Epoch,
    /// Who takes writes.
    pub writer: Writer,
    /// What protects the commits that the primary has acknowledged; while there is none, those of
    /// the former one.
    #[serde(default)]
    pub protection: Protection,
    /// What will protect the commits of the next primary, while the route is closed.
    #[serde(default)]
    pub preparing: Option<Protection>,
    /// Servers that were primary under Regent at any time: what they numbered was for everybody.
    #[serde(default)]
    pub primaries: BTreeSet<ServerName>,
    /// Which servers come back from a restart closed.
    #[serde(default, skip_serializing_if = "Restarts::is_empty")]
    pub restarts: Restarts,
    /// What people work on and is left alone.
    #[serde(default, skip_serializing_if = "Maintenance::is_empty")]
    pub maintenance: Maintenance,
    /// Servers whose data is being replaced, from the first attempt until one has succeeded; with
    /// the time by their own clock after which a copy counts.
    #[serde(default)]
    pub rebuilding: BTreeMap<ServerName, u64>,
    /// What was last written down of each server whose history diverged.
    #[serde(default)]
    pub exports: BTreeMap<ServerName, Export>,
    /// Scheduled backups.
    #[serde(default, skip_serializing_if = "Runs::is_empty")]
    pub backups: Runs,
    /// What proves them.
    #[serde(default, skip_serializing_if = "Proofs::is_empty")]
    pub proofs: Proofs,
    /// The archive of its binary log.
    #[serde(default, skip_serializing_if = "Account::is_empty")]
    pub archive: Account,
    /// The open procedure.
    #[serde(default)]
    pub procedure: Option<Procedure>,
    /// What findings were answered lately, oldest first: a new leader keeps their cooldowns and
    /// budgets.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub answered: VecDeque<Answered>,
    /// Ended procedures, newest last.
    #[serde(default)]
    pub ended: VecDeque<Procedure>,
    /// The number of the newest procedure ever.
    #[serde(default)]
    pub last_procedure: u64,
    /// What newer versions added.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl State {
    /// Applies a whole entry and returns the events it caused.
    pub fn apply(&mut self, proposal: &Proposal) -> Vec<EventView> {
        let mut caused = Vec::new();
        for command in &proposal.commands {
            let mut notes = Notes { at: proposal.at, list: Vec::new() };
            let cluster = command.cluster().clone();
            let entry = self.clusters.entry(cluster.clone()).or_default();
            if entry.apply(command, &mut notes).is_err() {
                continue;
            }
            for (kind, text) in notes.list {
                self.last_event += 1;
                let event = EventView {
                    seq: self.last_event,
                    at: proposal.at,
                    cluster: Some(cluster.clone()),
                    kind: kind.to_owned(),
                    text,
                };
                caused.push(event.clone());
                self.events.push_back(event);
            }
        }
        let surplus = self.events.len().saturating_sub(EVENTS_KEPT);
        self.events.drain(..surplus);
        caused
    }
}

struct Notes {
    at: WallTime,
    list: Vec<(String, String)>,
}

impl Notes {
    fn add(&mut self, kind: &str, text: String) {
        self.list.push((kind.to_owned(), text));
    }

    fn add_all(&mut self, told: impl IntoIterator<Item = (&'static str, String)>) {
        told.into_iter().for_each(|(kind, text)| self.add(kind, text));
    }
}

impl ClusterState {
    /// Whether its route is closed, or a procedure that closed it goes on: what can wait makes way for that.
    pub fn comes_first(&self) -> bool {
        let closed = matches!(self.writer, Writer::Closed { .. });
        closed || self.procedure.as_ref().is_some_and(|open| open.kind.closes_route())
    }

    /// The same with no more history than decisions look at: how the primary became it.
    #[must_use]
    pub fn present(&self) -> ClusterState {
        ClusterState {
            epoch: self.epoch,
            writer: self.writer.clone(),
            protection: self.protection.clone(),
            preparing: self.preparing.clone(),
            primaries: self.primaries.clone(),
            restarts: self.restarts.clone(),
            maintenance: self.maintenance.clone(),
            rebuilding: self.rebuilding.clone(),
            exports: self.exports.clone(),
            backups: Runs::default(),
            proofs: Proofs::default(),
            archive: Account::default(),
            procedure: self.procedure.clone(),
            answered: VecDeque::new(),
            ended: self.current_promotion().cloned().into_iter().collect(),
            last_procedure: self.last_procedure,
            unknown: Unknown::new(),
        }
    }

    /// The newest procedure that was to make that server the primary and has ended.
    pub fn promotion_of(&self, server: &ServerName) -> Option<&Procedure> {
        self.ended.iter().rev().find(|past| past.to.as_ref() == Some(server))
    }

    /// What that server had to hold when it was promoted; `None` when no promotion is known.
    pub fn promoted_with(&self, server: &ServerName) -> Option<Gtids> {
        let steps = self.promotion_of(server)?.plan.iter().flat_map(|stage| &stage.steps);
        let held = steps.filter_map(|planned| match &planned.step {
            Step::CaughtUp { server: promoted, to, .. } if promoted == server => Some(to.clone()),
            _ => None,
        });
        held.reduce(|all, more| all.union(&more))
    }

    fn current_promotion(&self) -> Option<&Procedure> {
        match &self.writer {
            Writer::Open { primary } => self.promotion_of(primary),
            Writer::Closed { former } => self.promotion_of(former),
            Writer::Unassigned => None,
        }
    }

    /// The open procedure or an ended one.
    pub fn find_procedure(&self, id: u64) -> Option<&Procedure> {
        self.procedure.iter().chain(&self.ended).find(|procedure| procedure.id == id)
    }

    /// Applies one command, or rejects it without a trace.
    fn apply(&mut self, command: &Command, notes: &mut Notes) -> Result<(), Rejected> {
        match command {
            Command::Adopt { primary, why, .. } => self.adopt(primary, why, notes),
            Command::Open { seen, procedure, .. } => self.open(*seen, procedure, notes),
            Command::Extend { procedure, after, stages, to, why, loss, .. } => {
                let open = self.open_procedure(*procedure)?;
                if open.plan.len() != *after {
                    return Err(Rejected::MovedOn);
                }
                open.plan.extend(stages.iter().cloned());
                if to.is_some() {
                    open.to.clone_from(to);
                }
                let subject = format!("{} {}", open.kind, open.id);
                for line in why {
                    notes.add("decided", format!("{subject}: {line}"));
                }
                if !loss.is_empty() {
                    open.loss.clone_from(loss);
                    notes.add("loss_stated", format!("{subject}: {loss}"));
                }
                stages.iter().for_each(|stage| self.expect_acknowledgers(&stage.steps));
                Ok(())
            }
            Command::Begin { procedure, stage, step, attempt, term, .. } => {
                let at = notes.at;
                let (stage, step, attempt) = (*stage, *step, *attempt);
                let open = self.open_procedure(*procedure)?;
                open.begin(Entry { stage, step, attempt, at, what: What::Began { term: *term } })?;
                let planned = open.plan[stage].steps[step].clone();
                // From here on nobody knows what it holds.
                if let Step::Rebuilt { server, since, .. } = &planned.step {
                    self.rebuilding.entry(server.clone()).or_insert(*since);
                }
                self.expect_acknowledgers(&[planned]);
                self.close_route_for(stage, notes);
                Ok(())
            }
            Command::Finish { procedure, stage, step, attempt, outcome, .. } => {
                let entry = Entry {
                    stage: *stage,
                    step: *step,
                    attempt: *attempt,
                    at: notes.at,
                    what: What::Finished(outcome.clone()),
                };
                self.finish(*procedure, entry, notes)
            }
            Command::Close { procedure, ending, .. } => self.close(*procedure, ending, notes),
            Command::Maintain { change, .. } => {
                let (kind, text) = self.maintenance.apply(notes.at, change)?;
                notes.add(kind, text);
                Ok(())
            }
            Command::Replace { server, change, .. } => {
                notes.add_all(self.replace(server, *change)?);
                Ok(())
            }
            Command::Learn { closed_at_restart, .. } => {
                self.restarts.learn(closed_at_restart);
                Ok(())
            }
            Command::Backup { .. } | Command::Proof { .. } | Command::Archive { .. } => {
                self.keep_account(command, notes)
            }
            Command::Note { kind, text, .. } => {
                notes.add(kind, text.clone());
                Ok(())
            }
        }
    }

    /// The accounts of what is done for backups.
    fn keep_account(&mut self, command: &Command, notes: &mut Notes) -> Result<(), Rejected> {
        match command {
            Command::Backup { change, .. } => {
                notes.add_all(self.backups.apply(notes.at, change).map_err(Rejected::Backup)?);
            }
            Command::Proof { change, .. } => {
                notes.add_all(self.proofs.apply(notes.at, change).map_err(Rejected::Proof)?);
            }
            Command::Archive { change, .. } => {
                notes.add_all(self.archive.apply(notes.at, change).map_err(Rejected::Archive)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn adopt(
        &mut self,
        primary: &ServerName,
        why: &str,
        notes: &mut Notes,
    ) -> Result<(), Rejected> {
        if self.writer != Writer::Unassigned {
            return Err(Rejected::AlreadyAdopted);
        }
        self.epoch = self.epoch.next();
        self.writer = Writer::Open { primary: primary.clone() };
        self.primaries.insert(primary.clone());
        notes
            .add("adopted", format!("adopted with primary {primary}, epoch {}: {why}", self.epoch));
        Ok(())
    }

    fn open(
        &mut self,
        seen: Epoch,
        template: &Procedure,
        notes: &mut Notes,
    ) -> Result<(), Rejected> {
        if self.procedure.is_some() {
            return Err(Rejected::ProcedureOpen);
        }
        if seen != self.epoch {
            return Err(Rejected::MovedOn);
        }
        let from = match &self.writer {
            Writer::Open { primary } => primary.clone(),
            Writer::Closed { former } => former.clone(),
            Writer::Unassigned => return Err(Rejected::NotAdopted),
        };
        if from != template.from || self.comes_too_late(template) {
            return Err(Rejected::MovedOn);
        }
        let closed = template.kind.closes_route().then(|| self.close_route(from));
        self.last_procedure += 1;
        let mut procedure = template.clone();
        procedure.id = self.last_procedure;
        procedure.epoch = self.epoch;
        procedure.opened = notes.at;
        let text = format!("{} {} opened: {}", procedure.kind, procedure.id, procedure.cause);
        notes.add("procedure_opened", text);
        closed.into_iter().for_each(|text| notes.add("route_closed", text));
        if matches!(self.writer, Writer::Closed { .. }) {
            self.preparing = Some(self.protection.prepare());
        }
        procedure.plan.iter().for_each(|stage| self.expect_acknowledgers(&stage.steps));
        self.procedure = Some(procedure);
        Ok(())
    }

    /// From the moment a plan may make a server acknowledge, it may have acknowledged; and from
    /// the moment a plan touches the primary's own setting, nothing is sure until it is confirmed.
    /// Said when it is planned, and again when it begins: the same plan may relieve the server first.
    fn expect_acknowledgers(&mut self, steps: &[Planned]) {
        let primary = self.writer.primary().cloned();
        let regime = self.preparing.as_mut().unwrap_or(&mut self.protection);
        for Planned { step, .. } in steps {
            match step {
                Step::Acknowledges { server, on: true } => {
                    regime.may_acknowledge.insert(server.clone());
                }
                Step::CommitsWait { server, .. } if Some(server) == primary.as_ref() => {
                    regime.in_force = false;
                }
                Step::CommitsWait { .. }
                | Step::Acknowledges { .. }
                | Step::ReadOnly { .. }
                | Step::ReceiverStopped { .. }
                | Step::CaughtUp { .. }
                | Step::Writable { .. }
                | Step::Fenced { .. }
                | Step::Following { .. }
                | Step::Detached { .. }
                | Step::Exported { .. }
                | Step::Rebuilt { .. } => {}
            }
        }
    }

    fn finish(&mut self, id: u64, entry: Entry, notes: &mut Notes) -> Result<(), Rejected> {
        let (stage, step) = (entry.stage, entry.step);
        let outcome = match &entry.what {
            What::Finished(outcome) => outcome.clone(),
            What::Began { .. } => return Err(Rejected::OutOfOrder),
        };
        let open = self.open_procedure(id)?;
        let began = open.finish(entry)?;
        let (kind, number) = (open.kind, open.id);
        let done = open.plan[stage].steps[step].step.clone();
        let took = notes.at.0.saturating_sub(began.0);
        match outcome {
            Outcome::Done(facts) => {
                notes.add("step_done", format!("{kind} {number}: {done} ({took} ms)"));
                self.take_effect(&done, &facts, kind, notes);
                self.open_route_after(stage, notes);
            }
            Outcome::Failed(text) => {
                notes.add("step_failed", format!("{kind} {number}: {done} failed: {text}"));
            }
            Outcome::Retry(_) => {}
        }
        Ok(())
    }

    /// The server whose commits matter: the primary, or the one that is about to be.
    fn next_writer(&self) -> Option<ServerName> {
        let chosen = self.procedure.as_ref().and_then(|open| open.to.as_ref());
        match &self.writer {
            Writer::Open { primary } => Some(primary.clone()),
            Writer::Closed { former } => Some(chosen.unwrap_or(former).clone()),
            Writer::Unassigned => None,
        }
    }

    /// What a confirmed step means for the cluster as a whole.
    fn take_effect(&mut self, step: &Step, facts: &Facts, kind: Kind, notes: &mut Notes) {
        let waiting = self.next_writer();
        let chosen = self.procedure.as_ref().is_some_and(Procedure::degrades);
        let regime = self.preparing.as_mut().unwrap_or(&mut self.protection);
        match step {
            // What it held when it acknowledged went with its data: its word is needed until that is back.
            Step::Acknowledges { server, on: false } if self.rebuilding.contains_key(server) => {}
            Step::Acknowledges { server, on: false } => {
                regime.relieve(server, facts);
            }
            Step::CommitsWait { server, acks } => {
                if waiting.as_ref() == Some(server) {
                    regime.wait(*acks, facts);
                    regime.degraded = *acks == 0 && chosen;
                }
            }
            Step::Writable { server, .. } => {
                let closed = matches!(self.writer, Writer::Closed { .. });
                if kind.closes_route() || closed {
                    self.primaries.insert(server.clone());
                    self.protection = self.preparing.take().unwrap_or_default();
                    self.protection.begin_on(server, &self.writer);
                    self.writer = Writer::Open { primary: server.clone() };
                    let text = format!("route opened to {server} under epoch {}", self.epoch);
                    notes.add("route_opened", text);
                }
            }
            Step::Exported { server, .. } => {
                if let Some(export) = facts.fork.as_ref().and_then(|fork| fork.export.as_ref()) {
                    notes.add("exported", format!("{server}: {export}"));
                    self.exports.insert(server.clone(), export.clone());
                }
            }
            Step::Rebuilt { server, .. } => {
                self.rebuilding.remove(server);
                // It may give the numbers of what was written down to other transactions now.
                self.exports.remove(server);
            }
            Step::Acknowledges { on: true, .. }
            | Step::ReadOnly { .. }
            | Step::ReceiverStopped { .. }
            | Step::CaughtUp { .. }
            | Step::Fenced { .. }
            | Step::Following { .. }
            | Step::Detached { .. } => {}
        }
    }

    fn close(&mut self, id: u64, ending: &Ending, notes: &mut Notes) -> Result<(), Rejected> {
        self.open_procedure(id)?;
        let Some(mut procedure) = self.procedure.take() else {
            return Err(Rejected::NoSuchProcedure);
        };
        let (word, text) = match ending {
            Ending::Done { text } => ("done", text),
            Ending::Abandoned { text } => ("abandoned", text),
            Ending::Yielded { text } => ("yielded", text),
            Ending::Stuck { text } => ("stuck", text),
        };
        notes.add("procedure_closed", format!("{} {id} {word}: {text}", procedure.kind));
        if let Some(given_up) = self.preparing.take() {
            // The former primary's regime goes on, and who was told to acknowledge may do so.
            self.protection.may_acknowledge.extend(given_up.may_acknowledge);
        }
        procedure.ending = Some(ending.clone());
        procedure.closed = Some(notes.at);
        let counts = !matches!(ending, Ending::Yielded { .. });
        if counts && !procedure.finding.is_empty() {
            Answered::remember(&mut self.answered, &procedure.finding, notes.at);
        }
        self.ended.push_back(procedure);
        let surplus = self.ended.len().saturating_sub(PROCEDURES_KEPT);
        self.ended.drain(..surplus);
        Ok(())
    }

    fn open_procedure(&mut self, id: u64) -> Result<&mut Procedure, Rejected> {
        self.procedure.as_mut().filter(|open| open.id == id).ok_or(Rejected::NoSuchProcedure)
    }
}
