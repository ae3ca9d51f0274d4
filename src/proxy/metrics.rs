//! What the proxy counts, for Prometheus.

use super::refusal::Refusal;
use super::routes::{CutReason, Purpose};
use crate::decision::topology::ClusterName;
use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector,
};

/// All families, registered once per process.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    open: IntGaugeVec,
    held: IntGaugeVec,
    total: IntCounterVec,
    refused: IntCounterVec,
    cut: IntCounterVec,
    bytes: IntCounterVec,
    lease: IntGaugeVec,
    epoch: IntGaugeVec,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
            keep(registry, &family)?;
            Ok::<_, prometheus::Error>(family)
        };
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let family = IntCounterVec::new(Opts::new(name, help), labels)?;
            keep(registry, &family)?;
            Ok::<_, prometheus::Error>(family)
        };
        let port = ["cluster", "port"];
        let why = ["cluster", "reason"];
        let way = ["cluster", "direction"];
        Ok(Metrics {
            open: gauge("regent_proxy_sessions_open", "Sessions being forwarded.", &port)?,
            held: gauge("regent_proxy_clients_held", "Clients waiting for a route.", &port)?,
            total: counter("regent_proxy_sessions_total", "Sessions forwarded so far.", &port)?,
            refused: counter("regent_proxy_refused_total", "Clients turned away.", &why)?,
            cut: counter("regent_proxy_cut_total", "Sessions cut.", &why)?,
            bytes: counter("regent_proxy_bytes_total", "Bytes forwarded.", &way)?,
            lease: gauge(
                "regent_proxy_lease_remaining_milliseconds",
                "What is left of the write lease; -1 when the route needs none.",
                &["cluster"],
            )?,
            epoch: gauge("regent_proxy_epoch", "The newest epoch heard of.", &["cluster"])?,
        })
    }

    pub(super) fn of(&self, cluster: &ClusterName) -> ClusterMetrics {
        let name = cluster.as_str();
        let port = |purpose: Purpose| PortMetrics {
            open: self.open.with_label_values(&[name, purpose.as_str()]),
            held: self.held.with_label_values(&[name, purpose.as_str()]),
            total: self.total.with_label_values(&[name, purpose.as_str()]),
        };
        ClusterMetrics {
            write: port(Purpose::Write),
            read: port(Purpose::Read),
            refused: Refusal::ALL.map(|why| self.refused.with_label_values(&[name, why.as_str()])),
            cut: CutReason::ALL.map(|why| self.cut.with_label_values(&[name, why.as_str()])),
            to_server: self.bytes.with_label_values(&[name, "to_server"]),
            to_client: self.bytes.with_label_values(&[name, "to_client"]),
            lease: self.lease.with_label_values(&[name]),
            epoch: self.epoch.with_label_values(&[name]),
        }
    }
}

fn keep<C: Collector + Clone + 'static>(
    registry: &Registry,
    family: &C,
) -> Result<(), prometheus::Error> {
    registry.register(Box::new(family.clone()))
}

/// One cluster's, looked up once.
#[derive(Debug)]
pub(super) struct ClusterMetrics {
    write: PortMetrics,
    read: PortMetrics,
    refused: [IntCounter; 3],
    cut: [IntCounter; 4],
    pub(super) to_server: IntCounter,
    pub(super) to_client: IntCounter,
    pub(super) lease: IntGauge,
    pub(super) epoch: IntGauge,
}

/// One port's.
#[derive(Debug)]
pub(super) struct PortMetrics {
    pub(super) open: IntGauge,
    pub(super) held: IntGauge,
    pub(super) total: IntCounter,
}

impl ClusterMetrics {
    pub(super) fn port(&self, purpose: Purpose) -> &PortMetrics {
        match purpose {
            Purpose::Write => &self.write,
            Purpose::Read => &self.read,
        }
    }

    pub(super) fn refused(&self, why: &Refusal) {
        let place = Refusal::ALL.iter().position(|known| known == why);
        place.into_iter().for_each(|place| self.refused[place].inc());
    }

    pub(super) fn cut(&self, why: CutReason) {
        let place = CutReason::ALL.iter().position(|known| *known == why);
        place.into_iter().for_each(|place| self.cut[place].inc());
    }
}
