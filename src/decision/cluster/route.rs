//! Who takes a cluster's writes, and when nobody does.

use super::{ClusterState, Notes};
use crate::decision::topology::ServerName;
use serde::{Deserialize, Serialize};

/// Who takes a cluster's writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Writer {
    /// Nobody yet: the cluster was not adopted.
    #[default]
    Unassigned,
    /// The primary of this epoch; proxies forward to it.
    Open {
        /// Who.
        primary: ServerName,
    },
    /// Nobody right now; proxies hold their clients.
    Closed {
        /// The primary of the epoch before.
        former: ServerName,
    },
}

impl Writer {
    /// The primary that takes writes.
    pub fn primary(&self) -> Option<&ServerName> {
        match self {
            Writer::Open { primary } => Some(primary),
            Writer::Closed { .. } | Writer::Unassigned => None,
        }
    }

    /// Whether that server takes the writes, or was the last one that did.
    pub(in crate::decision) fn is(&self, server: &ServerName) -> bool {
        self.primary().or(self.closed_after()) == Some(server)
    }

    /// The primary of the epoch before, while the route is closed.
    fn closed_after(&self) -> Option<&ServerName> {
        match self {
            Writer::Closed { former } => Some(former),
            Writer::Open { .. } | Writer::Unassigned => None,
        }
    }
}

impl ClusterState {
    /// Closes the route under a new epoch, and says so.
    pub(super) fn close_route(&mut self, former: ServerName) -> String {
        self.epoch = self.epoch.next();
        self.writer = Writer::Closed { former };
        format!("route closed under epoch {}", self.epoch)
    }

    /// A stage begins that needs clients to be away: whoever the route led to the primary before is
    /// of an older epoch from now on.
    pub(super) fn close_route_for(&mut self, stage: usize, notes: &mut Notes) {
        let open = self.procedure.as_ref().and_then(|open| open.plan.get(stage));
        let needed = open.is_some_and(|stage| stage.closes_route);
        if let Some(primary) = self.writer.primary().filter(|_| needed).cloned() {
            notes.add("route_closed", self.close_route(primary));
            let epoch = self.epoch;
            self.procedure.iter_mut().for_each(|open| open.epoch = epoch);
        }
    }

    /// Such a stage is complete. The primary is what it was, but that it takes no writes: clients may
    /// read there, and what protects its commits is as before.
    pub(super) fn open_route_after(&mut self, stage: usize, notes: &mut Notes) {
        let complete = self.procedure.as_ref().is_some_and(|open| open.route_reopens(stage));
        if let Some(former) = self.writer.closed_after().filter(|_| complete).cloned() {
            let text = format!("route opened to {former} under epoch {}, for reads", self.epoch);
            notes.add("route_opened", text);
            self.writer = Writer::Open { primary: former };
        }
    }
}
