//! Servers that get other data from a person, out of a backup, and what the watchers hold of them meanwhile:
//! nothing that such a server says it holds counts, from before its data goes until all of it is back.

use super::cluster::{ClusterState, Rejected};
use super::plan::Step;
use super::procedure::{Need, Procedure};
use super::topology::ServerName;
use serde::{Deserialize, Serialize};

/// How far that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replacement {
    /// Its data goes from now on.
    Begins {
        /// A copy that was begun before that by its own clock, in microseconds, is not the data which it is to
        /// have. Kept from the first time.
        clock: u64,
    },
    /// It has all that the primary held when its data was back.
    Done,
}

impl ClusterState {
    /// Records it, and says what happened: kinds of events and sentences. It is refused where it is too late: a
    /// primary keeps its data, a procedure that is open may rely on it, and one that the watchers look after
    /// again is theirs.
    pub(super) fn replace(
        &mut self,
        server: &ServerName,
        change: Replacement,
    ) -> Result<Vec<(&'static str, String)>, Rejected> {
        if !self.maintenance.servers.contains_key(server) {
            return Err(Rejected::MovedOn);
        }
        match change {
            Replacement::Begins { clock } => {
                if self.procedure.is_some() || self.writer.is(server) {
                    return Err(Rejected::MovedOn);
                }
                let known = self.rebuilding.insert(server.clone(), clock);
                self.rebuilding.extend(known.map(|earlier| (server.clone(), earlier)));
                let text = format!("{server} gets other data, which a person sees to");
                Ok(known.is_none().then_some(("data_goes", text)).into_iter().collect())
            }
            Replacement::Done => {
                self.rebuilding.remove(server).ok_or(Rejected::MovedOn)?;
                // It may give the numbers of what was written down to other transactions now.
                self.exports.remove(server);
                self.maintenance.servers.remove(server);
                let text = format!("{server} got other data, which a person saw to");
                let over = format!("maintenance of {server} is over: its data is there");
                Ok(vec![("data_replaced", text), ("maintenance_ended", over)])
            }
        }
    }

    /// Whether a procedure was made before it was known that a server is left alone which it works on, or
    /// that the word of one does not count which it goes by or would promote.
    pub(super) fn comes_too_late(&self, procedure: &Procedure) -> bool {
        let gone = |server: &ServerName| self.rebuilding.contains_key(server);
        let steps = procedure.plan.iter().flat_map(|stage| &stage.steps);
        let mut proofs = steps.filter(|planned| planned.need == Need::Counts);
        let relies = proofs.any(|planned| match &planned.step {
            Step::ReceiverStopped { server } => gone(server),
            _ => false,
        });
        let rejoins = procedure.rejoin.as_ref();
        let left_alone =
            rejoins.is_some_and(|it| self.maintenance.servers.contains_key(&it.server));
        relies || left_alone || procedure.to.as_ref().is_some_and(gone)
    }
}
