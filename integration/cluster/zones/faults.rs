//! Faults of the primary that must lead to a failover, each undone afterwards.

use crate::stage::{Outcome, Stage, check};
use regent::demo::cluster::Cluster;
use regent::demo::lab::Fault;

/// One scenario for each row.
macro_rules! survived {
    ($($(#[$attribute:meta])* $name:ident: $fault:ident),* $(,)?) => {
        $(async fn $name(stage: &mut Stage) -> Outcome {
            stage.begin().await?;
            let primary = stage.primary().await?;
            survive(stage, Fault::$fault, &primary).await?;
            stage.judge().await
        })*
        super::in_zones!(
            $($(#[$attribute])* $name,)*
            data_center_with_primary_and_leader,
            #[ignore = "scripts/test --all"]
            again_and_again,
        );
    };
}

survived! {
    #[ignore = "scripts/test --all"]
    kill: Kill,
    hang: Hang,
    drop: Drop,
    #[ignore = "scripts/test --all"]
    drop_to: DropTo,
    #[ignore = "scripts/test --all"]
    drop_from: DropFrom,
    #[ignore = "scripts/test --all"]
    data_center: DataCenter,
    replication: Replication,
}

/// The primary is replaced, clients that are not cut off go on, and it comes back as a replica.
async fn survive(stage: &mut Stage, fault: Fault, primary: &str) -> Outcome {
    let lost = match fault.takes_clients_along() {
        true => stage.lab().data_center(primary).unwrap_or(""),
        false => "",
    };
    stage.strike(fault, primary)?;
    stage.failed_over_outside(primary, lost).await?;
    stage.end(fault, primary).await?;
    stage.follows_again(primary).await?;
    stage.writes_go_on().await
}

/// The leader has to be replaced before anybody can decide.
async fn data_center_with_primary_and_leader(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let leader = stage.leader().await?;
    let beside = format!("db{}", leader + 1);
    if stage.primary().await? != beside {
        let said = stage.regent(&["switchover", "shop", "--to", &beside, "--yes"]).await?;
        check(said.code == 0, || format!("the switchover said {said:?}"))?;
        stage.whole().await?;
    }
    check(stage.leader().await? == leader, || "another watcher leads by now".to_owned())?;
    survive(stage, Fault::DataCenter, &beside).await?;
    let now = Cluster::WATCHERS[stage.leader().await?];
    check(now != Cluster::WATCHERS[leader], || format!("{now} leads although it was cut off"))?;
    stage.judge().await
}

/// One after the other, on the same cluster.
async fn again_and_again(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    for fault in [Fault::DataCenter, Fault::DropFrom, Fault::Kill] {
        let primary = stage.primary().await?;
        let survived = survive(stage, fault, &primary).await;
        survived.map_err(|error| format!("{fault} of {primary}: {error}"))?;
    }
    stage.judge().await
}
