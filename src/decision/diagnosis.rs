//! Findings: what is wrong with a cluster, each with its evidence.
//!
//! A primary is dead when a majority of watchers says so *and* no replica shows that it lives.
//! A stale view is unknown, and unknown is never dead.

use super::candidate::{Survey, rank};
use super::cluster::Writer;
use super::durability;
use super::gtid::Gtids;
use super::planning::tell;
use super::report::{Channel, Receiver, Sight, Status, Writable};
use super::situation::{Situation, View};
use super::topology::{Durability, ServerName, ServerSpec, WatcherName};
use super::view::FindingView;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How many failed probes in a row make one watcher believe it.
pub const CONFIRMING_PROBES: u32 = 2;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its kind.
    pub kind: FindingKind,
    /// The server it is about; none when it is about the whole cluster.
    pub server: Option<ServerName>,
    /// As a sentence.
    pub text: String,
    /// Who said what, one line each.
    pub evidence: Vec<String>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $word:literal;)*) => {
        /// Kinds of finding, most important first: the first one that has a response gets it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum FindingKind {
            $($(#[$doc])* #[serde(rename = $word)] $kind,)*
        }

        /// All kinds, in order.
        pub const ALL_KINDS: &[FindingKind] = &[$(FindingKind::$kind,)*];

        impl fmt::Display for FindingKind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(FindingKind::$kind => $word,)* })
            }
        }
    };
}

kinds! {
    /// Nobody has said yet which server is the primary, or the topology leaves it open.
    NotAdopted = "not_adopted";
    /// Too few watchers report, so nothing can be said.
    WatchersMissing = "watchers_missing";
    /// A majority of watchers finds nobody listening where the primary was.
    PrimaryDead = "primary_dead";
    /// A majority gets no answer from the primary's host, and no replica hears it.
    PrimaryUnreachable = "primary_unreachable";
    /// The primary accepts connections, answers no majority, and no replica hears it.
    PrimaryHung = "primary_hung";
    /// Some watchers cannot reach the primary, but others or its replicas do.
    PrimaryUnreachableInPart = "primary_unreachable_in_part";
    /// The primary runs but lets no watcher in: too many connections, starting, account refused.
    PrimaryUseless = "primary_useless";
    /// The primary came back without transactions that its replicas hold.
    PrimaryLostTransactions = "primary_lost_transactions";
    /// The primary takes no writes although it should.
    PrimaryReadOnly = "primary_read_only";
    /// The primary answers, but a write on it does not end.
    PrimaryStalled = "primary_stalled";
    /// There is no primary, no procedure is open, and the former one is back.
    RouteClosed = "route_closed";
    /// Another server takes writes.
    SecondWriter = "second_writer";
    /// Commits on the primary wait and too few replicas are there to acknowledge.
    CommitsBlocked = "commits_blocked";
    /// The cluster is to be lossless and commits do not wait as they should.
    Unprotected = "unprotected";
    /// Acknowledgements come from the primary's own data center for lack of others.
    AcknowledgedNearby = "acknowledged_nearby";
    /// A replica holds transactions that the primary does not have.
    ReplicaDiverged = "replica_diverged";
    /// Replication stopped with an error.
    ReplicaBroken = "replica_broken";
    /// A server does not follow the primary, or its replication is stopped, without an error.
    ReplicaAstray = "replica_astray";
    /// A replica cannot be reached.
    ReplicaUnreachable = "replica_unreachable";
    /// A replica is further behind than reads allow.
    ReplicaLagging = "replica_lagging";
    /// A replica is delayed on purpose.
    ReplicaDelayed = "replica_delayed";
    /// No replica could be promoted.
    NoCandidate = "no_candidate";
    /// A setting endangers promotion or durability.
    SettingEndangers = "setting_endangers";
}

impl FindingKind {
    /// Why a response to it makes no sense, as what would be right; `None` when it does.
    pub fn senseless(self, respond: super::rules::Respond) -> Option<&'static str> {
        use super::rules::Respond;
        let replaces = matches!(
            self,
            FindingKind::PrimaryDead
                | FindingKind::PrimaryUnreachable
                | FindingKind::PrimaryHung
                | FindingKind::PrimaryUseless
                | FindingKind::PrimaryLostTransactions
                | FindingKind::PrimaryReadOnly
                | FindingKind::PrimaryStalled
                | FindingKind::RouteClosed
        );
        let repairs = matches!(
            self,
            FindingKind::PrimaryReadOnly
                | FindingKind::RouteClosed
                | FindingKind::SecondWriter
                | FindingKind::Unprotected
                | FindingKind::AcknowledgedNearby
                | FindingKind::ReplicaAstray
        );
        match respond {
            Respond::FailOver if !replaces => Some("alert or nothing; the primary is not lost"),
            Respond::Repair if !repairs => Some("alert or nothing; there is no repair for it"),
            Respond::FailOver | Respond::Repair | Respond::Alert | Respond::Nothing => None,
        }
    }
}

impl Finding {
    /// As it is shown.
    pub fn view(&self) -> FindingView {
        FindingView {
            kind: self.kind.to_string(),
            server: self.server.clone(),
            text: self.text.clone(),
            evidence: self.evidence.clone(),
        }
    }
}

/// Everything that is wrong, most important first.
pub fn diagnose(situation: &Situation) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(primary) = situation.primary() {
        found.extend(primary_findings(situation, primary));
        found.extend(protection_findings(situation, primary));
        found.extend(second_writers(situation));
        for replica in situation.replicas() {
            found.extend(replica_findings(situation, replica));
        }
        found.extend(no_candidate(situation));
    } else {
        found.extend(super::adoption::finding(situation));
    }
    for server in &situation.spec.servers {
        found.extend(setting_findings(situation, server));
    }
    found.sort_by(|a, b| (a.kind, &a.server).cmp(&(b.kind, &b.server)));
    found
}

fn primary_findings(situation: &Situation, primary: &ServerSpec) -> Vec<Finding> {
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

fn protection_findings(situation: &Situation, primary: &ServerSpec) -> Vec<Finding> {
    let Durability::Lossless { .. } = situation.spec.durability else {
        return Vec::new();
    };
    let open = matches!(situation.state.writer, Writer::Open { .. });
    let Some(status) = situation.status(&primary.name).filter(|_| open) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let wanted = durability::wanted(situation, primary);
    let semi_sync = &status.semi_sync;
    if semi_sync.waiting > 0 && semi_sync.clients < semi_sync.acks.max(1) {
        let text = format!(
            "{} commit(s) on {} wait; {} of {} needed replicas are there to acknowledge",
            semi_sync.waiting,
            primary.name,
            semi_sync.clients,
            semi_sync.acks.max(1)
        );
        found.push(of(FindingKind::CommitsBlocked, primary, text, Vec::new()));
    }
    let waits = semi_sync.source && semi_sync.acks >= wanted.acks;
    if !waits || !situation.state.protection.in_force {
        let text = format!("commits on {} do not wait for acknowledgements", primary.name);
        found.push(of(FindingKind::Unprotected, primary, text, Vec::new()));
    } else {
        // Who follows somebody else acknowledges nothing here, whatever is set.
        let follows = |replica: &&ServerSpec| {
            let channel = situation.status(&replica.name).and_then(|status| status.channel());
            channel.is_some_and(|channel| channel.source == primary.address)
        };
        let differs = situation.replicas().filter(follows).filter(|replica| {
            let status = situation.status(&replica.name);
            let should = wanted.ackers.contains(&replica.name);
            let recorded = situation.state.protection.may_acknowledge.contains(&replica.name);
            // One that does not follow acknowledges nothing, whatever its setting.
            let follows = situation.follows(&replica.name, primary);
            status.is_some_and(|status| match (should, status.semi_sync.replica) {
                (true, does) => !does || !recorded,
                (false, does) => does && follows,
            })
        });
        let names: Vec<_> = differs.map(|replica| replica.name.to_string()).collect();
        if durability::unasked(situation, primary, &wanted) {
            let text = format!("{} does not ask connected replicas to acknowledge", primary.name);
            found.push(of(FindingKind::Unprotected, primary, text, Vec::new()));
        }
        if !names.is_empty() {
            let text = format!("{} should acknowledge differently", names.join(", "));
            found.push(of(FindingKind::Unprotected, primary, text, Vec::new()));
        }
    }
    if wanted.degraded {
        let text = "no replica in another data center can acknowledge; those nearby do".to_owned();
        found.push(of(FindingKind::AcknowledgedNearby, primary, text, Vec::new()));
    }
    found
}

fn second_writers(situation: &Situation) -> Vec<Finding> {
    // While a procedure moves the role, the candidate becomes writable before it is primary.
    if situation.state.procedure.as_ref().is_some_and(|open| open.kind.closes_route()) {
        return Vec::new();
    }
    let writers = situation.replicas().filter(|replica| {
        situation.status(&replica.name).is_some_and(|status| status.writable == Writable::Open)
    });
    let tell = |server: &ServerSpec| {
        let text = format!("{} takes writes and is not the primary", server.name);
        of(FindingKind::SecondWriter, server, text, Vec::new())
    };
    writers.map(tell).collect()
}

fn replica_findings(situation: &Situation, replica: &ServerSpec) -> Vec<Finding> {
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
    } else if let Some(text) = astray(situation, replica, status.channel()) {
        found.push(of(FindingKind::ReplicaAstray, replica, text, Vec::new()));
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
pub(super) fn divergence(situation: &Situation, replica: &ServerSpec) -> Option<Gtids> {
    let primary = situation.state.writer.primary().filter(|name| **name != replica.name)?;
    let theirs = situation.status(primary).filter(|it| it.writable == Writable::Open)?;
    let beyond = situation.status(&replica.name)?.executed.minus(&theirs.executed);
    let beyond = beyond.without_origin(theirs.uuid.as_deref(), theirs.server_id);
    (!beyond.is_empty()).then_some(beyond)
}

/// The error that a person must mend: not one that only says that the source was out of reach, nor
/// one of a receiver that should follow somebody else anyway.
fn breaking<'a>(
    situation: &Situation,
    channel: &'a Channel,
) -> Option<&'a super::report::ReplicationError> {
    let right = situation.primary().is_some_and(|primary| primary.address == channel.source);
    channel.error.as_ref().filter(|error| !error.passes() && (!channel.applying || right))
}

fn astray(
    situation: &Situation,
    replica: &ServerSpec,
    channel: Option<&Channel>,
) -> Option<String> {
    let Writer::Open { primary } = &situation.state.writer else {
        return None;
    };
    let source = situation.spec.server(primary)?;
    let name = &replica.name;
    let Some(channel) = channel else {
        return Some(format!("{name} follows nobody"));
    };
    if channel.source != source.address {
        return Some(format!("{name} follows {} instead of {primary}", channel.source));
    }
    if situation.status(name).is_some_and(|status| status.semi_sync.source) {
        return Some(format!(
            "{name} applies nothing, as its own commits wait for acknowledgements"
        ));
    }
    match (channel.receiver, channel.applying) {
        (Receiver::Stopped, _) => Some(format!("{name} does not receive")),
        (Receiver::Connected | Receiver::Connecting, false) => {
            Some(format!("{name} does not apply"))
        }
        (Receiver::Connected | Receiver::Connecting, true) => None,
    }
}

/// Said before it is needed, but not while servers have not been looked at yet.
fn no_candidate(situation: &Situation) -> Option<Finding> {
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

fn setting_findings(situation: &Situation, server: &ServerSpec) -> Vec<Finding> {
    let Some(status) = situation.status(&server.name) else {
        return Vec::new();
    };
    let settings = &status.settings;
    let lossless = matches!(situation.spec.durability, Durability::Lossless { .. });
    let checks = [
        (!settings.binlog, "its binary log is off, so nobody can follow it"),
        (
            !settings.logs_replica_updates,
            "it does not log what it applies, so nobody can follow it after a promotion",
        ),
        (!settings.gtids, "GTIDs are not enforced (gtid_mode, gtid_strict_mode)"),
        (
            settings.relay_log_recovery,
            "relay_log_recovery throws received transactions away at a restart",
        ),
        (
            lossless && !settings.durable,
            "commits are not synced to disk (sync_binlog, innodb_flush_log_at_trx_commit)",
        ),
    ];
    let wrong = checks.into_iter().filter(|(wrong, _)| *wrong);
    let tell = |(_, what): (bool, &str)| {
        let text = format!("{}: {what}", server.name);
        of(FindingKind::SettingEndangers, server, text, Vec::new())
    };
    wrong.map(tell).collect()
}

fn of(kind: FindingKind, server: &ServerSpec, text: String, evidence: Vec<String>) -> Finding {
    about(kind, Some(server.name.clone()), text, evidence)
}

/// A finding.
pub(super) fn about(
    kind: FindingKind,
    server: Option<ServerName>,
    text: String,
    evidence: Vec<String>,
) -> Finding {
    Finding { kind, server, text, evidence }
}

fn evidence(fresh: &[(&WatcherName, &View)]) -> Vec<String> {
    let line = |(watcher, view): &(&WatcherName, &View)| {
        format!(
            "watcher {watcher}, {} ms ago: {} ({} in a row)",
            view.age.as_millis(),
            view.sight,
            view.times
        )
    };
    fresh.iter().map(line).collect()
}
