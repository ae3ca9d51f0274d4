//! A former primary whose history forked: what it alone holds is written down, its data replaced.

use crate::cluster::{Cluster, Mariadb, Mysql};
use mysql_async::prelude::Queryable;
use regent::decision::gtid::Gtids;
use regent::decision::plan::{Facts, Fork, Outcome, Step};
use regent::decision::report::Status;
use regent::decision::topology::Epoch;
use regent::demo::servers::DatabaseFlavor;
use regent::runtime::steps::perform;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// A table with columns of every kind.
const KINDS: &str = "CREATE TABLE shop.kinds (
    id BIGINT UNSIGNED PRIMARY KEY, small TINYINT UNSIGNED, price DECIMAL(10,2), name VARCHAR(40) CHARACTER SET utf8mb4,
    old VARCHAR(9) CHARACTER SET latin1,
    blob_ BLOB, at DATETIME(3), stamp TIMESTAMP NULL, day DATE, dur TIME, color ENUM('red','blue'),
    tags SET('a','b','c'), ratio DOUBLE, bits BIT(10), year_ YEAR, doc JSON)";

const KIND: &str = "INSERT INTO shop.kinds VALUES (18446744073709551615, 200, -12.50,
    'it''s; ``é``', 'naïf', X'00ff', '2026-01-02 03:04:05.678', '2026-01-02 03:04:05', '2026-02-03',
    '-12:34:56', 'blue', 'a,c', 0.25, b'1000000001', 2026, '{\"a\": [1, \"x\"]}')";

impl Cluster {
    /// The first server was primary and wrote what nobody received; the second one is primary.
    async fn forked(flavor: DatabaseFlavor) -> Option<Cluster> {
        let cluster = Cluster::replicating(flavor, 3).await?;
        cluster.write(KINDS).await;
        for _ in 0..5 {
            cluster.insert(0).await;
        }
        let all = cluster.status(0).await.executed;
        for at in [1, 2] {
            cluster.until(at, "caught up", |it| it.executed.contains(&all)).await;
            cluster.once(at, cluster.step("receiver_stopped", at)).await;
        }
        for statement in [
            "INSERT INTO shop.orders VALUES (1001), (1002)",
            KIND,
            "UPDATE shop.kinds SET name = NULL, small = small + 1",
            "DELETE FROM shop.orders WHERE id = 1001",
            "CREATE TABLE shop.mine (id INT PRIMARY KEY)",
        ] {
            cluster.write(statement).await;
        }
        cluster.once(1, cluster.step("writable", 1)).await;
        cluster.once(2, cluster.following(2, 1)).await;
        for _ in 0..3 {
            cluster.insert(1).await;
        }
        Some(cluster)
    }

    fn exported(&self, at: usize, source: usize, known: Option<Gtids>) -> Step {
        Step::Exported {
            server: self.name(at),
            source: self.name(source),
            address: self.address(source),
            known,
            waived: false,
        }
    }

    /// Replaces a server's data; starts it again where the copying ends it, as a supervisor would.
    async fn rebuild(&mut self, at: usize, donor: usize, since: u64) -> Facts {
        let step = Step::Rebuilt {
            server: self.name(at),
            donor: self.name(donor),
            address: self.address(donor),
            since,
        };
        let (access, permit) = (self.access(at), self.clock.now().moment + Duration::from_secs(60));
        let working = tokio::spawn(async move { perform(&step, Epoch(1), &access, permit).await });
        while !working.is_finished() {
            if !self.servers[at].is_running() {
                self.servers[at].restart().await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        match working.await.unwrap() {
            Outcome::Done(facts) => facts,
            outcome => panic!("{outcome:?}"),
        }
    }
}

fn fork_of(facts: &Facts) -> &Fork {
    facts.fork.as_ref().expect("its history was looked at")
}

async fn a_forked_primary_comes_back(flavor: DatabaseFlavor) {
    let Some(mut cluster) = Cluster::forked(flavor).await else {
        return;
    };
    cluster.done(0, cluster.step("read_only", 0)).await;
    cluster.done(0, cluster.step("receiver_stopped", 0)).await;
    let facts = cluster.once(0, cluster.exported(0, 1, None)).await;
    let fork = fork_of(&facts).clone();
    let export = fork.export.clone().expect("something was written down");
    let text = std::fs::read_to_string(&export.path).unwrap();
    assert_eq!(export.transactions, 5);
    assert_eq!(export.rows, 5);
    assert_eq!(export.gtids, fork.beyond);
    for line in [
        "INSERT INTO `shop`.`orders` (`id`) VALUES (1001);",
        "INSERT INTO `shop`.`orders` (`id`) VALUES (1002);",
        "DELETE FROM `shop`.`orders` WHERE `id` = 1001;",
        "CREATE TABLE shop.mine",
        "18446744073709551615",
        "'it''s; ``é``'",
        "naïf",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    // Known already, it is not written again.
    let again = cluster.once(0, cluster.exported(0, 1, Some(export.gtids.clone()))).await;
    assert_eq!(fork_of(&again).export, None);

    let held = fork.primary;
    cluster.done(2, Step::CaughtUp { server: cluster.name(2), to: held, within: PATIENCE }).await;
    cluster.done(0, cluster.step("detached", 0)).await;
    let since = fork.clock;
    let former = cluster.status(0).await;
    let began = cluster.clock.now().moment;
    cluster.rebuild(0, 2, since).await;
    let took = cluster.clock.now().moment.since(began);
    eprintln!("{flavor} rebuilt: {took:?}");
    // Once more finds it done.
    let before = cluster.status(0).await.executed;
    assert_eq!(cluster.rebuild(0, 2, since).await.executed, Some(before));
    cluster.done(0, cluster.step("detached", 0)).await;
    cluster.done(0, cluster.following(0, 1)).await;
    for _ in 0..3 {
        cluster.insert(1).await;
    }
    let all = cluster.status(1).await.executed;
    let back = cluster.until(0, "caught up", |it| it.executed.contains(&all)).await;
    assert!(all.contains(&back.executed), "{} is not within {all}", back.executed);
    let ids = "SELECT GROUP_CONCAT(id ORDER BY id) FROM shop.orders";
    let here: Option<String> = cluster.servers[0].query(ids).await.unwrap();
    assert_eq!(here, cluster.servers[1].query(ids).await.unwrap());
    let mine = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_NAME = 'mine'";
    assert_eq!(cluster.servers[0].query::<u64>(mine).await.unwrap(), Some(0));
    can_be_promoted(&cluster).await;
    numbers_again(&cluster, &former, &fork.beyond).await;
}

/// It goes on under its former identity, and with its former numbers: to others these are new
/// transactions, whoever holds the old ones.
async fn numbers_again(cluster: &Cluster, former: &Status, beyond: &Gtids) {
    let now = cluster.status(0).await;
    assert_eq!((&now.uuid, now.server_id), (&former.uuid, former.server_id));
    for _ in 0..5 {
        cluster.insert(0).await;
    }
    let others = cluster.status(0).await.executed;
    assert!(others.contains(beyond), "{beyond} was not given again: {others}");
}

/// A rebuilt server is as good as any.
async fn can_be_promoted(cluster: &Cluster) {
    let to = cluster.once(1, cluster.step("read_only", 1)).await.executed.unwrap();
    cluster.once(0, Step::CaughtUp { server: cluster.name(0), to, within: PATIENCE }).await;
    cluster.once(0, cluster.step("writable", 0)).await;
    for at in [1, 2] {
        cluster.once(at, cluster.following(at, 0)).await;
    }
    cluster.insert(0).await;
    let all = cluster.status(0).await.executed;
    for at in [1, 2] {
        cluster.until(at, "caught up", |it| it.executed.contains(&all)).await;
        assert_eq!(cluster.rows(at).await, cluster.rows(0).await);
    }
}

/// What cannot be read any more is not passed over silently.
async fn a_purged_log_is_said(flavor: DatabaseFlavor) {
    let Some(cluster) = Cluster::forked(flavor).await else {
        return;
    };
    let mut conn = cluster.servers[0].connect().await.unwrap();
    conn.query_drop("FLUSH BINARY LOGS").await.unwrap();
    let log: String = conn
        .query::<mysql_async::Row, _>("SHOW BINARY LOGS")
        .await
        .unwrap()
        .last()
        .and_then(|row| row.get(0))
        .unwrap();
    conn.query_drop(format!("PURGE BINARY LOGS TO '{log}'")).await.unwrap();
    cluster.once(0, cluster.step("read_only", 0)).await;
    match cluster.perform(0, cluster.exported(0, 1, None)).await {
        Outcome::Failed(why) => assert!(why.contains("purged"), "{why}"),
        outcome => panic!("{outcome:?}"),
    }
    let Step::Exported { server, source, address, known, .. } = cluster.exported(0, 1, None) else {
        unreachable!()
    };
    let waived = Step::Exported { server, source, address, known, waived: true };
    let facts = cluster.once(0, waived).await;
    let fork = fork_of(&facts);
    assert!(fork.export.is_none() && !fork.beyond.is_empty());
}

/// On MariaDB a replica that wrote by itself stops, with error 1950, at the transaction that has its
/// number on the primary; those that the primary writes then have passed that number.
#[tokio::test]
async fn rows_below_the_primarys_newest_number() {
    let Some(mut cluster) = Cluster::replicating(Mariadb, 3).await else {
        return;
    };
    for statement in [
        "SET GLOBAL read_only = 0",
        "INSERT INTO shop.orders VALUES (1001)",
        "FLUSH BINARY LOGS",
        "INSERT INTO shop.orders VALUES (1002)",
        "SET GLOBAL read_only = 1",
    ] {
        cluster.servers[1].execute(statement).await.unwrap();
    }
    for _ in 0..5 {
        cluster.insert(0).await;
    }
    let stopped = |it: &Status| {
        it.channel().and_then(|channel| channel.error.as_ref()).is_some_and(|it| it.code == 1950)
    };
    let alone = cluster.until(1, "stopped by its own rows", stopped).await;
    let primary = cluster.status(0).await.executed;
    assert!(primary.contains(&alone.executed), "the numbers alone tell nothing");
    let own = alone.beyond(&primary);
    assert!(own.without_origin(None, alone.server_id).is_empty() && !own.is_empty(), "{own}");
    let well = cluster.until(2, "caught up", |it| it.executed.contains(&primary)).await;
    assert!(well.beyond(&primary).is_empty(), "{}", well.beyond(&primary));

    cluster.done(1, cluster.step("read_only", 1)).await;
    cluster.done(1, cluster.step("receiver_stopped", 1)).await;
    let facts = cluster.once(1, cluster.exported(1, 0, None)).await;
    let fork = fork_of(&facts).clone();
    let export = fork.export.expect("something was written down");
    let text = std::fs::read_to_string(&export.path).unwrap();
    for line in ["VALUES (1001);", "VALUES (1002);"] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert_eq!((export.transactions, export.rows, export.gtids), (2, 2, own));
    cluster.done(1, cluster.step("detached", 1)).await;
    cluster.rebuild(1, 2, fork.clock).await;
    cluster.done(1, cluster.step("detached", 1)).await;
    cluster.done(1, cluster.following(1, 0)).await;
    cluster.insert(0).await;
    let all = cluster.status(0).await.executed;
    let back = cluster.until(1, "caught up", |it| it.executed.contains(&all)).await;
    assert!(back.beyond(&all).is_empty());
    assert_eq!(cluster.rows(1).await, cluster.rows(0).await);
}

/// The log of a rebuilt server is empty until something new arrives; whoever is copied from it then goes
/// on where it would, not at the beginning.
async fn a_copy_of_a_copy(flavor: DatabaseFlavor) {
    let Some(mut cluster) = Cluster::replicating(flavor, 3).await else {
        return;
    };
    cluster.insert(0).await;
    let all = cluster.status(0).await.executed;
    for at in [1, 2] {
        cluster.until(at, "caught up", |it| it.executed.contains(&all)).await;
        cluster.once(at, cluster.step("receiver_stopped", at)).await;
    }
    for (at, donor) in [(1, 0), (2, 1)] {
        let fork = cluster.once(at, cluster.exported(at, 0, None)).await;
        cluster.once(at, cluster.step("detached", at)).await;
        let held = cluster.rebuild(at, donor, fork_of(&fork).clock).await.executed.unwrap();
        assert!(held.contains(&all), "{held} instead of {all}");
        cluster.once(at, cluster.step("detached", at)).await;
    }
    cluster.once(2, cluster.following(2, 0)).await;
    cluster.insert(0).await;
    let all = cluster.status(0).await.executed;
    cluster.until(2, "caught up", |it| it.executed.contains(&all)).await;
    assert_eq!(cluster.rows(2).await, cluster.rows(0).await);
}

both! { a_copy_of_a_copy a_forked_primary_comes_back a_purged_log_is_said }
