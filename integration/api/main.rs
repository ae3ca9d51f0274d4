//! The HTTP API and the command line, against watchers that give prepared answers.

#![expect(clippy::unwrap_used, reason = "a test may fail wherever it likes")]

mod commands;
mod documents;
mod endpoints;
mod fake;
mod limits;
