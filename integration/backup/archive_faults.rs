//! Archiving the binary logs of real servers while things break.

use crate::archiver::{Archiver, SOON, assert_whole, executed, segments, until_archived};
use crate::binlogs::{one, restore};
use crate::bucket::files_below;
use crate::faulty::Mood;
use crate::small::Small;
use crate::stage::{Mariadb, Mysql, Stage, sums};
use mysql_async::prelude::Queryable;
use regent::demo::servers::{DatabaseFlavor, Server};
use std::time::Duration;

both! {
    what_the_servers_purged_is_a_gap_that_is_told
    a_loss_of_s3_loses_and_doubles_nothing
    killed_archivers_lose_and_double_nothing
    a_full_disk_is_named_and_loses_nothing
    a_switchover_leaves_no_gap
    of_two_archivers_one_goes
}

/// All segments hold all that the server has committed since the first one, each transaction once, and
/// every one of them has its data.
async fn assert_archived(stage: &Stage, server: &Server) {
    let all = segments(stage);
    assert_whole(&all);
    assert!(all.last().unwrap().to.contains(&executed(server).await));
    let mut data = files_below(&stage.bucket.file("regent/shop/binlogs/data"));
    data.retain(|name| name.starts_with("0000"));
    for segment in &all {
        assert!(data.iter().any(|name| segment.object.ends_with(name)), "{}", segment.object);
    }
}

/// A restore of everything is what the primary has.
async fn assert_restores(stage: &Stage, like: &Server) {
    restore(stage, &["--to-time", "latest"]).await.json();
    assert_eq!(sums(&stage.empty).await, sums(like).await);
}

/// Waits until somebody reads a server's binary log besides `others`.
async fn until_read(servers: &[&Server], others: u64) {
    let question = "SELECT COUNT(*) FROM information_schema.PROCESSLIST \
                    WHERE COMMAND LIKE 'Binlog Dump%'";
    for _ in 0..600 {
        let mut count = 0;
        for server in servers {
            count += server.query::<u64>(question).await.unwrap().unwrap_or_default();
        }
        if count > others {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody reads");
}

/// Makes a server forget all of its binary log but the newest file.
async fn forget(server: &Server) {
    let mut conn = server.connect().await.unwrap();
    conn.query_drop("FLUSH BINARY LOGS").await.unwrap();
    for _ in 0..600 {
        let files: Vec<String> = conn
            .query_map("SHOW BINARY LOGS", |row: mysql_async::Row| row.get(0).unwrap())
            .await
            .unwrap();
        if files.len() == 1 {
            return;
        }
        let purge = format!("PURGE BINARY LOGS TO '{}'", files.last().unwrap());
        conn.query_drop(purge).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} keeps its binary logs", server.name());
}

async fn what_the_servers_purged_is_a_gap_that_is_told(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    stage.configure(SOON, &stage.dump());
    assert_eq!(stage.regent(&["now", "shop"]).await.code, 0);
    let archiver = Archiver::start(&stage);
    one(&stage, "INSERT INTO shop.last VALUES (1)").await;
    until_archived(&stage, &stage.primary).await;
    archiver.stop().await;
    let before = segments(&stage);
    one(&stage, "INSERT INTO shop.last VALUES (2)").await;
    stage.replica.wait_for("SELECT COUNT(*) FROM shop.last", 2).await.unwrap();
    forget(&stage.primary).await;
    forget(&stage.replica).await;
    let archiver = Archiver::start(&stage);
    one(&stage, "INSERT INTO shop.last VALUES (3)").await;
    until_archived(&stage, &stage.primary).await;
    let ended = archiver.stop().await;
    assert_eq!(ended.json()["gaps"], 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("a gap that no recovery can cross"), "{}", ended.stderr);
    let after = &segments(&stage)[before.len()];
    let missing = after.missing.clone().unwrap();
    assert!(!missing.is_empty() && after.name.to_string().ends_with("-gap"), "{after:?}");

    let listed = stage.regent(&["list", "shop", "--target", "s3"]).await.stdout;
    let hole = format!(
        "! no moment between {} and {}",
        before.last().unwrap().name.last,
        after.name.first
    );
    assert!(listed.contains(&hole) && listed.contains("the servers had purged"), "{listed}");
    for wanted in ["latest", &after.name.last.to_string()] {
        let refused = restore(&stage, &["--to-time", wanted]).await;
        refused.refused(1, "the servers had purged what was to be archived");
        let reached = before.last().unwrap().name.last;
        refused.refused(1, &format!("every moment up to {reached} can be restored"));
    }
    assert!(sums(&stage.empty).await.is_empty(), "nothing was begun");
    // A backup behind it is ground for what follows.
    assert_eq!(stage.regent(&["now", "shop"]).await.code, 0);
    let archiver = Archiver::start(&stage);
    one(&stage, "INSERT INTO shop.last VALUES (4)").await;
    until_archived(&stage, &stage.primary).await;
    assert_eq!(archiver.stop().await.json()["gaps"], 0);
    assert_restores(&stage, &stage.primary).await;
}

async fn a_loss_of_s3_loses_and_doubles_nothing(flavor: DatabaseFlavor) {
    let Some(mut stage) = Stage::set(flavor).await else { return };
    stage.configure(SOON, &stage.dump());
    assert_eq!(stage.regent(&["now", "shop"]).await.code, 0);
    let archiver = Archiver::start(&stage);
    one(&stage, "INSERT INTO shop.last VALUES (0)").await;
    until_archived(&stage, &stage.primary).await;
    for round in 0..3 {
        let writing = async {
            for id in 1..20 {
                let id = round * 100 + id;
                one(&stage, &format!("INSERT INTO shop.last VALUES ({id})")).await;
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
        };
        match round {
            0 => stage.bucket.turn(Mood::Busy),
            1 => stage.bucket.turn(Mood::Forgetful),
            _ => {}
        }
        writing.await;
        stage.bucket.turn(Mood::Fine);
        if round == 1 {
            stage.bucket.take_away().await;
            one(&stage, "INSERT INTO shop.noise (bytes) SELECT bytes FROM shop.noise LIMIT 3000")
                .await;
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            stage.bucket.bring_back().await;
        }
    }
    until_archived(&stage, &stage.primary).await;
    let archived = archiver.stop().await;
    assert_eq!((&archived.json()["gaps"], &archived.json()["forks"]), (&0.into(), &0.into()));
    assert!(archived.stderr.contains("trying again"), "it never noticed: {}", archived.stderr);
    assert_archived(&stage, &stage.primary).await;
    assert_restores(&stage, &stage.primary).await;
}

async fn killed_archivers_lose_and_double_nothing(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    // A segment that stays open.
    let open = "      binlogs: { segment_size: 64MiB, segment_age: 1h }";
    stage.configure(open, &stage.dump());
    assert_eq!(stage.regent(&["now", "shop"]).await.code, 0);
    let archiver = Archiver::start(&stage);
    until_read(&[&stage.primary, &stage.replica], 1).await;
    for id in 1..20 {
        one(&stage, &format!("INSERT INTO shop.last VALUES ({id})")).await;
    }
    archiver.kill();
    assert!(segments(&stage).is_empty(), "it was killed too late");
    // An upload that takes seconds.
    stage.configure(&format!("{SOON}\n      rate_limit: 3MiB"), &stage.dump());
    one(&stage, "INSERT INTO shop.noise (bytes) SELECT bytes FROM shop.noise").await;
    let archiver = Archiver::start(&stage);
    stage.bucket.until_a_part_came().await;
    archiver.kill();
    let listed = segments(&stage);
    assert!(stage.bucket.state().unfinished() > 0, "it was killed too late: {listed:?}");
    stage.configure(SOON, &stage.dump());
    let archiver = Archiver::start(&stage);
    one(&stage, "INSERT INTO shop.last VALUES (21)").await;
    until_archived(&stage, &stage.primary).await;
    archiver.stop().await;
    assert_archived(&stage, &stage.primary).await;
    assert_restores(&stage, &stage.primary).await;
}

async fn a_full_disk_is_named_and_loses_nothing(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    let Some(_small) = Small::mount(stage.file("small"), "3m") else { return };
    stage.configure("      binlogs: { segment_size: 64MiB, segment_age: 1s }", &stage.dump());
    assert_eq!(stage.regent(&["now", "shop"]).await.code, 0);
    let on_small = || {
        let mut command = stage.command(&["archive", "shop", "--json"]);
        command.env("TMPDIR", stage.file("small"));
        Archiver::run(command)
    };
    let archiver = on_small();
    one(&stage, "INSERT INTO shop.last VALUES (1)").await;
    until_archived(&stage, &stage.primary).await;
    one(&stage, "INSERT INTO shop.noise (bytes) SELECT bytes FROM shop.noise").await;
    let ended = archiver.end().await;
    ended.refused(1, "No space left on device");
    ended.refused(1, &stage.file("small").display().to_string());
    assert_eq!(files_below(&stage.file("small")), Vec::<String>::new());
    on_small().end().await.refused(1, "No space left on device");
    let archiver = Archiver::start(&stage);
    one(&stage, "INSERT INTO shop.last VALUES (2)").await;
    until_archived(&stage, &stage.primary).await;
    assert_eq!(archiver.stop().await.json()["gaps"], 0);
    assert_archived(&stage, &stage.primary).await;
    assert_restores(&stage, &stage.primary).await;
}

async fn a_switchover_leaves_no_gap(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    stage.configure(SOON, &stage.dump());
    assert_eq!(stage.regent(&["now", "shop"]).await.code, 0);
    let archiver = Archiver::start(&stage);
    one(&stage, "INSERT INTO shop.last VALUES (1)").await;
    until_archived(&stage, &stage.primary).await;
    let close = if flavor == Mysql {
        "SET GLOBAL super_read_only = ON"
    } else {
        "SET GLOBAL read_only = ON"
    };
    stage.primary.execute(close).await.unwrap();
    stage.replica.wait_for("SELECT COUNT(*) FROM shop.last", 1).await.unwrap();
    let forget: [&str; 2] = match flavor {
        Mysql => ["STOP REPLICA", "RESET REPLICA ALL"],
        Mariadb => ["STOP SLAVE", "RESET SLAVE ALL"],
    };
    for statement in forget {
        stage.replica.execute(statement).await.unwrap();
    }
    stage.replica.open_for_writes().await.unwrap();
    stage.replica.execute("INSERT INTO shop.last VALUES (2)").await.unwrap();
    stage.primary.follow(&stage.replica).await.unwrap();
    stage.replica.execute("INSERT INTO shop.last VALUES (3)").await.unwrap();
    until_archived(&stage, &stage.replica).await;
    // Its former replica is read again by whoever comes next.
    archiver.kill();
    let archiver = Archiver::start(&stage);
    stage.replica.execute("INSERT INTO shop.last VALUES (4)").await.unwrap();
    until_archived(&stage, &stage.replica).await;
    let archived = archiver.stop().await.json();
    assert_eq!((&archived["gaps"], &archived["forks"]), (&0.into(), &0.into()));
    assert_eq!(segments(&stage).last().unwrap().server.to_string(), "db1");
    assert_archived(&stage, &stage.replica).await;
    assert_restores(&stage, &stage.replica).await;
}

async fn of_two_archivers_one_goes(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    stage.configure(SOON, &stage.dump());
    assert_eq!(stage.regent(&["now", "shop"]).await.code, 0);
    let mut two = vec![Archiver::start(&stage), Archiver::start(&stage)];
    until_read(&[&stage.primary, &stage.replica], 2).await;
    let mut id = 0;
    while two.iter_mut().all(Archiver::is_running) {
        id += 1;
        assert!(id < 400, "neither noticed the other");
        one(&stage, &format!("INSERT INTO shop.last VALUES ({id})")).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut going = Vec::new();
    for mut archiver in two {
        match archiver.is_running() {
            true => going.push(archiver),
            false => archiver.end().await.refused(1, "somebody else archives shop at s3 too"),
        }
    }
    if going.is_empty() {
        going.push(Archiver::start(&stage));
    }
    until_archived(&stage, &stage.primary).await;
    for archiver in going {
        archiver.stop().await;
    }
    assert_archived(&stage, &stage.primary).await;
    assert_restores(&stage, &stage.primary).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tagged_transactions_are_hit_exactly() {
    let Some(stage) = Stage::set(Mysql).await else { return };
    stage.configure(SOON, &stage.dump());
    assert_eq!(stage.regent(&["now", "shop"]).await.code, 0);
    let mut archiver = Archiver::start(&stage);
    let mut conn = stage.primary.connect().await.unwrap();
    let mut tagged = Vec::new();
    for id in 1..4 {
        let before = executed(&stage.primary).await;
        conn.query_drop("SET SESSION gtid_next = 'AUTOMATIC:blue'").await.unwrap();
        conn.query_drop(format!("INSERT INTO shop.last VALUES ({id})")).await.unwrap();
        tagged.push(executed(&stage.primary).await.minus(&before).to_string());
        conn.query_drop("SET SESSION gtid_next = 'AUTOMATIC'").await.unwrap();
        conn.query_drop(format!("INSERT INTO shop.last VALUES ({})", id + 10)).await.unwrap();
        until_archived(&stage, &stage.primary).await;
        // The next one says with tags where it goes on.
        archiver.kill();
        archiver = Archiver::start(&stage);
    }
    archiver.kill();
    assert!(tagged[1].ends_with(":blue:2"), "{tagged:?}");
    assert_archived(&stage, &stage.primary).await;
    let held = "SELECT GROUP_CONCAT(id ORDER BY id) FROM shop.last";
    restore(&stage, &["--before-gtid", &tagged[1]]).await.json();
    let ids: Option<String> = stage.empty.query(held).await.unwrap();
    assert_eq!(ids.as_deref(), Some("1,11"));
    restore(&stage, &["--to-gtid", &tagged[1], "--resume"]).await.json();
    let ids: Option<String> = stage.empty.query(held).await.unwrap();
    assert_eq!(ids.as_deref(), Some("1,2,11"));
    restore(&stage, &["--to-time", "latest", "--resume"]).await.json();
    assert_eq!(sums(&stage.empty).await, sums(&stage.primary).await);
    assert_eq!(executed(&stage.empty).await, executed(&stage.primary).await);
}
