//! Switchovers asked for with the command.

use crate::asking::run;
use crate::stage::{Outcome, PATIENCE, Stage, check};
use mysql_async::prelude::Queryable;

crate::on_both_flavors!(
    there_and_back,
    a_switchover_that_cannot_be_is_refused,
    a_target_that_hangs_leaves_everything_as_it_was,
);

async fn there_and_back(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let before = stage.whole().await?;
    let said = stage.regent(&["switchover", "shop", "--to", "db2", "--dry-run"]).await?;
    check(said.code == 0 && said.out.contains("db2"), || format!("a dry run said {said:?}"))?;
    let said = stage.regent(&["switchover", "shop", "--to", "db2", "--dry-run", "--json"]).await?;
    check(said.json()?["plan"].is_array(), || format!("a dry run said {said:?}"))?;
    let after = stage.whole().await?;
    check(after.epoch() == before.epoch() && after.primary() == Some("db1"), || {
        format!("a dry run changed the cluster: {:?}", after.view)
    })?;

    let said = stage.regent(&["switchover", "shop", "--to", "db2", "--yes"]).await?;
    check(said.code == 0, || format!("the switchover said {said:?}"))?;
    check(stage.primary().await? == "db2", || format!("it did not switch: {said:?}"))?;
    stage.writes_go_on().await?;
    stage.whole().await?;
    let said = stage.regent(&["switchover", "shop", "--to", "db1", "--yes", "--json"]).await?;
    check(said.code == 0 && said.json()?["state"] == "done", || format!("it said {said:?}"))?;
    check(stage.primary().await? == "db1", || format!("it did not switch: {said:?}"))?;
    stage.writes_go_on().await?;
    stage.whole().await?;
    let said = stage.regent(&["switchover", "shop", "--yes"]).await?;
    check(said.code == 0, || format!("a switchover to anybody said {said:?}"))?;
    check(stage.primary().await? != "db1", || format!("it did not switch: {said:?}"))?;
    stage.writes_go_on().await?;
    stage.whole().await?;
    stage.judge().await
}

async fn a_switchover_that_cannot_be_is_refused(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let before = stage.whole().await?;
    let said = stage.regent(&["switchover", "shop", "--to", "db9", "--yes"]).await?;
    let named = ["db1", "db2", "db3"].iter().all(|name| said.err.contains(name));
    check(said.code == 1 && named, || format!("for an unknown server it said {said:?}"))?;
    let said = stage.regent(&["switchover", "shop", "--to", "db1", "--yes"]).await?;
    check(said.code == 1 && said.err.contains("already"), || format!("it said {said:?}"))?;

    // Without its table the next order stops its applier, with an error that only a person can mend.
    let read_only = if stage.is_mysql() { "super_read_only" } else { "read_only" };
    let (open, shut) = (format!("SET GLOBAL {read_only}=0"), format!("SET GLOBAL {read_only}=1"));
    stage.locally("db2", &[&open, "DROP TABLE shop.orders", &shut]).await?;
    stage.until_shop("db2 is broken", |it| it.health("db2") == "replica_broken").await?;
    let said = stage.regent(&["switchover", "shop", "--to", "db2", "--yes"]).await?;
    check(said.code == 1 && said.err.contains("db2"), || format!("it said {said:?}"))?;
    stage.writes_go_on().await?;
    let after = stage.until_shop("nothing is under way", |it| !it.busy()).await?;
    check(after.epoch() == before.epoch() && after.primary() == Some("db1"), || {
        format!("a refused switchover changed the cluster: {:?}", after.view)
    })?;
    stage.rebuild("db2").await?;
    stage.whole().await?;
    stage.judge().await
}

/// The target stops to run once the primary takes no writes any more.
async fn a_target_that_hangs_leaves_everything_as_it_was(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    // The applier waits, so the target cannot catch up before it hangs.
    let mut session = stage.peek("db2").connect().await?;
    session.query_drop("LOCK TABLES shop.orders READ").await?;
    stage.writes_go_on().await?;
    let seen = stage.watchers.latest_event().await;
    let api = stage.cluster.urls().join(",");
    let order = ["switchover", "shop", "--to", "db2", "--yes"];
    let ordered = tokio::spawn(async move { run(&order, &api).await });
    let paused = async |stage: &Stage| {
        let events = stage.watchers.events().await;
        let about = |text: &str| text.contains("switchover") && text.contains("takes no writes");
        events.iter().any(|(seq, _, text)| *seq > seen && about(text)).then_some(())
    };
    let paused = stage.until("the primary takes no writes", PATIENCE, paused).await;
    stage.server("db2").stop_hang()?;
    let said = ordered.await??;
    paused.map_err(|error| format!("{error}; the command said {said:?}"))?;
    check(said.code == 1, || format!("the switchover said {said:?}"))?;
    stage.until_shop("db1 is open again", |it| !it.busy() && it.primary() == Some("db1")).await?;
    stage.writes_go_on().await?;
    check(stage.peek("db1").is_writable().await?, || "db1 takes no writes".to_owned())?;
    stage.server("db2").resume()?;
    drop(session);
    stage.whole().await?;
    stage.writes_go_on().await?;
    stage.judge().await
}
