//! Why a moment cannot be reached, and what can be had instead.

use super::history::Hole;
use super::names::SegmentName;
use crate::clock::WallTime;
use crate::decision::backup::manifest::Kind;
use crate::decision::backup::names::BackupId;

/// Why a moment cannot be reached.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoWay {
    /// There is no archive.
    #[error("no binary log of {0} is archived at {1}; 'regent backup archive' does that")]
    NothingArchived(String, String),
    /// No backup is old enough.
    #[error("no {kind} backup is from before {until}; {oldest}{}", instead(.kind, .other))]
    NoBackup {
        /// What kind is asked for.
        kind: Kind,
        /// The moment.
        until: String,
        /// The oldest one.
        oldest: String,
        /// One of the other kind that would do.
        other: Option<BackupId>,
    },
    /// The backup that was named is not there.
    #[error("the target holds no backup {0}; 'regent backup list' shows those it holds")]
    NoSuchBackup(BackupId),
    /// The backup that was named is of the other kind.
    #[error("backup {backup} is {kind}: {}", way(*.kind))]
    OtherKind {
        /// The backup.
        backup: BackupId,
        /// What it is.
        kind: Kind,
    },
    /// The backup that was named is too new.
    #[error("backup {backup} ended at {ended}, and {until} was before that; name an older one")]
    TooNew {
        /// The backup.
        backup: BackupId,
        /// When it ended.
        ended: WallTime,
        /// The moment.
        until: String,
    },
    /// The backup holds the transaction already.
    #[error("backup {0} holds transaction {1} already; name an older one")]
    Holds(BackupId, String),
    /// The backup holds what the history that is followed does not.
    #[error("backup {0} holds {1}, which a failover lost; name an older one")]
    HoldsLost(BackupId, String),
    /// Archived transactions end before the moment.
    #[error("the archive reaches up to {reaches}, not to {until}")]
    NotYet {
        /// Up to when.
        reaches: WallTime,
        /// The moment.
        until: String,
    },
    /// The transaction is in no segment.
    #[error(
        "transaction {gtid} is in no segment; those archived from {from} to {to} were searched"
    )]
    Unknown {
        /// The transaction.
        gtid: String,
        /// The earliest commit of those.
        from: WallTime,
        /// The latest commit of those.
        to: WallTime,
    },
    /// Transactions are missing in between.
    #[error(
        "transactions committed after {} and before {} are missing ({}); from backup {backup} every \
         moment up to {} can be restored",
        .hole.after, .hole.until, .hole.cause, .hole.after
    )]
    Hole {
        /// The backup.
        backup: BackupId,
        /// Where.
        hole: Hole,
    },
    /// The archive begins too late.
    #[error(
        "the archive begins at {begins}, and transactions between that and backup {backup} are not in \
         it; restore a newer backup"
    )]
    BeginsLater {
        /// The backup.
        backup: BackupId,
        /// The archive's earliest commit.
        begins: WallTime,
    },
    /// Two segments do not fit together.
    #[error("segment {0} does not begin where the one before it ends, {1}; one of them is damaged")]
    Broken(SegmentName, SegmentName),
}

/// How a backup of that kind is brought to a moment.
fn way(kind: Kind) -> &'static str {
    match kind {
        Kind::Logical => "restore it into a new server, with --into",
        Kind::Physical => "restore it into an empty directory, with --data-dir",
    }
}

/// That one of the other kind than that would do.
fn instead(kind: &Kind, backup: &Option<BackupId>) -> String {
    let other = match kind {
        Kind::Logical => Kind::Physical,
        Kind::Physical => Kind::Logical,
    };
    let said = backup.as_ref().map(|backup| format!("; {backup} is {other}: {}", way(other)));
    said.unwrap_or_default()
}
