//! Looking at one server, again and again, over one connection.

use super::connect::{self, ConnectError, Handshake};
use super::dialect::Dialect;
use super::status::{self, Background, StatusError};
use crate::config::Account;
use crate::decision::report::{Sight, Trouble};
use crate::decision::topology::{Endpoint, ServerSpec, Timing};
use mysql_async::Conn;
use std::net::IpAddr;
use std::time::Duration;

/// A handshake that a hung server leaves open is awaited over so many probes.
///
/// A new connection for each probe would fill the server's queue of connections not yet accepted
/// within seconds, after which a hung server looks like an unreachable host; and each one that
/// was given up counts against this host when the server wakes.
const PROBES_PER_HANDSHAKE: u32 = 20;

/// Missing plugins are looked for again after so many probes.
const PROBES_PER_LEARNING: u32 = 5;

/// What seldom changes is asked for again after so many probes.
const PROBES_PER_BACKGROUND: u32 = 25;

/// Unknown system variable: a plugin was removed.
const UNKNOWN_VARIABLE: u16 = 1193;

/// Probes one server over a connection that lasts.
pub struct Prober {
    address: Endpoint,
    /// Where administrators are let in, as declared.
    admin_address: Option<Endpoint>,
    account: Account,
    timing: Timing,
    background: Background,
    /// Where the name led when it was last resolved; kept for when names fail to resolve.
    ips: Vec<IpAddr>,
    link: Link,
}

enum Link {
    Down,
    /// The server took the connection and has not finished the handshake.
    Shaking {
        handshake: Handshake,
        probes: u32,
    },
    Up(Box<Session>),
}

struct Session {
    conn: Conn,
    dialect: Dialect,
    probes: u32,
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prober({})", self.address)
    }
}

impl Prober {
    /// Will look at the server as `account`; connects at the first probe.
    pub fn new(server: &ServerSpec, account: Account, timing: Timing) -> Prober {
        Prober {
            address: server.address.clone(),
            admin_address: server.admin_address.clone(),
            account,
            timing,
            background: Background::default(),
            ips: Vec::new(),
            link: Link::Down,
        }
    }

    /// Looks once; ends within the probe's time limit.
    ///
    /// A connection that turns out closed is made anew within the same probe. After a time-out it
    /// is dropped, whatever held the answer up: a server that is stopping its replication at the
    /// moment does not tell its status either, and counts as hung for so long.
    pub async fn probe(&mut self) -> Sight {
        let limit = self.timing.probe_timeout;
        // Every stage has limits of its own; this one only guards their sum.
        let looking = tokio::time::timeout(limit, self.look(limit)).await;
        match looking {
            Ok(sight) => sight,
            Err(_) => {
                self.link = Link::Down;
                Sight::Hung
            }
        }
    }

    async fn look(&mut self, limit: Duration) -> Sight {
        // A tenth stays for what the stages themselves cost.
        let limit = limit / 10 * 9;
        if let Link::Up(mut session) = std::mem::replace(&mut self.link, Link::Down) {
            match self.ask(&mut session, limit).await {
                Ok(Ok(sight)) => {
                    self.link = Link::Up(session);
                    return sight;
                }
                Ok(Err(error)) if connect::classify(&error) != ConnectError::Refused => {
                    return sight_of(connect::classify(&error));
                }
                // Closed: look again at once, over a new connection.
                Ok(Err(_)) => {}
                // Silence may be the host's or the network's, not the server's.
                Err(verdict) => return sight_of(verdict),
            }
        }
        match self.connect(limit / 2).await {
            // Over a slow line the handshake was finished by an earlier probe, so most of the limit is left.
            Ok(conn) => self.first_look(conn, limit).await,
            // It answered at once, so most of the limit is left.
            Err(ConnectError::TooManyConnections) => self.look_in(limit / 2).await,
            Err(error) => sight_of(error),
        }
    }

    /// Looks in where administrators are let in, for a server that is full is not dead.
    async fn look_in(&mut self, limit: Duration) -> Sight {
        let full = sight_of(ConnectError::TooManyConnections);
        let Some(door) = self.admin_address.clone().or_else(|| self.background.side_door.clone())
        else {
            return full;
        };
        match connect::connect(&door, &self.account, limit / 2).await {
            // Over a slow line the handshake was finished by an earlier probe, so most of the limit is left.
            Ok(conn) => self.first_look(conn, limit).await,
            Err(_) => full,
        }
    }

    /// Asks over the lasting connection. When most of the limit has passed, a bare TCP connection
    /// is tried beside it, which tells a hung server from an unreachable one.
    async fn ask(
        &mut self,
        session: &mut Session,
        limit: Duration,
    ) -> Result<Result<Sight, mysql_async::Error>, ConnectError> {
        let again = session.probes.is_multiple_of(PROBES_PER_BACKGROUND);
        let (address, background) = (&self.address, &mut self.background);
        let reading = async {
            if again {
                // This question needs room for a temporary table, which a status does not.
                session.learn().await?;
                *background =
                    status::background(&mut session.conn, &session.dialect, address).await;
            }
            session.read().await.map(|sight| seen_against(sight, background))
        };
        tokio::pin!(reading);
        if let Ok(read) = tokio::time::timeout(limit / 4 * 3, &mut reading).await {
            return Ok(read);
        }
        let rest = limit / 4;
        let knocking = connect::knock(&self.address, &self.ips, rest / 10 * 9);
        let (read, verdict) = tokio::join!(tokio::time::timeout(rest, reading), knocking);
        read.map_err(|_| verdict)
    }

    async fn connect(&mut self, limit: Duration) -> Result<Conn, ConnectError> {
        let (mut handshake, probes) = match std::mem::replace(&mut self.link, Link::Down) {
            Link::Shaking { handshake, probes } if probes < PROBES_PER_HANDSHAKE => {
                return self.go_on(handshake, probes, limit).await;
            }
            _ => {
                match connect::resolve(&self.address, limit / 2).await {
                    Ok(ips) => self.ips = ips,
                    Err(error) if self.ips.is_empty() => return Err(error),
                    Err(_) => {}
                }
                (connect::handshake(&self.address, &self.ips, &self.account), 0)
            }
        };
        let ended = connect::finish(&mut handshake, &self.address, &self.ips, limit).await;
        if ended.as_ref().err() == Some(&ConnectError::Hung) {
            self.link = Link::Shaking { handshake, probes };
        }
        ended
    }

    async fn go_on(
        &mut self,
        mut handshake: Handshake,
        probes: u32,
        limit: Duration,
    ) -> Result<Conn, ConnectError> {
        match tokio::time::timeout(limit, &mut handshake).await {
            Ok(ended) => ended.map_err(|error| connect::classify(&error)),
            Err(_) => {
                self.link = Link::Shaking { handshake, probes: probes + 1 };
                Err(ConnectError::Hung)
            }
        }
    }

    async fn first_look(&mut self, mut conn: Conn, limit: Duration) -> Sight {
        let looking = async {
            let dialect = status::learn(&mut conn).await?;
            status::read(&mut conn, &dialect).await.map(|status| (dialect, status))
        };
        match tokio::time::timeout(limit, looking).await {
            Ok(Ok((dialect, status))) => {
                self.link = Link::Up(Box::new(Session { conn, dialect, probes: 0 }));
                seen_against(Sight::Alive(Box::new(status)), &self.background)
            }
            Ok(Err(StatusError::Database(error))) => sight_of(connect::classify(&error)),
            Ok(Err(StatusError::Strange(what))) => Sight::Strange(what),
            Err(_) => Sight::Hung,
        }
    }
}

impl Session {
    async fn read(&mut self) -> Result<Sight, mysql_async::Error> {
        let incomplete =
            self.dialect.semi_sync_source.is_none() || self.dialect.semi_sync_replica.is_none();
        self.probes = self.probes.wrapping_add(1);
        if incomplete && self.probes.is_multiple_of(PROBES_PER_LEARNING) {
            self.learn().await?;
        }
        let read = match status::read(&mut self.conn, &self.dialect).await {
            Err(StatusError::Database(mysql_async::Error::Server(error)))
                if error.code == UNKNOWN_VARIABLE =>
            {
                self.learn().await?;
                status::read(&mut self.conn, &self.dialect).await
            }
            read => read,
        };
        match read {
            Ok(status) => Ok(Sight::Alive(Box::new(status))),
            Err(StatusError::Database(error)) => Err(error),
            Err(StatusError::Strange(what)) => Ok(Sight::Strange(what)),
        }
    }

    async fn learn(&mut self) -> Result<(), mysql_async::Error> {
        match status::learn(&mut self.conn).await {
            Ok(dialect) => {
                self.dialect = dialect;
                Ok(())
            }
            Err(StatusError::Database(error)) => Err(error),
            // The words known so far still hold.
            Err(StatusError::Strange(_)) => Ok(()),
        }
    }
}

/// A status with what is asked for less often.
fn seen_against(mut sight: Sight, background: &Background) -> Sight {
    if let Sight::Alive(status) = &mut sight {
        status.settings.restarts_open = background.restarts_open;
    }
    sight
}

fn sight_of(error: ConnectError) -> Sight {
    match error {
        ConnectError::Refused => Sight::Refused,
        ConnectError::Unreachable => Sight::Unreachable,
        ConnectError::Hung => Sight::Hung,
        ConnectError::TooManyConnections => Sight::Useless(Trouble::TooManyConnections),
        ConnectError::NoRoom => Sight::Useless(Trouble::NoRoom),
        ConnectError::NotReady => Sight::Useless(Trouble::NotReady),
        ConnectError::Denied(_) => Sight::Denied,
        ConnectError::Strange(what) => Sight::Strange(what),
    }
}
