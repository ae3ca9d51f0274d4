//! `regent backup verify`, and what is shown of proofs.

use super::Failed;
use super::args::{BackupNamed, Global};
use super::backup::{Shown, amount, configured, content, found, identities, json_of, stopped};
use super::output::Output;
use crate::clock::Clock;
use crate::config::Config;
use crate::decision::backup::counts::Counts;
use crate::decision::backup::manifest::Manifest;
use crate::decision::backup::proof::{Check, How, Proof, Verdict};
use crate::runtime::backup::{self, BackupError, Examination, Examined};
use serde::Serialize;
use serde_json::json;
use std::io::{self, Write};
use std::path::Path;

/// Tables that are named one by one.
const MOST_NAMED: usize = 20;

/// A manifest with what is known of the backup's worth.
#[derive(Debug, Serialize)]
pub struct Judged<'a> {
    #[serde(flatten)]
    manifest: &'a Manifest,
    proof: Option<&'a Proof>,
    verdict: Verdict,
}

impl Judged<'_> {
    /// Puts them together.
    pub fn new<'a>(manifest: &'a Manifest, proof: Option<&'a Proof>) -> Judged<'a> {
        Judged { manifest, proof, verdict: proof.map(Proof::verdict).unwrap_or_default() }
    }
}

/// `regent backup verify`.
pub async fn verify(
    global: &Global,
    config: &Config,
    (named, how, identity): (&BackupNamed, How, Option<&Path>),
    out: &mut Output,
) -> Result<(), Failed> {
    let identities = identities(identity)?;
    let (_, backups) = configured(config, &named.cluster)?;
    let (target, manifest) = found(config, named).await?;
    let examination = Examination {
        target: &target,
        manifest: &manifest,
        identities: &identities,
        backups,
        clock: Clock::start(),
    };
    let shown = Shown::begin(global, "fetched");
    let stop = stopped()?;
    let examined = tokio::select! {
        biased;
        () = stop => Err(BackupError::Stopped),
        examined = backup::examine(how, &examination, &shown.progress) => examined,
    };
    shown.end().await;
    let Examined { check, unwritten } = examined?;
    if let Some(why) = unwritten {
        // Nothing can be done when even standard error is closed.
        let _ = writeln!(io::stderr(), "! this result could not be written beside it: {why}");
    }
    if global.json {
        let said = json!({
            "id": manifest.id,
            "whole": check.good,
            "bytes": manifest.bytes,
            "how": how,
            "check": check,
        });
        json_of(&said, out)?;
    }
    if !check.good {
        let why = check.why.unwrap_or_default();
        return Err(Failed::Refused(format!("backup {} is NOT good: {why}", manifest.id)));
    }
    if global.json { Ok(()) } else { Ok(out.text(&told(&manifest, how, &check))?) }
}

/// What came of it, when all was well.
fn told(manifest: &Manifest, how: How, check: &Check) -> String {
    let (id, stored, plain) = (&manifest.id, amount(manifest.bytes), amount(manifest.plain_bytes));
    if how == How::Read {
        let parts = manifest.parts.len();
        return format!(
            "backup {id} is whole: {stored} in {parts} part(s), {plain} of {}\n",
            content(manifest.method)
        );
    }
    let server = check.server.as_deref().unwrap_or("a server");
    let took = check.at.0.saturating_sub(check.begun.0).div_ceil(1_000);
    let mut text = match &check.compared {
        None if check.checked.is_some() => format!(
            "backup {id} is proven: a server, {server}, runs on its files, its position is right, and all rows \
             and indexes of {} tables were read, in {took} s; nothing was counted when it was made, so no \
             table was compared\n",
            check.checked.unwrap_or_default()
        ),
        Some(compared) => format!(
            "backup {id} is proven: restored into {server} in {took} s, its position is right, {} tables \
             with {} rows are equal\n",
            compared.sums - (compared.unsure.len() as u64).min(compared.sums),
            compared.rows
        ),
        None => format!(
            "backup {id} is proven: restored into {server} in {took} s, its position is right; nothing was \
             counted when it was made, so no table was compared\n"
        ),
    };
    for unsure in check.compared.iter().flat_map(|compared| &compared.unsure) {
        text.push_str(&format!("! may differ, the backup cannot tell: {unsure}\n"));
    }
    for statement in &check.refused {
        text.push_str(&format!("! refused there: {statement}\n"));
    }
    text
}

/// What is known of a backup's tables and its worth.
pub fn described(manifest: &Manifest, proof: &Result<Option<Proof>, BackupError>) -> String {
    let tables = match &manifest.tables {
        None => "not counted".to_owned(),
        Some(Counts { missing: Some(why), .. }) => format!("not counted: {why}"),
        Some(counts) => {
            let rows: u64 = counts.sums.iter().map(|sum| sum.rows).sum();
            format!("{} sums over {rows} rows", counts.sums.len())
        }
    };
    let verdict = match proof {
        Err(error) => error.to_string(),
        Ok(proof) => match proof.as_ref().map(Proof::verdict).unwrap_or_default() {
            Verdict::Failed { at, why } => format!("FAILED at {at}: {why}"),
            verdict => verdict.to_string(),
        },
    };
    format!("{:<10} {tables}\n{:<10} {verdict}\n{}", "tables", "proof", doubts(manifest))
}

/// What of a backup is not of its moment, or was not counted; a line each.
pub fn doubts(manifest: &Manifest) -> String {
    let Some(counts) = &manifest.tables else { return String::new() };
    let mut lines: Vec<String> = Vec::new();
    if let Some(why) = &counts.missing {
        lines.push(format!("! tables were not counted, so that no restore can be compared: {why}"));
    }
    for sum in counts.loose.iter().take(MOST_NAMED) {
        lines.push(format!(
            "! {} is {}, not InnoDB: what the backup has of it is of no one moment",
            sum.of, sum.engine
        ));
    }
    for left in counts.left_out.iter().take(MOST_NAMED) {
        lines.push(format!("! {} was not counted: {}", left.of, left.why));
    }
    let named = counts.loose.len().min(MOST_NAMED) + counts.left_out.len().min(MOST_NAMED);
    let more = counts.loose.len() + counts.left_out.len() - named;
    if more > 0 {
        lines.push(format!("! {more} more tables are like that; the manifest names them"));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}
