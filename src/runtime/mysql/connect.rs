//! Connecting to one server within a limit, and telling apart why that failed.
//!
//! Only error numbers and kinds of IO errors are read, never error text.

use super::distance::Distance;
use crate::config::Account;
use crate::decision::topology::Endpoint;
use futures_util::future::BoxFuture;
use mysql_async::{Conn, DriverError, Error, IoError, Opts, OptsBuilder};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;

/// The largest answer taken from a server; a GTID set of tens of thousands of intervals fits.
const MAX_PACKET: usize = 4 << 20;

/// The largest packet there is.
const LARGEST_PACKET: usize = 1 << 30;

/// The session's idle limit, in seconds, after which the server may close it.
const IDLE_SECONDS: usize = 600;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens there, or the server closed the connection during the handshake.
    #[error("connection refused")]
    Refused,
    /// Nothing came back from the host within the limit, or no route leads there.
    #[error("no answer from its host")]
    Unreachable,
    /// The host took the TCP connection, and the server did not finish the handshake in time.
    #[error("accepts connections but does not answer")]
    Hung,
    /// No connection slot is free, in all or for this account.
    #[error("too many connections")]
    TooManyConnections,
    /// Its storage has no room left for what it needs to answer.
    #[error("its storage has no room left")]
    NoRoom,
    /// The account or its host is not let in.
    #[error("account refused, error {0}")]
    Denied(u16),
    /// The server is starting, stopping or recovering.
    #[error("starting, stopping or recovering")]
    NotReady,
    /// Something else, in words.
    #[error("{0}")]
    Strange(String),
}

/// A connection being made, with what is asked on it at once; it may be awaited again after a limit
/// has passed.
pub(super) type Attempt<T> = BoxFuture<'static, Result<T, ConnectError>>;

/// Round trips that a handshake takes at the most: the connection itself, the greeting, and up to three
/// for the password.
const HANDSHAKE: u32 = 8;

/// Connects as `account` within `limit`, and a handshake's round trips as far as they are known; name
/// resolution may take half of the limit beside.
pub async fn connect(
    address: &Endpoint,
    account: &Account,
    limit: Duration,
    distance: &Distance,
) -> Result<Conn, ConnectError> {
    let ips = resolve(address, limit / 2).await?;
    let shaking = handshake(options(address, &ips, account));
    finish_within(shaking, address, &ips, (limit, distance)).await
}

/// As [`connect`], taking packets of any size: an event of a binary log holds whole rows.
pub(in crate::runtime) async fn connect_for_bulk(
    address: &Endpoint,
    account: &Account,
    limit: Duration,
) -> Result<Conn, ConnectError> {
    let ips = resolve(address, limit / 2).await?;
    let options = OptsBuilder::from_opts(options(address, &ips, account));
    let shaking = handshake(options.max_allowed_packet(Some(LARGEST_PACKET)).into());
    finish_within(shaking, address, &ips, (limit, &Distance::default())).await
}

async fn finish_within(
    mut shaking: Attempt<Conn>,
    address: &Endpoint,
    ips: &[IpAddr],
    (limit, distance): (Duration, &Distance),
) -> Result<Conn, ConnectError> {
    let limit = patience(limit, distance);
    finish(&mut shaking, address, ips, limit, distance).await
}

/// How much of a limit a server that lives needs to finish a handshake, all of it where nothing is
/// known of the line; over a long one it may be more than the limit.
pub(super) fn patience(limit: Duration, distance: &Distance) -> Duration {
    distance.round_trip().map_or(limit, |one| limit / 2 + one * HANDSHAKE)
}

/// Starts to connect as `account`; nothing happens before it is polled.
pub(super) fn begin(address: &Endpoint, ips: &[IpAddr], account: &Account) -> Attempt<Conn> {
    handshake(options(address, ips, account))
}

fn handshake(options: Opts) -> Attempt<Conn> {
    Box::pin(async move { Conn::new(options).await.map_err(|error| classify(&error)) })
}

/// Waits for an attempt to end.
///
/// When half of the limit has passed, a bare TCP connection is tried beside it: where that is
/// accepted, the host lives and its server is the one that does not answer.
pub(super) async fn finish<T>(
    attempt: &mut Attempt<T>,
    address: &Endpoint,
    ips: &[IpAddr],
    limit: Duration,
    distance: &Distance,
) -> Result<T, ConnectError> {
    if let Ok(ended) = tokio::time::timeout(limit / 2, &mut *attempt).await {
        return ended;
    }
    let knocking = knock(address, ips, knocking(limit / 2, distance));
    let mut lives = false;
    let both = async {
        tokio::select! {
            biased;
            ended = &mut *attempt => return ended,
            verdict = knocking => match verdict {
                ConnectError::Hung => lives = true,
                verdict => return Err(verdict),
            }
        }
        // The rest of the limit is the server's to answer in.
        attempt.await
    };
    let ended = tokio::time::timeout(limit / 2, both).await;
    let silent = if lives { ConnectError::Hung } else { ConnectError::Unreachable };
    ended.unwrap_or(Err(silent))
}

/// For how much of the time left a host may leave a bare TCP connection open: half of it, and all when
/// it is too far away for that, or perhaps too far.
pub(super) fn knocking(left: Duration, distance: &Distance) -> Duration {
    distance.round_trip().map_or(left, |one| (left / 2).max(one * 2).min(left))
}

/// What a silent server's host says to a bare TCP connection.
pub(super) async fn knock(address: &Endpoint, ips: &[IpAddr], limit: Duration) -> ConnectError {
    let places: Vec<SocketAddr> = ips.iter().map(|ip| SocketAddr::new(*ip, address.port)).collect();
    match tokio::time::timeout(limit, TcpStream::connect(places.as_slice())).await {
        Ok(Ok(_)) => ConnectError::Hung,
        Ok(Err(error)) => classify_io(error.kind()),
        Err(_) => ConnectError::Unreachable,
    }
}

/// The addresses of a host, at once when it is an address itself.
///
/// A name that does not resolve says nothing about the server, so it is [`ConnectError::Strange`].
pub(super) async fn resolve(
    address: &Endpoint,
    limit: Duration,
) -> Result<Vec<IpAddr>, ConnectError> {
    if let Ok(ip) = address.host.parse::<IpAddr>() {
        return Ok(vec![ip]);
    }
    let looking = tokio::net::lookup_host((address.host.as_str(), address.port));
    match tokio::time::timeout(limit, looking).await {
        Ok(Ok(found)) => Ok(found.take(8).map(|place| place.ip()).collect()),
        Ok(Err(_)) => Err(ConnectError::Strange("its host name does not resolve".to_owned())),
        Err(_) => Err(ConnectError::Strange("its host name did not resolve in time".to_owned())),
    }
}

/// What an error while connecting or asking says about the server.
pub(super) fn classify(error: &Error) -> ConnectError {
    match error {
        Error::Server(server) => classify_code(server.code),
        Error::Io(IoError::Io(io)) => classify_io(io.kind()),
        Error::Driver(DriverError::ConnectionClosed) => ConnectError::Refused,
        Error::Io(IoError::Tls(_)) => ConnectError::Strange("TLS failed".to_owned()),
        other => ConnectError::Strange(cut(&other.to_string())),
    }
}

fn classify_code(code: u16) -> ConnectError {
    match code {
        // All slots; this account's slots; this account's resources.
        1040 | 1203 | 1226 => ConnectError::TooManyConnections,
        // Disk full, twice; a temporary table cannot grow.
        20 | 1021 | 1114 => ConnectError::NoRoom,
        // Host not privileged or blocked, password, database, plugin, expired, locked.
        1044 | 1045 | 1129 | 1130 | 1227 | 1251 | 1524 | 1698 | 1820 | 1862 | 3118 | 3878
        | 3955 | 4151 => ConnectError::Denied(code),
        // Shutting down; ending; offline mode; recovering.
        1053 | 1077 | 1079 | 3032 | 3168 | 3169 => ConnectError::NotReady,
        code => ConnectError::Strange(format!("error {code}")),
    }
}

fn classify_io(kind: ErrorKind) -> ConnectError {
    match kind {
        ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::NotConnected
        | ErrorKind::UnexpectedEof => ConnectError::Refused,
        ErrorKind::TimedOut
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown => ConnectError::Unreachable,
        kind => ConnectError::Strange(format!("{kind}")),
    }
}

fn options(address: &Endpoint, ips: &[IpAddr], account: &Account) -> Opts {
    OptsBuilder::default()
        .ip_or_hostname(address.host.clone())
        .tcp_port(address.port)
        .resolved_ips(Some(ips.to_vec()))
        .user(Some(account.user.clone()))
        .pass(Some(account.password.reveal().to_owned()))
        // A server on this machine must be tested by the way applications take.
        .prefer_socket(false)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(10)))
        // Given here, these two spare the driver one more question at each connection.
        .max_allowed_packet(Some(MAX_PACKET))
        .wait_timeout(Some(IDLE_SECONDS))
        .stmt_cache_size(0)
        .into()
}

/// The first 200 characters.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_numbers_tell_causes_apart() {
        assert_eq!(classify_code(1040), ConnectError::TooManyConnections);
        assert_eq!(classify_code(1045), ConnectError::Denied(1045));
        assert_eq!(classify_code(1130), ConnectError::Denied(1130));
        assert_eq!(classify_code(1053), ConnectError::NotReady);
        assert!(matches!(classify_code(9999), ConnectError::Strange(_)));
        assert_eq!(classify_io(ErrorKind::ConnectionReset), ConnectError::Refused);
        assert_eq!(classify_io(ErrorKind::HostUnreachable), ConnectError::Unreachable);
    }
}
