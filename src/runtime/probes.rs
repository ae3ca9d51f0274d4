//! One task for each server, which probes it when told to and reports to the watcher.

use super::metrics::Metrics;
use super::mysql::distance::Distance;
use super::mysql::probe::Prober;
use crate::clock::Clock;
use crate::config::Config;
use crate::decision::report::Sight;
use crate::decision::topology::ServerKey;
use crate::watcher::Input;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The probing tasks of one watcher; they end with their token.
#[derive(Debug)]
pub struct Probes {
    bells: BTreeMap<ServerKey, mpsc::Sender<()>>,
    distances: BTreeMap<ServerKey, Distance>,
}

impl Probes {
    /// Starts a task for every declared server; what they see goes into `inbox`.
    pub fn start(
        config: &Config,
        clock: Clock,
        metrics: &Metrics,
        inbox: &mpsc::Sender<Input>,
        stop: &CancellationToken,
    ) -> Probes {
        let (mut bells, mut distances) = (BTreeMap::new(), BTreeMap::new());
        for cluster in &config.clusters {
            for server in &cluster.spec.servers {
                let key =
                    ServerKey { cluster: cluster.spec.name.clone(), server: server.name.clone() };
                let account = cluster.credentials.monitor.clone();
                let server = server.clone();
                let timing = config.timing;
                let distance = Distance::default();
                distances.insert(key.clone(), distance.clone());
                let make = move || Prober::new(&server, account.clone(), timing);
                let post = Post {
                    key: key.clone(),
                    make: Box::new(move || make().measuring(distance.clone())),
                    clock,
                    metrics: metrics.clone(),
                    inbox: inbox.clone(),
                };
                let (bell, rings) = mpsc::channel(1);
                let stop = stop.clone();
                tokio::spawn(async move { stop.run_until_cancelled(post.keep(rings)).await });
                bells.insert(key, bell);
            }
        }
        Probes { bells, distances }
    }

    /// How far away a server is, as its probes find out.
    pub fn distance(&self, server: &ServerKey) -> Distance {
        self.distances.get(server).cloned().unwrap_or_default()
    }

    /// Asks for a probe; while one is under way the call is dropped, its result being on its way.
    pub fn probe(&self, server: &ServerKey) {
        if let Some(bell) = self.bells.get(server) {
            let _ = bell.try_send(());
        }
    }
}

struct Post {
    key: ServerKey,
    make: Box<dyn Fn() -> Prober + Send>,
    clock: Clock,
    metrics: Metrics,
    inbox: mpsc::Sender<Input>,
}

impl Post {
    async fn keep(self, mut rings: mpsc::Receiver<()>) {
        let mut prober = (self.make)();
        while rings.recv().await.is_some() {
            let begun = self.clock.now().moment;
            // In a task of its own, so that a panic in the driver costs one probe.
            let probing = tokio::spawn(async move {
                let sight = prober.probe().await;
                (prober, sight)
            });
            let sight = match probing.await {
                Ok((back, sight)) => {
                    prober = back;
                    sight
                }
                Err(_) => {
                    prober = (self.make)();
                    Sight::Strange("the probe failed inside the driver".to_owned())
                }
            };
            self.metrics.probed(&self.key, &sight, self.clock.now().moment.since(begun));
            let done = Input::ProbeDone { server: self.key.clone(), sight };
            if self.inbox.send(done).await.is_err() {
                return;
            }
        }
    }
}
