//! Backups, as far as they are decisions and plain data: when one is due, which server it reads from,
//! what became of each run, which of them stay, what a manifest says, what proves its worth and how objects
//! are called.

pub mod archive;
pub mod catalog;
pub mod choice;
pub mod chore;
pub mod counts;
pub mod declared;
pub mod duty;
pub mod leftovers;
pub mod maker;
pub mod manifest;
pub mod names;
pub mod parts;
pub mod proof;
pub mod proofs;
pub mod proving;
pub mod reached;
pub mod reason;
pub mod retention;
pub mod runs;
pub mod schedule;
pub mod shown;
