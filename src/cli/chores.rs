//! Proofs of backups, and the standing work that makes them, as text.

use super::backup::amount;
use super::output::wrapped;
use crate::api::types::{ArchiveView, ChoreView, ClusterView, ProofView};

/// What is proven at each target, and who does what about it, a line each.
pub fn lines(cluster: &ClusterView, width: u16) -> String {
    let proofs = cluster.proofs.iter().map(proof);
    let chores = cluster.chores.iter().map(chore);
    let archives = cluster.archive.iter().map(archive);
    let each = proofs
        .chain(archives)
        .chain(chores)
        .map(|line| format!("  {}\n", wrapped(&line, 4, width)));
    each.collect()
}

fn proof(proof: &ProofView) -> String {
    let newest = match (&proof.newest, proof.age_seconds) {
        (Some(newest), Some(age)) => {
            format!("{} proven {}, its data is {} old", newest.backup, newest.at, span(age))
        }
        _ => "none is proven".to_owned(),
    };
    let counted = match (proof.proven, proof.backups) {
        (Some(proven), Some(all)) => format!("; {proven} of {all} proven"),
        _ => String::new(),
    };
    let failed = proof.failed.first().map(|failed| {
        format!("; {} failed, the newest {}: {}", proof.failed.len(), failed.backup, failed.why)
    });
    format!("proofs at {}: {newest}{counted}{}", proof.target, failed.unwrap_or_default())
}

fn archive(archive: &ArchiveView) -> String {
    let mut parts = vec![match (archive.reached, archive.lag_seconds) {
        (Some(reached), Some(lag)) => format!("archived up to {reached}, {lag} s behind"),
        _ => "nothing is archived yet".to_owned(),
    }];
    if archive.segments > 0 {
        let (count, bytes) = (archive.segments, amount(archive.bytes));
        parts.push(format!("{count} segment(s) since it began, {bytes}"));
    }
    if archive.gaps > 0 {
        parts.push(format!("{} gap(s) that no recovery can cross", archive.gaps));
    }
    if !archive.trouble.is_empty() {
        parts.push(format!("hindered: {}", archive.trouble));
    }
    format!("binary log at {}: {}", archive.target, parts.join("; "))
}

fn chore(chore: &ChoreView) -> String {
    let mut parts = vec![match (&chore.watcher, chore.working) {
        (Some(watcher), true) => format!("by {watcher}"),
        (Some(watcher), false) => format!("given to {watcher}"),
        (None, _) => "nobody does it".to_owned(),
    }];
    if !chore.doing.is_empty() {
        let total = chore.total.map(|total| format!(" of {}", amount(total))).unwrap_or_default();
        let since = chore.since.map(|since| format!(" since {since}")).unwrap_or_default();
        parts.push(format!("{}{since}, {}{total}", chore.doing, amount(chore.bytes)));
    }
    if !chore.trouble.is_empty() {
        parts.push(format!("failed last: {}", chore.trouble));
    }
    if !chore.failed.is_empty() {
        parts.push(format!("could not: {}", chore.failed));
    }
    format!("{}: {}", chore.chore, parts.join("; "))
}

/// A span in its two largest units.
fn span(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}
