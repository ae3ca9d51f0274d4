//! The HTTP API and the command line, against watchers that give prepared answers.

mod commands;
mod documents;
mod endpoints;
mod fake;
mod limits;
