//! Assembles the parts into a running watcher or proxy.

use crate::api;
use crate::clock::Clock;
use crate::config::{Config, ConfigErrors, Loaded};
use crate::decision::topology::{DataCenter, Endpoint, ProxyName, WatcherName};
use crate::proxy::{Identity, Proxy, ProxyError};
use crate::runtime::backup::agent::{self, AgentError};
use crate::runtime::disk::{Disk, DiskError};
use crate::runtime::metrics::Metrics;
use crate::runtime::turning::{Parts, Turning, TurningError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long sessions may go on when a proxy is told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// How long a watcher may take to end what it has begun.
const FAREWELL: Duration = Duration::from_secs(8);

/// Why a node could not run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration is not usable.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// The configuration has no watcher of that id.
    #[error("no watcher {id} is declared; declared are {declared}")]
    Undeclared {
        /// The id asked for.
        id: String,
        /// Those there are.
        declared: String,
    },
    /// The metrics address cannot be read.
    #[error("failed to read the metrics address: {0}")]
    Address(#[from] crate::decision::topology::EndpointError),
    /// The store is not usable.
    #[error("failed to open the store: {0}")]
    Disk(#[from] DiskError),
    /// The watcher cannot go on.
    #[error(transparent)]
    Turning(#[from] TurningError),
    /// The API cannot be served.
    #[error(transparent)]
    Api(#[from] api::ServeError),
    /// The proxy could not start.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The agent could not start.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The system refused something.
    #[error("failed to start: {0}")]
    Io(#[from] std::io::Error),
    /// A part ended that must not.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// Runs the watcher `id` until it is told to stop by SIGINT or SIGTERM.
pub async fn watch(config: &Path, id: &str, data_dir: &Path) -> Result<(), NodeError> {
    let config = load(config)?;
    let own = WatcherName::from(id);
    let Some(spec) = config.watcher(&own).cloned() else {
        let declared: Vec<_> = config.watchers.iter().map(|spec| spec.id.to_string()).collect();
        return Err(NodeError::Undeclared { id: id.to_owned(), declared: declared.join(", ") });
    };
    let stop = CancellationToken::new();
    end_by_signal(&stop)?;
    let (disk, stored) = Disk::open(data_dir, &own)?;
    let metrics = Metrics::new();
    let parts = Parts {
        config,
        own,
        seed: draw_seed(),
        exports: data_dir.join("exports"),
        disk,
        stored,
        clock: Clock::start(),
        metrics: metrics.clone(),
        stop: stop.clone(),
    };
    let (turning, handle) = Turning::start(parts).await?;
    info!(peer = %spec.peer, api = %spec.api, "watcher {id} runs");
    let serving = tokio::spawn(api::serve(handle, metrics, spec.api, stop.clone()));
    // As a task: each time the main future is woken, the runtime calls the system to wake itself.
    let mut turning = tokio::spawn(turning.run(stop.clone()));
    let turned = tokio::select! {
        turned = &mut turning => match turned {
            Ok(turned) => turned.map_err(NodeError::from),
            Err(_) => Err(NodeError::Ended("the watcher's loop")),
        },
        served = serving => match served {
            Ok(Ok(())) if stop.is_cancelled() => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) | Err(_) => Err(NodeError::Ended("the API")),
        },
    };
    stop.cancel();
    // What it has begun is taken away before the process ends.
    if !turning.is_finished() {
        let _ = tokio::time::timeout(FAREWELL, turning).await;
    }
    turned
}

/// Runs the proxy `id` until it is told to stop by SIGINT or SIGTERM.
pub async fn proxy(
    config: &Path,
    id: &str,
    data_center: Option<&str>,
    metrics: Option<&str>,
) -> Result<(), NodeError> {
    let config = load(config)?;
    let metrics = metrics.map(str::parse::<Endpoint>).transpose()?;
    let registry = prometheus::Registry::new();
    let told = CancellationToken::new();
    end_by_signal(&told)?;
    let stop = CancellationToken::new();
    let identity =
        Identity { name: ProxyName::from(id), data_center: data_center.map(DataCenter::from) };
    let running = Proxy::start(&config, identity, Clock::start(), &registry, stop.clone()).await?;
    info!("proxy {id} runs");
    let serving = async {
        match metrics {
            Some(address) => api::serve_metrics(registry, address, told.clone()).await,
            None => {
                told.cancelled().await;
                Ok(())
            }
        }
    };
    let served = serving.await;
    running.stop(DRAIN).await;
    stop.cancel();
    Ok(served?)
}

/// Runs the agent of a server until it is told to stop by SIGINT or SIGTERM.
pub async fn agent(config: &Path, server: &str) -> Result<(), NodeError> {
    // Few of the cluster's secrets should lie on a server's host.
    let config = warned(Config::load_beside_a_server(config)?, config);
    let stop = CancellationToken::new();
    end_by_signal(&stop)?;
    Ok(agent::serve(&config, server, stop).await?)
}

fn load(path: &Path) -> Result<Config, NodeError> {
    Ok(warned(Config::load(path)?, path))
}

fn warned(loaded: Loaded, path: &Path) -> Config {
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    info!(fingerprint = loaded.config.fingerprint(), "configuration {} read", path.display());
    loaded.config
}

/// Cancels the token at the first SIGINT or SIGTERM.
fn end_by_signal(stop: &CancellationToken) -> Result<(), std::io::Error> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        info!("told to stop");
        stop.cancel();
    });
    Ok(())
}

/// The one place where randomness enters: the standard library's per-process hash keys.
fn draw_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
