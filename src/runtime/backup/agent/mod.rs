//! The agent beside a server: it hands out copies of the server's files, one at a time, to whoever has
//! its token.
//!
//! It takes no paths and no orders from the network but "a copy, now". It stores nothing: whoever asked
//! compresses, encrypts and keeps what it sends, so no credentials of a target are on a server's host.

mod cloning;
mod copying;
mod frames;
mod link;
mod listener;
mod scratch;
mod sending;
mod serving;

pub(super) use copying::{Program, noted_in, version_of};
pub use link::Link;
pub use serving::{AgentError, serve};

use crate::decision::backup::manifest::Method;
use serde::{Deserialize, Serialize};

/// What an agent says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Told {
    /// Which version of this form it has.
    pub format: u32,
    /// The agent's version.
    pub regent: String,
    /// The server it stands beside.
    pub server: String,
    /// How it copies that server's files.
    pub method: Method,
    /// The program that copies, or the server itself, as it names itself.
    pub tool: String,
    /// How many bytes are free where it works.
    pub free: u64,
    /// How many bytes of the copy that is being taken have been sent, if one is.
    pub sent: Option<u64>,
}
