//! Regent keeps a MySQL or MariaDB replication cluster writable.
//!
//! The map of the crate, with its invariants, is `src/ARCHITECTURE.md`.

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod decision;
pub mod demo;
pub mod node;
pub mod proxy;
pub mod runtime;
pub mod watcher;
pub mod wire;
