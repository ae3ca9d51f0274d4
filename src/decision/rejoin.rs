//! Rejoining: how a server whose history diverged follows again.
//!
//! A ladder. What the server alone holds is written down for people; where there is nothing, it is
//! attached as it is; otherwise its data is replaced by a copy of a healthy server's. That destroys
//! data, so it happens only when an operator or a rule says so, when what is destroyed was written
//! down, and when the copy holds all that the server may have acknowledged.

use super::cluster::Writer;
use super::deciding::Decision;
use super::diagnosis::{Finding, FindingKind, divergence};
use super::durability;
use super::gtid::Gtids;
use super::plan::{Export, Facts, Fork, Step};
use super::planning::{caught_up, following, must, stage, unblock};
use super::procedure::{Planned, Procedure, Rejoin, Stage};
use super::report::{Receiver, Sight, Status, Writable};
use super::response::{Act, Past, durability_kind, respond};
use super::rules::{Respond, Rule};
use super::situation::Situation;
use super::topology::{Durability, ServerName, ServerSpec, WatcherName};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a donor may take in one attempt to apply all that the server may have acknowledged.
const CATCHING_UP: Duration = Duration::from_secs(600);

/// How often one attempt at writing down or copying is made.
const ATTEMPTS: u32 = 3;

/// What a rule opens for a finding; the reason why not now otherwise.
pub fn by_rule(
    situation: &Situation,
    finding: &Finding,
    rule: &Rule,
) -> Result<(Rejoin, Vec<Stage>), String> {
    let server = finding.server.clone().ok_or("it is about no server")?;
    let rejoin = Rejoin { server, rebuild: rule.rebuild, anew: false, donor: None };
    if let Some(why) = objection(situation, &rejoin) {
        return Err(why);
    }
    if let Some(export) = written(situation, &rejoin.server).filter(|_| !rule.rebuild) {
        let (cluster, server) = (&situation.spec.name, &rejoin.server);
        return Err(format!(
            "{export}; the rule does not allow to replace its data: regent rejoin {cluster} \
             {server} --rebuild"
        ));
    }
    let plan = begin(situation, &rejoin, rule.accept_loss).ok_or("there is no primary")?;
    Ok((rejoin, plan))
}

/// The earlier export that holds all that the server alone has.
fn written<'a>(situation: &'a Situation, server: &ServerName) -> Option<&'a Export> {
    let beyond = divergence(situation, situation.spec.server(server)?)?;
    situation.state.exports.get(server).filter(|export| export.gtids.contains(&beyond))
}

/// Why a server cannot rejoin now.
pub fn objection(situation: &Situation, rejoin: &Rejoin) -> Option<String> {
    let name = &rejoin.server;
    let Writer::Open { primary } = &situation.state.writer else {
        return Some("there is no primary right now".to_owned());
    };
    let Some(server) = situation.spec.server(name) else {
        return Some(format!("there is no server {name}"));
    };
    if name == primary {
        return Some(format!("{name} is the primary"));
    }
    let Some(status) = situation.status(primary) else {
        return Some(format!("{primary}, the primary, does not answer"));
    };
    if status.writable != Writable::Open {
        return Some(format!("{primary}, the primary, takes no writes"));
    }
    if let Some(notice) = situation.maintained(name) {
        return Some(format!("{name} is in {notice}"));
    }
    if situation.status(name).is_none() && !situation.is_rebuilding(name) {
        return Some(format!("{name} does not answer"));
    }
    let may_rebuild = rejoin.rebuild || rejoin.anew || situation.is_rebuilding(name);
    if may_rebuild && let Err(why) = donor(situation, server, rejoin.donor.as_ref()) {
        return Some(why);
    }
    None
}

/// The first plan: the server is made harmless, and what it alone holds is written down.
///
/// One whose data was being replaced when that was interrupted goes on from there.
pub fn begin(situation: &Situation, rejoin: &Rejoin, waived: bool) -> Option<Vec<Stage>> {
    let primary = situation.primary()?;
    let server = &rejoin.server;
    if let Some(since) = situation.state.rebuilding.get(server) {
        let spec = situation.spec.server(server)?;
        return rebuild(situation, spec, rejoin, *since, None).ok();
    }
    let contain = [
        Step::ReadOnly { server: server.clone() },
        Step::ReceiverStopped { server: server.clone() },
    ];
    let export = Step::Exported {
        server: server.clone(),
        source: primary.name.clone(),
        address: primary.address.clone(),
        known: situation.state.exports.get(server).map(|export| export.gtids.clone()),
        waived,
    };
    let mut written = stage("write down", vec![must(export)]);
    written.attempts = ATTEMPTS;
    written.decides = true;
    Some(vec![stage("contain", contain.map(must).to_vec()), written])
}

/// The second plan, from what was written down.
pub fn proceed(situation: &Situation, procedure: &Procedure) -> Decision {
    let give_up = |why: &str| Decision::GiveUp { why: why.to_owned() };
    let Some(rejoin) = &procedure.rejoin else {
        return give_up("it does not say who rejoins");
    };
    let Some(server) = situation.spec.server(&rejoin.server) else {
        return give_up("the server is not declared any more");
    };
    let Some(fork) = procedure.done().filter_map(|(_, facts)| facts.fork.as_deref()).last() else {
        return give_up("what it alone holds was not looked for");
    };
    if let Some(why) = objection(situation, rejoin) {
        return Decision::GiveUp { why };
    }
    let beyond = Some(&fork.beyond).filter(|beyond| !beyond.is_empty());
    let name = &server.name;
    let earlier = situation.state.exports.get(name);
    let earlier = earlier.filter(|it| beyond.is_some_and(|beyond| it.gtids.contains(beyond)));
    let export = fork.export.as_ref().or(earlier);
    let said = match (beyond, export) {
        (None, _) => format!("{name} holds nothing that the primary does not hold"),
        (Some(_), Some(export)) => format!("written down: {export}"),
        (Some(beyond), None) => {
            format!("{beyond}, which {name} alone holds, cannot be read any more")
        }
    };
    if beyond.is_none() && !rejoin.anew {
        return match attach(situation, server) {
            Some(attach) => Decision::GoOn { stages: vec![attach], why: vec![said] },
            None => give_up("there is no primary"),
        };
    }
    if beyond.is_some() && export.is_none() && !procedure.accept_loss {
        return Decision::GiveUp { why: said };
    }
    if !rejoin.rebuild && !rejoin.anew {
        let cluster = &situation.spec.name;
        return Decision::Enough {
            text: format!(
                "{said}; {name} stays out until its data is replaced: regent rejoin {cluster} \
                 {name} --rebuild"
            ),
        };
    }
    match rebuild(situation, server, rejoin, fork.clock, Some(&fork.primary)) {
        Ok(stages) => Decision::GoOn { stages, why: vec![said] },
        Err(why) => Decision::GiveUp { why },
    }
}

/// The stages that replace a server's data and let it follow.
///
/// `held` is what the primary held when the server had stopped for good: all that the server may
/// have acknowledged. The donor holds that before the server's own copy is thrown away; a copy
/// without the server's own former transactions could never get them, as it would take them for
/// its own. Where all others that may have acknowledged hold it too, the server's word is not
/// needed any more to prove that nothing is lost. Otherwise it still is, and cannot be had until
/// the copy is whole.
fn rebuild(
    situation: &Situation,
    server: &ServerSpec,
    rejoin: &Rejoin,
    since: u64,
    held: Option<&Gtids>,
) -> Result<Vec<Stage>, String> {
    let donor = donor(situation, server, rejoin.donor.as_ref())?;
    let primary = situation.primary().ok_or("there is no primary")?;
    let now = situation.status(&primary.name).map(|status| status.executed.clone());
    let held = held.cloned().or(now).ok_or("the primary does not answer")?;
    let may = &situation.state.protection.may_acknowledge;
    let others = || may.iter().filter(|name| *name != &server.name && *name != &primary.name);
    let steady = |name: &ServerName| {
        let spec = situation.spec.server(name);
        spec.is_some_and(|spec| unsteady(situation, spec, primary).is_none())
    };
    let dispensable = others().count() > 0 && others().all(steady);
    let secure = situation.replicas().filter(|other| {
        let counts = dispensable && others().any(|name| name == &other.name);
        other.name == donor.name || counts
    });
    let secure: Vec<_> = secure.map(|other| must(caught_up(other, &held, CATCHING_UP))).collect();
    let name = || server.name.clone();
    let mut detach = Vec::new();
    // One whose data is being replaced was detached before, and perhaps answers nobody right now.
    if !situation.is_rebuilding(&server.name) {
        if dispensable {
            detach.push(must(Step::Acknowledges { server: name(), on: false }));
        }
        detach.push(must(Step::Detached { server: name() }));
    }
    // Commits that wait for an acknowledgement keep a copy from ending, and without the copy nobody
    // could ever give one: so they end unanswered, and new ones are refused until it is there. Nobody
    // may read how they end, as MariaDB tells their clients that they succeeded.
    let paused = donor.name == primary.name && !others_acknowledge(situation, server, primary);
    let pause = Step::ReadOnly { server: primary.name.clone() };
    let mut pause = stage("pause", paused.then(|| must(pause)).into_iter().collect());
    pause.closes_route = true;
    let (donor, address) = (donor.name.clone(), donor.address.clone());
    let copy = Step::Rebuilt { server: name(), donor, address, since };
    let mut rebuild = stage("rebuild", vec![must(copy)]);
    rebuild.attempts = ATTEMPTS;
    // The donor's own channel comes along with its data.
    let clear = stage("clear", vec![must(Step::Detached { server: name() })]);
    let before = [stage("secure", secure), stage("detach", detach), pause];
    let needed = before.into_iter().filter(|stage| !stage.steps.is_empty());
    let follow = attach(situation, server);
    let open = [
        Step::CommitsWait { server: primary.name.clone(), acks: 1 },
        Step::Writable { server: primary.name.clone(), acks: 1 },
    ];
    let reopen = paused.then(|| stage("reopen", open.map(must).to_vec()));
    Ok(needed.chain([rebuild, clear]).chain(follow).chain(reopen).collect())
}

/// Whether commits need no acknowledgement, or somebody beside that server gives them.
fn others_acknowledge(situation: &Situation, server: &ServerSpec, primary: &ServerSpec) -> bool {
    let Durability::Lossless { .. } = situation.spec.durability else {
        return true;
    };
    situation.whole_replicas().filter(|other| other.name != server.name).any(|other| {
        situation.status(&other.name).is_some_and(|status| {
            let channel = status.channel().filter(|channel| channel.source == primary.address);
            let receives = channel.is_some_and(|it| it.receiver == Receiver::Connected);
            receives && status.semi_sync.replica
        })
    })
}

/// The stage that lets a server follow that holds nothing of its own.
fn attach(situation: &Situation, server: &ServerSpec) -> Option<Stage> {
    let primary = situation.primary()?;
    let held = situation.status(&primary.name).map(|status| status.executed.clone());
    let mut whole = situation.clone();
    whole.state.rebuilding.remove(&server.name);
    for view in whole.views.get_mut(&server.name).into_iter().flat_map(BTreeMap::values_mut) {
        if let (Sight::Alive(status), Some(held)) = (&mut view.sight, &held) {
            (status.executed, status.replicated) = (held.clone(), None);
        }
    }
    let wanted = durability::wanted(&whole.joined_by(&[server], primary), primary);
    let mut steps = Vec::new();
    if wanted.ackers.contains(&server.name) {
        // Asked before it connects; what it receives earlier it never acknowledges.
        steps.push(must(Step::Acknowledges { server: server.name.clone(), on: true }));
    }
    steps.extend(unblock(situation, server).map(must));
    steps.push(must(following(server, primary)));
    Some(stage("follow", steps))
}

/// Whose data a server gets: a healthy replica's, nearby if possible; the primary's if there is
/// none. The reason why nobody's otherwise.
pub fn donor<'a>(
    situation: &'a Situation,
    server: &ServerSpec,
    asked: Option<&ServerName>,
) -> Result<&'a ServerSpec, String> {
    let primary = situation.primary().ok_or("there is no primary")?;
    let fits = |donor: &ServerSpec| unfit(situation, server, donor, primary);
    if let Some(asked) = asked {
        let donor = situation.spec.server(asked).ok_or(format!("there is no server {asked}"))?;
        return fits(donor).map_or(Ok(donor), Err);
    }
    let mut fitting: Vec<_> = situation.replicas().filter(|donor| fits(donor).is_none()).collect();
    let elsewhere = |donor: &ServerSpec| donor.data_center != server.data_center;
    fitting.sort_by_key(|donor| (elsewhere(donor), std::cmp::Reverse(donor.promotion)));
    let donor = fitting.first().copied();
    match donor.or(fits(primary).is_none().then_some(primary)) {
        Some(donor) => Ok(donor),
        None => {
            let others = situation.spec.servers.iter().filter(|other| other.name != server.name);
            let why: Vec<_> = others.filter_map(fits).collect();
            Err(format!(
                "there is no healthy server to copy from: {}; if there is a backup, bring it back: {}",
                why.join("; "),
                restore(situation, server)
            ))
        }
    }
}

/// The last rung: what people run where no server can give its data.
fn restore(situation: &Situation, server: &ServerSpec) -> String {
    let (cluster, name) = (&situation.spec.name, &server.name);
    format!(
        "regent rejoin {cluster} {name} --rebuild --from-backup --user NAME --password-file FILE --config \
         FILE"
    )
}

/// Why a server's data cannot be copied from that one.
fn unfit(
    situation: &Situation,
    server: &ServerSpec,
    donor: &ServerSpec,
    primary: &ServerSpec,
) -> Option<String> {
    let name = &donor.name;
    if name == &server.name {
        return Some(format!("{name} is the server itself"));
    }
    if let Some(notice) = situation.maintained(name) {
        return Some(format!("{name} is in {notice}"));
    }
    if situation.is_rebuilding(name) {
        return Some(format!("{name}'s own data is being replaced"));
    }
    let Some(status) = situation.status(name) else {
        return Some(format!("{name} does not answer"));
    };
    let theirs = situation.status(&server.name);
    if theirs.is_some_and(|theirs| series(theirs) != series(status)) {
        return Some(format!("{name} runs another version"));
    }
    if name == &primary.name {
        return (status.writable != Writable::Open).then(|| format!("{name} takes no writes"));
    }
    unsteady(situation, donor, primary)
}

/// Why a replica does not hold, or will not soon hold, just what the primary does.
fn unsteady(situation: &Situation, replica: &ServerSpec, primary: &ServerSpec) -> Option<String> {
    let incomplete = || format!("{}'s own data is being replaced", replica.name);
    let is_rebuilding = situation.is_rebuilding(&replica.name);
    is_rebuilding.then(incomplete).or_else(|| strays(situation, replica, primary))
}

/// Why a replica, whole as it may be, does not come to hold just what the primary does.
pub fn strays(situation: &Situation, replica: &ServerSpec, primary: &ServerSpec) -> Option<String> {
    let name = &replica.name;
    let channel = situation.status(name).and_then(Status::channel);
    let steady = channel.is_some_and(|channel| {
        channel.source == primary.address
            && channel.applying
            && channel.receiver == Receiver::Connected
            && channel.error.is_none()
            && channel.delay.is_zero()
    });
    if !steady {
        return Some(format!("{name} does not replicate as it should"));
    }
    divergence(situation, replica).map(|_| format!("{name} diverged itself"))
}

fn series(status: &Status) -> (super::topology::Flavor, u16, u16) {
    (status.flavor, status.version.major, status.version.minor)
}

/// What a step would learn, did it find what was last reported; for explanations.
pub fn foreseen(situation: &Situation, step: &Step) -> Facts {
    let Step::Exported { server, source, .. } = step else {
        return Facts::default();
    };
    let Some(primary) = situation.status(source).map(|status| status.executed.clone()) else {
        return Facts::default();
    };
    let beyond = situation.spec.server(server).and_then(|spec| divergence(situation, spec));
    let export = beyond.as_ref().map(|gtids| Export {
        gtids: gtids.clone(),
        transactions: gtids.count_beyond(&Gtids::empty(gtids.flavor())),
        rows: 0,
        watcher: WatcherName::from(""),
        path: String::new(),
    });
    let beyond = beyond.unwrap_or(Gtids::empty(primary.flavor()));
    let fork = Fork { beyond, primary, clock: 0, export };
    Facts { fork: Some(Box::new(fork)), ..Facts::default() }
}

/// What is to be done instead of going on with a rejoin: anything but another rejoin that the rules
/// ask for, whatever its own server looks like meanwhile.
pub fn more_urgent(
    situation: &Situation,
    (open, rejoin): (&Procedure, &Rejoin),
    findings: Vec<Finding>,
    lasting: &dyn Fn(&Finding) -> Duration,
    past: &[Past],
) -> Option<Procedure> {
    let rules = &situation.spec.rules;
    let durability = durability_kind(situation.spec.durability);
    let rejoins = |finding: &Finding| {
        let rule = rules.decide(finding.kind, durability);
        rule.is_some_and(|(_, rule)| rule.respond == Respond::Rejoin)
    };
    let pauses = |planned: &Planned| matches!(&planned.step, Step::ReadOnly { server } if *server == open.from);
    // The primary that takes no writes, lets none wait, or is hidden from clients is as this plan
    // left it; and of a replica whose history forked nobody can tell so while it is.
    let own_pause = [
        FindingKind::PrimaryReadOnly,
        FindingKind::RouteClosed,
        FindingKind::Unprotected,
        FindingKind::ReplicaAstray,
        FindingKind::ReplicaStopped,
    ];
    let paused = open.plan.iter().flat_map(|stage| &stage.steps).any(pauses);
    let meant = |finding: &Finding| {
        let own = finding.server.as_ref() == Some(&rejoin.server);
        own || rejoins(finding) || (paused && own_pause.contains(&finding.kind))
    };
    let others: Vec<_> = findings.into_iter().filter(|finding| !meant(finding)).collect();
    match respond(situation, &others, lasting, past).act {
        Act::Open(urgent) => Some(*urgent),
        Act::Nothing | Act::Alert | Act::Wait(_) => None,
    }
}

/// How a finished rejoin went, in a sentence.
pub fn summary(procedure: &Procedure, rejoin: &Rejoin) -> String {
    let done = |wanted: fn(&Step) -> bool| procedure.done().any(|(step, _)| wanted(step));
    let rebuilt = done(|step| matches!(step, Step::Rebuilt { .. }));
    let how = if rebuilt { "got new data and " } else { "" };
    format!("{} {how}follows {}", rejoin.server, procedure.from)
}
