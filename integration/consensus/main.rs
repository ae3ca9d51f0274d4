//! Raft, its store and the links between watchers.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod agreement;
mod links;
mod network;
mod store;
