//! Is the primary alive, and does it do what its role asks?

use super::{CONFIRMING_PROBES, Finding, FindingKind, about, evidence, of};
use crate::decision::cluster::Writer;
use crate::decision::gtid::Gtids;
use crate::decision::report::{Sight, Status, Writable};
use crate::decision::situation::{Situation, View};
use crate::decision::topology::{ServerSpec, WatcherName};

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
    let finding = if blind >= situation.majority() {
        Some(lost_primary(situation, primary, &fresh))
    } else if blind > 0 {
        let text = format!("{blind} watcher(s) cannot reach {}, others can", primary.name);
        Some(of(FindingKind::PrimaryUnreachableInPart, primary, text, evidence(&fresh)))
    } else {
        None
    };
    let Some(status) = situation.status(&primary.name) else {
        let useless = fresh.iter().find(|(_, view)| view.sight.shows_life());
        return finding
            .into_iter()
            .chain(useless.map(|(_, view)| {
                let text = format!("{} {}", primary.name, view.sight);
                of(FindingKind::PrimaryUseless, primary, text, evidence(&fresh))
            }))
            .collect();
    };
    let mut found: Vec<_> = finding.into_iter().collect();
    // What an alive primary says of itself counts only while a majority does not call it lost.
    if blind < situation.majority() && situation.state.procedure.is_none() {
        found.extend(primary_role(situation, primary, status));
    }
    found
}

fn lost_primary(
    situation: &Situation,
    primary: &ServerSpec,
    fresh: &[(&WatcherName, &View)],
) -> Finding {
    let mut evidence = evidence(fresh);
    let witnesses = situation.witnesses();
    if !witnesses.is_empty() {
        for (replica, heard) in &witnesses {
            evidence.push(format!("{replica} heard from it {} ms ago", heard.as_millis()));
        }
        let text = format!(
            "a majority of watchers cannot reach {}, but {} replica(s) still hear it",
            primary.name,
            witnesses.len()
        );
        return of(FindingKind::PrimaryUnreachableInPart, primary, text, evidence);
    }
    let has =
        |wanted: &Sight| fresh.iter().filter(|(_, view)| view.sight.same_kind(wanted)).count();
    let (refused, hung) = (has(&Sight::Refused), has(&Sight::Hung));
    evidence.push("no replica hears it".to_owned());
    let (kind, text) = if refused >= situation.majority() {
        (
            FindingKind::PrimaryDead,
            format!("{} is dead: nobody listens at {}", primary.name, primary.address),
        )
    } else if hung > 0 && hung >= refused {
        (
            FindingKind::PrimaryHung,
            format!("{} accepts connections but answers nothing", primary.name),
        )
    } else {
        (FindingKind::PrimaryUnreachable, format!("{} cannot be reached", primary.name))
    };
    of(kind, primary, text, evidence)
}

/// Whether an alive primary does what its role asks.
fn primary_role(situation: &Situation, primary: &ServerSpec, status: &Status) -> Option<Finding> {
    let open = matches!(situation.state.writer, Writer::Open { .. });
    if status.writable == Writable::Open && open {
        let stalled = situation.canary_stalled?;
        let text = format!(
            "{} answers, but a write on it has not ended for {} ms: storage or a lock holds it",
            primary.name,
            stalled.as_millis()
        );
        return Some(of(FindingKind::PrimaryStalled, primary, text, Vec::new()));
    }
    let ahead = lost_by(situation, status);
    if let Some((replica, missing)) = ahead {
        let text =
            format!("{} lacks transactions that {} holds: {missing}", primary.name, replica.name);
        return Some(of(FindingKind::PrimaryLostTransactions, primary, text, Vec::new()));
    }
    if !open {
        let text =
            format!("{} is back and holds everything; it can go on as primary", primary.name);
        return Some(of(FindingKind::RouteClosed, primary, text, Vec::new()));
    }
    let text = format!("{} takes no writes although it is the primary", primary.name);
    Some(of(FindingKind::PrimaryReadOnly, primary, text, Vec::new()))
}

/// What a replica holds and its primary has lost.
///
/// A former primary may hold a last transaction that nobody else ever had. So it counts only what
/// the primary itself numbered, or anything when it came back empty, or what all replicas hold
/// unless the primary still has all that it was promoted with.
fn lost_by<'a>(situation: &'a Situation, status: &Status) -> Option<(&'a ServerSpec, Gtids)> {
    let held: Vec<_> = situation
        .replicas()
        .filter_map(|replica| Some((replica, situation.status(&replica.name)?.received())))
        .collect();
    let promoted_with =
        situation.primary().and_then(|primary| situation.state.promoted_with(&primary.name));
    let intact = promoted_with.is_some_and(|all| status.executed.contains(all));
    held.iter().find_map(|(replica, theirs)| {
        let missing = theirs.minus(&status.executed);
        let own = missing.without_origin(status.uuid.as_deref(), status.server_id) != missing;
        let common =
            !intact && held.len() > 1 && held.iter().all(|(_, other)| other.contains(&missing));
        let lost = !missing.is_empty() && (own || common || status.executed.is_empty());
        lost.then_some((*replica, missing))
    })
}
