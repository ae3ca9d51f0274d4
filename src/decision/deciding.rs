//! What becomes of a procedure after a deciding stage.

use super::cluster::Command;
use super::planning;
use super::procedure::{Ending, Kind, Procedure, Stage};
use super::rejoin;
use super::situation::Situation;
use super::topology::{ClusterName, ServerName};

/// What was decided after a deciding stage.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Go on with these stages.
    Promote {
        /// The stages.
        stages: Vec<Stage>,
        /// Who becomes primary.
        to: ServerName,
        /// Why, and why not the others.
        why: Vec<String>,
        /// What may be lost by it, as a sentence; empty when nothing is.
        loss: String,
    },
    /// Go on with these stages.
    GoOn {
        /// The stages.
        stages: Vec<Stage>,
        /// Why this and not otherwise.
        why: Vec<String>,
    },
    /// All that was to be done is done.
    Enough {
        /// What came of it.
        text: String,
    },
    /// Do not go on.
    GiveUp {
        /// Why.
        why: String,
    },
}

impl Decision {
    /// What enters the journal by it: more stages, or the procedure's ending.
    pub fn outcome(self, cluster: &ClusterName, procedure: &Procedure) -> Result<Command, Ending> {
        let (stages, to, why, loss) = match self {
            Decision::Promote { stages, to, why, loss } => (stages, Some(to), why, loss),
            Decision::GoOn { stages, why } => (stages, None, why, String::new()),
            Decision::Enough { text } => return Err(Ending::Done { text }),
            Decision::GiveUp { why } => return Err(Ending::Abandoned { text: why }),
        };
        let (cluster, number, after) = (cluster.clone(), procedure.id, procedure.plan.len());
        Ok(Command::Extend { cluster, procedure: number, after, stages, to, why, loss })
    }
}

/// The second plan of a procedure, from what the first one learned.
pub fn decide(situation: &Situation, procedure: &Procedure) -> Decision {
    match procedure.kind {
        Kind::Failover | Kind::Switchover | Kind::Repair => planning::promote(situation, procedure),
        Kind::Rejoin => rejoin::proceed(situation, procedure),
    }
}
