//! The configuration file: read whole, checked whole, every mistake named with its place.

pub mod secret;
pub mod starter;

use crate::decision::topology::{ClusterSpec, DataCenter, Endpoint, Timing, WatcherName};
use secret::Secret;
use std::path::Path;
use std::time::Duration;

/// A whole, checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// All watchers; an odd number.
    pub watchers: Vec<WatcherSpec>,
    /// All clusters.
    pub clusters: Vec<ClusterConfig>,
    /// How long things take and may take.
    pub timing: Timing,
}

/// One watcher as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatcherSpec {
    /// Its id.
    pub id: WatcherName,
    /// Where it stands.
    pub data_center: DataCenter,
    /// Where it listens for other watchers and for proxies.
    pub peer: Endpoint,
    /// Where it listens for HTTP.
    pub api: Endpoint,
}

/// One cluster with what only the runtime and the proxy need.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// What decisions need.
    pub spec: ClusterSpec,
    /// The accounts to use on its servers.
    pub credentials: Credentials,
    /// Where proxies listen for it, if they do.
    pub proxy: Option<ProxyListen>,
}

/// The accounts to use on a cluster's servers.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Probes and acts.
    pub monitor: Account,
    /// Replicas use it at their source.
    pub replication: Account,
}

/// One account.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

/// Where proxies listen for one cluster.
#[derive(Clone, Debug)]
pub struct ProxyListen {
    /// Connections to the primary.
    pub write: Endpoint,
    /// Connections to replicas.
    pub read: Option<Endpoint>,
    /// How long a new connection waits for a primary before it gets an error.
    pub hold: Duration,
    /// How many client connections one proxy carries for this cluster at the most.
    pub max_connections: usize,
}

/// A configuration that can be used, and what its author should think about again.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Doubtful choices, in the order of the file.
    pub warnings: Vec<String>,
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigErrors(pub String);

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Loaded, ConfigErrors> {
        Err(ConfigErrors(format!(
            "{} cannot be read by this build",
            path.display()
        )))
    }
}
