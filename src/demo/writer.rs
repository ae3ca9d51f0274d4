//! A shop that writes through the proxy, remembers what was acknowledged and measures its outages.

mod acknowledged;
mod tally;

pub use acknowledged::Acknowledged;
pub use tally::Gap;

use super::servers::accounts::SHOP;
use super::servers::{ServerError, connect};
use crate::clock::{Clock, Now};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tally::Tally;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Clients that write one row per transaction until stopped; dropping it stops them too.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    stop: CancellationToken,
    clients: JoinSet<()>,
}

/// How a writer behaves.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// How many connections write at the same time.
    pub clients: u32,
    /// How long each client rests after an acknowledgement.
    pub pause: Duration,
    /// How long a connection may take before it is tried anew.
    pub connect_limit: Duration,
    /// How long a commit may take before its connection is given up; its outcome is then unknown.
    pub commit_limit: Duration,
    /// Numbers the clients from here, so that several writers can share the table.
    pub first_client: u32,
}

/// All that a writer saw from start to stop.
#[derive(Clone, Debug)]
pub struct WriterReport {
    /// The acknowledged rows of each client.
    pub acknowledged: BTreeMap<u32, Acknowledged>,
    /// The longest time without an acknowledgement since the last mark.
    pub longest_gap: Gap,
    /// How often each kind of error was seen.
    pub errors: BTreeMap<String, u64>,
    /// The time within which half of all commits were acknowledged.
    pub commit_median: Duration,
    /// The time within which 99 of 100 commits were acknowledged.
    pub commit_p99: Duration,
}

/// What a server holds, compared with what was acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Acknowledged rows the server lacks, as client and sequence; the first thousand.
    pub missing: Vec<(u32, u64)>,
    /// Rows the server holds although their outcome was never reported: allowed, but counted.
    pub unacknowledged: u64,
    /// Rows the server holds in all.
    pub present: u64,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    options: WriterOptions,
    at: SocketAddr,
    tally: Mutex<Tally>,
}

impl Default for WriterOptions {
    fn default() -> WriterOptions {
        WriterOptions {
            clients: 4,
            pause: Duration::from_millis(5),
            connect_limit: Duration::from_secs(3),
            commit_limit: Duration::from_secs(5),
            first_client: 1,
        }
    }
}

impl Writer {
    /// Starts writing to `shop.orders` through this address.
    pub fn start(at: SocketAddr, options: WriterOptions) -> Writer {
        let clock = Clock::start();
        let clients = usize::try_from(options.clients).unwrap_or(usize::MAX);
        let tally = Mutex::new(Tally::new(clients, clock.now()));
        let shared = Arc::new(Shared { clock, options, at, tally });
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        for client in 0..clients {
            let (shared, stop) = (Arc::clone(&shared), stop.clone());
            running.spawn(async move {
                let _ = stop.run_until_cancelled(write_for_ever(&shared, client)).await;
            });
        }
        Writer { shared, stop, clients: running }
    }

    /// How many rows were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.tally().total()
    }

    /// Starts a new measurement of the longest gap.
    pub fn mark(&self) {
        let now = self.shared.clock.now();
        self.shared.tally().mark(now);
    }

    /// The longest time without any acknowledgement since the start or the last mark, an open one included.
    pub fn longest_gap(&self) -> Gap {
        let now = self.shared.clock.now();
        self.shared.tally().longest_gap(now)
    }

    /// How many errors of any kind the clients saw so far.
    pub fn errors(&self) -> u64 {
        self.shared.tally().errors.values().sum()
    }

    /// Ends all clients, without waiting for what they have under way, and reports.
    pub async fn stop(mut self) -> WriterReport {
        let ended = self.shared.clock.now();
        self.stop.cancel();
        while self.clients.join_next().await.is_some() {}
        self.shared.report(ended)
    }
}

impl WriterReport {
    /// How many rows were acknowledged.
    pub fn count(&self) -> u64 {
        self.acknowledged.values().map(Acknowledged::count).sum()
    }

    /// Reads what the server there holds and compares; run it when the server has caught up.
    pub async fn compare(&self, server: SocketAddr) -> Result<Comparison, ServerError> {
        let mut connection = connect(server, SHOP, Some("shop"), READ_LIMIT).await?;
        let mut result = Comparison::default();
        for (client, acknowledged) in &self.acknowledged {
            let present = present_rows(&mut connection, server, *client).await?;
            let room = LISTED.saturating_sub(result.missing.len());
            let missing = acknowledged.missing_from(&present, room);
            // Counted apart: the list of the missing is bounded, these counts must not be.
            let confirmed = present.count() - count_missing(&present, acknowledged);
            result.unacknowledged += present.count() - confirmed;
            result.present += present.count();
            result.missing.extend(missing.into_iter().map(|sequence| (*client, sequence)));
        }
        connection.disconnect().await?;
        Ok(result)
    }

    /// The acknowledged rows that the server there lacks; none must be, under `lossless`.
    pub async fn missing_rows(&self, server: SocketAddr) -> Result<Vec<(u32, u64)>, ServerError> {
        Ok(self.compare(server).await?.missing)
    }
}

const LISTED: usize = 1000;
const READ_LIMIT: Duration = Duration::from_secs(10);
const ROWS_PER_READ: usize = 10_000;

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        // Counts stay usable when a client panicked while it held them.
        self.tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn report(&self, ended: Now) -> WriterReport {
        let tally = self.tally();
        WriterReport {
            acknowledged: (self.options.first_client..)
                .zip(tally.acknowledged.iter().cloned())
                .collect(),
            longest_gap: tally.longest_gap(ended),
            errors: tally.errors.clone(),
            commit_median: tally.commit_time(0.5),
            commit_p99: tally.commit_time(0.99),
        }
    }
}

async fn write_for_ever(shared: &Shared, client: usize) {
    let mut sequence = 0;
    loop {
        let limit = shared.options.connect_limit;
        match connect(shared.at, SHOP, Some("shop"), limit).await {
            Ok(connection) => {
                let error = write_on(shared, client, &mut sequence, connection).await;
                shared.tally().error(kind(&error));
            }
            Err(error) => shared.tally().error(format!("connect: {}", kind(&error))),
        }
        // Back at once, but never as a storm: a refusal comes back in microseconds.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Writes until something fails, and says what. The number in flight is never used again.
async fn write_on(
    shared: &Shared,
    client: usize,
    sequence: &mut u64,
    mut connection: Conn,
) -> ServerError {
    let name = u64::from(shared.options.first_client) + client as u64;
    let limit = shared.options.commit_limit;
    loop {
        *sequence += 1;
        let sent = shared.clock.now().moment;
        let insert = format!("INSERT INTO orders (client, sequence) VALUES ({name}, {sequence})");
        match tokio::time::timeout(limit, connection.query_drop(insert)).await {
            Ok(Ok(())) => {
                let now = shared.clock.now();
                shared.tally().acknowledge(client, *sequence, sent, now);
            }
            Ok(Err(error)) => return error.into(),
            Err(_) => {
                return ServerError::Silent { at: shared.at, limit };
            }
        }
        tokio::time::sleep(shared.options.pause).await;
    }
}

async fn present_rows(
    connection: &mut Conn,
    at: SocketAddr,
    client: u32,
) -> Result<Acknowledged, ServerError> {
    let mut present = Acknowledged::default();
    let mut after = 0;
    loop {
        let query = format!(
            "SELECT sequence FROM orders WHERE client = {client} AND sequence > {after} \
             ORDER BY sequence LIMIT {ROWS_PER_READ}"
        );
        let rows: Vec<u64> = tokio::time::timeout(READ_LIMIT, connection.query(query))
            .await
            .map_err(|_| ServerError::Silent { at, limit: READ_LIMIT })??;
        for sequence in &rows {
            present.push(*sequence);
        }
        match rows.last() {
            Some(last) if rows.len() == ROWS_PER_READ => after = *last,
            _ => return Ok(present),
        }
    }
}

/// How many numbers of `all` are not in `known`.
fn count_missing(all: &Acknowledged, known: &Acknowledged) -> u64 {
    all.missing_from(known, usize::MAX).len() as u64
}

fn kind(error: &ServerError) -> String {
    match error {
        ServerError::Silent { .. } => "no answer in time".to_owned(),
        ServerError::Database(mysql_async::Error::Server(refusal)) => {
            format!("error {} ({})", refusal.code, refusal.state)
        }
        ServerError::Database(mysql_async::Error::Io(_)) => "connection lost".to_owned(),
        _ => "other".to_owned(),
    }
}
