//! Answers to people's requests, from what this watcher knows.

use super::duty::Duty;
use super::leading::Leading;
use super::machine::Watcher;
use super::maintaining;
use super::{archiving, proofs};
use crate::clock::{Moment, Now};
use crate::decision::adoption;
use crate::decision::cluster::{ClusterState, Command, Writer};
use crate::decision::diagnosis::{Finding, FindingKind, diagnose};
use crate::decision::explain::{explain, explain_procedure};
use crate::decision::procedure::{Kind, Procedure, Rejoin};
use crate::decision::rejoin;
use crate::decision::report::{Status, Writable};
use crate::decision::response::{self, Act};
use crate::decision::situation::Situation;
use crate::decision::topology::{
    ClusterName, DataCenter, Durability, ServerName, ServerSpec, WatcherName,
};
use crate::decision::view::{
    ClusterView, EventView, ProxyView, Refusal, RefusalCode, Request, Response, ServerView,
    StatusView, WatcherView,
};
use crate::decision::{objection, planning};
use std::time::Duration;

/// Events in one answer.
const EVENTS_LIMIT: usize = 1_000;

/// A watcher that was heard of within this time is reachable.
pub(super) const REACHABLE: Duration = Duration::from_secs(3);

/// The answer, or none when it follows once a proposal is applied.
pub(super) fn answer(
    watcher: &mut Watcher,
    now: Now,
    id: u64,
    request: Request,
) -> Option<Response> {
    // Events are replicated, so anybody can tell them.
    if let Request::Events { after, limit, cluster } = &request {
        return Some(Response::Events(events(watcher, *after, *limit, cluster.as_ref())));
    }
    let Some(leading) = watcher.leading.take() else {
        return Some(Response::Refused(not_leading(watcher, now.moment)));
    };
    let answered = as_leader(watcher, now, &leading, request);
    watcher.leading = Some(leading);
    match answered {
        Ok(Answer::Now(response)) => Some(*response),
        Ok(Answer::Propose(commands)) => {
            watcher.propose_for(now, id, commands).err().map(Response::Refused)
        }
        Err(refusal) => Some(Response::Refused(refusal)),
    }
}

enum Answer {
    Now(Box<Response>),
    Propose(Vec<Command>),
}

fn as_leader(
    watcher: &Watcher,
    now: Now,
    leading: &Leading,
    request: Request,
) -> Result<Answer, Refusal> {
    let response = match request {
        Request::Status { cluster } => {
            Response::Status(status(watcher, now, leading, cluster.as_ref())?)
        }
        Request::Explain { cluster, without } => {
            let mut situation = known(watcher, now.moment, leading, &cluster)?;
            if let Some(server) = &without {
                declared(&situation, server)?;
                situation = situation.without(server);
            }
            let duty = leading.duties.get(&cluster);
            let lasting = |finding: &Finding| match (&without, duty) {
                (None, Some(duty)) => duty.lasting(now.moment, finding),
                _ => Duration::from_secs(3600),
            };
            let past = duty.filter(|_| without.is_none()).map(|duty| duty.past(now.moment));
            let mut view = explain(&situation, &lasting, &past.unwrap_or_default());
            view.backups = watcher.explained_backups(now, leading, &situation);
            if let Some(open) = &situation.state.procedure {
                view.reasons.insert(0, format!("{} {} is open already", open.kind, open.id));
            }
            Response::Explanation(Box::new(view))
        }
        Request::Events { .. } => Response::Events(Vec::new()),
        Request::Procedure { cluster, id } => {
            let state = watcher.state.clusters.get(&cluster);
            let found = state.and_then(|state| match id {
                Some(id) => state.find_procedure(id),
                None => state.procedure.as_ref().or(state.ended.back()),
            });
            let missing = || refuse(RefusalCode::Unknown, "there is no such procedure".to_owned());
            Response::Procedure(leading.shown(&cluster, found.ok_or_else(missing)?))
        }
        Request::Adopt { cluster, primary } => {
            return adopt(&known(watcher, now.moment, leading, &cluster)?, primary);
        }
        Request::Switchover { cluster, to, dry_run } => {
            let situation = known(watcher, now.moment, leading, &cluster)?;
            let procedure = switchover(&situation, to)?;
            return Ok(begin(&situation, procedure, dry_run));
        }
        Request::Failover { cluster, to, accept_loss, dry_run } => {
            let situation = known(watcher, now.moment, leading, &cluster)?;
            let procedure = failover(&situation, to, accept_loss)?;
            return Ok(begin(&situation, procedure, dry_run));
        }
        Request::Repair { cluster, dry_run } => {
            let situation = known(watcher, now.moment, leading, &cluster)?;
            let procedure = repair(&situation)?;
            return Ok(begin(&situation, procedure, dry_run));
        }
        Request::Maintain { ref cluster, .. } | Request::EndMaintenance { ref cluster, .. } => {
            let situation = known(watcher, now.moment, leading, cluster)?;
            return maintaining::changes(&situation, now.wall, request).map(Answer::Propose);
        }
        Request::Rejoin { cluster, server, rebuild, donor, accept_loss, dry_run } => {
            let situation = known(watcher, now.moment, leading, &cluster)?;
            let asked = Rejoin { server, rebuild, anew: rebuild, donor };
            let procedure = rejoin(&situation, asked, accept_loss)?;
            return Ok(begin(&situation, procedure, dry_run));
        }
    };
    Ok(Answer::Now(Box::new(response)))
}

fn begin(situation: &Situation, procedure: Procedure, dry_run: bool) -> Answer {
    if dry_run {
        let explanation = Box::new(explain_procedure(situation, &procedure));
        return Answer::Now(Box::new(Response::Explanation(explanation)));
    }
    let (cluster, seen) = (situation.spec.name.clone(), situation.state.epoch);
    let cause = procedure.cause.clone();
    let mut commands: Vec<_> = situation.make_way(&cause).into_iter().collect();
    commands.push(Command::Open { cluster, seen, procedure: Box::new(procedure) });
    Answer::Propose(commands)
}

fn adopt(situation: &Situation, primary: ServerName) -> Result<Answer, Refusal> {
    declared(situation, &primary)?;
    if let Writer::Open { primary } | Writer::Closed { former: primary } = &situation.state.writer {
        let text = format!("it is adopted already, with primary {primary}");
        return Err(refuse(RefusalCode::Forbidden, text));
    }
    if let Some(why) = adoption::objection(situation, &primary) {
        return Err(refuse(RefusalCode::Forbidden, why));
    }
    let why = "an operator said so".to_owned();
    let cluster = situation.spec.name.clone();
    Ok(Answer::Propose(vec![Command::Adopt { cluster, primary, why }]))
}

fn switchover(situation: &Situation, to: Option<ServerName>) -> Result<Procedure, Refusal> {
    nothing_open(situation)?;
    if let Some(why) = objection::switchover_objection(situation, to.as_ref()) {
        return Err(refuse(RefusalCode::Forbidden, why));
    }
    let from = primary_of(situation)?;
    let cause = match &to {
        Some(to) => format!("an operator moves the primary from {from} to {to}"),
        None => format!("an operator moves the primary away from {from}"),
    };
    let plan = planning::pause(&from);
    let mut procedure = response::procedure(Kind::Switchover, cause, from, plan);
    procedure.to = to;
    Ok(procedure)
}

fn failover(
    situation: &Situation,
    to: Option<ServerName>,
    accept_loss: bool,
) -> Result<Procedure, Refusal> {
    nothing_open(situation)?;
    let from = primary_of(situation)?;
    if let Some(to) = &to {
        declared(situation, to)?;
        if to == &from {
            let text = format!("{to} is the primary already; name another server");
            return Err(refuse(RefusalCode::Forbidden, text));
        }
    }
    if let Some(why) = planning::hopeless(situation, accept_loss) {
        return Err(refuse(RefusalCode::Forbidden, why));
    }
    let cause = format!("an operator replaces {from}");
    let plan = planning::isolate(situation, &from, accept_loss);
    let mut procedure = response::procedure(Kind::Failover, cause, from, plan);
    procedure.to = to;
    procedure.accept_loss = accept_loss;
    Ok(procedure)
}

/// Mends the first finding that can be mended, however often that was done lately.
fn repair(situation: &Situation) -> Result<Procedure, Refusal> {
    nothing_open(situation)?;
    let from = primary_of(situation)?;
    let mends = |finding: &Finding| {
        let kept = finding.server.as_ref().is_none_or(|it| situation.maintained(it).is_none());
        let plan = planning::repair(situation, finding).filter(|_| kept);
        Some((finding.text.clone(), plan.filter(|plan| !plan.is_empty())?))
    };
    let Some((text, plan)) = diagnose(situation).iter().find_map(mends) else {
        let text = "nothing can be mended now".to_owned();
        return Err(refuse(RefusalCode::Forbidden, text));
    };
    let cause = format!("an operator has it mended: {text}");
    Ok(response::procedure(Kind::Repair, cause, from, plan))
}

fn rejoin(situation: &Situation, asked: Rejoin, waived: bool) -> Result<Procedure, Refusal> {
    if let Some(open) = &situation.state.procedure {
        let text = format!("{} {} is open; wait for its end", open.kind, open.id);
        return Err(refuse(RefusalCode::Forbidden, text));
    }
    declared(situation, &asked.server)?;
    let from = primary_of(situation)?;
    if let Some(why) = rejoin::objection(situation, &asked) {
        return Err(refuse(RefusalCode::Forbidden, why));
    }
    let none = || refuse(RefusalCode::Forbidden, "there is no primary right now".to_owned());
    let plan = rejoin::begin(situation, &asked, waived).ok_or_else(none)?;
    let cause = format!("an operator lets {} rejoin", asked.server);
    let mut procedure = response::procedure(Kind::Rejoin, cause, from, plan);
    procedure.accept_loss = waived;
    procedure.rejoin = Some(asked);
    Ok(procedure)
}

/// A rejoin under way gives way to whatever a person asks for.
fn nothing_open(situation: &Situation) -> Result<(), Refusal> {
    match &situation.state.procedure {
        None => Ok(()),
        Some(open) if open.kind == Kind::Rejoin => Ok(()),
        Some(open) => {
            let text = format!("{} {} is open; wait for its end", open.kind, open.id);
            Err(refuse(RefusalCode::Forbidden, text))
        }
    }
}

fn primary_of(situation: &Situation) -> Result<ServerName, Refusal> {
    let none = || {
        let name = &situation.spec.name;
        let text = format!("it is not adopted yet; see: regent explain {name}");
        refuse(RefusalCode::Forbidden, text)
    };
    situation.primary().map(|server| server.name.clone()).ok_or_else(none)
}

pub(super) fn declared(situation: &Situation, server: &ServerName) -> Result<(), Refusal> {
    if situation.spec.server(server).is_some() {
        return Ok(());
    }
    let names: Vec<_> = situation.spec.servers.iter().map(|server| server.name.as_str()).collect();
    let text = format!("there is no server {server}; this cluster has {}", names.join(", "));
    Err(refuse(RefusalCode::Unknown, text))
}

fn known(
    watcher: &Watcher,
    now: Moment,
    leading: &Leading,
    cluster: &ClusterName,
) -> Result<Situation, Refusal> {
    watcher.situation(now, leading, cluster).ok_or_else(|| {
        let names: Vec<_> = watcher.setup.clusters.keys().map(ClusterName::as_str).collect();
        let text = format!("there is no cluster {cluster}; declared are {}", names.join(", "));
        refuse(RefusalCode::Unknown, text)
    })
}

/// What a watcher says that nobody leads: whether it hears too few others to decide anything.
fn isolation(watcher: &Watcher, now: Moment) -> String {
    let others = watcher.setup.watchers.keys().filter(|name| **name != watcher.setup.own);
    let (heard, silent): (Vec<_>, Vec<_>) = others.map(WatcherName::as_str).partition(|name| {
        let last = watcher.heard.get(&WatcherName::from(*name));
        last.is_some_and(|last| now.since(*last) < REACHABLE)
    });
    let own = &watcher.setup.own;
    let majority = watcher.setup.watchers.len() / 2 + 1;
    if heard.len() + 1 >= majority {
        return "no watcher leads right now; a majority hears each other, so one will soon"
            .to_owned();
    }
    format!(
        "no watcher leads here: {own} is isolated, it hears nothing of {}, and decides nothing until \
         a majority of {majority} hear each other",
        silent.join(", ")
    )
}

fn not_leading(watcher: &Watcher, now: Moment) -> Refusal {
    match watcher.consensus.leader() {
        Some(leader) => Refusal {
            code: RefusalCode::NotLeader,
            text: format!("watcher {leader} leads; ask there"),
            leader: Some(leader.clone()),
        },
        None => refuse(RefusalCode::NoLeader, isolation(watcher, now)),
    }
}

pub(super) fn refuse(code: RefusalCode, text: String) -> Refusal {
    Refusal { code, text, leader: None }
}

fn events(
    watcher: &Watcher,
    after: u64,
    limit: usize,
    cluster: Option<&ClusterName>,
) -> Vec<EventView> {
    let wanted = |event: &&EventView| {
        event.seq > after && cluster.is_none_or(|cluster| event.cluster.as_ref() == Some(cluster))
    };
    let limit = limit.clamp(1, EVENTS_LIMIT);
    watcher.state.events.iter().filter(wanted).take(limit).cloned().collect()
}

fn status(
    watcher: &Watcher,
    at: Now,
    leading: &Leading,
    only: Option<&ClusterName>,
) -> Result<StatusView, Refusal> {
    let now = at.moment;
    if let Some(name) = only {
        known(watcher, now, leading, name)?;
    }
    let names = watcher.setup.clusters.keys().filter(|name| only.is_none_or(|only| only == *name));
    let clusters = names.filter_map(|name| {
        let situation = watcher.situation(now, leading, name)?;
        let mut view = cluster_view(&situation, history(watcher, &situation), leading, now);
        view.backups = watcher.shown_backups(at, leading, name);
        view.proofs = watcher.shown_proofs(at.wall, leading, name);
        view.findings.extend(proofs::findings(&view.proofs));
        view.chores = leading.charges.shown(name);
        view.archive = watcher.shown_archive(at.wall, leading, name);
        view.findings.extend(view.archive.as_ref().and_then(archiving::finding));
        Some(view)
    });
    let own = &watcher.setup.own;
    let reachable = |name: &WatcherName| {
        name == own || watcher.heard.get(name).is_some_and(|heard| now.since(*heard) < REACHABLE)
    };
    let watchers = watcher.setup.watchers.iter().map(|(id, data_center): (_, &DataCenter)| {
        WatcherView { id: id.clone(), data_center: data_center.clone(), reachable: reachable(id) }
    });
    let proxies = leading.ledger.holders(now).map(|id| ProxyView {
        id: id.clone(),
        sessions: leading.sessions.get(id).copied().unwrap_or(0),
    });
    Ok(StatusView {
        leader: Some(own.clone()),
        term: leading.term(),
        answered_by: own.clone(),
        watchers: watchers.collect(),
        proxies: proxies.collect(),
        clusters: clusters.collect(),
    })
}

fn history<'a>(watcher: &'a Watcher, situation: &Situation) -> Option<&'a ClusterState> {
    watcher.state.clusters.get(&situation.spec.name)
}

fn cluster_view(
    situation: &Situation,
    history: Option<&ClusterState>,
    leading: &Leading,
    now: Moment,
) -> ClusterView {
    let duty = leading.duties.get(&situation.spec.name);
    let findings = diagnose(situation);
    let state = &situation.state;
    let open = state.procedure.as_ref();
    let stuck =
        history.and_then(|state| state.ended.back()).and_then(|ended| match &ended.ending {
            Some(crate::decision::procedure::Ending::Stuck { text }) => Some(text.clone()),
            _ => None,
        });
    let (word, reason) = match (&state.writer, open.map(|open| open.kind)) {
        (_, Some(Kind::Failover)) => ("failing_over", open.map(|open| open.cause.clone())),
        (_, Some(Kind::Switchover)) => ("switching_over", open.map(|open| open.cause.clone())),
        (Writer::Unassigned, _) => {
            ("not_adopted", findings.first().map(|first| first.text.clone()))
        }
        (Writer::Closed { .. }, _) if stuck.is_some() => ("stuck", stuck),
        (Writer::Closed { .. }, _) => {
            ("no_primary", findings.first().map(|first| first.text.clone()))
        }
        (Writer::Open { .. }, _) => match findings.iter().find(|it| degrades(situation, it)) {
            Some(finding) => ("degraded", Some(finding.text.clone())),
            None => ("healthy", None),
        },
    };
    let durability = match situation.spec.durability {
        Durability::Lossless { .. } => "lossless",
        Durability::BestEffort { .. } => "best_effort",
    };
    let servers = situation.spec.servers.iter();
    ClusterView {
        name: situation.spec.name.clone(),
        state: word.to_owned(),
        reason: reason.unwrap_or_default(),
        primary: state.writer.primary().cloned(),
        epoch: state.epoch,
        durability: durability.to_owned(),
        acks: if state.protection.in_force { state.protection.acks } else { 0 },
        servers: servers.map(|server| server_view(situation, server, &findings)).collect(),
        findings: findings.iter().map(Finding::view).collect(),
        procedure: open.map(|open| leading.shown(&situation.spec.name, open)),
        maintenance: state.maintenance.views(),
        waiting: duty.and_then(|duty| waiting(situation, &findings, duty, now)).unwrap_or_default(),
        backups: Vec::new(),
        proofs: Vec::new(),
        chores: Vec::new(),
        archive: None,
    }
}

/// Why nothing is done about the findings, when a rule asks for something.
fn waiting(
    situation: &Situation,
    findings: &[Finding],
    duty: &Duty,
    now: Moment,
) -> Option<String> {
    if findings.is_empty() || situation.state.procedure.is_some() {
        return None;
    }
    let lasting = |finding: &Finding| duty.lasting(now, finding);
    let response = response::respond(situation, findings, &lasting, &duty.past(now));
    let waits = response.held || matches!(response.act, Act::Wait(_));
    waits.then(|| match response.finding {
        Some(kind) => format!("{kind}: {}", response.reasons.join("; ")),
        None => response.reasons.join("; "),
    })
}

/// Whether a finding makes a cluster less than healthy.
fn degrades(situation: &Situation, finding: &Finding) -> bool {
    let left_alone = |server| situation.maintained(server).is_some();
    !matches!(finding.kind, FindingKind::ReplicaDelayed | FindingKind::SettingEndangers)
        && !finding.server.as_ref().is_some_and(left_alone)
}

fn server_view(situation: &Situation, server: &ServerSpec, findings: &[Finding]) -> ServerView {
    let name = &server.name;
    let status = situation.status(name);
    let primary = situation.state.writer.primary();
    let role = match (primary, &situation.state.writer) {
        (Some(primary), _) if primary == name => "primary",
        (_, Writer::Unassigned) => "unassigned",
        _ => "replica",
    };
    let worst = findings.iter().find(|finding| finding.server.as_ref() == Some(name));
    let health = match (worst, status) {
        (_, _) if situation.maintained(name).is_some() => "maintenance".to_owned(),
        (Some(finding), _) => finding.kind.to_string(),
        (None, Some(_)) => "healthy".to_owned(),
        (None, None) => "unknown".to_owned(),
    };
    let channel = status.and_then(Status::channel);
    let lag = match role {
        "primary" => status.map(|_| 0.0),
        _ => channel.and_then(|channel| channel.lag).map(|lag| lag.as_secs_f64()),
    };
    let newest = primary.and_then(|primary| situation.status(primary));
    let behind =
        status.zip(newest).map(|(own, newest)| newest.executed.count_beyond(&own.executed));
    let follows = channel.map(|channel| {
        let source = situation.spec.server_at(&channel.source);
        source.map_or(channel.source.to_string(), |source| source.name.to_string())
    });
    ServerView {
        name: name.clone(),
        address: server.address.to_string(),
        role: role.to_owned(),
        health,
        lag_seconds: lag,
        data_center: server.data_center.clone(),
        writable: status.map(|status| status.writable == Writable::Open),
        follows,
        version: status.map(|status| format!("{} {}", status.flavor, status.version)),
        executed: status.map(|status| status.executed.to_string()),
        behind,
        acknowledges: status.map(|status| status.semi_sync.replica),
    }
}
