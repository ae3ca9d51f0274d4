//! How servers come back from a restart: closed, or open for writes.
//!
//! A primary that is cut off cannot complete a commit once too few replicas are left to acknowledge.
//! That holds until it restarts: the switch of semi-sync does not outlive it. If it comes back
//! writable, whoever still holds a lease on its route could be told that a commit is safe which no
//! other server has. So the loss of acknowledgements fences only servers that come back closed.

use super::situation::Situation;
use super::topology::ServerName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The servers of a cluster that are known to come back closed.
///
/// Agreed on, for a leader may be new when it matters, and the server dead. What was known stays when
/// the server can no longer tell: opening it by a statement hides what its option file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    closed: BTreeSet<ServerName>,
}

impl Restarts {
    /// Whether that server is known to come back closed.
    pub fn closed(&self, server: &ServerName) -> bool {
        self.closed.contains(server)
    }

    /// Whether that is known of none.
    pub fn is_empty(&self) -> bool {
        self.closed.is_empty()
    }

    /// Takes in what was found out.
    pub fn learn(&mut self, closed_at_restart: &BTreeMap<ServerName, bool>) {
        for (server, closed) in closed_at_restart {
            match closed {
                true => self.closed.insert(server.clone()),
                false => self.closed.remove(server),
            };
        }
    }

    /// What the servers tell now and is not known yet.
    pub fn news(situation: &Situation) -> BTreeMap<ServerName, bool> {
        let known = &situation.state.restarts;
        let told = situation.spec.servers.iter().filter_map(|server| {
            let open = situation.status(&server.name)?.settings.restarts_open?;
            Some((server.name.clone(), !open))
        });
        told.filter(|(server, closed)| known.closed(server) != *closed).collect()
    }
}
