//! The deciding part: plain data and pure functions.
//!
//! Nothing here waits, reads a clock, draws a random number, or touches network or disk.
//! Facts and the time come in as values; findings, plans and refusals go out as values.

pub mod gtid;
pub mod lease;
pub mod plan;
pub mod report;
pub mod rules;
pub mod situation;
pub mod topology;
pub mod view;
