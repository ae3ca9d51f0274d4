//! Archived binary logs: what segments are called and say of themselves, where they come from, what they
//! add up to, and how a moment is reached from a backup.

pub mod account;
pub mod history;
pub mod names;
pub mod recovery;
mod refusal;
pub mod removal;
pub mod segment;
pub mod source;
pub mod walk;
