//! Backups that the watchers ordered: each in a task of its own that can be broken off, with the
//! code that also makes those that people ask for.

use super::aside::aside;
use super::lanes::Lacking;
use super::physical::agent_for;
use super::pruning::{self, Scope};
use super::source::named;
use super::taking::{Order, Taken, take};
use super::target::Target;
use super::turn::Priority;
use super::{BackupError, Progress, catalog, prune};
use crate::clock::Clock;
use crate::config::backups::Backups;
use crate::config::{ClusterConfig, Config, Security};
use crate::decision::backup::catalog::Entry;
use crate::decision::backup::names::BackupId;
use crate::decision::backup::reason::shortened;
use crate::decision::backup::retention::Retention;
use crate::decision::backup::runs::Attempt;
use crate::decision::topology::{ClusterName, ServerName, Timing};
use crate::watcher::{BackupEnd, BackupNews, BackupOrder, BackupSaid, Input};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{info, warn};

/// Between two words on how far a backup is.
const SHOWN_EVERY: Duration = Duration::from_secs(1);

/// Where ordered backups are made.
#[derive(Clone, Debug)]
pub struct Makers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clusters: BTreeMap<ClusterName, ClusterConfig>,
    timing: Timing,
    security: Option<Security>,
    clock: Clock,
    inbox: mpsc::Sender<Input>,
    stop: CancellationToken,
    /// What goes before the backups of each of them.
    priorities: BTreeMap<ClusterName, Priority>,
    /// What breaks off each attempt that is being made.
    running: Mutex<BTreeMap<(ClusterName, Attempt), CancellationToken>>,
    tasks: TaskTracker,
}

/// One attempt with all that it needs.
struct Work {
    shared: Arc<Shared>,
    cluster: ClusterName,
    attempt: Attempt,
}

impl Makers {
    /// Knows the clusters that have backups.
    pub fn new(
        config: &Config,
        clock: Clock,
        inbox: &mpsc::Sender<Input>,
        stop: &CancellationToken,
    ) -> Makers {
        let backed_up = config.clusters.iter().filter(|cluster| cluster.backups.is_some());
        let clusters: BTreeMap<_, _> =
            backed_up.map(|it| (it.spec.name.clone(), it.clone())).collect();
        let priorities = clusters.keys().map(|name| (name.clone(), Priority::new())).collect();
        let shared = Shared {
            clusters,
            timing: config.timing,
            security: config.security.clone(),
            clock,
            inbox: inbox.clone(),
            stop: stop.clone(),
            priorities,
            running: Mutex::default(),
            tasks: TaskTracker::new(),
        };
        Makers { shared: Arc::new(shared) }
    }

    /// Carries out an order in a task of its own.
    pub fn carry_out(&self, order: BackupOrder) {
        let work = |cluster, attempt| Work { shared: Arc::clone(&self.shared), cluster, attempt };
        let tasks = &self.shared.tasks;
        match order {
            BackupOrder::Make { cluster, attempt, server } => {
                let broken_off = self.shared.stop.child_token();
                let key = (cluster.clone(), attempt.clone());
                self.shared.running().insert(key.clone(), broken_off.clone());
                let making = work(cluster, attempt).make(server, broken_off);
                // Packing keeps a core busy, and a failover must not wait for that.
                if let Err(error) = aside("backup".to_owned(), tasks.token(), making) {
                    self.shared.running().remove(&key);
                    let why = format!("no thread could be started: {error}");
                    let said = BackupSaid::Ended(BackupEnd::Failed { why });
                    let news = BackupNews { cluster: key.0, attempt: key.1, said };
                    let _ = self.shared.inbox.try_send(Input::Backup(news));
                }
            }
            BackupOrder::BreakOff { cluster, attempt } => {
                info!(%cluster, "{attempt} is given up");
                if let Some(broken_off) = self.shared.running().get(&(cluster, attempt)) {
                    broken_off.cancel();
                }
            }
            BackupOrder::Discard { cluster, attempt, backup } => {
                let stop = self.shared.stop.clone();
                let work = work(cluster, attempt).discard(backup);
                tasks.spawn(async move { stop.run_until_cancelled(work).await });
            }
            BackupOrder::Prune { cluster, attempt } => {
                let stop = self.shared.stop.clone();
                let work = work(cluster, attempt).prune();
                tasks.spawn(async move { stop.run_until_cancelled(work).await });
            }
        }
    }

    /// From now on something goes before the backups of that cluster, or nothing does any more.
    pub fn make_way(&self, cluster: &ClusterName, others: bool) {
        if let Some(priority) = self.shared.priorities.get(cluster) {
            priority.set(others);
        }
    }

    /// Once everything is told to stop: waits a while until what was begun is taken away.
    pub async fn ended(&self, patience: Duration) {
        self.shared.tasks.close();
        if tokio::time::timeout(patience, self.shared.tasks.wait()).await.is_err() {
            warn!("some of an unfinished backup may be left at its target");
        }
    }
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, BTreeMap<(ClusterName, Attempt), CancellationToken>> {
        // Nothing that holds it can leave it half-changed.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    async fn make(self, server: ServerName, broken_off: CancellationToken) {
        info!(cluster = %self.cluster, "{}: reading from {server}", self.attempt);
        let made = self.attempted(&server, &broken_off).await;
        let key = (self.cluster.clone(), self.attempt.clone());
        self.shared.running().remove(&key);
        let end = match made {
            Ok(end) => end,
            // On the way down nothing is told: the leader hears no more and has it made again.
            Err(BackupError::Stopped) => return,
            Err(error) => {
                warn!(cluster = %self.cluster, "{}: {error}", self.attempt);
                BackupEnd::Failed { why: shortened(&error.to_string()) }
            }
        };
        let said = BackupSaid::Ended(end);
        let news = BackupNews { cluster: self.cluster, attempt: self.attempt, said };
        let _ = self.shared.inbox.send(Input::Backup(news)).await;
    }

    async fn attempted(
        &self,
        server: &ServerName,
        broken_off: &CancellationToken,
    ) -> Result<BackupEnd, BackupError> {
        let (cluster, backups) = self.configured()?;
        let targets = self.targets(backups)?;
        let begin = async {
            if let Some(found) = self.found(&targets).await? {
                return Ok(Err(found));
            }
            let server = server.as_str();
            named(cluster, self.shared.timing, server).await.map(Ok)
        };
        let begun = tokio::select! {
            biased;
            () = broken_off.cancelled() => return Err(BackupError::Stopped),
            begun = begin => begun?,
        };
        let source = match begun {
            Ok(source) => source,
            Err(found) => return Ok(BackupEnd::Found { backup: found.id, bytes: found.bytes }),
        };
        let security = self.shared.security.as_ref();
        let agent = agent_for(backups.method, security, cluster, &source.server.name)?;
        let progress = watch::Sender::new(Progress::default());
        let shown = AbortOnDropHandle::new(tokio::spawn(self.show(progress.subscribe())));
        let priority = self.shared.priorities.get(&self.cluster);
        let turn = priority.map_or_else(|| Priority::new().turn(), Priority::turn);
        let order = Order {
            cluster,
            backups,
            source: &source,
            targets: &targets,
            agent: agent.as_ref(),
            clock: self.shared.clock,
            run: Some(&self.attempt),
            turn: &turn,
        };
        let taken = take(&order, &progress, broken_off.cancelled()).await;
        drop(shown);
        let Taken { manifest, lacking } = taken?;
        let (backup, bytes) = (manifest.id, manifest.bytes);
        let told = |it: Lacking| shortened(&format!("{}: {}", it.target, it.error));
        let lacking: Vec<_> = lacking.into_iter().map(told).collect();
        for why in &lacking {
            warn!(cluster = %self.cluster, "{backup} is not at {why}");
        }
        Ok(BackupEnd::Made { backup, bytes, lacking })
    }

    /// A backup of the same slot that is there already: whoever made it could not say so.
    /// Who can see none of the targets does not know.
    async fn found(&self, targets: &[Target]) -> Result<Option<Entry>, BackupError> {
        if self.attempt.number == 1 {
            return Ok(None);
        }
        let same = |run: &Attempt| {
            (&run.schedule, run.slot) == (&self.attempt.schedule, self.attempt.slot)
        };
        let (mut seen, mut unseen) = (false, None);
        for target in targets {
            match catalog(target, &self.cluster).await {
                Ok(catalog) => {
                    let mut entries = catalog.backups.into_iter();
                    if let Some(found) = entries.find(|it| it.run.as_ref().is_some_and(same)) {
                        return Ok(Some(found));
                    }
                    seen = true;
                }
                Err(error) => unseen = Some(error),
            }
        }
        unseen.filter(|_| !seen).map_or(Ok(None), Err)
    }

    /// Tells the watcher now and then how far it is.
    fn show(&self, mut progress: watch::Receiver<Progress>) -> impl Future<Output = ()> + use<> {
        let inbox = self.shared.inbox.clone();
        let (cluster, attempt) = (self.cluster.clone(), self.attempt.clone());
        let clock = self.shared.clock;
        let begun = clock.now().moment;
        async move {
            while progress.changed().await.is_ok() {
                let elapsed = clock.now().moment.since(begun);
                let said = BackupSaid::Reached(progress.borrow_and_update().reached(elapsed));
                let (cluster, attempt) = (cluster.clone(), attempt.clone());
                // What cannot be told now is told by the next news.
                let _ = inbox.try_send(Input::Backup(BackupNews { cluster, attempt, said }));
                tokio::time::sleep(SHOWN_EVERY).await;
            }
        }
    }

    async fn discard(self, backup: BackupId) {
        let too_many = |error| warn!(cluster = %self.cluster, "{backup} is one too many: {error}");
        let targets = self.configured().and_then(|(_, backups)| self.targets(backups));
        let targets = targets.map_err(too_many).unwrap_or_default();
        for target in &targets {
            match self.discard_at(target, &backup).await {
                Ok(false) => {}
                Ok(true) => {
                    let target = &target.name;
                    info!(cluster = %self.cluster, target, "{backup} of {} is taken away", self.attempt);
                }
                Err(error) => too_many(error),
            }
        }
    }

    /// Removes that backup from a target, and says whether it was there.
    async fn discard_at(&self, target: &Target, backup: &BackupId) -> Result<bool, BackupError> {
        let found = catalog(target, &self.cluster).await?;
        let Some(entry) = found.backups.iter().find(|entry| entry.id == *backup) else {
            return Ok(false);
        };
        let removed = pruning::remove(target, &self.cluster, entry).await;
        let failed = |error| BackupError::Target { target: target.name.clone(), error };
        removed.map(|_| true).map_err(failed)
    }

    async fn prune(self) {
        let wanted = self.configured().and_then(|(_, backups)| match &backups.keep {
            Some(keep) => Ok(Some((keep, self.targets(backups)?))),
            None => Ok(None),
        });
        match wanted {
            Ok(None) => {}
            Ok(Some((keep, targets))) => {
                for target in &targets {
                    self.prune_at(target, keep).await;
                }
            }
            Err(error) => warn!(cluster = %self.cluster, "nothing could be removed: {error}"),
        }
    }

    async fn prune_at(&self, target: &Target, keep: &Retention) {
        let schedule = Some(&self.attempt.schedule);
        let scope = Scope { cluster: &self.cluster, schedule, dry_run: false };
        match prune(target, keep, scope, self.shared.clock.now().wall).await {
            Ok(pruned) => {
                for backup in &pruned.removed {
                    info!(cluster = %self.cluster, target = pruned.target, "{backup} is removed");
                }
                for (backup, why) in &pruned.refused {
                    warn!(cluster = %self.cluster, "{backup} could not be removed: {why}");
                }
                pruned.say_what_became_of_the_archive();
            }
            Err(error) => warn!(cluster = %self.cluster, "nothing could be removed: {error}"),
        }
    }

    fn configured(&self) -> Result<(&ClusterConfig, &Backups), BackupError> {
        let cluster = self.shared.clusters.get(&self.cluster);
        let both = cluster.and_then(|cluster| Some((cluster, cluster.backups.as_ref()?)));
        let none = || format!("{} has no backups in this watcher's configuration", self.cluster);
        both.ok_or_else(|| BackupError::Unknown(none()))
    }

    fn targets(&self, backups: &Backups) -> Result<Vec<Target>, BackupError> {
        let name = &self.attempt.schedule;
        let unknown = || {
            BackupError::Unknown(format!("no schedule {name} is in this watcher's configuration"))
        };
        let scheduled = backups.schedules.iter().find(|it| it.declared.name == *name);
        let scheduled = scheduled.ok_or_else(unknown)?;
        let open = |name: &String| {
            let declared = backups.targets.iter().find(|it| it.name == *name);
            let declared = declared.ok_or_else(unknown)?;
            let opened = Target::open(declared, backups);
            opened.map_err(|error| BackupError::Target { target: declared.name.clone(), error })
        };
        scheduled.targets.iter().map(open).collect()
    }
}
