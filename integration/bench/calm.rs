//! Nothing has failed, and everything is unpleasant: long lines between data centers, a primary whose host
//! is busy with something else, a watcher that is cut off and comes back. Nobody may be replaced for it.

use crate::checks::{self, Ledger};
use crate::failover::{MEND, Shops, WARM_UP, errors_of, millis};
use crate::report::progress;
use crate::stage::Stage;
use anyhow::{Context, Result};
use regent::clock::Clock;
use regent::demo::lab::{Cut, Lab};
use regent::demo::process::{Launch, Process};
use regent::demo::servers::DatabaseFlavor;
use regent::demo::writer::WriterReport;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::sleep;

/// The watcher that comes and goes; it stands apart from the clients.
const UNSTEADY: &str = "w3";
/// For how long it is away each time: its peers elect another leader meanwhile, should it lead.
const AWAY: Duration = Duration::from_secs(6);
/// For how long it is there in between: proxies and peers have linked again.
const THERE: Duration = Duration::from_secs(14);

/// What a while of it showed.
#[derive(Clone, Debug, Serialize)]
pub struct Calm {
    pub flavor: String,
    pub seconds: f64,
    /// Of each packet between data centers.
    pub delay_ms: u64,
    /// Processes that did nothing but compute beside the primary.
    pub busy_processes: usize,
    /// How often the watcher was cut off.
    pub cuts: u32,
    /// Findings that people were told of, by kind.
    pub findings: BTreeMap<String, u64>,
    /// Changes of epoch: each of them replaced a primary that served.
    pub failovers: u64,
    /// Rows acknowledged to clients.
    pub acknowledged: u64,
    /// The longest time without an acknowledgement at the proxy that had the longest one.
    pub worst_pause_ms: f64,
    /// Errors that clients saw, by kind.
    pub errors: BTreeMap<String, u64>,
    /// Acknowledged rows that the primary lacks in the end.
    pub lost: u64,
    /// What else was wrong in the end; empty when one server takes writes, the rest follow it, and all
    /// hold every row.
    pub problems: Vec<String>,
}

impl Calm {
    /// Whether nobody was replaced, nothing was lost and the end state was right.
    pub fn is_good(&self) -> bool {
        self.failovers == 0 && self.lost == 0 && self.problems.is_empty()
    }
}

/// Watches a cluster of each flavour in turn.
pub async fn measure(
    flavors: &[DatabaseFlavor],
    (lasting, delay): (Duration, Duration),
    lab: &mut Lab,
) -> Result<Vec<Calm>> {
    let mut all = Vec::new();
    for flavor in flavors {
        lab.slow_down(delay, 0.0)?;
        let seen = watch(*flavor, (lasting, delay), lab).await;
        // Also when it failed: the next flavour meets a network that is whole.
        lab.heal()?;
        lab.speed_up()?;
        all.push(seen.with_context(|| format!("{flavor}"))?);
    }
    Ok(all)
}

async fn watch(
    flavor: DatabaseFlavor,
    (lasting, delay): (Duration, Duration),
    lab: &mut Lab,
) -> Result<Calm> {
    progress(&format!("{flavor}: starting three data centers, {} ms apart", delay.as_millis()));
    let stage = Stage::set(flavor, Some(lab.sites()), &[]).await?;
    let primary = stage.primary().await?;
    let mut shops = Shops::open(stage.cluster.sites(), Some(lab), 1);
    shops.write_on().await.context("nothing could be written")?;
    let busy = burden(&stage, &primary)?;
    let (busy_processes, epoch) = (busy.len(), stage.view().await?.epoch);
    let mut diary = Diary { last: stage.last_event().await?, findings: BTreeMap::new() };
    sleep(WARM_UP).await;
    shops.mark();

    let clock = Clock::start();
    let zero = clock.now().moment;
    let mut cuts = 0;
    while clock.now().moment.since(zero) < lasting {
        sleep(THERE).await;
        lab.cut(Cut::alone(UNSTEADY))?;
        cuts += 1;
        sleep(AWAY).await;
        lab.heal()?;
        diary.read(&stage).await?;
        let (rows, pause) = (shops.acknowledged(), millis(shops.longest_gap()));
        let seconds = clock.now().moment.since(zero).as_secs();
        progress(&format!("{flavor}: {seconds} s, {rows} rows, longest pause {pause:.0} ms"));
    }
    let seconds = clock.now().moment.since(zero).as_secs_f64();
    let worst_pause_ms = millis(shops.longest_gap());
    let reports = shops.close().await;
    drop(busy);

    let mut problems = Vec::new();
    if let Err(error) = stage.wait_until_healthy(MEND).await {
        problems.push(format!("{error:#}"));
    }
    diary.read(&stage).await?;
    let view = stage.view().await?;
    problems.extend(checks::whole(&stage).await?);
    if checks::caught_up(&stage.cluster, &reports, MEND).await.is_err() {
        problems.push(format!("not every server holds every row after {MEND:?}"));
    }
    let lost = match &view.primary {
        Some(primary) => checks::lost(&stage, primary.as_str(), &reports).await?,
        None => 0,
    };
    let calm = Calm {
        flavor: flavor.to_string(),
        seconds,
        delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        busy_processes,
        cuts,
        findings: diary.findings,
        failovers: view.epoch.0.saturating_sub(epoch.0),
        acknowledged: reports.iter().map(WriterReport::count).sum(),
        worst_pause_ms,
        errors: errors_of(&reports),
        lost,
        problems: [problems, Ledger::of(reports).settle(&stage.cluster).await].concat(),
    };
    for problem in &calm.problems {
        progress(&format!("  problem: {problem}"));
    }
    stage.cluster.stop().await;
    Ok(calm)
}

/// As many processes on the primary's host as the machine has cores, none of which ever rests.
fn burden(stage: &Stage, primary: &str) -> Result<Vec<Process>> {
    let site = stage.cluster.sites().servers.iter().find(|site| site.name == primary);
    let network = site.context("no such server")?.host.network.clone();
    let cores = std::thread::available_parallelism()?.get();
    let start = |_| {
        let launch = Launch {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), "while :; do :; done".into()],
            log: stage.cluster.directory().join("busy.log"),
            network: network.clone(),
            ..Launch::default()
        };
        Ok(Process::start(launch)?)
    };
    (0..cores).map(start).collect()
}

/// What the watchers told people.
struct Diary {
    last: u64,
    findings: BTreeMap<String, u64>,
}

impl Diary {
    /// Takes down what is new; only so many events are kept.
    async fn read(&mut self, stage: &Stage) -> Result<()> {
        for event in stage.events(self.last).await? {
            self.last = event.seq;
            match event.kind.as_str() {
                "finding_began" => {
                    let kind = event.text.split(':').next().unwrap_or_default().to_owned();
                    *self.findings.entry(kind).or_default() += 1;
                }
                "finding_ended" | "step_done" => continue,
                _ => {}
            }
            progress(&format!("  {}: {}", event.kind, event.text));
        }
        Ok(())
    }
}
