//! Links between watchers on loopback.

use regent::config::WatcherSpec;
use regent::decision::lease::FromProxy;
use regent::decision::topology::{Endpoint, WatcherName};
use regent::runtime::peers::Peers;
use regent::watcher::{Input, PeerMessage};
use regent::wire::{FrameReader, FrameWriter, Hello, Kind, Role, fingerprint, greet};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

async fn specs(count: usize) -> Vec<WatcherSpec> {
    let mut specs = Vec::new();
    let mut held = Vec::new();
    for i in 0..count {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        held.push(free);
        let at = Endpoint { host: "127.0.0.1".into(), port };
        let id = WatcherName(format!("w{i}"));
        specs.push(WatcherSpec { id, data_center: "dc".into(), peer: at.clone(), api: at });
    }
    specs
}

async fn start(specs: &[WatcherSpec], own: usize) -> (Peers, Receiver<Input>, CancellationToken) {
    let (inbox, inputs) = channel(64);
    let stop = CancellationToken::new();
    let peers = Peers::start(&specs[own].id, specs, inbox, stop.clone()).await.unwrap();
    (peers, inputs, stop)
}

async fn expect(inputs: &mut Receiver<Input>, wanted: &Input) {
    let seen = async { while inputs.recv().await.as_ref() != Some(wanted) {} };
    timeout(Duration::from_secs(5), seen).await.unwrap_or_else(|_| panic!("no {wanted:?}"));
}

#[tokio::test]
async fn watchers_link_again_after_one_was_away() {
    let specs = specs(2).await;
    let (first, mut first_hears, _stop) = start(&specs, 0).await;
    let (_second, mut second_hears, second_stop) = start(&specs, 1).await;
    let up = Input::PeerLink { peer: specs[1].id.clone(), up: true };
    expect(&mut first_hears, &up).await;
    for message in
        [PeerMessage::Raft(vec![9; 2_000_000]), PeerMessage::ProbeNow { cluster: "shop".into() }]
    {
        first.send(&specs[1].id, message.clone());
        let from = specs[0].id.clone();
        expect(&mut second_hears, &Input::PeerMessage { from, message }).await;
    }
    second_stop.cancel();
    expect(&mut first_hears, &Input::PeerLink { peer: specs[1].id.clone(), up: false }).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (_again, mut again_hears, _stop) = start(&specs, 1).await;
    expect(&mut first_hears, &up).await;
    first.send(&specs[1].id, PeerMessage::Raft(vec![1]));
    let message = PeerMessage::Raft(vec![1]);
    expect(&mut again_hears, &Input::PeerMessage { from: specs[0].id.clone(), message }).await;
}

#[tokio::test]
async fn strangers_and_garbage_do_no_harm_and_proxies_are_served() {
    let specs = specs(1).await;
    let (peers, mut hears, _stop) = start(&specs, 0).await;
    let fleet = fingerprint([&specs[0].id]);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 100], &[0; 9]] {
        let mut stream = TcpStream::connect(peers.address()).await.unwrap();
        stream.write_all(garbage).await.unwrap();
    }
    let greet_as = async |role: Role, name: &str| {
        let stream = TcpStream::connect(peers.address()).await.unwrap();
        let (reader, writer) = stream.into_split();
        let (mut reader, mut writer) =
            (FrameReader::new(reader), FrameWriter::new(writer, role.limit()));
        let hello = Hello::new(role, name, fleet);
        let greeted = greet(&mut reader, &mut writer, &hello).await;
        (greeted, reader, writer)
    };
    assert!(greet_as(Role::Watcher, "nobody").await.0.is_err());
    let (greeted, mut reader, mut writer) = greet_as(Role::Proxy, "p1").await;
    greeted.unwrap();
    let message = FromProxy::Renew {
        sent: Default::default(),
        seen: Default::default(),
        sessions: Default::default(),
        unreached: Default::default(),
    };
    writer.send_json(Kind::PROXY, &message).await.unwrap();
    expect(&mut hears, &Input::ProxyMessage { proxy: "p1".into(), message }).await;
    let answer = regent::decision::lease::ToProxy::NotLeader { leader: None };
    peers.to_proxy(&"p1".into(), answer.clone());
    let frame = timeout(Duration::from_secs(5), reader.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(frame.parse::<regent::decision::lease::ToProxy>().unwrap(), answer);
}
