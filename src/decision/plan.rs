//! Plans as data: steps that say what state to bring about, gathered in stages.

use super::gtid::Gtids;
use super::topology::{Endpoint, ServerName};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// One state to bring about on one server; doing it twice is harmless.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Takes no writes from anybody, privileged sessions and events included; confirmed by
    /// reading it back. Answers with its final position.
    ReadOnly {
        /// Where.
        server: ServerName,
    },
    /// Receives nothing more from its source; the applier goes on. Answers with its position.
    ReceiverStopped {
        /// Where.
        server: ServerName,
    },
    /// Has applied all of `to`.
    CaughtUp {
        /// Where.
        server: ServerName,
        /// What it must hold.
        to: Gtids,
        /// How long that may take.
        within: Duration,
    },
    /// Waits for acknowledgements of its commits, or not.
    CommitsWait {
        /// Where.
        server: ServerName,
        /// How many; zero switches waiting off.
        acks: u32,
    },
    /// Acknowledges what it receives, or not.
    Acknowledges {
        /// Where.
        server: ServerName,
        /// Whether.
        on: bool,
    },
    /// Follows nobody, everything received being applied, and takes writes.
    Writable {
        /// Where.
        server: ServerName,
    },
    /// Is out of service: a command that its operators declared took it out from outside, whatever
    /// state it is in.
    Fenced {
        /// Where.
        server: ServerName,
        /// After which the command is killed.
        within: Duration,
    },
    /// Follows `source`, with every option of its connection kept, and takes no writes.
    Following {
        /// Where.
        server: ServerName,
        /// Whom.
        source: ServerName,
        /// Its address.
        address: Endpoint,
    },
}

impl Step {
    /// The kinds of steps, as [`Step::kind`] says them.
    pub const KINDS: [&'static str; 8] = [
        "read_only",
        "receiver_stopped",
        "caught_up",
        "commits_wait",
        "acknowledges",
        "writable",
        "fenced",
        "following",
    ];

    /// The server it acts on.
    pub fn server(&self) -> &ServerName {
        match self {
            Step::ReadOnly { server }
            | Step::ReceiverStopped { server }
            | Step::CaughtUp { server, .. }
            | Step::CommitsWait { server, .. }
            | Step::Acknowledges { server, .. }
            | Step::Writable { server }
            | Step::Fenced { server, .. }
            | Step::Following { server, .. } => server,
        }
    }

    /// Whether it acts on the server from outside, beside whatever is tried on it.
    pub fn is_external(&self) -> bool {
        matches!(self, Step::Fenced { .. })
    }

    /// How long one attempt may take before it counts as failed.
    pub fn limit(&self) -> Duration {
        match self {
            Step::CaughtUp { within, .. } | Step::Fenced { within, .. } => *within,
            Step::ReadOnly { .. } | Step::ReceiverStopped { .. } => Duration::from_millis(1500),
            Step::CommitsWait { .. } | Step::Acknowledges { .. } => Duration::from_secs(3),
            Step::Writable { .. } | Step::Following { .. } => Duration::from_secs(5),
        }
    }

    /// The step's kind as one word, for metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Step::ReadOnly { .. } => "read_only",
            Step::ReceiverStopped { .. } => "receiver_stopped",
            Step::CaughtUp { .. } => "caught_up",
            Step::CommitsWait { .. } => "commits_wait",
            Step::Acknowledges { .. } => "acknowledges",
            Step::Writable { .. } => "writable",
            Step::Fenced { .. } => "fenced",
            Step::Following { .. } => "following",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::ReadOnly { server } => write!(f, "{server} takes no writes"),
            Step::ReceiverStopped { server } => write!(f, "{server} receives nothing more"),
            Step::CaughtUp { server, .. } => write!(f, "{server} has applied all it must hold"),
            Step::CommitsWait { server, acks: 0 } => {
                write!(f, "commits on {server} wait for no acknowledgement")
            }
            Step::CommitsWait { server, acks } => {
                write!(f, "commits on {server} wait for {acks} acknowledgement(s)")
            }
            Step::Acknowledges { server, on: true } => write!(f, "{server} acknowledges"),
            Step::Acknowledges { server, on: false } => write!(f, "{server} does not acknowledge"),
            Step::Writable { server } => write!(f, "{server} takes writes"),
            Step::Fenced { server, .. } => write!(f, "{server} is taken out of service"),
            Step::Following { server, source, .. } => write!(f, "{server} follows {source}"),
        }
    }
}

/// What came of one attempt at a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The state is there and was read back.
    Done(Facts),
    /// It is not, and another attempt may help.
    Retry(String),
    /// It is not, and another attempt will not help.
    Failed(String),
}

/// What a finished step learned of its server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Every transaction it has committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executed: Option<Gtids>,
    /// Every transaction it holds, applied or only received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<Gtids>,
}
