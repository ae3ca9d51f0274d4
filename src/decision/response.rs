//! From findings to a response: the first finding whose rule asks for an act decides.

use super::cluster::Unknown;
use super::diagnosis::{Finding, FindingKind};
use super::procedure::{Kind, Procedure, Stage};
use super::rejoin;
use super::rules::{DurabilityKind, Respond, Rule};
use super::situation::Situation;
use super::topology::{Durability, Epoch, ServerName};
use super::{maintenance, planning};
use crate::clock::WallTime;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// What should be done about a cluster now.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// What.
    pub act: Act,
    /// The finding that decided.
    pub finding: Option<FindingKind>,
    /// The rule that decided, as a sentence.
    pub rule: Option<String>,
    /// Why, why not, or what it waits for.
    pub reasons: Vec<String>,
    /// Whether it waits for people, or for something that time alone does not bring: a spent budget,
    /// maintenance, or a proof that nobody can give now.
    pub held: bool,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Nothing.
    Nothing,
    /// Tell people, no more.
    Alert,
    /// Nothing yet: the reasons say what it waits for.
    Wait(Respond),
    /// Open this procedure.
    Open(Box<Procedure>),
}

/// What was done before about the same kind of finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// The finding's kind, as procedures record it.
    pub finding: String,
    /// How long ago that procedure ended.
    pub ago: Duration,
}

/// A procedure that a finding caused and that has ended, as it is replicated: a new leader goes on
/// with the cooldowns and budgets of its predecessor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The finding's kind.
    pub finding: String,
    /// When it ended.
    pub at: WallTime,
}

/// What happened longer ago counts against no budget.
const BUDGET_SPAN: Duration = Duration::from_secs(3600);

/// More than any sensible budget.
const ANSWERED_KEPT: usize = 200;

impl Answered {
    /// Adds to a list, from which goes what no budget counts any more.
    pub fn remember(list: &mut VecDeque<Answered>, finding: &str, at: WallTime) {
        list.push_back(Answered { finding: finding.to_owned(), at });
        list.retain(|past| Duration::from_millis(at.0.saturating_sub(past.at.0)) < BUDGET_SPAN);
        let surplus = list.len().saturating_sub(ANSWERED_KEPT);
        list.drain(..surplus);
    }
}

/// Decides what to do. `lasting` says for how long a finding has been there.
pub fn respond(
    situation: &Situation,
    findings: &[Finding],
    lasting: &dyn Fn(&Finding) -> Duration,
    past: &[Past],
) -> Response {
    let answers =
        findings.iter().filter_map(|finding| answer(situation, finding, lasting(finding), past));
    maintenance::withhold(situation, choose(situation, answers, findings))
}

/// What the rules say to one finding; `None` when nothing more than showing it, as with all that
/// comes from a server in maintenance.
pub fn answer(
    situation: &Situation,
    finding: &Finding,
    lasting: Duration,
    past: &[Past],
) -> Option<Response> {
    if finding.server.as_ref().is_some_and(|server| situation.maintained(server).is_some()) {
        return None;
    }
    let durability = durability_kind(situation.spec.durability);
    let (number, rule) = situation.spec.rules.decide(finding.kind, durability)?;
    let response = match rule.respond {
        Respond::Nothing => return None,
        Respond::Alert => Response::plain(Act::Alert, finding.text.clone()),
        Respond::FailOver | Respond::Repair | Respond::Degrade | Respond::Rejoin => {
            one(situation, finding, rule, lasting, past)
        }
    };
    let said = format!("rule {number} of {}: {}", situation.spec.rules.name, rule.respond);
    Some(Response { finding: Some(finding.kind), rule: Some(said), ..response })
}

/// The first answer that acts. While one waits to replace the primary, only another that replaces it
/// may act: a disk that hangs gets its time, but not the time of whoever is cut off as well.
fn choose(
    situation: &Situation,
    answers: impl Iterator<Item = Response>,
    findings: &[Finding],
) -> Response {
    let mut waiting = None;
    let mut alert = None;
    let mut replacing = false;
    for response in answers {
        match &response.act {
            Act::Open(procedure) if !replacing || procedure.kind == Kind::Failover => {
                return response;
            }
            // A lost primary is not to be busied with repairs while its failover waits; one that
            // lives is, once it is clear that nobody can take over.
            Act::Wait(Respond::FailOver) if !stays(situation, response.finding) => {
                replacing = true;
                waiting = waiting.or(Some(response));
            }
            Act::Open(_) => {}
            Act::Wait(_) if replacing => {}
            Act::Wait(_) => waiting = waiting.or(Some(response)),
            Act::Alert => alert = alert.or(Some(response)),
            Act::Nothing => {}
        }
    }
    waiting.or(alert).unwrap_or_else(|| {
        let why = if findings.is_empty() {
            "nothing is wrong"
        } else {
            "no rule asks for more than showing it"
        };
        Response::plain(Act::Nothing, why.to_owned())
    })
}

/// Whether a primary that lives cannot be replaced, so that it stays and may be busied.
fn stays(situation: &Situation, finding: Option<FindingKind>) -> bool {
    let durability = durability_kind(situation.spec.durability);
    let rule = finding
        .filter(|kind| !kind.is_loss())
        .and_then(|kind| situation.spec.rules.decide(kind, durability));
    rule.is_some_and(|(_, rule)| planning::hopeless(situation, rule.accept_loss).is_some())
}

impl Response {
    fn plain(act: Act, reason: String) -> Response {
        Response { act, finding: None, rule: None, reasons: vec![reason], held: false }
    }
}

/// The durability as rules name it.
pub fn durability_kind(durability: Durability) -> DurabilityKind {
    match durability {
        Durability::Lossless { .. } => DurabilityKind::Lossless,
        Durability::BestEffort { .. } => DurabilityKind::BestEffort,
    }
}

fn one(
    situation: &Situation,
    finding: &Finding,
    rule: &Rule,
    lasted: Duration,
    past: &[Past],
) -> Response {
    let wait = |reason: String| Response {
        act: Act::Wait(rule.respond),
        finding: None,
        rule: None,
        reasons: vec![finding.text.clone(), reason],
        held: false,
    };
    let hold = |reason: String| Response { held: true, ..wait(reason) };
    if lasted < rule.confirm {
        let (lasted, confirm) = (lasted.as_millis(), rule.confirm.as_millis());
        return wait(format!("it has lasted {lasted} ms and must last {confirm} ms"));
    }
    let kind = finding.kind.to_string();
    let same: Vec<_> = past.iter().filter(|past| past.finding == kind).collect();
    if let Some(recent) = same.iter().map(|past| past.ago).min().filter(|ago| *ago < rule.cooldown)
    {
        let (ago, cooldown) = (recent.as_millis(), rule.cooldown.as_millis());
        return wait(format!(
            "the last procedure for it ended {ago} ms ago; the cooldown is {cooldown} ms"
        ));
    }
    let spent = same.iter().filter(|past| past.ago < BUDGET_SPAN).count();
    if let Some(limit) = rule.per_hour.filter(|limit| spent >= *limit as usize) {
        let by_hand = by_hand(situation, finding, rule.respond);
        return hold(format!(
            "{spent} procedures for it within an hour, and the rule allows {limit}; to go on \
             regardless: {by_hand}"
        ));
    }
    let mut rejoining = None;
    let (kind, plan) = match rule.respond {
        Respond::FailOver => {
            let objection = planning::hopeless(situation, rule.accept_loss);
            if let Some(why) = objection.or_else(|| planning::pointless(situation, finding)) {
                return hold(why);
            }
            let Some(from) = situation.primary() else {
                return wait("no primary".to_owned());
            };
            (Kind::Failover, planning::isolate(situation, &from.name, rule.accept_loss))
        }
        Respond::Repair => match planning::repair(situation, finding) {
            Some(plan) if !plan.is_empty() => (Kind::Repair, plan),
            Some(_) | None => return wait("it cannot be mended now".to_owned()),
        },
        Respond::Degrade => (Kind::Repair, planning::degrade(&situation.state.writer)),
        Respond::Rejoin => match rejoin::by_rule(situation, finding, rule) {
            Ok((rejoin, plan)) => {
                rejoining = Some(rejoin);
                (Kind::Rejoin, plan)
            }
            Err(why) => return hold(why),
        },
        Respond::Alert | Respond::Nothing => return wait("no act".to_owned()),
    };
    let Some(from) = situation.primary().map(|server| server.name.clone()) else {
        return wait("no primary".to_owned());
    };
    let mut procedure = procedure(kind, finding.text.clone(), from, plan);
    procedure.finding = finding.kind.to_string();
    procedure.accept_loss = rule.accept_loss;
    procedure.rejoin = rejoining;
    Response {
        act: Act::Open(Box::new(procedure)),
        finding: None,
        rule: None,
        reasons: vec![finding.text.clone()],
        held: false,
    }
}

/// What an operator may say to have it done although its budget is spent.
fn by_hand(situation: &Situation, finding: &Finding, respond: Respond) -> String {
    let cluster = &situation.spec.name;
    let server = finding.server.as_ref().map_or("", ServerName::as_str);
    match respond {
        Respond::FailOver => format!("regent failover {cluster}"),
        Respond::Rejoin => format!("regent rejoin {cluster} {server}"),
        Respond::Repair | Respond::Degrade | Respond::Alert | Respond::Nothing => {
            format!("regent repair {cluster}")
        }
    }
}

/// A procedure to be opened; number, epoch and time are assigned when it is.
pub fn procedure(kind: Kind, cause: String, from: ServerName, plan: Vec<Stage>) -> Procedure {
    Procedure {
        id: 0,
        kind,
        cause,
        finding: String::new(),
        epoch: Epoch::default(),
        from,
        to: None,
        accept_loss: false,
        loss: String::new(),
        rejoin: None,
        opened: WallTime::default(),
        plan,
        journal: Vec::new(),
        ending: None,
        closed: None,
        unknown: Unknown::new(),
    }
}
