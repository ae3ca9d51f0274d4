//! Watchers that die, above all the leader, alone or with the primary.

use crate::asking::listed;
use crate::stage::{Outcome, PATIENCE, Stage};
use regent::demo::cluster::Cluster;
use std::time::Duration;

crate::on_both_flavors!(the_leader_dies_with_the_primary, the_leader_dies_at_each_step);

/// Then a follower dies, and the next primary after it.
async fn the_leader_dies_with_the_primary(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let (leader, killed) = (stage.leader().await?, stage.primary().await?);
    stage.cluster.kill_node(Cluster::WATCHERS[leader]);
    stage.server(&killed).kill9();
    stage.failed_over(&killed).await?;
    stage.cluster.start_node(Cluster::WATCHERS[leader])?;
    stage.bring_back(&killed).await?;

    let follower = (stage.leader().await? + 1) % Cluster::WATCHERS.len();
    stage.cluster.kill_node(Cluster::WATCHERS[follower]);
    let killed = stage.primary().await?;
    stage.server(&killed).kill9();
    stage.failed_over(&killed).await?;
    stage.bring_back(&killed).await?;
    stage.judge().await
}

/// What the events of a failover say, in their order.
const STEPS: [&str; 7] = [
    " opened: ",
    "receives nothing more",
    "becomes primary",
    "has applied all",
    "commits on",
    "takes writes",
    " follows ",
];

/// Each time the primary is killed, and the leader as soon as a follower knows of the next step.
/// Whatever the moment turns out to be, the outcome must be right.
async fn the_leader_dies_at_each_step(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    for step in STEPS {
        let (leader, killed) = (stage.leader().await?, stage.primary().await?);
        let seen = stage.watchers.latest_event().await;
        let follower = (leader + 1) % Cluster::WATCHERS.len();
        stage.server(&killed).kill9();
        until_step(stage, follower, seen, step).await?;
        stage.cluster.kill_node(Cluster::WATCHERS[leader]);
        let ended = stage.failed_over(&killed).await;
        ended.map_err(|error| format!("leader killed at {step:?}: {error}"))?;
        stage.cluster.start_node(Cluster::WATCHERS[leader])?;
        let ended = stage.bring_back(&killed).await;
        ended.map_err(|error| format!("after the leader was killed at {step:?}: {error}"))?;
    }
    stage.judge().await
}

/// Waits until this watcher knows of a failover's step.
pub async fn until_step(stage: &Stage, watcher: usize, seen: u64, step: &str) -> Outcome {
    let path = format!("/v1/events?after={seen}&limit=1000");
    let polling = async {
        loop {
            let answer = stage.watchers.get_from(watcher, &path).await.unwrap_or_default();
            let events = listed(answer);
            let about = |text: &str| text.contains("failover") && text.contains(step);
            if events.iter().any(|(_, _, text)| about(text)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let reached = tokio::time::timeout(PATIENCE, polling).await;
    Ok(reached.map_err(|_| format!("no failover came to {step:?}"))?)
}
