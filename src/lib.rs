//! Regent keeps a MySQL or MariaDB replication cluster writable.
//!
//! The map of the crate, with its invariants, is `src/ARCHITECTURE.md`.

pub mod clock;
pub mod demo;
