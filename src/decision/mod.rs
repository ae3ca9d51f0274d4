//! The deciding part: plain data and pure functions.
//!
//! Nothing here waits, reads a clock, draws a random number, or touches network or disk.
//! Facts and the time come in as values; findings, plans and refusals go out as values.
#![deny(clippy::disallowed_types)]

pub mod adoption;
pub mod backup;
pub mod candidate;
pub mod cluster;
mod command;
mod deciding;
pub mod diagnosis;
pub mod durability;
pub mod explain;
pub mod gtid;
pub mod lease;
pub mod loss;
pub mod maintenance;
pub mod objection;
pub mod plan;
pub mod planning;
pub mod procedure;
pub mod rejoin;
pub mod replacing;
pub mod report;
pub mod response;
pub mod restarts;
pub mod rules;
pub mod situation;
pub mod sketch;
pub mod topology;
pub mod view;
