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
    /// A majority gets no answer from the primary's host, and no replica hears it.
    PrimaryUnreachable = "primary_unreachable";
    /// The primary accepts connections, answers no majority, and no replica hears it.
    PrimaryHung = "primary_hung";
    /// Some watchers cannot reach the primary, but others or its replicas do.
    PrimaryUnreachableInPart = "primary_unreachable_in_part";
    /// The primary runs but lets no watcher in: too many connections, starting, account refused.
    PrimaryUseless = "primary_useless";
    /// The primary came back without transactions that its replicas hold.
    PrimaryLostTransactions = "primary_lost_transactions";
    /// The primary takes no writes although it should.
    PrimaryReadOnly = "primary_read_only";
    /// The primary answers, but a write on it does not end.
    PrimaryStalled = "primary_stalled";
    /// There is no primary, no procedure is open, and the former one is back.
    RouteClosed = "route_closed";
    /// Another server takes writes.
    SecondWriter = "second_writer";
    /// Commits on the primary wait and too few replicas are there to acknowledge.
    CommitsBlocked = "commits_blocked";
    /// The cluster is to be lossless and commits do not wait as they should.
    Unprotected = "unprotected";
    /// Acknowledgements come from the primary's own data center for lack of others.
    AcknowledgedNearby = "acknowledged_nearby";
    /// A replica holds transactions that the primary does not have.
    ReplicaDiverged = "replica_diverged";
    /// Replication stopped with an error.
    ReplicaBroken = "replica_broken";
    /// A server does not follow the primary, or its replication is stopped, without an error.
    ReplicaAstray = "replica_astray";
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
    /// Why a response to it makes no sense, as what would be right; `None` when it does.
    pub fn senseless(self, respond: Respond) -> Option<&'static str> {
        let replaces = matches!(
            self,
            FindingKind::PrimaryDead
                | FindingKind::PrimaryUnreachable
                | FindingKind::PrimaryHung
                | FindingKind::PrimaryUseless
                | FindingKind::PrimaryLostTransactions
                | FindingKind::PrimaryReadOnly
                | FindingKind::PrimaryStalled
                | FindingKind::RouteClosed
        );
        let repairs = matches!(
            self,
            FindingKind::PrimaryReadOnly
                | FindingKind::RouteClosed
                | FindingKind::SecondWriter
                | FindingKind::Unprotected
                | FindingKind::AcknowledgedNearby
                | FindingKind::ReplicaAstray
        );
        match respond {
            Respond::FailOver if !replaces => Some("alert or nothing; the primary is not lost"),
            Respond::Repair if !repairs => Some("alert or nothing; there is no repair for it"),
            Respond::FailOver | Respond::Repair | Respond::Alert | Respond::Nothing => None,
        }
    }
}
