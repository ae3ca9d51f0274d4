//! Bytes pass unchanged, in both directions, at any pace.

use crate::stage::{Echo, Stage, rest, route};
use regent::proxy::routes::Purpose;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Repeatable noise.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

async fn with_primary(hold: u64, limit: usize) -> (Stage, Echo) {
    let stage = Stage::set(Duration::from_millis(hold), limit).await;
    let primary = Echo::start(1).await;
    stage.watcher.set(Some(route(1, Some(&primary), &[])));
    (stage, primary)
}

#[tokio::test]
async fn megabytes_come_back_unchanged_whatever_the_chunks() {
    let (stage, _primary) = with_primary(2000, 8).await;
    for chunk in [1, 7, 4096, 16_384, 65_537, 1_000_000] {
        let bytes = noise(if chunk == 1 { 3000 } else { 3_000_000 });
        let (client, _) = stage.reach(Purpose::Write).await;
        let (mut from, mut into) = client.into_split();
        let sent = bytes.clone();
        let sending = tokio::spawn(async move {
            for piece in sent.chunks(chunk) {
                into.write_all(piece).await.unwrap();
            }
            into.shutdown().await.unwrap();
        });
        let mut back = Vec::new();
        from.read_to_end(&mut back).await.unwrap();
        sending.await.unwrap();
        assert!(back == bytes, "chunks of {chunk}: {} of {} bytes", back.len(), bytes.len());
    }
}

#[tokio::test]
async fn a_half_closed_session_still_answers() {
    let (stage, _primary) = with_primary(2000, 8).await;
    let (mut client, _) = stage.reach(Purpose::Write).await;
    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, b"last words");
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_flow() {
    let (stage, _primary) = with_primary(2000, 8).await;
    let (mut client, _) = stage.reach(Purpose::Write).await;
    let piece = noise(1 << 20);
    let mut taken = 0;
    let flood = async {
        loop {
            taken += client.write(&piece).await.unwrap();
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(2), flood).await.is_err());
    // Socket buffers of four sockets take some megabytes; the proxy itself takes one chunk.
    assert!(taken < 64 << 20, "{taken} bytes went somewhere");
}

#[tokio::test]
async fn many_idle_sessions_stay_open_side_by_side() {
    let (stage, _primary) = with_primary(5000, 300).await;
    let mut clients = Vec::new();
    for _ in 0..300 {
        clients.push(stage.reach(Purpose::Write).await.0);
    }
    for client in &mut clients {
        client.write_all(b"x").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'x');
    }
    assert_eq!(stage.metric("regent_proxy_sessions_open") as usize, 300);
}

#[tokio::test]
async fn one_client_too_many_gets_error_1040() {
    let (stage, _primary) = with_primary(2000, 2).await;
    let first = stage.reach(Purpose::Write).await;
    let _second = stage.reach(Purpose::Read).await;
    for _ in 0..50 {
        let mut third = stage.connect(Purpose::Write).await;
        let said = rest(&mut third).await;
        assert_eq!(&said[4..7], [0xff, 0x10, 0x04]);
        assert_eq!(&said[7..], b"Too many connections");
    }
    drop(first);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(stage.reach(Purpose::Write).await.1, 1, "a place is free again");
}
