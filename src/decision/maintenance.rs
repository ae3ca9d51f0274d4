//! Maintenance: a server, or a whole cluster, that people work on and that is left alone meanwhile.
//!
//! What is in force is replicated, so that a failover decides alike on every watcher. Its end comes
//! as a command of its own: the leader of the day counts on its own clock, and reads the wall clock
//! only for what was begun under a predecessor.

use super::cluster::{Rejected, Unknown};
use super::diagnosis::FindingKind;
use super::response::{Act, Response};
use super::situation::Situation;
use super::topology::ServerName;
use super::view::MaintenanceView;
use crate::clock::WallTime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The longest that can be asked for; longer is a change of the configuration.
pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Everything of one cluster that is in maintenance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// The cluster as a whole: no procedure is opened by rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Notice>,
    /// Single servers: never promoted, never repaired, not counted on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub servers: BTreeMap<ServerName, Notice>,
    /// What newer versions added.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Until when, why, and on whose word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// When it began, by the clock of the leader then.
    pub since: WallTime,
    /// When it is over, likewise.
    pub until: WallTime,
    /// Why.
    pub reason: String,
    /// Who asked; empty when that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// What newer versions added.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// A change of what is in maintenance: of one server, or of the cluster when none is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It begins, or goes on differently.
    Begin {
        /// Which server.
        server: Option<ServerName>,
        /// For how long, in milliseconds.
        lasts_ms: u64,
        /// Why.
        reason: String,
        /// Who asked.
        by: String,
    },
    /// It ends.
    End {
        /// Which server.
        server: Option<ServerName>,
        /// Only if this is still when it would be over.
        until: WallTime,
        /// Why, as a sentence.
        why: String,
    },
}

impl Maintenance {
    /// Whether nothing is in maintenance.
    pub fn is_empty(&self) -> bool {
        self.cluster.is_none() && self.servers.is_empty() && self.unknown.is_empty()
    }

    /// The notice of one server, or of the cluster when none is named.
    pub fn of(&self, server: Option<&ServerName>) -> Option<&Notice> {
        match server {
            Some(server) => self.servers.get(server),
            None => self.cluster.as_ref(),
        }
    }

    /// All notices; that of the cluster comes without a server.
    pub fn all(&self) -> impl Iterator<Item = (Option<&ServerName>, &Notice)> {
        let servers = self.servers.iter().map(|(server, notice)| (Some(server), notice));
        self.cluster.iter().map(|notice| (None, notice)).chain(servers)
    }

    /// All notices as they are shown.
    pub fn views(&self) -> Vec<MaintenanceView> {
        let view = |(server, notice): (Option<&ServerName>, &Notice)| MaintenanceView {
            server: server.cloned(),
            since: notice.since,
            until: notice.until,
            reason: notice.reason.clone(),
            by: notice.by.clone(),
        };
        self.all().map(view).collect()
    }

    /// Records a change and says what happened: the kind of event and a sentence.
    pub fn apply(
        &mut self,
        at: WallTime,
        change: &Change,
    ) -> Result<(&'static str, String), Rejected> {
        match change {
            Change::Begin { server, lasts_ms, reason, by } => {
                let notice = Notice {
                    since: at,
                    until: WallTime(at.0.saturating_add(*lasts_ms)),
                    reason: reason.clone(),
                    by: by.clone(),
                    unknown: Unknown::new(),
                };
                let text = format!("{} is in {notice}", subject(server.as_ref()));
                match server {
                    Some(server) => self.servers.insert(server.clone(), notice),
                    None => self.cluster.replace(notice),
                };
                Ok(("maintenance_began", text))
            }
            Change::End { server, until, why } => {
                if self.of(server.as_ref()).is_none_or(|notice| notice.until != *until) {
                    return Err(Rejected::MovedOn);
                }
                match server {
                    Some(server) => self.servers.remove(server),
                    None => self.cluster.take(),
                };
                let text = format!("maintenance of {} is over: {why}", subject(server.as_ref()));
                Ok(("maintenance_ended", text))
            }
        }
    }
}

/// What a notice is about, in a sentence.
pub fn subject(server: Option<&ServerName>) -> String {
    server.map_or_else(|| "the cluster".to_owned(), ToString::to_string)
}

impl Notice {
    /// How much of it is left by a wall clock: never more than was asked for, wherever that clock
    /// stands.
    pub fn left(&self, now: WallTime) -> Duration {
        let asked = self.until.0.saturating_sub(self.since.0);
        Duration::from_millis(self.until.0.saturating_sub(now.0).min(asked))
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("maintenance")?;
        if self.until > self.since {
            write!(f, " until {}", self.until)?;
        }
        write!(f, ": {}", self.reason)?;
        if self.by.is_empty() { Ok(()) } else { write!(f, " ({})", self.by) }
    }
}

impl Situation {
    /// The notice of a server in maintenance. A primary is never in it: clients use it.
    pub fn maintained(&self, server: &ServerName) -> Option<&Notice> {
        let primary = self.state.writer.primary();
        self.state.maintenance.servers.get(server).filter(|_| primary != Some(server))
    }
}

/// What is left of a response while the whole cluster is in maintenance. A route that an order of
/// people, or what was begun before, has left closed is opened again all the same.
pub(super) fn withhold(situation: &Situation, response: Response) -> Response {
    let Some(notice) = &situation.state.maintenance.cluster else {
        return response;
    };
    if response.finding == Some(FindingKind::RouteClosed) {
        return response;
    }
    let otherwise = match &response.act {
        Act::Open(procedure) => format!("without it: {}", procedure.kind),
        Act::Wait(respond) => format!("without it: wait, then {respond}"),
        Act::Alert => "without it: alert".to_owned(),
        Act::Nothing => return response,
    };
    let mut reasons = vec![format!("nothing happens because of {notice}"), otherwise];
    reasons.extend(response.reasons);
    Response { act: Act::Nothing, reasons, held: true, ..response }
}
