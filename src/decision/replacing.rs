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
                if self.rebuilding.contains_key(server) {
                    return Ok(Vec::new());
                }
                self.rebuilding.insert(server.clone(), clock);
                let text = format!("{server} gets other data, which a person sees to");
                Ok(vec![("data_goes", text)])
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

#[cfg(test)]
mod tests {
    use super::super::cluster::Writer;
    use super::super::maintenance::Notice;
    use super::super::planning::{must, stage};
    use super::super::procedure::{Kind, Planned, Rejoin, Stage};
    use super::super::response::procedure;
    use super::*;

    const BEGINS: Replacement = Replacement::Begins { clock: 7 };

    fn in_maintenance(name: &str) -> ClusterState {
        let mut state = ClusterState {
            writer: Writer::Open { primary: "db1".into() },
            ..ClusterState::default()
        };
        state.maintenance.servers.insert(name.into(), Notice::default());
        state
    }

    fn opened(plan: Vec<Stage>) -> Procedure {
        procedure(Kind::Failover, "db1 is dead".to_owned(), "db1".into(), plan)
    }

    #[test]
    fn its_word_counts_again_when_all_is_there() {
        let mut state = in_maintenance("db2");
        let db2 = ServerName::from("db2");
        assert_eq!(state.replace(&db2, Replacement::Done), Err(Rejected::MovedOn));
        assert_eq!(state.replace(&db2, BEGINS).unwrap().len(), 1);
        let again = Replacement::Begins { clock: 9 };
        assert_eq!(state.replace(&db2, again).unwrap(), [], "people are told once");
        assert_eq!(state.rebuilding.get(&db2), Some(&7));
        let told = state.replace(&db2, Replacement::Done).unwrap();
        assert_eq!(
            told.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
            ["data_replaced", "maintenance_ended"]
        );
        assert!(state.rebuilding.is_empty() && state.maintenance.is_empty());
    }

    #[test]
    fn it_is_refused_where_it_comes_too_late() {
        let refused = |mut state: ClusterState, name: &str, change| {
            assert_eq!(state.replace(&name.into(), change), Err(Rejected::MovedOn));
            assert!(state.rebuilding.is_empty());
        };
        refused(ClusterState::default(), "db2", BEGINS);
        refused(in_maintenance("db3"), "db2", BEGINS);
        refused(in_maintenance("db1"), "db1", BEGINS);
        let writer = Writer::Closed { former: "db2".into() };
        refused(ClusterState { writer, ..in_maintenance("db2") }, "db2", BEGINS);
        let open = Some(opened(Vec::new()));
        refused(ClusterState { procedure: open, ..in_maintenance("db2") }, "db2", BEGINS);
    }

    #[test]
    fn a_procedure_does_not_go_by_the_word_of_such_a_server() {
        let mut state = in_maintenance("db2");
        state.replace(&"db2".into(), BEGINS).unwrap();
        let stopped = |name: &str, need| Planned {
            step: Step::ReceiverStopped { server: name.into() },
            need,
        };
        for (name, need, late) in
            [("db2", Need::Counts, true), ("db2", Need::Helps, false), ("db3", Need::Counts, false)]
        {
            let plan = vec![stage("isolate", vec![stopped(name, need)])];
            assert_eq!(state.comes_too_late(&opened(plan)), late, "{name} {need:?}");
        }
        let promotes = Procedure { to: Some("db2".into()), ..opened(Vec::new()) };
        assert!(state.comes_too_late(&promotes));
        let rejoin = Rejoin { server: "db2".into(), rebuild: true, anew: false, donor: None };
        let copies = Procedure { rejoin: Some(rejoin), ..opened(Vec::new()) };
        assert!(state.comes_too_late(&copies), "somebody else replaces its data");
        let closes = must(Step::ReadOnly { server: "db2".into() });
        assert!(!state.comes_too_late(&opened(vec![stage("contain", vec![closes])])));
    }
}
