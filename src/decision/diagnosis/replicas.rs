//! What is wrong with replicas, and whether one of them could take over.

use super::{CONFIRMING_PROBES, Finding, FindingKind, about, evidence, of};
use crate::decision::candidate::{Survey, rank};
use crate::decision::cluster::Writer;
use crate::decision::gtid::Gtids;
use crate::decision::planning::tell;
use crate::decision::report::{Channel, Receiver, ReplicationError, Writable};
use crate::decision::situation::Situation;
use crate::decision::topology::ServerSpec;

pub(super) fn second_writers(situation: &Situation) -> Vec<Finding> {
    // While a procedure moves the role, the candidate becomes writable before it is primary.
    if situation.state.procedure.as_ref().is_some_and(|open| open.kind.closes_route()) {
        return Vec::new();
    }
    let writers = situation.replicas().filter(|replica| {
        situation.status(&replica.name).is_some_and(|status| status.writable == Writable::Open)
    });
    let follows = |server: &ServerSpec| {
        situation.primary().is_some_and(|primary| situation.follows(&server.name, primary))
    };
    let tell = |server: &ServerSpec| {
        if follows(server) {
            let text = format!("{} follows the primary and could be written to", server.name);
            return of(FindingKind::ReplicaWritable, server, text, Vec::new());
        }
        let text = format!("{} takes writes and is not the primary", server.name);
        of(FindingKind::SecondWriter, server, text, Vec::new())
    };
    writers.map(tell).collect()
}

pub(super) fn findings(situation: &Situation, replica: &ServerSpec) -> Vec<Finding> {
    if situation.is_rebuilding(&replica.name) {
        let text = format!("{}'s data is being replaced, and that has not ended", replica.name);
        return vec![of(FindingKind::ReplicaIncomplete, replica, text, Vec::new())];
    }
    let fresh: Vec<_> = situation.fresh(&replica.name).collect();
    let Some(status) = situation.status(&replica.name) else {
        let failing = fresh.iter().filter(|(_, view)| view.times >= CONFIRMING_PROBES);
        if failing.count() < situation.majority() {
            return Vec::new();
        }
        let running = fresh.iter().find(|(_, view)| view.sight.shows_life());
        let text = match running {
            Some((_, view)) => format!("{} {}", replica.name, view.sight),
            None => format!("{} cannot be reached", replica.name),
        };
        return vec![of(FindingKind::ReplicaUnreachable, replica, text, evidence(&fresh))];
    };
    let mut found = Vec::new();
    if let Some(beyond) = divergence(situation, replica) {
        let text =
            format!("{} holds transactions that the primary does not have: {beyond}", replica.name);
        found.push(of(FindingKind::ReplicaDiverged, replica, text, Vec::new()));
    } else if let Some(error) = status.channel().and_then(|it| breaking(situation, it)) {
        let text = format!("{} stopped with error {}: {}", replica.name, error.code, error.text);
        found.push(of(FindingKind::ReplicaBroken, replica, text, Vec::new()));
    } else if let Some(code) = status.channel().and_then(turned_away) {
        let text = format!("{} is turned away by its source with error {code}", replica.name);
        found.push(of(FindingKind::ReplicaBroken, replica, text, Vec::new()));
    } else if let Some(text) = astray(situation, replica) {
        found.push(of(FindingKind::ReplicaAstray, replica, text, Vec::new()));
    } else if let Some(text) = stopped(situation, replica) {
        found.push(of(FindingKind::ReplicaStopped, replica, text, Vec::new()));
    } else if let Some(text) = status.channel().and_then(|it| disconnected(situation, replica, it))
    {
        found.push(of(FindingKind::ReplicaDisconnected, replica, text, Vec::new()));
    }
    let Some(channel) = status.channel() else {
        return found;
    };
    if !channel.delay.is_zero() {
        let text =
            format!("{} is delayed by {} s on purpose", replica.name, channel.delay.as_secs());
        found.push(of(FindingKind::ReplicaDelayed, replica, text, Vec::new()));
    } else if channel.lag.is_some_and(|lag| lag > situation.spec.max_replica_lag) {
        let lag = channel.lag.unwrap_or_default().as_secs();
        let text = format!("{} is {lag} s behind", replica.name);
        found.push(of(FindingKind::ReplicaLagging, replica, text, Vec::new()));
    }
    found
}

/// Transactions of a replica that the primary cannot have sent it.
///
/// The two were not read at the same moment, so a replica may seem to be ahead; but only in
/// transactions that the primary itself numbered, and those are left out.
///
/// Only a primary that takes writes is compared with: another may lack some for other reasons.
pub(crate) fn divergence(situation: &Situation, replica: &ServerSpec) -> Option<Gtids> {
    let primary = situation.spec.server(situation.state.writer.primary()?)?;
    situation.status(&primary.name).filter(|it| it.writable == Writable::Open)?;
    apart(situation, primary, replica)
}

/// What a replica holds and a server that is to send to it does not, beyond what that one numbered.
pub(crate) fn apart(
    situation: &Situation,
    source: &ServerSpec,
    replica: &ServerSpec,
) -> Option<Gtids> {
    let theirs = situation.status(&source.name).filter(|_| source.name != replica.name)?;
    let beyond = situation.status(&replica.name)?.beyond(&theirs.executed);
    let beyond = beyond.without_origin(theirs.uuid.as_deref(), theirs.server_id);
    (!beyond.is_empty()).then_some(beyond)
}

/// The error that a person must mend: not one that only says that the source was out of reach, nor
/// one of a receiver that should follow somebody else anyway.
fn breaking<'a>(situation: &Situation, channel: &'a Channel) -> Option<&'a ReplicationError> {
    let right = situation.primary().is_some_and(|primary| primary.address == channel.source);
    channel.error.as_ref().filter(|error| !error.passes() && (!channel.applying || right))
}

/// The error with which a source lets a receiver not in: its account, say.
fn turned_away(channel: &Channel) -> Option<u32> {
    let connecting = channel.receiver == Receiver::Connecting && !channel.listens();
    channel.turned_away.filter(|_| connecting)
}

fn astray(situation: &Situation, replica: &ServerSpec) -> Option<String> {
    let Writer::Open { primary } = &situation.state.writer else {
        return None;
    };
    let name = &replica.name;
    let status = situation.status(name)?;
    let Some(channel) = status.channel() else {
        return Some(format!("{name} follows nobody"));
    };
    if !situation.leads_to_primary(replica) {
        return Some(format!("{name} follows {} instead of {primary}", channel.source));
    }
    None
}

/// What keeps a replica from replicating that follows whom it should, without an error.
fn stopped(situation: &Situation, replica: &ServerSpec) -> Option<String> {
    situation.state.writer.primary()?;
    let name = &replica.name;
    let status = situation.status(name)?;
    if status.semi_sync.source {
        return Some(format!(
            "{name} applies nothing, as its own commits wait for acknowledgements"
        ));
    }
    let channel = status.channel()?;
    match (channel.receiver, channel.applying) {
        (Receiver::Stopped, _) => Some(format!("{name} does not receive")),
        (Receiver::Connected | Receiver::Connecting, false) => {
            Some(format!("{name} does not apply"))
        }
        (Receiver::Connected | Receiver::Connecting, true) => None,
    }
}

/// That the network keeps a replica from a primary that answers the watchers.
///
/// Only after an attempt to connect failed: one that was just repointed is not missed yet.
fn disconnected(situation: &Situation, replica: &ServerSpec, channel: &Channel) -> Option<String> {
    let primary = situation.primary().filter(|primary| primary.address == channel.source)?;
    situation.status(&primary.name)?;
    let code = channel.turned_away.filter(|_| channel.receiver == Receiver::Connecting)?;
    let name = &replica.name;
    Some(format!("{name} does not get through to {}: error {code}", primary.name))
}

/// Said before it is needed, but not while servers have not been looked at yet.
pub(super) fn no_candidate(situation: &Situation) -> Option<Finding> {
    let looked_at =
        |replica: &ServerSpec| situation.fresh(&replica.name).count() >= situation.majority();
    let ranked = rank(situation, &Survey::from_reports(situation));
    let usable = ranked.iter().any(|candidate| candidate.excluded.is_none());
    if usable || !situation.replicas().all(looked_at) {
        return None;
    }
    let why: Vec<_> = ranked.iter().map(tell).collect();
    let why = if why.is_empty() { "there is no other server".to_owned() } else { why.join("; ") };
    Some(about(
        FindingKind::NoCandidate,
        None,
        format!("nobody could take over: {why}"),
        Vec::new(),
    ))
}
