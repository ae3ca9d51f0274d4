//! Replicas that have received more than they applied when the primary dies.

use crate::stage::{Outcome, Stage, check};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use regent::demo::servers::DatabaseFlavor;
use std::time::Duration;

crate::on_both_flavors!(
    what_was_received_is_applied_before_promotion,
    #[ignore = "scripts/test --all"]
    one_waits_and_one_is_delayed_on_purpose,
);

/// MariaDB forgets what it received when both its threads have stopped.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/test --all"]
async fn only_one_whose_applier_breaks_received_all_on_mysql() {
    let scenario =
        async |stage: &mut Stage| only_one_whose_applier_breaks_received_all(stage).await;
    crate::stage::play(DatabaseFlavor::Mysql, scenario).await;
}

/// First all replicas lag, then only one.
async fn what_was_received_is_applied_before_promotion(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    for lagging in [2, 1] {
        let killed = stage.primary().await?;
        let mut sessions = Vec::new();
        for name in stage.others(&killed).iter().take(lagging) {
            sessions.push(stop_applying(stage, name).await?);
        }
        stage.writes_go_on().await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        stage.server(&killed).kill9();
        // The failover is under way and waits for the appliers by now.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for session in sessions {
            session.disconnect().await?;
        }
        stage.failed_over(&killed).await?;
        stage.bring_back(&killed).await?;
    }
    stage.judge().await
}

/// db2, an hour behind on purpose, is no candidate; db3 first applies what it received.
async fn one_waits_and_one_is_delayed_on_purpose(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    delay(stage, "db2", 3600).await?;
    stage.until_shop("db2 is delayed", |it| it.finding("replica_delayed").is_some()).await?;
    stage.writes_go_on().await?;
    let session = stop_applying(stage, "db3").await?;
    stage.writes_go_on().await?;
    stage.server("db1").kill9();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    session.disconnect().await?;
    let now = stage.failed_over("db1").await?;
    check(now == "db3", || format!("{now} was promoted"))?;
    stage.server("db1").restart().await?;
    stage.writes_go_on().await?;
    delay(stage, "db2", 0).await?;
    stage.follows_again("db2").await?;
    stage.follows_again("db1").await?;
    stage.judge().await
}

/// What db3 alone received can be applied only after a person mended it; until then nobody who lacks
/// it is promoted.
async fn only_one_whose_applier_breaks_received_all(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let client = 1;
    let newest = format!("SELECT MAX(sequence) FROM shop.orders WHERE client={client}");
    let newest: u64 = stage.peek("db1").query(&newest).await?.ok_or("there is no order")?;
    // The applier will find there what it is to insert.
    let sequence = newest + 200;
    let read_only = if stage.is_mysql() { "super_read_only" } else { "read_only" };
    let (open, shut) = (format!("SET GLOBAL {read_only}=0"), format!("SET GLOBAL {read_only}=1"));
    let order = format!("INSERT INTO shop.orders (client, sequence) VALUES ({client}, {sequence})");
    stage.locally("db3", &[&open, &order, &shut]).await?;
    let session = stop_applying(stage, "db3").await?;
    let placed =
        format!("SELECT COUNT(*) FROM shop.orders WHERE client={client} AND sequence={sequence}");
    stage.peek("db1").wait_for(&placed, 1).await?;
    let stop = if stage.is_mysql() { "STOP REPLICA IO_THREAD" } else { "STOP SLAVE IO_THREAD" };
    stage.locally("db2", &[stop]).await?;
    stage.writes_go_on().await?;
    stage.server("db1").kill9();
    session.disconnect().await?;

    tokio::time::sleep(Duration::from_secs(6)).await;
    for name in ["db2", "db3"] {
        check(!stage.peek(name).is_writable().await?, || format!("{name} takes writes"))?;
    }
    let mended = [
        &*open,
        &format!("DELETE FROM shop.orders WHERE client={client} AND sequence={sequence}"),
        &shut,
        "START REPLICA SQL_THREAD",
    ];
    stage.locally("db3", &mended).await?;
    stage.failed_over("db1").await?;
    stage.bring_back("db1").await?;
    stage.judge().await
}

/// Has a replica apply everything so many seconds late.
async fn delay(stage: &Stage, server: &str, seconds: u32) -> Outcome {
    let statements = match stage.is_mysql() {
        true => [
            "STOP REPLICA SQL_THREAD".to_owned(),
            format!("CHANGE REPLICATION SOURCE TO SOURCE_DELAY={seconds}"),
            "START REPLICA SQL_THREAD".to_owned(),
        ],
        false => [
            "STOP SLAVE".to_owned(),
            format!("CHANGE MASTER TO MASTER_DELAY={seconds}"),
            "START SLAVE".to_owned(),
        ],
    };
    stage.locally(server, &statements.each_ref().map(String::as_str)).await
}

/// The applier waits for this session; the receiver goes on and acknowledges.
pub async fn stop_applying(stage: &Stage, server: &str) -> Outcome<Conn> {
    let mut session = stage.peek(server).connect().await?;
    session.query_drop("LOCK TABLES shop.orders READ").await?;
    Ok(session)
}
