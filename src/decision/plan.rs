//! Plans as data: steps that say what state to bring about, gathered in stages.

use super::gtid::Gtids;
use super::topology::{Endpoint, ServerName, WatcherName};
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
        /// For how many acknowledgements commits wait from the first one on; zero where that is not
        /// this step's to say. A server that restarted since [`Step::CommitsWait`] waits for none.
        #[serde(default)]
        acks: u32,
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
    /// Follows nobody; what it received and did not apply is thrown away. Only for a server whose
    /// own transactions were exported.
    Detached {
        /// Where.
        server: ServerName,
    },
    /// What it has committed and the primary has not is in a file for people to read. Answers with
    /// that, with the primary's position and with its own clock.
    Exported {
        /// Where; it takes no writes and receives nothing.
        server: ServerName,
        /// The primary.
        source: ServerName,
        /// The primary's address.
        address: Endpoint,
        /// What an earlier export holds already.
        known: Option<Gtids>,
        /// Whether to go on when it cannot be read any more.
        waived: bool,
    },
    /// Its data is a copy of the donor's; all that it held is gone.
    Rebuilt {
        /// Where.
        server: ServerName,
        /// Whose data it gets.
        donor: ServerName,
        /// The donor's address.
        address: Endpoint,
        /// A copy counts that was begun after this, in microseconds by the server's own clock.
        since: u64,
    },
}

impl Step {
    /// The kinds of steps, as [`Step::kind`] says them.
    pub const KINDS: [&'static str; 11] = [
        "read_only",
        "receiver_stopped",
        "caught_up",
        "commits_wait",
        "acknowledges",
        "writable",
        "fenced",
        "following",
        "detached",
        "exported",
        "rebuilt",
    ];

    /// The server it acts on.
    pub fn server(&self) -> &ServerName {
        match self {
            Step::ReadOnly { server }
            | Step::ReceiverStopped { server }
            | Step::CaughtUp { server, .. }
            | Step::CommitsWait { server, .. }
            | Step::Acknowledges { server, .. }
            | Step::Writable { server, .. }
            | Step::Fenced { server, .. }
            | Step::Following { server, .. }
            | Step::Detached { server }
            | Step::Exported { server, .. }
            | Step::Rebuilt { server, .. } => server,
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
            // A stopping applier may hang for a minute.
            Step::Detached { .. } => Duration::from_secs(90),
            Step::Exported { .. } => Duration::from_secs(15 * 60),
            Step::Rebuilt { .. } => Duration::from_secs(48 * 3600),
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
            Step::Detached { .. } => "detached",
            Step::Exported { .. } => "exported",
            Step::Rebuilt { .. } => "rebuilt",
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
            Step::Writable { server, .. } => write!(f, "{server} takes writes"),
            Step::Fenced { server, .. } => write!(f, "{server} is taken out of service"),
            Step::Following { server, source, .. } => write!(f, "{server} follows {source}"),
            Step::Detached { server } => write!(f, "{server} follows nobody"),
            Step::Exported { server, .. } => {
                write!(f, "what {server} alone holds is written down for people")
            }
            Step::Rebuilt { server, donor, .. } => {
                write!(f, "{server} holds a copy of what {donor} holds, and nothing else")
            }
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
    /// How its history differs from the primary's, where that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<Box<Fork>>,
}

/// How the history of a server that stands still differs from the primary's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fork {
    /// What it has committed and the primary has not.
    pub beyond: Gtids,
    /// What the primary had committed after that.
    pub primary: Gtids,
    /// Microseconds by the server's own clock.
    pub clock: u64,
    /// Where what it alone holds was written to, when that was done now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Export>,
}

/// Transactions that one server alone held, written down for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Export {
    /// Which.
    pub gtids: Gtids,
    /// How many.
    pub transactions: u64,
    /// How many rows they changed.
    pub rows: u64,
    /// The watcher that holds the file.
    pub watcher: WatcherName,
    /// The file's path there.
    pub path: String,
}

impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Export { gtids, transactions, rows, watcher, path } = self;
        write!(
            f,
            "{transactions} transaction(s) with {rows} row(s), {gtids}, in {path} on watcher \
             {watcher}"
        )
    }
}

/// How far a long step is, measured where it is carried out; never replicated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What it does right now.
    pub text: String,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all, as far as that is known.
    pub total: Option<u64>,
}
