//! `regent backup prune`, `regent backup remove` and `regent backup hold`.

use super::Failed;
use super::acting::wants_to;
use super::args::{BackupHold, BackupPrune, BackupRemove, Global};
use super::backup::{amount, configured, found, json_of, open};
use super::output::Output;
use crate::clock::Clock;
use crate::config::Config;
use crate::runtime::backup::archive::Removed;
use crate::runtime::backup::{self, Pruned, Scope};
use serde_json::json;
use std::io::{self, IsTerminal};

/// Removes scheduled backups that nothing asks to keep.
pub(super) async fn prune(
    global: &Global,
    config: &Config,
    order: &BackupPrune,
    out: &mut Output,
) -> Result<(), Failed> {
    let (cluster, backups) = configured(config, &order.cluster)?;
    let Some(keep) = &backups.keep else {
        let text = format!(
            "{} says nothing about how many backups stay; write backups: keep, such as {{ days: 7 }}",
            cluster.spec.name
        );
        return Err(Failed::Refused(text));
    };
    let now = Clock::start().now().wall;
    let mut all = Vec::new();
    let wanted = |name: &str| order.target.as_deref().is_none_or(|it| it == name);
    if !backups.targets.iter().any(|target| wanted(&target.name)) {
        open(backups, order.target.as_deref())?;
    }
    for declared in backups.targets.iter().filter(|target| wanted(&target.name)) {
        let target = open(backups, Some(&declared.name))?;
        let scope = Scope { cluster: &cluster.spec.name, schedule: None, dry_run: order.dry_run };
        all.push(backup::prune(&target, keep, scope, now).await?);
    }
    let refused: usize = all.iter().map(|pruned| pruned.refused.len()).sum();
    let stuck = all.iter().filter_map(hindered).next().map(str::to_owned);
    if global.json {
        json_of(&all, out)?;
    } else {
        let texts: Vec<String> = all.iter().map(told).collect();
        out.text(&texts.join("\n"))?;
    }
    match (refused, stuck) {
        (0, None) => Ok(()),
        (0, Some(why)) => {
            Err(Failed::Refused(format!("archived binary logs could not be removed: {why}")))
        }
        (some, _) => Err(Failed::Refused(format!("{some} backup(s) could not be removed"))),
    }
}

/// What kept archived binary logs from being removed.
fn hindered(pruned: &Pruned) -> Option<&str> {
    let refused = pruned.archive.as_ref().and_then(|archive| archive.refused.as_deref());
    refused.or(pruned.archive_refused.as_deref())
}

/// Removes one backup.
pub(super) async fn remove(
    global: &Global,
    config: &Config,
    order: &BackupRemove,
    out: &mut Output,
) -> Result<(), Failed> {
    let (cluster, backups) = configured(config, &order.cluster)?;
    let target = open(backups, order.target.as_deref())?;
    let cluster = &cluster.spec.name;
    let entry = backup::remove_named(&target, cluster, &order.backup, true).await?;
    let (id, name, size) = (&entry.id, &target.name, amount(entry.bytes));
    if !order.dry_run {
        if !order.yes {
            if !io::stdin().is_terminal() {
                let text = "a backup is removed for good and nobody can be asked here; add --yes, or look \
                            first with --dry-run";
                return Err(Failed::Usage(text.to_owned()));
            }
            wants_to(&format!("{id} of {} goes from {name} for good ({size}).", entry.server))?;
        }
        backup::remove_named(&target, cluster, &order.backup, false).await?;
    }
    if global.json {
        let removed = json!({ "id": id, "target": name, "removed": !order.dry_run });
        return json_of(&removed, out);
    }
    let word = if order.dry_run { "would be removed" } else { "is removed" };
    Ok(out.text(&format!("backup {id} {word} from {name} ({size})\n"))?)
}

/// Forbids to remove a backup, or allows it again.
pub(super) async fn hold(
    global: &Global,
    config: &Config,
    order: &BackupHold,
    out: &mut Output,
) -> Result<(), Failed> {
    let (target, manifest) = found(config, &order.named).await?;
    let (cluster, id) = (&manifest.cluster, &manifest.id);
    if order.off {
        backup::release(&target, cluster, id).await?;
    } else {
        let note = (Clock::start().now().wall, order.reason.as_str());
        backup::hold(&target, cluster, id, note).await?;
    }
    if global.json {
        return json_of(&json!({ "id": id, "target": target.name, "held": !order.off }), out);
    }
    let text = match order.off {
        true => format!("backup {id} may be removed again\n"),
        false => format!("backup {id} stays at {} until it is allowed to go\n", target.name),
    };
    Ok(out.text(&text)?)
}

fn told(pruned: &Pruned) -> String {
    let mut text = format!("{} at {}\n", pruned.cluster, pruned.target);
    for (id, reasons) in &pruned.kept {
        text.push_str(&format!("  {id} stays: {}\n", reasons.join("; ")));
    }
    let word = if pruned.dry_run { "would be removed" } else { "is removed" };
    for id in &pruned.removed {
        text.push_str(&format!("  {id} {word}\n"));
    }
    for (id, why) in &pruned.refused {
        text.push_str(&format!("! {id} could not be removed: {why}\n"));
    }
    if pruned.kept.is_empty() && pruned.removed.is_empty() && pruned.refused.is_empty() {
        text.push_str("  no backups\n");
    }
    if let Some(archive) = &pruned.archive {
        text.push_str(&segments(archive, word));
    }
    if let Some(why) = hindered(pruned) {
        text.push_str(&format!("! binary log: {why}\n"));
    }
    text
}

/// What became of the archived binary log.
fn segments(archive: &Removed, word: &str) -> String {
    let mut text = String::new();
    for name in &archive.removed {
        text.push_str(&format!("  segment {name} {word}: every backup that stays holds it\n"));
    }
    if archive.left_over > 0 {
        let count = archive.left_over;
        text.push_str(&format!("  {count} piece(s) of data without a manifest {word}\n"));
    }
    let (kept, oldest, because) = (archive.kept, &archive.oldest, &archive.because);
    text + &format!("  {kept} segment(s) stay, from {oldest} on: {because}\n")
}
