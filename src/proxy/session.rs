//! Serves one client from its arrival to its end.
//!
//! Until a server has said its first byte the client has seen nothing, so that everything up to
//! there can be tried again: another route, another server. After that the session is bound to
//! its server and ends with it, with its epoch, or with the lease.

use super::copying::copy_both;
use super::desk::{ClusterDesk, Desk, Permission};
use super::refusal::Refusal;
use super::routes::Purpose;
use crate::clock::Moment;
use crate::decision::topology::{Endpoint, ServerName};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long one attempt to connect to a server may take.
const CONNECT: Duration = Duration::from_secs(1);
/// Between two attempts to reach a server, unless a route opens meanwhile.
const RETRY: Duration = Duration::from_millis(50);
/// How long a client may take to accept the error that turns it away.
const FAREWELL: Duration = Duration::from_secs(1);

/// One client's session.
pub(super) struct Session {
    pub(super) desk: Arc<Desk>,
    pub(super) cluster: Arc<ClusterDesk>,
    pub(super) purpose: Purpose,
}

/// What became of the wait for a server.
enum Reached {
    Server(TcpStream, Permission),
    Refused(Refusal),
    ClientLeft,
}

impl Session {
    /// Returns when the client has been served or turned away.
    pub(super) async fn serve(self, mut client: TcpStream) {
        tune(&client);
        let deadline = self.desk.now() + self.cluster.hold;
        match self.reach(&client, deadline).await {
            Reached::Server(server, permission) => self.forward(client, server, permission).await,
            Reached::ClientLeft => {}
            Reached::Refused(refusal) => {
                self.cluster.metrics.refused(&refusal);
                let farewell = async {
                    client.write_all(&refusal.packet()).await?;
                    client.shutdown().await
                };
                // Whether it arrives is the client's affair.
                let _ = timeout(FAREWELL, farewell).await;
            }
        }
    }

    async fn reach(&self, client: &TcpStream, deadline: Moment) -> Reached {
        let mut opened = self.cluster.opened();
        let mut failed: Vec<ServerName> = Vec::new();
        loop {
            opened.mark_unchanged();
            let left = self.desk.now().until(deadline);
            if left.is_zero() {
                let none = failed.is_empty();
                return Reached::Refused(if none {
                    Refusal::NoRoute
                } else {
                    Refusal::Unreachable
                });
            }
            let pause = match self.desk.open(&self.cluster, self.purpose, &failed) {
                Some(permission) => match self.connect(&permission, left).await {
                    Ok(server) => return Reached::Server(server, permission),
                    Err(error) => {
                        let target = &permission.forward.target;
                        tracing::debug!(server = %target.server, %error, "failed to reach");
                        self.unreached(&permission);
                        if !failed.contains(&target.server) {
                            failed.push(target.server.clone());
                        }
                        RETRY
                    }
                },
                None => left,
            };
            if self.wait(client, &mut opened, pause.min(left)).await {
                return Reached::ClientLeft;
            }
        }
    }

    /// Tells the watchers of a server that refused or did not answer; not of one that was taken away meanwhile.
    fn unreached(&self, permission: &Permission) {
        if permission.holds() {
            self.desk.drive(|routes, now| routes.unreached(now, &self.cluster.name));
        }
    }

    /// Waits for a route or for `pause`; true when the client left meanwhile.
    async fn wait(
        &self,
        client: &TcpStream,
        opened: &mut watch::Receiver<()>,
        pause: Duration,
    ) -> bool {
        let waiting = Waiting::begin(self);
        let left = tokio::select! {
            _ = opened.changed() => false,
            () = tokio::time::sleep(pause) => false,
            () = gone(client) => true,
        };
        drop(waiting);
        left
    }

    /// Connects and waits for the server's first byte, without taking it.
    async fn connect(&self, permission: &Permission, left: Duration) -> io::Result<TcpStream> {
        let address = &permission.forward.target.address;
        let attempt = async {
            let server = timeout(CONNECT, dial(address)).await??;
            tune(&server);
            match server.peek(&mut [0]).await? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(server),
            }
        };
        tokio::select! {
            biased;
            () = permission.is_cut() => Err(io::ErrorKind::ConnectionAborted.into()),
            reached = timeout(left, attempt) => reached?,
        }
    }

    async fn forward(&self, mut client: TcpStream, mut server: TcpStream, permission: Permission) {
        let port = self.cluster.metrics.port(self.purpose);
        port.total.inc();
        port.open.inc();
        let counters = (&self.cluster.metrics.to_server, &self.cluster.metrics.to_client);
        let copied = tokio::select! {
            biased;
            () = permission.is_cut() => Err(io::ErrorKind::ConnectionAborted.into()),
            copied = copy_both(&mut client, &mut server, || permission.holds(), counters) => copied,
        };
        if copied.is_err() {
            // What still lies in the send buffer must not reach a server that may be deposed, so
            // this side is reset. The client's is closed in order: a reset would destroy answers
            // that it has received and not read yet, such as that of its last commit.
            let _ = SockRef::from(&server).set_linger(Some(Duration::ZERO));
        }
        // Before the permission: its end says that not a byte will follow.
        drop(server);
        drop(permission);
        port.open.dec();
    }
}

/// Counts a client among those that wait, until dropped.
struct Waiting<'a> {
    session: &'a Session,
}

impl Waiting<'_> {
    fn begin(session: &Session) -> Waiting<'_> {
        session.cluster.metrics.port(session.purpose).held.inc();
        session.desk.drive(|routes, now| routes.wait(now, &session.cluster.name));
        Waiting { session }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Session { desk, cluster, purpose } = self.session;
        cluster.metrics.port(*purpose).held.dec();
        desk.drive(|routes, _| {
            routes.stop_waiting(&cluster.name);
            Vec::new()
        });
    }
}

async fn dial(address: &Endpoint) -> io::Result<TcpStream> {
    TcpStream::connect((address.host.as_str(), address.port)).await
}

/// Returns when the client has closed; never when it speaks first, which no client should.
async fn gone(client: &TcpStream) {
    if matches!(client.peek(&mut [0]).await, Ok(1..)) {
        std::future::pending::<()>().await;
    }
}

/// Small packets leave at once, and a peer that vanished is noticed within a minute.
fn tune(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    // A socket that cannot be tuned is closing; its next use says so.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}
