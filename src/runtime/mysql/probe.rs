//! Looking at one server, again and again, over one connection.

use super::connect::{self, Attempt, ConnectError};
use super::dialect::Dialect;
use super::distance::Distance;
use super::status::{self, Background, StatusError};
use crate::clock::Clock;
use crate::config::Account;
use crate::decision::report::{Sight, Status, Trouble};
use crate::decision::topology::{Endpoint, ServerSpec, Timing};
use mysql_async::Conn;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A handshake that a hung server leaves open is awaited over so many probes, and so is the first look,
/// which takes seven round trips at the most, longer than a probe may take over a line of 80 ms.
///
/// A new connection for each probe would fill the server's queue of connections not yet accepted
/// within seconds, after which a hung server looks like an unreachable host; and each one that
/// was given up counts against this host when the server wakes.
const PROBES_PER_HANDSHAKE: u32 = 20;

/// Missing plugins are looked for again after so many probes.
const PROBES_PER_LEARNING: u32 = 5;

/// What seldom changes is asked for again after so many probes.
const PROBES_PER_BACKGROUND: u32 = 25;

/// After so many bare connections beside a lasting one it logs in for once: servers lock out a host that
/// comes a hundred times and leaves without a word, until somebody from there logs in.
const KNOCKS_PER_LOGIN: u32 = 20;

/// How long such a login may take.
const LOGIN_LIMIT: Duration = Duration::from_secs(5);

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
    /// Bare connections since the last login.
    knocks: u32,
    distance: Distance,
    clock: Clock,
}

enum Link {
    Down,
    /// The first look was begun and has not ended.
    Beginning(Beginning),
    Up(Box<Session>),
}

/// A connection being made, and the first look over it.
struct Beginning {
    look: Attempt<(Box<Session>, Status)>,
    /// Whether the server let it in.
    let_in: Arc<AtomicBool>,
    probes: u32,
    /// What is seen as long as it does not end.
    meanwhile: Sight,
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
            knocks: 0,
            distance: Distance::default(),
            clock: Clock::start(),
        }
    }

    /// Tells others, by this, how far away the server is.
    #[must_use]
    pub fn measuring(self, distance: Distance) -> Prober {
        Prober { distance, ..self }
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
        self.log_in_at_times();
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
        let begun = self.clock.now().moment;
        match std::mem::replace(&mut self.link, Link::Down) {
            Link::Up(mut session) => match self.ask(&mut session, limit).await {
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
            },
            Link::Beginning(beginning) if beginning.probes < PROBES_PER_HANDSHAKE => {
                let patience = connect::patience(limit, &self.distance).min(limit);
                return self.go_on(beginning, patience, limit - patience).await;
            }
            Link::Beginning(_) | Link::Down => {}
        }
        let left = limit.saturating_sub(self.clock.now().moment.since(begun));
        match self.begin(left).await {
            // It answered at once, so most of the limit is left.
            Err(ConnectError::TooManyConnections) => {
                let left = limit.saturating_sub(self.clock.now().moment.since(begun));
                self.look_in(left).await
            }
            Err(error) => sight_of(error),
            Ok(sight) => sight,
        }
    }

    async fn begin(&mut self, limit: Duration) -> Result<Sight, ConnectError> {
        match connect::resolve(&self.address, limit / 4).await {
            Ok(ips) => self.ips = ips,
            Err(error) if self.ips.is_empty() => return Err(error),
            Err(_) => {}
        }
        let (address, ips) = (self.address.clone(), self.ips.clone());
        self.first_look(&address, &ips, Sight::Hung, limit).await
    }

    /// Looks in where administrators are let in, for a server that is full is not dead.
    async fn look_in(&mut self, limit: Duration) -> Sight {
        let full = sight_of(ConnectError::TooManyConnections);
        let Some(door) = self.admin_address.clone().or_else(|| self.background.side_door.clone())
        else {
            return full;
        };
        let Ok(ips) = connect::resolve(&door, limit / 4).await else {
            return full;
        };
        self.first_look(&door, &ips, full.clone(), limit).await.unwrap_or(full)
    }

    /// Connects and looks; what takes longer goes on with the next probe.
    async fn first_look(
        &mut self,
        address: &Endpoint,
        ips: &[IpAddr],
        meanwhile: Sight,
        limit: Duration,
    ) -> Result<Sight, ConnectError> {
        let connecting = connect::begin(address, ips, &self.account);
        let mut beginning = self.beginning(connecting, meanwhile);
        let patience = connect::patience(limit, &self.distance).min(limit);
        let look = &mut beginning.look;
        match connect::finish(look, address, ips, patience, &self.distance).await {
            Ok(first) => Ok(self.seen(first)),
            Err(ConnectError::Hung) => {
                Ok(self.go_on(beginning, Duration::ZERO, limit - patience).await)
            }
            Err(error) => Err(error),
        }
    }

    fn beginning(&self, connecting: Attempt<Conn>, meanwhile: Sight) -> Beginning {
        let let_in = Arc::new(AtomicBool::new(false));
        let entered = Arc::clone(&let_in);
        let (clock, distance) = (self.clock, self.distance.clone());
        let look = Box::pin(async move {
            let mut conn = connecting.await?;
            entered.store(true, Ordering::Relaxed);
            let dialect = status::learn(&mut conn).await?;
            let asked = clock.now().moment;
            let status = status::read(&mut conn, &dialect).await?;
            distance.note(clock.now().moment.since(asked));
            Ok((Box::new(Session { conn, dialect, probes: 0 }), status))
        });
        Beginning { look, let_in, probes: 0, meanwhile }
    }

    /// Waits for a look that an earlier probe began: first for the server to let it in, then for its
    /// answers.
    async fn go_on(&mut self, mut from: Beginning, patience: Duration, rest: Duration) -> Sight {
        from.probes += 1;
        let waiting = async {
            match tokio::time::timeout(patience, &mut from.look).await {
                Err(_) if from.let_in.load(Ordering::Relaxed) => {
                    tokio::time::timeout(rest, &mut from.look).await
                }
                ended => ended,
            }
        };
        match waiting.await {
            Ok(Ok(first)) => self.seen(first),
            Ok(Err(error)) if from.meanwhile == Sight::Hung => sight_of(error),
            Ok(Err(_)) => from.meanwhile,
            Err(_) => {
                let meanwhile = from.meanwhile.clone();
                self.link = Link::Beginning(from);
                meanwhile
            }
        }
    }

    fn seen(&mut self, (session, status): (Box<Session>, Status)) -> Sight {
        self.link = Link::Up(session);
        seen_against(Sight::Alive(Box::new(status)), &self.background)
    }

    /// Asks over the lasting connection. When most of the limit has passed, a bare TCP connection
    /// is tried beside it, which tells a hung server from an unreachable one.
    async fn ask(
        &mut self,
        session: &mut Session,
        limit: Duration,
    ) -> Result<Result<Sight, mysql_async::Error>, ConnectError> {
        session.probes = session.probes.wrapping_add(1);
        let (address, background) = (&self.address, &mut self.background);
        let (clock, distance) = (self.clock, &self.distance);
        let reading = async {
            // Apart from what is learned again, for each of the two takes a round trip of its own.
            if session.probes % PROBES_PER_BACKGROUND == 1 {
                *background =
                    status::background(&mut session.conn, &session.dialect, address).await;
            }
            session.learn_in_turn().await?;
            let asked = clock.now().moment;
            let sight = session.read().await?;
            distance.note(clock.now().moment.since(asked));
            Ok(seen_against(sight, background))
        };
        tokio::pin!(reading);
        let least = self.distance.round_trip().unwrap_or_default() * 3 / 2;
        let rest = (limit / 4).max(least).min(limit / 2);
        if let Ok(read) = tokio::time::timeout(limit - rest, &mut reading).await {
            return Ok(read);
        }
        self.knocks += 1;
        let knocking = connect::knock(&self.address, &self.ips, rest / 10 * 9);
        let (read, verdict) = tokio::join!(tokio::time::timeout(rest, reading), knocking);
        read.map_err(|_| verdict)
    }

    /// See [`KNOCKS_PER_LOGIN`].
    fn log_in_at_times(&mut self) {
        if self.knocks < KNOCKS_PER_LOGIN {
            return;
        }
        self.knocks = 0;
        let connecting = connect::begin(&self.address, &self.ips, &self.account);
        tokio::spawn(tokio::time::timeout(LOGIN_LIMIT, async {
            if let Ok(conn) = connecting.await {
                // To have been let in is all it was for.
                let _ = conn.disconnect().await;
            }
        }));
    }
}

impl Session {
    /// Learns anew from time to time, for plugins may be added and servers updated.
    async fn learn_in_turn(&mut self) -> Result<(), mysql_async::Error> {
        let incomplete =
            self.dialect.semi_sync_source.is_none() || self.dialect.semi_sync_replica.is_none();
        // This question needs room for a temporary table, which a status does not.
        let pace = if incomplete { PROBES_PER_LEARNING } else { PROBES_PER_BACKGROUND };
        match self.probes.is_multiple_of(pace) {
            true => self.learn().await,
            false => Ok(()),
        }
    }

    async fn read(&mut self) -> Result<Sight, mysql_async::Error> {
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

impl From<StatusError> for ConnectError {
    fn from(error: StatusError) -> ConnectError {
        match error {
            StatusError::Database(error) => connect::classify(&error),
            StatusError::Strange(what) => ConnectError::Strange(what),
        }
    }
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
