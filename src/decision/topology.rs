//! The declared world: names, servers, clusters and how long things may take.

use super::rules::RuleSet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// One replication cluster as the configuration declares it, without secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSpec {
    /// Its name, unique in the configuration.
    pub name: ClusterName,
    /// The database servers, in declared order.
    pub servers: Vec<ServerSpec>,
    /// What an acknowledged commit must survive.
    pub durability: Durability,
    /// What to do about findings.
    pub rules: RuleSet,
    /// The largest lag at which a replica still serves reads.
    pub max_replica_lag: Duration,
}

impl ClusterSpec {
    /// The declared server of that name.
    pub fn server(&self, name: &ServerName) -> Option<&ServerSpec> {
        self.servers.iter().find(|server| &server.name == name)
    }

    /// The declared server at that address, as a replica reports its source.
    pub fn server_at(&self, address: &Endpoint) -> Option<&ServerSpec> {
        self.servers.iter().find(|server| &server.address == address)
    }

    /// Whether its servers stand in more than one data center.
    pub fn spans_data_centers(&self) -> bool {
        self.servers.windows(2).any(|pair| pair[0].data_center != pair[1].data_center)
    }
}

/// One database server as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSpec {
    /// Its name, unique in the configuration.
    pub name: ServerName,
    /// Where it accepts MySQL connections.
    pub address: Endpoint,
    /// Where it stands.
    pub data_center: DataCenter,
    /// How welcome it is as a primary.
    pub promotion: Promotion,
    /// A replica that it may follow instead of the primary.
    pub follows: Option<ServerName>,
    /// Where it lets administrators in when all its connections are taken.
    pub admin_address: Option<Endpoint>,
    /// What takes it out of service from outside.
    pub fence: Option<Fence>,
}

impl ServerSpec {
    /// A server of which nothing else is said.
    pub fn new(name: ServerName, address: Endpoint, data_center: DataCenter) -> ServerSpec {
        ServerSpec {
            name,
            address,
            data_center,
            promotion: Promotion::default(),
            follows: None,
            admin_address: None,
            fence: None,
        }
    }
}

/// A command that takes a server out of service, whatever state it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// After which it is killed and counts as failed.
    pub limit: Duration,
}

/// What an acknowledged commit must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Semi-sync without fall-back: no acknowledged row is lost by a failover.
    Lossless {
        /// Which replicas may acknowledge a commit.
        acknowledged_in: AcknowledgedIn,
    },
    /// Asynchronous replication is allowed; the gap is measured and shown.
    BestEffort {
        /// What becomes of routes when the watchers lose their quorum.
        on_quorum_loss: OnQuorumLoss,
    },
}

/// Which replicas may acknowledge a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcknowledgedIn {
    /// Only replicas outside the primary's data center.
    OtherDataCenter,
    /// Any replica that may be promoted.
    Any,
}

/// What becomes of routes when the watchers lose their quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnQuorumLoss {
    /// Leases run out and proxies stop forwarding.
    Fence,
    /// Proxies keep the last route they were granted.
    Keep,
}

/// How welcome a server is as a primary, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Promotion {
    /// Taken before others of equal position.
    Prefer,
    /// No preference.
    #[default]
    Neutral,
    /// Taken only when nobody better is left.
    Avoid,
    /// Never promoted, not even by an operator's request without naming it.
    Never,
}

/// The database product a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flavor {
    /// MySQL and Percona Server, 8.0 to 9.x.
    #[serde(rename = "mysql")]
    MySql,
    /// MariaDB, 10.5 to 11.x.
    #[serde(rename = "mariadb")]
    MariaDb,
}

impl fmt::Display for Flavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flavor::MySql => "MySQL",
            Flavor::MariaDb => "MariaDB",
        })
    }
}

/// A server's version number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// 9 in 9.7.4.
    pub major: u16,
    /// 7 in 9.7.4.
    pub minor: u16,
    /// 4 in 9.7.4.
    pub patch: u16,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// How long things take and may take; one set for the whole configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two probes of one server by one watcher.
    pub probe_interval: Duration,
    /// After which an unanswered probe counts as failed.
    pub probe_timeout: Duration,
    /// Between two heartbeats of the replication stream of an idle primary.
    pub replication_heartbeat: Duration,
    /// How long a route lease lasts.
    pub lease: Duration,
    /// Between two renewals of a lease by a proxy.
    pub lease_renewal: Duration,
    /// Raft's unit of time.
    pub raft_tick: Duration,
    /// Raft heartbeats are sent every so many ticks.
    pub raft_heartbeat_ticks: u32,
    /// A follower that hears nothing for so many ticks may start an election.
    pub raft_election_ticks: u32,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            probe_interval: Duration::from_millis(200),
            probe_timeout: Duration::from_millis(500),
            replication_heartbeat: Duration::from_millis(250),
            lease: Duration::from_secs(2),
            lease_renewal: Duration::from_millis(500),
            raft_tick: Duration::from_millis(50),
            raft_heartbeat_ticks: 2,
            raft_election_ticks: 14,
        }
    }
}

impl Timing {
    /// The shortest silence after which followers may elect another leader.
    pub fn election_min(&self) -> Duration {
        self.raft_tick * self.raft_election_ticks
    }

    /// Added to a lease before the leader counts it as over: two clocks of up to 5 % different
    /// rates, and one tick of scheduling.
    pub fn lease_margin(&self) -> Duration {
        self.lease / 10 + self.raft_tick
    }
}

/// A host and port, printed `host:port`, or `[v6]:port`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    /// A name or an address, without brackets.
    pub host: String,
    /// Never zero.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Endpoint, EndpointError> {
        let wrong = || EndpointError(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(wrong)?,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
        if bare.is_empty() || port == 0 || !bare.chars().all(plain) {
            return Err(wrong());
        }
        Ok(Endpoint { host: bare.to_owned(), port })
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Endpoint, EndpointError> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> String {
        endpoint.to_string()
    }
}

/// A text that is no `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address; write host:port, for example 10.1.0.11:3306 or [fd00::1]:3306")]
pub struct EndpointError(String);

/// A server's full name: its cluster and its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServerKey {
    /// The cluster it is declared in.
    pub cluster: ClusterName,
    /// Its name.
    pub server: ServerName,
}

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.server)
    }
}

/// Clusters by name, as every watcher and proxy holds them.
pub type Clusters = BTreeMap<ClusterName, Arc<ClusterSpec>>;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> $name {
                $name(text.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// A cluster's name.
    ClusterName;
    /// A database server's name.
    ServerName;
    /// A watcher's id.
    WatcherName;
    /// A proxy's id.
    ProxyName;
    /// A data center's name.
    DataCenter;
    /// A backup schedule's name, unique within its cluster.
    ScheduleName;
}

/// Counts the changes of primary of one cluster; grows only through Raft.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn endpoints_read_back_as_they_print() {
        for text in ["10.1.0.11:3306", "db-1.example.org:1", "[fd00::1]:3306"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in ["", "db1", "db1:", "db1:0", ":3306", "fd00::1:3306", "db 1:3306", "a:99999"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?} was taken");
        }
    }
}
