//! Kills and switchovers under write load.

use crate::checks::{self, Ledger};
use crate::report::progress;
use crate::stage::Stage;
use anyhow::{Context, Result};
use regent::api::types::EventView;
use regent::clock::{Clock, WallTime};
use regent::demo::servers::DatabaseFlavor;
use regent::demo::writer::{Writer, WriterOptions};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Connections that write at the same time.
const CLIENTS: u32 = 8;
/// Writing before anything is measured.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long gaps are looked for, around an event and without one.
const WINDOW: Duration = Duration::from_secs(2);
/// Writes that have not gone on by then count as an outage of this length.
const WRITES_AGAIN: Duration = Duration::from_secs(60);
/// How long a cluster may take to mend itself after an event; an emptied server fetches everything that
/// was ever written.
const MEND: Duration = Duration::from_secs(300);
/// How long a former primary may take to follow again before it is taken for divergent.
const REJOIN: Duration = Duration::from_secs(8);

/// What is done to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The primary is killed as by a power cut (`kill -9`).
    Kill,
    /// The primary's role is moved on request.
    Switchover,
}

/// What one run showed.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub flavor: String,
    pub event: Event,
    /// The longest time without an acknowledged commit around the event.
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
    /// Whether the killed server came back with transactions that nobody else has.
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

    fn line(&self) -> String {
        format!(
            "outage {:.0} ms (without event {:.0} ms), {} client errors, {} rows lost{}{}",
            self.outage_ms,
            self.baseline_ms,
            self.client_errors(),
            self.lost,
            if self.diverged { ", rebuilt the killed server" } else { "" },
            if self.is_good() { "" } else { " -- WRONG, see above" },
        )
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Event::Kill => "kill",
            Event::Switchover => "switchover",
        })
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

/// Runs each event `runs` times on one cluster of each flavour.
pub async fn measure(flavors: &[DatabaseFlavor], events: &[Event], runs: u32) -> Measured {
    let mut measured = Measured::default();
    for flavor in flavors {
        if let Err(error) = campaign(*flavor, events, runs, &mut measured.runs).await {
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
    done: &mut Vec<Run>,
) -> Result<()> {
    progress(&format!("{flavor}: starting three servers, three watchers and a proxy"));
    let mut campaign = Campaign {
        flavor,
        stage: Stage::set(flavor).await?,
        clock: Clock::start(),
        next_client: 1,
        ledger: Ledger::default(),
    };
    for number in 1..=runs {
        for event in events {
            let run = campaign.run(*event).await;
            let run = run.with_context(|| format!("{flavor} {event} {number}"))?;
            progress(&format!("{flavor} {event} {number}/{runs}: {}", run.line()));
            done.push(run);
        }
    }
    let problems = campaign.ledger.settle(&campaign.stage.cluster).await;
    for problem in &problems {
        progress(&format!("  problem: {problem}"));
    }
    if let Some(last) = done.last_mut() {
        last.problems.extend(problems);
    }
    campaign.stage.cluster.stop().await;
    Ok(())
}

struct Campaign {
    flavor: DatabaseFlavor,
    stage: Stage,
    clock: Clock,
    next_client: u32,
    ledger: Ledger,
}

impl Campaign {
    async fn run(&mut self, event: Event) -> Result<Run> {
        let options = WriterOptions {
            clients: CLIENTS,
            first_client: self.next_client,
            ..WriterOptions::default()
        };
        self.next_client += CLIENTS;
        let last_event = self.stage.last_event().await?;
        let former = self.stage.primary().await?;
        let writer = Writer::start(self.stage.cluster.write_port, options);
        writes_go_on(&writer).await.context("nothing could be written before the event")?;
        sleep(WARM_UP).await;
        writer.mark();
        sleep(WINDOW).await;
        let baseline = writer.longest_gap().length;
        let early_errors = writer.errors();

        writer.mark();
        let zero = self.clock.now().wall;
        let mut problems = self.cause(event, &former).await?;
        // What was under way may still be acknowledged for a moment.
        sleep(Duration::from_millis(50)).await;
        if writes_go_on(&writer).await.is_err() {
            problems.push(format!("writes did not go on within {WRITES_AGAIN:?}"));
        }
        sleep(WINDOW).await;
        let outage = writer.longest_gap().length;
        let report = writer.stop().await;
        if early_errors > 0 {
            problems.push(format!("{early_errors} client errors before the event"));
        }

        let events = self.stage.events(last_event).await?;
        let procedure = self.stage.latest_procedure().await.ok();
        let steps = procedure.iter().flat_map(|procedure| &procedure.stages);
        let steps = steps.flat_map(|stage| &stage.steps);
        let steps = steps.map(|step| (step.text.clone(), step.took_ms.unwrap_or(0))).collect();
        let (lost, wrong) = checks::after(&self.stage, event, &former, &report).await?;
        problems.extend(wrong);
        let mut run = Run {
            flavor: self.flavor.to_string(),
            event,
            outage_ms: millis(outage),
            baseline_ms: millis(baseline),
            detected_ms: when(&events, zero, "procedure_opened"),
            opened_ms: when(&events, zero, "route_opened"),
            errors: report.errors.clone(),
            acknowledged: report.count(),
            lost,
            steps,
            diverged: false,
            problems,
        };
        self.bring_back(event, &former, &mut run).await?;
        if checks::caught_up(&self.stage.cluster, &report, MEND).await.is_err() {
            run.problems.push(format!("not every server holds every row after {MEND:?}"));
        }
        self.ledger.add(report);
        if !run.is_good() || run.outage_ms > 1_500.0 {
            self.tell(&run, zero, last_event).await?;
        }
        Ok(run)
    }

    async fn cause(&mut self, event: Event, former: &str) -> Result<Vec<String>> {
        match event {
            Event::Kill => {
                self.stage.cluster.server(former).context("no such server")?.kill9();
                Ok(Vec::new())
            }
            Event::Switchover => {
                let ended = self.stage.switch_over().await?;
                let done = ended.state == "done";
                Ok(if done { Vec::new() } else { vec![format!("switchover: {}", ended.text)] })
            }
        }
    }

    /// Makes the cluster whole again: a killed server comes back, empty when it holds transactions
    /// that nobody else has.
    async fn bring_back(&mut self, event: Event, former: &str, run: &mut Run) -> Result<()> {
        if event == Event::Kill {
            let server = self.stage.cluster.server(former).context("no such server")?;
            server.restart().await?;
            if server.is_writable().await? {
                run.problems.push(format!("{former} came back writable"));
            }
            if self.stage.wait_until_healthy(REJOIN).await.is_err() {
                run.diverged = true;
                let server = self.stage.cluster.server(former).context("no such server")?;
                server.wipe_and_recreate().await?;
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

/// Waits for as many further acknowledgements as there are clients, and some more.
async fn writes_go_on(writer: &Writer) -> Result<()> {
    let seen = writer.acknowledged();
    let waiting = async {
        while writer.acknowledged() < seen + 20 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    Ok(timeout(WRITES_AGAIN, waiting).await?)
}

/// How long after `zero` the first event of this kind happened.
fn when(events: &[EventView], zero: WallTime, kind: &str) -> Option<f64> {
    let found = events.iter().find(|event| event.kind == kind && event.at >= zero)?;
    Some(found.at.0.saturating_sub(zero.0) as f64)
}

fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e4).round() / 10.0
}
