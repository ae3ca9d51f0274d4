//! Builders of plans: which stages a procedure has, decided from what is known by then.

mod last_resorts;

pub use last_resorts::{degrade, pointless};

use super::candidate::{self, Candidate, Survey, rank};
pub use super::deciding::{Decision, decide};
use super::diagnosis::{Finding, FindingKind, apart};
use super::durability::{self, Wanted};
use super::gtid::Gtids;
use super::loss;
use super::objection::{longest_pause, unready};
use super::plan::Step;
use super::procedure::{ATTEMPTS, Guard, Kind, Need, Planned, Procedure, Stage};
use super::report::{Receiver, Sight, Writable};
use super::situation::Situation;
use super::topology::{Durability, Flavor, ServerName, ServerSpec};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a candidate may take in one attempt to apply what it received, when there is no
/// primary to go back to.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first plan of a failover: the former primary takes no writes, the replicas receive nothing
/// more and say what they hold.
pub fn isolate(situation: &Situation, from: &ServerName, accept_loss: bool) -> Vec<Stage> {
    let reachable =
        situation.whole_replicas().filter(|replica| situation.status(&replica.name).is_some());
    let protection = &situation.state.protection;
    let need = protection.survey_need().filter(|_| !accept_loss);
    // Where a proof is needed, only those that may have acknowledged contribute to it; a quick
    // replica nearby must not end the wait for the one far away that does.
    let planned = |replica: &ServerSpec| {
        let counts = need.is_none() && situation.maintained(&replica.name).is_none();
        let proves = counts || protection.may_acknowledge.contains(&replica.name);
        let step = Step::ReceiverStopped { server: replica.name.clone() };
        Planned { step, need: if proves { Need::Counts } else { Need::Helps } }
    };
    let mut steps: Vec<_> = reachable.map(planned).collect();
    let all = steps.iter().filter(|planned| planned.need == Need::Counts).count();
    steps.push(may(Step::ReadOnly { server: from.clone() }));
    let at_least = need.unwrap_or(1).clamp(1, all.max(1));
    let mut isolate = stage("isolate", steps);
    isolate.at_least = at_least;
    isolate.decides = true;
    vec![isolate]
}

/// The first plan of a switchover: the primary takes no writes and says what it holds.
pub fn pause(from: &ServerName) -> Vec<Stage> {
    let mut pause = stage("pause", vec![must(Step::ReadOnly { server: from.clone() })]);
    pause.decides = true;
    pause.attempts = 1;
    vec![pause]
}

/// The second plan of a failover or switchover.
pub fn promote(situation: &Situation, procedure: &Procedure) -> Decision {
    let survey = survey_of(situation, procedure);
    let ranked = rank(situation, &survey);
    let asked = procedure.to.as_ref();
    let eligible = |candidate: &&Candidate| {
        candidate.excluded.is_none() && asked.is_none_or(|asked| &candidate.server == asked)
    };
    let mut why: Vec<_> = ranked.iter().map(tell).collect();
    let Some(chosen) = ranked.iter().find(eligible) else {
        return Decision::GiveUp { why: format!("no candidate: {}", why.join("; ")) };
    };
    let Some(to) = situation.spec.server(&chosen.server) else {
        return Decision::GiveUp { why: format!("{} is not declared any more", chosen.server) };
    };
    if let Some(why) = unproven(situation, procedure, &survey).filter(|_| !procedure.accept_loss) {
        return Decision::GiveUp { why };
    }
    why.insert(0, format!("{} becomes primary", chosen.server));
    let everything = candidate::everything(situation, &survey);
    let everything = everything.unwrap_or_else(|| empty_of(&survey, &to.name));
    let mut stages: Vec<_> = last_resorts::force(situation, procedure).into_iter().collect();
    if !chosen.complete {
        stages.extend(fetch(situation, &survey, to, &everything));
    }
    stages.extend(promotion(situation, procedure, to, &everything));
    let loss = loss::stated(situation, procedure, &survey).unwrap_or_default();
    Decision::Promote { stages, to: to.name.clone(), why, loss }
}

/// Why it is not proven that nothing acknowledged is lost; `None` when it is.
pub fn unproven(situation: &Situation, procedure: &Procedure, survey: &Survey) -> Option<String> {
    if procedure.former_is_read_only() && survey.received.contains_key(&procedure.from) {
        return None;
    }
    let Durability::Lossless { .. } = situation.spec.durability else {
        return None;
    };
    if let Some(why) = below_floor(situation, &procedure.from, survey) {
        return Some(why);
    }
    let protection = &situation.state.protection;
    if protection.proven_by(procedure.stopped()) {
        return None;
    }
    let may: Vec<_> = protection.may_acknowledge.iter().map(ToString::to_string).collect();
    Some(match protection.survey_need() {
        None => format!(
            "commits on {} were not confirmed to wait for acknowledgements, so acknowledged \
             transactions may be lost",
            procedure.from
        ),
        Some(need) => format!(
            "{need} of [{}] must answer to prove that no acknowledged transaction is lost, and \
             only {} did",
            may.join(", "),
            procedure.stopped().len()
        ),
    })
}

/// Acknowledgements prove only what a primary wrote itself. What it was promoted with may have been
/// acknowledged before, so a survivor must hold that too.
///
/// The same goes for what was acknowledged by replicas that were relieved of it since.
fn below_floor(situation: &Situation, from: &ServerName, survey: &Survey) -> Option<String> {
    let held = |floor: &Gtids| survey.received.values().any(|it| it.contains(floor));
    if situation.state.promoted_with(from).is_some_and(|floor| !held(&floor)) {
        return Some(format!(
            "no survivor holds all that {from} was promoted with, so acknowledged transactions \
             of earlier primaries may be lost"
        ));
    }
    let floor = situation.state.protection.floor.as_ref();
    floor.is_some_and(|floor| !held(floor)).then(|| {
        format!(
            "no survivor holds all that was acknowledged on {from} before other replicas were to \
             acknowledge, so some of that may be lost"
        )
    })
}

/// What the steps done so far learned of each server.
fn survey_of(situation: &Situation, procedure: &Procedure) -> Survey {
    let mut survey = Survey::default();
    for (step, facts) in procedure.done() {
        if let Some(received) = facts.received.as_ref().or(facts.executed.as_ref()) {
            survey.received.insert(step.server().clone(), received.clone());
        }
        if let Some(executed) = &facts.executed {
            survey.executed.insert(step.server().clone(), executed.clone());
        }
    }
    if procedure.kind == Kind::Switchover {
        // The primary lives and its replicas go on receiving: whoever follows it will hold all.
        let following =
            situation.replicas().filter(|replica| unready(situation, &replica.name).is_none());
        if let Some(all) = survey.received.get(&procedure.from).cloned() {
            for replica in following {
                survey.received.insert(replica.name.clone(), all.clone());
            }
        }
    }
    survey
}

fn empty_of(survey: &Survey, server: &ServerName) -> Gtids {
    let flavor = survey.received.get(server).map_or(Flavor::MySql, Gtids::flavor);
    Gtids::empty(flavor)
}

/// Stages that give the candidate what only other survivors hold, one survivor after the other.
fn fetch(
    situation: &Situation,
    survey: &Survey,
    to: &ServerSpec,
    everything: &Gtids,
) -> Vec<Stage> {
    let mut held = survey.received.get(&to.name).cloned().unwrap_or(everything.minus(everything));
    let mut others: Vec<_> =
        survey.received.iter().filter(|(server, _)| *server != &to.name).collect();
    // Those without errant transactions first, and of them those who hold most.
    others.sort_by_key(|(_, theirs)| {
        (theirs.count_beyond(everything), everything.count_beyond(theirs))
    });
    let mut stages = Vec::new();
    for (server, theirs) in others {
        let missing = everything.minus(&held);
        let helps = missing.minus(theirs) != missing;
        let Some(source) = situation.spec.server(server).filter(|_| helps) else { continue };
        held = held.union(theirs);
        let unblocked = [source, to].into_iter().filter_map(|server| unblock(situation, server));
        let mut steps: Vec<_> = unblocked.map(must).collect();
        steps.push(must(caught_up(source, theirs, PATIENCE)));
        steps.push(must(following(to, source)));
        steps.push(must(caught_up(to, theirs, PATIENCE)));
        stages.push(stage("fetch", steps));
    }
    stages
}

/// The stages from catching up to the last repointed replica.
fn promotion(
    situation: &Situation,
    procedure: &Procedure,
    to: &ServerSpec,
    everything: &Gtids,
) -> Vec<Stage> {
    let wanted = wanted_with(situation, procedure, to);
    let switchover = procedure.kind == Kind::Switchover;
    let within = if switchover { longest_pause(situation) } else { PATIENCE };
    let mut ready: Vec<_> = unblock(situation, to).map(must).into_iter().collect();
    ready.push(must(caught_up(to, everything, within)));
    ready.push(must(Step::CommitsWait { server: to.name.clone(), acks: wanted.acks }));
    let mut opening = vec![must(Step::Writable { server: to.name.clone(), acks: wanted.acks })];
    let others = situation.spec.servers.iter().filter(|other| other.name != to.name);
    for other in others.filter(|other| !situation.is_rebuilding(&other.name)) {
        let former = other.name == procedure.from;
        if former && !procedure.former_is_read_only() {
            continue; // Repaired when it comes back.
        }
        let known =
            situation.status(&other.name).is_some() || procedure.stopped().contains(&other.name);
        if !former && !known {
            continue;
        }
        if situation.maintained(&other.name).is_some() {
            continue; // Repaired when its maintenance is over.
        }
        opening.extend(acknowledging(situation, &wanted, other).map(may));
        opening.extend(released(situation, procedure, other).map(may));
        opening.push(may(following(other, to)));
    }
    let mut open = stage("promote", opening);
    open.guard = Some(Guard::FormerPrimaryFenced);
    open.no_return = true;
    let mut ready = stage("catch up", ready);
    ready.attempts = if switchover { 1 } else { ATTEMPTS };
    vec![ready, open]
}

/// Who should acknowledge for the new primary: the replicas usable now, and a former primary that
/// takes part in a switchover.
fn wanted_with(situation: &Situation, procedure: &Procedure, to: &ServerSpec) -> Wanted {
    let mut after = situation.clone();
    // Receivers that this procedure stopped, whatever error the loss left behind, will follow again.
    for name in procedure.stopped() {
        let views = after.views.get_mut(name).into_iter().flat_map(|views| views.values_mut());
        let alive = views.filter_map(|view| match &mut view.sight {
            Sight::Alive(status) => Some(status),
            _ => None,
        });
        let channels = alive.flat_map(|status| status.channels.iter_mut());
        for channel in channels.filter(|channel| channel.applying) {
            channel.receiver = Receiver::Connected;
            channel.error = None;
        }
    }
    let mut wanted = durability::wanted(&after, to);
    if !procedure.former_is_read_only() {
        wanted.ackers.remove(&procedure.from);
    }
    wanted
}

fn acknowledging(situation: &Situation, wanted: &Wanted, server: &ServerSpec) -> Option<Step> {
    let on = wanted.ackers.contains(&server.name);
    let recorded = situation.state.protection.may_acknowledge.contains(&server.name);
    let does = situation.status(&server.name).is_some_and(|status| status.semi_sync.replica);
    let settled = does == on && (!on || recorded);
    (!settled && (on || wanted.acks > 0 && !durability::spared(situation, server)))
        .then(|| Step::Acknowledges { server: server.name.clone(), on })
}

/// A replica whose own commits wait for acknowledgements applies nothing, so a former primary must
/// stop waiting before it follows.
fn released(situation: &Situation, procedure: &Procedure, server: &ServerSpec) -> Option<Step> {
    let former = server.name == procedure.from && situation.state.protection.acks > 0;
    unblock(situation, server).or_else(|| former.then(|| release(server)))
}

pub(super) fn unblock(situation: &Situation, server: &ServerSpec) -> Option<Step> {
    let waits = situation.status(&server.name).is_some_and(|status| status.semi_sync.source);
    waits.then(|| release(server))
}

fn release(server: &ServerSpec) -> Step {
    waiting(server, 0)
}

/// The plan that mends a finding; `None` when it cannot be mended now.
pub fn repair(situation: &Situation, finding: &Finding) -> Option<Vec<Stage>> {
    let primary = situation.primary()?;
    match finding.kind {
        FindingKind::PrimaryReadOnly | FindingKind::RouteClosed => {
            let mut stages = Vec::from_iter(fence_others(situation));
            stages.extend(reopen(situation, primary));
            Some(stages)
        }
        FindingKind::PrimaryAstray => {
            let acks = durability::wanted(situation, primary).acks;
            let alone = Step::Writable { server: primary.name.clone(), acks };
            Some(vec![stage("unfollow", vec![must(alone)])])
        }
        FindingKind::SecondWriter | FindingKind::ReplicaWritable => {
            let server = situation.spec.server(finding.server.as_ref()?)?;
            Some(vec![stage("fence", vec![must(last_resorts::closed(situation, server))])])
        }
        FindingKind::Unprotected | FindingKind::AcknowledgedNearby => {
            Some(protect(situation, primary))
        }
        FindingKind::ReplicaAstray | FindingKind::ReplicaStopped => {
            let server = situation.spec.server(finding.server.as_ref()?)?;
            situation.status(&primary.name)?;
            let mut steps: Vec<_> =
                joining(situation, primary, server).map(must).into_iter().collect();
            if let Some(release) = unblock(situation, server) {
                // Closed first: whoever waits there must not be told that it is committed.
                steps.push(must(Step::ReadOnly { server: server.name.clone() }));
                steps.push(must(release));
            }
            steps.push(must(following(server, primary)));
            Some(vec![stage("follow", steps)])
        }
        FindingKind::NotAdopted
        | FindingKind::WatchersMissing
        | FindingKind::PrimaryDead
        | FindingKind::PrimaryIsolated
        | FindingKind::PrimaryReachableToFew
        | FindingKind::PrimaryUnreachable
        | FindingKind::PrimaryHung
        | FindingKind::PrimaryUnreachableInPart
        | FindingKind::PrimaryOverloaded
        | FindingKind::PrimaryUseless
        | FindingKind::PrimaryStorageFull
        | FindingKind::PrimaryStorageFailing
        | FindingKind::PrimaryStalled
        | FindingKind::PrimaryCannotReplicate
        | FindingKind::PrimaryFlapping
        | FindingKind::PrimaryCrowded
        | FindingKind::PrimaryLostTransactions
        | FindingKind::CommitsBlocked
        | FindingKind::Degraded
        | FindingKind::ReplicaDiverged
        | FindingKind::ReplicaIncomplete
        | FindingKind::ReplicaBroken
        | FindingKind::ReplicaUnreachable
        | FindingKind::ReplicaDisconnected
        | FindingKind::ReplicaLagging
        | FindingKind::ReplicaDelayed
        | FindingKind::NoCandidate
        | FindingKind::SettingEndangers => None,
    }
}

/// The stage that closes replicas which take writes, as one does when a promotion got stuck.
fn fence_others(situation: &Situation) -> Option<Stage> {
    let takes_writes = |server: &&ServerSpec| {
        situation.status(&server.name).is_some_and(|status| status.writable == Writable::Open)
    };
    let writers = situation.replicas().filter(takes_writes);
    let steps: Vec<_> =
        writers.map(|server| must(Step::ReadOnly { server: server.name.clone() })).collect();
    (!steps.is_empty()).then(|| stage("fence", steps))
}

/// The primary that was there goes on: also how a switchover is rolled back.
pub fn reopen(situation: &Situation, primary: &ServerSpec) -> Vec<Stage> {
    let answering = |server: &&ServerSpec| situation.status(&server.name).is_some();
    let replicas: Vec<_> = situation.whole_replicas().filter(answering).collect();
    let wanted = durability::wanted(&situation.joined_by(&replicas, primary), primary);
    let ackers = replicas.into_iter().filter(|server| wanted.ackers.contains(&server.name));
    let (ready, others): (Vec<_>, Vec<_>) =
        ackers.partition(|server| acknowledges_now(situation, primary, server));
    // One whose history forked cannot connect; it is told from others, and rebuilt, once the primary
    // takes writes.
    let others: Vec<_> =
        others.into_iter().filter(|server| apart(situation, primary, server).is_none()).collect();
    let mut stages: Vec<_> = prepare(situation, primary).into_iter().collect();
    if ready.is_empty() && !others.is_empty() {
        let mut steps = Vec::new();
        for server in others {
            steps.extend(acknowledging(situation, &wanted, server).map(may));
            steps.push(Planned { step: following(server, primary), need: Need::Counts });
        }
        // What a replica receives before it acknowledges, it never acknowledges; so one is there
        // before the first commit waits.
        let mut gather = stage("gather", steps);
        gather.at_least = 1;
        gather.attempts = 2;
        stages.push(gather);
    }
    let wait = Step::CommitsWait { server: primary.name.clone(), acks: wanted.acks };
    let open = Step::Writable { server: primary.name.clone(), acks: wanted.acks };
    stages.push(stage("reopen", vec![must(wait), must(open)]));
    stages
}

/// Whether a replica is connected to the primary and acknowledges what it receives.
fn acknowledges_now(situation: &Situation, primary: &ServerSpec, server: &ServerSpec) -> bool {
    let recorded = situation.state.protection.may_acknowledge.contains(&server.name);
    let connected = situation.status(&server.name).is_some_and(|status| {
        let receiver = status.channel().map(|channel| channel.receiver);
        status.semi_sync.replica && receiver == Some(Receiver::Connected)
    });
    recorded && connected && situation.follows(&server.name, primary)
}

/// A server that is to follow acknowledges before it connects, if it should at all: what it receives
/// before that, it never acknowledges, and commits would wait for it for ever.
fn joining(situation: &Situation, primary: &ServerSpec, server: &ServerSpec) -> Option<Step> {
    let wanted = durability::wanted(&situation.joined_by(&[server], primary), primary);
    acknowledging(situation, &wanted, server)
        .filter(|step| matches!(step, Step::Acknowledges { on: true, .. }))
}

fn protect(situation: &Situation, primary: &ServerSpec) -> Vec<Stage> {
    let wanted = durability::wanted(situation, primary);
    let wait = |acks| stage("wait", vec![must(waiting(primary, acks))]);
    if durability::unheard(situation, primary, &wanted) {
        return vec![let_go(primary), wait(wanted.acks)];
    }
    let mut stages: Vec<_> = prepare(situation, primary).into_iter().collect();
    let differing = situation.replicas().filter(|server| {
        wanted.ackers.contains(&server.name) || situation.follows(&server.name, primary)
    });
    // A replica that connected before its source could ask is not asked until it connects anew.
    let unasked = durability::unasked(situation, primary, &wanted)
        || situation.status(&primary.name).is_some_and(|status| !status.semi_sync.available);
    let again = |server: &ServerSpec| {
        let on = unasked && wanted.ackers.contains(&server.name);
        on.then(|| Step::Acknowledges { server: server.name.clone(), on })
    };
    let step = |server| acknowledging(situation, &wanted, server).or_else(|| again(server));
    let turned_on = |step: &Step| matches!(step, Step::Acknowledges { on: true, .. });
    let (on, off): (Vec<_>, Vec<_>) = differing.filter_map(step).partition(turned_on);
    let hold = hold(situation, primary, &on);
    if !on.is_empty() {
        // Commits must not begin to wait, nor be left waiting, before somebody can acknowledge.
        stages.push(one_of("acknowledge", on));
    }
    if let Some(hold) = hold {
        stages.extend([hold, let_go(primary), wait(wanted.acks)]);
        return stages;
    }
    if !off.is_empty() {
        let steps = off.into_iter().map(|step| Planned { step, need: Need::Helps });
        stages.push(stage("relieve", steps.collect()));
    }
    let waits = situation
        .status(&primary.name)
        .is_some_and(|status| status.semi_sync.source && status.semi_sync.acks == wanted.acks);
    let in_force = situation.state.protection.in_force;
    if (!waits || !in_force) && (wanted.acks == 0 || !wanted.ackers.is_empty()) {
        stages.push(wait(wanted.acks));
    }
    stages
}

/// Where commits wait, and replicas that are yet to be asked for acknowledgements hold all of them:
/// the stage that makes sure of that. What they received before they were asked, they never
/// acknowledge. One that is still to get there is not waited for, as nothing is proven while a plan
/// is open that lets commits go.
fn hold(situation: &Situation, primary: &ServerSpec, asked: &[Step]) -> Option<Stage> {
    let status = situation.status(&primary.name)?;
    if !durability::blocked(status) || !durability::tells_what_waits(status) {
        return None;
    }
    let holds = |one: &&ServerSpec| {
        let theirs = situation.status(&one.name);
        asked.iter().any(|step| step.server() == &one.name)
            && theirs.is_some_and(|theirs| theirs.executed.contains(&status.executed))
    };
    let held = |one| caught_up(one, &status.executed, PATIENCE);
    let steps: Vec<_> = situation.replicas().filter(holds).map(held).collect();
    (!steps.is_empty()).then(|| one_of("hold", steps))
}

/// The stage that lets commits end which replicas hold. What ends unanswered meanwhile is on record:
/// some survivor must hold that too.
fn let_go(primary: &ServerSpec) -> Stage {
    stage("let go", vec![must(waiting(primary, 0))])
}

fn waiting(primary: &ServerSpec, acks: u32) -> Step {
    Step::CommitsWait { server: primary.name.clone(), acks }
}

/// A stage that is complete once one of its steps is done and the others had their chance.
fn one_of(name: &str, steps: Vec<Step>) -> Stage {
    let counts = |step| Planned { step, need: Need::Counts };
    Stage { at_least: 1, ..stage(name, steps.into_iter().map(counts).collect()) }
}

/// A stage that makes semi-sync available, though off, where it is not yet: on the primary before
/// its replicas connect anew, since it counts only those that connected later; on the replicas so
/// that a promotion need not.
fn prepare(situation: &Situation, primary: &ServerSpec) -> Option<Stage> {
    let mut steps = Vec::new();
    let whole = |server: &&ServerSpec| !situation.is_rebuilding(&server.name);
    for server in situation.spec.servers.iter().filter(whole) {
        let status = situation.status(&server.name);
        if status.is_some_and(|status| !status.semi_sync.available) {
            let step = Step::CommitsWait { server: server.name.clone(), acks: 0 };
            steps.push(if server.name == primary.name { must(step) } else { may(step) });
        }
    }
    (!steps.is_empty()).then(|| stage("prepare", steps))
}

/// Whether a failover could succeed with what answers now; the reason when it could not.
pub fn hopeless(situation: &Situation, accept_loss: bool) -> Option<String> {
    let candidates = rank(situation, &Survey::from_reports(situation));
    if candidates.iter().all(|candidate| candidate.excluded.is_some()) {
        let why: Vec<_> = candidates.iter().map(tell).collect();
        return Some(format!("no candidate: {}", why.join("; ")));
    }
    let Durability::Lossless { .. } = situation.spec.durability else {
        return None;
    };
    if accept_loss {
        return None;
    }
    let protection = &situation.state.protection;
    let Some(need) = protection.survey_need() else {
        return Some(
            "commits were not confirmed to wait for acknowledgements, so acknowledged \
                     transactions may be lost; an operator can accept that: regent failover \
                     --accept-loss"
                .to_owned(),
        );
    };
    let lacking = situation.primary().and_then(|primary| {
        below_floor(situation, &primary.name, &Survey::from_reports(situation))
    });
    if lacking.is_some() {
        return lacking;
    }
    let whole =
        |name: &&ServerName| situation.status(name).is_some() && !situation.is_rebuilding(name);
    let answering = protection.may_acknowledge.iter().filter(whole).count();
    (answering < need).then(|| {
        let may: BTreeSet<_> = protection.may_acknowledge.iter().map(ToString::to_string).collect();
        let may: Vec<_> = may.into_iter().collect();
        format!(
            "{need} of [{}] must answer to prove that no acknowledged transaction is lost, and \
             {answering} do(es)",
            may.join(", ")
        )
    })
}

/// One candidate in a line.
pub fn tell(candidate: &Candidate) -> String {
    let reasons = candidate.excluded.iter().chain(&candidate.reasons);
    let reasons: Vec<_> = reasons.map(String::as_str).collect();
    let out = if candidate.excluded.is_some() { " (excluded)" } else { "" };
    format!("{}{out}: {}", candidate.server, reasons.join(", "))
}

pub(in crate::decision) fn caught_up(server: &ServerSpec, to: &Gtids, within: Duration) -> Step {
    Step::CaughtUp { server: server.name.clone(), to: to.clone(), within }
}

pub(super) fn following(server: &ServerSpec, source: &ServerSpec) -> Step {
    Step::Following {
        server: server.name.clone(),
        source: source.name.clone(),
        address: source.address.clone(),
    }
}

pub(in crate::decision) fn stage(name: &str, steps: Vec<Planned>) -> Stage {
    Stage {
        name: name.to_owned(),
        steps,
        at_least: 0,
        attempts: ATTEMPTS,
        guard: None,
        decides: false,
        no_return: false,
        closes_route: false,
    }
}

pub(in crate::decision) fn must(step: Step) -> Planned {
    Planned { step, need: Need::Must }
}

fn may(step: Step) -> Planned {
    Planned { step, need: Need::May }
}
