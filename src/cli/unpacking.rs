//! `regent backup restore --data-dir`: a physical backup, unpacked to be started on.

use super::Failed;
use super::args::{BackupRestore, Global};
use super::backup::{Shown, amount, configured, found, json_of};
use super::output::Output;
use crate::config::Config;
use crate::runtime::backup::{self, Identities};
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
    let (target, manifest) = found(config, &restore.named).await?;
    let shown = Shown::begin(global, "fetched");
    let (place, how) = ((directory, &backups.tools), (restore.dry_run, &shown.progress));
    let ended = backup::into_directory(&target, &manifest, identities, place, how).await;
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
        "backup {} is in {place}: {} of files of {} {}, position {}\n\
         all of them belong to user {}; start a server on them as that user, of this version or newer\n",
        manifest.id,
        amount(manifest.plain_bytes),
        manifest.flavor,
        manifest.version,
        manifest.position,
        prepared.owner
    );
    for statement in prepared.statements {
        text.push_str(&format!("then run there, before it replicates: {statement};\n"));
    }
    Ok(out.text(&text)?)
}
