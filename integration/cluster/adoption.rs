//! Running clusters that are taken as they are, or not.

use crate::asking::Shop;
use crate::stage::{Outcome, Stage, check};

crate::on_both_flavors!(a_cluster_is_adopted_as_it_is, an_unclear_cluster_is_not_adopted);

async fn a_cluster_is_adopted_as_it_is(stage: &mut Stage) -> Outcome {
    // Another primary than the first in the configuration, and the others behind it.
    stage.begin().await?;
    let shop = stage.whole().await?;
    check(shop.primary() == Some("db1") && shop.epoch() == 1, || format!("{:?}", shop.view))?;
    let said = stage.regent(&["adopt", "shop", "--primary", "db2"]).await?;
    check(said.code == 1 && said.err.contains("already"), || format!("it said {said:?}"))?;
    let said = stage.regent(&["status", "--json"]).await?;
    check(said.code == 0 && said.json()?["clusters"][0]["primary"] == "db1", || {
        format!("status said {said:?}")
    })?;
    for command in [["topology", "shop"], ["explain", "shop"], ["status", "shop"]] {
        let said = stage.regent(&command).await?;
        check(said.code == 0 && said.out.contains("db3"), || format!("it said {said:?}"))?;
    }
    stage.judge().await
}

async fn an_unclear_cluster_is_not_adopted(stage: &mut Stage) -> Outcome {
    let follow_nobody = match stage.is_mysql() {
        true => ["STOP REPLICA", "RESET REPLICA ALL"],
        false => ["STOP SLAVE", "RESET SLAVE ALL"],
    };
    stage.locally("db3", &follow_nobody).await?;
    stage.cluster.start_regent()?;
    not_adopted(stage, "db3 does not follow db1").await?;
    stage
        .peek("db1")
        .execute("INSERT INTO shop.orders (client, sequence) VALUES (9999, 1)")
        .await?;
    stage.peek("db2").wait_for("SELECT COUNT(*) FROM shop.orders", 1).await?;

    stage.peek("db2").open_for_writes().await?;
    not_adopted(stage, "2 servers take writes").await?;

    for name in ["db1", "db2"] {
        stage.peek(name).execute("SET GLOBAL read_only=1").await?;
    }
    not_adopted(stage, "no server takes writes").await?;
    let explained = stage.regent(&["explain", "shop"]).await?;
    check(explained.out.contains("no server takes writes"), || format!("{explained:?}"))?;

    let said = stage.regent(&["adopt", "shop", "--primary", "db3"]).await?;
    check(said.code == 1 && said.err.contains("db3 does not have"), || format!("{said:?}"))?;
    let said = stage.regent(&["adopt", "shop", "--primary", "db9"]).await?;
    check(said.code == 1, || format!("for an unknown server it said {said:?}"))?;
    let said = stage.regent(&["adopt", "shop", "--primary", "db1"]).await?;
    check(said.code == 0, || format!("adopt said {said:?}"))?;
    stage.whole().await?;
    stage.start_writer();
    stage.writes_go_on().await?;
    stage.judge().await
}

async fn not_adopted(stage: &Stage, why: &str) -> Outcome {
    let told = |shop: &Shop| {
        let finding = shop.finding("not_adopted").unwrap_or_default();
        shop.state() == "not_adopted" && shop.primary().is_none() && finding.contains(why)
    };
    stage.until_shop(&format!("it is not adopted because {why}"), told).await?;
    Ok(())
}
