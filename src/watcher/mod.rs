//! A watcher: one synchronous state machine, `handle(now, input) -> outputs`.
//!
//! It contains Raft, the replicated state, the table of probe reports and the leader's duties.
//! It never waits, and it reaches the world only through the [`Output`]s it returns; the runtime
//! carries those out and answers with [`Input`]s.
#![deny(clippy::disallowed_types)]

mod account;
mod archiving;
mod backups;
mod charging;
mod chores;
mod comparing;
pub mod consensus;
mod duty;
mod leading;
mod machine;
mod maintaining;
mod making;
mod probing;
mod proofs;
mod requests;

pub use chores::{ChoreDoing, ChoreMessage, ChoreNews, ChoreOrder, ChoreSaid, ChoreWord};
pub use machine::{Fatal, Setup, Watcher};
pub use making::{BackupEnd, BackupMessage, BackupNews, BackupOrder, BackupSaid, BackupWord};

use crate::clock::Moment;
use crate::decision::lease::{FromProxy, ToProxy};
use crate::decision::plan::{Outcome, Progress, Step};
use crate::decision::report::{Sight, StorageFault};
use crate::decision::topology::{ClusterName, Epoch, ProxyName, ServerKey, WatcherName};
use crate::decision::view::{EventView, Request, Response};
use serde::{Deserialize, Serialize};

/// Something that happened, told to a watcher.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The time asked for by `next_wakeup` has come; harmless at any other time.
    Wakeup,
    /// A message from another watcher arrived, already bounded and decoded.
    PeerMessage {
        /// Who sent it.
        from: WatcherName,
        /// What it says.
        message: PeerMessage,
    },
    /// The connection to a watcher came up or went down.
    PeerLink {
        /// Which.
        peer: WatcherName,
        /// Whether it is up.
        up: bool,
    },
    /// A proxy said something.
    ProxyMessage {
        /// Who.
        proxy: ProxyName,
        /// What.
        message: FromProxy,
    },
    /// All of the record with this ticket, and of all earlier ones, is safely on disk.
    Persisted {
        /// The ticket of the `Persist` output.
        ticket: u64,
    },
    /// A probe ended.
    ProbeDone {
        /// Which server was probed.
        server: ServerKey,
        /// What it saw.
        sight: Sight,
    },
    /// An attempt at a step ended.
    StepDone {
        /// What was ordered.
        order: StepId,
        /// What came of it.
        outcome: Outcome,
    },
    /// An attempt at a step says how far it is.
    StepProgress {
        /// What was ordered.
        order: StepId,
        /// How far.
        progress: Progress,
    },
    /// The attempt to write a canary row ended.
    CanaryDone {
        /// Where.
        server: ServerKey,
        /// What came of it.
        result: CanaryResult,
    },
    /// A backup that was ordered of this watcher went on or ended.
    Backup(BackupNews),
    /// A chore that was ordered of this watcher goes on or ended.
    Chore(ChoreNews),
    /// Somebody asks for something.
    Request {
        /// Comes back in the reply.
        id: u64,
        /// What is asked.
        request: Request,
    },
}

/// Something to be done, ordered by a watcher.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send to another watcher; may be lost.
    Send {
        /// To whom.
        to: WatcherName,
        /// What.
        message: PeerMessage,
    },
    /// Write and sync, in order; answer `Persisted`. A failed write ends the process.
    Persist {
        /// Grows with each record.
        ticket: u64,
        /// What to write.
        record: Record,
    },
    /// Look at a server; answer `ProbeDone` in any case, within the probe's limits.
    Probe {
        /// Which.
        server: ServerKey,
    },
    /// Bring about a step's state; answer `StepDone` in any case, within the step's limit.
    Perform(StepOrder),
    /// Orders of that procedure and of earlier ones of its cluster are withdrawn: what has not begun
    /// does not begin, what waits for something waits no longer, and no changing statement is sent for
    /// them any more. Each is answered all the same. A copy that was begun goes on.
    Withdraw {
        /// The cluster.
        cluster: ClusterName,
        /// The procedure.
        procedure: u64,
    },
    /// Write the canary row, locally and outside the binary log, so that it can never become a
    /// transaction that others lack; answer `CanaryDone` in any case.
    Canary {
        /// On which server; the primary of `epoch`.
        server: ServerKey,
        /// The epoch.
        epoch: Epoch,
        /// Not to be begun after this.
        permit: Moment,
    },
    /// Make a backup, break one off, or see to one that ended.
    Backup(BackupOrder),
    /// From now on something goes before the backups of a cluster, or nothing does any more: its route is
    /// closed, a procedure that closed it goes on, or this watcher's last probe of its primary was in vain.
    GoesFirst {
        /// The cluster.
        cluster: ClusterName,
        /// Whether something does.
        others: bool,
    },
    /// Do a chore, or end it.
    Chore(ChoreOrder),
    /// Answer a request.
    Reply {
        /// The request's id.
        id: u64,
        /// The answer.
        response: Response,
    },
    /// Send to a proxy; may be lost.
    ToProxy {
        /// To whom.
        proxy: ProxyName,
        /// What.
        message: ToProxy,
    },
    /// Send to every proxy that is linked to this watcher; may be lost.
    ToProxies {
        /// What.
        message: ToProxy,
    },
    /// Tell people: log it.
    Announce(EventView),
}

/// What came of an attempt to write a canary row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CanaryResult {
    /// The row was written.
    Written,
    /// The server took the statement and did not end it in time.
    Stalled,
    /// The server's storage took no row.
    Refused(StorageFault),
    /// It was not tried, or refused for another reason; nothing is known of the storage.
    Unknown,
}

/// Which attempt at which step of which procedure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StepId {
    /// The procedure's cluster.
    pub cluster: ClusterName,
    /// The procedure's number within its cluster.
    pub procedure: u64,
    /// The stage's place in the plan.
    pub stage: usize,
    /// The step's place in the stage.
    pub step: usize,
    /// 1 for the first attempt.
    pub attempt: u32,
}

/// An order to bring about one step's state.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOrder {
    /// Comes back in `StepDone`.
    pub id: StepId,
    /// What to bring about.
    pub step: Step,
    /// The epoch it belongs to.
    pub epoch: Epoch,
    /// Until then this watcher is surely still the leader. The runtime must not send the first
    /// changing statement after it, by its own reading of the same clock.
    pub permit: Moment,
    /// Whether nobody is left whom a proxy led to this server before that epoch, so that whatever it
    /// answers to sessions of theirs is read by nobody.
    pub clients_cut: bool,
}

/// What watchers tell each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerMessage {
    /// A Raft message, encoded by raft-rs.
    Raft(Vec<u8>),
    /// What a probe of the sender saw; only the leader listens.
    Report {
        /// Which server.
        server: ServerKey,
        /// What was seen.
        sight: Sight,
    },
    /// Probe these servers at once: something is wrong with their cluster.
    ProbeNow {
        /// The cluster.
        cluster: ClusterName,
    },
    /// About a backup that a watcher makes.
    Backup(BackupMessage),
    /// About a chore.
    Chore(ChoreMessage),
}

/// What must be on disk before messages that depend on it may leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Raft's hard state, encoded by raft-rs.
    pub hard_state: Option<Vec<u8>>,
    /// Log entries by index, encoded; they replace all stored entries from the first one on.
    pub entries: Vec<(u64, Vec<u8>)>,
    /// A snapshot that replaces all that came before it.
    pub snapshot: Option<StoredSnapshot>,
    /// Entries up to this index are to be forgotten before `entries` are added, being covered by
    /// a snapshot; `u64::MAX` with a leader's snapshot, which replaces the whole log.
    pub compact_to: Option<u64>,
}

/// A snapshot on disk or on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// The last log index it covers.
    pub index: u64,
    /// The snapshot, encoded by raft-rs, state included.
    pub encoded: Vec<u8>,
}

/// What a watcher finds on its disk when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Raft's hard state; absent on a first start.
    pub hard_state: Option<Vec<u8>>,
    /// The newest snapshot.
    pub snapshot: Option<StoredSnapshot>,
    /// The log entries after it, without gaps.
    pub entries: Vec<(u64, Vec<u8>)>,
}
