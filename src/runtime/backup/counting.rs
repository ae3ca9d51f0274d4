//! Counting what tables hold: at the very moment of a dump, and on a server restored from it.
//!
//! The dump program takes its snapshot under a short lock. The same lock is held beside it, by a session
//! that has a snapshot of its own, from before the program begins until its first output, which comes
//! after its snapshot: nothing can change in between. The position is asked for in that session too, and
//! must be the one that the dump names. Where any of this fails there are no counts, and the
//! backup goes on without them: nobody waits for a lock long.
//!
//! That session counts once the dump has ended, and sees its own moment until then. Two that read everything
//! at the same time kept a replica on a small machine from receiving what its primary committed.

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

/// A moment at which tables can be counted, without a lock.
#[derive(Debug)]
pub(super) struct Seen {
    ground: Ground,
    snapshot: Snapshot,
}

/// Makes a session that counts stand still.
#[derive(Debug)]
struct Pauses {
    /// Ends what the other one does.
    conn: Conn,
    /// The one that counts.
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

    /// Gives the lock back, now that the dump has its snapshot.
    pub(super) async fn release(self) -> Result<Seen, String> {
        // Whoever holds it gives it back either way.
        let _ = self.released.send(());
        let held = self.holding.await.map_err(|_| "the lock's session broke off".to_owned())?;
        Ok(Seen { ground: self.ground, snapshot: held? })
    }
}

impl Seen {
    /// Counts, though no longer than that, and says what the tables held at the dump's position.
    pub(super) async fn count(self, turn: Turn, limit: Duration, position: &Gtids) -> Counts {
        let Seen { ground, snapshot: Snapshot { mut conn, position: own } } = self;
        if &own != position {
            return Counts::missing("the position moved while the dump began");
        }
        let other = match session(&ground).await {
            Ok(other) => other,
            Err(why) => return Counts::missing(why),
        };
        let mut pauses = Pauses { conn: other, session: conn.id(), turn };
        let mut tally = Tally::default();
        let counted = all(&mut conn, &ground.schemas, &mut tally, Some(&mut pauses));
        let why = match tokio::time::timeout(limit, counted).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => return Counts::missing(error.to_string()),
            Err(_) => Some(format!("not reached within {} s after the dump", limit.as_secs())),
        };
        let Tally { tables, sums, mut left_out } = tally;
        if let Some(why) = why {
            // Otherwise it goes on reading a table to its end.
            pauses.end("KILL").await;
            let done = sums.len() + left_out.len();
            let rest = tables.into_iter().skip(done);
            left_out.extend(rest.map(|table| LeftOut { of: table.place, why: why.clone() }));
        }
        Counts::of(sums, left_out)
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
            self.end("KILL QUERY").await;
            // It may have come too late for that.
            if let Ok(sum) = counting.await {
                return Ok(sum);
            }
        }
    }

    /// Ends the session that counts, or what it does. When that has ended already, it is what was wanted.
    async fn end(&mut self, how: &str) {
        let statement = format!("{how} {}", self.session);
        let _ = self.conn.query_drop(statement).await;
    }
}

/// A session that waits for the dump or for another session, however long that takes.
async fn session(ground: &Ground) -> Result<Conn, String> {
    let (address, account) = (&ground.address, &ground.account);
    let connected = connect(address, account, CONNECT_LIMIT, &Distance::default()).await;
    let mut conn = connected.map_err(|error| error.to_string())?;
    let patient = match ground.flavor {
        Flavor::MySql => "SET SESSION wait_timeout = 31536000",
        Flavor::MariaDb => {
            "SET SESSION wait_timeout = 31536000, SESSION idle_transaction_timeout = 0, \
             SESSION idle_readonly_transaction_timeout = 0"
        }
    };
    conn.query_drop(patient).await.map_err(|error| error.to_string())?;
    Ok(conn)
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
    let mut tally = Tally::default();
    conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    all(conn, schemas, &mut tally, None).await?;
    Ok(tally.sums)
}

async fn all(
    conn: &mut Conn,
    schemas: &[String],
    tally: &mut Tally,
    mut pauses: Option<&mut Pauses>,
) -> Result<(), Error> {
    let tables = tables(conn, schemas).await?;
    if tables.len() > MOST_TABLES {
        return Err(Error::Other(format!("it has more than {MOST_TABLES} tables").into()));
    }
    tally.tables.clone_from(&tables);
    // Going back to it lets go of a table, so that nobody who wants to change one waits for the end.
    conn.query_drop("SAVEPOINT regent").await?;
    for table in &tables {
        let counted = match &mut pauses {
            Some(pauses) => pauses.count(conn, table).await,
            None => one(conn, table).await,
        };
        match counted {
            Ok(sum) => tally.sums.push(sum),
            Err(Error::Server(error)) => {
                let why = format!("error {}", error.code);
                tally.left_out.push(LeftOut { of: table.place.clone(), why });
            }
            Err(error) => return Err(error),
        }
        conn.query_drop("ROLLBACK TO SAVEPOINT regent").await?;
    }
    Ok(())
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
