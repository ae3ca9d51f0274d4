//! The primary's storage fills up or stalls.

use crate::stage::{Outcome, Stage, check};
use regent::demo::lab::Volume;
use regent::demo::servers::DatabaseFlavor;
use std::time::Duration;

#[test]
#[ignore = "scripts/test --all"]
fn stalled_on_mysql() {
    super::play(DatabaseFlavor::Mysql, Some("db1"), async |stage| stalled(stage).await);
}

#[test]
#[ignore = "scripts/test --all"]
fn stalled_on_mariadb() {
    super::play(DatabaseFlavor::Mariadb, Some("db1"), async |stage| stalled(stage).await);
}

#[test]
#[ignore = "scripts/test --all"]
fn full_on_mysql() {
    super::play(DatabaseFlavor::Mysql, Some("db1"), async |stage| full(stage).await);
}

#[test]
#[ignore = "scripts/test --all"]
fn full_on_mariadb() {
    super::play(DatabaseFlavor::Mariadb, Some("db1"), async |stage| full(stage).await);
}

/// Writes hang, reads answer: it is told, or the primary is replaced.
async fn stalled(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    volume(stage)?.stall()?;
    let noticed = |shop: &crate::asking::Shop| {
        shop.finding("primary_stalled").is_some() || shop.primary().is_some_and(|it| it != "db1")
    };
    stage.until_shop("the stall is noticed", noticed).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    volume(stage)?.resume()?;
    settle(stage).await
}

/// No commit can be written down: none may be acknowledged, and all goes on when there is room.
async fn full(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    volume(stage)?.fill()?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    volume(stage)?.clear()?;
    settle(stage).await
}

async fn settle(stage: &mut Stage) -> Outcome {
    stage.writes_go_on().await?;
    // MySQL ends itself when it cannot write its log, some of it only when it is to take no writes.
    let settled = |shop: &crate::asking::Shop| {
        !shop.busy() && matches!(shop.health("db1"), "healthy" | "replica_unreachable")
    };
    stage.until_shop("it is clear what becomes of db1", settled).await?;
    if !stage.server("db1").is_running() {
        stage.server("db1").restart().await?;
    }
    // On its own small disk it may never catch up with those who write.
    stage.stop_writer().await;
    if stage.primary().await? != "db1" {
        stage.follows_again("db1").await?;
    }
    stage.whole().await?;
    let writable = stage.cluster.writable().await;
    check(writable.len() == 1, || format!("{writable:?} take writes"))?;
    stage.judge().await
}

fn volume(stage: &Stage) -> Outcome<&Volume> {
    Ok(stage.volume.as_ref().ok_or("no small disk")?)
}
