//! Every option of a replication connection survives a change of source.

use crate::cluster::{Cluster, Mariadb, Mysql};
use mysql_async::Row;
use mysql_async::prelude::Queryable;
use regent::demo::servers::DatabaseFlavor;

const MYSQL: &[&str] = &[
    "STOP REPLICA",
    "CHANGE REPLICATION SOURCE TO SOURCE_DELAY = 1, SOURCE_CONNECT_RETRY = 7, \
     SOURCE_RETRY_COUNT = 77, SOURCE_SSL = 1, SOURCE_SSL_CIPHER = 'ECDHE-RSA-AES256-GCM-SHA384', \
     SOURCE_SSL_CRLPATH = '/nowhere', SOURCE_COMPRESSION_ALGORITHMS = 'zstd,uncompressed', \
     SOURCE_ZSTD_COMPRESSION_LEVEL = 5, SOURCE_BIND = '127.0.0.1', SOURCE_SSL_VERIFY_SERVER_CERT = 0",
    "CHANGE REPLICATION FILTER REPLICATE_IGNORE_DB = (mine)",
    "START REPLICA",
];

const MARIADB: &[&str] = &[
    "STOP SLAVE",
    "CHANGE MASTER TO MASTER_DELAY = 1, MASTER_CONNECT_RETRY = 7, MASTER_SSL = 0, \
     MASTER_SSL_CA = '/nowhere/ca.pem', MASTER_SSL_CAPATH = '/nowhere', \
     MASTER_SSL_CIPHER = 'ECDHE-RSA-AES256-GCM-SHA384', MASTER_SSL_CRLPATH = '/nowhere', \
     IGNORE_SERVER_IDS = (77)",
    "SET GLOBAL replicate_ignore_db = 'mine'",
    "START SLAVE",
];

async fn survive_a_repoint(flavor: DatabaseFlavor) {
    let Some(cluster) = Cluster::replicating(flavor, 3).await else {
        return;
    };
    let all = cluster.status(0).await.executed;
    cluster.until(2, "caught up", |it| it.executed.contains(&all)).await;
    let statements = if flavor == Mysql { MYSQL } else { MARIADB };
    for statement in statements {
        cluster.servers[2].execute(statement).await.unwrap();
    }
    let before = options(&cluster).await;
    assert!(before.iter().any(|(name, value)| name == "SQL_Delay" && value == "1"), "{before:?}");
    cluster.insert(0).await;
    let all = cluster.status(0).await.executed;
    cluster.until(2, "received", |it| it.received().contains(&all)).await;
    cluster.done(2, cluster.following(2, 1)).await;
    assert_eq!(options(&cluster).await, before);
    assert_eq!(cluster.status(2).await.channel().unwrap().source, cluster.address(1));
    // What it had received and not applied, it gets again from the new source.
    cluster.until(2, "applied", |it| it.executed.contains(&all)).await;
    assert_eq!(cluster.rows(2).await, 1, "the delayed transaction was thrown away");
}

/// Every column of the replication status that is an option, not a state.
async fn options(cluster: &Cluster) -> Vec<(String, String)> {
    let mut conn = cluster.servers[2].connect().await.unwrap();
    let mut questions = vec!["SHOW ALL SLAVES STATUS"];
    if cluster.flavor == Mysql {
        questions = vec![
            "SHOW REPLICA STATUS",
            "SELECT * FROM performance_schema.replication_connection_configuration",
        ];
    }
    let mut found = Vec::new();
    for question in questions {
        let row: Row = conn.query_first(question).await.unwrap().unwrap();
        for (index, column) in row.columns_ref().iter().enumerate() {
            let name = column.name_str().into_owned();
            if is_option(&name) {
                let value = row.as_ref(index).unwrap().as_sql(false);
                found.push((name, value.trim_matches('\'').to_owned()));
            }
        }
    }
    found
}

fn is_option(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let parts = [
        "SSL",
        "TLS",
        "RETRY",
        "BIND",
        "USER",
        "DELAY",
        "REPLICATE_",
        "COMPRESSION",
        "PUBLIC_KEY",
        "IGNORE_SERVER",
        "AUTO_POSITION",
        "NETWORK",
        "CHANNEL_NAME",
        "CONNECTION_NAME",
    ];
    let states = ["SQL_REMAINING_DELAY", "RETRIED"];
    parts.iter().any(|part| upper.contains(part)) && !states.iter().any(|it| upper.contains(it))
}

mod survive {
    #[tokio::test]
    async fn mysql() {
        super::survive_a_repoint(super::Mysql).await;
    }

    #[tokio::test]
    async fn mariadb() {
        super::survive_a_repoint(super::Mariadb).await;
    }
}
