//! What steps bring about.

use crate::cluster::{Cluster, Mariadb, Mysql};
use mysql_async::prelude::Queryable;
use regent::clock::Moment;
use regent::decision::gtid::Gtids;
use regent::decision::plan::{Outcome, Step};
use regent::decision::report::{Receiver, Writable};
use regent::decision::topology::{Endpoint, Epoch, Flavor};
use regent::demo::servers::accounts::ROOT;
use regent::demo::servers::{DatabaseFlavor, ServerOptions};
use regent::runtime::steps::{Access, perform};
use regent::runtime::withdrawal::{Withdrawal, Withdrawals};
use std::time::Duration;

/// How long a server may take to catch up here.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kill, survey, promote, repoint, and the former primary comes back.
async fn fails_over_and_back(flavor: DatabaseFlavor) {
    let Some(mut cluster) = Cluster::replicating(flavor, 3).await else {
        return;
    };
    for _ in 0..20 {
        cluster.insert(0).await;
    }
    let all = cluster.status(0).await.executed;
    for at in [1, 2] {
        cluster.until(at, "received", |it| it.received().contains(&all)).await;
    }
    cluster.servers[0].kill9();
    let mut best = None;
    for at in [1, 2] {
        let facts = cluster.done(at, cluster.step("receiver_stopped", at)).await;
        best = Some(
            best.map_or(facts.received.clone().unwrap(), |all: regent::decision::gtid::Gtids| {
                all.union(&facts.received.unwrap())
            }),
        );
    }
    let to = best.unwrap();
    cluster
        .done(1, Step::CaughtUp { server: cluster.name(1), to: to.clone(), within: PATIENCE })
        .await;
    let facts = cluster.done(1, cluster.step("writable", 1)).await;
    assert!(facts.executed.unwrap().contains(&to));
    cluster.done(2, cluster.following(2, 1)).await;
    cluster.insert(1).await;
    let new = cluster.status(1).await;
    assert!(new.channels.is_empty() && new.writable == Writable::Open);
    cluster.until(2, "caught up", |it| it.executed.contains(&new.executed)).await;

    // The former primary comes back and follows the new one.
    cluster.servers[0].restart().await.unwrap();
    assert_eq!(cluster.status(0).await.writable, Writable::Closed, "came back writable");
    cluster.done(0, cluster.following(0, 1)).await;
    cluster.insert(1).await;
    let new = cluster.status(1).await;
    cluster.until(0, "caught up", |it| it.executed.contains(&new.executed)).await;
    assert_eq!(cluster.rows(0).await, cluster.rows(1).await);

    // And back again, while everything runs.
    let facts = cluster.done(1, cluster.step("read_only", 1)).await;
    let to = facts.executed.unwrap();
    cluster.done(0, Step::CaughtUp { server: cluster.name(0), to, within: PATIENCE }).await;
    cluster.done(0, cluster.step("writable", 0)).await;
    cluster.done(1, cluster.following(1, 0)).await;
    cluster.done(2, cluster.following(2, 0)).await;
    cluster.insert(0).await;
    let primary = cluster.status(0).await;
    for at in [1, 2] {
        cluster.until(at, "caught up", |it| it.executed.contains(&primary.executed)).await;
        assert_eq!(cluster.rows(at).await, cluster.rows(0).await);
    }
    // A restarted primary is read-only.
    cluster.servers[0].restart().await.unwrap();
    assert_eq!(cluster.status(0).await.writable, Writable::Closed, "restarted writable");
}

/// A candidate that restarts in the middle of its promotion waits for acknowledgements all the same.
async fn opens_with_commits_waiting(flavor: DatabaseFlavor) {
    let Some(mut cluster) = Cluster::replicating(flavor, 2).await else {
        return;
    };
    cluster.servers[0].kill9();
    cluster.done(1, Step::CommitsWait { server: cluster.name(1), acks: 1 }).await;
    cluster.servers[1].restart().await.unwrap();
    assert!(!cluster.status(1).await.semi_sync.source, "the switch outlived a restart");
    cluster.done(1, Step::Writable { server: cluster.name(1), acks: 1 }).await;
    let open = cluster.status(1).await;
    assert!(open.writable == Writable::Open && open.semi_sync.source, "{open:?}");
    assert_eq!(open.semi_sync.acks, 1);
}

/// The first commits wait for a replica that is connected by then; on MariaDB one that comes just after
/// them is not served.
#[tokio::test]
async fn opens_once_it_is_listened_to() {
    let Some(mut cluster) = Cluster::replicating(Mariadb, 3).await else {
        return;
    };
    cluster.servers[0].kill9();
    cluster.done(1, Step::CommitsWait { server: cluster.name(1), acks: 1 }).await;
    cluster.done(2, Step::Acknowledges { server: cluster.name(2), on: true }).await;
    let follows = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let before = cluster.status(1).await.writable;
        cluster.done(2, cluster.following(2, 1)).await;
        before
    };
    let opens = cluster.done(1, Step::Writable { server: cluster.name(1), acks: 1 });
    let (before, _) = tokio::join!(follows, opens);
    assert_eq!(before, Writable::Closed, "opened before anybody listened");
    let open = cluster.status(1).await;
    assert!(open.writable == Writable::Open && open.semi_sync.clients == 1, "{open:?}");
    cluster.insert(1).await;
    cluster.servers[2].kill9();
    // Nobody is awaited for ever.
    cluster.done(1, cluster.step("read_only", 1)).await;
    cluster.done(1, Step::Writable { server: cluster.name(1), acks: 1 }).await;
}

/// A primary whose commits wait comes back closed although its own settings would leave it open: the
/// switch of semi-sync is off by then. MariaDB keeps no setting; there its option file must say so.
async fn comes_back_closed_once_protected(flavor: DatabaseFlavor) {
    let options = ServerOptions { read_only: false, ..ServerOptions::default() };
    let place = tempfile::tempdir().unwrap();
    let Some(mut cluster) = Cluster::start_in(place, flavor, 1, options).await else {
        return;
    };
    cluster.done(0, Step::CommitsWait { server: cluster.name(0), acks: 1 }).await;
    assert_eq!(cluster.status(0).await.writable, Writable::Open, "it goes on until then");
    cluster.servers[0].restart().await.unwrap();
    let back = match flavor {
        DatabaseFlavor::Mysql => Writable::Closed,
        DatabaseFlavor::Mariadb => Writable::Open,
    };
    assert_eq!(cluster.status(0).await.writable, back);
}

/// Somebody made the primary follow its replica; it goes on and follows nobody again.
async fn stops_following(flavor: DatabaseFlavor) {
    let Some(cluster) = Cluster::replicating(flavor, 2).await else {
        return;
    };
    cluster.done(0, cluster.following(0, 1)).await;
    for setting in match flavor {
        DatabaseFlavor::Mysql => ["super_read_only", "read_only"].as_slice(),
        DatabaseFlavor::Mariadb => &["read_only"],
    } {
        cluster.servers[0].execute(&format!("SET GLOBAL {setting} = 0")).await.unwrap();
    }
    let astray = cluster.status(0).await;
    assert!(astray.writable == Writable::Open && !astray.channels.is_empty(), "{astray:?}");
    cluster.done(0, Step::Writable { server: cluster.name(0), acks: 0 }).await;
    let mended = cluster.status(0).await;
    assert!(mended.writable == Writable::Open && mended.channels.is_empty(), "{mended:?}");
    cluster.insert(0).await;
}

/// A commit that waits for an acknowledgement must not keep the server open.
async fn closes_past_waiting_commits(flavor: DatabaseFlavor) {
    let Some(cluster) = Cluster::lossless_pair(flavor).await else {
        return;
    };
    cluster.insert(0).await;
    cluster.done(1, cluster.step("receiver_stopped", 1)).await;
    let mut waiting = cluster.session(0).await;
    let commit = tokio::spawn(async move { waiting.query_drop("COMMIT").await });
    let open = cluster.session(0).await;
    cluster.until(0, "waiting", |it| it.semi_sync.waiting >= 1).await;
    let queued: Vec<_> = (0..8).map(|_| tokio::spawn(insert(cluster.address(0)))).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    // While a replica is leaving, MySQL takes up to a second longer.
    cluster.until(0, "no client", |it| it.semi_sync.clients == 0).await;
    if flavor == Mariadb {
        stays_open_and_acknowledges_nothing(&cluster, &commit, &queued).await;
        drop((commit, queued, open));
        return;
    }
    let before = cluster.clock.now().moment;
    let facts = cluster.once(0, cluster.step("read_only", 0)).await;
    let took = cluster.clock.now().moment.since(before);
    assert!(took < Duration::from_millis(450), "closing took {took:?}");
    assert!(commit.await.unwrap().is_err(), "a commit nobody holds was acknowledged");
    for commit in queued {
        assert!(commit.await.unwrap().is_err(), "a commit nobody holds was acknowledged");
    }
    cluster.done(0, cluster.step("read_only", 0)).await;
    let closed = cluster.status(0).await;
    assert_eq!(facts.executed.unwrap(), closed.executed, "it went on after it was closed");
    assert!(closed.semi_sync.source && closed.semi_sync.waiting == 0, "commits wait no more");
    assert_eq!(cluster.status(0).await.writable, Writable::Closed);
    drop(open);
    cluster.done(0, Step::CommitsWait { server: cluster.name(0), acks: 0 }).await;
    assert!(!cluster.status(0).await.semi_sync.source);
    cluster.done(1, Step::Acknowledges { server: cluster.name(1), on: false }).await;
    let many = cluster.perform(0, Step::CommitsWait { server: cluster.name(0), acks: 2 }).await;
    assert!(matches!(many, Outcome::Done(_)), "{many:?}");
}

/// A setting that an attempt left pending is seen for what it is, holds up nobody for long, and
/// takes no effect once the server was opened again.
#[tokio::test]
async fn an_attempt_given_up_leaves_nothing() {
    let Some(cluster) = Cluster::lossless_pair(Mysql).await else {
        return;
    };
    cluster.done(1, cluster.step("receiver_stopped", 1)).await;
    let mut waiting = cluster.session(0).await;
    let commit = tokio::spawn(async move { waiting.query_drop("COMMIT").await });
    cluster.until(0, "waiting", |it| it.semi_sync.waiting >= 1).await;
    let mut monitor = cluster.monitor(0).await;
    let closing = monitor.query_drop("SET GLOBAL super_read_only = ON");
    let pending = tokio::time::timeout(Duration::from_millis(300), closing).await;
    assert!(pending.is_err(), "it did not wait for the commit: {pending:?}");
    drop(monitor);
    assert_eq!(cluster.status(0).await.writable, Writable::Open, "it is not in force yet");
    cluster.once(0, cluster.step("writable", 0)).await;
    cluster.servers[1].execute("START REPLICA").await.unwrap();
    commit.await.unwrap().unwrap();
    cluster.insert(0).await;
    assert_eq!(cluster.status(0).await.writable, Writable::Open, "it took effect after all");
}

/// A step whose procedure was given up stops waiting, changes nothing more, and leaves all as it is.
async fn ends_when_withdrawn(flavor: DatabaseFlavor) {
    let Some(cluster) = Cluster::replicating(flavor, 2).await else {
        return;
    };
    let never = match flavor {
        Mysql => Gtids::parse(Flavor::MySql, "00000000-0000-4000-8000-000000000000:1"),
        Mariadb => Gtids::parse(Flavor::MariaDb, "7-7-7"),
    };
    let to = cluster.status(1).await.executed.union(&never.unwrap());
    let withdrawals = Withdrawals::default();
    let withdrawal = withdrawals.of(&"shop".into(), 1);
    let access = Access { withdrawal: withdrawal.clone(), ..cluster.access(1) };
    let permit = Moment(u64::MAX);
    let waits = Step::CaughtUp { server: cluster.name(1), to, within: PATIENCE };
    let of_it = access.clone();
    let waiting = tokio::spawn(async move { perform(&waits, Epoch(1), &of_it, permit).await });
    let within = Duration::from_secs(1);
    let mut waiting = Box::pin(waiting);
    assert!(
        tokio::time::timeout(within, &mut waiting).await.is_err(),
        "there was nothing to await"
    );
    withdrawals.note("shop".into(), 1);
    let outcome = tokio::time::timeout(within, waiting).await.expect("it waits on").unwrap();
    let withdrawn = Outcome::Retry(Withdrawal::WHY.to_owned());
    assert_eq!(outcome, withdrawn);
    let stops = cluster.step("receiver_stopped", 1);
    assert_eq!(perform(&stops, Epoch(1), &access, permit).await, withdrawn);
    let channel = cluster.status(1).await.channels[0].clone();
    assert!(channel.receiver == Receiver::Connected && channel.applying, "{channel:?}");
    cluster.done(1, stops).await;
}

type Insert = tokio::task::JoinHandle<Result<(), mysql_async::Error>>;

/// MariaDB would acknowledge commits whose sessions are ended, so it stays as it is until
/// somebody acknowledges them; then it closes at once.
async fn stays_open_and_acknowledges_nothing(
    cluster: &Cluster,
    commit: &Insert,
    queued: &[Insert],
) {
    for attempt in 0..2 {
        match cluster.perform(0, cluster.step("read_only", 0)).await {
            Outcome::Retry(why) => assert_eq!(why, "commits wait for acknowledgements"),
            outcome => panic!("{attempt}: {outcome:?}"),
        }
        // A setting left behind would take effect now or hold up everything.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let status = cluster.status(0).await;
        assert!(status.writable == Writable::Open && status.semi_sync.waiting >= 1, "{status:?}");
        let ended = queued.iter().chain([commit]).filter(|one| one.is_finished()).count();
        assert_eq!(ended, 0, "a session was ended or a commit acknowledged");
    }
    let many = cluster.perform(0, Step::CommitsWait { server: cluster.name(0), acks: 2 }).await;
    assert!(matches!(many, Outcome::Failed(_)), "{many:?}");
    cluster.servers[1].execute("START SLAVE").await.unwrap();
    cluster.until(0, "all acknowledged", |it| it.semi_sync.waiting == 0).await;
    cluster.once(0, cluster.step("read_only", 0)).await;
    assert_eq!(cluster.status(0).await.writable, Writable::Closed);
}

/// With a replica that acknowledges, a server under writes is closed soon, and what its clients
/// were told is on the replica.
async fn closes_under_writes(flavor: DatabaseFlavor) {
    let Some(cluster) = Cluster::lossless_pair(flavor).await else {
        return;
    };
    let shop = "GRANT SELECT, INSERT ON shop.* TO writer@'%' IDENTIFIED BY 'writer'";
    for statement in match flavor {
        Mariadb => vec![shop],
        Mysql => vec![
            "CREATE USER writer@'%' IDENTIFIED BY 'writer'",
            "GRANT SELECT, INSERT ON shop.* TO writer@'%'",
        ],
    } {
        cluster.write(statement).await;
    }
    let writers: Vec<_> = (0..6)
        .map(|_| {
            let address = cluster.address(0);
            tokio::spawn(async move {
                let mut told = 0;
                let mut conn = connect(address, "writer", "writer").await.unwrap();
                while conn.query_drop("INSERT INTO shop.orders VALUES ()").await.is_ok() {
                    told += 1;
                }
                told
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = cluster.clock.now().moment;
    let facts = cluster.once(0, cluster.step("read_only", 0)).await;
    let took = cluster.clock.now().moment.since(before);
    let mut told = 0_u64;
    for writer in writers {
        told += writer.await.unwrap();
    }
    let to = facts.executed.unwrap();
    assert_eq!(cluster.status(0).await.executed, to, "it went on after it was closed");
    cluster.until(1, "received", |it| it.executed.contains(&to)).await;
    assert!(cluster.rows(1).await >= told && told > 0, "{told} were told");
    assert!(took < Duration::from_millis(300), "closing took {took:?}");
}

/// Sessions that end between the look at them and their turn are no hindrance.
async fn closes_while_sessions_come_and_go(flavor: DatabaseFlavor) {
    let Some(cluster) = Cluster::replicating(flavor, 1).await else {
        return;
    };
    let visits: Vec<_> = (0..16)
        .map(|_| {
            let address = cluster.address(0);
            tokio::spawn(async move {
                loop {
                    // Any of them may be ended, or refused while there are too many.
                    if let Ok(mut conn) = connect(address.clone(), ROOT.user, ROOT.password).await {
                        let _ = conn.query_drop("SELECT 1").await;
                        let _ = conn.disconnect().await;
                    }
                }
            })
        })
        .collect();
    for _ in 0..30 {
        let outcome = cluster.perform(0, cluster.step("read_only", 0)).await;
        assert!(!matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
        cluster.servers[0].execute("SET GLOBAL read_only = 0").await.unwrap();
    }
    visits.iter().for_each(tokio::task::JoinHandle::abort);
}

async fn connect(
    address: Endpoint,
    user: &str,
    password: &str,
) -> Result<mysql_async::Conn, mysql_async::Error> {
    let options = mysql_async::OptsBuilder::default()
        .ip_or_hostname(address.host)
        .tcp_port(address.port)
        .user(Some(user))
        .pass(Some(password))
        .prefer_socket(false);
    mysql_async::Conn::new(options).await
}

async fn insert(address: Endpoint) -> Result<(), mysql_async::Error> {
    let mut conn = connect(address, ROOT.user, ROOT.password).await?;
    conn.query_drop("INSERT INTO shop.orders VALUES ()").await
}

/// What a replica received before it was asked to acknowledge, it never acknowledges; on MariaDB the
/// commits that wait for that hold the log, so that no later one can make up for them.
#[tokio::test]
async fn commits_that_were_asked_about_too_late() {
    let Some(cluster) = Cluster::replicating(Mariadb, 2).await else {
        return;
    };
    cluster.once(0, Step::CommitsWait { server: cluster.name(0), acks: 1 }).await;
    let commits: Vec<_> = (0..4).map(|_| tokio::spawn(insert(cluster.address(0)))).collect();
    let mut log = cluster.servers[0].connect().await.unwrap();
    let held_up = async {
        let asking = log.query_drop("SHOW MASTER STATUS");
        tokio::time::timeout(Duration::from_millis(500), asking).await.is_err()
    };
    cluster.until(0, "waiting", |it| it.semi_sync.waiting >= 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(held_up.await, "the log can be written, so a later commit may be acknowledged");
    cluster.once(1, Step::Acknowledges { server: cluster.name(1), on: true }).await;
    cluster.until(0, "a client", |it| it.semi_sync.clients == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let status = cluster.status(0).await;
    let ended = commits.iter().filter(|one| one.is_finished()).count();
    assert!(status.semi_sync.waiting >= 1 && ended == 0, "{ended} ended: {status:?}");

    let to = status.executed;
    cluster.once(1, Step::CaughtUp { server: cluster.name(1), to, within: PATIENCE }).await;
    cluster.once(0, Step::CommitsWait { server: cluster.name(0), acks: 0 }).await;
    cluster.once(0, Step::CommitsWait { server: cluster.name(0), acks: 1 }).await;
    for commit in commits {
        commit.await.unwrap().unwrap();
    }
    cluster.insert(0).await;
    cluster.until(0, "acknowledged", |it| it.semi_sync.waiting == 0).await;
    let all = cluster.status(0).await.executed;
    cluster.until(1, "caught up", |it| it.executed.contains(&all)).await;
    assert_eq!(cluster.rows(1).await, cluster.rows(0).await);
}

/// From servers without semi-sync to commits that two replicas acknowledge; a server that becomes
/// a replica waits for nobody.
async fn waits_for_all_who_acknowledge(flavor: DatabaseFlavor) {
    let Some(cluster) = Cluster::replicating(flavor, 3).await else {
        return;
    };
    cluster.once(0, Step::CommitsWait { server: cluster.name(0), acks: 0 }).await;
    for at in [1, 2] {
        cluster.once(at, Step::Acknowledges { server: cluster.name(at), on: true }).await;
    }
    cluster.once(0, Step::CommitsWait { server: cluster.name(0), acks: 1 }).await;
    let source = cluster.status(0).await.semi_sync;
    assert!(source.source && source.acks == 1, "{source:?}");
    assert_eq!(
        cluster.until(0, "clients", |it| it.semi_sync.clients == 2).await.semi_sync.waiting,
        0
    );
    cluster.insert(0).await;

    // A candidate with something left to apply waits for nobody before it is opened.
    let stop = if flavor == Mysql { "STOP REPLICA SQL_THREAD" } else { "STOP SLAVE SQL_THREAD" };
    cluster.servers[1].execute(stop).await.unwrap();
    cluster.insert(0).await;
    let facts = cluster.once(0, cluster.step("read_only", 0)).await;
    let to = facts.executed.unwrap();
    cluster.until(1, "received", |it| it.received().contains(&to)).await;
    cluster.once(1, Step::CommitsWait { server: cluster.name(1), acks: 1 }).await;
    cluster.once(1, Step::CaughtUp { server: cluster.name(1), to, within: PATIENCE }).await;
    cluster.once(1, cluster.step("writable", 1)).await;
    assert!(cluster.status(1).await.semi_sync.source);
    for at in [0, 2] {
        cluster.once(at, cluster.following(at, 1)).await;
        assert!(!cluster.status(at).await.semi_sync.source, "a replica's commits wait");
    }
    cluster.until(1, "a client", |it| it.semi_sync.clients >= 1).await;
    cluster.insert(1).await;
    let all = cluster.status(1).await.executed;
    for at in [0, 2] {
        cluster.until(at, "caught up", |it| it.executed.contains(&all)).await;
    }
}

/// Nothing is changed when somebody else may lead already.
async fn refuses_without_permit(flavor: DatabaseFlavor) {
    let Some(cluster) = Cluster::replicating(flavor, 2).await else {
        return;
    };
    for (at, step) in [
        (0, cluster.step("read_only", 0)),
        (1, cluster.step("receiver_stopped", 1)),
        (1, cluster.step("writable", 1)),
        (1, Step::CommitsWait { server: cluster.name(1), acks: 1 }),
        (1, Step::Acknowledges { server: cluster.name(1), on: true }),
        (0, cluster.following(0, 1)),
    ] {
        let outcome = cluster.perform_late(at, step.clone()).await;
        assert_eq!(outcome, Outcome::Retry("permit ran out".to_owned()), "{step}");
    }
    assert_eq!(cluster.status(0).await.writable, Writable::Open);
    let replica = cluster.status(1).await;
    assert_eq!(replica.channel().unwrap().receiver, Receiver::Connected);
    assert_eq!(replica.writable, Writable::Closed);
}

/// A stopped applier is started; a broken one is left to people; nothing received is thrown away.
async fn drains_before_it_promotes(flavor: DatabaseFlavor) {
    let Some(cluster) = Cluster::replicating(flavor, 2).await else {
        return;
    };
    let stop = match flavor {
        Mysql => "STOP REPLICA SQL_THREAD",
        Mariadb => "STOP SLAVE SQL_THREAD",
    };
    cluster.servers[1].execute(stop).await.unwrap();
    for _ in 0..5 {
        cluster.insert(0).await;
    }
    let to = cluster.status(0).await.executed;
    cluster.until(1, "received", |it| it.received().contains(&to)).await;
    assert_eq!(cluster.rows(1).await, 0);
    // With the receiver running, both products just go on.
    cluster.done(1, Step::CaughtUp { server: cluster.name(1), to, within: PATIENCE }).await;
    assert_eq!(cluster.rows(1).await, 5);

    // With both stopped, MariaDB would delete the relay log; then the step must refuse.
    cluster.servers[1].execute(stop).await.unwrap();
    cluster.insert(0).await;
    let to = cluster.status(0).await.executed;
    cluster.until(1, "received", |it| it.received().contains(&to)).await;
    cluster.done(1, cluster.step("receiver_stopped", 1)).await;
    let step = Step::CaughtUp { server: cluster.name(1), to: to.clone(), within: PATIENCE };
    let outcome = cluster.perform(1, step).await;
    match flavor {
        Mysql => assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}"),
        Mariadb => {
            assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
            assert!(cluster.status(1).await.received().contains(&to), "the relay log is gone");
            let outcome = cluster.perform(1, cluster.step("writable", 1)).await;
            assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
        }
    }
}

/// An applier that an error stopped is reported with its number.
async fn names_a_broken_applier(flavor: DatabaseFlavor) {
    let Some(cluster) = Cluster::replicating(flavor, 2).await else {
        return;
    };
    let mut conn = cluster.servers[1].connect().await.unwrap();
    let off = if flavor == Mysql { "super_read_only" } else { "read_only" };
    conn.query_drop(format!("SET GLOBAL {off} = 0; SET SESSION sql_log_bin = 0")).await.unwrap();
    conn.query_drop("INSERT INTO shop.orders VALUES (1)").await.unwrap();
    conn.query_drop(format!("SET GLOBAL {off} = 1")).await.unwrap();
    cluster.insert(0).await;
    cluster.until(1, "broken", |it| it.channel().unwrap().error.is_some()).await;
    let to = cluster.status(0).await.executed;
    for step in [
        Step::CaughtUp { server: cluster.name(1), to, within: PATIENCE },
        cluster.step("writable", 1),
    ] {
        match cluster.perform(1, step).await {
            Outcome::Failed(reason) => assert!(reason.contains("1062"), "{reason}"),
            outcome => panic!("{outcome:?}"),
        }
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
}

both! {
    opens_with_commits_waiting comes_back_closed_once_protected ends_when_withdrawn stops_following
    closes_while_sessions_come_and_go
    fails_over_and_back closes_past_waiting_commits refuses_without_permit
    closes_under_writes drains_before_it_promotes names_a_broken_applier waits_for_all_who_acknowledge
}
