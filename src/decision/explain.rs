//! Explaining: what would happen in a situation and why, with the very code that decides.

use super::adoption::{self, Verdict};
use super::candidate::{Candidate, Survey, rank};
use super::cluster::Writer;
use super::diagnosis::{Finding, diagnose};
use super::durability;
use super::plan::{Facts, Outcome};
use super::planning::{self, Decision};
use super::procedure::{Entry, Kind, Need, Procedure, Stage, StepState, What};
use super::rejoin;
use super::response::{Act, Past, Response, answer, respond};
use super::situation::Situation;
use super::topology::{AcknowledgedIn, Durability};
use super::view::{ExplanationView, ProcedureView, StageView, StepView};
use crate::clock::WallTime;
use std::time::Duration;

/// What would happen now. `lasting` says for how long a finding has been there.
pub fn explain(
    situation: &Situation,
    lasting: &dyn Fn(&Finding) -> Duration,
    past: &[Past],
) -> ExplanationView {
    let findings = diagnose(situation);
    let response = respond(situation, &findings, lasting, past);
    let mut view = outlined(situation, &findings);
    view.rule.clone_from(&response.rule);
    view.reasons.clone_from(&response.reasons);
    if !matches!(response.act, Act::Open(_)) {
        view.reasons.extend(waiting_too(situation, &findings, &response, lasting, past));
    }
    view.response = word(&response);
    if let Act::Open(procedure) = &response.act {
        view.plan = foreseen(situation, procedure, &mut view.loss);
    }
    if situation.state.writer == Writer::Unassigned
        && let Verdict::Primary { why, .. } = adoption::verdict(situation)
    {
        view.response = "adopt".to_owned();
        view.reasons = vec![why];
    }
    view
}

/// What the rules ask for beside the response, and what that waits for.
fn waiting_too(
    situation: &Situation,
    findings: &[Finding],
    response: &Response,
    lasting: &dyn Fn(&Finding) -> Duration,
    past: &[Past],
) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in findings.iter().filter(|finding| Some(finding.kind) != response.finding) {
        let answer = answer(situation, finding, lasting(finding), past);
        let Some(Response { act: Act::Wait(wanted), reasons, .. }) = answer else { continue };
        let why = reasons.last().map_or("", String::as_str);
        lines.push(format!("{} waits with {wanted}: {why}", finding.kind));
    }
    lines
}

/// What a procedure asked for by an operator would do.
pub fn explain_procedure(situation: &Situation, procedure: &Procedure) -> ExplanationView {
    let mut view = outline(situation);
    view.response = procedure.kind.to_string();
    view.reasons.push(procedure.cause.clone());
    view.plan = foreseen(situation, procedure, &mut view.loss);
    view
}

/// A procedure with its progress, for people.
pub fn procedure_view(procedure: &Procedure) -> ProcedureView {
    let (state, text) = match &procedure.ending {
        None => ("running", String::new()),
        Some(super::procedure::Ending::Done { text }) => ("done", text.clone()),
        Some(super::procedure::Ending::Abandoned { text }) => ("abandoned", text.clone()),
        Some(super::procedure::Ending::Yielded { text }) => ("yielded", text.clone()),
        Some(super::procedure::Ending::Stuck { text }) => ("stuck", text.clone()),
    };
    ProcedureView {
        id: procedure.id,
        kind: procedure.kind.to_string(),
        cause: procedure.cause.clone(),
        epoch: procedure.epoch,
        from: Some(procedure.from.clone()),
        to: procedure.to.clone(),
        opened: procedure.opened,
        closed: procedure.closed,
        state: state.to_owned(),
        text,
        loss: procedure.loss.clone(),
        stages: (0..procedure.plan.len()).map(|stage| stage_view(procedure, stage)).collect(),
    }
}

/// Findings, candidates and the price of durability, nothing being decided yet.
pub(super) fn outline(situation: &Situation) -> ExplanationView {
    outlined(situation, &diagnose(situation))
}

fn outlined(situation: &Situation, findings: &[Finding]) -> ExplanationView {
    let ranked = rank(situation, &Survey::from_reports(situation));
    ExplanationView {
        cluster: situation.spec.name.clone(),
        findings: findings.iter().map(Finding::view).collect(),
        response: String::new(),
        rule: None,
        reasons: Vec::new(),
        candidates: ranked.iter().map(Candidate::view).collect(),
        plan: Vec::new(),
        loss: String::new(),
        durability: price(situation),
        maintenance: situation.state.maintenance.views(),
        backups: Vec::new(),
    }
}

fn word(response: &Response) -> String {
    match &response.act {
        Act::Nothing => "nothing".to_owned(),
        Act::Alert => "alert".to_owned(),
        Act::Wait(wanted) => format!("wait, then {wanted}"),
        Act::Open(procedure) => match procedure.kind {
            Kind::Failover => "fail_over".to_owned(),
            Kind::Switchover => "switch_over".to_owned(),
            Kind::Repair => "repair".to_owned(),
            Kind::Rejoin => "rejoin".to_owned(),
        },
    }
}

/// The plan with its second part as it would be, did every step find what was last reported.
fn foreseen(situation: &Situation, procedure: &Procedure, loss: &mut String) -> Vec<StageView> {
    let mut played = procedure.clone();
    let survey = Survey::from_reports(situation);
    for (place, stage) in procedure.plan.iter().enumerate().filter(|(_, stage)| stage.decides) {
        for (step, planned) in stage.steps.iter().enumerate() {
            let server = planned.step.server();
            let status = situation.status(server);
            if status.is_none() && planned.need == Need::May {
                continue;
            }
            let executed = survey.executed.get(server).cloned();
            let executed = executed.or_else(|| status.map(|status| status.executed.clone()));
            let received = survey.received.get(server).cloned().or_else(|| executed.clone());
            let facts = rejoin::foreseen(situation, &planned.step);
            let outcome = Outcome::Done(Facts { executed, received, ..facts });
            let what = What::Finished(outcome);
            played.journal.push(Entry { stage: place, step, attempt: 1, at: WallTime(0), what });
        }
    }
    // As it will be judged: with this procedure open.
    let mut opened = situation.clone();
    opened.state.procedure = Some(played.clone());
    let situation = &opened;
    let mut stages: Vec<Stage> = procedure.plan.clone();
    if procedure.plan.last().is_some_and(|stage| stage.decides) {
        match planning::decide(situation, &played) {
            Decision::Promote { stages: more, loss: stated, .. } => {
                stages.extend(more);
                *loss = stated;
            }
            Decision::GoOn { stages: more, .. } => stages.extend(more),
            Decision::Enough { .. } => {}
            Decision::GiveUp { why } => *loss = why,
        }
    }
    let planned = Procedure { plan: stages, journal: Vec::new(), ..procedure.clone() };
    (0..planned.plan.len()).map(|stage| stage_view(&planned, stage)).collect()
}

fn stage_view(procedure: &Procedure, stage: usize) -> StageView {
    let planned = &procedure.plan[stage];
    let steps: Vec<_> =
        (0..planned.steps.len()).map(|step| step_view(procedure, stage, step)).collect();
    let any = |state: &str| steps.iter().any(|step| step.state == state);
    let needed = |(step, view): (usize, &StepView)| {
        planned.steps[step].need == Need::Must && view.state == "failed"
    };
    let state = if steps.iter().enumerate().any(needed) {
        "failed"
    } else if any("running") {
        "running"
    } else if steps.iter().all(|step| step.state == "waiting") {
        "waiting"
    } else {
        "done"
    };
    StageView { name: planned.name.clone(), state: state.to_owned(), steps }
}

fn step_view(procedure: &Procedure, stage: usize, step: usize) -> StepView {
    let of_step = |entry: &&Entry| (entry.stage, entry.step) == (stage, step);
    let entries: Vec<_> = procedure.journal.iter().filter(of_step).collect();
    let answer = entries.iter().rev().find_map(|entry| match &entry.what {
        What::Finished(Outcome::Failed(text) | Outcome::Retry(text)) => Some(text.clone()),
        What::Finished(Outcome::Done(_)) | What::Began { .. } => None,
    });
    let (state, done) = match procedure.step_state(stage, step) {
        StepState::Waiting if procedure.ending.is_some() => ("skipped", false),
        StepState::Waiting => ("waiting", false),
        StepState::Running { .. } | StepState::Retry { .. } if procedure.ending.is_some() => {
            ("skipped", false)
        }
        StepState::Running { .. } | StepState::Retry { .. } => ("running", false),
        StepState::Done => ("done", true),
        StepState::Failed => ("failed", false),
    };
    let took = match (entries.first(), entries.last()) {
        (Some(first), Some(last)) if done => Some(last.at.0.saturating_sub(first.at.0)),
        _ => None,
    };
    StepView {
        text: procedure.plan[stage].steps[step].step.to_string(),
        state: state.to_owned(),
        attempts: entries.iter().map(|entry| entry.attempt).max().unwrap_or(0),
        progress: None,
        answer: if done { String::new() } else { answer.unwrap_or_default() },
        took_ms: took,
    }
}

/// What the durability in force costs, in a sentence.
fn price(situation: &Situation) -> String {
    let Durability::Lossless { acknowledged_in } = situation.spec.durability else {
        return "best effort: commits do not wait for replicas; what a failover would lose is what \
                the replicas are behind"
            .to_owned();
    };
    let Writer::Open { primary } = &situation.state.writer else {
        return "lossless: nothing is acknowledged while there is no primary".to_owned();
    };
    let wanted =
        situation.spec.server(primary).map(|primary| durability::wanted(situation, primary));
    let who: Vec<_> = wanted.unwrap_or_default().ackers.iter().map(ToString::to_string).collect();
    let place = match acknowledged_in {
        AcknowledgedIn::OtherDataCenter => " in another data center",
        AcknowledgedIn::Any => "",
    };
    format!(
        "lossless: each commit waits one round trip for a replica{place} ({})",
        who.join(" or ")
    )
}
