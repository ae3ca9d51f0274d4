//! What was measured, as tables for people and documents, or as JSON.

use crate::backup;
use crate::calm::Calm;
use crate::events::Event;
use crate::failover::{Measured, Run};
use crate::figures::Samples;
use crate::idle::Usage;
use anyhow::Result;
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use serde_json::{Value, json};
use std::io::Write;

/// A line for whoever waits.
pub fn progress(line: &str) {
    // Nobody reads it when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints all runs; true when all took place, nothing was lost and every end state was right.
pub fn failovers(measured: &Measured, as_json: bool) -> Result<bool> {
    let (runs, good) = (&measured.runs, measured.is_good());
    let mut out = std::io::stdout();
    if as_json {
        let groups: Vec<Value> = groups(runs).iter().map(|group| group.json()).collect();
        writeln!(
            out,
            "{}",
            json!({ "good": good, "summary": groups, "runs": runs, "broken": measured.broken })
        )?;
        return Ok(good);
    }
    let mut outages = table(&[
        "flavour",
        "event",
        "runs",
        "median ms",
        "p99 ms",
        "worst ms",
        "target, median / worst ms",
        "no event, median ms",
        "no event, worst ms",
        "client errors",
        "rows acknowledged",
        "rows lost",
        "one writer, rest follow",
    ]);
    let mut parts = table(&[
        "flavour",
        "event",
        "decided ms",
        "new route ms",
        "writes again ms",
        "worst of each ms",
    ]);
    for group in groups(runs) {
        outages.add_row(group.outage_row());
        parts.add_row(group.parts_row());
    }
    writeln!(out, "{outages}\n\nMedian times since the event:\n\n{parts}")?;
    Ok(good)
}

/// Prints what processes used.
pub fn idle(usages: &[Usage], as_json: bool) -> Result<bool> {
    let mut out = std::io::stdout();
    if as_json {
        writeln!(out, "{}", json!({ "processes": usages }))?;
        return Ok(true);
    }
    let mut table = table(&["flavour", "process", "CPU, % of a core", "memory MB", "peak MB"]);
    for usage in usages {
        table.add_row(vec![
            usage.flavor.clone(),
            usage.process.clone(),
            format!("{:.2}", usage.cpu_percent),
            format!("{:.1}", usage.memory_mb),
            format!("{:.1}", usage.peak_mb),
        ]);
    }
    writeln!(out, "{table}")?;
    Ok(true)
}

/// Prints how backups compare; true when they are about as fast as by hand, in little memory.
pub fn backups(measured: &[backup::Measured], as_json: bool) -> Result<bool> {
    let frugal = |one: &backup::Measured| {
        one.regent_peak_mb <= MOST_MB && one.agent_peak_mb.is_none_or(|peak| peak <= MOST_MB)
    };
    let fast = |one: &backup::Measured| one.counted || one.ratio >= LEAST_RATIO;
    let good = measured.iter().all(|one| fast(one) && frugal(one));
    let mut out = std::io::stdout();
    if as_json {
        writeln!(out, "{}", json!({ "good": good, "backups": measured }))?;
        return Ok(good);
    }
    let mut table = table(&[
        "flavour",
        "backup",
        "runs",
        "read MB",
        "stored MB",
        "by hand MB/s",
        "Regent MB/s",
        "of by hand, %",
        "peak MB",
        "agent's peak MB",
    ]);
    for one in measured {
        table.add_row(vec![
            one.flavor.clone(),
            one.way.to_owned(),
            one.runs.to_string(),
            format!("{:.0}", one.plain_mb),
            format!("{:.0}", one.stored_mb),
            format!("{:.0}", one.by_hand_mb_per_second),
            format!("{:.0}", one.regent_mb_per_second),
            format!("{:.0}", 100.0 * one.ratio),
            format!("{:.0}", one.regent_peak_mb),
            one.agent_peak_mb.map_or("-".to_owned(), |peak| format!("{peak:.0}")),
        ]);
    }
    writeln!(out, "{table}")?;
    Ok(good)
}

/// The least throughput of a backup, as a share of that of the same tools by hand.
const LEAST_RATIO: f64 = 0.9;
/// The most memory of any process of Regent's.
const MOST_MB: f64 = 150.0;

/// Prints what a while of calm showed; true when it was calm.
pub fn calm(seen: &[Calm], as_json: bool) -> Result<bool> {
    let good = seen.iter().all(Calm::is_good);
    let mut out = std::io::stdout();
    if as_json {
        writeln!(out, "{}", json!({ "good": good, "calm": seen }))?;
        return Ok(good);
    }
    let mut table = table(&[
        "flavour",
        "seconds",
        "delay ms",
        "busy processes",
        "watcher cut off",
        "findings raised",
        "failovers",
        "client errors",
        "rows acknowledged",
        "worst pause ms",
        "rows lost",
        "one writer, rest follow",
    ]);
    for calm in seen {
        let findings = calm.findings.iter().map(|(kind, times)| format!("{kind} {times}"));
        let findings: Vec<String> = findings.collect();
        table.add_row(vec![
            calm.flavor.clone(),
            format!("{:.0}", calm.seconds),
            calm.delay_ms.to_string(),
            calm.busy_processes.to_string(),
            calm.cuts.to_string(),
            if findings.is_empty() { "none".to_owned() } else { findings.join(", ") },
            calm.failovers.to_string(),
            calm.errors.values().sum::<u64>().to_string(),
            calm.acknowledged.to_string(),
            format!("{:.0}", calm.worst_pause_ms),
            calm.lost.to_string(),
            if calm.problems.is_empty() { "yes" } else { "NO" }.to_owned(),
        ]);
    }
    writeln!(out, "{table}")?;
    Ok(good)
}

fn table(titles: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(titles.to_vec());
    table
}

/// All runs of one flavour and event.
struct Group<'a> {
    flavor: &'a str,
    event: Event,
    runs: Vec<&'a Run>,
}

fn groups(runs: &[Run]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for run in runs {
        let same = |group: &&mut Group<'_>| group.flavor == run.flavor && group.event == run.event;
        match groups.iter_mut().find(same) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { flavor: &run.flavor, event: run.event, runs: vec![run] }),
        }
    }
    groups
}

impl Group<'_> {
    fn samples(&self, of: impl Fn(&Run) -> Option<f64>) -> Samples {
        Samples::new(self.runs.iter().filter_map(|run| of(run)))
    }

    fn sum(&self, of: impl Fn(&Run) -> u64) -> u64 {
        self.runs.iter().map(|run| of(run)).sum()
    }

    fn is_right(&self) -> bool {
        self.runs.iter().all(|run| run.problems.is_empty())
    }

    fn outage_row(&self) -> Vec<String> {
        let outages = self.samples(|run| Some(run.outage_ms));
        let calm = self.samples(|run| Some(run.baseline_ms));
        vec![
            self.flavor.to_owned(),
            self.event.to_string(),
            self.runs.len().to_string(),
            shown(outages.median()),
            shown(outages.quantile(0.99)),
            shown(outages.worst()),
            {
                let target = self.event.target();
                format!("{:.0} / {:.0}", target.median_ms, target.worst_ms)
            },
            shown(calm.median()),
            shown(calm.worst()),
            self.sum(Run::client_errors).to_string(),
            self.sum(|run| run.acknowledged).to_string(),
            self.sum(|run| run.lost).to_string(),
            if self.is_right() { "yes" } else { "NO" }.to_owned(),
        ]
    }

    fn parts_row(&self) -> Vec<String> {
        let decided = self.samples(|run| run.detected_ms);
        let opened = self.samples(|run| run.opened_ms);
        let outages = self.samples(|run| Some(run.outage_ms));
        let worst = [decided.worst(), opened.worst(), outages.worst()].map(shown).join(" / ");
        vec![
            self.flavor.to_owned(),
            self.event.to_string(),
            shown(decided.median()),
            shown(opened.median()),
            shown(outages.median()),
            worst,
        ]
    }

    fn json(&self) -> Value {
        let outages = self.samples(|run| Some(run.outage_ms));
        let calm = self.samples(|run| Some(run.baseline_ms));
        json!({
            "flavor": self.flavor, "event": self.event, "runs": self.runs.len(),
            "target": self.event.target(),
            "outage_ms": { "median": outages.median(), "p99": outages.quantile(0.99),
                           "worst": outages.worst() },
            "baseline_ms": { "median": calm.median(), "worst": calm.worst() },
            "client_errors": self.sum(Run::client_errors),
            "rows_acknowledged": self.sum(|run| run.acknowledged),
            "rows_lost": self.sum(|run| run.lost),
            "one_writer_rest_follow": self.is_right(),
        })
    }
}

fn shown(millis: Option<f64>) -> String {
    millis.map_or("-".to_owned(), |millis| format!("{millis:.0}"))
}
