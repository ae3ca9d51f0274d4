//! Backups as plain data: what a manifest says, how objects are called, what a target's listing means.

pub mod catalog;
pub mod manifest;
pub mod names;
pub mod source;
