//! Who should become primary: by what it has received first, then by the rules.

use super::gtid::Gtids;
use super::loss;
use super::report::Status;
use super::rules::Preference;
use super::situation::Situation;
use super::topology::{Promotion, ServerName, ServerSpec, Version};
use super::view::CandidateView;
use std::collections::BTreeMap;
use std::time::Duration;

/// A replica that applies what is so old is not level with the others a moment later.
const BEHIND: Duration = Duration::from_secs(5);

/// What was surveyed of the servers, or what they last reported.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// All that a server holds, applied or only received.
    pub received: BTreeMap<ServerName, Gtids>,
    /// What it has applied of that.
    pub executed: BTreeMap<ServerName, Gtids>,
}

/// One server's chance, with the reasons for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Who.
    pub server: ServerName,
    /// Why it cannot be promoted at all.
    pub excluded: Option<String>,
    /// What speaks for or against it, most important first.
    pub reasons: Vec<String>,
    /// Whether it holds everything that any surveyed server holds.
    pub complete: bool,
}

impl Candidate {
    /// As it is shown.
    pub fn view(&self) -> CandidateView {
        let reasons = self.excluded.iter().chain(&self.reasons).cloned().collect();
        CandidateView { server: self.server.clone(), eligible: self.excluded.is_none(), reasons }
    }
}

/// The order of candidates: fields in order of importance, smaller is better.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    excluded: bool,
    /// Transactions that some survivor holds and this one has not even received.
    missing: u64,
    promotion: Promotion,
    awkward_place: bool,
    /// A newer version cannot be followed by older ones, so older is better.
    version: Version,
    /// Transactions received and not yet applied.
    unapplied: u64,
    declared: usize,
}

/// All servers but the present primary, best candidate first, with the reasons.
pub fn rank(situation: &Situation, survey: &Survey) -> Vec<Candidate> {
    in_order(judged(situation, survey))
}

/// The server that will be the best candidate for some time, by what lasts.
///
/// Which of them received most changes all the time while there are writes, and reports are not of one moment: the
/// server that was looked at last would always be the best. Only one that is seconds behind stays so for a while.
pub fn expected(situation: &Situation) -> Option<ServerName> {
    let survey = Survey::from_reports(situation);
    let lasting = judged(situation, &survey).map(|(score, candidate)| {
        let missing = u64::from(is_behind(situation, &candidate.server));
        (Score { missing, unapplied: 0, ..score }, candidate)
    });
    let best = in_order(lasting).into_iter().find(|candidate| candidate.excluded.is_none());
    best.map(|candidate| candidate.server)
}

fn is_behind(situation: &Situation, server: &ServerName) -> bool {
    let lag = situation.status(server).and_then(Status::channel).and_then(|it| it.lag);
    lag.is_none_or(|lag| lag >= BEHIND)
}

fn judged(situation: &Situation, survey: &Survey) -> impl Iterator<Item = (Score, Candidate)> {
    let everything = everything(situation, survey);
    situation.replicas().enumerate().map(move |(declared, server)| {
        judge(situation, survey, everything.as_ref(), server, declared)
    })
}

fn in_order(judged: impl Iterator<Item = (Score, Candidate)>) -> Vec<Candidate> {
    let mut ranked: Vec<_> = judged.collect();
    ranked.sort_by(|a, b| a.0.cmp(&b.0));
    ranked.into_iter().map(|(_, candidate)| candidate).collect()
}

impl Survey {
    /// What the newest reports say.
    pub fn from_reports(situation: &Situation) -> Survey {
        let mut survey = Survey::default();
        for server in situation.whole_replicas() {
            if let Some(status) = situation.status(&server.name) {
                survey.received.insert(server.name.clone(), status.received());
                survey.executed.insert(server.name.clone(), status.executed.clone());
            }
        }
        survey
    }
}

/// Everything that any surveyed server holds, but for what one of them wrote by itself or got from
/// a history that the primary does not share: nobody is to be given that.
pub fn everything(situation: &Situation, survey: &Survey) -> Option<Gtids> {
    let shared = survey.received.iter().map(|(name, theirs)| {
        let beyond = situation.spec.server(name).and_then(|it| forked(situation, survey, it));
        beyond.map_or(theirs.clone(), |beyond| theirs.without(&beyond))
    });
    let all = shared.reduce(|all, more| all.union(&more))?;
    let errant = situation.replicas().filter_map(|server| errant(situation, survey, server));
    Some(errant.fold(all, |all, errant| all.minus(&errant)))
}

fn judge(
    situation: &Situation,
    survey: &Survey,
    everything: Option<&Gtids>,
    server: &ServerSpec,
    declared: usize,
) -> (Score, Candidate) {
    let status = situation.status(&server.name);
    let received = survey.received.get(&server.name);
    let missing = match (everything, received) {
        (Some(everything), Some(received)) => everything.count_beyond(received),
        _ => 0,
    };
    let unapplied = match (received, survey.executed.get(&server.name)) {
        (Some(received), Some(executed)) => received.count_beyond(executed),
        _ => 0,
    };
    let excluded = exclusion(situation, survey, server, status);
    let place = place(situation, server);
    let score = Score {
        excluded: excluded.is_some(),
        missing,
        promotion: server.promotion,
        awkward_place: place.is_some(),
        version: status.map_or(Version::default(), |status| status.version),
        unapplied,
        declared,
    };
    let mut reasons = Vec::new();
    if received.is_some() {
        reasons.push(match missing {
            0 => "holds everything any survivor received".to_owned(),
            n => format!("lacks {n} transaction(s) that another survivor received"),
        });
    }
    match server.promotion {
        Promotion::Prefer => reasons.push("preferred by configuration".to_owned()),
        Promotion::Avoid => reasons.push("to be avoided by configuration".to_owned()),
        Promotion::Neutral | Promotion::Never => {}
    }
    reasons.extend(place);
    if unapplied > 0 {
        reasons.push(format!("has {unapplied} received transaction(s) still to apply"));
    }
    let complete = missing == 0 && received.is_some();
    (score, Candidate { server: server.name.clone(), excluded, reasons, complete })
}

fn exclusion(
    situation: &Situation,
    survey: &Survey,
    server: &ServerSpec,
    status: Option<&Status>,
) -> Option<String> {
    if server.promotion == Promotion::Never {
        return Some("never to be promoted, by configuration".to_owned());
    }
    if let Some(notice) = situation.maintained(&server.name) {
        return Some(format!("in {notice}"));
    }
    if situation.is_rebuilding(&server.name) {
        return Some("its data is being replaced".to_owned());
    }
    if !survey.received.contains_key(&server.name) {
        return Some("its position is unknown: it did not answer".to_owned());
    }
    let status = status?;
    let settings = &status.settings;
    if !settings.binlog || !settings.logs_replica_updates {
        return Some("the others could not follow it: it does not log what it applies".to_owned());
    }
    if let Some(channel) = status.channel() {
        // A stopped receiver holds what it holds; a stopped applier could not catch up.
        if let Some(error) = channel.applier_error() {
            return Some(format!("its replication stopped with error {}", error.code));
        }
        if !channel.delay.is_zero() {
            return Some(format!("delayed by {} s on purpose", channel.delay.as_secs()));
        }
    }
    if let Some(own) = errant(situation, survey, server) {
        return Some(format!("holds transactions nobody else has: {own}"));
    }
    forked(situation, survey, server)
        .map(|beyond| format!("its history forked: the primary never held {beyond}"))
}

/// What a replica holds of a history that the primary does not share: numbered by another server,
/// and neither among what the primary was promoted with nor among what it was seen to hold since.
///
/// Once a server is primary, all that is new in its history is numbered by itself, or by somebody
/// who is not of this cluster. A primary that was adopted may have got anything before.
fn forked(situation: &Situation, survey: &Survey, server: &ServerSpec) -> Option<Gtids> {
    let primary = situation.primary().filter(|primary| primary.name != server.name)?;
    let start = situation.state.promoted_with(&primary.name)?;
    let seen = loss::last_seen(situation, &primary.name);
    let history = seen.map_or(start.clone(), |(seen, _)| start.union(&seen));
    let beyond = survey.received.get(&server.name)?.minus(&history);
    let numbered = situation.replicas().filter_map(|other| {
        let other = situation.status(&other.name)?;
        Some(beyond.of_origin(other.uuid.as_deref(), other.server_id))
    });
    let forked = numbered.reduce(|all, more| all.union(&more))?;
    (!forked.is_empty()).then_some(forked)
}

/// Transactions that a replica numbered itself and that neither the former primary nor any other
/// survivor holds.
///
/// What a dead primary held last is unknown, but it cannot have got these from anybody else: a
/// transaction that one replica alone received is numbered by the primary, or by an earlier one.
fn errant(situation: &Situation, survey: &Survey, server: &ServerSpec) -> Option<Gtids> {
    let status = situation.status(&server.name)?;
    let executed = survey.executed.get(&server.name)?;
    let others = situation.spec.servers.iter().filter(|other| other.name != server.name);
    let known = others.filter_map(|other| {
        let reported = situation.status(&other.name).map(Status::received);
        let surveyed = survey.received.get(&other.name).cloned();
        match (surveyed, reported) {
            (Some(surveyed), Some(reported)) => Some(surveyed.union(&reported)),
            (surveyed, reported) => surveyed.or(reported),
        }
    });
    // Alone there is nobody to compare with.
    let known = known.reduce(|all, more| all.union(&more))?;
    let beyond = executed.minus(&status.met(&known));
    let own = beyond.of_origin(status.uuid.as_deref(), status.server_id);
    // What a former primary numbered is everybody's, unless its history forked: then it lacks
    // something that the others hold.
    let was_primary = situation.state.primaries.contains(&server.name);
    let forked = !status.received().contains(&known);
    (!own.is_empty() && (forked || !was_primary)).then_some(own)
}

/// What speaks against its place; `None` when nothing does.
fn place(situation: &Situation, server: &ServerSpec) -> Option<String> {
    let primary = situation.primary()?;
    let same = primary.data_center == server.data_center;
    match situation.spec.rules.candidates {
        Preference::SameDataCenter if !same => Some(format!(
            "in {}, not with the primary in {}",
            server.data_center, primary.data_center
        )),
        Preference::OtherDataCenter if same => {
            Some(format!("in {} like the primary", server.data_center))
        }
        Preference::SameDataCenter | Preference::OtherDataCenter | Preference::AnyDataCenter => {
            None
        }
    }
}
