//! What probes see.

use crate::cluster::{Cluster, Mariadb, Mysql, credentials};
use mysql_async::prelude::Queryable;
use regent::config::secret::Secret;
use regent::decision::report::{Receiver, Sight, Trouble, Writable};
use regent::decision::topology::{Endpoint, Epoch, Timing, WatcherName};
use regent::demo::ports::free_ports;
use regent::demo::servers::{DatabaseFlavor, ServerOptions};
use regent::runtime::mysql::canary::Canary;
use regent::runtime::mysql::probe::Prober;
use regent::watcher::CanaryResult;
use std::time::Duration;

async fn sees_status_life_and_death(flavor: DatabaseFlavor) {
    let Some(mut cluster) = Cluster::replicating(flavor, 2).await else {
        return;
    };
    let primary = cluster.status(0).await;
    assert_eq!(primary.writable, Writable::Open);
    assert!(primary.channels.is_empty() && !primary.executed.is_empty());
    assert!(primary.settings.binlog && primary.settings.gtids && primary.settings.durable);
    let replica = cluster.until(1, "caught up", |it| it.executed.contains(&primary.executed)).await;
    assert_eq!(replica.writable, Writable::Closed);
    let channel = replica.channel().unwrap();
    assert_eq!(channel.source, cluster.address(0));
    assert_eq!(channel.receiver, Receiver::Connected);
    assert!(channel.applying && channel.by_gtid && channel.error.is_none());
    assert!(channel.lag.is_some());

    // Heartbeats of an idle primary move the beats; a hung primary's do not.
    let beats = channel.beats;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let grown = cluster.status(1).await.channel().unwrap().beats;
    assert!(grown > beats, "no heartbeat in 700 ms");
    cluster.insert(0).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    let written = cluster.status(1).await.channel().unwrap().beats;
    assert!(written > grown, "an event was no beat");

    let mut prober = cluster.prober(0);
    assert!(matches!(prober.probe().await, Sight::Alive(_)));
    cluster.servers[0].stop_hang().unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let silent = cluster.status(1).await.channel().unwrap().beats;
    for n in 0..8 {
        let before = cluster.clock.now().moment;
        assert_eq!(prober.probe().await, Sight::Hung, "probe {n}");
        let took = cluster.clock.now().moment.since(before);
        assert!(took <= Timing::default().probe_timeout + Duration::from_millis(30), "{took:?}");
    }
    assert_eq!(cluster.status(1).await.channel().unwrap().beats, silent);
    // The receiver's stop is quick although its source hangs.
    cluster.done(1, cluster.step("receiver_stopped", 1)).await;
    cluster.servers[0].resume().unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(matches!(prober.probe().await, Sight::Alive(_)));

    cluster.servers[0].kill9();
    let before = cluster.clock.now().moment;
    assert_eq!(prober.probe().await, Sight::Refused);
    assert!(cluster.clock.now().moment.since(before) < Duration::from_millis(100));
    cluster.servers[0].restart().await.unwrap();
    assert!(matches!(prober.probe().await, Sight::Alive(_)));
}

async fn tells_troubles_apart(flavor: DatabaseFlavor) {
    let Some(cluster) = Cluster::start(flavor, 1).await else {
        return;
    };
    let mut account = credentials().monitor;
    account.password = Secret::new("wrong".to_owned());
    let mut stranger = Prober::new(&cluster.spec(0), account, Timing::default());
    assert_eq!(stranger.probe().await, Sight::Denied);

    // One slot is kept for administrators.
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(cluster.servers[0].connect().await.unwrap());
    }
    cluster.servers[0].execute("SET GLOBAL max_connections = 10").await.unwrap();
    for _ in 0..6 {
        match cluster.servers[0].connect().await {
            Ok(conn) => held.push(conn),
            Err(_) => break,
        }
    }
    assert_eq!(
        cluster.prober(0).probe().await,
        Sight::Useless(Trouble::TooManyConnections),
        "{} held",
        held.len()
    );
    drop(held);

    // A listener whose queue is full drops what arrives, as a host that is gone does.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let place = listener.local_addr().unwrap().as_socket().unwrap();
    let fill = || std::net::TcpStream::connect_timeout(&place, Duration::from_millis(100));
    let queued: Vec<_> = std::iter::from_fn(|| fill().ok()).take(10).collect();
    let mut nowhere = cluster.spec(0);
    nowhere.address.port = place.port();
    let mut prober = Prober::new(&nowhere, credentials().monitor, Timing::default());
    for _ in 0..3 {
        assert_eq!(prober.probe().await, Sight::Unreachable, "{} queued", queued.len());
    }
    nowhere.address.host = "no-such-host.invalid".to_owned();
    let mut prober = Prober::new(&nowhere, credentials().monitor, Timing::default());
    assert!(matches!(prober.probe().await, Sight::Strange(_)));
}

/// Overloaded is not dead: who had got in stays in, and others look in by the administrators' door.
async fn looks_into_a_full_server(flavor: DatabaseFlavor) {
    let [door] = free_ports(1)[..] else { panic!("one port") };
    let extra = match flavor {
        Mysql => vec!["--admin-address=127.0.0.1".to_owned(), format!("--admin-port={door}")],
        Mariadb => vec![format!("--extra-port={door}"), "--extra-max-connections=10".to_owned()],
    };
    let options = ServerOptions { extra, ..ServerOptions::default() };
    let place = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start_in(place, flavor, 1, options).await else {
        return;
    };
    let mut early = cluster.prober(0);
    for _ in 0..3 {
        let Sight::Alive(status) = early.probe().await else { panic!("not alive") };
        assert!(!status.crowded);
    }
    cluster.servers[0].execute("SET GLOBAL max_connections = 10").await.unwrap();
    let mut held = Vec::new();
    while let Ok(conn) = cluster.servers[0].connect().await {
        held.push(conn);
        assert!(held.len() < 20, "it takes ever more connections");
    }
    assert_eq!(cluster.prober(0).probe().await, FULL, "without knowing the door");
    let mut declared = cluster.spec(0);
    let host = "127.0.0.1".to_owned();
    declared.admin_address = Some(Endpoint { host, port: door });
    let mut told = Prober::new(&declared, credentials().monitor, Timing::default());
    for (who, prober) in [("early", &mut early), ("told", &mut told)] {
        let Sight::Alive(status) = prober.probe().await else { panic!("{who}: not alive") };
        assert!(status.crowded, "{who}: not crowded");
    }
    // Whoever got in once remembers the door when the connection breaks.
    let kill = match flavor {
        Mysql => "SELECT ID FROM performance_schema.processlist WHERE USER = 'regent'",
        Mariadb => "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'regent'",
    };
    let mut root = held.pop().unwrap();
    for id in root.query::<u64, _>(kill).await.unwrap() {
        let _ = root.query_drop(format!("KILL {id}")).await;
    }
    held.push(root);
    while let Ok(conn) = cluster.servers[0].connect().await {
        held.push(conn);
    }
    let sight = early.probe().await;
    assert!(matches!(&sight, Sight::Alive(status) if status.crowded), "{sight:?}");
    drop(held);
    for _ in 0..100 {
        if matches!(early.probe().await, Sight::Alive(status) if !status.crowded) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it stays crowded");
}

const FULL: Sight = Sight::Useless(Trouble::TooManyConnections);

/// What the server will be after its next start, as far as it can be known.
async fn knows_who_restarts_open(flavor: DatabaseFlavor) {
    for (read_only, open) in [(true, false), (false, true)] {
        let options = ServerOptions { read_only, ..ServerOptions::default() };
        let place = tempfile::tempdir().unwrap();
        let Some(cluster) = Cluster::start_in(place, flavor, 1, options).await else {
            return;
        };
        let mut prober = cluster.prober(0);
        let seen = restarts_open(&mut prober).await;
        assert_eq!(seen, Some(open), "read_only: {read_only}");
        // A statement hides what the option file says; a lasting one tells it anew.
        cluster.servers[0].execute("SET GLOBAL read_only = 1").await.unwrap();
        cluster.servers[0].execute("SET GLOBAL read_only = 0").await.unwrap();
        let mut other = cluster.prober(0);
        assert_eq!(restarts_open(&mut other).await, None, "read_only: {read_only}");
        if flavor == DatabaseFlavor::Mysql {
            cluster.servers[0].execute("SET PERSIST super_read_only = ON").await.unwrap();
            let mut other = cluster.prober(0);
            assert_eq!(restarts_open(&mut other).await, Some(false), "read_only: {read_only}");
        }
    }
}

async fn restarts_open(prober: &mut Prober) -> Option<bool> {
    let mut seen = None;
    for _ in 0..3 {
        let Sight::Alive(status) = prober.probe().await else { panic!("not alive") };
        seen = status.settings.restarts_open;
    }
    seen
}

async fn canary_writes_or_stalls(flavor: DatabaseFlavor) {
    let Some(cluster) = Cluster::replicating(flavor, 1).await else {
        return;
    };
    let mut canary = Canary::new(cluster.spec(0), credentials().monitor);
    let watcher = WatcherName::from("paris");
    for epoch in 1..4 {
        assert_eq!(canary.write(&watcher, Epoch(epoch)).await, CanaryResult::Written);
    }
    let epoch: Option<u64> =
        cluster.servers[0].query("SELECT epoch FROM regent.canary").await.unwrap();
    assert_eq!(epoch, Some(3));
    let mut locking = cluster.session(0).await;
    locking.query_drop("COMMIT").await.unwrap();
    locking.query_drop("LOCK TABLES regent.canary WRITE").await.unwrap();
    // However often it is tried in vain, two connections are all that it costs.
    let connections = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'regent'";
    for _ in 0..3 {
        assert_eq!(canary.write(&watcher, Epoch(4)).await, CanaryResult::Stalled);
        let held: Option<u64> = cluster.servers[0].query(connections).await.unwrap();
        assert!(held <= Some(2), "{held:?} connections are held");
    }
    locking.query_drop("UNLOCK TABLES").await.unwrap();
    assert_eq!(canary.write(&watcher, Epoch(5)).await, CanaryResult::Written);
}

async fn probing_is_cheap(flavor: DatabaseFlavor) {
    let Some(cluster) = Cluster::replicating(flavor, 2).await else {
        return;
    };
    for at in 0..2 {
        let mut prober = cluster.prober(at);
        prober.probe().await;
        let pid = cluster.servers[at].process_id().unwrap();
        let (before, cpu) = (cluster.clock.now().moment, ticks(pid));
        let own = ticks(std::process::id());
        for _ in 0..500 {
            assert!(matches!(prober.probe().await, Sight::Alive(_)));
        }
        let took = cluster.clock.now().moment.since(before).as_secs_f64() * 1e3 / 500.0;
        let spent = (ticks(pid) - cpu) as f64 * 10.0 / 500.0;
        let ours = (ticks(std::process::id()) - own) as f64 * 10.0 / 500.0;
        eprintln!("{flavor} probe: {took:.2} ms, {spent:.2} ms CPU there, {ours:.2} ms CPU here");
        assert!(took < 50.0, "a probe takes {took} ms");
    }
}

/// CPU time of a process and its threads, in hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

both! {
    sees_status_life_and_death tells_troubles_apart looks_into_a_full_server
    knows_who_restarts_open canary_writes_or_stalls probing_is_cheap
}
