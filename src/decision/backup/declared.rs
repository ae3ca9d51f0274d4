//! Schedules as the configuration declares them, as far as decisions need them.

use super::choice::Wish;
use super::schedule::Schedule;
use crate::decision::topology::{ClusterName, ScheduleName};
use std::collections::BTreeMap;

/// One schedule of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its name, unique within its cluster.
    pub name: ScheduleName,
    /// When it comes.
    pub schedule: Schedule,
    /// What it wants of the server that is read.
    pub wish: Wish,
}

/// The schedules of all clusters that have any.
pub type Schedules = BTreeMap<ClusterName, Vec<Declared>>;
