//! Carries out ordered steps, one at a time on each server, and reports how they ended.

use super::metrics::Metrics;
use super::mysql::distance::Distance;
use super::probes::Probes;
use super::steps::{Access, Exports, Leadership, Link, Programs, Renewal, perform};
use super::withdrawal::{Withdrawal, Withdrawals};
use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::decision::plan::{Outcome, Progress};
use crate::decision::topology::{ClusterName, ServerKey};
use crate::watcher::{Input, StepId, StepOrder};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// Between two words on how far a step is.
const SHOWN_EVERY: Duration = Duration::from_millis(250);

/// Where steps are carried out.
#[derive(Debug)]
pub struct Orders {
    servers: BTreeMap<ServerKey, (Access, Arc<Mutex<()>>)>,
    leadership: Leadership,
    withdrawals: Withdrawals,
    metrics: Metrics,
    inbox: mpsc::Sender<Input>,
    stop: CancellationToken,
}

impl Orders {
    /// Knows how to reach every declared server.
    pub fn new(
        config: &Config,
        exports: &Exports,
        clock: Clock,
        metrics: &Metrics,
        inbox: &mpsc::Sender<Input>,
        stop: &CancellationToken,
    ) -> Orders {
        let programs = Programs::from_environment();
        let mut servers = BTreeMap::new();
        for cluster in &config.clusters {
            for server in &cluster.spec.servers {
                let key =
                    ServerKey { cluster: cluster.spec.name.clone(), server: server.name.clone() };
                let access = Access {
                    server: server.clone(),
                    cluster: cluster.spec.name.clone(),
                    credentials: cluster.credentials.clone(),
                    timing: config.timing,
                    clock,
                    clients_cut: false,
                    distance: Distance::default(),
                    renewal: Renewal::default(),
                    withdrawal: Withdrawal::default(),
                    link: Link::default(),
                    exports: exports.clone(),
                    programs: programs.clone(),
                    progress: None,
                };
                servers.insert(key, (access, Arc::default()));
            }
        }
        Orders {
            servers,
            leadership: Leadership::unknown(),
            withdrawals: Withdrawals::default(),
            metrics: metrics.clone(),
            inbox: inbox.clone(),
            stop: stop.clone(),
        }
    }

    /// Limits steps by how far away their servers are, as probes find out.
    #[must_use]
    pub fn measured_by(mut self, probes: &Probes) -> Orders {
        for (key, (access, _)) in &mut self.servers {
            access.distance = probes.distance(key);
        }
        self
    }

    /// A quorum confirmed that this watcher leads in `term` until then.
    pub fn leads(&self, term: u64, until: Moment) {
        self.leadership.confirmed(term, until);
    }

    /// Orders of that procedure and earlier ones end as soon as they can.
    pub fn withdraw(&self, cluster: ClusterName, procedure: u64) {
        self.withdrawals.note(cluster, procedure);
    }

    /// Carries out an order in a task of its own.
    pub fn carry_out(&self, order: StepOrder) {
        let server = order.step.server().clone();
        let key = ServerKey { cluster: order.id.cluster.clone(), server };
        let (inbox, metrics, stop) = (self.inbox.clone(), self.metrics.clone(), self.stop.clone());
        let found = self.servers.get(&key).cloned();
        let renewal = self.leadership.renewal();
        let withdrawal = self.withdrawals.of(&order.id.cluster, order.id.procedure);
        tokio::spawn(async move {
            let outcome = match found {
                Some((mut access, turn)) => {
                    let (progress, shown) = watch::channel(Progress::default());
                    access.progress = Some(progress);
                    (access.renewal, access.withdrawal) = (renewal, withdrawal);
                    tokio::spawn(show(order.id.clone(), shown, inbox.clone()));
                    let work = attempt(&order, access, turn, &metrics);
                    stop.run_until_cancelled(work).await
                }
                None => Some(Outcome::Failed(format!("{key} is not declared here"))),
            };
            // On the way down nothing is reported: the next leader begins the step anew.
            if let Some(outcome) = outcome {
                let _ = inbox.send(Input::StepDone { order: order.id, outcome }).await;
            }
        });
    }
}

/// Tells the watcher how far a long step is, until it ends.
async fn show(id: StepId, mut shown: watch::Receiver<Progress>, inbox: mpsc::Sender<Input>) {
    while shown.changed().await.is_ok() {
        let progress = shown.borrow_and_update().clone();
        // What cannot be told now is told by the next news.
        let _ = inbox.try_send(Input::StepProgress { order: id.clone(), progress });
        tokio::time::sleep(SHOWN_EVERY).await;
    }
}

async fn attempt(
    order: &StepOrder,
    access: Access,
    turn: Arc<Mutex<()>>,
    metrics: &Metrics,
) -> Outcome {
    // What acts from outside must not wait for what hangs inside.
    let _turn = match order.step.is_external() {
        true => None,
        false => match access.withdrawal.clone().unless_over(turn.lock()).await {
            Some(turn) => Some(turn),
            None => return Outcome::Retry(Withdrawal::WHY.to_owned()),
        },
    };
    let clock = access.clock;
    let begun = clock.now().moment;
    let (step, epoch, permit) = (order.step.clone(), order.epoch, order.permit);
    let access = Access { clients_cut: order.clients_cut, ..access };
    // In a task of its own, so that a panic in the driver costs one attempt.
    let working = tokio::spawn(async move { perform(&step, epoch, &access, permit).await });
    let outcome = match AbortOnDrop(working).join().await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Retry("the step failed inside the driver".to_owned()),
    };
    let took = clock.now().moment.since(begun);
    metrics.performed(order.step.kind(), &outcome, took);
    let (id, millis) = (&order.id, took.as_millis());
    match &outcome {
        Outcome::Done(_) => debug!(cluster = %id.cluster, millis, "step done: {}", order.step),
        Outcome::Retry(why) | Outcome::Failed(why) => {
            let (cluster, attempt) = (&id.cluster, id.attempt);
            info!(%cluster, attempt, millis, "step not done: {}: {why}", order.step);
        }
    }
    outcome
}

/// A task that must not outlive whoever waits for it.
struct AbortOnDrop(tokio::task::JoinHandle<Outcome>);

impl AbortOnDrop {
    async fn join(mut self) -> Result<Outcome, tokio::task::JoinError> {
        (&mut self.0).await
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
