//! The chore of archiving: reads the binary log as long as this watcher has it.

use super::BackupError;
use super::archive::{Archiving, Order, archive};
use super::chores::Place;
use super::progress::Report;
use super::target::Target;
use super::{Progress, Reached};
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
                let asked = Reached { target: name.clone(), ..Reached::default() };
                let asked =
                    watch::Sender::new(Progress { targets: vec![asked], ..Progress::default() });
                let target = target.told(Report::of(&asked, 0));
                let Place { cluster, clock, timing, .. } = place;
                let (target, timing, clock) = (&target, *timing, *clock);
                let order = Order { cluster, backups, target, timing, clock };
                let progress = watch::Sender::new(Archiving::default());
                let ended = tokio::select! {
                    ended = archive(&order, &progress, pending()) => ended,
                    () = show(place, &before, (progress.subscribe(), asked.subscribe())) => {
                        return BackupError::Stopped;
                    }
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

/// Tells now and then how far it is, and what the target does not do that it is asked for.
async fn show(
    place: &Place,
    before: &Seen,
    (mut progress, mut asked): (watch::Receiver<Archiving>, watch::Receiver<Progress>),
) {
    loop {
        let changed = tokio::select! {
            changed = progress.changed() => changed,
            changed = asked.changed() => changed,
        };
        if changed.is_err() {
            return pending().await;
        }
        let mut now = after(before, &progress.borrow_and_update());
        let trouble = asked.borrow_and_update().targets.first().and_then(|it| it.trouble.clone());
        if let Some(trouble) = trouble {
            now.trouble = format!("target {}: {}", now.target, trouble.what);
            now.since = Some(trouble.since);
        }
        tell(place, &now);
        tokio::time::sleep(SHOWN_EVERY).await;
    }
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
