//! The leader's duties: grant leases, judge each cluster, and drive its open procedure.
//!
//! All of it is volatile. A new leader starts with an empty table of reports and can judge only
//! after fresh reports from a majority; nothing is inherited but the replicated journal.

use super::backups::Backups;
use super::charging::Charges;
use super::comparing::Comparing;
use super::consensus::ReadReady;
use super::duty::Duty;
use super::machine::{Setup, Watcher};
use super::probing::{News, Table};
use super::{CanaryResult, Output, StepId};
use crate::clock::{Moment, Now};
use crate::decision::cluster::{ClusterState, Command, Proposal, State, Writer};
use crate::decision::explain::procedure_view;
use crate::decision::lease::{FromProxy, Ledger, Route, Target, ToProxy};
use crate::decision::maintenance::{self, Change};
use crate::decision::plan::{Outcome, Progress};
use crate::decision::procedure::Procedure;
use crate::decision::replacing::Replacement;
use crate::decision::report::Sight;
use crate::decision::situation::Situation;
use crate::decision::topology::{
    ClusterName, ClusterSpec, Durability, OnQuorumLoss, ProxyName, ServerKey, ServerName, Timing,
    WatcherName,
};
use crate::decision::view::{ProcedureView, ProgressView, Refusal, RefusalCode, Response};
use std::collections::BTreeMap;
use std::time::Duration;

/// Quorum rounds are at least this far apart; one round answers all that asked before it.
const ROUND_GAP: Duration = Duration::from_millis(5);

/// How many proxies one leader serves.
const PROXIES: usize = 1_000;

/// The leader's volatile state.
#[derive(Debug)]
pub(super) struct Leading {
    term: u64,
    timing: Timing,
    pub(super) table: Table,
    pub(super) ledger: Ledger,
    pub(super) duties: BTreeMap<ClusterName, Duty>,
    /// Of the clusters that have schedules, or had some.
    pub(super) backups: BTreeMap<ClusterName, Backups>,
    pub(super) charges: Charges,
    pub(super) proofs: Comparing,
    pub(super) archives: Comparing,
    pub(super) sessions: BTreeMap<ProxyName, u64>,
    /// Renewals that no quorum round covers yet: proxy and the time it sent.
    renewals: BTreeMap<ProxyName, Moment>,
    /// Rounds under way by number, with the renewals they answer.
    rounds: BTreeMap<u64, BTreeMap<ProxyName, Moment>>,
    /// Rounds that completed, waiting for their index to be applied.
    confirmed: Vec<(u64, BTreeMap<ProxyName, Moment>)>,
    last_round: u64,
    next_round: Moment,
    finished: Vec<(StepId, Outcome)>,
    /// How far the long steps of open procedures are, by this watcher's own account.
    progress: BTreeMap<StepId, ProgressView>,
    /// Requests whose proposal is on its way.
    asked: Vec<Asked>,
}

/// A request that waits for its proposal to be applied.
#[derive(Debug)]
pub(super) struct Asked {
    id: u64,
    index: u64,
    cluster: ClusterName,
    expects: Expects,
}

/// What a proposal brings about when nothing overtakes it.
#[derive(Debug)]
enum Expects {
    /// The procedure of that number is open.
    Procedure(u64),
    /// The cluster has a primary.
    Adoption,
    /// That server, or the whole cluster, is in maintenance, or is not.
    Maintenance(Option<ServerName>, bool),
    /// A person replaces that server's data, or has.
    Replacing(ServerName, Replacement),
}

impl Leading {
    pub(super) fn begin(term: u64, at: Now, setup: &Setup, state: &State) -> Leading {
        let now = at.moment;
        let known = (setup, state);
        let duty = |name: &ClusterName| (name.clone(), Duty::new(at, state.clusters.get(name)));
        Leading {
            term,
            timing: setup.timing,
            table: Table::default(),
            ledger: Ledger::inherited(now, &setup.timing),
            duties: setup.clusters.keys().map(duty).collect(),
            backups: Backups::of_all(now, setup, state),
            charges: Charges::begin(now, setup),
            proofs: Comparing::begin(now, known, setup.proofs.keys(), |it| it.proofs.is_empty()),
            archives: Comparing::begin(now, known, setup.archives.keys(), |it| {
                it.archive.is_empty()
            }),
            sessions: BTreeMap::new(),
            renewals: BTreeMap::new(),
            rounds: BTreeMap::new(),
            confirmed: Vec::new(),
            last_round: 0,
            next_round: now,
            finished: Vec::new(),
            progress: BTreeMap::new(),
            asked: Vec::new(),
        }
    }

    pub(super) fn term(&self) -> u64 {
        self.term
    }

    /// Leadership is over: whoever waits is told.
    pub(super) fn resign(self) -> Vec<(u64, Response)> {
        let refusal = || Refusal {
            code: RefusalCode::Undecided,
            text:
                "this watcher stopped leading before it was decided; it may still be carried out: \
                   look at the status before you ask again"
                    .to_owned(),
            leader: None,
        };
        self.asked.into_iter().map(|asked| (asked.id, Response::Refused(refusal()))).collect()
    }

    pub(super) fn next_wakeup(&self) -> Moment {
        let duties = self.duties.values().map(Duty::next);
        let backups = self.backups.values().map(Backups::next);
        let more = self.charges.next().into_iter().chain(self.proofs.next());
        let more = more.chain(self.archives.next());
        let next = duties.chain(backups).chain(more).min();
        next.map_or(self.next_round, |next| next.min(self.next_round))
    }

    pub(super) fn note_report(
        &mut self,
        now: Moment,
        setup: &Setup,
        from: &WatcherName,
        server: ServerKey,
        sight: Sight,
    ) {
        let declared = setup.clusters.get(&server.cluster);
        if declared.is_none_or(|spec| spec.server(&server.server).is_none()) {
            return;
        }
        let failing = !sight.shows_life();
        let cluster = server.cluster.clone();
        let news = self.table.note(now, from, server, sight);
        if let Some(duty) = self.duties.get_mut(&cluster).filter(|_| news == News::Notable) {
            duty.look_now(now);
            duty.alarmed |= failing;
        }
    }

    pub(super) fn proxy_message(&mut self, now: Moment, proxy: ProxyName, message: FromProxy) {
        let FromProxy::Renew { sent, seen, sessions, unreached } = message;
        if !self.sessions.contains_key(&proxy) && self.sessions.len() >= PROXIES {
            return;
        }
        self.sessions.insert(proxy.clone(), sessions.values().sum());
        if self.ledger.note_seen(&proxy, &seen) {
            for duty in self.duties.values_mut() {
                duty.look_now(now);
            }
        }
        for cluster in &unreached {
            if let Some(duty) = self.duties.get_mut(cluster) {
                duty.look_now(now);
                duty.alarmed = true;
            }
        }
        self.renewals.insert(proxy, sent);
        self.next_round = self.next_round.min(now + ROUND_GAP);
    }

    pub(super) fn canary_done(&mut self, now: Moment, server: &ServerKey, result: CanaryResult) {
        if let Some(duty) = self.duties.get_mut(&server.cluster) {
            duty.canary_done(now, &server.server, result);
        }
    }

    pub(super) fn step_progress(&mut self, order: StepId, progress: &Progress) {
        self.progress.insert(order, progress.into());
    }

    /// A procedure as people see it, with how far its running steps are.
    pub(super) fn shown(&self, cluster: &ClusterName, procedure: &Procedure) -> ProcedureView {
        let mut view = procedure_view(procedure);
        let ours = |id: &StepId| &id.cluster == cluster && id.procedure == procedure.id;
        for (id, progress) in self.progress.iter().filter(|(id, _)| ours(id)) {
            let stage = view.stages.get_mut(id.stage);
            let step = stage.and_then(|stage| stage.steps.get_mut(id.step));
            if let Some(step) = step.filter(|step| step.state == "running") {
                step.progress = Some(progress.clone());
            }
        }
        view
    }

    pub(super) fn step_done(&mut self, order: StepId, outcome: Outcome) {
        self.progress.remove(&order);
        self.finished.push((order, outcome));
    }

    pub(super) fn rounds_done(&mut self, reads: Vec<ReadReady>) {
        for ReadReady { context, index, .. } in reads {
            if let Some(renewals) = self.rounds.remove(&context) {
                self.confirmed.push((index, renewals));
            }
            // A later round confirms what earlier ones asked.
            while let Some(earlier) =
                self.rounds.first_entry().filter(|round| *round.key() < context)
            {
                let renewals = earlier.remove();
                self.confirmed.push((index, renewals));
            }
        }
    }

    /// An entry was applied: duties take note.
    pub(super) fn applied(&mut self, now: Moment, index: u64, proposal: &Proposal, state: &State) {
        for command in &proposal.commands {
            if let Some(duty) = self.duties.get_mut(command.cluster()) {
                duty.applied(now, index, command, state.clusters.get(command.cluster()));
            }
            if let Some(backups) = self.backups.get_mut(command.cluster()) {
                backups.applied(now, index, command);
            }
        }
    }

    /// Who asked for what is now decided gets an answer.
    pub(super) fn settle(&mut self, index: u64, term: u64, state: &State) -> Vec<(u64, Response)> {
        let (settled, waiting) = std::mem::take(&mut self.asked)
            .into_iter()
            .partition::<Vec<_>, _>(|asked| asked.index <= index);
        self.asked = waiting;
        let answer = |asked: Asked| {
            let of_cluster = state.clusters.get(&asked.cluster);
            let ours = term == self.term && asked.index == index;
            let response = of_cluster.filter(|_| ours).and_then(|state| asked.outcome(state));
            (asked.id, response.unwrap_or_else(overtaken))
        };
        settled.into_iter().map(answer).collect()
    }

    /// The routes of all clusters as of now.
    fn routes(&self, setup: &Setup, state: &State) -> BTreeMap<ClusterName, Route> {
        let mut routes = BTreeMap::new();
        for (name, spec) in &setup.clusters {
            if let (Some(state), Some(duty)) = (state.clusters.get(name), self.duties.get(name)) {
                routes.insert(name.clone(), route(spec, state, duty));
            }
        }
        routes
    }
}

impl Asked {
    fn outcome(&self, state: &ClusterState) -> Option<Response> {
        let cluster = self.cluster.clone();
        let text = match &self.expects {
            Expects::Procedure(number) => {
                let open = state.procedure.as_ref().filter(|open| open.id == *number);
                return open.map(|_| Response::Opened { cluster, procedure: *number });
            }
            Expects::Adoption => {
                let primary = state.writer.primary()?;
                format!("{cluster} is adopted with primary {primary}")
            }
            Expects::Maintenance(server, begins) => {
                let subject = maintenance::subject(server.as_ref());
                match (state.maintenance.of(server.as_ref()), begins) {
                    (Some(notice), true) => format!("{subject} is in {notice}"),
                    (None, false) => format!("maintenance of {subject} is over"),
                    (Some(_), false) | (None, true) => return None,
                }
            }
            Expects::Replacing(server, change) => {
                let left_alone = state.maintenance.servers.contains_key(server);
                match (change, left_alone, state.rebuilding.contains_key(server)) {
                    (Replacement::Begins { .. }, true, true) => {
                        format!("{server} is in maintenance, and what it holds counts for nothing")
                    }
                    (Replacement::Done, false, false) => {
                        format!("{server} has its data, and its maintenance is over")
                    }
                    _ => return None,
                }
            }
        };
        Some(Response::Done { text })
    }
}

impl Watcher {
    /// Does what a leader has to do by now; true when it proposed anything.
    pub(super) fn lead(&mut self, now: Now) -> bool {
        let Some(mut leading) = self.leading.take() else {
            return false;
        };
        self.run_rounds(now.moment, &mut leading);
        self.grant(now.moment, &mut leading);
        let mut proposed = self.journal_finished(now, &mut leading);
        let due = leading.duties.iter().filter(|(_, duty)| duty.next() <= now.moment);
        let names: Vec<_> = due.map(|(name, _)| name.clone()).collect();
        for name in names {
            proposed |= self.judge(now, &mut leading, &name);
        }
        proposed |= self.look_after_backups(now, &mut leading);
        self.look_after_chores(now.moment, &mut leading);
        proposed |= self.look_after_proofs(now, &mut leading);
        proposed |= self.look_after_archives(now, &mut leading);
        self.leading = Some(leading);
        proposed
    }

    /// Proposes what a request asks for; the answer follows when it is applied.
    pub(super) fn propose_for(
        &mut self,
        now: Now,
        request: u64,
        commands: Vec<Command>,
    ) -> Result<(), Refusal> {
        let busy =
            |text: &str| Refusal { code: RefusalCode::Busy, text: text.to_owned(), leader: None };
        let Some(last) = commands.last() else {
            return Err(busy("there is nothing to be decided"));
        };
        let cluster = last.cluster().clone();
        let number = self.state.clusters.get(&cluster).map_or(0, |state| state.last_procedure) + 1;
        let expects = match last {
            Command::Open { .. } => Expects::Procedure(number),
            Command::Maintain { change: Change::Begin { server, .. }, .. } => {
                Expects::Maintenance(server.clone(), true)
            }
            Command::Maintain { change: Change::End { server, .. }, .. } => {
                Expects::Maintenance(server.clone(), false)
            }
            Command::Replace { server, change, .. } => Expects::Replacing(server.clone(), *change),
            Command::Adopt { .. }
            | Command::Extend { .. }
            | Command::Begin { .. }
            | Command::Finish { .. }
            | Command::Close { .. }
            | Command::Learn { .. }
            | Command::Backup { .. }
            | Command::Proof { .. }
            | Command::Archive { .. }
            | Command::Note { .. } => Expects::Adoption,
        };
        let Some(index) = self.propose(now, commands) else {
            return Err(busy("this watcher cannot take a decision right now; ask again"));
        };
        if let Some(leading) = &mut self.leading {
            if let Some(duty) = leading.duties.get_mut(&cluster) {
                duty.proposed(index);
            }
            leading.asked.push(Asked { id: request, index, cluster, expects });
        }
        Ok(())
    }

    /// Everything known about a cluster as of now.
    pub(super) fn situation(
        &self,
        now: Moment,
        leading: &Leading,
        name: &ClusterName,
    ) -> Option<Situation> {
        let spec = self.setup.clusters.get(name)?;
        let mut views = BTreeMap::new();
        for server in &spec.servers {
            let key = ServerKey { cluster: name.clone(), server: server.name.clone() };
            views.insert(server.name.clone(), leading.table.views(now, &key, &self.setup.timing));
        }
        Some(Situation {
            spec: spec.clone(),
            state: self.state.clusters.get(name).map(ClusterState::present).unwrap_or_default(),
            timing: self.setup.timing,
            watchers: self.setup.watchers.clone(),
            views,
            canary_stalled: leading.duties.get(name).and_then(|duty| duty.canary_stalled(now)),
            canary_refused: leading.duties.get(name).and_then(Duty::canary_refused),
        })
    }

    pub(super) fn propose(&mut self, now: Now, commands: Vec<Command>) -> Option<u64> {
        let proposal = Proposal::new(now.wall, commands);
        let data = serde_json::to_vec(&proposal).ok()?;
        self.consensus.propose(data).ok().map(|proposed| proposed.index)
    }

    /// Begins a quorum round when somebody waits for one or the last is too old for permits.
    fn run_rounds(&mut self, now: Moment, leading: &mut Leading) {
        if now < leading.next_round {
            return;
        }
        let round = leading.last_round + 1;
        if self.consensus.read_index(now, round).is_ok() {
            leading.last_round = round;
            leading.rounds.insert(round, std::mem::take(&mut leading.renewals));
        }
        leading.next_round = now + leading.timing.raft_tick * leading.timing.raft_heartbeat_ticks;
    }

    /// Grants leases whose quorum round is complete.
    fn grant(&mut self, now: Moment, leading: &mut Leading) {
        let applied = self.applied;
        let (ready, waiting) = std::mem::take(&mut leading.confirmed)
            .into_iter()
            .partition::<Vec<_>, _>(|(index, _)| *index <= applied);
        leading.confirmed = waiting;
        let renewals: Vec<_> = ready.into_iter().flat_map(|(_, renewals)| renewals).collect();
        if renewals.is_empty() {
            return;
        }
        let routes = leading.routes(&self.setup, &self.state);
        for (proxy, sent) in renewals {
            leading.ledger.grant(&proxy, now, &leading.timing);
            let span = leading.timing.lease;
            let message = ToProxy::Granted { sent, span, routes: routes.clone() };
            self.push(Output::ToProxy { proxy, message });
        }
        leading.ledger.forget(now, &leading.timing);
        let active: Vec<_> = leading.ledger.known().cloned().collect();
        leading.sessions.retain(|proxy, _| active.contains(proxy));
    }

    /// Results of steps enter the journal at once, whatever else is on its way.
    fn journal_finished(&mut self, now: Now, leading: &mut Leading) -> bool {
        let finished = std::mem::take(&mut leading.finished);
        let mut proposed = false;
        for (order, outcome) in finished {
            let cluster = order.cluster.clone();
            let command = Command::Finish {
                cluster: order.cluster,
                procedure: order.procedure,
                stage: order.stage,
                step: order.step,
                attempt: order.attempt,
                outcome,
            };
            if let Some(index) = self.propose(now, vec![command]) {
                proposed = true;
                if let Some(duty) = leading.duties.get_mut(&cluster) {
                    duty.proposed(index);
                }
            }
        }
        proposed
    }

    /// Has the canary row written when that is due and this watcher surely leads.
    fn send_canary(&mut self, now: Moment, duty: &mut Duty, situation: &Situation) {
        let permit = self.consensus.surely_leads_until().unwrap_or_default();
        if permit <= now {
            return;
        }
        if let Some(server) = duty.canary_due(now, &situation.state) {
            let server = ServerKey { cluster: situation.spec.name.clone(), server };
            self.push(Output::Canary { server, epoch: situation.state.epoch, permit });
        }
    }

    /// Looks at one cluster and proposes what is to be done.
    fn judge(&mut self, now: Now, leading: &mut Leading, name: &ClusterName) -> bool {
        let Some(duty) = leading.duties.get_mut(name) else {
            return false;
        };
        if std::mem::take(&mut duty.alarmed) && duty.may_alarm(now.moment) {
            self.hurry(now.moment, name);
        }
        if duty.awaits(self.applied) {
            duty.rest(now.moment);
            return false;
        }
        let Some(situation) = self.situation(now.moment, leading, name) else {
            return false;
        };
        let Some(mut duty) = leading.duties.remove(name) else {
            return false;
        };
        self.send_canary(now.moment, &mut duty, &situation);
        let commands = duty.judge(now, leading.term, &situation, &leading.ledger);
        let mut proposed = false;
        if !commands.is_empty()
            && let Some(index) = self.propose(now, commands)
        {
            duty.proposed(index);
            proposed = true;
        }
        leading.duties.insert(name.clone(), duty);
        proposed
    }
}

fn route(spec: &ClusterSpec, state: &ClusterState, duty: &Duty) -> Route {
    let target = |server: &crate::decision::topology::ServerSpec| Target {
        server: server.name.clone(),
        address: server.address.clone(),
        data_center: server.data_center.clone(),
    };
    let write = match &state.writer {
        Writer::Open { primary } => spec.server(primary).map(target),
        Writer::Closed { .. } | Writer::Unassigned => None,
    };
    let kept_without_quorum = match spec.durability {
        // A deposed primary could complete no commit anyway.
        Durability::Lossless { .. } => state.protection.in_force,
        Durability::BestEffort { on_quorum_loss } => on_quorum_loss == OnQuorumLoss::Keep,
    };
    let reads = spec.servers.iter().filter(|server| duty.readable.contains(&server.name));
    let reads = reads.filter(|server| Some(&server.name) != state.writer.primary());
    Route { epoch: state.epoch, write, reads: reads.map(target).collect(), kept_without_quorum }
}

fn overtaken() -> Response {
    Response::Refused(Refusal {
        code: RefusalCode::Forbidden,
        text: "something else was decided first; look at the status and ask again".to_owned(),
        leader: None,
    })
}
