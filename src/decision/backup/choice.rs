//! Which server a backup reads from: a healthy replica that a failover would not promote first, and
//! the primary only where that is allowed and nobody else is fit. Every server gets its reasons.

use crate::decision::candidate;
use crate::decision::cluster::Writer;
use crate::decision::diagnosis::{Finding, FindingKind, diagnose};
use crate::decision::plan::Step;
use crate::decision::situation::Situation;
use crate::decision::topology::{DataCenter, ServerName, ServerSpec};
use std::collections::BTreeSet;
use std::time::Duration;

/// What a schedule wants of the server that its backups read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Servers and data centers that are taken before others, the first one first.
    pub from: Vec<Place>,
    /// Whether the primary is read from when no replica is fit.
    pub primary: bool,
    /// How far behind a replica may be, on purpose or not.
    pub max_lag: Duration,
    /// Those that can be read from at all: those with an agent, where files are copied; all when absent.
    pub only: Option<BTreeSet<ServerName>>,
}

/// How far behind a replica may be unless somebody says so.
pub const USUAL_LAG: Duration = Duration::from_secs(600);

impl Default for Wish {
    /// Any replica that is not ten minutes behind.
    fn default() -> Wish {
        Wish { from: Vec::new(), primary: false, max_lag: USUAL_LAG, only: None }
    }
}

/// A place that a backup rather reads from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// That server.
    Server(ServerName),
    /// Any server there.
    DataCenter(DataCenter),
}

impl Place {
    fn holds(&self, server: &ServerSpec) -> bool {
        match self {
            Place::Server(name) => *name == server.name,
            Place::DataCenter(data_center) => *data_center == server.data_center,
        }
    }
}

/// The server to read from, and what speaks for and against each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which; none when none is fit, or when no backup may begin now.
    pub server: Option<ServerName>,
    /// Why no backup may begin on any server.
    pub hindrance: Option<String>,
    /// All servers, the best one first, those that are not fit last.
    pub servers: Vec<Fitness>,
}

/// No server is fit to be read from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no server can be backed up now: {}", self.0.why_none())]
pub struct NoSource(pub Choice);

impl Choice {
    /// Why no server was chosen, in one sentence.
    pub fn why_none(&self) -> String {
        if let Some(hindrance) = &self.hindrance {
            return hindrance.clone();
        }
        let refused = self.servers.iter().filter_map(|fitness| {
            let why = fitness.refused.as_ref()?;
            Some(format!("{} {why}", fitness.server))
        });
        refused.collect::<Vec<_>>().join("; ")
    }
}

/// How fit one server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitness {
    /// Which.
    pub server: ServerName,
    /// Why it cannot be read from.
    pub refused: Option<String>,
    /// What speaks for or against one that can be, most important first.
    pub reasons: Vec<String>,
}

/// The order of servers: fields in order of importance, smaller is better.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    refused: bool,
    primary: bool,
    /// How often this run has failed on it.
    tried: usize,
    best_candidate: bool,
    preference: usize,
    /// Commits wait for it, and it is about to be busy.
    acknowledges: bool,
    declared: usize,
}

/// Chooses a server; `tried` are those on which this run has failed so far, once per attempt.
pub fn choose(situation: &Situation, wish: &Wish, tried: &[ServerName]) -> Choice {
    let findings = diagnose(situation);
    let best = candidate::expected(situation);
    let mut judged: Vec<_> = situation
        .spec
        .servers
        .iter()
        .enumerate()
        .map(|(declared, server)| {
            let refused = refusal(situation, wish, &findings, server);
            let score = Score {
                refused: refused.is_some(),
                primary: is_primary(situation, server),
                tried: tried.iter().filter(|tried| **tried == server.name).count(),
                best_candidate: best.as_ref() == Some(&server.name),
                preference: preference(wish, server),
                acknowledges: acknowledges(situation, server),
                declared,
            };
            let reasons = if score.refused { Vec::new() } else { reasons(wish, server, &score) };
            (score, Fitness { server: server.name.clone(), refused, reasons })
        })
        .collect();
    judged.sort_by(|a, b| a.0.cmp(&b.0));
    let servers: Vec<_> = judged.into_iter().map(|(_, fitness)| fitness).collect();
    let hindrance = hindrance(situation);
    let first = servers.first().filter(|first| first.refused.is_none() && hindrance.is_none());
    Choice { server: first.map(|first| first.server.clone()), hindrance, servers }
}

/// Why an attempt that reads from that server has to end at once; `None` while it may go on. A backup
/// yields to what makes its server the primary or takes its data away.
pub fn must_yield(situation: &Situation, wish: &Wish, server: &ServerName) -> Option<String> {
    let Some(spec) = situation.spec.server(server) else {
        return Some("is declared no longer".to_owned());
    };
    if let Some(open) = &situation.state.procedure {
        if open.to.as_ref() == Some(server) {
            return Some(format!("{} {} promotes it", open.kind, open.id));
        }
        let replaces =
            |step: &Step| matches!(step, Step::Rebuilt { server: it, .. } if it == server);
        if open.plan.iter().flat_map(|stage| &stage.steps).any(|planned| replaces(&planned.step)) {
            return Some(format!("{} {} replaces its data", open.kind, open.id));
        }
    }
    if is_primary(situation, spec) && !wish.primary {
        return Some("is the primary now, which this schedule does not allow".to_owned());
    }
    None
}

/// Why no backup may begin now: it yields to whatever keeps the cluster writable.
fn hindrance(situation: &Situation) -> Option<String> {
    if let Some(open) = &situation.state.procedure
        && open.kind.closes_route()
    {
        return Some(format!("{} {} is open", open.kind, open.id));
    }
    match &situation.state.writer {
        Writer::Unassigned => Some("the cluster is not adopted yet".to_owned()),
        Writer::Closed { .. } => Some("there is no primary right now".to_owned()),
        Writer::Open { primary } if situation.status(primary).is_none() => {
            Some(format!("the primary {primary} does not answer, so a failover may be near"))
        }
        Writer::Open { .. } => None,
    }
}

fn refusal(
    situation: &Situation,
    wish: &Wish,
    findings: &[Finding],
    server: &ServerSpec,
) -> Option<String> {
    if wish.only.as_ref().is_some_and(|only| !only.contains(&server.name)) {
        return Some("has no agent, which a physical backup needs".to_owned());
    }
    let primary = is_primary(situation, server);
    if primary && !wish.primary {
        return Some("is the primary, which this schedule does not allow".to_owned());
    }
    if let Some(notice) = situation.maintained(&server.name) {
        return Some(format!("is in {notice}"));
    }
    if situation.is_rebuilding(&server.name) {
        return Some("its data is being replaced".to_owned());
    }
    if let Some(why) = worked_on(situation, server) {
        return Some(why);
    }
    if let Some(why) = unfit(findings, server) {
        return Some(why);
    }
    let Some(status) = situation.status(&server.name) else {
        return Some("does not answer".to_owned());
    };
    if status.crowded {
        return Some("all its connections are taken".to_owned());
    }
    if primary {
        return None;
    }
    let Some(channel) = status.channel() else {
        return Some("follows nobody".to_owned());
    };
    if channel.delay > wish.max_lag {
        return Some(format!(
            "is delayed by {} s on purpose, more than {} s",
            channel.delay.as_secs(),
            wish.max_lag.as_secs()
        ));
    }
    match channel.lag {
        None => Some("does not tell how far it is behind".to_owned()),
        Some(lag) if lag > wish.max_lag => {
            Some(format!("is {} s behind, more than {} s", lag.as_secs(), wish.max_lag.as_secs()))
        }
        Some(_) => None,
    }
}

/// What an open procedure does to a server.
fn worked_on(situation: &Situation, server: &ServerSpec) -> Option<String> {
    let open = situation.state.procedure.as_ref()?;
    let mut steps = open.plan.iter().flat_map(|stage| &stage.steps);
    let touches = |step: &Step| {
        let donor = matches!(step, Step::Rebuilt { donor, .. } if *donor == server.name);
        donor || *step.server() == server.name
    };
    let touched = steps.any(|planned| touches(&planned.step));
    touched.then(|| format!("{} {} works on it", open.kind, open.id))
}

/// The finding that makes a server's data doubtful or old without an end.
fn unfit(findings: &[Finding], server: &ServerSpec) -> Option<String> {
    const UNFIT: [FindingKind; 8] = [
        FindingKind::SecondWriter,
        FindingKind::ReplicaDiverged,
        FindingKind::ReplicaIncomplete,
        FindingKind::ReplicaBroken,
        FindingKind::ReplicaAstray,
        FindingKind::ReplicaStopped,
        FindingKind::ReplicaDisconnected,
        FindingKind::ReplicaUnreachable,
    ];
    let of_it = |finding: &&Finding| finding.server.as_ref() == Some(&server.name);
    let mut doubtful = findings.iter().filter(of_it).filter(|it| UNFIT.contains(&it.kind));
    let text = &doubtful.next()?.text;
    let name = format!("{} ", server.name);
    Some(text.strip_prefix(&name).unwrap_or(text).to_owned())
}

fn is_primary(situation: &Situation, server: &ServerSpec) -> bool {
    situation.primary().is_some_and(|primary| primary.name == server.name)
}

/// Whether commits of the primary may wait for that server.
fn acknowledges(situation: &Situation, server: &ServerSpec) -> bool {
    let protection = &situation.state.protection;
    protection.in_force && protection.may_acknowledge.contains(&server.name)
}

/// Its place among those that are preferred, or the one behind them all.
fn preference(wish: &Wish, server: &ServerSpec) -> usize {
    wish.from.iter().position(|place| place.holds(server)).unwrap_or(wish.from.len())
}

fn reasons(wish: &Wish, server: &ServerSpec, score: &Score) -> Vec<String> {
    let mut reasons = Vec::new();
    if score.primary {
        reasons.push("the primary, which is read from only when no replica is fit".to_owned());
    }
    if score.tried > 0 {
        reasons.push(format!("{} attempt(s) of this run failed on it", score.tried));
    }
    if score.best_candidate {
        reasons.push("the replica that a failover would promote first".to_owned());
    } else if !score.primary {
        reasons.push("a failover would not promote it first".to_owned());
    }
    match wish.from.get(score.preference) {
        Some(Place::Server(_)) => reasons.push("named by the schedule".to_owned()),
        Some(Place::DataCenter(_)) => {
            reasons.push(format!("in {}, as the schedule prefers", server.data_center));
        }
        None => {}
    }
    if score.acknowledges {
        reasons.push("commits may wait for it".to_owned());
    }
    reasons
}
