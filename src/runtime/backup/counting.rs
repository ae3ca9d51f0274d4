//! Counting what tables hold: at the very moment of a dump, and on a server restored from it.
//!
//! The dump program takes its snapshot under a short lock. The same lock is held beside it, by a session
//! that has a snapshot of its own, from before the program begins until its first output, which comes
//! after its snapshot: nothing can change in between. The position is asked for in that session too, and
//! must be the one that the dump names. Where any of this fails there are no counts, and the
//! backup goes on without them: nobody waits for a lock long.

use super::BackupError;
use super::taking::CONNECT_LIMIT;
use super::turn::Turn;
use crate::config::Account;
use crate::decision::backup::counts::{Counts, LeftOut, MOST_TABLES, Place, Sum};
use crate::decision::gtid::Gtids;
use crate::decision::topology::{Endpoint, Flavor};
use crate::runtime::mysql::connect::connect;
use crate::runtime::mysql::distance::Distance;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The lock is held for so long at the most, whatever the dump program does.
const HOLD: Duration = Duration::from_secs(10);
/// The server waits for the lock so long, in seconds; writes wait behind it.
const LOCK_SECONDS: u32 = 3;
/// Counting may take so much longer than the dump, even where the dump was quick.
pub(super) const LEAST_EXTRA: Duration = Duration::from_secs(60);

/// Engines of tables that a dump has no rows of, or that have none.
const NOTHING_OWN: &str = "'MRG_MYISAM', 'MRG_MyISAM', 'FEDERATED', 'BLACKHOLE'";

/// A server to count on, and what to count there.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    pub address: Endpoint,
    pub account: Account,
    pub flavor: Flavor,
    pub schemas: Vec<String>,
}

/// A snapshot, and the lock under which it was taken.
#[derive(Debug)]
pub(super) struct Held {
    ground: Ground,
    released: oneshot::Sender<()>,
    holding: JoinHandle<Result<Snapshot, String>>,
}

/// A session that sees one moment.
#[derive(Debug)]
struct Snapshot {
    conn: Conn,
    position: Gtids,
}

/// Counting under way.
#[derive(Debug)]
pub(super) struct Counting {
    ground: Ground,
    position: Gtids,
    session: u32,
    tally: Arc<Mutex<Tally>>,
    work: JoinHandle<Result<(), String>>,
}

/// When a session that counts is to stand still, and how it is made to.
#[derive(Debug)]
struct Pauses {
    ground: Ground,
    session: u32,
    turn: Turn,
}

/// What was counted so far.
#[derive(Debug, Default)]
struct Tally {
    tables: Vec<Table>,
    sums: Vec<Sum>,
    left_out: Vec<LeftOut>,
}

#[derive(Clone, Debug)]
struct Table {
    place: Place,
    engine: String,
    rounded: bool,
}

impl Held {
    /// Takes the lock, and a snapshot under it.
    pub(super) async fn take(ground: Ground) -> Result<Held, String> {
        let mut conn = session(&ground).await?;
        if ground.flavor == Flavor::MySql {
            // It counts rows with four threads otherwise, which whoever else needs the server has to wait for.
            // Servers before 8.0.14 do not know it.
            let _ = conn.query_drop("SET SESSION innodb_parallel_read_threads = 1").await;
        }
        let position = lock(&mut conn, ground.flavor).await.map_err(|error| error.to_string())?;
        let (released, release) = oneshot::channel();
        let holding = tokio::spawn(async move {
            let in_time = tokio::time::timeout(HOLD, release).await.is_ok();
            let unlocked = conn.query_drop("UNLOCK TABLES").await;
            unlocked.map_err(|error| error.to_string())?;
            match in_time {
                true => Ok(Snapshot { conn, position }),
                false => Err(format!("the dump took more than {} s to begin", HOLD.as_secs())),
            }
        });
        Ok(Held { ground, released, holding })
    }

    /// Gives the lock back, now that the dump has its snapshot, and begins to count.
    pub(super) async fn count(self, turn: Turn) -> Result<Counting, String> {
        // Whoever holds it gives it back either way.
        let _ = self.released.send(());
        let held = self.holding.await.map_err(|_| "the lock's session broke off".to_owned())?;
        let Snapshot { mut conn, position } = held?;
        let (ground, tally) = (self.ground, Arc::new(Mutex::new(Tally::default())));
        let session = conn.id();
        let (schemas, counted) = (ground.schemas.clone(), tally.clone());
        let mut pauses = Pauses { ground: ground.clone(), session, turn };
        let work = tokio::spawn(async move {
            let counted = all(&mut conn, &schemas, &counted, Some(&mut pauses)).await;
            counted.map_err(|error| error.to_string())
        });
        Ok(Counting { ground, position, session, tally, work })
    }
}

impl Counting {
    /// Waits for the end, though no longer than that, and says what the tables held at that position.
    pub(super) async fn end(mut self, limit: Duration, position: &Gtids) -> Counts {
        if &self.position != position {
            self.give_up().await;
            return Counts::missing("the position moved while the dump began");
        }
        let ended = tokio::time::timeout(limit, &mut self.work).await;
        let why = match ended {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(why))) => return Counts::missing(why),
            Ok(Err(_)) => return Counts::missing("counting was broken off"),
            Err(_) => Some(format!("not reached within {} s after the dump", limit.as_secs())),
        };
        if why.is_some() {
            self.give_up().await;
        }
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let Tally { tables, sums, mut left_out } = std::mem::take(&mut *tally);
        if let Some(why) = why {
            let done = sums.len() + left_out.len();
            let rest = tables.into_iter().skip(done);
            left_out.extend(rest.map(|table| LeftOut { of: table.place, why: why.clone() }));
        }
        Counts::of(sums, left_out)
    }

    /// Ends the session on the server, which otherwise goes on reading a table to its end.
    async fn give_up(&mut self) {
        self.work.abort();
        end(&self.ground, &format!("KILL {}", self.session)).await;
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Pauses {
    /// Counts a table, and does so again when it had to make way for something meanwhile.
    async fn count(&mut self, conn: &mut Conn, table: &Table) -> Result<Sum, Error> {
        loop {
            self.turn.come().await;
            let counting = one(conn, table);
            tokio::pin!(counting);
            tokio::select! {
                biased;
                counted = &mut counting => return counted,
                () = self.turn.lost() => {}
            }
            end(&self.ground, &format!("KILL QUERY {}", self.session)).await;
            // It may have come too late for that.
            if let Ok(sum) = counting.await {
                return Ok(sum);
            }
        }
    }
}

/// Ends a session or what it does, from another one. When it has ended already, that is what was wanted.
async fn end(ground: &Ground, statement: &str) {
    if let Ok(mut conn) = session(ground).await {
        let _ = conn.query_drop(statement).await;
    }
}

async fn session(ground: &Ground) -> Result<Conn, String> {
    let (address, account) = (&ground.address, &ground.account);
    let connected = connect(address, account, CONNECT_LIMIT, &Distance::default()).await;
    connected.map_err(|error| error.to_string())
}

/// The lock, the snapshot and its position.
async fn lock(conn: &mut Conn, flavor: Flavor) -> Result<Gtids, BackupError> {
    let refused = |error: Error| BackupError::Unknown(format!("no lock for a moment: {error}"));
    let patience = format!("SET SESSION lock_wait_timeout = {LOCK_SECONDS}");
    let statements = [
        patience.as_str(),
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        // Without a lock first, so that nothing waits behind a long question.
        "FLUSH LOCAL TABLES",
        "FLUSH TABLES WITH READ LOCK",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT",
    ];
    for statement in statements {
        conn.query_drop(statement).await.map_err(refused)?;
    }
    let strange = |what: &str| BackupError::Unknown(format!("its position cannot be told: {what}"));
    let text: Option<Option<String>> = match flavor {
        Flavor::MySql => {
            conn.query_first("SELECT @@global.gtid_executed").await.map_err(refused)?
        }
        Flavor::MariaDb => {
            let log: Option<Row> = conn.query_first("SHOW MASTER STATUS").await.map_err(refused)?;
            let log = log.ok_or_else(|| strange("it writes no binary log"))?;
            let (file, at) = (log.get_opt::<String, _>(0), log.get_opt::<u64, _>(1));
            let (Some(Ok(file)), Some(Ok(at))) = (file, at) else {
                return Err(strange("its binary log has no name"));
            };
            let question = "SELECT BINLOG_GTID_POS(?, ?)";
            conn.exec_first(question, (file, at)).await.map_err(refused)?
        }
    };
    let text = text.flatten().unwrap_or_default();
    Gtids::parse(flavor, &text).map_err(|error| strange(&error.to_string()))
}

/// What all tables of these schemas hold, as this session sees them.
pub(super) async fn count(conn: &mut Conn, schemas: &[String]) -> Result<Vec<Sum>, Error> {
    let tally = Mutex::new(Tally::default());
    conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    all(conn, schemas, &tally, None).await?;
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner).sums)
}

async fn all(
    conn: &mut Conn,
    schemas: &[String],
    tally: &Mutex<Tally>,
    mut pauses: Option<&mut Pauses>,
) -> Result<(), Error> {
    let tables = tables(conn, schemas).await?;
    if tables.len() > MOST_TABLES {
        return Err(Error::Other(format!("it has more than {MOST_TABLES} tables").into()));
    }
    note(tally, |tally| tally.tables.clone_from(&tables));
    // Going back to it lets go of a table, so that nobody who wants to change one waits for the end.
    conn.query_drop("SAVEPOINT regent").await?;
    for table in &tables {
        let counted = match &mut pauses {
            Some(pauses) => pauses.count(conn, table).await,
            None => one(conn, table).await,
        };
        match counted {
            Ok(sum) => note(tally, |tally| tally.sums.push(sum)),
            Err(Error::Server(error)) => {
                let why = format!("error {}", error.code);
                let left = LeftOut { of: table.place.clone(), why };
                note(tally, |tally| tally.left_out.push(left));
            }
            Err(error) => return Err(error),
        }
        conn.query_drop("ROLLBACK TO SAVEPOINT regent").await?;
    }
    Ok(())
}

fn note(tally: &Mutex<Tally>, change: impl FnOnce(&mut Tally)) {
    change(&mut tally.lock().unwrap_or_else(PoisonError::into_inner));
}

/// All tables with rows of their own, the small ones first: most are then counted should time run out.
async fn tables(conn: &mut Conn, schemas: &[String]) -> Result<Vec<Table>, Error> {
    let most = MOST_TABLES + 1;
    let wanted: Vec<String> = schemas.iter().map(|schema| literal(schema)).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = wanted.join(", ");
    let question = format!(
        "SELECT DISTINCT TABLE_SCHEMA, TABLE_NAME FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA IN ({wanted}) AND DATA_TYPE = 'float' LIMIT {most}"
    );
    let rounded: Vec<(String, String)> = conn.query(question).await?;
    let rounded: BTreeSet<Place> =
        rounded.into_iter().map(|(schema, table)| Place::table(schema, table)).collect();
    let question = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE FROM information_schema.TABLES \
         WHERE TABLE_TYPE = 'BASE TABLE' AND TABLE_SCHEMA IN ({wanted}) \
         AND ENGINE NOT IN ({NOTHING_OWN}) ORDER BY DATA_LENGTH, 1, 2 LIMIT {most}"
    );
    let rows: Vec<(String, String, String)> = conn.query(question).await?;
    let table = |(schema, table, engine): (String, String, String)| {
        let place = Place::table(schema, table);
        Table { rounded: rounded.contains(&place), place, engine }
    };
    Ok(rows.into_iter().map(table).collect())
}

/// What one table holds.
async fn one(conn: &mut Conn, table: &Table) -> Result<Sum, Error> {
    let name = format!("{}.{}", quoted(&table.place.schema), quoted(&table.place.table));
    let rows: Option<u64> = conn.query_first(format!("SELECT COUNT(*) FROM {name}")).await?;
    let told: Option<Row> = conn.query_first(format!("CHECKSUM TABLE {name}")).await?;
    let checksum = told.and_then(|row| row.get_opt::<u64, _>(1)?.ok());
    let (Some(rows), Some(checksum)) = (rows, checksum) else {
        // It tells so of tables that are gone or broken, without an error.
        let question = format!("SELECT 1 FROM {name} LIMIT 1");
        conn.query_drop(question).await?;
        return Err(Error::Other("a table has no checksum".into()));
    };
    let (of, engine, rounded) = (table.place.clone(), table.engine.clone(), table.rounded);
    Ok(Sum { of, engine, rows, checksum, rounded })
}

/// A name as statements have it.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text that means the same whatever the session's `sql_mode`.
fn literal(text: &str) -> String {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("_utf8mb4 x'{hex}'")
}
