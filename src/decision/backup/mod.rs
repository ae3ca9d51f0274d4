//! Backups, as far as they are decisions: when one is due, which server it reads from, what became
//! of each run, and which of them stay.

pub mod choice;
pub mod duty;
pub mod retention;
pub mod runs;
pub mod schedule;
