//! A command that takes lost primaries out of service, and that hangs.

use crate::stage::{Outcome, Setting, Stage, check, play_with};
use regent::clock::Clock;
use regent::demo::cluster::Cluster;
use regent::demo::servers::DatabaseFlavor;
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn best_effort_goes_on_by_leases_on_mysql() {
    play("best_effort", DatabaseFlavor::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/test --all"]
async fn best_effort_goes_on_by_leases_on_mariadb() {
    play("best_effort", DatabaseFlavor::Mariadb).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/test --all"]
async fn lossless_does_not_wait_on_mysql() {
    play("lossless", DatabaseFlavor::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/test --all"]
async fn lossless_does_not_wait_on_mariadb() {
    play("lossless", DatabaseFlavor::Mariadb).await;
}

async fn play(durability: &'static str, flavor: DatabaseFlavor) {
    let mut setting = Setting::new(flavor);
    setting.cluster.durability = durability;
    play_with(setting, async |stage| the_command_hangs(stage, durability == "lossless").await)
        .await;
}

/// How long the command may take; it is tried twice.
const LIMIT: Duration = Duration::from_secs(1);

/// The proxy hangs as well, so that it confirms nothing: what is left is that its lease runs out.
async fn the_command_hangs(stage: &mut Stage, lossless: bool) -> Outcome {
    let begun = stage.cluster.directory().join("fence-begun");
    declare_fence(stage, &begun)?;
    stage.begin().await?;
    if lossless {
        stage.server("db1").kill9();
    } else {
        stage.cluster.signal_node("proxy1", Signal::STOP)?;
        stage.server("db1").kill9();
    }
    let clock = Clock::start();
    let struck = clock.now().moment;
    let moved =
        stage.until_shop("db1 is replaced", |it| it.primary().is_some_and(|it| it != "db1"));
    let moved = moved.await;
    let took = clock.now().moment.since(struck);
    stage.cluster.signal_node("proxy1", Signal::CONT)?;
    moved?;
    let bound = if lossless { LIMIT } else { Duration::from_secs(10) };
    check(took < bound, || format!("the failover took {took:?}"))?;
    let killed = async |stage: &Stage| {
        let told = Cluster::WATCHERS.map(|id| std::fs::read_to_string(stage.cluster.log_of(id)));
        let about = |log: &str| log.contains("the fence command was killed after 1000 ms");
        told.into_iter().flatten().any(|log| about(&log)).then_some(())
    };
    stage.until("the command is killed", LIMIT * 10, killed).await?;
    let started = std::fs::read_to_string(&begun)?;
    check(!started.is_empty(), || "the command was never run".to_owned())?;
    for group in started.lines() {
        let gone = async |_: &Stage| (!Path::new("/proc").join(group).exists()).then_some(());
        stage.until("nothing is left of the command", LIMIT, gone).await?;
    }
    stage.writes_go_on().await?;
    stage.bring_back("db1").await?;
    if !lossless {
        // What was acknowledged just before the kill may be lost, as was agreed to.
        stage.forget_writes().await;
        stage.start_writer();
    }
    stage.writes_go_on().await?;
    stage.judge().await
}

/// The first primary gets a command that says who it is and never ends.
fn declare_fence(stage: &Stage, begun: &Path) -> Outcome {
    let script = format!("echo $$ >> {}; exec sleep 1000", begun.display());
    let command = serde_json::json!({ "command": ["sh", "-c", script], "limit": "1s" });
    let text = std::fs::read_to_string(&stage.cluster.configuration)?;
    let declared = text.replacen("promotion: prefer", &format!("fence: {command}"), 1);
    check(declared != text, || format!("nothing to replace in {text}"))?;
    Ok(std::fs::write(&stage.cluster.configuration, declared)?)
}
