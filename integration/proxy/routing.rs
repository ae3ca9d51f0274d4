//! Sessions go where the epoch says, and end with it.

use crate::stage::{Echo, Stage, rest, route, shop};
use regent::proxy::routes::Purpose;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_new_epoch_cuts_and_routes_anew() {
    let stage = Stage::set(2 * SECOND, 100).await;
    let (old, new) = (Echo::start(1).await, Echo::start(2).await);
    stage.watcher.set(Some(route(1, Some(&old), &[&new])));
    let (mut writer, number) = stage.reach(Purpose::Write).await;
    assert_eq!(number, 1);
    let (mut reader, number) = stage.reach(Purpose::Read).await;
    assert_eq!(number, 2);

    stage.watcher.set(Some(route(2, None, &[&new])));
    assert!(rest(&mut writer).await.is_empty(), "cut");
    reader.write_all(b"r").await.unwrap();
    assert_eq!(reader.read_u8().await.unwrap(), b'r', "reads go on");
    timeout(SECOND, async {
        while stage.watcher.seen.load(Ordering::SeqCst) < 2 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the new epoch is reported as seen");
    assert_eq!(stage.proxy.state(&shop()).0.0, 2);

    let mut held = stage.connect(Purpose::Write).await;
    sleep(Duration::from_millis(100)).await;
    #[expect(clippy::disallowed_methods, reason = "measures how long a held client waits")]
    let begin = std::time::Instant::now();
    stage.watcher.set(Some(route(2, Some(&new), &[])));
    assert_eq!(held.read_u64().await.unwrap(), 2);
    let waited = begin.elapsed();
    assert!(waited < Duration::from_millis(100), "held for {waited:?} after the route opened");
    assert!(rest(&mut reader).await.is_empty(), "its replica became the primary");
}

#[tokio::test]
async fn without_renewal_writes_stop_and_new_clients_wait_then_get_an_error() {
    let stage = Stage::set(Duration::from_millis(900), 100).await;
    let primary = Echo::start(1).await;
    stage.watcher.set(Some(route(1, Some(&primary), &[])));
    let (mut session, _) = stage.reach(Purpose::Write).await;
    stage.watcher.set(None);
    assert!(rest(&mut session).await.is_empty(), "the lease ran out");
    let served = primary.served.load(Ordering::SeqCst);
    let mut held = stage.connect(Purpose::Write).await;
    assert!(timeout(SECOND / 2, held.read_u8()).await.is_err(), "held");
    let said = rest(&mut held).await;
    assert_eq!(&said[3..7], [0, 0xff, 0x60, 0x0c], "error 3168");
    assert_eq!(primary.served.load(Ordering::SeqCst), served, "nothing was forwarded");
    stage.watcher.set(Some(route(1, Some(&primary), &[])));
    assert_eq!(stage.reach(Purpose::Write).await.1, 1, "the lease is back");
    assert_eq!(stage.metric("regent_proxy_cut_total") as u64, 1);
}

#[tokio::test]
async fn a_dead_target_is_tried_until_the_route_moves() {
    let stage = Stage::set(3 * SECOND, 100).await;
    let (dead, alive) = (Echo::start(1).await, Echo::start(2).await);
    dead.kill();
    stage.watcher.set(Some(route(1, Some(&dead), &[])));
    let mut client = stage.connect(Purpose::Write).await;
    sleep(SECOND / 2).await;
    let told = stage.watcher.unreached.load(Ordering::SeqCst);
    assert!((2..=20).contains(&told), "the watchers were told {told} times");
    stage.watcher.set(Some(route(2, Some(&alive), &[])));
    assert_eq!(crate::stage::greeting(&mut client).await, 2);
}

#[tokio::test]
async fn a_server_that_never_greets_does_not_swallow_clients() {
    let stage = Stage::set(3 * SECOND, 100).await;
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alive = Echo::start(2).await;
    let hung = Echo { address: mute.local_addr().unwrap(), number: 1, ..alive.clone() };
    stage.watcher.set(Some(route(1, Some(&hung), &[])));
    let mut client = stage.connect(Purpose::Write).await;
    let _accepted = timeout(SECOND, mute.accept()).await.expect("forwarded").unwrap();
    stage.watcher.set(Some(route(2, Some(&alive), &[])));
    assert_eq!(crate::stage::greeting(&mut client).await, 2);
}

#[tokio::test]
async fn reads_spread_skip_the_dead_and_fall_back() {
    let stage = Stage::set(2 * SECOND, 100).await;
    let servers = [Echo::start(1).await, Echo::start(2).await, Echo::start(3).await];
    let [primary, first, second] = &servers;
    stage.watcher.set(Some(route(1, Some(primary), &[first, second])));
    let mut clients = Vec::new();
    let mut counts = [0; 4];
    for _ in 0..20 {
        let (client, number) = stage.reach(Purpose::Read).await;
        clients.push(client);
        counts[number as usize] += 1;
    }
    assert_eq!(counts, [0, 0, 10, 10]);
    first.kill();
    second.kill();
    sleep(SECOND / 10).await;
    assert_eq!(stage.reach(Purpose::Read).await.1, 1, "the primary is left");
}

#[tokio::test]
async fn stopping_lets_sessions_end_and_then_cuts() {
    let stage = Stage::set(2 * SECOND, 100).await;
    let primary = Echo::start(1).await;
    stage.watcher.set(Some(route(1, Some(&primary), &[])));
    let (mut session, _) = stage.reach(Purpose::Write).await;
    let address = stage.proxy.address(&shop(), Purpose::Write).unwrap();
    let stopping = tokio::spawn(stage.proxy.stop(SECOND));
    sleep(SECOND / 2).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody is accepted");
    session.write_all(b"y").await.unwrap();
    assert_eq!(session.read_u8().await.unwrap(), b'y', "still drained");
    assert!(rest(&mut session).await.is_empty());
    timeout(SECOND, stopping).await.expect("ends in time").unwrap();
}
