//! The loop around a watcher: wait for one event of any kind, let the watcher handle it, carry out
//! what it ordered. All deciding happens in the middle part, which is synchronous.

use super::backup::chores::Chores;
use super::backup::scheduled::Makers;
use super::canaries::Canaries;
use super::disk::{Disk, DiskError, DiskThread};
use super::handle::{Asked, Desk, Handle, NodeHealth};
use super::metrics::Metrics;
use super::orders::Orders;
use super::peers::Peers;
use super::probes::Probes;
use super::steps::Exports;
use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::decision::topology::{Endpoint, WatcherName};
use crate::decision::view::{Request, Response};
use crate::watcher::{Fatal, Input, Output, Record, Setup, Stored, Watcher};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// What waits for the watcher; when it is full, probes and links wait too.
const INBOX: usize = 4_096;

/// Inputs handled before questions get a turn again, and the other way round.
const BATCH: usize = 64;

/// Between two updates of the metrics that need a whole status.
const METRICS_PACE: Duration = Duration::from_secs(2);

/// How long unfinished backups may take to be cleaned up when the process is told to stop.
const FAREWELL: Duration = Duration::from_secs(5);

/// Request number of the metrics' own status.
const OWN_STATUS: u64 = 0;

/// A watcher with everything around it.
#[derive(Debug)]
pub struct Turning {
    watcher: Watcher,
    clock: Clock,
    inbox: mpsc::Receiver<Input>,
    desk: Desk,
    disk: DiskThread,
    broken: mpsc::Receiver<DiskError>,
    peers: Peers,
    probes: Probes,
    orders: Orders,
    canaries: Canaries,
    makers: Makers,
    chores: Chores,
    metrics: Metrics,
    waiting: BTreeMap<u64, oneshot::Sender<Response>>,
    last_request: u64,
    persisting: BTreeMap<u64, Moment>,
    metrics_due: Moment,
}

/// What a watcher's loop is made from.
#[derive(Debug)]
pub struct Parts {
    /// The whole configuration.
    pub config: Config,
    /// Which of its watchers this is.
    pub own: WatcherName,
    /// Spreads probes and elections.
    pub seed: u64,
    /// Where it writes down for people what a server alone held.
    pub exports: PathBuf,
    /// The opened store and what was found in it.
    pub disk: Disk,
    /// See `disk`.
    pub stored: Stored,
    /// The process's clock.
    pub clock: Clock,
    /// Where it is measured.
    pub metrics: Metrics,
    /// Ends everything.
    pub stop: CancellationToken,
}

/// Why a watcher's loop ended.
#[derive(Debug, thiserror::Error)]
pub enum TurningError {
    /// The watcher cannot go on.
    #[error(transparent)]
    Watcher(#[from] Fatal),
    /// The log could not be written.
    #[error("failed to write the log: {0}")]
    Disk(#[from] DiskError),
    /// The peer port or the disk thread could not be had.
    #[error("failed to start: {0}")]
    Start(#[from] std::io::Error),
}

impl Turning {
    /// Starts everything around the watcher; returns the loop and the handle for the API.
    pub async fn start(parts: Parts) -> Result<(Turning, Handle), TurningError> {
        let Parts { config, own, seed, exports, disk, stored, clock, metrics, stop } = parts;
        let exports = Exports { watcher: own.clone(), directory: exports };
        let watchers = config.watchers.iter();
        let setup = Setup {
            own: own.clone(),
            watchers: watchers.map(|spec| (spec.id.clone(), spec.data_center.clone())).collect(),
            clusters: config.clusters(),
            backups: config.schedules(),
            chores: config.chores(),
            proofs: config.proofs(),
            archives: config.archives(),
            timing: config.timing,
            seed,
        };
        let watcher = Watcher::start(setup, &stored, clock.now())?;
        let (sender, inbox) = mpsc::channel(INBOX);
        let (breaks, broken) = mpsc::channel(1);
        let written = sender.clone();
        let disk = DiskThread::start(disk, move |result| match result {
            Ok(ticket) => {
                let _ = written.blocking_send(Input::Persisted { ticket });
            }
            Err(error) => {
                let _ = breaks.blocking_send(error);
            }
        })?;
        let peers = Peers::start(&own, &config.watchers, sender.clone(), stop.clone()).await?;
        let probes = Probes::start(&config, clock, &metrics, &sender, &stop);
        let orders = Orders::new(&config, &exports, clock, &metrics, &sender, &stop);
        let orders = orders.measured_by(&probes);
        let canaries = Canaries::new(&config, &own, clock, &sender);
        let makers = Makers::new(&config, clock, &sender, &stop);
        let chores = Chores::new(&config, clock, &sender, &stop);
        let apis: BTreeMap<WatcherName, Endpoint> =
            config.watchers.iter().map(|spec| (spec.id.clone(), spec.api.clone())).collect();
        let (handle, desk) = Handle::open(own, apis);
        let turning = Turning {
            watcher,
            clock,
            inbox,
            desk,
            disk,
            broken,
            peers,
            probes,
            orders,
            canaries,
            makers,
            chores,
            metrics,
            waiting: BTreeMap::new(),
            last_request: OWN_STATUS,
            persisting: BTreeMap::new(),
            metrics_due: clock.now().moment,
        };
        Ok((turning, handle))
    }

    /// Turns until `stop`, or until it cannot go on.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TurningError> {
        loop {
            let wakeup = self.clock.now().moment.until(self.watcher.next_wakeup());
            // Cluster traffic before questions: a dashboard that polls must not delay a failover.
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    tokio::join!(self.makers.ended(FAREWELL), self.chores.ended(FAREWELL));
                    return Ok(());
                }
                Some(error) = self.broken.recv() => return Err(error.into()),
                Some(input) = self.inbox.recv() => {
                    self.handle(input).await?;
                    for _ in 0..BATCH {
                        let Ok(input) = self.inbox.try_recv() else { break };
                        self.handle(input).await?;
                    }
                    if let Ok(asked) = self.desk.asked.try_recv() {
                        self.ask(asked).await?;
                    }
                }
                () = tokio::time::sleep(wakeup) => self.handle(Input::Wakeup).await?,
                Some(asked) = self.desk.asked.recv() => self.ask(asked).await?,
            }
            self.tell_health().await?;
        }
    }

    async fn ask(&mut self, Asked { request, answer }: Asked) -> Result<(), TurningError> {
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        self.last_request += 1;
        let id = self.last_request;
        self.waiting.insert(id, answer);
        self.handle(Input::Request { id, request }).await
    }

    async fn handle(&mut self, input: Input) -> Result<(), TurningError> {
        match &input {
            Input::Persisted { ticket } => {
                let now = self.clock.now().moment;
                let later = self.persisting.split_off(&(ticket + 1));
                for begun in std::mem::replace(&mut self.persisting, later).into_values() {
                    self.metrics.persisted(now.since(begun));
                }
            }
            Input::PeerMessage { .. } => self.metrics.received(),
            _ => {}
        }
        let outputs = self.watcher.handle(self.clock.now(), input)?;
        let raft = self.watcher.consensus();
        if let Some(until) = raft.surely_leads_until() {
            self.orders.leads(raft.term(), until);
        }
        for output in outputs {
            self.carry_out(output).await?;
        }
        Ok(())
    }

    async fn carry_out(&mut self, output: Output) -> Result<(), TurningError> {
        match output {
            Output::Send { to, message } => {
                self.metrics.sent();
                self.peers.send(&to, message);
            }
            Output::Persist { ticket, record } => self.persist(ticket, record).await?,
            Output::Probe { server } => self.probes.probe(&server),
            Output::Perform(order) => self.orders.carry_out(order),
            Output::Withdraw { cluster, procedure } => self.orders.withdraw(cluster, procedure),
            Output::Reply { id: OWN_STATUS, response } => {
                if let Response::Status(status) = response {
                    self.metrics.observe_status(&status);
                }
            }
            Output::Reply { id, response } => {
                if let Some(answer) = self.waiting.remove(&id) {
                    let _ = answer.send(response);
                }
            }
            Output::Canary { server, epoch, permit } => {
                self.canaries.write(server, epoch, permit);
            }
            Output::Backup(order) => self.makers.carry_out(order),
            Output::GoesFirst { cluster, others } => self.makers.make_way(&cluster, others),
            Output::Chore(order) => self.chores.carry_out(order),
            Output::ToProxy { proxy, message } => self.peers.to_proxy(&proxy, message),
            Output::ToProxies { message } => self.peers.to_proxies(&message),
            Output::Announce(event) => {
                self.metrics.announced(&event.kind, event.at);
                let cluster = event.cluster.as_ref().map_or("", |cluster| cluster.as_str());
                info!(cluster, kind = event.kind, seq = event.seq, "{}", event.text);
            }
        }
        Ok(())
    }

    async fn persist(&mut self, ticket: u64, mut record: Record) -> Result<(), TurningError> {
        self.persisting.insert(ticket, self.clock.now().moment);
        while let Some(back) = self.disk.write(ticket, record)? {
            // The disk stalls; nothing that follows may be sent before it is written anyway.
            record = back;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    async fn tell_health(&mut self) -> Result<(), TurningError> {
        let now = self.clock.now().moment;
        let raft = self.watcher.consensus();
        let (term, leads) = (raft.term(), raft.is_leader());
        let (committed, applied) = (raft.commit_index(), self.watcher.applied());
        let leader = raft.leader().cloned();
        let ready = leader.is_some() && applied >= committed;
        let urgent = self.watcher.urgent().clone();
        let health = NodeHealth { ready, leader, term, urgent };
        self.desk.health.send_if_modified(|told| {
            let news = *told != health;
            if news {
                *told = health;
            }
            news
        });
        if now >= self.metrics_due {
            self.metrics_due = now + METRICS_PACE;
            self.metrics.raft(term, leads, committed, applied);
            if leads {
                let request = Request::Status { cluster: None };
                self.handle(Input::Request { id: OWN_STATUS, request }).await?;
            }
        }
        Ok(())
    }
}
