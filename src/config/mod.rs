//! The configuration file: read whole, checked whole, every mistake named with its place.

pub mod agents;
pub mod backups;
pub mod binlogs;
mod clusters;
mod credentials;
pub mod fields;
mod fingerprint;
mod problems;
pub mod proofs;
mod reader;
mod rules;
pub mod schedules;
pub mod secret;
pub mod starter;
pub mod storing;
mod timing;
mod tree;
mod values;
mod watchers;

pub use problems::{ConfigErrors, Problem};
pub use rules::rules_named;
pub use tree::Position;

use crate::decision::backup::archive::account;
use crate::decision::backup::chore::{Chore, Chores};
use crate::decision::backup::declared::Schedules;
use crate::decision::backup::proofs::{AllWanted, Wanted};
use crate::decision::topology::{ClusterSpec, Clusters, DataCenter, Endpoint, Timing, WatcherName};
use reader::{Field, Reading};
use secret::Secret;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// No configuration of thousands of servers comes near it.
const MOST_BYTES: u64 = 1024 * 1024;

/// A whole, checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// All watchers; an odd number.
    pub watchers: Vec<WatcherSpec>,
    /// All clusters.
    pub clusters: Vec<ClusterConfig>,
    /// How long things take and may take.
    pub timing: Timing,
    /// What protects watchers that may be reached from outside; without it none may.
    pub security: Option<Security>,
}

/// A configuration that can be used, and what its author should think about again.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Doubtful choices, in the order of the file.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// Reads and checks a file; relative paths in it start from its directory.
    ///
    /// Touches the file, the password files and the environment; fails with every mistake found.
    pub fn load(path: &Path) -> Result<Loaded, ConfigErrors> {
        Config::load_with(path, false)
    }

    /// As [`Config::load`], where most secrets are not: those that cannot be read are empty.
    pub fn load_beside_a_server(path: &Path) -> Result<Loaded, ConfigErrors> {
        Config::load_with(path, true)
    }

    fn load_with(path: &Path, secrets_elsewhere: bool) -> Result<Loaded, ConfigErrors> {
        let name = path.display().to_string();
        let refuse = |what: String| {
            let at = Position { line: 1, column: 1 };
            let file = name.clone();
            ConfigErrors::new(vec![Problem { at, path: String::new(), what, file }])
        };
        let mut bytes = Vec::new();
        let read =
            File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
        read.map_err(|error| refuse(format!("cannot be read: {error}; name a readable file")))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            refuse(format!("line {} is not UTF-8; save the file as UTF-8", line + 1))
        })?;
        let base = path.parent().unwrap_or(Path::new(""));
        let environment = |variable: &str| std::env::var(variable).ok();
        let mut reading = Reading::new(&name, &environment, base);
        reading.secrets_elsewhere = secrets_elsewhere;
        Config::read(reading, &text)
    }

    /// Checks a text: `name` stands for the file in messages, `env` finds variables, relative
    /// paths start from `base_dir`.
    pub fn parse(
        name: &str,
        text: &str,
        env: &dyn Fn(&str) -> Option<String>,
        base_dir: &Path,
    ) -> Result<Loaded, ConfigErrors> {
        Config::read(Reading::new(name, env, base_dir), text)
    }

    fn read(mut reading: Reading<'_>, text: &str) -> Result<Loaded, ConfigErrors> {
        let config = if text.len() as u64 > MOST_BYTES {
            let at = Position { line: 1, column: 1 };
            reading.error(at, "", "is larger than 1 MiB; declare fewer servers".to_owned());
            None
        } else {
            match tree::read(text) {
                Ok(root) => read_file(&mut reading, &root),
                Err(error) => {
                    reading.error(error.at, "", error.what);
                    None
                }
            }
        };
        match config {
            Some(config) if reading.errors.is_empty() => {
                reading.warnings.sort();
                Ok(Loaded { config, warnings: reading.warnings })
            }
            _ => Err(ConfigErrors::new(reading.errors)),
        }
    }

    /// What decisions need of all clusters, by name.
    pub fn clusters(&self) -> Clusters {
        let pair =
            |cluster: &ClusterConfig| (cluster.spec.name.clone(), Arc::new(cluster.spec.clone()));
        self.clusters.iter().map(pair).collect()
    }

    /// The schedules of all clusters that have any.
    pub fn schedules(&self) -> Schedules {
        let of = |cluster: &ClusterConfig| {
            let scheduled = &cluster.backups.as_ref()?.schedules;
            let declared: Vec<_> = scheduled.iter().map(|it| it.declared.clone()).collect();
            (!declared.is_empty()).then(|| (cluster.spec.name.clone(), declared))
        };
        self.clusters.iter().filter_map(of).collect()
    }

    /// The standing work for backups of all clusters that have any.
    pub fn chores(&self) -> Chores {
        let proven = self.proofs().into_keys().map(|name| (name, Chore::Prove));
        let archived = self.archives().into_keys().map(|name| (name, Chore::Archive));
        let mut chores = Chores::new();
        for (name, chore) in proven.chain(archived) {
            chores.entry(name).or_default().insert(chore);
        }
        chores
    }

    /// Where the watchers archive binary logs, of all clusters that want that.
    pub fn archives(&self) -> account::AllWanted {
        let of = |cluster: &ClusterConfig| {
            let binlogs = &cluster.backups.as_ref()?.binlogs;
            let (target, alert_after) = (binlogs.archive_to.clone()?, binlogs.alert_after);
            Some((cluster.spec.name.clone(), account::Wanted { target, alert_after }))
        };
        self.clusters.iter().filter_map(of).collect()
    }

    /// What is wanted of proofs, of all clusters that want any.
    pub fn proofs(&self) -> AllWanted {
        let of = |cluster: &ClusterConfig| {
            let backups = cluster.backups.as_ref()?;
            let alert_after = backups.verify.proving.as_ref()?.alert_after;
            let wanted = Wanted { targets: backups.proven_targets(), alert_after };
            Some((cluster.spec.name.clone(), wanted))
        };
        self.clusters.iter().filter_map(of).collect()
    }

    /// The watcher of that id.
    pub fn watcher(&self, id: &WatcherName) -> Option<&WatcherSpec> {
        self.watchers.iter().find(|watcher| &watcher.id == id)
    }
}

fn read_file(reading: &mut Reading<'_>, root: &tree::Node) -> Option<Config> {
    if matches!(root.kind, tree::Kind::Null) {
        let at = Position { line: 1, column: 1 };
        let what = "the file is empty; `regent init DIR` writes one to start from";
        reading.error(at, "", what.to_owned());
        return None;
    }
    let field = Field { node: root, path: String::new(), secret: false };
    let file = reading.section(&field, fields::FILE)?;
    let security = watchers::security(reading, &file);
    let (watchers, watched) = watchers::watchers(reading, &file);
    let clusters = clusters::clusters(reading, &file, &watched);
    let timing = timing::timing(reading, &file);
    Some(Config { watchers, clusters, timing, security })
}

/// What protects connections between watchers, proxies and people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// Certificates and tokens.
    Files(SecurityFiles),
    /// Nothing, by explicit choice: whoever reaches a watcher may do all that a watcher may.
    Insecure,
}

/// Where certificates and tokens lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityFiles {
    /// The authority that signed every certificate.
    pub ca: PathBuf,
    /// This process's certificate.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The tokens that people and programs identify themselves with.
    pub tokens: PathBuf,
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
    /// How it is backed up, if it is.
    pub backups: Option<backups::Backups>,
    /// Who stands beside its servers.
    pub agents: agents::Agents,
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
