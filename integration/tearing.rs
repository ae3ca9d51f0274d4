//! A MySQL replica whose relay log ends within a transaction.

use mysql_async::prelude::Queryable;
use regent::demo::servers::Server;
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

/// Stops the receiver in the middle of a transaction, whose rest the applier waits for. Each transaction adds
/// 150 rows to `shop.pictures`, which is made for it.
pub async fn torn(source: &Server, replica: &Server) {
    source.execute("CREATE TABLE shop.pictures (picture LONGBLOB)").await.unwrap();
    for _ in 0..10 {
        if tear(source, replica).await {
            return;
        }
        replica.execute("START REPLICA IO_THREAD").await.unwrap();
    }
    panic!("no transaction was ever received in part");
}

async fn tear(source: &Server, replica: &Server) -> bool {
    let mut session = source.connect().await.unwrap();
    let writing = tokio::spawn(async move { session.query_drop(LARGE).await.unwrap() });
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
