//! The archived binary log of real servers, and moments restored from it.

use crate::archiver::{Archiver, SOON, executed, segments, until_archived};
use crate::stage::{Ended, Mariadb, Mysql, Stage, sums};
use mysql_async::prelude::Queryable;
use regent::decision::backup::archive::recovery::Until;
use regent::decision::gtid::Gtids;
use regent::demo::servers::{DatabaseFlavor, Server};
use std::time::Duration;

both! {
    a_dropped_table_comes_back
    moments_and_transactions_are_hit_exactly
    the_archive_goes_on_whoever_dies
    what_a_failover_lost_is_left_out
    what_is_missing_or_damaged_is_named
}

/// The GTID of the one transaction by which a server went on.
fn between(before: &Gtids, after: &Gtids) -> String {
    let one = after.minus(before);
    let text = one.to_string();
    assert!(Until::transaction(&text, true).is_ok(), "{text} is not one transaction");
    text
}

/// Runs a statement on the primary; its GTID.
pub async fn one(stage: &Stage, statement: &str) -> String {
    let before = executed(&stage.primary).await;
    stage.primary.execute(statement).await.unwrap();
    between(&before, &executed(&stage.primary).await)
}

pub async fn restore(stage: &Stage, more: &[&str]) -> Ended {
    let into = stage.empty.address().to_string();
    let mut all = vec!["restore", "shop", "latest", "--into", &into, "--user", "root"];
    all.extend(["--password-file", "root", "--json"]);
    all.extend(more);
    stage.in_place(&all).await
}

/// What the position of a server that was restored is compared by.
pub async fn position(server: &Server) -> Gtids {
    match server.flavor() {
        Mysql => executed(server).await,
        Mariadb => {
            let question = "SELECT @@GLOBAL.gtid_slave_pos";
            let text: Option<String> = server.query(question).await.unwrap();
            Gtids::try_from(format!("mariadb {}", text.unwrap())).unwrap()
        }
    }
}

/// All kinds of transactions that a binary log can hold.
pub async fn live(stage: &Stage) {
    let mut conn = stage.primary.connect().await.unwrap();
    let insert = "INSERT INTO shop.lines_ (client, note, raw) VALUES (7, 'x\u{e9}', x'00ff27')";
    // More rows than one statement gets when they are carried out again.
    let many = "INSERT INTO shop.noise (bytes) SELECT bytes FROM shop.noise LIMIT 8000";
    let mut all = vec![
        insert,
        "UPDATE shop.lines_ SET note = CONCAT(note, ';--'), client = client + 1",
        "CREATE TABLE shop.later (id INT PRIMARY KEY, half INT AS (id / 2) VIRTUAL, UNIQUE (half))",
        "START TRANSACTION",
        "INSERT INTO shop.later (id) VALUES (2), (4)",
        "SAVEPOINT a",
        "INSERT INTO shop.later (id) VALUES (6)",
        "ROLLBACK TO a",
        many,
        "COMMIT",
        "CREATE TEMPORARY TABLE shop.passing (id INT)",
        "DROP TEMPORARY TABLE shop.passing",
        "XA START 'x'",
        "INSERT INTO shop.later (id) VALUES (8)",
        "XA END 'x'",
        "XA PREPARE 'x'",
        "XA COMMIT 'x'",
        "FLUSH BINARY LOGS",
        "SET SESSION binlog_format = STATEMENT",
        "UPDATE shop.lines_ SET client = client + 1",
        "SET SESSION binlog_format = ROW",
        "ALTER TABLE shop.later ADD COLUMN note VARCHAR(20) DEFAULT 'n'",
        "CREATE USER late@localhost IDENTIFIED BY 'late'",
        "DELETE FROM shop.noise WHERE id < 40",
    ];
    if stage.flavor == Mysql {
        all.extend([
            "SET SESSION binlog_transaction_compression = ON",
            "INSERT INTO shop.noise (bytes) SELECT bytes FROM shop.noise LIMIT 800",
            "SET SESSION binlog_transaction_compression = OFF",
            "SET GLOBAL binlog_checksum = NONE",
            insert,
            "SET GLOBAL binlog_checksum = CRC32",
            "CREATE TABLE shop.copied AS SELECT id FROM shop.later",
        ]);
    } else {
        all.extend([
            "SET SESSION gtid_domain_id = 3",
            insert,
            "SET SESSION gtid_domain_id = 0",
            "CREATE OR REPLACE TABLE shop.copied AS SELECT id FROM shop.later",
        ]);
    }
    for statement in all {
        conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

async fn a_dropped_table_comes_back(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    let key = age::x25519::Identity::generate();
    let secret = age::secrecy::ExposeSecret::expose_secret(&key.to_string()).to_owned();
    std::fs::write(stage.file("key.txt"), secret).unwrap();
    let more = format!("{SOON}\n      encrypt_to: [ {} ]", key.to_public());
    stage.configure(&more, &stage.dump());
    let archiver = Archiver::start(&stage);
    assert_eq!(stage.regent(&["now", "shop"]).await.code, 0);
    live(&stage).await;
    let (before, held) = (sums(&stage.primary).await, executed(&stage.primary).await);
    let dropped = one(&stage, "DROP TABLE shop.lines_").await;
    one(&stage, "INSERT INTO shop.later (id) VALUES (100)").await;
    until_archived(&stage, &stage.primary).await;
    let archived = archiver.stop().await.json();
    assert!(archived["segments"].as_u64().unwrap() > 1, "{archived}");

    let wanted = ["--before-gtid", &dropped, "--identity", "key.txt"];
    let planned = restore(&stage, &[&wanted[..], &["--dry-run"]].concat()).await.json();
    assert_eq!(planned["done"], false);
    assert!(sums(&stage.empty).await.is_empty());
    let restored = restore(&stage, &wanted).await.json();
    assert_eq!(sums(&stage.empty).await, before, "{restored}");
    assert_eq!(position(&stage.empty).await.to_wait_text(), held.to_wait_text());
    assert!(!stage.empty.is_writable().await.unwrap(), "it is as closed as before");
    // It goes on from there, with the table dropped again.
    stage.empty.follow(&stage.primary).await.unwrap();
    let later = "SELECT COUNT(*) FROM shop.later WHERE id = 100";
    stage.empty.wait_for(later, 1).await.unwrap();
    assert_eq!(sums(&stage.empty).await, sums(&stage.primary).await);
}

async fn moments_and_transactions_are_hit_exactly(flavor: DatabaseFlavor) {
    let Some(mut stage) = Stage::set(flavor).await else { return };
    stage.configure(SOON, &stage.dump());
    assert_eq!(stage.regent(&["now", "shop"]).await.code, 0);
    let archiver = Archiver::start(&stage);
    // Days of MariaDB have seconds, and no fractions of them.
    let pause = || tokio::time::sleep(Duration::from_millis(2_100));
    one(&stage, "INSERT INTO shop.last VALUES (1)").await;
    pause().await;
    let moment: Option<String> = stage
        .primary
        .query("SELECT DATE_FORMAT(UTC_TIMESTAMP() - INTERVAL 1 SECOND, '%Y-%m-%dT%H:%i:%sZ')")
        .await
        .unwrap();
    let moment = moment.unwrap();
    let then = sums(&stage.primary).await;
    let second = one(&stage, "INSERT INTO shop.last VALUES (2)").await;
    let with_second = sums(&stage.primary).await;
    one(&stage, "INSERT INTO shop.last VALUES (3)").await;
    let all = sums(&stage.primary).await;
    until_archived(&stage, &stage.primary).await;
    archiver.stop().await;

    let listed = stage.regent(&["list", "shop", "--target", "s3", "--json"]).await.json();
    let window = &listed[0]["recovery"]["windows"][0];
    assert!(window["to"].as_u64() > window["from"].as_u64(), "{listed}");
    let planned = restore(&stage, &["--to-time", "2099-01-01T00:00:00Z", "--dry-run"]).await;
    planned.refused(1, "the archive reaches up to ");
    restore(&stage, &["--to-time", "2020-01-01T00:00:00Z"])
        .await
        .refused(1, "no logical backup is from before");
    restore(&stage, &["--to-time", "2026-01-01T00:00:00"]).await.refused(2, "is no moment");

    restore(&stage, &["--to-time", &moment]).await.json();
    assert_eq!(sums(&stage.empty).await, then);
    // From there on it goes on, as often as is wanted.
    restore(&stage, &["--to-gtid", &second]).await.refused(1, "holds data already");
    for _ in 0..2 {
        restore(&stage, &["--to-gtid", &second, "--resume"]).await.json();
        assert_eq!(sums(&stage.empty).await, with_second);
    }
    restore(&stage, &["--to-time", "latest", "--resume"]).await.json();
    assert_eq!(sums(&stage.empty).await, all);
    stage.empty.open_for_writes().await.unwrap();
    stage.empty.execute("CREATE SCHEMA foreign_to_it").await.unwrap();
    let foreign = restore(&stage, &["--to-time", "latest", "--resume"]).await;
    foreign.refused(1, "transactions that are not archived");
    stage.empty.wipe_and_recreate().await.unwrap();
    restore(&stage, &["--to-gtid", &second, "--resume"]).await.refused(1, "does not hold backup");
}

async fn the_archive_goes_on_whoever_dies(flavor: DatabaseFlavor) {
    let Some(mut stage) = Stage::set(flavor).await else { return };
    stage.configure(SOON, &stage.dump());
    assert_eq!(stage.regent(&["now", "shop"]).await.code, 0);
    let archiver = Archiver::start(&stage);
    one(&stage, "INSERT INTO shop.last VALUES (1)").await;
    until_archived(&stage, &stage.primary).await;
    assert_eq!(segments(&stage).last().unwrap().server.to_string(), "db2", "the replica is read");
    stage.replica.kill9();
    one(&stage, "INSERT INTO shop.last VALUES (2)").await;
    until_archived(&stage, &stage.primary).await;
    assert_eq!(segments(&stage).last().unwrap().server.to_string(), "db1");
    archiver.kill();
    one(&stage, "INSERT INTO shop.last VALUES (3)").await;
    stage.replica.restart().await.unwrap();
    stage.replica.follow(&stage.primary).await.unwrap();
    stage.replica.wait_for("SELECT COUNT(*) FROM shop.last", 3).await.unwrap();
    let archiver = Archiver::start(&stage);
    one(&stage, "INSERT INTO shop.last VALUES (4)").await;
    until_archived(&stage, &stage.primary).await;
    let archived = archiver.stop().await.json();
    assert_eq!((archived["gaps"].as_u64(), archived["forks"].as_u64()), (Some(0), Some(0)));
    let all = segments(&stage);
    for (earlier, later) in all.iter().zip(&all[1..]) {
        assert_eq!(earlier.to, later.from, "{} and {}", earlier.name, later.name);
    }
    restore(&stage, &["--to-time", "latest"]).await.json();
    assert_eq!(sums(&stage.empty).await, sums(&stage.primary).await);
}

async fn what_a_failover_lost_is_left_out(flavor: DatabaseFlavor) {
    let Some(mut stage) = Stage::set(flavor).await else { return };
    stage.configure(SOON, &stage.dump());
    assert_eq!(stage.regent(&["now", "shop"]).await.code, 0);
    one(&stage, "INSERT INTO shop.last VALUES (1)").await;
    stage.replica.wait_for("SELECT COUNT(*) FROM shop.last", 1).await.unwrap();
    let stop = if flavor == Mysql { "STOP REPLICA" } else { "STOP SLAVE" };
    stage.replica.execute(stop).await.unwrap();
    let archiver = Archiver::start(&stage);
    let lost = one(&stage, "INSERT INTO shop.last VALUES (66)").await;
    until_archived(&stage, &stage.primary).await;
    stage.primary.kill9();
    let reset = if flavor == Mysql { "RESET REPLICA ALL" } else { "RESET SLAVE ALL" };
    stage.replica.execute(reset).await.unwrap();
    stage.replica.open_for_writes().await.unwrap();
    stage.replica.execute("INSERT INTO shop.last VALUES (2)").await.unwrap();
    let went_on = || segments(&stage).last().unwrap().server.to_string() == "db2";
    for _ in 0..600 {
        if went_on() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let archived = archiver.stop().await.json();
    assert_eq!((archived["gaps"].as_u64(), archived["forks"].as_u64()), (Some(0), Some(1)));
    let restored = restore(&stage, &["--to-time", "latest"]).await.json();
    assert_eq!(sums(&stage.empty).await, sums(&stage.replica).await, "{restored}");
    assert!(restored["left_out"][0]["gtids"].as_str().unwrap().contains(&lost), "{restored}");
    // Whoever wants the lost one gets it.
    stage.empty.wipe_and_recreate().await.unwrap();
    let restored = restore(&stage, &["--to-gtid", &lost]).await.json();
    let found: Option<u64> = stage.empty.query("SELECT MAX(id) FROM shop.last").await.unwrap();
    assert_eq!(found, Some(66), "{restored}");
}

async fn what_is_missing_or_damaged_is_named(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    stage.configure(SOON, &stage.dump());
    assert_eq!(stage.regent(&["now", "shop"]).await.code, 0);
    let archiver = Archiver::start(&stage);
    for id in 1..4 {
        one(&stage, &format!("INSERT INTO shop.last VALUES ({id})")).await;
        until_archived(&stage, &stage.primary).await;
    }
    archiver.stop().await;
    let all = segments(&stage);
    assert!(all.len() >= 3, "{all:?}");
    let object = |segment: usize| stage.bucket.file(&format!("regent/{}", all[segment].object));
    let whole = std::fs::read(object(1)).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(object(1), damaged).unwrap();
    let restored = restore(&stage, &["--to-time", "latest"]).await;
    restored.refused(1, &format!("{} is damaged: part 1, ", all[1].object));
    restored.refused(1, "--resume");
    std::fs::write(object(1), whole).unwrap();
    restore(&stage, &["--to-time", "latest", "--resume"]).await.json();
    assert_eq!(sums(&stage.empty).await, sums(&stage.primary).await);

    let manifest = format!("regent/shop/binlogs/manifests/{}.json", all[1].name);
    std::fs::remove_file(stage.bucket.file(&manifest)).unwrap();
    let planned = restore(&stage, &["--to-time", "latest", "--dry-run"]).await;
    planned.refused(1, "segment 2 is missing");
    planned.refused(1, &format!("every moment up to {} can be restored", all[0].name.last));
    let listed = stage.regent(&["list", "shop", "--target", "s3"]).await;
    assert!(listed.stdout.contains("segment 2 is missing"), "{}", listed.stdout);
}
