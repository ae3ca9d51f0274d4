//! Servers and clusters that are left alone for a while.

use crate::stage::{Outcome, Stage, check};
use regent::demo::cluster::Cluster;
use std::time::Duration;

crate::on_both_flavors!(
    a_server_in_maintenance_is_left_alone_and_not_counted_on,
    nothing_happens_by_rule_in_a_cluster_in_maintenance,
    what_a_person_began_to_replace_is_whole_when_that_is_said_or_copied,
);

/// A copy that is begun within ten seconds is made again.
const COPIED: Duration = Duration::from_secs(90);

/// db3 alone acknowledges where acknowledgements come from another data center. Once it is in
/// maintenance others do, so that it may be stopped, and a failover needs no word from it.
async fn a_server_in_maintenance_is_left_alone_and_not_counted_on(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let order = ["maintenance", "shop", "db1", "--for", "10m", "--reason", "new disks"];
    let said = stage.regent(&order).await?;
    check(said.code == 1 && said.err.contains("regent switchover shop"), || {
        format!("for the primary it said {said:?}")
    })?;
    let order = ["maintenance", "shop", "db3", "--for", "10m", "--reason", "new disks"];
    let said = stage.regent(&order).await?;
    check(said.code == 0 && said.out.contains("new disks"), || format!("it said {said:?}"))?;
    stage
        .until_shop("db2 acknowledges instead of db3", |shop| {
            shop.health("db3") == "maintenance"
                && shop.server("db2")["acknowledges"] == true
                && shop.server("db3")["acknowledges"] == false
                && !shop.busy()
        })
        .await?;
    let said = stage.regent(&["switchover", "shop", "--to", "db3", "--yes"]).await?;
    check(said.code == 1 && said.err.contains("new disks"), || format!("it said {said:?}"))?;

    let seen = stage.watchers.latest_event().await;
    stage.server("db3").kill9();
    stage.until_shop("db3 is missed", |it| it.finding("replica_unreachable").is_some()).await?;
    stage.writes_go_on().await?;
    let said = stage.regent(&["status", "shop"]).await?;
    check(said.out.contains("db3 is in maintenance until"), || format!("status said {said:?}"))?;

    stage.server("db1").kill9();
    stage.until_shop("db2 is the primary", |shop| shop.primary() == Some("db2")).await?;
    stage.server("db3").restart().await?;
    let astray = |shop: &crate::asking::Shop| {
        shop.finding("replica_astray").is_some_and(|text| text.contains("db3"))
    };
    stage.until_shop("db3 is seen to follow the former primary", astray).await?;
    // Longer than the rule that would have it mended waits.
    tokio::time::sleep(Duration::from_secs(3)).await;
    stage.until_shop("db3 is still left alone", |shop| astray(shop) && !shop.busy()).await?;
    let events = stage.watchers.events().await;
    let alarm = events
        .iter()
        .find(|(seq, kind, text)| *seq > seen && kind == "finding_began" && text.contains(": db3"));
    check(alarm.is_none(), || format!("there was an alarm: {alarm:?}"))?;

    let said = stage.regent(&["maintenance", "shop", "db3", "--end"]).await?;
    check(said.code == 0, || format!("its end said {said:?}"))?;
    let follows = |shop: &crate::asking::Shop| shop.server("db3")["follows"] == "db2";
    stage.until_shop("db3 follows the primary again", follows).await?;
    stage.writes_go_on().await?;
    stage.bring_back("db1").await?;
    stage.judge().await
}

/// It ends by itself, although the leader that it was asked of is gone by then.
async fn nothing_happens_by_rule_in_a_cluster_in_maintenance(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let before = stage.whole().await?;
    let order = ["maintenance", "shop", "--for", "9s", "--reason", "network move"];
    let said = stage.regent(&order).await?;
    check(said.code == 0, || format!("it said {said:?}"))?;
    let leader = stage.leader().await?;
    stage.server("db1").kill9();
    stage.cluster.kill_node(Cluster::WATCHERS[leader]);
    let told = stage
        .until_shop("it is said why nothing happens", |shop| {
            shop.view["waiting"].as_str().is_some_and(|it| it.contains("network move"))
                && shop.finding("primary_dead").is_some()
        })
        .await?;
    check(told.epoch() == before.epoch(), || format!("something happened: {:?}", told.view))?;
    let said = stage.regent(&["explain", "shop"]).await?;
    check(said.out.contains("nothing happens because of maintenance until"), || {
        format!("explain said {said:?}")
    })?;
    stage.failed_over("db1").await?;
    let events = stage.watchers.events().await;
    let place = |kind: &str, text: &str| {
        events.iter().position(|event| event.1 == kind && event.2.contains(text))
    };
    let (ended, opened) =
        (place("maintenance_ended", "cluster"), place("procedure_opened", "failover"));
    check(ended.is_some() && ended < opened, || format!("not in that order: {events:?}"))?;
    stage.cluster.start_node(Cluster::WATCHERS[leader])?;
    stage.bring_back("db1").await?;
    stage.judge().await
}

/// A person says that db2 gets other data, and that it is there; the second time, nobody says so.
async fn what_a_person_began_to_replace_is_whole_when_that_is_said_or_copied(
    stage: &mut Stage,
) -> Outcome {
    stage.begin().await?;
    let begin = ["maintenance", "shop", "db2", "--for", "10m", "--reason", "disk", "--new-data"];
    let end = ["maintenance", "shop", "db2", "--end", "--new-data"];
    let said = stage.regent(&end).await?;
    check(said.code == 1 && said.err.contains("nobody said that"), || format!("{said:?}"))?;
    let said = stage.regent(&begin).await?;
    check(said.code == 0 && said.out.contains("counts for nothing"), || format!("{said:?}"))?;
    stage.locally("db2", &["STOP REPLICA"]).await?;
    let stopped = |shop: &crate::asking::Shop| {
        let db2 = shop.server("db2");
        // While it still replicates it looks as far behind, for reports are not of one moment.
        let behind = db2["behind"].as_u64() > Some(20) && db2["lag_seconds"].is_null();
        behind && shop.finding("replica_incomplete").is_some()
    };
    stage.until_shop("its data is known to be gone, and it falls behind", stopped).await?;
    let said = stage.regent(&end).await?;
    check(said.code == 1 && said.err.contains("does not replicate"), || format!("{said:?}"))?;
    stage.locally("db2", &["START REPLICA"]).await?;
    stage.replicas_keep_up().await?;
    let said = stage.regent(&end).await?;
    check(said.code == 0 && said.out.contains("has its data"), || format!("{said:?}"))?;
    stage.whole().await?;

    let seen = stage.watchers.latest_event().await;
    let said = stage.regent(&begin).await?;
    check(said.code == 0, || format!("{said:?}"))?;
    let said = stage.regent(&["maintenance", "shop", "db2", "--end"]).await?;
    check(said.code == 0, || format!("{said:?}"))?;
    let copied = async |stage: &Stage| {
        let events = stage.watchers.events().await;
        let copy = |(seq, kind, text): &(u64, String, String)| {
            *seq > seen && kind == "step_done" && text.contains("db2 holds a copy")
        };
        events.iter().any(copy).then_some(())
    };
    stage.until("the watchers replace its data", COPIED, copied).await?;
    stage.whole().await?;
    stage.judge().await
}
