//! Does the primary do what its role asks, as far as it answers?

use super::{CONFIRMING_PROBES, Finding, FindingKind, about, evidence, lost, of};
use crate::decision::cluster::Writer;
use crate::decision::durability;
use crate::decision::gtid::Gtids;
use crate::decision::report::{Channel, Sight, Status, StorageFault, Trouble, Writable};
use crate::decision::situation::{PROBES_REMEMBERED, Situation, View};
use crate::decision::topology::{ServerSpec, WatcherName};

/// A primary that ceased to answer so often within the remembered probes comes and goes.
const FLAPS: u32 = 3;

pub(super) fn findings(situation: &Situation, primary: &ServerSpec) -> Vec<Finding> {
    let fresh: Vec<_> = situation.fresh(&primary.name).collect();
    if fresh.len() < situation.majority() {
        let text = format!(
            "{} of {} watchers report on {}; a majority of {} is needed to decide anything",
            fresh.len(),
            situation.watchers.len(),
            primary.name,
            situation.majority()
        );
        return vec![about(FindingKind::WatchersMissing, None, text, evidence(&fresh))];
    }
    let failing = |view: &View| !view.sight.shows_life() && view.times >= CONFIRMING_PROBES;
    let blind = fresh.iter().filter(|(_, view)| failing(view)).count();
    let lost = blind >= situation.majority();
    let mut found = Vec::new();
    if lost {
        found.push(lost::finding(situation, primary, &fresh));
    } else if blind > 0 {
        let text = format!("{blind} watcher(s) cannot reach {}, others can", primary.name);
        found.push(of(FindingKind::PrimaryUnreachableInPart, primary, text, evidence(&fresh)));
    }
    let Some(status) = situation.status(&primary.name) else {
        let useless = fresh.iter().find(|(_, view)| view.sight.shows_life());
        found.extend(useless.map(|(_, view)| {
            let text = format!("{} {}", primary.name, view.sight);
            let kind = match view.sight {
                Sight::Useless(Trouble::NoRoom) => FindingKind::PrimaryStorageFull,
                _ => FindingKind::PrimaryUseless,
            };
            of(kind, primary, text, evidence(&fresh))
        }));
        return found;
    };
    // What an alive primary says of itself counts only while a majority does not call it lost.
    if lost {
        return found;
    }
    found.extend(flapping(situation, primary, &fresh));
    if status.crowded {
        let text = format!("all connections of {} are taken", primary.name);
        found.push(of(FindingKind::PrimaryCrowded, primary, text, Vec::new()));
    }
    if situation.state.procedure.is_none() {
        let cut_off = cannot_replicate(situation, primary, status);
        found.extend(role(situation, primary, status, cut_off.is_some()));
        found.extend(astray(situation, primary, status));
        found.extend(cut_off);
    }
    found
}

fn flapping(
    situation: &Situation,
    primary: &ServerSpec,
    fresh: &[(&WatcherName, &View)],
) -> Option<Finding> {
    let flaps = fresh.iter().filter(|(_, view)| view.falls >= FLAPS);
    if flaps.count() < situation.majority() {
        return None;
    }
    let text = format!("{} ceases to answer and comes back, again and again", primary.name);
    let line = |(watcher, view): &(&WatcherName, &View)| {
        format!("watcher {watcher}: {} time(s) within {PROBES_REMEMBERED} probes", view.falls)
    };
    let evidence = fresh.iter().map(line).collect();
    Some(of(FindingKind::PrimaryFlapping, primary, text, evidence))
}

fn is_open(situation: &Situation, status: &Status) -> bool {
    let open = matches!(situation.state.writer, Writer::Open { .. });
    open && status.writable == Writable::Open
}

/// What the primary gets from a server of its own cluster can only be its own, or of a history that
/// is not the cluster's. A source that is not declared may well be meant.
fn astray(situation: &Situation, primary: &ServerSpec, status: &Status) -> Option<Finding> {
    if !is_open(situation, status) {
        return None;
    }
    let source_of = |channel: &Channel| {
        let mut others = situation.replicas();
        others.find(|other| other.address == channel.source).map(|other| &other.name)
    };
    let source = status.channels.iter().find_map(source_of)?;
    let text = format!("{} follows {source} although it is the primary", primary.name);
    Some(of(FindingKind::PrimaryAstray, primary, text, Vec::new()))
}

/// Whether an alive primary does what its role asks.
fn role(
    situation: &Situation,
    primary: &ServerSpec,
    status: &Status,
    cut_off: bool,
) -> Option<Finding> {
    if is_open(situation, status) {
        // Such commits hold up the canary row too, and nothing is wrong with the storage.
        let wanted = durability::wanted(situation, primary);
        let unheard = durability::unheard(situation, primary, &wanted);
        // Replicas that were cut off are counted until the server notices.
        let in_vain = durability::blocked(status) || cut_off && status.semi_sync.waiting > 0;
        let blocked = in_vain && durability::tells_what_waits(status);
        return storage(situation, primary).filter(|_| !unheard && !blocked);
    }
    let ahead = lost_by(situation, status);
    if let Some((replica, missing)) = ahead {
        let text =
            format!("{} lacks transactions that {} holds: {missing}", primary.name, replica.name);
        return Some(of(FindingKind::PrimaryLostTransactions, primary, text, Vec::new()));
    }
    if matches!(situation.state.writer, Writer::Open { .. }) {
        let text = format!("{} takes no writes although it is the primary", primary.name);
        return Some(of(FindingKind::PrimaryReadOnly, primary, text, Vec::new()));
    }
    let text = format!("{} is back and holds everything; it can go on as primary", primary.name);
    Some(of(FindingKind::RouteClosed, primary, text, Vec::new()))
}

/// What the leader's canary row says about the storage of a primary that answers.
fn storage(situation: &Situation, primary: &ServerSpec) -> Option<Finding> {
    let name = &primary.name;
    let (kind, text) = match (situation.canary_refused, situation.canary_stalled) {
        (Some(StorageFault::Full), _) => {
            (FindingKind::PrimaryStorageFull, format!("the storage of {name} has no room left"))
        }
        (Some(StorageFault::Failing), _) => (
            FindingKind::PrimaryStorageFailing,
            format!("the storage of {name} refuses writes: it is full, read-only or broken"),
        ),
        (None, Some(stalled)) => (
            FindingKind::PrimaryStalled,
            format!(
                "{name} answers, but a write on it has not ended for {} ms: storage or a lock \
                 holds it",
                stalled.as_millis()
            ),
        ),
        (None, None) => return None,
    };
    Some(of(kind, primary, text, Vec::new()))
}

/// Watchers reach the primary, while its replicas try to and hear nothing. Where commits wait for
/// acknowledgements, none of them ends.
fn cannot_replicate(
    situation: &Situation,
    primary: &ServerSpec,
    status: &Status,
) -> Option<Finding> {
    let deaf = situation.deaf();
    if deaf.is_empty() || !situation.witnesses().is_empty() || !is_open(situation, status) {
        return None;
    }
    let names: Vec<_> = deaf.iter().map(|name| name.as_str()).collect();
    let names = names.join(", ");
    let text = format!("{} answers watchers, but none of {names} hears it", primary.name);
    let waiting = format!("{} commit(s) wait on it", status.semi_sync.waiting);
    Some(of(FindingKind::PrimaryCannotReplicate, primary, text, vec![waiting]))
}

/// What a replica holds and its primary has lost.
///
/// A former primary may hold a last transaction that nobody else ever had. So it counts only what
/// the primary itself numbered, or anything when it came back empty, or what all replicas hold
/// unless the primary still has all that it was promoted with.
fn lost_by<'a>(situation: &'a Situation, status: &Status) -> Option<(&'a ServerSpec, Gtids)> {
    let held: Vec<_> = situation
        .whole_replicas()
        .filter_map(|replica| Some((replica, situation.status(&replica.name)?.received())))
        .collect();
    let promoted_with =
        situation.primary().and_then(|primary| situation.state.promoted_with(&primary.name));
    let intact = promoted_with.is_some_and(|all| status.executed.contains(&all));
    held.iter().find_map(|(replica, theirs)| {
        let missing = theirs.minus(&status.executed);
        let own = missing.without_origin(status.uuid.as_deref(), status.server_id) != missing;
        let common =
            !intact && held.len() > 1 && held.iter().all(|(_, other)| other.contains(&missing));
        let lost = !missing.is_empty() && (own || common || status.executed.is_empty());
        lost.then_some((*replica, missing))
    })
}
