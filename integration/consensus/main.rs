//! Raft, its store and the links between watchers.

mod agreement;
mod links;
mod network;
mod store;
