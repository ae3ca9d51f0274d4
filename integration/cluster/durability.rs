//! A cluster that does not wait for acknowledgements.

use crate::stage::{Outcome, Setting, Stage, check, play_with};
use regent::demo::servers::DatabaseFlavor;

#[tokio::test(flavor = "multi_thread")]
async fn best_effort_fails_over_on_mysql() {
    play_with(best_effort(DatabaseFlavor::Mysql), async |stage| fail_over(stage).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn best_effort_fails_over_on_mariadb() {
    play_with(best_effort(DatabaseFlavor::Mariadb), async |stage| fail_over(stage).await).await;
}

fn best_effort(flavor: DatabaseFlavor) -> Setting {
    let mut setting = Setting::new(flavor);
    setting.cluster.durability = "best_effort";
    setting
}

async fn fail_over(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let killed = stage.primary().await?;
    stage.server(&killed).kill9();
    stage.failed_over(&killed).await?;
    stage.bring_back(&killed).await?;
    let writable = stage.cluster.writable().await;
    check(writable.len() == 1, || format!("{writable:?} take writes"))?;
    // What was acknowledged just before the kill may be lost, as was agreed to.
    stage.forget_writes().await;
    stage.start_writer();
    stage.writes_go_on().await?;
    stage.judge().await
}
