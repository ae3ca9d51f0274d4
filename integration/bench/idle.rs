//! What watchers and proxy use while nothing happens.

use crate::report::progress;
use crate::stage::Stage;
use anyhow::{Context, Result};
use regent::clock::Clock;
use regent::demo::cluster::Cluster;
use regent::demo::servers::DatabaseFlavor;
use serde::Serialize;
use std::time::Duration;

/// The unit of CPU times in `/proc`, the same on all architectures of Linux that matter here.
const TICK: Duration = Duration::from_millis(10);
/// Time for start-up work to end.
const SETTLE: Duration = Duration::from_secs(5);

/// What one process used.
#[derive(Clone, Debug, Serialize)]
pub struct Usage {
    pub flavor: String,
    pub process: String,
    pub seconds: u64,
    /// Of one core, user and system.
    pub cpu_percent: f64,
    /// Resident, at the end.
    pub memory_mb: f64,
    /// Resident, at its highest.
    pub peak_mb: f64,
}

/// Watches all processes of Regent around an idle cluster of each flavour.
pub async fn measure(flavors: &[DatabaseFlavor], seconds: u64) -> Result<Vec<Usage>> {
    let mut all = Vec::new();
    for flavor in flavors {
        progress(&format!("{flavor}: starting three servers, three watchers and a proxy"));
        let stage = Stage::set(*flavor, None, &[]).await?;
        tokio::time::sleep(SETTLE).await;
        progress(&format!("{flavor}: watching for {seconds} s"));
        let clock = Clock::start();
        let names: Vec<&str> = Cluster::WATCHERS.iter().copied().chain(["proxy1"]).collect();
        let mut before = Vec::new();
        for name in &names {
            let id = stage.cluster.process_of(name).context("a process is not running")?;
            before.push((id, cpu_time(id)?));
        }
        let begun = clock.now().moment;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let leader = stage.leader().await?;
        for (name, (id, earlier)) in names.iter().zip(before) {
            let used = cpu_time(id)?.saturating_sub(earlier);
            let taken = clock.now().moment.since(begun);
            let role = match name {
                name if name.starts_with("proxy") => "proxy",
                name if leader.as_deref() == Some(*name) => "watcher, leads",
                _ => "watcher",
            };
            all.push(Usage {
                flavor: flavor.to_string(),
                process: role.to_owned(),
                seconds,
                cpu_percent: 100.0 * used.as_secs_f64() / taken.as_secs_f64(),
                memory_mb: memory(id, "VmRSS:")?,
                peak_mb: memory(id, "VmHWM:")?,
            });
        }
        stage.cluster.stop().await;
    }
    Ok(all)
}

fn cpu_time(process: u32) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The program's name may contain anything, and ends with the last parenthesis.
    let (_, rest) = text.rsplit_once(')').context("an odd /proc/PID/stat")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
    let ticks = ticks.collect::<Result<Vec<u32>, _>>()?;
    Ok(TICK * ticks.iter().sum())
}

fn memory(process: u32, field: &str) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find(|line| line.starts_with(field)).context("no such field")?;
    let kilobytes: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kilobytes / 1024.0)
}
