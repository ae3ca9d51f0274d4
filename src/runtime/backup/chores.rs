//! Chores that the leader gave to this watcher: each on a thread of its own with low priority, which can be
//! broken off, and which begins when what is left of an earlier one has ended.

use super::aside::aside;
use super::{archivers, provers};
use crate::clock::Clock;
use crate::config::backups::Backups;
use crate::config::{ClusterConfig, Config};
use crate::decision::backup::chore::{Chore, Work};
use crate::decision::topology::{ClusterName, Timing};
use crate::watcher::{ChoreDoing, ChoreNews, ChoreOrder, ChoreSaid, Input};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// Between two words on how a chore goes.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Where chores are done.
#[derive(Clone, Debug)]
pub struct Chores {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clusters: BTreeMap<ClusterName, ClusterConfig>,
    clock: Clock,
    timing: Timing,
    inbox: mpsc::Sender<Input>,
    stop: CancellationToken,
    /// The newest of each that was begun; it may have ended.
    begun: Mutex<BTreeMap<(ClusterName, Chore), Begun>>,
    /// What costs much is done for one cluster at a time.
    turn: Arc<Semaphore>,
    tasks: TaskTracker,
}

#[derive(Clone, Debug)]
struct Begun {
    broken_off: CancellationToken,
    ended: CancellationToken,
    stirred: Arc<Notify>,
}

/// What a chore is done with.
#[derive(Debug)]
pub(super) struct Place {
    /// The cluster.
    pub cluster: ClusterConfig,
    /// Its backups.
    pub backups: Backups,
    /// The clock.
    pub clock: Clock,
    /// How long servers may take to answer.
    pub timing: Timing,
    /// What is told of the work.
    pub work: watch::Sender<Work>,
    /// Something happened that it may be about.
    pub stirred: Arc<Notify>,
    /// To be had for what costs much.
    pub turn: Arc<Semaphore>,
}

impl Chores {
    /// Knows the clusters that have backups.
    pub fn new(
        config: &Config,
        clock: Clock,
        inbox: &mpsc::Sender<Input>,
        stop: &CancellationToken,
    ) -> Chores {
        let backed_up = config.clusters.iter().filter(|cluster| cluster.backups.is_some());
        let clusters = backed_up.map(|it| (it.spec.name.clone(), it.clone())).collect();
        let shared = Shared {
            clusters,
            clock,
            timing: config.timing,
            inbox: inbox.clone(),
            stop: stop.clone(),
            begun: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
            tasks: TaskTracker::new(),
        };
        Chores { shared: Arc::new(shared) }
    }

    /// Begins a chore, has it look, or ends it.
    pub fn carry_out(&self, order: ChoreOrder) {
        let ChoreOrder { cluster, chore, what } = order;
        let key = (cluster, chore);
        // Nothing that holds it can leave it half-changed.
        let mut all = self.shared.begun.lock().unwrap_or_else(PoisonError::into_inner);
        match (what, all.get(&key)) {
            (ChoreDoing::Begin, former) => {
                let begun = Begun {
                    broken_off: self.shared.stop.child_token(),
                    ended: CancellationToken::new(),
                    stirred: Arc::new(Notify::new()),
                };
                let ended = begun.ended.clone().drop_guard();
                let shared = Arc::clone(&self.shared);
                let work = run(shared, key.clone(), former.cloned(), (begun.clone(), ended));
                all.insert(key.clone(), begun);
                self.spawn(key, work);
            }
            (ChoreDoing::Look, Some(begun)) => begun.stirred.notify_one(),
            (ChoreDoing::BreakOff, Some(begun)) => {
                info!(cluster = %key.0, chore = %key.1, "given up: no leader confirms it");
                begun.broken_off.cancel();
            }
            (ChoreDoing::Look | ChoreDoing::BreakOff, None) => {}
        }
    }

    /// What a chore does by itself, such as decrypting and removing a server's data, must not keep the threads
    /// busy that watch over clusters; programs that it starts have its priority.
    fn spawn(
        &self,
        (cluster, chore): (ClusterName, Chore),
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let begun = aside(format!("chore {chore}"), self.shared.tasks.token(), work);
        if let Err(error) = begun {
            let said = ChoreSaid::Ended { why: format!("no thread could be started: {error}") };
            let _ = self.shared.inbox.try_send(Input::Chore(ChoreNews { cluster, chore, said }));
        }
    }

    /// Once everything is told to stop: waits a while until what was begun is taken away.
    pub async fn ended(&self, patience: Duration) {
        self.shared.tasks.close();
        if tokio::time::timeout(patience, self.shared.tasks.wait()).await.is_err() {
            warn!("some of an unfinished chore may be left");
        }
    }
}

/// Does a chore until it is broken off, or cannot be done here.
async fn run(
    shared: Arc<Shared>,
    (cluster, chore): (ClusterName, Chore),
    former: Option<Begun>,
    (begun, _ended): (Begun, DropGuard),
) {
    let Begun { broken_off, stirred, .. } = begun;
    if let Some(former) = former {
        former.broken_off.cancel();
        former.ended.cancelled().await;
    }
    info!(%cluster, %chore, "begun");
    let work = watch::Sender::new(Work::default());
    let telling = tell(work.subscribe(), shared.inbox.clone(), (cluster.clone(), chore));
    let doing = async {
        let Some((config, backups)) = shared.configured(&cluster) else {
            return format!("{cluster} has no backups in this watcher's configuration");
        };
        let place = Place {
            cluster: config.clone(),
            backups: backups.clone(),
            clock: shared.clock,
            timing: shared.timing,
            work,
            stirred,
            turn: Arc::clone(&shared.turn),
        };
        match chore {
            Chore::Prove => provers::prove(&place).await.to_string(),
            Chore::Archive => archivers::archive_all(&place).await.to_string(),
        }
    };
    let why = tokio::select! {
        biased;
        () = broken_off.cancelled() => return,
        why = doing => why,
        () = telling => return,
    };
    warn!(%cluster, %chore, "cannot be done here: {why}");
    let said = ChoreSaid::Ended { why };
    let _ = shared.inbox.send(Input::Chore(ChoreNews { cluster, chore, said })).await;
}

/// Tells the watcher how it goes whenever that has changed.
async fn tell(
    mut work: watch::Receiver<Work>,
    inbox: mpsc::Sender<Input>,
    (cluster, chore): (ClusterName, Chore),
) {
    while work.changed().await.is_ok() {
        let said = ChoreSaid::Goes(Box::new(work.borrow_and_update().clone()));
        let news = ChoreNews { cluster: cluster.clone(), chore, said };
        if inbox.send(Input::Chore(news)).await.is_err() {
            return;
        }
        tokio::time::sleep(TOLD_EVERY).await;
    }
    // The work ends by itself.
    std::future::pending().await
}

impl Shared {
    fn configured(&self, cluster: &ClusterName) -> Option<(&ClusterConfig, &Backups)> {
        let config = self.clusters.get(cluster)?;
        Some((config, config.backups.as_ref()?))
    }
}
