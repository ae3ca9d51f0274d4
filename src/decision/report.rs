//! What a probe saw of one server.

use super::gtid::Gtids;
use super::topology::{Endpoint, Flavor, ServerSpec, Version};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// What one probe of one server saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sight {
    /// It answered in time, and this is its status.
    Alive(Box<Status>),
    /// Its host answered that nobody listens, or the server closed the connection on us.
    Refused,
    /// No answer from its host within the limit.
    Unreachable,
    /// It accepted the connection and then did not answer within the limit.
    Hung,
    /// It runs but cannot serve.
    Useless(Trouble),
    /// It runs but does not let this watcher in, so nothing is known of it.
    Denied,
    /// It answered something that is not understood; the text says what.
    Strange(String),
}

impl Sight {
    /// The status, when there is one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Sight::Alive(status) => Some(status),
            Sight::Refused
            | Sight::Unreachable
            | Sight::Hung
            | Sight::Useless(_)
            | Sight::Denied
            | Sight::Strange(_) => None,
        }
    }

    /// Whether the server process is shown to run, in whatever state.
    pub fn shows_life(&self) -> bool {
        match self {
            Sight::Alive(_) | Sight::Useless(_) | Sight::Denied | Sight::Strange(_) => true,
            Sight::Refused | Sight::Unreachable | Sight::Hung => false,
        }
    }

    /// Whether two sights are of one kind, whatever the details.
    pub fn same_kind(&self, other: &Sight) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sight::Alive(_) => f.write_str("alive"),
            Sight::Refused => f.write_str("connection refused"),
            Sight::Unreachable => f.write_str("no answer from its host"),
            Sight::Hung => f.write_str("accepts connections but does not answer"),
            Sight::Useless(trouble) => write!(f, "runs but cannot serve: {trouble}"),
            Sight::Denied => f.write_str("refuses the monitor account"),
            Sight::Strange(what) => write!(f, "gave an answer not understood: {what}"),
        }
    }
}

/// Why a running server cannot serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// All connection slots are taken.
    TooManyConnections,
    /// It is starting, stopping or recovering.
    NotReady,
    /// Its storage has no room left, not even for what it needs to tell its status.
    NoRoom,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Trouble::TooManyConnections => "too many connections",
            Trouble::NotReady => "starting, stopping or recovering",
            Trouble::NoRoom => "its storage has no room left",
        })
    }
}

/// Why a server refuses a row, by the number of its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageFault {
    /// No room is left.
    Full,
    /// Read-only or broken: a file cannot be made or written.
    Failing,
}

/// A server's state, read in one round trip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Product.
    pub flavor: Flavor,
    /// Version number.
    pub version: Version,
    /// `server_id`.
    pub server_id: u32,
    /// `server_uuid`; absent on MariaDB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Whether ordinary accounts can write.
    pub writable: Writable,
    /// Every transaction it has committed.
    pub executed: Gtids,
    /// How far it got by replication, where it tells that apart: MariaDB's `gtid_slave_pos`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicated: Option<Gtids>,
    /// Its replication channels; empty on a server that follows nobody.
    #[serde(default)]
    pub channels: Vec<Channel>,
    /// Semi-synchronous replication.
    #[serde(default)]
    pub semi_sync: SemiSync,
    /// Settings that matter to promotion.
    #[serde(default)]
    pub settings: Settings,
    /// Whether all connections for ordinary accounts are taken.
    #[serde(default)]
    pub crowded: bool,
}

impl Status {
    /// Everything it holds, applied or only received.
    pub fn received(&self) -> Gtids {
        self.channels
            .iter()
            .fold(self.executed.clone(), |all, channel| all.union(&channel.received))
    }

    /// What it has committed and the holder of `other` has not.
    pub fn beyond(&self, other: &Gtids) -> Gtids {
        self.executed.minus(&self.met(other))
    }

    /// What the holder of `other` has, and how much of this server's own is sure to be in it although
    /// that holder names this server nowhere.
    ///
    /// MariaDB's positions name few origins, so that of the others only the newest number of all can
    /// be compared. But where this server follows, whatever it numbered itself after the last that it
    /// was sent it wrote alone, even if others have passed that number since.
    pub fn met(&self, other: &Gtids) -> Gtids {
        match &self.replicated {
            Some(replicated) if !self.channels.is_empty() => {
                other.naming(self.server_id, replicated)
            }
            _ => other.clone(),
        }
    }

    /// The channel Regent manages: the unnamed one, else the only one.
    pub fn channel(&self) -> Option<&Channel> {
        let unnamed = self.channels.iter().find(|channel| channel.name.is_empty());
        unnamed.or(match self.channels.as_slice() {
            [only] => Some(only),
            _ => None,
        })
    }
}

/// Whether ordinary accounts can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Writable {
    /// Anyone with the privilege on the table.
    Open,
    /// Only privileged accounts (`read_only`).
    ReadOnly,
    /// Nobody (`super_read_only`; on MariaDB `read_only`, as it has no stronger one).
    Closed,
}

/// One replication channel of a replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// Empty for the default channel.
    #[serde(default)]
    pub name: String,
    /// Whom it follows.
    pub source: Endpoint,
    /// The thread that receives.
    pub receiver: Receiver,
    /// Whether the thread that applies runs.
    pub applying: bool,
    /// What it has received, applied or not, since the relay log began.
    pub received: Gtids,
    /// Counts the source's heartbeats and events; any growth proves that the source was alive.
    #[serde(default)]
    pub beats: u64,
    /// How far the applier is behind the source's clock; unknown while it is not applying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<Duration>,
    /// A delay somebody configured on purpose.
    #[serde(default)]
    pub delay: Duration,
    /// What stopped it, without its text on purpose: no decision reads error text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ReplicationError>,
    /// Whether it positions itself by GTID.
    #[serde(default)]
    pub by_gtid: bool,
    /// The number of the error with which its last attempt to connect ended, while it tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turned_away: Option<u32>,
}

impl Channel {
    /// What stopped its applier; an error that only says that the source was out of reach did not.
    pub fn applier_error(&self) -> Option<&ReplicationError> {
        self.error.as_ref().filter(|error| !self.applying && !error.passes())
    }

    /// A channel from that source on which all is well.
    pub fn steady(source: &ServerSpec, received: &Gtids) -> Channel {
        Channel {
            name: String::new(),
            source: source.address.clone(),
            receiver: Receiver::Connected,
            applying: true,
            received: received.clone(),
            beats: 0,
            lag: Some(Duration::ZERO),
            delay: Duration::ZERO,
            error: None,
            by_gtid: true,
            turned_away: None,
        }
    }

    /// Whether it tries to receive and nothing but the way to its source, or the source itself,
    /// keeps it from that. A source that answers with an error is another matter.
    pub fn listens(&self) -> bool {
        let by_network = self.turned_away.is_none_or(|code| (2000..3000).contains(&code));
        match self.receiver {
            Receiver::Connected => true,
            Receiver::Connecting => by_network,
            Receiver::Stopped => false,
        }
    }
}

/// What stopped a replication thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationError {
    /// The server's error number.
    pub code: u32,
    /// The server's own words, cut to 200 characters, for people.
    pub text: String,
}

impl ReplicationError {
    /// Whether it only says that the source was out of reach, which ends by itself.
    pub fn passes(&self) -> bool {
        (2000..3000).contains(&self.code)
    }
}

/// The state of a replica's receiving thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Receiver {
    /// Connected to its source.
    Connected,
    /// Running, but without a connection.
    Connecting,
    /// Not running.
    Stopped,
}

/// Semi-synchronous replication on one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SemiSync {
    /// Whether the feature can be switched on (plugin loaded or built in).
    #[serde(default)]
    pub available: bool,
    /// Whether commits here wait for acknowledgements.
    #[serde(default)]
    pub source: bool,
    /// Whether this replica acknowledges.
    #[serde(default)]
    pub replica: bool,
    /// How many acknowledgements a commit waits for.
    #[serde(default)]
    pub acks: u32,
    /// After how long a commit stops waiting.
    #[serde(default)]
    pub timeout: Duration,
    /// How many acknowledging replicas are connected.
    #[serde(default)]
    pub clients: u32,
    /// How many sessions wait for an acknowledgement right now.
    #[serde(default)]
    pub waiting: u32,
}

/// Settings that matter to promotion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Whether the binary log is on.
    pub binlog: bool,
    /// Whether a replica writes what it applies to its own binary log.
    pub logs_replica_updates: bool,
    /// Whether GTIDs are in force (`gtid_mode=ON`; `gtid_strict_mode=ON` on MariaDB).
    pub gtids: bool,
    /// Whether a restart throws away received and not yet applied events.
    pub relay_log_recovery: bool,
    /// Whether each commit is synced to disk (`sync_binlog=1`, `innodb_flush_log_at_trx_commit=1`).
    pub durable: bool,
    /// `gtid_mode` in the server's words; absent on MariaDB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gtid_mode: Option<String>,
    /// Whether its next start leaves it writable: no option file, no command line and no persisted
    /// setting closes it. `None` when a statement has hidden what the option file says.
    #[serde(default)]
    pub restarts_open: Option<bool>,
    /// Whether each received event is synced to disk (`sync_relay_log=1`).
    #[serde(default = "yes")]
    pub relay_log_synced: bool,
}

fn yes() -> bool {
    true
}

impl Default for Settings {
    /// The settings Regent recommends.
    fn default() -> Settings {
        Settings {
            binlog: true,
            logs_replica_updates: true,
            gtids: true,
            relay_log_recovery: false,
            durable: true,
            gtid_mode: None,
            restarts_open: Some(false),
            relay_log_synced: true,
        }
    }
}
