//! Failovers that are hit themselves: by further deaths, by restarts, by watchers from the past.

use crate::leaders::until_step;
use crate::stage::{Outcome, Stage, check};
use regent::demo::cluster::Cluster;
use regent::demo::lab::Fault;
use std::path::Path;
use std::time::Duration;

super::in_zones!(
    #[ignore = "scripts/test --all"]
    two_servers_die,
    #[ignore = "scripts/test --all"]
    the_candidate_dies_while_promoted,
    #[ignore = "scripts/test --all"]
    all_watchers_restart_during_a_failover,
    #[ignore = "scripts/test --all"]
    a_watcher_returns_with_an_old_store,
    #[ignore = "scripts/test --all"]
    the_primary_flaps,
);

/// The one that is left may lack what the dead replica acknowledged, so it waits for that one.
async fn two_servers_die(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let primary = stage.primary().await?;
    let replica = stage.others(&primary).remove(0);
    stage.server(&replica).kill9();
    stage.server(&primary).kill9();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let writable = stage.cluster.writable().await;
    check(writable.is_empty(), || format!("{writable:?} take writes without proof"))?;
    stage.server(&replica).restart().await?;
    stage.failed_over(&primary).await?;
    stage.bring_back(&primary).await?;
    stage.writes_go_on().await?;
    stage.judge().await
}

/// As soon as it is told to take writes. Whoever comes back first, nothing is lost.
async fn the_candidate_dies_while_promoted(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let killed = stage.primary().await?;
    let seen = stage.watchers.latest_event().await;
    let leader = stage.leader().await?;
    stage.server(&killed).kill9();
    until_step(stage, leader, seen, "has applied all").await?;
    let promoted = stage.watchers.events().await.into_iter().rev().find_map(|(_, _, text)| {
        stage
            .others(&killed)
            .into_iter()
            .find(|name| text.contains("becomes primary") && text.contains(name.as_str()))
    });
    let promoted = promoted.ok_or("no event names the candidate")?;
    stage.server(&promoted).kill9();
    tokio::time::sleep(Duration::from_secs(3)).await;
    stage.server(&killed).restart().await?;
    stage.writes_go_on().await?;
    stage.server(&promoted).restart().await?;
    for name in [&promoted, &killed] {
        if stage.primary().await? != **name {
            stage.follows_again(name).await?;
        }
    }
    stage.writes_go_on().await?;
    stage.judge().await
}

async fn all_watchers_restart_during_a_failover(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    for step in [" opened: ", "receives nothing more", "becomes primary"] {
        let killed = stage.primary().await?;
        let seen = stage.watchers.latest_event().await;
        let leader = stage.leader().await?;
        stage.server(&killed).kill9();
        until_step(stage, leader, seen, step).await?;
        for id in Cluster::WATCHERS {
            stage.cluster.kill_node(id);
        }
        for id in Cluster::WATCHERS {
            stage.cluster.start_node(id)?;
        }
        let moved = stage.failed_over(&killed).await;
        moved.map_err(|error| format!("watchers restarted at {step:?}: {error}"))?;
        stage.bring_back(&killed).await?;
    }
    stage.judge().await
}

/// It forgot two changes of primary, and its own votes.
async fn a_watcher_returns_with_an_old_store(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let old = Cluster::WATCHERS[(stage.leader().await? + 1) % 3];
    let store = stage.cluster.directory().join(old);
    let kept = stage.cluster.directory().join("kept");
    stage.cluster.kill_node(old);
    copy(&store, &kept)?;
    stage.cluster.start_node(old)?;
    stage.whole().await?;
    for _ in 0..2 {
        let said = stage.regent(&["switchover", "shop", "--yes"]).await?;
        check(said.code == 0, || format!("the switchover said {said:?}"))?;
        stage.whole().await?;
    }
    let before = stage.whole().await?;
    stage.cluster.kill_node(old);
    std::fs::remove_dir_all(&store)?;
    copy(&kept, &store)?;
    stage.cluster.start_node(old)?;
    stage.writes_go_on().await?;
    let after = stage.whole().await?;
    check(after.epoch() == before.epoch() && after.primary() == before.primary(), || {
        format!("an old store changed the cluster: {:?}", after.view)
    })?;
    let primary = stage.primary().await?;
    stage.strike(Fault::Drop, &primary)?;
    stage.failed_over(&primary).await?;
    stage.end(Fault::Drop, &primary).await?;
    stage.follows_again(&primary).await?;
    stage.judge().await
}

/// It dies and is back at once, again and again; whoever is the primary then, nothing is lost.
async fn the_primary_flaps(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    for _ in 0..4 {
        let primary = stage.primary().await?;
        stage.server(&primary).restart().await?;
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    stage.writes_go_on().await?;
    for name in ["db1", "db2", "db3"] {
        if stage.primary().await? != name {
            stage.follows_again(name).await?;
        }
    }
    stage.writes_go_on().await?;
    stage.judge().await
}

fn copy(from: &Path, to: &Path) -> Outcome {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (from, to) = (entry.as_ref().map_err(|error| error.to_string())?.path(), to.to_owned());
        let to = to.join(from.file_name().unwrap_or_default());
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            std::fs::copy(&from, &to)?;
        }
    }
    Ok(())
}
