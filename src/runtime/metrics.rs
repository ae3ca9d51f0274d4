//! What a process counts and measures, in Prometheus' words.
//!
//! Labels come from the configuration and from closed lists only, so the number of series is
//! bounded by what is declared; series of things that vanished are removed.

use crate::clock::WallTime;
use crate::decision::plan::Outcome;
use crate::decision::report::Sight;
use crate::decision::topology::ServerKey;
use crate::decision::view::{ArchiveView, ClusterView, ProofView, ScheduleView, StatusView};
use prometheus::core::Collector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Every metric of one process; clones count into the same registry.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Registry,
    probes: IntCounterVec,
    probe_seconds: HistogramVec,
    findings: IntGaugeVec,
    epoch: IntGaugeVec,
    primary: IntGaugeVec,
    lag: GaugeVec,
    behind: IntGaugeVec,
    sessions: IntGaugeVec,
    procedures: IntCounterVec,
    step_seconds: HistogramVec,
    events: IntCounterVec,
    announced: IntGauge,
    backups: BackupMetrics,
    raft: RaftMetrics,
    /// What the last status named. Held while gauges are rewritten and while they are read, so
    /// that no scrape sees them half written.
    seen: Mutex<Seen>,
}

struct RaftMetrics {
    term: IntGauge,
    is_leader: IntGauge,
    commit: IntGauge,
    applied: IntGauge,
    persist_seconds: Histogram,
    sent: IntCounter,
    received: IntCounter,
    dropped: IntCounter,
}

/// What a status says of scheduled backups.
struct BackupMetrics {
    success: GaugeVec,
    bytes: IntGaugeVec,
    failures: IntGaugeVec,
    running: IntGaugeVec,
    /// How far the run that goes on is, in the order of what is told of it.
    progress: [IntGaugeVec; 6],
    proofs: ProofMetrics,
    archives: ArchiveMetrics,
}

/// What a status says of archived binary logs.
struct ArchiveMetrics {
    reached: GaugeVec,
    lag: IntGaugeVec,
    bytes: IntGaugeVec,
    gaps: IntGaugeVec,
    errors: IntGaugeVec,
    alert: IntGaugeVec,
}

/// What a status says of proofs.
struct ProofMetrics {
    age: GaugeVec,
    listed: IntGaugeVec,
    proven: IntGaugeVec,
    alert: IntGaugeVec,
}

#[derive(Default)]
struct Seen {
    servers: BTreeSet<(String, String)>,
}

/// The results a probe is counted under; the list is closed.
const RESULTS: [&str; 7] =
    ["alive", "refused", "unreachable", "hung", "useless", "denied", "strange"];

/// The labels of what belongs to one server.
const BY_SERVER: [&str; 2] = ["cluster", "server"];

/// Seconds; probes and steps last from under a millisecond to half a minute.
const SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.5, 10.0];

impl Metrics {
    /// A fresh registry with every metric at zero.
    ///
    /// # Panics
    /// Never on a correct build: names are constants and each is registered once.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let all = &registry;
        let lag = GaugeVec::new(named("replica_lag_seconds", "Seconds behind"), &BY_SERVER);
        let results = ["cluster", "server", "result"];
        let steps = ["step", "result"];
        let shared = Shared {
            probes: counters(all, "probes_total", "Probes made", &results),
            probe_seconds: durations(all, "probe_seconds", "Time of a probe", &["cluster"]),
            findings: gauges(all, "findings", "Present findings", &["cluster", "kind"]),
            epoch: gauges(all, "epoch", "Changes of primary so far", &["cluster"]),
            primary: gauges(all, "primary", "1 for the primary", &BY_SERVER),
            lag: register(all, lag),
            behind: gauges(all, "replica_behind_transactions", "Behind", &BY_SERVER),
            sessions: gauges(all, "proxy_sessions", "Client sessions", &["proxy"]),
            procedures: counters(all, "procedures_total", "Closed", &["kind", "result"]),
            step_seconds: durations(all, "step_seconds", "Time of one attempt", &steps),
            events: counters(all, "events_total", "Events announced", &["kind"]),
            announced: gauge(all, "last_event_timestamp_milliseconds", "Newest event"),
            backups: BackupMetrics::register(all),
            raft: RaftMetrics::register(all),
            seen: Mutex::default(),
            registry,
        };
        let process = prometheus::process_collector::ProcessCollector::for_self();
        shared.registry.register(Box::new(process)).expect("nothing else collects the process");
        Metrics { shared: Arc::new(shared) }
    }

    /// Counts one probe and the time it took.
    pub fn probed(&self, server: &ServerKey, sight: &Sight, took: Duration) {
        let (cluster, name) = (server.cluster.as_str(), server.server.as_str());
        self.shared.probes.with_label_values(&[cluster, name, result_of(sight)]).inc();
        self.shared.probe_seconds.with_label_values(&[cluster]).observe(took.as_secs_f64());
    }

    /// Measures one attempt at a step of that kind (`Step::kind`).
    pub fn performed(&self, kind: &'static str, outcome: &Outcome, took: Duration) {
        let result = match outcome {
            Outcome::Done(_) => "done",
            Outcome::Retry(_) => "retry",
            Outcome::Failed(_) => "failed",
        };
        self.shared.step_seconds.with_label_values(&[kind, result]).observe(took.as_secs_f64());
    }

    /// Measures one write of Raft's record, sync included.
    pub fn persisted(&self, took: Duration) {
        self.shared.raft.persist_seconds.observe(took.as_secs_f64());
    }

    /// Counts one event of that kind.
    pub fn announced(&self, kind: &str, at: WallTime) {
        self.shared.events.with_label_values(&[kind]).inc();
        self.shared.announced.set(signed(at.0));
    }

    /// Takes over Raft's state.
    pub fn raft(&self, term: u64, leader: bool, commit: u64, applied: u64) {
        let raft = &self.shared.raft;
        raft.term.set(signed(term));
        raft.is_leader.set(i64::from(leader));
        raft.commit.set(signed(commit));
        raft.applied.set(signed(applied));
    }

    /// Counts a message sent to another watcher.
    pub fn sent(&self) {
        self.shared.raft.sent.inc();
    }

    /// Counts a message received from another watcher.
    pub fn received(&self) {
        self.shared.raft.received.inc();
    }

    /// Counts a message that was dropped because its queue was full or its link down.
    pub fn dropped(&self) {
        self.shared.raft.dropped.inc();
    }

    /// Counts a procedure that ended, as `done`, `abandoned` or `stuck`.
    pub fn procedure_closed(&self, kind: &str, result: &str) {
        self.shared.procedures.with_label_values(&[kind, result]).inc();
    }

    /// Takes over what a status of all clusters says, and forgets what it no longer names.
    pub fn observe_status(&self, status: &StatusView) {
        let shared = &self.shared;
        let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for gauges in
            [&shared.findings, &shared.epoch, &shared.primary, &shared.behind, &shared.sessions]
        {
            gauges.reset();
        }
        shared.lag.reset();
        shared.backups.reset();
        let mut servers = BTreeSet::new();
        for cluster in &status.clusters {
            self.observe_cluster(cluster);
            let key = |server: &str| (cluster.name.0.clone(), server.to_owned());
            servers.extend(cluster.servers.iter().map(|server| key(server.name.as_str())));
        }
        for proxy in &status.proxies {
            shared.sessions.with_label_values(&[proxy.id.as_str()]).set(signed(proxy.sessions));
        }
        let clusters: BTreeSet<&str> = servers.iter().map(|(name, _)| name.as_str()).collect();
        for (cluster, server) in seen.servers.difference(&servers) {
            for result in RESULTS {
                // A result that was never counted has no series to remove.
                let _ = shared.probes.remove_label_values(&[cluster, server, result]);
            }
            if !clusters.contains(cluster.as_str()) {
                let _ = shared.probe_seconds.remove_label_values(&[cluster]);
            }
        }
        seen.servers = servers;
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> String {
        let _whole = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        let families = self.shared.registry.gather();
        match TextEncoder::new().encode_utf8(&families, &mut text) {
            Ok(()) => text,
            Err(error) => format!("# metrics could not be encoded: {error}\n"),
        }
    }

    fn observe_cluster(&self, cluster: &ClusterView) {
        let shared = &self.shared;
        let name = cluster.name.as_str();
        shared.epoch.with_label_values(&[name]).set(signed(cluster.epoch.0));
        for finding in &cluster.findings {
            shared.findings.with_label_values(&[name, &finding.kind]).inc();
        }
        for schedule in &cluster.backups {
            shared.backups.observe(name, schedule);
        }
        for proof in &cluster.proofs {
            shared.backups.proofs.observe(name, proof);
        }
        if let Some(archive) = &cluster.archive {
            shared.backups.archives.observe(name, archive);
        }
        for server in &cluster.servers {
            let labels = [name, server.name.as_str()];
            let leads = cluster.primary.as_ref() == Some(&server.name);
            shared.primary.with_label_values(&labels).set(i64::from(leads));
            if let Some(lag) = server.lag_seconds {
                shared.lag.with_label_values(&labels).set(lag);
            }
            if let Some(behind) = server.behind {
                shared.behind.with_label_values(&labels).set(signed(behind));
            }
        }
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl RaftMetrics {
    fn register(registry: &Registry) -> RaftMetrics {
        let persisting =
            HistogramOpts::from(named("raft_persist_seconds", "Time to write and sync"));
        RaftMetrics {
            term: gauge(registry, "raft_term", "Raft's term"),
            is_leader: gauge(registry, "raft_is_leader", "1 while this watcher leads"),
            commit: gauge(registry, "raft_commit_index", "Last committed log entry"),
            applied: gauge(registry, "raft_applied_index", "Last applied log entry"),
            persist_seconds: register(
                registry,
                Histogram::with_opts(persisting.buckets(SECONDS.to_vec())),
            ),
            sent: counter(registry, "peer_messages_sent_total", "Messages sent to watchers"),
            received: counter(registry, "peer_messages_received_total", "Messages from watchers"),
            dropped: counter(registry, "peer_messages_dropped_total", "Messages not sent"),
        }
    }
}

impl BackupMetrics {
    fn register(registry: &Registry) -> BackupMetrics {
        let labels = ["cluster", "schedule"];
        let gauges = |name: &str, meaning: &str| gauges(registry, name, meaning, &labels);
        let success = named("backup_last_success_timestamp_seconds", "When a run last succeeded");
        BackupMetrics {
            success: register(registry, GaugeVec::new(success, &labels)),
            bytes: gauges("backup_stored_bytes", "Stored by the run that goes on, or the last one"),
            failures: gauges("backup_failures", "Runs that failed since one succeeded"),
            running: gauges("backup_running", "1 while a backup is made"),
            progress: [
                gauges("backup_read_bytes", "Read by the run that goes on"),
                gauges("backup_expected_bytes", "About how many it will read"),
                gauges("backup_rate_bytes_per_second", "Read a second by the run that goes on"),
                gauges("backup_left_seconds", "About how long the run still takes"),
                gauges("backup_spooled_bytes", "In the spool, not taken by the target yet"),
                gauges("backup_target_troubled", "1 while the target does not do what it is asked"),
            ],
            proofs: ProofMetrics::register(registry),
            archives: ArchiveMetrics::register(registry),
        }
    }

    fn reset(&self) {
        self.success.reset();
        self.proofs.reset();
        self.archives.reset();
        let others = [&self.bytes, &self.failures, &self.running];
        for gauges in others.into_iter().chain(&self.progress) {
            gauges.reset();
        }
    }

    fn observe(&self, cluster: &str, schedule: &ScheduleView) {
        let labels = [cluster, schedule.name.as_str()];
        let running = schedule.run.as_ref().filter(|run| run.watcher.is_some());
        self.running.with_label_values(&labels).set(i64::from(running.is_some()));
        let failures = i64::try_from(schedule.failures).unwrap_or(i64::MAX);
        self.failures.with_label_values(&labels).set(failures);
        let last = schedule.last_success.as_ref();
        if let Some(last) = last {
            let seconds = Duration::from_millis(last.at.0).as_secs_f64();
            self.success.with_label_values(&labels).set(seconds);
        }
        if let Some(bytes) = running.map(|run| run.bytes).or(last.map(|last| last.bytes)) {
            self.bytes.with_label_values(&labels).set(signed(bytes));
        }
        // Nobody should average over runs that are over.
        let Some(run) = running else { return };
        let told = [
            Some(run.read_bytes),
            run.expected_bytes,
            Some(run.bytes_per_second),
            run.left_seconds,
            Some(run.spooled_bytes),
            Some(u64::from(!run.trouble.is_empty())),
        ];
        for (gauges, told) in self.progress.iter().zip(told) {
            if let Some(number) = told {
                gauges.with_label_values(&labels).set(signed(number));
            }
        }
    }
}

impl ArchiveMetrics {
    fn register(registry: &Registry) -> ArchiveMetrics {
        let labels = ["cluster", "target"];
        let gauges = |name: &str, meaning: &str| gauges(registry, name, meaning, &labels);
        let meaning = "Up to when all that was committed is archived";
        let reached = named("backup_archive_reached_timestamp_seconds", meaning);
        ArchiveMetrics {
            reached: register(registry, GaugeVec::new(reached, &labels)),
            lag: gauges("backup_archive_lag_seconds", "Since when something is not archived"),
            bytes: gauges("backup_archive_bytes", "Stored since the watcher that archives began"),
            gaps: gauges("backup_archive_gaps", "Holes that no recovery can cross"),
            errors: gauges("backup_archive_errors", "Failures since that watcher began"),
            alert: gauges("backup_archive_behind", "1 while the archive is behind for too long"),
        }
    }

    fn reset(&self) {
        self.reached.reset();
        for gauges in [&self.lag, &self.bytes, &self.gaps, &self.errors, &self.alert] {
            gauges.reset();
        }
    }

    fn observe(&self, cluster: &str, archive: &ArchiveView) {
        let labels = [cluster, archive.target.as_str()];
        if let Some(reached) = archive.reached {
            let since = Duration::from_millis(reached.0);
            self.reached.with_label_values(&labels).set(since.as_secs_f64());
        }
        if let Some(lag) = archive.lag_seconds {
            self.lag.with_label_values(&labels).set(signed(lag));
        }
        let counts = [
            (&self.bytes, archive.bytes),
            (&self.gaps, archive.gaps),
            (&self.errors, archive.errors),
            (&self.alert, u64::from(!archive.alert.is_empty())),
        ];
        for (gauges, count) in counts {
            gauges.with_label_values(&labels).set(signed(count));
        }
    }
}

impl ProofMetrics {
    fn register(registry: &Registry) -> ProofMetrics {
        let labels = ["cluster", "target"];
        let gauges = |name: &str, meaning: &str| gauges(registry, name, meaning, &labels);
        let age = named("backup_proven_age_seconds", "Age of the newest data that is proven");
        ProofMetrics {
            age: register(registry, GaugeVec::new(age, &labels)),
            listed: gauges("backup_listed", "Backups at the target"),
            proven: gauges("backup_proven", "Backups that were restored as a proof"),
            alert: gauges("backup_unproven", "1 while no proven backup is new enough"),
        }
    }

    fn reset(&self) {
        self.age.reset();
        for gauges in [&self.listed, &self.proven, &self.alert] {
            gauges.reset();
        }
    }

    fn observe(&self, cluster: &str, proof: &ProofView) {
        let labels = [cluster, proof.target.as_str()];
        self.alert.with_label_values(&labels).set(i64::from(!proof.alert.is_empty()));
        if let Some(age) = proof.age_seconds {
            self.age.with_label_values(&labels).set(Duration::from_secs(age).as_secs_f64());
        }
        for (gauges, count) in [(&self.listed, proof.backups), (&self.proven, proof.proven)] {
            if let Some(count) = count {
                gauges.with_label_values(&labels).set(signed(count));
            }
        }
    }
}

fn result_of(sight: &Sight) -> &'static str {
    match sight {
        Sight::Alive(_) => "alive",
        Sight::Refused => "refused",
        Sight::Unreachable => "unreachable",
        Sight::Hung => "hung",
        Sight::Useless(_) => "useless",
        Sight::Denied => "denied",
        Sight::Strange(_) => "strange",
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn named(name: &str, meaning: &str) -> Opts {
    Opts::new(format!("regent_{name}"), meaning)
}

/// Registers a metric. Names are constants, so neither building nor registering can fail.
fn register<M: Collector + Clone + 'static>(
    registry: &Registry,
    built: prometheus::Result<M>,
) -> M {
    let metric = built.expect("metric names and labels are valid constants");
    registry.register(Box::new(metric.clone())).expect("each metric has a name of its own");
    metric
}

fn gauge(registry: &Registry, name: &str, meaning: &str) -> IntGauge {
    register(registry, IntGauge::with_opts(named(name, meaning)))
}

fn counter(registry: &Registry, name: &str, meaning: &str) -> IntCounter {
    register(registry, IntCounter::with_opts(named(name, meaning)))
}

fn gauges(registry: &Registry, name: &str, meaning: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(named(name, meaning), labels))
}

fn counters(registry: &Registry, name: &str, meaning: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(named(name, meaning), labels))
}

fn durations(registry: &Registry, name: &str, meaning: &str, labels: &[&str]) -> HistogramVec {
    let options = HistogramOpts::from(named(name, meaning)).buckets(SECONDS.to_vec());
    register(registry, HistogramVec::new(options, labels))
}
