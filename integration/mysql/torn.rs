//! Promotion of a server whose relay log ends within a transaction.

use crate::cluster::{Cluster, Mysql};
use regent::decision::report::Writable;
use std::time::Duration;

/// Large enough that its sending can be interrupted.
const LARGE: &str = "INSERT INTO shop.pictures SELECT REPEAT('x', 800000) FROM \
    (WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 150) SELECT i FROM n) all_of_them";
/// Whether a transaction is being received, in part.
const IN_PART: &str = "SELECT COUNT(*) FROM performance_schema.replication_connection_status \
    WHERE QUEUEING_TRANSACTION <> ''";
/// Whether one is being applied.
const AT_WORK: &str = "SELECT COUNT(*) FROM performance_schema.replication_applier_status_by_worker \
    WHERE APPLYING_TRANSACTION <> ''";

/// Lets the source die in the middle of sending a transaction.
async fn tear(cluster: &Cluster) -> bool {
    let address = cluster.address(0);
    let source = cluster.servers[0].connect().await.unwrap();
    let writing = tokio::spawn(async move {
        let mut source = source;
        use mysql_async::prelude::Queryable;
        source.query_drop(LARGE).await.unwrap();
        drop((source, address));
    });
    let replica = &cluster.servers[1];
    for _ in 0..5_000 {
        if replica.query::<u64>(IN_PART).await.unwrap() == Some(1) {
            break;
        }
    }
    replica.execute("STOP REPLICA IO_THREAD").await.unwrap();
    writing.await.unwrap();
    for _ in 0..40 {
        if replica.query::<u64>(AT_WORK).await.unwrap() == Some(1) {
            tokio::time::sleep(Duration::from_millis(200)).await;
            return replica.query::<u64>(AT_WORK).await.unwrap() == Some(1);
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    false
}

#[tokio::test]
async fn half_a_transaction_holds_up_no_promotion() {
    let Some(mut cluster) = Cluster::replicating(Mysql, 2).await else {
        return;
    };
    cluster.write("CREATE TABLE shop.pictures (picture LONGBLOB)").await;
    let mut torn = false;
    for _ in 0..10 {
        torn = tear(&cluster).await;
        if torn {
            break;
        }
        cluster.servers[1].execute("START REPLICA IO_THREAD").await.unwrap();
    }
    assert!(torn, "no transaction was ever received in part");
    cluster.servers[0].kill9();
    cluster.once(1, cluster.step("writable", 1)).await;
    let after = cluster.status(1).await;
    assert!(after.writable == Writable::Open && after.channels.is_empty(), "{after:?}");
    cluster.insert(1).await;
    let rows = cluster.servers[1].query::<u64>("SELECT COUNT(*) % 150 FROM shop.pictures").await;
    assert_eq!(rows.unwrap(), Some(0), "part of a transaction is there");
}
