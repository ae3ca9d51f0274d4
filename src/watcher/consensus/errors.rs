//! Why a watcher refuses a duty, or cannot take part at all.

use super::FormatError;
use crate::decision::topology::WatcherName;

/// Why a leader's duty was not taken on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another watcher leads, or none.
    #[error("this watcher does not lead")]
    NotLeader {
        /// The leader it knows of.
        leader: Option<WatcherName>,
    },
    /// A new leader has not committed anything in its term yet; ask again.
    #[error("this watcher has only just begun to lead")]
    TooEarly,
    /// Too much is waiting for the other watchers; ask again.
    #[error("too much is waiting for the other watchers already")]
    Busy,
    /// Nothing to propose, or too much.
    #[error("a proposal of {bytes} bytes is empty or over the limit of {limit}")]
    Size {
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        limit: usize,
    },
}

/// Why a watcher cannot take part, or not go on, in Raft.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsensusError {
    /// The names given do not make a set of watchers.
    #[error("{0}")]
    Members(String),
    /// raft-rs refuses these timings.
    #[error("the timing does not suit: {0}")]
    Timing(String),
    /// raft-rs refuses for another reason.
    #[error("raft cannot start: {0}")]
    Raft(String),
    /// A value could not be encoded for disk.
    #[error("a record cannot be encoded: {0}")]
    Encoding(FormatError),
    /// The stored hard state is damaged.
    #[error("the stored hard state is unusable: {0}")]
    BadHardState(FormatError),
    /// Entries without a hard state: part of the store is missing.
    #[error("the stored hard state is missing although the log reaches to entry {last}")]
    NoHardState {
        /// The last entry there is.
        last: u64,
    },
    /// A stored entry is damaged.
    #[error("stored log entry {index} is unusable: {source}")]
    BadEntry {
        /// Which.
        index: u64,
        /// How.
        source: FormatError,
    },
    /// A stored entry is not the one its key says.
    #[error("stored log entry {label} says that it is entry {index}")]
    EntryMislabeled {
        /// Its key.
        label: u64,
        /// What it says.
        index: u64,
    },
    /// A stored entry of a type that is never written.
    #[error("stored log entry {index} is of an unknown type")]
    UnknownEntry {
        /// Which.
        index: u64,
    },
    /// Stored entries are missing.
    #[error("the stored log has a gap: entry {found} comes after {after}")]
    Gap {
        /// The last one before the gap.
        after: u64,
        /// The first one after it.
        found: u64,
    },
    /// Terms never fall along a log.
    #[error("stored log entry {index} is of term {term}, the one before it of {before}")]
    TermFalls {
        /// Which.
        index: u64,
        /// Its term.
        term: u64,
        /// The term of the entry before it.
        before: u64,
    },
    /// The stored snapshot is damaged.
    #[error("the stored snapshot of index {index} is unusable: {source}")]
    BadSnapshot {
        /// Which.
        index: u64,
        /// How.
        source: FormatError,
    },
    /// The stored snapshot is not the one its name says.
    #[error("the snapshot stored as of index {label} says that it is of {index}")]
    SnapshotMislabeled {
        /// Its name.
        label: u64,
        /// What it says.
        index: u64,
    },
    /// The store belongs to another set of watchers.
    #[error(
        "the store belongs to another set of {stored} watchers, not to the {configured} configured"
    )]
    OtherVoters {
        /// How many it names.
        stored: usize,
        /// How many are configured.
        configured: usize,
    },
    /// The stored commit index lies beyond the stored log: entries were lost.
    #[error("entry {commit} was committed, and the stored log ends at {last}")]
    CommitBeyondLog {
        /// The commit index.
        commit: u64,
        /// The last entry there is.
        last: u64,
    },
    /// The stored hard state is older than the stored log.
    #[error("the stored hard state is of term {term}, and the log of {log}")]
    TermBehindLog {
        /// The hard state's term.
        term: u64,
        /// The log's last term.
        log: u64,
    },
    /// The others remember that this watcher acknowledged entries that it does not have.
    #[error(
        "{peer} knows entry {index} as acknowledged here, and this log ends at {last}: the store lost it"
    )]
    Forgot {
        /// Who says so.
        peer: WatcherName,
        /// The entry.
        index: u64,
        /// The last entry here.
        last: u64,
    },
}
