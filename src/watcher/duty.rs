//! The leader's duty for one cluster: follow its findings, respond, and drive its procedure.

use super::CanaryResult;
use super::account::Account;
use crate::clock::{Moment, Now};
use crate::decision::adoption::{self, Verdict};
use crate::decision::cluster::{ClusterState, Command, Writer};
use crate::decision::diagnosis::{Finding, FindingKind, diagnose};
use crate::decision::durability;
use crate::decision::lease::Ledger;
use crate::decision::plan::Outcome;
use crate::decision::planning;
use crate::decision::procedure::{
    Ending, Guard, Kind, Next, Procedure, Rejoin, Standing, StepState, Waiting,
};
use crate::decision::rejoin;
use crate::decision::report::{Receiver, StorageFault};
use crate::decision::response::{self, Act, Past, Response};
use crate::decision::restarts::Restarts;
use crate::decision::situation::Situation;
use crate::decision::topology::{ClusterName, ServerName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A stage that has enough waits so long for its stragglers.
const GRACE: Duration = Duration::from_millis(250);

/// A finding is told to people when it has lasted so long.
const NOTE_AFTER: Duration = Duration::from_millis(300);

/// A finding is over when it has been away for so long.
const OVER_AFTER: Duration = Duration::from_secs(1);

/// How often a cluster is looked at when nothing calls for it.
const CALM: Duration = Duration::from_millis(200);

/// Between two calls to everybody to look at once.
const ALARM_GAP: Duration = Duration::from_millis(60);

/// Between two canary rows.
const CANARY_PACE: Duration = Duration::from_secs(1);

/// How long a canary row may take before it says something.
const CANARY_PATIENCE: Duration = Duration::from_millis(1500);

/// One cluster's duty.
#[derive(Debug)]
pub(super) struct Duty {
    next: Moment,
    /// Since when this watcher leads.
    begun: Moment,
    /// A report of this cluster showed no life; everybody should look.
    pub(super) alarmed: bool,
    last_alarm: Option<Moment>,
    /// The last entry proposed for it; nothing is judged before that is applied.
    proposed: u64,
    tracks: BTreeMap<(FindingKind, Option<ServerName>), Track>,
    account: Account,
    canary: Canary,
    /// Replicas fit to read from.
    pub(super) readable: BTreeSet<ServerName>,
    /// Of the open procedure: steps that pause before another attempt, and stages with enough.
    pauses: BTreeMap<(usize, usize), Moment>,
    enough_since: BTreeMap<usize, Moment>,
}

/// The canary row of the primary.
#[derive(Debug, Default)]
struct Canary {
    server: Option<ServerName>,
    due: Moment,
    under_way: bool,
    /// Since when it was tried in vain.
    in_vain: Option<Moment>,
    /// Why the storage took no row the last time.
    refused: Option<StorageFault>,
}

#[derive(Debug)]
struct Track {
    /// For how long it was there until the last look, less the time it was away: what comes and goes
    /// confirms itself only when it is there more than away.
    held: Duration,
    looked: Moment,
    seen: Moment,
    present: bool,
    /// Whether people were told.
    noted: bool,
    /// Whether people were told that nothing is done about it.
    withheld: bool,
    text: String,
}

impl Track {
    fn begin(now: Moment) -> Track {
        Track {
            held: Duration::ZERO,
            looked: now,
            seen: now,
            present: true,
            noted: false,
            withheld: false,
            text: String::new(),
        }
    }

    /// Accounts for the time since the last look.
    fn pass(&mut self, now: Moment) {
        let passed = now.since(self.looked);
        self.held = match self.present {
            // Nobody looked while a procedure was open.
            true => self.held + passed.min(CALM * 2),
            false => self.held.saturating_sub(passed),
        };
        self.looked = now;
        self.present = false;
    }

    fn lasting(&self, now: Moment) -> Duration {
        self.held + now.since(self.looked)
    }
}

impl Duty {
    pub(super) fn new(now: Now, state: Option<&ClusterState>) -> Duty {
        Duty {
            next: now.moment,
            begun: now.moment,
            alarmed: false,
            last_alarm: None,
            proposed: 0,
            tracks: BTreeMap::new(),
            account: Account::inherited(now, state),
            canary: Canary::default(),
            readable: BTreeSet::new(),
            pauses: BTreeMap::new(),
            enough_since: BTreeMap::new(),
        }
    }

    pub(super) fn next(&self) -> Moment {
        self.next
    }

    pub(super) fn look_now(&mut self, now: Moment) {
        self.next = self.next.min(now);
    }

    /// Nothing can be judged before a proposal is applied, which wakes it.
    pub(super) fn rest(&mut self, now: Moment) {
        self.next = now + CALM;
    }

    pub(super) fn proposed(&mut self, index: u64) {
        self.proposed = self.proposed.max(index);
    }

    pub(super) fn awaits(&self, applied: u64) -> bool {
        self.proposed > applied
    }

    pub(super) fn may_alarm(&mut self, now: Moment) -> bool {
        let may = self.last_alarm.is_none_or(|last| now.since(last) >= ALARM_GAP);
        if may {
            self.last_alarm = Some(now);
        }
        may
    }

    /// The server to write the canary row on now, if it is time: the primary, while nothing moves.
    pub(super) fn canary_due(&mut self, now: Moment, state: &ClusterState) -> Option<ServerName> {
        let still = state.procedure.as_ref().is_none_or(|open| open.kind == Kind::Rejoin);
        let primary = state.writer.primary().filter(|_| still);
        if self.canary.server.as_ref() != primary {
            self.canary = Canary { server: primary.cloned(), due: now, ..Canary::default() };
        }
        if self.canary.under_way || now < self.canary.due {
            return None;
        }
        let primary = primary?;
        self.canary.under_way = true;
        self.canary.due = now + CANARY_PACE;
        self.canary.in_vain.get_or_insert(now);
        Some(primary.clone())
    }

    pub(super) fn canary_done(&mut self, now: Moment, server: &ServerName, result: CanaryResult) {
        if self.canary.server.as_ref() != Some(server) {
            return;
        }
        self.canary.under_way = false;
        self.canary.refused = None;
        match result {
            CanaryResult::Written | CanaryResult::Unknown => self.canary.in_vain = None,
            CanaryResult::Stalled => self.look_now(now),
            CanaryResult::Refused(fault) => {
                self.canary.refused = Some(fault);
                self.look_now(now);
            }
        }
    }

    /// Why the primary's storage took no canary row the last time.
    pub(super) fn canary_refused(&self) -> Option<StorageFault> {
        self.canary.refused
    }

    /// For how long the canary row has been tried in vain, once that is long enough to tell.
    pub(super) fn canary_stalled(&self, now: Moment) -> Option<Duration> {
        let stalled = self.canary.in_vain.map(|since| now.since(since));
        stalled.filter(|stalled| *stalled >= CANARY_PATIENCE)
    }

    /// For how long a finding has been there. Ways of losing the primary count together: it may be
    /// found refused, hung and unreachable in turn.
    pub(super) fn lasting(&self, now: Moment, finding: &Finding) -> Duration {
        let one_loss = |kind: FindingKind| kind.is_loss() && finding.kind.is_loss();
        let same = self.tracks.iter().filter(|((kind, server), _)| {
            (*kind == finding.kind || one_loss(*kind)) && *server == finding.server
        });
        let present = same.clone().any(|(_, track)| track.present);
        let lasting = same.map(|(_, track)| match track.present {
            true => track.lasting(now),
            false => track.held,
        });
        lasting.filter(|_| present).sum()
    }

    /// What was done before, for cooldowns and budgets.
    pub(super) fn past(&self, now: Moment) -> Vec<Past> {
        self.account.past(now)
    }

    /// An entry about this cluster was applied.
    pub(super) fn applied(
        &mut self,
        now: Moment,
        index: u64,
        command: &Command,
        state: Option<&ClusterState>,
    ) {
        if index >= self.proposed {
            self.look_now(now);
        }
        match command {
            Command::Finish { stage, step, attempt, outcome: Outcome::Retry(_), .. } => {
                let pause = Duration::from_millis(25 << (*attempt).min(6));
                self.pauses.insert((*stage, *step), now + pause);
            }
            Command::Open { .. } | Command::Close { .. } => {
                self.pauses.clear();
                self.enough_since.clear();
                let ended = state.and_then(|state| state.ended.back());
                if let (Command::Close { ending, .. }, Some(ended)) = (command, ended)
                    && !matches!(ending, Ending::Yielded { .. })
                {
                    self.account.ended(now, &ended.finding);
                }
            }
            Command::Finish { .. }
            | Command::Adopt { .. }
            | Command::Extend { .. }
            | Command::Begin { .. }
            | Command::Maintain { .. }
            | Command::Replace { .. }
            | Command::Learn { .. }
            | Command::Backup { .. }
            | Command::Proof { .. }
            | Command::Archive { .. }
            | Command::Note { .. } => {}
        }
    }

    /// Looks at the cluster and says what to propose.
    pub(super) fn judge(
        &mut self,
        now: Now,
        term: u64,
        situation: &Situation,
        ledger: &Ledger,
    ) -> Vec<Command> {
        self.next = now.moment + CALM;
        self.choose_readable(situation);
        let cluster = &situation.spec.name;
        let over = self.account.maintenance_over(now, &situation.state.maintenance);
        if !over.is_empty() {
            let end = |change| Command::Maintain { cluster: cluster.clone(), change };
            return over.into_iter().map(end).collect();
        }
        if let Some(open) = &situation.state.procedure {
            if let Some(rejoin) = &open.rejoin {
                return self.drive_rejoin(now, term, situation, (open, rejoin), ledger);
            }
            return self.drive(now, term, situation, open, ledger);
        }
        if situation.state.writer == Writer::Unassigned
            && situation.state.maintenance.cluster.is_none()
            && let Verdict::Primary { server: primary, why } = adoption::verdict(situation)
        {
            return vec![Command::Adopt { cluster: cluster.clone(), primary, why }];
        }
        let findings = diagnose(situation);
        let mut commands = self.follow(now.moment, situation, &findings);
        commands.extend(learned(situation));
        let lasting = |finding: &Finding| self.lasting(now.moment, finding);
        let past = self.past(now.moment);
        let response = response::respond(situation, &findings, &lasting, &past);
        commands.extend(self.tell_held(cluster, &response));
        if let Act::Open(procedure) = response.act {
            let seen = situation.state.epoch;
            commands.insert(0, Command::Open { cluster: cluster.clone(), seen, procedure });
        }
        commands
    }

    /// Drives a rejoin, which may take hours, unless something else is to be done meanwhile.
    fn drive_rejoin(
        &mut self,
        now: Now,
        term: u64,
        situation: &Situation,
        (open, rejoin): (&Procedure, &Rejoin),
        ledger: &Ledger,
    ) -> Vec<Command> {
        let cluster = &situation.spec.name;
        let mut without = situation.clone();
        without.state.procedure = None;
        let findings = diagnose(&without);
        let mut commands = self.follow(now.moment, &without, &findings);
        let lasting = |finding: &Finding| self.lasting(now.moment, finding);
        let past = self.past(now.moment);
        if let Some(urgent) =
            rejoin::more_urgent(&without, (open, rejoin), findings, &lasting, &past)
        {
            commands.extend(situation.make_way(&urgent.cause));
            let (cluster, seen) = (cluster.clone(), situation.state.epoch);
            commands.push(Command::Open { cluster, seen, procedure: Box::new(urgent) });
            return commands;
        }
        commands.extend(self.drive(now, term, situation, open, ledger));
        commands
    }

    /// Keeps account of findings that come and go, and tells people of those that stay.
    fn follow(&mut self, now: Moment, situation: &Situation, findings: &[Finding]) -> Vec<Command> {
        let cluster = &situation.spec.name;
        for track in self.tracks.values_mut() {
            track.pass(now);
        }
        let mut notes = Vec::new();
        let mut note = |kind: &str, text: String| {
            let (cluster, kind) = (cluster.clone(), kind.to_owned());
            notes.push(Command::Note { cluster, kind, text });
        };
        for finding in findings {
            let key = (finding.kind, finding.server.clone());
            let track = self.tracks.entry(key).or_insert_with(|| Track::begin(now));
            track.seen = now;
            track.present = true;
            track.text.clone_from(&finding.text);
            let left_alone = |server| situation.maintained(server).is_some();
            if finding.server.as_ref().is_some_and(left_alone) {
                continue;
            }
            if !track.noted && track.lasting(now) >= NOTE_AFTER {
                track.noted = true;
                note("finding_began", format!("{}: {}", finding.kind, finding.text));
            }
        }
        self.tracks.retain(|(kind, _), track| {
            let over = !track.present && now.since(track.seen) >= OVER_AFTER;
            if over && track.noted {
                note("finding_ended", format!("{kind}: no longer: {}", track.text));
            }
            !over
        });
        notes
    }

    /// Tells people once that a finding gets no answer although its rule has one.
    fn tell_held(&mut self, cluster: &ClusterName, response: &Response) -> Option<Command> {
        let kind = response.finding.filter(|_| response.held)?;
        let mut tracks: Vec<_> =
            self.tracks.iter_mut().filter(|((of, _), track)| *of == kind && track.noted).collect();
        if tracks.is_empty() || tracks.iter().any(|(_, track)| track.withheld) {
            return None;
        }
        tracks.iter_mut().for_each(|(_, track)| track.withheld = true);
        let text = format!("{kind}: {}", response.reasons.join("; "));
        Some(Command::Note { cluster: cluster.clone(), kind: "response_held".to_owned(), text })
    }

    /// Replicas fit to read from: following the primary, applying, not in maintenance, within the
    /// lag limit; one that was too far behind must come well below the limit before it is taken back.
    fn choose_readable(&mut self, situation: &Situation) {
        let limit = situation.spec.max_replica_lag;
        let mut readable = BTreeSet::new();
        for replica in situation.replicas() {
            let channel = situation.status(&replica.name).and_then(|status| status.channel());
            let Some(channel) = channel else { continue };
            let was = self.readable.contains(&replica.name);
            let limit = if was { limit } else { limit * 4 / 5 };
            let fit = situation.leads_to_primary(replica)
                && channel.applying
                && channel.receiver != Receiver::Stopped
                && channel.error.is_none()
                && channel.delay.is_zero()
                && situation.maintained(&replica.name).is_none()
                && channel.lag.is_none_or(|lag| lag <= limit);
            if fit {
                readable.insert(replica.name.clone());
            }
        }
        self.readable = readable;
    }

    fn drive(
        &mut self,
        now: Now,
        term: u64,
        situation: &Situation,
        open: &Procedure,
        ledger: &Ledger,
    ) -> Vec<Command> {
        let cluster = situation.spec.name.clone();
        let free_from = ledger.free_from(&cluster, open.epoch);
        let standing = self.standing(now.moment, term, situation, open, free_from);
        let close = |ending: Ending| Command::Close {
            cluster: cluster.clone(),
            procedure: open.id,
            ending,
        };
        match open.next(&standing) {
            Next::Perform(attempts) => attempts
                .into_iter()
                .map(|(stage, step, attempt)| Command::Begin {
                    cluster: cluster.clone(),
                    procedure: open.id,
                    stage,
                    step,
                    attempt,
                    term,
                })
                .collect(),
            Next::Wait(waiting) => {
                self.wait(now.moment, waiting, free_from);
                Vec::new()
            }
            // A new leader has not seen everybody who was surveyed; what it does not know of a
            // candidate could only speak against it.
            Next::Decide if self.is_new_to(now.moment, situation, open) => Vec::new(),
            Next::Decide => match planning::decide(situation, open).outcome(&cluster, open) {
                Ok(extend) => vec![extend],
                Err(ending @ Ending::Abandoned { .. }) => give_up(situation, open, close(ending)),
                Err(ending) => vec![close(ending)],
            },
            Next::Failed { stage } => {
                let name = &open.plan[stage].name;
                let failures = open.failures(stage).join("; ");
                if open.past_return() {
                    let text = format!(
                        "stage {name} failed: {failures}; look at the servers named, then run \
                         regent explain {cluster}"
                    );
                    return vec![close(Ending::Stuck { text })];
                }
                let text = format!("stage {name} failed: {failures}");
                give_up(situation, open, close(Ending::Abandoned { text }))
            }
            Next::Finished => vec![close(Ending::Done { text: summary(open) })],
        }
    }

    /// Whether this watcher leads since a moment ago and has no status yet of a surveyed server.
    fn is_new_to(&self, now: Moment, situation: &Situation, open: &Procedure) -> bool {
        let young = now.since(self.begun) < situation.stale_after() * 2;
        young && open.stopped().into_iter().any(|server| situation.status(server).is_none())
    }

    fn standing(
        &mut self,
        now: Moment,
        term: u64,
        situation: &Situation,
        open: &Procedure,
        free_from: Moment,
    ) -> Standing {
        let mut standing = Standing { term, ..Standing::default() };
        let revoked = durability::revoked(&situation.state, &open.from, open.stopped());
        if revoked || open.former_is_fenced() || now >= free_from {
            standing.guards.insert(Guard::FormerPrimaryFenced);
        }
        for stage in 0..open.plan.len() {
            if open.has_enough(stage) {
                let since = *self.enough_since.entry(stage).or_insert(now);
                if now.since(since) >= GRACE {
                    standing.graced.insert(stage);
                } else {
                    self.look_now(since + GRACE);
                }
            }
        }
        for ((stage, step), until) in &self.pauses {
            let retries = matches!(open.step_state(*stage, *step), StepState::Retry { .. });
            if retries && *until > now {
                standing.pausing.insert((*stage, *step));
            }
        }
        standing
    }

    fn wait(&mut self, now: Moment, waiting: Waiting, free_from: Moment) {
        let pause = self.pauses.values().filter(|until| **until > now).min().copied();
        match waiting {
            Waiting::Steps => {}
            Waiting::Guard(Guard::FormerPrimaryFenced) => self.look_now(free_from.max(now)),
            Waiting::Pause => {}
        }
        if let Some(pause) = pause {
            self.look_now(pause);
        }
    }
}

/// Ends a procedure before its point of no return. A switchover puts back what it took: the
/// primary that was there goes on, in the same breath.
fn give_up(situation: &Situation, open: &Procedure, close: Command) -> Vec<Command> {
    let mut commands = vec![close];
    let former = situation.spec.server(&open.from).filter(|_| open.kind == Kind::Switchover);
    if let Some(former) = former {
        let plan = planning::reopen(situation, former);
        let cause = format!("switchover {} was given up; {} goes on", open.id, former.name);
        let repair = response::procedure(Kind::Repair, cause, former.name.clone(), plan);
        commands.push(Command::Open {
            cluster: situation.spec.name.clone(),
            seen: situation.state.epoch,
            procedure: Box::new(repair),
        });
    }
    commands
}

/// What the servers tell of their next start, as far as that is news.
fn learned(situation: &Situation) -> Option<Command> {
    let closed_at_restart = Restarts::news(situation);
    let cluster = situation.spec.name.clone();
    (!closed_at_restart.is_empty()).then_some(Command::Learn { cluster, closed_at_restart })
}

/// How a finished procedure went, in a sentence.
fn summary(open: &Procedure) -> String {
    let failed: usize = (0..open.plan.len()).map(|stage| open.failures(stage).len()).sum();
    let rest = match failed {
        0 => String::new(),
        n => format!(", {n} step(s) that nothing depends on failed"),
    };
    if let Some(rejoin) = &open.rejoin {
        return format!("{}{rest}", rejoin::summary(open, rejoin));
    }
    match (&open.to, open.kind) {
        (Some(to), Kind::Failover | Kind::Switchover) => {
            let loss = if open.loss.is_empty() { "" } else { "; " };
            format!("{to} is the primary under epoch {}{rest}{loss}{}", open.epoch, open.loss)
        }
        (_, Kind::Repair | Kind::Rejoin) | (None, _) => format!("all steps ended{rest}"),
    }
}
