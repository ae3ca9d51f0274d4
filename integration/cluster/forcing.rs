//! Failovers that a person orders, to a server of their choice or at the price of a loss.

use crate::stage::{Outcome, Stage, check};
use std::time::Duration;

crate::on_both_flavors!(
    to_a_named_server,
    #[ignore = "scripts/test --all"]
    a_loss_is_stated_before_and_after,
);

/// Not to the best one: db3 alone acknowledges here, so db2 takes from it what it lacks.
async fn to_a_named_server(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let before = stage.whole().await?;
    let said = stage.regent(&["failover", "shop", "--to", "db1", "--yes"]).await?;
    check(said.code == 1 && said.err.contains("already"), || format!("it said {said:?}"))?;
    let said = stage.regent(&["failover", "shop", "--to", "db2", "--dry-run"]).await?;
    check(said.code == 0 && said.out.contains("db2"), || format!("a dry run said {said:?}"))?;
    stage.writes_go_on().await?;
    let said = stage.regent(&["failover", "shop", "--to", "db2", "--yes", "--json"]).await?;
    let ended = said.json()?;
    let whole = ended["state"] == "done" && ended["to"] == "db2" && ended["loss"].is_null();
    check(said.code == 0 && whole, || format!("the failover said {said:?}"))?;
    stage.writes_go_on().await?;
    let after = stage.whole().await?;
    check(after.primary() == Some("db2") && after.epoch() > before.epoch(), || {
        format!("it did not fail over: {:?}", after.view)
    })?;
    stage.judge().await
}

/// All that acknowledged die with the primary, and the one that is left lacks some of it.
async fn a_loss_is_stated_before_and_after(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    // Otherwise the rules would have db2 receive again.
    let order = ["maintenance", "shop", "--for", "10m", "--reason", "the building burns"];
    let said = stage.regent(&order).await?;
    check(said.code == 0, || format!("maintenance said {said:?}"))?;
    let stop = if stage.is_mysql() { "STOP REPLICA IO_THREAD" } else { "STOP SLAVE IO_THREAD" };
    // With nothing under way: MySQL would wait a minute for the rest of a transaction cut in two.
    stage.stop_writer().await;
    stage.replicas_keep_up().await?;
    stage.locally("db2", &[stop]).await?;
    stage.start_writer();
    // Two looks of every watcher at least, so that they know of some that db2 lacks.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stage.writes_go_on().await?;
    }
    let seen = stage.watchers.latest_event().await;
    for name in ["db1", "db3"] {
        stage.server(name).kill9();
    }
    stage.until_shop("the loss is noticed", |it| it.finding("primary_dead").is_some()).await?;

    let said = stage.regent(&["failover", "shop", "--to", "db2", "--yes"]).await?;
    check(said.code == 1, || format!("without a word about loss it said {said:?}"))?;
    let order = ["failover", "shop", "--to", "db2", "--accept-loss"];
    let said = stage.regent(&order).await?;
    check(said.code == 2 && said.err.contains("--yes"), || format!("it said {said:?}"))?;
    let writable = stage.cluster.writable().await;
    check(writable.is_empty(), || format!("{writable:?} take writes already"))?;

    let measured = "transaction(s) that db1 was last seen to hold";
    let before = stage.regent(&[&order[..], &["--dry-run", "--json"]].concat()).await?;
    let stated = before.json()?["loss"].as_str().unwrap_or_default().to_owned();
    check(before.code == 0 && stated.contains(measured), || format!("it said {before:?}"))?;
    let after = stage.regent(&[&order[..], &["--yes", "--json"]].concat()).await?;
    let ended = after.json()?;
    let recorded = ended["loss"].as_str().unwrap_or_default().to_owned();
    let done = after.code == 0 && ended["state"] == "done" && recorded.contains(measured);
    check(done, || format!("the failover said {after:?}"))?;
    let events = stage.watchers.events().await;
    let told = |text: &str| text.contains("db2 is the primary") && text.contains(measured);
    check(events.iter().any(|(seq, _, text)| *seq > seen && told(text)), || {
        format!("no event tells of the loss: {events:?}")
    })?;
    // Each order is a transaction of its own; some were acknowledged after the last look.
    stage.stop_writer().await;
    let (said, lost) = (first_number(&recorded), stage.missing_on("db2").await?);
    let same = first_number(&stated) == said && said > 0 && said <= lost + CLIENTS;
    check(same, || format!("{lost} orders are lost; before: {stated}; after: {recorded}"))?;

    let said = stage.regent(&["maintenance", "shop", "--end"]).await?;
    check(said.code == 0, || format!("its end said {said:?}"))?;
    stage.forget_writes().await;
    for name in ["db1", "db3"] {
        stage.server(name).restart().await?;
    }
    // What they alone hold can be read before it goes.
    for name in ["db1", "db3"] {
        stage.until_exported(name, seen).await?;
    }
    stage.whole().await?;
    stage.start_writer();
    stage.writes_go_on().await?;
    stage.judge().await
}

/// Orders that were under way when the primary died.
const CLIENTS: u64 = 4;

fn first_number(text: &str) -> u64 {
    let rest = text.trim_start_matches(|one: char| !one.is_ascii_digit());
    let until = rest.find(|one: char| !one.is_ascii_digit()).unwrap_or(rest.len());
    rest[..until].parse().unwrap_or(0)
}
