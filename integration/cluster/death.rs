//! Servers that die and come back.

use crate::stage::{Outcome, PATIENCE, Stage, check};
use std::time::Duration;

crate::on_both_flavors!(
    one_primary_after_the_other_is_killed,
    a_primary_that_is_back_at_once,
    replicas_die_and_come_back,
);

async fn one_primary_after_the_other_is_killed(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    for _ in 0..3 {
        let killed = stage.primary().await?;
        stage.server(&killed).kill9();
        stage.failed_over(&killed).await?;
        stage.bring_back(&killed).await?;
        stage.writes_go_on().await?;
    }
    stage.judge().await
}

/// It may be opened again or be replaced; there is never a second writer, and nothing is lost.
async fn a_primary_that_is_back_at_once(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let killed = stage.primary().await?;
    stage.server(&killed).restart().await?;
    stage.writes_go_on().await?;
    let shop = stage.whole().await?;
    let writable = stage.cluster.writable().await;
    check(writable.iter().map(String::as_str).eq(shop.primary()), || {
        format!("{:?} is the primary and {writable:?} take writes", shop.primary())
    })?;
    if shop.primary() != Some(&killed) {
        stage.was_never_written_to(&killed).await?;
    }
    stage.judge().await
}

/// With one replica left writes go on; with none they wait, visibly, until one is back.
async fn replicas_die_and_come_back(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let primary = stage.primary().await?;
    let replicas = stage.others(&primary);
    stage.server(&replicas[0]).kill9();
    stage.writes_go_on().await?;
    stage
        .until_shop("the loss is a finding", |it| it.finding("replica_unreachable").is_some())
        .await?;
    stage.writes_go_on().await?;
    stage.server(&replicas[1]).kill9();
    stage
        .until_shop("blocked commits are a finding", |it| it.finding("commits_blocked").is_some())
        .await?;
    let before = stage.acknowledged();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = stage.acknowledged();
    check(before == after, || "orders are acknowledged that no replica has".to_owned())?;
    stage.server(&replicas[0]).restart().await?;
    stage.writes_go_on().await?;
    stage.server(&replicas[1]).restart().await?;
    let whole = async |stage: &Stage| stage.watchers.shop().await.filter(|it| it.is_whole());
    let shop = stage.until("all are back", PATIENCE, whole).await?;
    check(shop.primary() == Some(&primary), || "the primary changed for nothing".to_owned())?;
    stage.judge().await
}
