//! The stage: a watcher that says what it is told to, servers that greet and echo, and a proxy.

#![expect(clippy::unwrap_used, reason = "a broken stage must fail its test at once")]

use regent::clock::Clock;
use regent::config::secret::Secret;
use regent::config::{Account, ClusterConfig, Config, Credentials, ProxyListen, WatcherSpec};
use regent::decision::lease::{FromProxy, Route, Target, ToProxy};
use regent::decision::rules::RuleSet;
use regent::decision::topology::{
    AcknowledgedIn, ClusterName, ClusterSpec, Durability, Endpoint, Epoch, Timing,
};
use regent::proxy::routes::Purpose;
use regent::proxy::{Identity, Proxy, ProxyError, RunningProxy};
use regent::wire::{self, FrameReader, FrameWriter, Hello, Kind, Role};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

pub fn shop() -> ClusterName {
    "shop".into()
}

/// A watcher that leads, and grants the route it was given while it is allowed to.
pub struct FakeWatcher {
    pub address: SocketAddr,
    route: Arc<Mutex<Option<Route>>>,
    pushes: broadcast::Sender<ToProxy>,
    pub seen: Arc<AtomicU64>,
    pub renewals: Arc<AtomicUsize>,
    /// How often it was told that a server could not be reached.
    pub unreached: Arc<AtomicUsize>,
}

impl FakeWatcher {
    pub async fn start() -> FakeWatcher {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let watcher = FakeWatcher {
            address: listener.local_addr().unwrap(),
            route: Arc::default(),
            pushes: broadcast::Sender::new(16),
            seen: Arc::default(),
            renewals: Arc::default(),
            unreached: Arc::default(),
        };
        let (route, pushes) = (Arc::clone(&watcher.route), watcher.pushes.clone());
        let (seen, renewals) = (Arc::clone(&watcher.seen), Arc::clone(&watcher.renewals));
        let unreached = Arc::clone(&watcher.unreached);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counters = (Arc::clone(&seen), Arc::clone(&renewals), Arc::clone(&unreached));
                tokio::spawn(answer(stream, Arc::clone(&route), pushes.subscribe(), counters));
            }
        });
        watcher
    }

    /// Grants this from now on, and tells the proxies so; `None` falls silent.
    pub fn set(&self, route: Option<Route>) {
        let changed = route.as_ref().map(|route| route.epoch);
        *self.route.lock().unwrap() = route;
        if let Some(epoch) = changed {
            let _ = self.pushes.send(ToProxy::Changed { cluster: shop(), epoch, leader: None });
        }
    }
}

async fn answer(
    stream: TcpStream,
    route: Arc<Mutex<Option<Route>>>,
    mut pushes: broadcast::Receiver<ToProxy>,
    (newest, renewals, failures): (Arc<AtomicU64>, Arc<AtomicUsize>, Arc<AtomicUsize>),
) {
    let (from, into) = stream.into_split();
    let (mut reader, mut writer) =
        (FrameReader::new(from), FrameWriter::new(into, Role::Proxy.limit()));
    let hello = Hello::new(Role::Watcher, "w1", wire::fingerprint(&["w1".into()]));
    let greeted = wire::be_greeted(&mut reader, &mut writer, &hello, |theirs| theirs.name == "p1");
    if greeted.await.is_err() {
        return;
    }
    loop {
        let message = tokio::select! {
            Ok(push) = pushes.recv() => Some(push),
            frame = reader.next() => {
                let Ok(Some(frame)) = frame else { return };
                let FromProxy::Renew { sent, seen, unreached, .. } = frame.parse().unwrap();
                renewals.fetch_add(1, Ordering::SeqCst);
                failures.fetch_add(unreached.len(), Ordering::SeqCst);
                newest.store(seen.get(&shop()).map_or(0, |epoch| epoch.0), Ordering::SeqCst);
                let routes = route.lock().unwrap().clone();
                let span = timing().lease;
                let granted = |route| BTreeMap::from([(shop(), route)]);
                routes.map(|route| ToProxy::Granted { sent, span, routes: granted(route) })
            }
        };
        if let Some(message) = message
            && writer.send_json(Kind::PROXY, &message).await.is_err()
        {
            return;
        }
    }
}

/// A server that greets with its number and echoes what it gets.
#[derive(Clone)]
pub struct Echo {
    pub number: u64,
    pub address: SocketAddr,
    pub served: Arc<AtomicUsize>,
    pub stop: CancellationToken,
}

impl Echo {
    pub async fn start(number: u64) -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let echo = Echo { number, address, served: Arc::default(), stop: CancellationToken::new() };
        let (served, stop) = (Arc::clone(&echo.served), echo.stop.clone());
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stop.cancelled() => return,
                };
                let (mut stream, _) = accepted.unwrap();
                served.fetch_add(1, Ordering::SeqCst);
                let stop = stop.clone();
                tokio::spawn(async move {
                    let _ = stream.write_all(&number.to_be_bytes()).await;
                    let (mut from, mut into) = stream.split();
                    tokio::select! {
                        _ = tokio::io::copy(&mut from, &mut into) => {}
                        () = stop.cancelled() => {}
                    }
                    let _ = into.shutdown().await;
                });
            }
        });
        echo
    }

    /// Refuses connections from now on, and ends those it has.
    pub fn kill(&self) {
        self.stop.cancel();
    }
}

pub fn target(server: &Echo) -> Target {
    Target {
        server: format!("db{}", server.number).as_str().into(),
        address: endpoint(server.address),
        data_center: "here".into(),
    }
}

pub fn route(epoch: u64, write: Option<&Echo>, reads: &[&Echo]) -> Route {
    Route {
        epoch: Epoch(epoch),
        write: write.map(target),
        reads: reads.iter().map(|read| target(read)).collect(),
        kept_without_quorum: false,
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    address.to_string().parse().unwrap()
}

/// Shorter than the default, so that leases run out within a test.
pub fn timing() -> Timing {
    let millis = Duration::from_millis;
    Timing { lease: millis(600), lease_renewal: millis(150), ..Timing::default() }
}

fn free_port() -> Endpoint {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    endpoint(listener.local_addr().unwrap())
}

pub struct Stage {
    pub watcher: FakeWatcher,
    pub proxy: RunningProxy,
    pub registry: prometheus::Registry,
}

impl Stage {
    /// With this hold time and connection limit.
    pub async fn set(hold: Duration, max_connections: usize) -> Stage {
        // A port that was free may be taken by another test before it is bound.
        for _ in 0..9 {
            if let Ok(stage) = Stage::try_set(hold, max_connections).await {
                return stage;
            }
        }
        Stage::try_set(hold, max_connections).await.unwrap()
    }

    async fn try_set(hold: Duration, max_connections: usize) -> Result<Stage, ProxyError> {
        let watcher = FakeWatcher::start().await;
        let account = || Account { user: "u".into(), password: Secret::new(String::new()) };
        let spec = ClusterSpec {
            name: shop(),
            servers: Vec::new(),
            durability: Durability::Lossless { acknowledged_in: AcknowledgedIn::Any },
            rules: RuleSet::default(),
            max_replica_lag: Duration::from_secs(5),
        };
        let listen =
            ProxyListen { write: free_port(), read: Some(free_port()), hold, max_connections };
        let credentials = Credentials { monitor: account(), replication: account() };
        let config = Config {
            security: None,
            watchers: vec![WatcherSpec {
                id: "w1".into(),
                data_center: "here".into(),
                peer: endpoint(watcher.address),
                api: free_port(),
            }],
            clusters: vec![ClusterConfig {
                spec,
                credentials,
                proxy: Some(listen),
                backups: None,
                agents: Default::default(),
            }],
            timing: timing(),
        };
        let registry = prometheus::Registry::new();
        let identity = Identity { name: "p1".into(), data_center: Some("here".into()) };
        let stop = CancellationToken::new();
        let proxy = Proxy::start(&config, identity, Clock::start(), &registry, stop).await?;
        Ok(Stage { watcher, proxy, registry })
    }

    pub async fn connect(&self, purpose: Purpose) -> TcpStream {
        let address = self.proxy.address(&shop(), purpose).unwrap();
        TcpStream::connect(address).await.unwrap()
    }

    /// Connects and returns the number of the server that greets.
    pub async fn reach(&self, purpose: Purpose) -> (TcpStream, u64) {
        let mut client = self.connect(purpose).await;
        let number = greeting(&mut client).await;
        (client, number)
    }

    /// The sum of a metric over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let named = families.iter().filter(|family| family.name() == name);
        let value = |metric: &prometheus::proto::Metric| {
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        };
        named.flat_map(|family| family.get_metric()).map(value).sum()
    }
}

pub async fn greeting(client: &mut TcpStream) -> u64 {
    let read = tokio::time::timeout(Duration::from_secs(5), client.read_u64());
    read.await.expect("a greeting in time").expect("a greeting")
}

/// Everything the other end still says, within a bound.
pub async fn rest(client: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), client.read_to_end(&mut rest));
    let _ = read.await.expect("the end of the connection in time");
    rest
}
