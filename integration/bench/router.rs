//! The least that clients of a replication group need: a port beside them that leads to whichever member
//! is the primary, and ends their connections when that changes.

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use regent::demo::servers::accounts::ROOT;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Between two questions to a member.
const PACE: Duration = Duration::from_millis(50);
/// How long an answer of a member may take.
const LIMIT: Duration = Duration::from_millis(500);
/// How long a client waits for a primary, and for the connection to it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether a member is the primary of a group that most members can be reached in.
const IS_PRIMARY: &str = "SELECT COALESCE(MAX(MEMBER_ID = @@server_uuid AND MEMBER_ROLE = 'PRIMARY' \
                          AND MEMBER_STATE = 'ONLINE'), 0) = 1 \
                          AND SUM(MEMBER_STATE = 'ONLINE') * 2 > COUNT(*) \
                          AND NOT @@global.super_read_only \
                          FROM performance_schema.replication_group_members";

/// A running router; dropping it ends it and every connection through it.
pub struct Router {
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Router {
    /// Starts one that runs, listens and connects where `place` does.
    pub async fn start(members: Vec<SocketAddr>, place: &Handle) -> Result<Router> {
        let mut tasks = JoinSet::new();
        let (told, mut bound) = watch::channel(None);
        let routing = async move {
            let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await else { return };
            told.send_replace(listener.local_addr().ok());
            forward(listener, members).await;
        };
        tasks.spawn_on(routing, place);
        let address = bound.wait_for(Option::is_some).await.context("the router did not start")?;
        Ok(Router { address: address.context("no address")?, _tasks: tasks })
    }
}

async fn forward(listener: TcpListener, members: Vec<SocketAddr>) {
    let (said, heard) = watch::channel(vec![false; members.len()]);
    let (chosen, route) = watch::channel(None);
    let mut tasks = JoinSet::new();
    for (number, member) in members.iter().enumerate() {
        let (said, member) = (said.clone(), *member);
        tasks.spawn(async move {
            loop {
                if let Ok(mut connection) = connect(member).await {
                    while let Ok(Ok(Some(is))) =
                        timeout(LIMIT, connection.query_first::<bool, _>(IS_PRIMARY)).await
                    {
                        said.send_if_modified(|all| std::mem::replace(&mut all[number], is) != is);
                        sleep(PACE).await;
                    }
                }
                said.send_if_modified(|all| std::mem::replace(&mut all[number], false));
                sleep(PACE).await;
            }
        });
    }
    tasks.spawn(choose(heard, chosen, members));
    while let Ok((client, _)) = listener.accept().await {
        tasks.spawn(session(client, route.clone()));
        while tasks.try_join_next().is_some() {}
    }
}

/// A member that falls silent stays the choice until another says that it is the primary.
async fn choose(
    mut heard: watch::Receiver<Vec<bool>>,
    chosen: watch::Sender<Option<SocketAddr>>,
    members: Vec<SocketAddr>,
) {
    while heard.changed().await.is_ok() {
        let all = heard.borrow_and_update().clone();
        let said: Vec<_> = members.iter().zip(all).filter(|(_, is)| *is).collect();
        if let [(primary, _)] = said[..] {
            chosen.send_if_modified(|now| now.replace(*primary) != Some(*primary));
        }
    }
}

async fn session(mut client: TcpStream, mut route: watch::Receiver<Option<SocketAddr>>) {
    let known = timeout(PATIENCE, route.wait_for(Option::is_some)).await;
    let Some(target) = known.ok().and_then(Result::ok).and_then(|known| *known) else { return };
    let Ok(Ok(mut server)) = timeout(PATIENCE, TcpStream::connect(target)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = route.wait_for(|now| *now != Some(target)) => {}
    }
}

async fn connect(member: SocketAddr) -> Result<Conn> {
    let options = OptsBuilder::default()
        .ip_or_hostname(member.ip().to_string())
        .tcp_port(member.port())
        .user(Some(ROOT.user))
        .pass(Some(ROOT.password))
        .prefer_socket(false);
    Ok(timeout(LIMIT, Conn::new(options)).await??)
}
