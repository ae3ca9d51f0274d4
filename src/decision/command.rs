//! The commands that change the replicated state, and the Raft entries that carry them.

use super::backup::archive::account;
use super::backup::{proofs, runs};
use super::cluster::Unknown;
use super::maintenance::Change;
use super::plan::Outcome;
use super::procedure::{Ending, Procedure, Stage};
use super::replacing::Replacement;
use super::topology::{ClusterName, Epoch, ServerName};
use crate::clock::WallTime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The newest format of entries and snapshots this version understands.
pub const FORMAT: u32 = 5;

/// One Raft entry: commands that take effect together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// The format a watcher must understand to apply it.
    pub format: u32,
    /// When the leader made it, for people.
    pub at: WallTime,
    /// In order; one that is rejected has no effect and does not stop the others.
    pub commands: Vec<Command>,
    /// What newer versions added.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// A change of the replicated state of one cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Take the cluster as it runs.
    Adopt {
        /// Which.
        cluster: ClusterName,
        /// Its primary.
        primary: ServerName,
        /// On whose word, as a sentence.
        why: String,
    },
    /// Open a procedure; one that replaces the primary closes the route under a new epoch.
    Open {
        /// Where.
        cluster: ClusterName,
        /// The epoch the leader saw; another one means that the world moved on.
        seen: Epoch,
        /// The procedure; number and epoch are assigned here.
        procedure: Box<Procedure>,
    },
    /// Append decided stages.
    Extend {
        /// Where.
        cluster: ClusterName,
        /// Which procedure.
        procedure: u64,
        /// How many stages the plan had when this was decided.
        after: usize,
        /// The new stages.
        stages: Vec<Stage>,
        /// The server that becomes primary, when that was decided.
        to: Option<ServerName>,
        /// Why this and not otherwise.
        why: Vec<String>,
        /// What may be lost by it, as a sentence; empty when nothing is.
        #[serde(default)]
        loss: String,
    },
    /// An attempt at a step is about to be made.
    Begin {
        /// Where.
        cluster: ClusterName,
        /// Which procedure.
        procedure: u64,
        /// The stage.
        stage: usize,
        /// The step.
        step: usize,
        /// 1 for the first.
        attempt: u32,
        /// The leader's term.
        term: u64,
    },
    /// An attempt ended.
    Finish {
        /// Where.
        cluster: ClusterName,
        /// Which procedure.
        procedure: u64,
        /// The stage.
        stage: usize,
        /// The step.
        step: usize,
        /// The attempt.
        attempt: u32,
        /// What came of it.
        outcome: Outcome,
    },
    /// End the procedure.
    Close {
        /// Where.
        cluster: ClusterName,
        /// Which procedure.
        procedure: u64,
        /// How.
        ending: Ending,
    },
    /// Begin or end maintenance.
    Maintain {
        /// Where.
        cluster: ClusterName,
        /// What changes.
        change: Change,
    },
    /// A person replaces the data of a server in maintenance, or has.
    Replace {
        /// Where.
        cluster: ClusterName,
        /// Which.
        server: ServerName,
        /// How far that is.
        change: Replacement,
    },
    /// Remember how servers come back from a restart, as far as that is news.
    Learn {
        /// Where.
        cluster: ClusterName,
        /// Whether each of them comes back closed.
        closed_at_restart: BTreeMap<ServerName, bool>,
    },
    /// Change the account of scheduled backups.
    Backup {
        /// Where.
        cluster: ClusterName,
        /// What changes.
        change: runs::Change,
    },
    /// Change the account of proofs.
    Proof {
        /// Where.
        cluster: ClusterName,
        /// What changes.
        change: proofs::Change,
    },
    /// Change the account of the archive.
    Archive {
        /// Where.
        cluster: ClusterName,
        /// What changes.
        change: account::Change,
    },
    /// Note something for people.
    Note {
        /// Where.
        cluster: ClusterName,
        /// Its kind, such as `finding_began`.
        kind: String,
        /// As a sentence.
        text: String,
    },
}

impl Command {
    /// The cluster it is about.
    pub fn cluster(&self) -> &ClusterName {
        match self {
            Command::Adopt { cluster, .. }
            | Command::Open { cluster, .. }
            | Command::Extend { cluster, .. }
            | Command::Begin { cluster, .. }
            | Command::Finish { cluster, .. }
            | Command::Close { cluster, .. }
            | Command::Maintain { cluster, .. }
            | Command::Replace { cluster, .. }
            | Command::Learn { cluster, .. }
            | Command::Backup { cluster, .. }
            | Command::Proof { cluster, .. }
            | Command::Archive { cluster, .. }
            | Command::Note { cluster, .. } => cluster,
        }
    }

    /// The format that a watcher must understand to apply it.
    fn format(&self) -> u32 {
        match self {
            Command::Backup { .. } => 2,
            Command::Proof { .. } => 3,
            Command::Archive { .. } => 4,
            Command::Replace { .. } => 5,
            _ => 1,
        }
    }
}

impl Proposal {
    /// Commands of that time, in the oldest format that has them all: a watcher of a former version
    /// goes on as long as it understands what is decided.
    pub fn new(at: WallTime, commands: Vec<Command>) -> Proposal {
        let format = commands.iter().map(Command::format).max().unwrap_or(1);
        Proposal { format, at, commands, unknown: Unknown::new() }
    }
}
