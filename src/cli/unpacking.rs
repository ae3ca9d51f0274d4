//! `regent backup restore --data-dir`: a physical backup, unpacked to be started on; up to a moment, with what
//! was archived.

use super::Failed;
use super::args::{BackupRestore, Global};
use super::backup::{Shown, amount, configured, identities, json_of, open};
use super::latest;
use super::output::Output;
use super::recovery::{described, forks, named, planned, segments};
use crate::clock::Clock;
use crate::config::Config;
use crate::decision::backup::archive::recovery::{Plan, Until};
use crate::decision::backup::manifest::{Kind, Manifest};
use crate::runtime::backup::archive::replay::Replayed;
use crate::runtime::backup::archive::{archived, way};
use crate::runtime::backup::{self, Forward, Identities, Laying, Prepared};
use serde_json::json;
use std::path::Path;

/// Unpacks a physical backup, and says what is left to do.
pub(super) async fn into_directory(
    global: &Global,
    config: &Config,
    (restore, (directory, identities)): (&BackupRestore, (&Path, &Identities)),
    out: &mut Output,
) -> Result<(), Failed> {
    let (_, backups) = configured(config, &restore.named.cluster)?;
    let (target, manifest) = latest::of_kind(config, &restore.named, Kind::Physical).await?;
    let (tools, dry_run) = (&backups.tools, restore.dry_run);
    let laying = Laying { directory, tools, dry_run, then: None };
    let shown = Shown::begin(global, "fetched");
    let ended =
        backup::into_directory(&target, &manifest, identities, &laying, &shown.progress).await;
    shown.end().await;
    let prepared = ended?;
    let place = directory.display().to_string();
    if global.json {
        let said = json!({
            "id": manifest.id, "into": place, "done": !restore.dry_run, "owner": prepared.owner,
            "statements": prepared.statements,
        });
        return json_of(&said, out);
    }
    if restore.dry_run {
        return Ok(out.text(&format!("backup {} can be unpacked into {place}\n", manifest.id))?);
    }
    let mut text = format!(
        "backup {} is in {place}: {} of files of {} {}, position {}\n{}",
        manifest.id,
        amount(manifest.plain_bytes),
        manifest.flavor,
        manifest.version,
        manifest.position,
        to_start(&prepared)
    );
    for statement in prepared.statements {
        text.push_str(&format!("then run there, before it replicates: {statement};\n"));
    }
    Ok(out.text(&text)?)
}

/// The same, and what follows the backup up to a moment is in it.
pub(super) async fn to_moment(
    global: &Global,
    config: &Config,
    (restore, until): (&BackupRestore, Until),
    out: &mut Output,
) -> Result<(), Failed> {
    let missing = || Failed::Usage("name a directory with --data-dir".to_owned());
    let directory = restore.data_dir.as_deref().ok_or_else(missing)?;
    let identities = identities(restore.identity.as_deref())?;
    let (cluster, backups) = configured(config, &restore.named.cluster)?;
    let target = open(backups, restore.named.target.as_deref())?;
    let name = &cluster.spec.name;
    let (named, catalog) = (named(&restore.named.backup)?, backup::catalog(&target, name).await?);
    let archive = archived(&target, name).await?;
    let wanted = (named.as_ref(), Kind::Physical, until);
    let plan = way(&target, (&archive, &catalog), wanted).await?;
    let manifest = backup::manifest(&target, name, plan.backup.as_str()).await?;
    let then = Forward { plan: &plan, backups, clock: Clock::start() };
    let (tools, dry_run) = (&backups.tools, restore.dry_run);
    let laying = Laying { directory, tools, dry_run, then: Some(&then) };
    let shown = Shown::begin(global, "fetched");
    let ended =
        backup::into_directory(&target, &manifest, &identities, &laying, &shown.progress).await;
    shown.end().await;
    let place = directory.display().to_string();
    match ended? {
        Prepared { replayed: Some(replayed), owner, statements } => {
            let prepared = Prepared { replayed: None, owner, statements };
            reached(global, (&manifest, &plan), (&place, &prepared, &replayed), out)
        }
        Prepared { replayed: None, .. } => planned(global, &plan, &place, out),
    }
}

fn reached(
    global: &Global,
    (manifest, plan): (&Manifest, &Plan),
    (place, prepared, replayed): (&str, &Prepared, &Replayed),
    out: &mut Output,
) -> Result<(), Failed> {
    if global.json {
        let mut said = described(plan, place, true);
        said["owner"] = json!(prepared.owner);
        said["statements"] = json!(prepared.statements);
        said["transactions"] = json!(replayed.transactions);
        said["position"] = json!(replayed.position);
        return json_of(&said, out);
    }
    let text = format!(
        "{place} holds backup {} and {} transaction(s) from {}, up to {}: files of {} {}, position {}\n{}{}",
        plan.backup,
        replayed.transactions,
        segments(plan),
        plan.until,
        manifest.flavor,
        manifest.version,
        replayed.position,
        to_start(prepared),
        forks(plan)
    );
    Ok(out.text(&text)?)
}

fn to_start(prepared: &Prepared) -> String {
    format!(
        "all of them belong to user {}; start a server on them as that user, of this version or newer\n",
        prepared.owner
    )
}
