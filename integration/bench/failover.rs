//! Failovers and switchovers under write load.

use crate::beside::Beside;
use crate::checks::{self, Ledger};
use crate::events::Event;
use crate::report::progress;
use crate::stage::Stage;
use anyhow::{Context, Result};
use regent::api::types::EventView;
use regent::clock::{Clock, WallTime};
use regent::demo::lab::{Fault, Lab};
use regent::demo::servers::DatabaseFlavor;
use regent::demo::sites::Sites;
use regent::demo::writer::{Writer, WriterOptions, WriterReport};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Connections that write at the same time, divided among the proxies.
pub const CLIENTS: u32 = 8;
/// Writing before anything is measured.
pub const WARM_UP: Duration = Duration::from_millis(500);
/// How long gaps are looked for, around an event and without one.
pub const WINDOW: Duration = Duration::from_secs(2);
/// Writes that have not gone on by then count as an outage of this length.
pub const WRITES_AGAIN: Duration = Duration::from_secs(60);
/// How long a cluster may take to mend itself after an event; an emptied server fetches everything that
/// was ever written.
pub const MEND: Duration = Duration::from_secs(300);

/// What one run showed.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub flavor: String,
    pub event: Event,
    /// The longest time without an acknowledged commit around the event, at the proxy that had the longest.
    pub outage_ms: f64,
    /// The same in a window of the same length before it, without any event.
    pub baseline_ms: f64,
    /// From the event to the opened procedure.
    pub detected_ms: Option<f64>,
    /// From the event to the new route.
    pub opened_ms: Option<f64>,
    /// Errors that clients saw, by kind.
    pub errors: BTreeMap<String, u64>,
    /// Rows acknowledged in this run.
    pub acknowledged: u64,
    /// Acknowledged rows that the new primary lacks.
    pub lost: u64,
    /// How long each step took.
    pub steps: Vec<(String, u64)>,
    /// Whether the former primary came back with transactions that nobody else has, and got new data.
    pub diverged: bool,
    /// What was wrong with the end state; empty when one server takes writes and the rest follow it.
    pub problems: Vec<String>,
}

impl Run {
    pub fn client_errors(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Whether nothing was lost and the end state was right.
    pub fn is_good(&self) -> bool {
        self.lost == 0 && self.problems.is_empty()
    }

    pub fn line(&self) -> String {
        format!(
            "outage {:.0} ms (without event {:.0} ms), {} client errors, {} rows lost{}{}",
            self.outage_ms,
            self.baseline_ms,
            self.client_errors(),
            self.lost,
            if self.diverged { ", rebuilt the former primary" } else { "" },
            if self.is_good() { "" } else { " -- WRONG, see above" },
        )
    }
}

/// Everything that was measured, and what ended a campaign before its time.
#[derive(Debug, Default)]
pub struct Measured {
    pub runs: Vec<Run>,
    pub broken: Vec<String>,
}

impl Measured {
    /// Whether every run took place, nothing was lost and every end state was right.
    pub fn is_good(&self) -> bool {
        self.broken.is_empty() && self.runs.iter().all(Run::is_good)
    }
}

/// Runs each event `runs` times on one cluster of each flavour, on loopback or in a lab.
pub async fn measure(
    flavors: &[DatabaseFlavor],
    events: &[Event],
    runs: u32,
    mut lab: Option<&mut Lab>,
) -> Measured {
    let mut measured = Measured::default();
    for flavor in flavors {
        let place = lab.as_deref_mut();
        if let Err(error) = campaign(*flavor, events, runs, place, &mut measured.runs).await {
            progress(&format!("bench: {error:#}"));
            measured.broken.push(format!("{error:#}"));
        }
    }
    measured
}

async fn campaign(
    flavor: DatabaseFlavor,
    events: &[Event],
    runs: u32,
    lab: Option<&mut Lab>,
    done: &mut Vec<Run>,
) -> Result<()> {
    progress(&format!("{flavor}: starting three servers, three watchers and their proxies"));
    let sites = lab.as_ref().map(|lab| lab.sites());
    let mut campaign = Campaign {
        flavor,
        stage: Stage::set(flavor, sites, events).await?,
        lab,
        clock: Clock::start(),
        next_client: 1,
        ledger: Ledger::default(),
    };
    let played = campaign.play(events, runs, done).await;
    // Whoever comes next gets the same addresses.
    campaign.stage.cluster.stop().await;
    played
}

struct Campaign<'l> {
    flavor: DatabaseFlavor,
    stage: Stage,
    lab: Option<&'l mut Lab>,
    clock: Clock,
    next_client: u32,
    ledger: Ledger,
}

impl Campaign<'_> {
    async fn play(&mut self, events: &[Event], runs: u32, done: &mut Vec<Run>) -> Result<()> {
        let flavor = self.flavor;
        for number in 1..=runs {
            for event in events {
                let run = self.run(*event).await;
                let run = run.with_context(|| format!("{flavor} {event} {number}"))?;
                progress(&format!("{flavor} {event} {number}/{runs}: {}", run.line()));
                done.push(run);
            }
        }
        let problems = self.ledger.settle(&self.stage.cluster).await;
        for problem in &problems {
            progress(&format!("  problem: {problem}"));
        }
        if let Some(last) = done.last_mut() {
            last.problems.extend(problems);
        }
        Ok(())
    }

    async fn run(&mut self, event: Event) -> Result<Run> {
        self.bring_together(event).await?;
        let last_event = self.stage.last_event().await?;
        let former = self.stage.primary().await?;
        let sites = self.stage.cluster.sites();
        let backup = self.begin_beside(event).await?;
        let mut shops = Shops::open(sites, self.lab.as_deref(), self.next_client);
        self.next_client += CLIENTS;
        shops.write_on().await.context("nothing could be written before the event")?;
        sleep(WARM_UP).await;
        shops.mark();
        sleep(WINDOW).await;
        let baseline = shops.longest_gap();
        let early_errors: u64 = shops.0.iter().map(|(_, writer)| writer.errors()).sum();
        // Those that are lost with the primary cannot go on; what they were told counts all the same.
        let lost = match event {
            Event::DataCenter => self.stage.data_center(&former),
            _ => None,
        };
        let apart: Vec<_> = shops.0.extract_if(.., |(place, _)| lost == Some(*place)).collect();

        shops.mark();
        let zero = self.clock.now().wall;
        let mut problems = self.cause(event, &former).await?;
        // What was under way may still be acknowledged for a moment.
        sleep(Duration::from_millis(50)).await;
        if shops.write_on().await.is_err() {
            problems.push(format!("writes did not go on within {WRITES_AGAIN:?}"));
        }
        sleep(WINDOW).await;
        let outage = shops.longest_gap();
        problems.extend(Beside::ended(backup).await.err().map(|error| error.to_string()));
        let mut reports = shops.close().await;
        reports.extend(Shops(apart).close().await);
        if early_errors > 0 {
            problems.push(format!("{early_errors} client errors before the event"));
        }

        let events = self.stage.events(last_event).await?;
        let procedure = self.stage.latest_procedure().await.ok();
        let steps = procedure.iter().flat_map(|procedure| &procedure.stages);
        let steps = steps.flat_map(|stage| &stage.steps);
        let steps = steps.map(|step| (step.text.clone(), step.took_ms.unwrap_or(0))).collect();
        let (lost, wrong) = checks::after(&self.stage, event, &former, &reports).await?;
        problems.extend(wrong);
        let mut run = Run {
            flavor: self.flavor.to_string(),
            event,
            outage_ms: millis(outage),
            baseline_ms: millis(baseline),
            detected_ms: when(&events, zero, "procedure_opened"),
            opened_ms: when(&events, zero, "route_opened"),
            errors: errors_of(&reports),
            acknowledged: reports.iter().map(WriterReport::count).sum(),
            lost,
            steps,
            diverged: false,
            problems,
        };
        self.bring_back(event, &former, &mut run).await?;
        let rejoined = |event: &EventView| {
            event.kind == "procedure_opened" && event.text.starts_with("rejoin")
        };
        run.diverged |= self.stage.events(last_event).await?.iter().any(rejoined);
        if checks::caught_up(&self.stage.cluster, &reports, MEND).await.is_err() {
            run.problems.push(format!("not every server holds every row after {MEND:?}"));
        }
        self.ledger.add(reports);
        if !run.is_good() || run.outage_ms > 1_500.0 {
            self.tell(&run, zero, last_event).await?;
        }
        Ok(run)
    }

    async fn begin_beside(&self, event: Event) -> Result<Option<Beside>> {
        match event.beside() {
            Some(speed) => Beside::begin(&self.stage.cluster, speed).await.map(Some),
            None => Ok(None),
        }
    }

    async fn cause(&mut self, event: Event, former: &str) -> Result<Vec<String>> {
        if let Some(fault) = event.fault() {
            fault.strike(self.lab.as_deref_mut(), &mut self.stage.cluster, former)?;
            return Ok(Vec::new());
        }
        let ended = self.stage.switch_over(None).await?;
        let done = ended.state == "done";
        Ok(if done { Vec::new() } else { vec![format!("switchover: {}", ended.text)] })
    }

    /// Where a whole data center is lost, the leading watcher is lost with the primary.
    async fn bring_together(&mut self, event: Event) -> Result<()> {
        if event != Event::DataCenter {
            return Ok(());
        }
        let leader = self.stage.leader().await?.context("nobody leads")?;
        let sites = self.stage.cluster.sites();
        let place = sites.watchers.iter().find(|site| site.name == leader);
        let place = place.context("an unknown watcher leads")?.data_center;
        let beside = sites.servers.iter().find(|site| site.data_center == place);
        let beside = beside.context("no server stands beside the leader")?.name;
        if self.stage.primary().await? != beside {
            self.stage.switch_over_once_it_can(beside, MEND).await?;
            self.stage.wait_until_healthy(MEND).await?;
        }
        Ok(())
    }

    /// Lets the former primary come back; Regent makes the cluster whole again, with a copy of another's
    /// data when it holds transactions that nobody else has.
    async fn bring_back(&mut self, event: Event, former: &str, run: &mut Run) -> Result<()> {
        if let Some(fault) = event.fault() {
            fault.end(self.lab.as_deref_mut(), &mut self.stage.cluster, former).await?;
            let server = self.stage.cluster.server(former).context("no such server")?;
            if matches!(fault, Fault::Kill) && server.is_writable().await? {
                run.problems.push(format!("{former} came back writable"));
            }
        }
        if let Err(error) = self.stage.wait_until_healthy(MEND).await {
            run.problems.push(format!("{error:#}"));
        }
        run.problems.extend(checks::whole(&self.stage).await?);
        Ok(())
    }

    async fn tell(&self, run: &Run, zero: WallTime, after: u64) -> Result<()> {
        for problem in &run.problems {
            progress(&format!("  problem: {problem}"));
        }
        for event in self.stage.events(after).await? {
            let since = event.at.0 as i64 - zero.0 as i64;
            progress(&format!("  {since:+6} ms  {}: {}", event.kind, event.text));
        }
        for (kind, times) in &run.errors {
            progress(&format!("  client error: {kind} ({times})"));
        }
        Ok(())
    }
}

/// Writers, each with its data center.
pub struct Shops(pub Vec<(&'static str, Writer)>);

impl Shops {
    /// Clients beside each proxy, eight in all, numbered from `first_client`.
    pub fn open(sites: &Sites, lab: Option<&Lab>, mut first_client: u32) -> Shops {
        let clients = CLIENTS / sites.proxies.len().max(1) as u32;
        let mut shops = Vec::new();
        for site in &sites.proxies {
            let options = WriterOptions { clients, first_client, ..WriterOptions::default() };
            first_client += clients;
            let there = lab.and_then(|lab| lab.shop_beside(site.name));
            let _inside = there.map(tokio::runtime::Handle::enter);
            shops.push((site.data_center, Writer::start(site.address(0), options)));
        }
        Shops(shops)
    }

    /// How many rows were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.0.iter().map(|(_, writer)| writer.acknowledged()).sum()
    }

    pub fn mark(&self) {
        for (_, writer) in &self.0 {
            writer.mark();
        }
    }

    /// The longest time that the clients of any one proxy had to wait.
    pub fn longest_gap(&self) -> Duration {
        let gaps = self.0.iter().map(|(_, writer)| writer.longest_gap().length);
        gaps.max().unwrap_or_default()
    }

    /// Waits until all have had more acknowledgements than they have clients.
    pub async fn write_on(&mut self) -> Result<()> {
        for (_, writer) in &self.0 {
            let seen = writer.acknowledged();
            let waiting = async {
                while writer.acknowledged() < seen + 20 {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(WRITES_AGAIN, waiting).await?;
        }
        Ok(())
    }

    pub async fn close(self) -> Vec<WriterReport> {
        let mut reports = Vec::new();
        for (_, writer) in self.0 {
            reports.push(writer.stop().await);
        }
        reports
    }
}

pub fn errors_of(reports: &[WriterReport]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (kind, count) in reports.iter().flat_map(|report| &report.errors) {
        *all.entry(kind.clone()).or_default() += count;
    }
    all
}

/// How long after `zero` the first event of this kind happened.
fn when(events: &[EventView], zero: WallTime, kind: &str) -> Option<f64> {
    let found = events.iter().find(|event| event.kind == kind && event.at >= zero)?;
    Some(found.at.0.saturating_sub(zero.0) as f64)
}

pub fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e4).round() / 10.0
}
