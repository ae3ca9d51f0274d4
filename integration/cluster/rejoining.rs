//! Servers whose history forked come back by themselves, and what they alone held can be read.

use crate::asking::Shop;
use crate::copying::{Brake, order_a_rebuild};
use crate::stage::{Outcome, Stage, check};

crate::on_both_flavors!(
    a_former_primary_with_rows_of_its_own,
    an_operator_has_a_replica_rebuilt,
    a_failover_comes_first,
    a_replica_writes_by_itself,
    all_replicas_diverge,
);

/// Rows that one server alone has, written past Regent into its own binary log.
pub async fn write_alone(stage: &Stage, name: &str, table: &str) -> Outcome {
    let read_only = if stage.is_mysql() { "super_read_only" } else { "read_only" };
    let mut session = stage.peek(name).connect().await?;
    use mysql_async::prelude::Queryable;
    for statement in [
        format!("SET GLOBAL {read_only} = 0"),
        format!("CREATE TABLE shop.{table} (id INT PRIMARY KEY, what VARCHAR(40))"),
        format!("INSERT INTO shop.{table} VALUES (1, 'only on {name}')"),
        format!("SET GLOBAL {read_only} = 1"),
    ] {
        session.query_drop(statement).await?;
    }
    Ok(session.disconnect().await?)
}

/// The text of the newest export of a server, once an event names its file.
pub async fn exported(stage: &Stage, name: &str, after: u64) -> Outcome<String> {
    let text = stage.until_exported(name, after).await?;
    let path = text.split(" in ").last().and_then(|rest| rest.split(" on watcher").next());
    Ok(std::fs::read_to_string(path.ok_or("the event names no file")?)?)
}

pub async fn has_table(stage: &Stage, name: &str, table: &str) -> Outcome<bool> {
    let question = format!(
        "SELECT COUNT(*) FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA = 'shop' AND TABLE_NAME = '{table}'"
    );
    Ok(stage.peek(name).query::<u64>(&question).await? != Some(0))
}

async fn a_former_primary_with_rows_of_its_own(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let killed = stage.primary().await?;
    let seen = stage.watchers.latest_event().await;
    stage.server(&killed).kill9();
    stage.failed_over(&killed).await?;
    // It wrote these before it died, and nobody got them.
    stage.cluster.kill_node("w1");
    stage.cluster.kill_node("w2");
    stage.server(&killed).restart().await?;
    write_alone(stage, &killed, "mine").await?;
    stage.cluster.start_node("w1")?;
    stage.cluster.start_node("w2")?;
    let text = exported(stage, &killed, seen).await?;
    for part in ["CREATE TABLE shop.mine", &format!("'only on {killed}'"), "-- GTID "] {
        check(text.contains(part), || format!("{part} is not in\n{text}"))?;
    }
    stage.whole().await?;
    check(!has_table(stage, &killed, "mine").await?, || "its own table is there".to_owned())?;
    stage.writes_go_on().await?;
    let near =
        |shop: &Shop| shop.server(&killed)["lag_seconds"].as_f64().is_some_and(|it| it < 1.0);
    stage.until_shop(&format!("{killed} has caught up"), near).await?;
    // It is as good as any other now.
    let said = stage.regent(&["switchover", "shop", "--to", &killed, "--yes"]).await?;
    check(said.code == 0, || format!("the switchover said {said:?}"))?;
    stage.writes_go_on().await?;
    stage.judge().await
}

/// While the shop writes on: MariaDB's replica stops at once, and the primary's numbers pass its own.
async fn a_replica_writes_by_itself(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let primary = stage.primary().await?;
    let replica = stage.others(&primary)[0].clone();
    let seen = stage.watchers.latest_event().await;
    write_alone(stage, &replica, "mine").await?;
    let text = exported(stage, &replica, seen).await?;
    check(text.contains(&format!("'only on {replica}'")), || text)?;
    stage.whole().await?;
    check(!has_table(stage, &replica, "mine").await?, || "its own table is there".to_owned())?;
    check(stage.primary().await? == primary, || format!("{primary} was replaced"))?;
    stage.writes_go_on().await?;
    stage.judge().await
}

/// With nobody left to acknowledge, a lossless cluster waits; until they are rebuilt one by one.
async fn all_replicas_diverge(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let primary = stage.primary().await?;
    let seen = stage.watchers.latest_event().await;
    for name in stage.others(&primary) {
        write_alone(stage, &name, &format!("of_{name}")).await?;
    }
    for name in stage.others(&primary) {
        stage.until_exported(&name, seen).await?;
    }
    stage.whole().await?;
    for name in stage.others(&primary) {
        let text = exported(stage, &name, seen).await?;
        check(text.contains(&format!("'only on {name}'")), || text)?;
    }
    stage.writes_go_on().await?;
    stage.judge().await
}

async fn an_operator_has_a_replica_rebuilt(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let primary = stage.primary().await?;
    let replica = stage.others(&primary)[0].clone();
    let said = stage.regent(&["rejoin", "shop", &primary, "--yes"]).await?;
    check(said.code == 1 && said.err.contains("is the primary"), || format!("{said:?}"))?;
    let said = stage.regent(&["rejoin", "shop", &replica, "--rebuild", "--dry-run"]).await?;
    check(said.code == 0 && said.out.contains("rebuild"), || format!("{said:?}"))?;
    let order = ["rejoin", "shop", &replica, "--rebuild", "--from", &primary, "--yes"];
    let said = stage.regent(&order).await?;
    let told = format!("{replica} got new data and follows {primary}");
    check(said.code == 0 && said.out.contains(&told), || format!("{said:?}"))?;
    stage.whole().await?;
    stage.writes_go_on().await?;
    stage.judge().await
}

/// The primary dies while a replica is being rebuilt: it is replaced as quickly as ever, by one
/// whose data is whole, and the rebuilding is made again.
async fn a_failover_comes_first(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let primary = stage.primary().await?;
    let [replica, donor] = stage.others(&primary).try_into().map_err(|_| "three servers")?;
    let brake = Brake::put_on(stage, &primary, &replica, &donor).await?;
    let ordered = order_a_rebuild(stage, &replica, &donor);
    brake.holds(stage).await?;
    stage.stop_writer().await;
    stage.server(&primary).kill9();
    let moved = |shop: &crate::asking::Shop| shop.primary().is_some_and(|new| new != primary);
    let shop = stage.until_shop("the primary is replaced", moved).await?;
    let new = shop.primary().unwrap_or_default();
    check(new != replica, || format!("{replica} was promoted without its data"))?;
    ordered.await??;
    brake.release().await?;
    stage.bring_back(&primary).await?;
    stage.start_writer();
    stage.writes_go_on().await?;
    stage.whole().await?;
    stage.judge().await
}
