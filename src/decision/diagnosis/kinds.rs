//! Kinds of finding, in the order of their importance.

use crate::decision::rules::Respond;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $word:literal;)*) => {
        /// Kinds of finding, most important first: the first one that has a response gets it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum FindingKind {
            $($(#[$doc])* #[serde(rename = $word)] $kind,)*
        }

        /// All kinds, in order.
        pub const ALL_KINDS: &[FindingKind] = &[$(FindingKind::$kind,)*];

        impl fmt::Display for FindingKind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(FindingKind::$kind => $word,)* })
            }
        }
    };
}

kinds! {
    /// Nobody has said yet which server is the primary, or the topology leaves it open.
    NotAdopted = "not_adopted";
    /// Too few watchers report, so nothing can be said.
    WatchersMissing = "watchers_missing";
    /// A majority of watchers finds nobody listening where the primary was.
    PrimaryDead = "primary_dead";
    /// Neither the primary nor any watcher of its data center is heard of: the place is lost or cut
    /// off, and no replica elsewhere hears it.
    PrimaryIsolated = "primary_isolated";
    /// A few watchers reach the primary, a majority and all replicas do not.
    PrimaryReachableToFew = "primary_reachable_to_few";
    /// A majority gets no answer from the primary's host, and no replica hears it.
    PrimaryUnreachable = "primary_unreachable";
    /// The primary accepts connections, answers no majority, and no replica hears it.
    PrimaryHung = "primary_hung";
    /// Some watchers cannot reach the primary, but others or its replicas do.
    PrimaryUnreachableInPart = "primary_unreachable_in_part";
    /// The primary answers no majority in time, but replicas hear it: it is busy, not dead.
    PrimaryOverloaded = "primary_overloaded";
    /// The primary runs but lets no watcher in: too many connections, starting, account refused.
    PrimaryUseless = "primary_useless";
    /// The primary came back without transactions that its replicas hold.
    PrimaryLostTransactions = "primary_lost_transactions";
    /// The primary takes no writes although it should.
    PrimaryReadOnly = "primary_read_only";
    /// The primary follows another server of its cluster.
    PrimaryAstray = "primary_astray";
    /// The primary's storage has no room left.
    PrimaryStorageFull = "primary_storage_full";
    /// The primary's storage refuses writes: read-only or broken.
    PrimaryStorageFailing = "primary_storage_failing";
    /// The primary answers, but a write on it does not end.
    PrimaryStalled = "primary_stalled";
    /// Watchers reach the primary, but none of its replicas hears it.
    PrimaryCannotReplicate = "primary_cannot_replicate";
    /// The primary ceases to answer and comes back, again and again.
    PrimaryFlapping = "primary_flapping";
    /// All connections of the primary are taken.
    PrimaryCrowded = "primary_crowded";
    /// There is no primary, no procedure is open, and the former one is back.
    RouteClosed = "route_closed";
    /// Another server takes writes.
    SecondWriter = "second_writer";
    /// A replica that follows the primary could be written to.
    ReplicaWritable = "replica_writable";
    /// Commits on the primary wait and too few replicas are there to acknowledge.
    CommitsBlocked = "commits_blocked";
    /// Commits do not wait, as the rules chose, until a replica is back to acknowledge.
    Degraded = "degraded";
    /// The cluster is to be lossless and commits do not wait as they should.
    Unprotected = "unprotected";
    /// Acknowledgements come from the primary's own data center for lack of others.
    AcknowledgedNearby = "acknowledged_nearby";
    /// A replica holds transactions that the primary does not have.
    ReplicaDiverged = "replica_diverged";
    /// A replica's data is being replaced, or that began and did not end.
    ReplicaIncomplete = "replica_incomplete";
    /// Replication stopped with an error.
    ReplicaBroken = "replica_broken";
    /// A server follows nobody, or another server than it should.
    ReplicaAstray = "replica_astray";
    /// A replica neither receives nor applies, or only one of both, without an error.
    ReplicaStopped = "replica_stopped";
    /// A replica does not get through to the primary, which the watchers reach.
    ReplicaDisconnected = "replica_disconnected";
    /// A replica cannot be reached.
    ReplicaUnreachable = "replica_unreachable";
    /// A replica is further behind than reads allow.
    ReplicaLagging = "replica_lagging";
    /// A replica is delayed on purpose.
    ReplicaDelayed = "replica_delayed";
    /// No replica could be promoted.
    NoCandidate = "no_candidate";
    /// A setting endangers promotion or durability.
    SettingEndangers = "setting_endangers";
}

impl FindingKind {
    /// Whether it says that the primary is lost. A primary that is being lost may be found refused,
    /// hung and unreachable in turn, and that is one loss.
    pub fn is_loss(self) -> bool {
        matches!(
            self,
            FindingKind::PrimaryDead
                | FindingKind::PrimaryIsolated
                | FindingKind::PrimaryReachableToFew
                | FindingKind::PrimaryUnreachable
                | FindingKind::PrimaryHung
        )
    }

    /// Why a response to it makes no sense, as what would be right; `None` when it does.
    pub fn senseless(self, respond: Respond) -> Option<&'static str> {
        let other_reasons = matches!(
            self,
            FindingKind::PrimaryOverloaded
                | FindingKind::PrimaryUseless
                | FindingKind::PrimaryLostTransactions
                | FindingKind::PrimaryReadOnly
                | FindingKind::PrimaryStorageFull
                | FindingKind::PrimaryStorageFailing
                | FindingKind::PrimaryStalled
                | FindingKind::PrimaryCannotReplicate
                | FindingKind::PrimaryFlapping
                | FindingKind::PrimaryCrowded
                | FindingKind::RouteClosed
        );
        let replaces = self.is_loss() || other_reasons;
        let repairs = matches!(
            self,
            FindingKind::PrimaryReadOnly
                | FindingKind::PrimaryAstray
                | FindingKind::RouteClosed
                | FindingKind::SecondWriter
                | FindingKind::ReplicaWritable
                | FindingKind::Unprotected
                | FindingKind::AcknowledgedNearby
                | FindingKind::ReplicaAstray
                | FindingKind::ReplicaStopped
        );
        let rejoins = matches!(
            self,
            FindingKind::ReplicaDiverged
                | FindingKind::ReplicaIncomplete
                | FindingKind::ReplicaBroken
        );
        match respond {
            Respond::Rejoin if !rejoins => Some("alert or nothing; its history is not in question"),
            Respond::FailOver if !replaces => Some("alert or nothing; the primary is not lost"),
            Respond::Repair if !repairs => Some("alert or nothing; there is no repair for it"),
            Respond::Degrade if self != FindingKind::CommitsBlocked => {
                Some("alert or nothing; only commits_blocked can be answered so")
            }
            Respond::FailOver
            | Respond::Repair
            | Respond::Degrade
            | Respond::Rejoin
            | Respond::Alert
            | Respond::Nothing => None,
        }
    }
}
