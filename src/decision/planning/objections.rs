//! Why a switchover should not be tried.

use crate::decision::candidate::{Survey, rank};
use crate::decision::cluster::Writer;
use crate::decision::report::{Receiver, Writable};
use crate::decision::situation::Situation;
use crate::decision::topology::ServerName;

/// Why a switchover should not be tried; `None` when all is well for it.
pub fn switchover_objection(situation: &Situation, to: Option<&ServerName>) -> Option<String> {
    let Writer::Open { primary } = &situation.state.writer else {
        return Some("there is no primary right now".to_owned());
    };
    let Some(status) = situation.status(primary) else {
        return Some(format!("{primary} does not answer; use failover when it is lost"));
    };
    if status.writable != Writable::Open {
        return Some(format!("{primary} takes no writes right now"));
    }
    if to == Some(primary) {
        return Some(format!("{primary} is the primary already"));
    }
    if let Some(to) = to.filter(|to| situation.spec.server(to).is_none()) {
        let names: Vec<_> =
            situation.spec.servers.iter().map(|server| server.name.as_str()).collect();
        return Some(format!("there is no server {to}; this cluster has {}", names.join(", ")));
    }
    let survey = Survey::from_reports(situation);
    let ranked = rank(situation, &survey);
    let fitting = ranked.iter().filter(|candidate| to.is_none_or(|to| to == &candidate.server));
    let objections: Vec<_> = fitting
        .map(|candidate| {
            (
                candidate,
                candidate.excluded.clone().or_else(|| unready(situation, &candidate.server)),
            )
        })
        .collect();
    if objections.iter().any(|(_, objection)| objection.is_none()) {
        return None;
    }
    let lines = objections.iter().map(|(candidate, objection)| {
        format!("{}: {}", candidate.server, objection.as_deref().unwrap_or_default())
    });
    Some(format!("no replica can take over now: {}", lines.collect::<Vec<_>>().join("; ")))
}

/// Why a replica could not take over within a short pause.
pub(super) fn unready(situation: &Situation, server: &ServerName) -> Option<String> {
    let Some(channel) = situation.status(server).and_then(|status| status.channel()) else {
        return Some("follows nobody".to_owned());
    };
    if channel.receiver != Receiver::Connected || !channel.applying {
        return Some("does not replicate right now".to_owned());
    }
    channel.lag.filter(|lag| *lag > situation.spec.max_replica_lag).map(|lag| {
        format!(
            "is {} s behind, more than {} s",
            lag.as_secs(),
            situation.spec.max_replica_lag.as_secs()
        )
    })
}
