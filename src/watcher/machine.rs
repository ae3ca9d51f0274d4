//! The watcher itself: takes one input, lets Raft, probing and leading have their say, and returns
//! every output that follows.

use super::chores::Holding;
use super::consensus::{Committed, Consensus, ConsensusError, Drained};
use super::leading::Leading;
use super::making::Making;
use super::probing::Schedule;
use super::requests;
use super::{Input, Output, PeerMessage, StepOrder, Stored};
use crate::clock::{Moment, Now};
use crate::decision::backup::archive::account;
use crate::decision::backup::chore::{Chore, Chores};
use crate::decision::backup::declared::Schedules;
use crate::decision::backup::proofs::AllWanted;
use crate::decision::backup::runs::Change;
use crate::decision::cluster::{Command, FORMAT, Proposal, State, Writer};
use crate::decision::lease::{FromProxy, ToProxy};
use crate::decision::procedure::Ending;
use crate::decision::report::Sight;
use crate::decision::topology::{
    ClusterName, Clusters, DataCenter, Epoch, ProxyName, ServerKey, ServerName, Timing, WatcherName,
};
use std::collections::{BTreeMap, BTreeSet};

/// Entries after the last snapshot from which on the log is compacted.
const COMPACT_AFTER: u64 = 4_000;

/// From this attempt on a step is told that clients are gone: seconds after its server was seen again.
const LATE_ATTEMPT: u32 = 3;

/// What a watcher is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its own id.
    pub own: WatcherName,
    /// All watchers with their data centers, itself included.
    pub watchers: BTreeMap<WatcherName, DataCenter>,
    /// The clusters as declared.
    pub clusters: Clusters,
    /// When their backups are due.
    pub backups: Schedules,
    /// Which standing work there is for their backups.
    pub chores: Chores,
    /// Which of their proofs are wanted.
    pub proofs: AllWanted,
    /// Where their binary logs are archived.
    pub archives: account::AllWanted,
    /// How long things take.
    pub timing: Timing,
    /// Spreads probes and elections; decides nothing.
    pub seed: u64,
}

/// One watcher.
#[derive(Debug)]
pub struct Watcher {
    pub(super) setup: Setup,
    pub(super) consensus: Consensus,
    pub(super) state: State,
    pub(super) applied: u64,
    pub(super) leading: Option<Leading>,
    pub(super) making: Making,
    pub(super) holding: Holding,
    /// When each peer was last heard of.
    pub(super) heard: BTreeMap<WatcherName, Moment>,
    /// The clusters of which backups here were told that something goes before them.
    first: BTreeSet<ClusterName>,
    /// Servers that showed no life at this watcher's last probe of them.
    silent: BTreeSet<ServerKey>,
    schedule: Schedule,
    /// Entries up to here were committed before this start; they are history, not news.
    replayed_to: u64,
    outputs: Vec<Output>,
}

/// Why a watcher cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// Raft found its own log in contradiction.
    #[error(transparent)]
    Consensus(#[from] ConsensusError),
    /// An entry or snapshot that is no valid encoding.
    #[error("decode entry {index} of the replicated log: {source}")]
    Undecodable {
        /// Its index.
        index: u64,
        /// The parser's words.
        source: serde_json::Error,
    },
    /// An entry of a newer format.
    #[error(
        "apply entry {index}: it needs format {needed} and this version knows up to {FORMAT}; \
         install the newer version on this watcher"
    )]
    TooOld {
        /// Its index.
        index: u64,
        /// Its format.
        needed: u32,
    },
}

impl Watcher {
    /// Starts from what was stored.
    pub fn start(setup: Setup, stored: &Stored, now: Now) -> Result<Watcher, Fatal> {
        let all: Vec<_> = setup.watchers.keys().cloned().collect();
        let (consensus, recovered) =
            Consensus::start(&setup.own, &all, setup.timing, setup.seed, stored, now.moment)?;
        let state = match &recovered.snapshot {
            Some(bytes) => decode_state(recovered.applied, bytes)?,
            None => State::default(),
        };
        // What this watcher made when it died ended with it.
        let mut making = Making::default();
        making.follow(now.moment, &setup.own, &state, false);
        let schedule = Schedule::new(&setup.clusters, setup.timing, setup.seed, now.moment);
        let clusters: Vec<_> = state.clusters.keys().cloned().collect();
        let mut watcher = Watcher {
            replayed_to: consensus.commit_index(),
            setup,
            consensus,
            state,
            applied: recovered.applied,
            leading: None,
            making,
            holding: Holding::default(),
            heard: BTreeMap::new(),
            first: BTreeSet::new(),
            silent: BTreeSet::new(),
            schedule,
            outputs: Vec::new(),
        };
        watcher.tell_backups(clusters.into_iter());
        Ok(watcher)
    }

    /// Takes one input and returns everything that is to be done because of it, in order.
    pub fn handle(&mut self, now: Now, input: Input) -> Result<Vec<Output>, Fatal> {
        self.consensus.tick(now.moment);
        match input {
            Input::Wakeup => {}
            Input::PeerMessage { from, message } => self.peer_message(now, from, message)?,
            Input::PeerLink { peer, up } => {
                if !up {
                    self.consensus.report_unreachable(&peer);
                }
            }
            Input::ProxyMessage { proxy, message } => self.proxy_message(now, proxy, message),
            Input::Persisted { ticket } => self.consensus.persisted(ticket),
            Input::ProbeDone { server, sight } => {
                self.schedule.done(now.moment, &server, &sight);
                self.note_silence(&server, &sight);
                self.report(now.moment, server, sight);
            }
            Input::StepDone { order, outcome } => {
                if let Some(leading) = &mut self.leading {
                    leading.step_done(order, outcome);
                }
            }
            Input::StepProgress { order, progress } => {
                if let Some(leading) = &mut self.leading {
                    leading.step_progress(order, &progress);
                }
            }
            Input::CanaryDone { server, result } => {
                if let Some(leading) = &mut self.leading {
                    leading.canary_done(now.moment, &server, result);
                }
            }
            Input::Backup(news) => self.backup_news(now.moment, news),
            Input::Chore(news) => self.chore_news(now.moment, news),
            Input::Request { id, request } => {
                if let Some(response) = requests::answer(self, now, id, request) {
                    self.outputs.push(Output::Reply { id, response });
                }
            }
        }
        self.drain(now)?;
        if self.lead(now) {
            self.drain(now)?;
        }
        self.report_backups(now.moment);
        self.report_chores(now.moment);
        for server in self.schedule.take_due(now.moment) {
            self.outputs.push(Output::Probe { server });
        }
        Ok(std::mem::take(&mut self.outputs))
    }

    /// When to give it a `Wakeup` at the latest.
    pub fn next_wakeup(&self) -> Moment {
        let mut next = self.consensus.next_tick();
        if let Some(due) = self.schedule.next() {
            next = next.min(due);
        }
        if let Some(leading) = &self.leading {
            next = next.min(leading.next_wakeup());
        }
        for due in self.making.next().into_iter().chain(self.holding.next()) {
            next = next.min(due);
        }
        next
    }

    /// The replicated state, for the simulator's checks and for metrics.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The last applied log index.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Raft's view: who leads, in which term, and what is committed.
    pub fn consensus(&self) -> &Consensus {
        &self.consensus
    }

    pub(super) fn push(&mut self, output: Output) {
        self.outputs.push(output);
    }

    fn peer_message(
        &mut self,
        now: Now,
        from: WatcherName,
        message: PeerMessage,
    ) -> Result<(), Fatal> {
        self.heard.insert(from.clone(), now.moment);
        match message {
            PeerMessage::Raft(bytes) => {
                self.consensus.step(now.moment, &from, &bytes)?;
            }
            PeerMessage::Report { server, sight } => {
                if let Some(leading) = &mut self.leading {
                    leading.note_report(now.moment, &self.setup, &from, server, sight);
                }
            }
            PeerMessage::ProbeNow { cluster } => self.schedule.hurry(now.moment, &cluster),
            PeerMessage::Backup(message) => self.backup_message(now.moment, &from, message),
            PeerMessage::Chore(message) => self.chore_message(now.moment, &from, message),
        }
        Ok(())
    }

    fn proxy_message(&mut self, now: Now, proxy: ProxyName, message: FromProxy) {
        match &mut self.leading {
            Some(leading) => leading.proxy_message(now.moment, proxy, message),
            None => {
                let leader = self.consensus.leader().cloned();
                self.push(Output::ToProxy { proxy, message: ToProxy::NotLeader { leader } });
            }
        }
    }

    /// Own reports go the same way as others': to the leader's table, wherever that is.
    fn report(&mut self, now: Moment, server: ServerKey, sight: Sight) {
        let own = self.setup.own.clone();
        if let Some(leading) = &mut self.leading {
            leading.note_report(now, &self.setup, &own, server, sight);
        } else if let Some(leader) = self.consensus.leader().cloned() {
            let message = PeerMessage::Report { server, sight };
            self.push(Output::Send { to: leader, message });
        }
    }

    /// Everybody looks at a cluster at once.
    pub(super) fn hurry(&mut self, now: Moment, cluster: &ClusterName) {
        self.schedule.hurry(now, cluster);
        let others = self.setup.watchers.keys().filter(|name| **name != self.setup.own);
        let message = PeerMessage::ProbeNow { cluster: cluster.clone() };
        let sends = others.map(|to| Output::Send { to: to.clone(), message: message.clone() });
        self.outputs.extend(sends.collect::<Vec<_>>());
    }

    /// Carries out what Raft wants, and applies what it has decided.
    fn drain(&mut self, now: Now) -> Result<(), Fatal> {
        let Drained { messages, persist, snapshot, committed, reads, role } =
            self.consensus.drain(now.moment)?;
        for (ticket, record) in persist {
            self.push(Output::Persist { ticket, record });
        }
        if let Some((index, bytes)) = snapshot {
            self.state = decode_state(index, &bytes)?;
            self.applied = index;
            self.follow_backups(now.moment, true);
            let all: Vec<_> = self.state.clusters.keys().cloned().collect();
            self.tell_backups(all.into_iter());
        }
        if let Some(role) = role {
            self.leading = match (role.leads, self.leading.take()) {
                (true, Some(leading)) if leading.term() == role.term => Some(leading),
                (true, _) => Some(Leading::begin(role.term, now, &self.setup, &self.state)),
                (false, Some(leading)) => {
                    for (id, response) in leading.resign() {
                        self.push(Output::Reply { id, response });
                    }
                    None
                }
                (false, None) => None,
            };
        }
        for entry in committed {
            self.apply(now, entry)?;
        }
        if let Some(leading) = &mut self.leading {
            leading.rounds_done(reads);
        }
        for (to, bytes) in messages {
            self.push(Output::Send { to, message: PeerMessage::Raft(bytes) });
        }
        self.compact()
    }

    fn apply(&mut self, now: Now, entry: Committed) -> Result<(), Fatal> {
        let Committed { index, term, data } = entry;
        self.applied = index;
        if data.is_empty() {
            return Ok(());
        }
        let decoded = serde_json::from_slice::<Proposal>(&data);
        let proposal = match decoded {
            Ok(proposal) if proposal.format <= FORMAT => proposal,
            Ok(proposal) => {
                return Err(Fatal::TooOld { index, needed: proposal.format });
            }
            Err(source) => return Err(unreadable(index, &data, source)),
        };
        let before = self.writers(&proposal);
        let events = self.state.apply(&proposal);
        if index > self.replayed_to {
            self.outputs.extend(events.into_iter().map(Output::Announce));
        }
        if index > self.replayed_to {
            self.tell_proxies(&before);
        }
        self.tell_backups(proposal.commands.iter().map(Command::cluster).cloned());
        if proposal.commands.iter().any(|command| matches!(command, Command::Backup { .. })) {
            self.follow_backups(now.moment, index > self.replayed_to);
        }
        for command in &proposal.commands {
            if let Command::Backup { cluster, change: Change::Finish { .. } } = command {
                self.stir_chore(cluster, Chore::Prove);
            }
        }
        self.follow_up(now.moment, term, index, &proposal);
        Ok(())
    }

    /// What is done because an entry was applied: withdraw orders, and as the leader carry out begun
    /// steps, answer who asked.
    fn follow_up(&mut self, now: Moment, term: u64, index: u64, proposal: &Proposal) {
        // Also by a watcher that led a moment ago.
        self.outputs.extend(proposal.commands.iter().filter_map(withdrawn));
        let permit = self.consensus.surely_leads_until().unwrap_or_default();
        let Some(leading) = &mut self.leading else {
            return;
        };
        leading.applied(now, index, proposal, &self.state);
        for command in &proposal.commands {
            let Command::Begin { cluster, procedure, stage, step, attempt, term: begun } = command
            else {
                continue;
            };
            if *begun != leading.term() || term != leading.term() {
                continue;
            }
            let open = self.state.clusters.get(cluster).and_then(|state| state.procedure.as_ref());
            let Some(open) = open.filter(|open| open.id == *procedure) else {
                continue;
            };
            let planned = open.plan.get(*stage).and_then(|stage| stage.steps.get(*step));
            let Some(planned) = planned else { continue };
            let id = super::StepId {
                cluster: cluster.clone(),
                procedure: *procedure,
                stage: *stage,
                step: *step,
                attempt: *attempt,
            };
            // A proxy that no leader has heard of since a partition healed has had the time to come by then.
            let late = *attempt >= LATE_ATTEMPT && leading.ledger.all_cut(cluster, open.epoch, now);
            // Whoever the open route leads there now was not cut.
            let served = self.state.clusters.get(cluster).and_then(|it| it.writer.primary());
            let clients_cut = late && served != Some(planned.step.server());
            let (step, epoch) = (planned.step.clone(), open.epoch);
            let order = StepOrder { id, step, epoch, permit, clients_cut };
            self.outputs.push(Output::Perform(order));
        }
        let replies = leading.settle(index, term, &self.state);
        self.outputs
            .extend(replies.into_iter().map(|(id, response)| Output::Reply { id, response }));
    }

    /// Tells proxies of routes that changed. A new epoch is told by every watcher, for the leader may
    /// be cut off from a proxy that others reach, and what is over must not be used a moment longer.
    fn tell_proxies(&mut self, before: &BTreeMap<ClusterName, (Epoch, Writer)>) {
        let own = self.leading.as_ref().map(|_| self.setup.own.clone());
        let leads = own.is_some();
        let leader = own.or_else(|| self.consensus.leader().cloned());
        for (cluster, (epoch, writer)) in before {
            let Some(state) = self.state.clusters.get(cluster) else {
                continue;
            };
            if state.epoch > *epoch || leads && state.writer != *writer {
                let (cluster, epoch, leader) = (cluster.clone(), state.epoch, leader.clone());
                let message = ToProxy::Changed { cluster, epoch, leader };
                self.outputs.push(Output::ToProxies { message });
            }
        }
    }

    /// Whether something goes before the backups of a cluster: its route is closed, or its primary showed this
    /// watcher no life. The latter may have its cause here, but waiting for a majority would be too late.
    fn goes_first(&self, cluster: &ClusterName) -> bool {
        let Some(state) = self.state.clusters.get(cluster) else {
            return false;
        };
        let silent = |server: &ServerName| {
            let key = ServerKey { cluster: cluster.clone(), server: server.clone() };
            self.silent.contains(&key)
        };
        state.comes_first() || state.writer.primary().is_some_and(silent)
    }

    /// The clusters of which something goes before the backups, as those here were told.
    pub fn urgent(&self) -> &BTreeSet<ClusterName> {
        &self.first
    }

    fn note_silence(&mut self, server: &ServerKey, sight: &Sight) {
        let changed = match sight.shows_life() {
            false => self.silent.insert(server.clone()),
            true => self.silent.remove(server),
        };
        if changed {
            self.tell_backups(std::iter::once(server.cluster.clone()));
        }
    }

    /// Tells what reads servers here when something goes before it, and when nothing does any more.
    fn tell_backups(&mut self, clusters: impl Iterator<Item = ClusterName>) {
        for cluster in clusters {
            let others = self.goes_first(&cluster);
            let news = match others {
                true => self.first.insert(cluster.clone()),
                false => self.first.remove(&cluster),
            };
            if news {
                self.outputs.push(Output::GoesFirst { cluster, others });
            }
        }
    }

    fn writers(&self, proposal: &Proposal) -> BTreeMap<ClusterName, (Epoch, Writer)> {
        let names = proposal.commands.iter().map(Command::cluster);
        let state = |name: &ClusterName| {
            self.state.clusters.get(name).map(|state| (state.epoch, state.writer.clone()))
        };
        names.map(|name| (name.clone(), state(name).unwrap_or_default())).collect()
    }

    fn compact(&mut self) -> Result<(), Fatal> {
        if self.consensus.entries_since_snapshot() < COMPACT_AFTER {
            return Ok(());
        }
        let index = self.applied;
        let state = serde_json::to_vec(&self.state)
            .map_err(|source| Fatal::Undecodable { index, source })?;
        // Its record comes with the next drain.
        self.consensus.compact(index, state)?;
        Ok(())
    }
}

/// What was given up must not go on beside what comes next, nor keep it waiting. What a procedure that
/// succeeded left under way nothing depends on, and it may still do some good.
fn withdrawn(command: &Command) -> Option<Output> {
    match command {
        Command::Close { ending: Ending::Done { .. }, .. } => None,
        Command::Close { cluster, procedure, .. } => {
            Some(Output::Withdraw { cluster: cluster.clone(), procedure: *procedure })
        }
        _ => None,
    }
}

fn decode_state(index: u64, bytes: &[u8]) -> Result<State, Fatal> {
    serde_json::from_slice(bytes).map_err(|source| Fatal::Undecodable { index, source })
}

/// An entry that does not decode is damaged, or says itself that it needs a newer version.
fn unreadable(index: u64, data: &[u8], source: serde_json::Error) -> Fatal {
    #[derive(serde::Deserialize)]
    struct Head {
        format: u32,
    }
    match serde_json::from_slice::<Head>(data) {
        Ok(head) if head.format > FORMAT => Fatal::TooOld { index, needed: head.format },
        Ok(_) | Err(_) => Fatal::Undecodable { index, source },
    }
}
