//! The chore of proving: looks at the targets now and then, and restores what is due.

use super::chores::Place;
use super::proving::{Examination, examine};
use super::target::Target;
use super::{BackupError, Identities, IdentityError, Progress, catalog, manifest};
use crate::clock::WallTime;
use crate::decision::backup::catalog::Catalog;
use crate::decision::backup::names::BackupId;
use crate::decision::backup::proof::How;
use crate::decision::backup::proofs::Seen;
use crate::decision::backup::proving::{Due, Proving};
use std::collections::BTreeMap;
use std::future::pending;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{info, warn};

/// Between two looks at the targets, unless a run has ended or a proof is due before.
const LOOK: Duration = Duration::from_secs(300);

/// The same after a look that failed.
const AGAIN: Duration = Duration::from_secs(60);

/// After so many looks in a row at which no target answered, another watcher may have better luck.
const PATIENCE: u32 = 10;

/// Between two words on how far a proof is.
const SHOWN_EVERY: Duration = Duration::from_secs(1);

struct Prover<'a> {
    place: &'a Place,
    proving: &'a Proving,
    /// The last attempt at a target, when it ended with neither a proof nor a failure, and why.
    tried: BTreeMap<String, (WallTime, String)>,
    seen: BTreeMap<String, Seen>,
}

/// How a look at a target ended.
enum Looked {
    /// The next one is due after so long.
    Again(Duration),
    /// The target did not do what it should.
    Trouble(BackupError),
}

/// Proves what is due until that is broken off; gives back why it cannot be done here.
pub(super) async fn prove(place: &Place) -> BackupError {
    let Some(proving) = &place.backups.verify.proving else {
        return BackupError::Unknown("backups.verify says neither every nor cron".to_owned());
    };
    let (tried, seen) = (BTreeMap::new(), BTreeMap::new());
    let mut prover = Prover { place, proving, tried, seen };
    let mut in_vain = 0;
    loop {
        let (mut wait, mut trouble, mut answered) = (LOOK, None, false);
        for name in place.backups.proven_targets() {
            match prover.look(&name).await {
                Ok(Looked::Again(after)) => {
                    answered = true;
                    wait = wait.min(after);
                }
                Ok(Looked::Trouble(error)) => {
                    warn!(cluster = %place.cluster.spec.name, "proofs: {error}");
                    trouble = Some(error);
                    wait = wait.min(AGAIN);
                }
                Err(error) => return error,
            }
        }
        in_vain = if answered { 0 } else { in_vain + 1 };
        let said = trouble.as_ref().map(ToString::to_string);
        prover.say(String::new(), said.or_else(|| prover.failed_last()).unwrap_or_default());
        if let Some(error) = trouble.filter(|_| in_vain >= PATIENCE) {
            return error;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = place.stirred.notified() => {}
        }
    }
}

impl Prover<'_> {
    /// Looks at a target and proves all that is due there; an error is this watcher's own.
    async fn look(&mut self, name: &str) -> Result<Looked, BackupError> {
        let declared = self.place.backups.targets.iter().find(|target| target.name == name);
        let unknown = || BackupError::Unknown(format!("there is no target {name}"));
        let opened = Target::open(declared.ok_or_else(unknown)?, &self.place.backups);
        let target = match opened {
            Ok(target) => target,
            Err(error) => {
                let target = name.to_owned();
                return Ok(Looked::Trouble(BackupError::Target { target, error }));
            }
        };
        let mut examined = None;
        loop {
            let found = match catalog(&target, &self.place.cluster.spec.name).await {
                Ok(found) => found,
                Err(error) => return Ok(Looked::Trouble(error)),
            };
            let now = self.place.clock.now().wall;
            self.note(&found, now);
            match self.proving.due(&found, self.tried.get(name).map(|(at, _)| *at), now) {
                Due::Nothing => return Ok(Looked::Again(LOOK)),
                Due::At(at) => {
                    let wait = Duration::from_millis(at.0.saturating_sub(now.0));
                    return Ok(Looked::Again(wait.max(Duration::from_secs(1))));
                }
                // What was written beside it is not to be read there.
                Due::Now(id) if examined.as_ref() == Some(&id) => {
                    let why = format!("what was found of {id} cannot be read beside it");
                    self.tried.insert(name.to_owned(), (now, why));
                }
                Due::Now(id) => {
                    if let Some(trouble) = self.examine(&target, &id).await? {
                        let (at, why) = (self.place.clock.now().wall, trouble.to_string());
                        self.tried.insert(name.to_owned(), (at, why));
                        return Ok(Looked::Trouble(trouble));
                    }
                    self.tried.remove(name);
                    examined = Some(id);
                }
            }
        }
    }

    /// Restores a backup. Gives back what the target did not do; an error is this watcher's own.
    async fn examine(
        &self,
        target: &Target,
        id: &BackupId,
    ) -> Result<Option<BackupError>, BackupError> {
        let place = self.place;
        let cluster = &place.cluster.spec.name;
        let _turn = place.turn.acquire().await;
        self.say(format!("restores {id} of target {} for a proof", target.name), String::new());
        let manifest = match manifest(target, cluster, id.as_str()).await {
            Ok(manifest) => manifest,
            Err(error) => return Ok(Some(error)),
        };
        let encrypted = !manifest.encrypted_to.is_empty();
        let identities = match &place.backups.verify.identity {
            Some(file) => Identities::read(file)?,
            None if encrypted => return Err(IdentityError::Unconfigured.into()),
            None => Identities::default(),
        };
        let examination = Examination {
            target,
            manifest: &manifest,
            identities: &identities,
            backups: &place.backups,
            clock: place.clock,
        };
        let progress = watch::Sender::new(Progress::default());
        let examined = tokio::select! {
            examined = examine(How::Restored, &examination, &progress) => examined,
            () = self.show(progress.subscribe()) => return Ok(None),
        };
        match examined {
            Ok(examined) => {
                match examined.check.why.as_ref().filter(|_| !examined.check.good) {
                    None => info!(%cluster, target = target.name, "{id} is proven"),
                    Some(why) => warn!(%cluster, target = target.name, "{id} is NOT good: {why}"),
                }
                Ok(examined.unwritten.map(BackupError::Unknown))
            }
            Err(error @ (BackupError::Target { .. } | BackupError::Proof { .. })) => {
                Ok(Some(error))
            }
            Err(error) => Err(error),
        }
    }

    async fn show(&self, mut progress: watch::Receiver<Progress>) {
        while progress.changed().await.is_ok() {
            let (plain, total) = {
                let progress = progress.borrow_and_update();
                (progress.plain, progress.total)
            };
            self.place.work.send_modify(|work| (work.bytes, work.total) = (plain, total));
            tokio::time::sleep(SHOWN_EVERY).await;
        }
        pending().await
    }

    fn note(&mut self, found: &Catalog, now: WallTime) {
        self.seen.insert(found.target.clone(), Seen::of(found, now));
        let seen = self.seen.values().cloned().collect();
        self.place.work.send_modify(|work| work.proofs = seen);
    }

    /// Why an attempt came to nothing, if none went well at that target since.
    fn failed_last(&self) -> Option<String> {
        self.tried.values().max_by_key(|(at, _)| *at).map(|(_, why)| why.clone())
    }

    /// What goes on from now, and what failed.
    fn say(&self, doing: String, trouble: String) {
        let since = (!doing.is_empty()).then(|| self.place.clock.now().wall);
        self.place.work.send_modify(|work| {
            (work.doing, work.since, work.bytes, work.total) = (doing, since, 0, None);
            work.trouble = trouble;
        });
    }
}
