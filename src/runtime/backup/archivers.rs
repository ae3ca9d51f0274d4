//! The chore of archiving: reads the binary log as long as this watcher has it.

use super::BackupError;
use super::archive::{Archiving, Order, archive};
use super::chores::Place;
use super::target::Target;
use crate::decision::backup::archive::account::Seen;
use std::future::pending;
use std::time::Duration;
use tokio::sync::watch;
use tracing::warn;

/// Before it is begun again after it failed, at first and at the most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// After so many failures in a row without a segment stored, another watcher may have better luck.
const PATIENCE: u32 = 8;

/// Between two words on how far it is.
const SHOWN_EVERY: Duration = Duration::from_secs(1);

/// Archives until that is broken off; gives back why it cannot be done here. What is read and not stored when
/// it is broken off is read again by whoever goes on.
pub(super) async fn archive_all(place: &Place) -> BackupError {
    let backups = &place.backups;
    let Some(name) = &backups.binlogs.archive_to else {
        return BackupError::Unknown("backups.binlogs says no archive_to".to_owned());
    };
    let Some(declared) = backups.targets.iter().find(|target| target.name == *name) else {
        return BackupError::Unknown(format!("there is no target {name}"));
    };
    let mut before = Seen { target: name.clone(), ..Seen::default() };
    let (mut in_vain, mut pause) = (0, FIRST_PAUSE);
    loop {
        let failed = match Target::open(declared, backups) {
            Ok(target) => {
                let Place { cluster, clock, timing, .. } = place;
                let (target, timing, clock) = (&target, *timing, *clock);
                let order = Order { cluster, backups, target, timing, clock };
                let progress = watch::Sender::new(Archiving::default());
                let ended = tokio::select! {
                    ended = archive(&order, &progress, pending()) => ended,
                    () = show(place, &before, progress.subscribe()) => return BackupError::Stopped,
                };
                let last = progress.borrow().clone();
                if last.segments > 0 {
                    (in_vain, pause) = (0, FIRST_PAUSE);
                }
                before = after(&before, &last);
                match ended {
                    Err(error) => error,
                    Ok(_) => BackupError::Stopped,
                }
            }
            Err(error) => BackupError::Target { target: name.clone(), error },
        };
        warn!(cluster = %place.cluster.spec.name, "archiving the binary log: {failed}");
        in_vain += 1;
        if in_vain >= PATIENCE {
            return failed;
        }
        before.errors += 1;
        (before.source, before.complete) = (None, false);
        before.trouble = failed.to_string();
        before.since = before.since.or(Some(place.clock.now().wall));
        tell(place, &before);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Tells now and then how far it is.
async fn show(place: &Place, before: &Seen, mut progress: watch::Receiver<Archiving>) {
    while progress.changed().await.is_ok() {
        let now = after(before, &progress.borrow_and_update());
        tell(place, &now);
        tokio::time::sleep(SHOWN_EVERY).await;
    }
    pending().await
}

fn tell(place: &Place, seen: &Seen) {
    place.work.send_modify(|work| {
        work.doing = match &seen.source {
            Some(source) => format!("reads the binary log of {source}"),
            None => "looks for a server to read from".to_owned(),
        };
        work.bytes = seen.bytes;
        work.trouble.clone_from(&seen.trouble);
        work.archive = Some(Box::new(seen.clone()));
    });
}

/// How far it is, with what was done before this attempt.
fn after(before: &Seen, now: &Archiving) -> Seen {
    let begun = now.source.is_some() || now.trouble.is_some();
    let trouble = now.trouble.clone();
    let trouble = if begun { trouble.unwrap_or_default() } else { before.trouble.clone() };
    let since = if begun { now.since.filter(|_| now.trouble.is_some()) } else { before.since };
    Seen {
        target: before.target.clone(),
        source: now.source.clone(),
        reached: before.reached.max(now.reached),
        complete: now.complete,
        segments: before.segments + now.segments,
        transactions: before.transactions + now.transactions,
        bytes: before.bytes + now.bytes,
        gaps: if now.stored.is_some() { now.holes } else { before.gaps },
        errors: before.errors + now.errors,
        trouble,
        since,
    }
}
