//! A monitor account that lacks what only makes things better.

use crate::stage::{Outcome, Stage, check, play};
use regent::demo::servers::DatabaseFlavor;
use regent::demo::servers::accounts::MONITOR;

/// Sessions of accounts with `SYSTEM_USER` cannot be ended then, and no server can be told to come back closed
/// from a restart. Neither stands in the way of a failover, or of a switchover.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_is_replaced_without_what_only_helps_on_mysql() {
    play(DatabaseFlavor::Mysql, async |stage| replaced(stage).await).await;
}

async fn replaced(stage: &mut Stage) -> Outcome {
    let fewer = format!(
        "REVOKE PERSIST_RO_VARIABLES_ADMIN, SYSTEM_USER ON *.* FROM '{}'@'%'",
        MONITOR.user
    );
    for name in ["db1", "db2", "db3"] {
        stage.change_monitor(name, &fewer).await?;
    }
    stage.begin().await?;
    let killed = stage.primary().await?;
    stage.server(&killed).kill9();
    stage.failed_over(&killed).await?;
    stage.bring_back(&killed).await?;
    stage.writes_go_on().await?;
    // One that was just rebuilt is behind for a moment, and no candidate.
    stage.whole().await?;
    let said = stage.regent(&["switchover", "shop", "--to", &killed, "--yes"]).await?;
    check(said.code == 0, || format!("the switchover said {said:?}"))?;
    stage.writes_go_on().await?;
    stage.judge().await
}
