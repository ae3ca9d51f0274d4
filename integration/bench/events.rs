//! What is done to the cluster, and how long its clients may notice it.

use crate::beside::Speed;
use clap::ValueEnum;
use regent::demo::lab::Fault;
use serde::{Serialize, Serializer};
use std::fmt;

/// What is done to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Event {
    /// The primary is killed as by a power cut (`kill -9`).
    Kill,
    /// The same while a backup reads one of the replicas, on the same machine.
    KillDuringBackup,
    /// The same while one does that is held back.
    KillDuringLimitedBackup,
    /// The primary's role is moved on request.
    Switchover,
    /// The primary's process stops to run and keeps its sockets.
    Hang,
    /// Every packet of the primary's host is dropped.
    Drop,
    /// The data center with primary and leading watcher is cut off.
    DataCenter,
    /// No replica reaches the primary; clients and watchers do.
    Replication,
}

/// The longest outages in milliseconds that the project aims at.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Target {
    /// Half of all runs.
    pub median_ms: f64,
    /// Every one of ten runs and more.
    pub worst_ms: f64,
}

impl Event {
    /// All that makes a failover necessary.
    pub const FAULTS: [Event; 5] =
        [Event::Kill, Event::Hang, Event::Drop, Event::DataCenter, Event::Replication];

    /// What it is for the lab; a switchover is no fault.
    pub fn fault(self) -> Option<Fault> {
        match self {
            Event::Kill | Event::KillDuringBackup | Event::KillDuringLimitedBackup => {
                Some(Fault::Kill)
            }
            Event::Switchover => None,
            Event::Hang => Some(Fault::Hang),
            Event::Drop => Some(Fault::Drop),
            Event::DataCenter => Some(Fault::DataCenter),
            Event::Replication => Some(Fault::Replication),
        }
    }

    /// The backup that is made meanwhile.
    pub fn beside(self) -> Option<Speed> {
        match self {
            Event::KillDuringBackup => Some(Speed::Full),
            Event::KillDuringLimitedBackup => Some(Speed::Limited),
            _ => None,
        }
    }

    /// Whether it takes more than processes on loopback.
    pub fn needs_lab(self) -> bool {
        !matches!(self, Event::Kill | Event::Switchover) && self.beside().is_none()
    }

    /// What is aimed at.
    pub fn target(self) -> Target {
        let (median_ms, worst_ms) = match self {
            Event::Switchover => (200.0, 200.0),
            Event::Kill | Event::KillDuringBackup | Event::KillDuringLimitedBackup => {
                (1_000.0, 1_000.0)
            }
            Event::Hang | Event::Drop => (3_000.0, 4_000.0),
            Event::DataCenter => (4_000.0, 5_000.0),
            Event::Replication => (5_000.0, 6_000.0),
        };
        Target { median_ms, worst_ms }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Event::Kill => "kill",
            Event::KillDuringBackup => "kill during a backup",
            Event::KillDuringLimitedBackup => "kill during a limited backup",
            Event::Switchover => "switchover",
            Event::Hang => "hang",
            Event::Drop => "drop",
            Event::DataCenter => "data center with primary and leader",
            Event::Replication => "replication cut",
        })
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
