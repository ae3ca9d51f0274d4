//! The proxy: applications connect to it as if it were their database server.
//!
//! [`routes`] decides; everything else here only carries out: `desk` drives the routes and applies
//! their effects, `watchers` keeps a link to every watcher, `session` serves one client and
//! `copying` moves its bytes. A stalled watcher cannot keep a route open: the proxy counts leases
//! itself, and every chunk on its way to a primary is checked against the lease once more.

mod copying;
mod desk;
mod metrics;
pub mod refusal;
pub mod routes;
mod session;
mod watchers;

use crate::clock::Clock;
use crate::config::{Config, ProxyListen};
use crate::decision::topology::{ClusterName, DataCenter, Endpoint, Epoch, ProxyName};
use crate::wire;
use desk::{ClusterDesk, Desk};
use metrics::Metrics;
use refusal::Refusal;
use routes::{Purpose, Routes};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts proxies.
#[derive(Clone, Copy, Debug)]
pub struct Proxy;

/// Who a proxy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name; two proxies must not share one.
    pub name: ProxyName,
    /// Where it stands, for reads nearby.
    pub data_center: Option<DataCenter>,
}

impl Proxy {
    /// Opens all listeners, then starts to ask the watchers for routes.
    ///
    /// Cancelling `stop` ends it at once; [`RunningProxy::stop`] lets sessions finish first.
    pub async fn start(
        config: &Config,
        identity: Identity,
        clock: Clock,
        registry: &prometheus::Registry,
        stop: CancellationToken,
    ) -> Result<RunningProxy, ProxyError> {
        let metrics = Metrics::register(registry).map_err(ProxyError::Metrics)?;
        let mut listeners = Vec::new();
        let mut clusters = BTreeMap::new();
        for cluster in &config.clusters {
            let Some(listen) = &cluster.proxy else {
                continue;
            };
            let name = &cluster.spec.name;
            listeners.push((name.clone(), Purpose::Write, bind(&listen.write).await?));
            if let Some(read) = &listen.read {
                listeners.push((name.clone(), Purpose::Read, bind(read).await?));
            }
            clusters.insert(name.clone(), ClusterDesk::new(name, listen, &metrics));
        }
        if listeners.is_empty() {
            return Err(ProxyError::NothingToDo);
        }
        let routes = Routes::new(config.timing, identity.data_center.clone());
        let fleet = wire::fingerprint(config.watchers.iter().map(|watcher| &watcher.id));
        let hello = wire::Hello::new(wire::Role::Proxy, identity.name.as_str(), fleet);
        let (desk, outboxes) = Desk::new(clock, routes, clusters, &config.watchers);
        let desk = Arc::new(desk);
        let tasks = TaskTracker::new();
        tasks.spawn(ending(stop.clone(), Arc::clone(&desk).keep_time()));
        for (watcher, outbox) in config.watchers.iter().zip(outboxes) {
            let link = watchers::Link::new(watcher, hello.clone(), Arc::clone(&desk));
            tasks.spawn(ending(stop.clone(), link.keep(outbox)));
        }
        let accepting = stop.child_token();
        let sessions = TaskTracker::new();
        let mut addresses = BTreeMap::new();
        for (cluster, purpose, listener) in listeners {
            addresses.insert((cluster.clone(), purpose), listener.local_addr()?);
            let door = Door {
                desk: Arc::clone(&desk),
                cluster: desk.cluster(&cluster),
                purpose,
                sessions: sessions.clone(),
                stop: stop.clone(),
            };
            tasks.spawn(ending(accepting.clone(), door.receive(listener)));
        }
        Ok(RunningProxy { addresses, desk, accepting, sessions, tasks, stop })
    }
}

/// A proxy at work.
#[derive(Debug)]
pub struct RunningProxy {
    addresses: BTreeMap<(ClusterName, Purpose), SocketAddr>,
    desk: Arc<Desk>,
    accepting: CancellationToken,
    sessions: TaskTracker,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl RunningProxy {
    /// Where it really listens.
    pub fn address(&self, cluster: &ClusterName, purpose: Purpose) -> Option<SocketAddr> {
        self.addresses.get(&(cluster.clone(), purpose)).copied()
    }

    /// The newest epoch it has heard of, and how many sessions it carries.
    pub fn state(&self, cluster: &ClusterName) -> (Epoch, usize) {
        self.desk.look(|routes| (routes.epoch(cluster), routes.sessions(cluster)))
    }

    /// Whether every cluster's writes can be forwarded now; for readiness checks.
    pub fn is_ready(&self) -> bool {
        self.desk.all_routed()
    }

    /// Accepts nobody any more, lets sessions end by themselves for `drain`, then cuts the rest.
    pub async fn stop(self, drain: Duration) {
        self.accepting.cancel();
        self.sessions.close();
        let drained = tokio::time::timeout(drain, self.sessions.wait()).await;
        if drained.is_err() {
            tracing::warn!(sessions = self.sessions.len(), "cut sessions that did not end in time");
        }
        self.stop.cancel();
        self.tasks.close();
        self.sessions.wait().await;
        self.tasks.wait().await;
    }
}

/// Why a proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// No cluster declares where proxies listen.
    #[error("no cluster has a `proxy` section")]
    NothingToDo,
    /// A listener could not be opened.
    #[error("listen on {address}: {source}")]
    Listen {
        /// Where.
        address: Endpoint,
        /// Why not.
        source: io::Error,
    },
    /// A metric's name is taken.
    #[error("register metrics: {0}")]
    Metrics(prometheus::Error),
    /// The machine failed otherwise.
    #[error(transparent)]
    Io(#[from] io::Error),
}

async fn bind(address: &Endpoint) -> Result<TcpListener, ProxyError> {
    let bound = TcpListener::bind((address.host.as_str(), address.port)).await;
    bound.map_err(|source| ProxyError::Listen { address: address.clone(), source })
}

/// Runs `work` until it is done or `stop` is cancelled.
async fn ending(stop: CancellationToken, work: impl Future<Output = ()>) {
    stop.run_until_cancelled(work).await;
}

/// Where the clients of one port come in.
struct Door {
    desk: Arc<Desk>,
    cluster: Arc<ClusterDesk>,
    purpose: Purpose,
    sessions: TaskTracker,
    stop: CancellationToken,
}

impl Door {
    async fn receive(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((client, _)) => self.admit(client),
                Err(error) => {
                    // Out of file descriptors: the backlog waits until some are free again.
                    tracing::warn!(cluster = %self.cluster.name, %error, "failed to accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn admit(&self, client: TcpStream) {
        let Ok(permit) = Arc::clone(&self.cluster.permits).try_acquire_owned() else {
            self.cluster.metrics.refused(&Refusal::TooManyConnections);
            // Its send buffer is empty, so this neither waits nor needs a task in a flood.
            let _ = client.try_write(&Refusal::TooManyConnections.packet());
            return;
        };
        let session = session::Session {
            desk: Arc::clone(&self.desk),
            cluster: Arc::clone(&self.cluster),
            purpose: self.purpose,
        };
        let stop = self.stop.clone();
        self.sessions.spawn(async move {
            ending(stop, session.serve(client)).await;
            drop(permit);
        });
    }
}

/// Limits of one cluster that only the shell needs.
impl ClusterDesk {
    fn new(name: &ClusterName, listen: &ProxyListen, metrics: &Metrics) -> Arc<ClusterDesk> {
        Arc::new(ClusterDesk::with(name, listen.hold, listen.max_connections, metrics))
    }
}
