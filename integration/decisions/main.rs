//! Decisions as text: situations in, findings, responses, candidates and plans out.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod backups;
mod cases;
mod documentation;
mod executor;
mod hints;
mod procedures;
mod protection;
mod storage;
