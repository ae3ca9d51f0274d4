//! Raft, its store and the links between watchers.

mod agreement;
mod network;
mod store;
