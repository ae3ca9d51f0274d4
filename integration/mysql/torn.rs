//! Promotion of a server whose relay log ends within a transaction.

use crate::cluster::{Cluster, Mysql};
use crate::tearing::torn;
use regent::decision::report::Writable;

#[tokio::test]
async fn half_a_transaction_holds_up_no_promotion() {
    let Some(mut cluster) = Cluster::replicating(Mysql, 2).await else {
        return;
    };
    torn(&cluster.servers[0], &cluster.servers[1]).await;
    cluster.servers[0].kill9();
    cluster.once(1, cluster.step("writable", 1)).await;
    let after = cluster.status(1).await;
    assert!(after.writable == Writable::Open && after.channels.is_empty(), "{after:?}");
    cluster.insert(1).await;
    let rows = cluster.servers[1].query::<u64>("SELECT COUNT(*) % 150 FROM shop.pictures").await;
    assert_eq!(rows.unwrap(), Some(0), "part of a transaction is there");
}
