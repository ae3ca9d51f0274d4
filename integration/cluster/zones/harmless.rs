//! Cuts that leave the primary with its replicas: nobody may replace it.

use crate::stage::{Outcome, Stage, check};
use regent::demo::cluster::Cluster;
use regent::demo::lab::{Cut, Place};
use std::time::Duration;

super::in_zones!(
    the_leader_is_cut_off_and_on,
    #[ignore = "scripts/test --all"]
    a_follower_is_cut_off_and_on,
    #[ignore = "scripts/test --all"]
    one_watcher_and_the_primary,
    #[ignore = "scripts/test --all"]
    the_leader_and_the_primary,
    #[ignore = "scripts/test --all"]
    one_replica_and_the_primary,
    #[ignore = "scripts/test --all"]
    two_data_centers,
    #[ignore = "scripts/test --all"]
    the_witness_is_alone,
);

/// Longer than any failover takes to begin.
const LONG: Duration = Duration::from_secs(5);

/// Longer than storage may hang.
const LONGER: Duration = Duration::from_secs(15);

async fn the_leader_is_cut_off_and_on(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    for _ in 0..3 {
        let leader = Cluster::WATCHERS[stage.leader().await?];
        unharmed(stage, "", Cut::alone(leader)).await?;
    }
    stage.judge().await
}

async fn a_follower_is_cut_off_and_on(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    for _ in 0..3 {
        let follower = Cluster::WATCHERS[(stage.leader().await? + 1) % 3];
        unharmed(stage, "", Cut::alone(follower)).await?;
    }
    stage.judge().await
}

/// In each direction, and in both.
async fn one_watcher_and_the_primary(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    for watcher in Cluster::WATCHERS {
        let (watcher, primary) = (Place::Host(watcher), Place::Host("db1"));
        unharmed(stage, "", Cut::one_way(watcher, primary)).await?;
        unharmed(stage, "", Cut::one_way(primary, watcher)).await?;
        unharmed(stage, "", Cut::between(primary, watcher)).await?;
    }
    stage.judge().await
}

/// The leader's canary row is never answered, and that is not the primary's storage.
async fn the_leader_and_the_primary(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let leader = Place::Host(Cluster::WATCHERS[stage.leader().await?]);
    let primary = Place::Host("db1");
    unharmed_for(LONGER, stage, "", Cut::one_way(primary, leader)).await?;
    unharmed_for(LONGER, stage, "", Cut::one_way(leader, primary)).await?;
    stage.judge().await
}

/// In each direction, and in both; the other replica acknowledges alone.
async fn one_replica_and_the_primary(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    for replica in ["db2", "db3"] {
        let (replica, primary) = (Place::Host(replica), Place::Host("db1"));
        unharmed(stage, "", Cut::one_way(replica, primary)).await?;
        unharmed(stage, "", Cut::one_way(primary, replica)).await?;
        unharmed(stage, "", Cut::between(primary, replica)).await?;
    }
    stage.judge().await
}

/// Each pair, in each direction; shops that cannot reach the primary wait.
async fn two_data_centers(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    for (one, other) in [("paris", "london"), ("paris", "cloud"), ("london", "cloud")] {
        let waits = if (one, other) == ("paris", "london") { "london" } else { "" };
        let (one, other) = (Place::DataCenter(one), Place::DataCenter(other));
        unharmed(stage, waits, Cut::one_way(one, other)).await?;
        unharmed(stage, waits, Cut::one_way(other, one)).await?;
        unharmed(stage, waits, Cut::between(one, other)).await?;
    }
    stage.judge().await
}

/// A data center without primary and clients is lost.
async fn the_witness_is_alone(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    unharmed(stage, "", Cut::whole("cloud")).await?;
    unharmed(stage, "london", Cut::whole("london")).await?;
    stage.judge().await
}

/// Shops go on outside one data center while this is cut, and everywhere afterwards; the primary stays.
async fn unharmed(stage: &mut Stage, waits: &str, cuts: impl IntoIterator<Item = Cut>) -> Outcome {
    unharmed_for(LONG, stage, waits, cuts).await
}

async fn unharmed_for(
    long: Duration,
    stage: &mut Stage,
    waits: &str,
    cuts: impl IntoIterator<Item = Cut>,
) -> Outcome {
    let before = stage.whole().await?;
    let cuts: Vec<Cut> = cuts.into_iter().collect();
    let during = format!("while {cuts:?}");
    stage.lab().cut(cuts)?;
    let went_on = stage.writes_go_on_outside(waits).await;
    went_on.map_err(|error| format!("{during}: {error}"))?;
    tokio::time::sleep(long).await;
    let went_on = stage.writes_go_on_outside(waits).await;
    went_on.map_err(|error| format!("{during}: {error}"))?;
    stage.lab().heal()?;
    // A line that was cut is used again only after seconds, and the next cut may hit the others.
    stage.replicas_keep_up().await?;
    let after = stage.whole().await?;
    check(after.epoch() == before.epoch() && after.primary() == before.primary(), || {
        format!("{during}, the primary was replaced: {:?}", after.view)
    })?;
    stage.writes_go_on().await
}
