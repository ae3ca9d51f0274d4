//! Data centers that are far from each other, and lines that lose packets.

use crate::stage::{Outcome, Stage, check};
use regent::demo::lab::Fault;
use std::time::Duration;

super::in_zones!(
    #[ignore = "scripts/test --all"]
    far_apart_and_back,
    #[ignore = "scripts/test --all"]
    very_far_apart,
    #[ignore = "scripts/test --all"]
    lossy,
);

/// Every push plays this one on MySQL, whose servers take the more round trips.
mod far_apart {
    use regent::demo::servers::DatabaseFlavor::{self, Mariadb, Mysql};

    #[test]
    fn mysql() {
        play(Mysql);
    }

    #[test]
    #[ignore = "scripts/test --all"]
    fn mariadb() {
        play(Mariadb);
    }

    fn play(flavor: DatabaseFlavor) {
        crate::zones::play(flavor, None, async |stage| super::far_apart(stage).await);
    }
}

/// 60 ms there and back: nobody is replaced for being far, and whoever dies is.
async fn far_apart(stage: &mut Stage) -> Outcome {
    stage.lab().slow_down(Duration::from_millis(30), 0.0)?;
    calm(stage).await?;
    let primary = stage.primary().await?;
    stage.strike(Fault::Kill, &primary)?;
    stage.failed_over(&primary).await?;
    stage.lab().speed_up()?;
    stage.judge().await
}

/// 60 ms there and back.
async fn far_apart_and_back(stage: &mut Stage) -> Outcome {
    stage.lab().slow_down(Duration::from_millis(30), 0.0)?;
    calm_then_lost(stage).await
}

/// 160 ms there and back.
async fn very_far_apart(stage: &mut Stage) -> Outcome {
    stage.lab().slow_down(Duration::from_millis(80), 0.0)?;
    calm_then_lost(stage).await
}

/// 20 ms there and back, and two packets of a hundred never arrive.
async fn lossy(stage: &mut Stage) -> Outcome {
    stage.lab().slow_down(Duration::from_millis(10), 0.02)?;
    calm_then_lost(stage).await
}

/// Nobody is replaced for being far; whoever is cut off is, and follows again later.
async fn calm_then_lost(stage: &mut Stage) -> Outcome {
    calm(stage).await?;
    let primary = stage.primary().await?;
    stage.strike(Fault::Drop, &primary)?;
    stage.failed_over(&primary).await?;
    stage.end(Fault::Drop, &primary).await?;
    stage.follows_again(&primary).await?;
    stage.writes_go_on().await?;
    stage.lab().speed_up()?;
    stage.judge().await
}

/// Everything serves, and goes on as it is for a while.
async fn calm(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let before = stage.whole().await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    stage.writes_go_on().await?;
    let after = stage.whole().await?;
    check(after.epoch() == before.epoch(), || format!("replaced for nothing: {:?}", after.view))
}
