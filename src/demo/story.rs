//! The demonstration from beginning to end.

use super::cluster::{Cluster, NAME};
use super::screen::{Screen, Tone, spoken};
use super::writer::{Writer, WriterOptions, WriterReport};
use super::{DemoError, DemoOptions, DemoOutcome};
use crate::clock::{Clock, WallTime};
use std::io::Write;
use std::time::Duration;

const WRITES_AGAIN_LIMIT: Duration = Duration::from_secs(30);
const RETURN_LIMIT: Duration = Duration::from_secs(30);
/// Long enough to see a second fault if there is one.
const AFTERMATH: Duration = Duration::from_secs(2);

/// Tells the whole story and ends what it started.
pub(super) async fn tell(
    options: &DemoOptions,
    out: &mut (dyn Write + Send),
) -> Result<DemoOutcome, DemoError> {
    let mut screen = Screen::new(out, options.color);
    let (mut cluster, writer) = set_the_stage(options, &mut screen).await?;
    let mut outcome = DemoOutcome { killed: primary(&cluster).await, ..DemoOutcome::default() };
    kill_the_primary(&mut cluster, &writer, &mut outcome, &mut screen).await?;
    bring_it_back(&mut cluster, &writer, &outcome, &mut screen).await?;
    if options.once {
        let report = writer.stop().await;
        judge(&cluster, &report, &mut outcome, &mut screen).await?;
        cluster.stop().await;
        return Ok(outcome);
    }
    invite(&cluster, &outcome, &mut screen)?;
    report_pauses(&writer, &mut screen).await
}

async fn set_the_stage(
    options: &DemoOptions,
    screen: &mut Screen<'_>,
) -> Result<(Cluster, Writer), DemoError> {
    let clock = Clock::start();
    let start = clock.now().moment;
    let title = options.flavor.title();
    screen.heading(&format!("Starting three {title} servers, three watchers and a proxy"))?;
    let mut cluster = Cluster::start_servers(&options.cluster()).await?;
    screen.line(Tone::Plain, "db1, db2, db3 are up; db2 and db3 replicate from db1")?;
    cluster.start_regent()?;
    let status = cluster.wait_until_whole().await?;
    let taken = spoken(clock.now().moment.since(start));
    screen.line(Tone::Plain, &format!("the watchers adopted the cluster; all up after {taken}"))?;
    screen.line(Tone::Faint, &format!("logs and data: {}", cluster.directory().display()))?;
    screen.heading("The cluster")?;
    if let Some(shop) = status.cluster(NAME) {
        screen.topology(status.leader.as_deref().unwrap_or("nobody"), shop)?;
    }
    let writer = Writer::start(cluster.write(), WriterOptions::default());
    tokio::time::sleep(Duration::from_secs(2)).await;
    screen.line(
        Tone::Plain,
        &format!(
            "a shop writes through the proxy, {}: {} orders acknowledged",
            cluster.write(),
            writer.acknowledged()
        ),
    )?;
    Ok((cluster, writer))
}

async fn kill_the_primary(
    cluster: &mut Cluster,
    writer: &Writer,
    outcome: &mut DemoOutcome,
    screen: &mut Screen<'_>,
) -> Result<(), DemoError> {
    let killed = outcome.killed.clone();
    screen.heading(&format!("Killing the primary, {killed} (kill -9)"))?;
    for left in (1..=3).rev() {
        screen.line(Tone::Faint, &format!("in {left} ..."))?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    writer.mark();
    let before = writer.acknowledged();
    let zero = Clock::start().now().wall;
    if let Some(server) = cluster.server(&killed) {
        server.kill9();
    }
    let went_on = writes_go_on(writer).await;
    outcome.outage = writer.longest_gap().length;
    tokio::time::sleep(AFTERMATH).await;
    outcome.outage = outcome.outage.max(writer.longest_gap().length);
    outcome.acknowledged_after = writer.acknowledged().saturating_sub(before);
    show_timeline(cluster, zero, screen).await?;
    let said = format!(
        "the shop could not write for {}; {} clients' errors, {} orders since",
        spoken(outcome.outage),
        writer.errors(),
        outcome.acknowledged_after
    );
    if went_on {
        screen.line(Tone::Good, &said)?;
    } else {
        screen.line(
            Tone::Bad,
            &format!("writes did not go on within {}", spoken(WRITES_AGAIN_LIMIT)),
        )?;
    }
    Ok(())
}

/// Waits for twenty further acknowledgements after a pause, which only a new primary can give.
async fn writes_go_on(writer: &Writer) -> bool {
    // What was under way at the kill may still be acknowledged for a moment.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let seen = writer.acknowledged();
    let waiting = async {
        while writer.acknowledged() < seen + 20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WRITES_AGAIN_LIMIT, waiting).await.is_ok()
}

async fn show_timeline(
    cluster: &Cluster,
    zero: WallTime,
    screen: &mut Screen<'_>,
) -> Result<(), DemoError> {
    let events = cluster.api.events(NAME, zero).await;
    screen.heading("What the watchers did")?;
    screen.timeline(&events, zero)?;
    screen.heading("What the shop saw")?;
    Ok(())
}

async fn bring_it_back(
    cluster: &mut Cluster,
    writer: &Writer,
    outcome: &DemoOutcome,
    screen: &mut Screen<'_>,
) -> Result<(), DemoError> {
    let killed = &outcome.killed;
    screen.heading(&format!("Starting {killed} again"))?;
    let Some(server) = cluster.server(killed) else {
        return Ok(());
    };
    server.restart().await?;
    let acknowledged = writer.acknowledged();
    let follows = server
        .wait_for_within("SELECT COUNT(*) FROM shop.orders", acknowledged, RETURN_LIMIT)
        .await
        .is_ok();
    let read_only = !server.is_writable().await?;
    match (read_only, follows) {
        (true, true) => {
            screen
                .line(Tone::Good, &format!("{killed} is read-only and follows the new primary"))?;
        }
        (true, false) => {
            screen.line(Tone::Plain, &format!("{killed} is read-only; it does not follow yet"))?;
        }
        (false, _) => screen.line(Tone::Bad, &format!("{killed} accepts writes"))?,
    }
    if let Some(status) = cluster.api.status().await
        && let Some(shop) = status.cluster(NAME)
    {
        screen.topology(status.leader.as_deref().unwrap_or("nobody"), shop)?;
    }
    Ok(())
}

async fn judge(
    cluster: &Cluster,
    report: &WriterReport,
    outcome: &mut DemoOutcome,
    screen: &mut Screen<'_>,
) -> Result<(), DemoError> {
    outcome.acknowledged = report.count();
    outcome.writable = cluster.writable().await;
    screen.heading("In the end")?;
    if let [only] = outcome.writable.as_slice()
        && let Some(server) = cluster.servers.iter().find(|server| server.name() == only)
    {
        let held = report.compare(server.address()).await?;
        outcome.missing = held.missing.len();
        screen.line(
            Tone::Plain,
            &format!(
                "{only} alone accepts writes and holds {} orders; {} of {} acknowledged ones are missing",
                held.present, outcome.missing, outcome.acknowledged
            ),
        )?;
    } else {
        screen.line(Tone::Bad, &format!("servers that accept writes: {:?}", outcome.writable))?;
    }
    if outcome.is_success() {
        let outage = spoken(outcome.outage);
        screen.line(
            Tone::Good,
            &format!("success: writes went on after {outage}, nothing was lost"),
        )?;
    } else {
        screen.line(Tone::Bad, "failure: see above")?;
    }
    Ok(())
}

fn invite(
    cluster: &Cluster,
    outcome: &DemoOutcome,
    screen: &mut Screen<'_>,
) -> Result<(), DemoError> {
    let program = cluster.program().display();
    screen.heading("Everything stays up. In another terminal, try:")?;
    screen.line(Tone::Plain, &format!("export REGENT_API={}", cluster.api.first_url()))?;
    screen.line(Tone::Plain, &format!("{program} status"))?;
    screen.line(Tone::Plain, &format!("{program} topology {NAME}"))?;
    screen.line(Tone::Plain, &format!("{program} switchover {NAME} --to {}", outcome.killed))?;
    screen.line(
        Tone::Faint,
        &format!(
            "writes: {}, reads: {}, configuration: {}",
            cluster.write(),
            cluster.read(),
            cluster.configuration.display()
        ),
    )?;
    screen.line(Tone::Faint, "Ctrl-C ends everything and removes it.")?;
    screen.heading("The shop goes on writing; its pauses appear here")?;
    Ok(())
}

/// Says whenever the shop had to wait, for as long as people want to watch.
async fn report_pauses(writer: &Writer, screen: &mut Screen<'_>) -> Result<DemoOutcome, DemoError> {
    const WORTH_SAYING: Duration = Duration::from_millis(100);
    writer.mark();
    let mut before = writer.acknowledged();
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (now, gap) = (writer.acknowledged(), writer.longest_gap());
        // A pause is told when it is over.
        if now > before && gap.length > WORTH_SAYING {
            screen
                .line(Tone::Plain, &format!("{}  no order for {}", gap.from, spoken(gap.length)))?;
            writer.mark();
        }
        before = now;
    }
}

async fn primary(cluster: &Cluster) -> String {
    let status = cluster.api.status().await.unwrap_or_default();
    let named = status.cluster(NAME).and_then(|shop| shop.primary.clone());
    named.unwrap_or_else(|| "db1".to_owned())
}
