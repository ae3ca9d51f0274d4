//! Taking a backup: a dump is packed and stored at every target, and the manifest written last.

use super::BackupError;
use super::accounts::{Accounts, accounts};
use super::agent::Link;
use super::counting::{Ground, Held, LEAST_EXTRA, Seen};
use super::lanes::{Lacking, Lanes, Sending};
use super::pace::Pace;
use super::packing::{packing, waiting};
use super::physical;
use super::position::Ends;
use super::printed::Printed;
use super::progress::{Progress, Reached, Stage};
use super::source::Source;
use super::spool::Spool;
use super::storing::{Stored, StoringError, cut};
use super::sweeping::Sweeping;
use super::target::Target;
use super::tool::{Reach, Tool, Way};
use super::turn::Turn;
use crate::clock::{Clock, WallTime};
use crate::config::backups::Backups;
use crate::config::{Account, ClusterConfig};
use crate::decision::backup::counts::Counts;
use crate::decision::backup::manifest::{FORMAT, Innodb, Manifest, Method};
use crate::decision::backup::names::{self, BackupId};
use crate::decision::backup::runs::Attempt;
use crate::decision::cluster::Unknown;
use crate::decision::gtid::Gtids;
use crate::decision::topology::ServerName;
use crate::runtime::mysql::connect::connect;
use crate::runtime::mysql::distance::Distance;
use bytes::Bytes;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Schemas that are the server's own, and the one that holds Regent's canary.
pub(super) const OWN: &str = "'mysql', 'information_schema', 'performance_schema', 'sys', 'regent'";

pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// What is between packing and storing: as much as comes while a part's checksums are reckoned.
const PIPE: usize = 4 << 20;
/// Bytes of a dump that are packed at a time.
const PIECE: usize = 256 << 10;

/// What to back up, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The cluster.
    pub cluster: &'a ClusterConfig,
    /// How it is backed up.
    pub backups: &'a Backups,
    /// Which server.
    pub source: &'a Source,
    /// Where to; each has it whole or not at all.
    pub targets: &'a [Target],
    /// Who hands out a copy of its files; nobody where it is read as SQL.
    pub agent: Option<&'a Link>,
    /// The clock.
    pub clock: Clock,
    /// The attempt of a scheduled run, if it is one.
    pub run: Option<&'a Attempt>,
    /// What goes before it.
    pub turn: &'a Turn,
}

/// A backup that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// All that is known of it.
    pub manifest: Manifest,
    /// The targets that do not have it; at least one has.
    pub lacking: Vec<Lacking>,
}

/// What the server said before its dump began.
struct Asked {
    conn: Conn,
    schemas: Vec<String>,
    lower_case_table_names: u8,
    innodb: Option<Innodb>,
    accounts: Accounts,
    method: Method,
    tool: String,
    /// About how many bytes there will be.
    size: u64,
}

/// What was written into the stream.
pub(super) struct Filled {
    pub plain_bytes: u64,
    pub accounts_at: u64,
    pub position: Gtids,
    pub at_most: Option<Gtids>,
    pub tables: Option<Counts>,
}

impl Order<'_> {
    fn account(&self) -> &Account {
        self.backups.account.as_ref().unwrap_or(&self.cluster.credentials.monitor)
    }

    fn server(&self) -> &ServerName {
        &self.source.server.name
    }

    fn reach(&self) -> Reach<'_> {
        Reach {
            flavor: self.source.status.flavor,
            way: Way::Address(&self.source.server.address),
            account: self.account(),
            tools: &self.backups.tools,
        }
    }

    fn sending(&self, id: &BackupId, object: &str) -> Result<Sending, BackupError> {
        let storing = &self.backups.storing;
        let spool = storing.spool.as_ref().map(|declared| {
            let made = Spool::make(declared, &self.cluster.spec.name, id);
            made.map_err(BackupError::io(format!("the spool {}", declared.folder.display())))
        });
        Ok(Sending {
            object: object.to_owned(),
            clock: self.clock,
            rate_limit: storing.rate_limit,
            spool: spool.transpose()?,
        })
    }
}

/// Takes a backup, once for all targets. Whatever fails, or when `stop` ends first, nothing of it is left
/// where it failed.
pub async fn take(
    order: &Order<'_>,
    progress: &watch::Sender<Progress>,
    stop: impl Future<Output = ()>,
) -> Result<Taken, BackupError> {
    let token = CancellationToken::new();
    let work = take_unless(order, progress, &token);
    tokio::pin!(work, stop);
    tokio::select! {
        biased;
        () = &mut stop => {}
        taken = &mut work => return taken,
    }
    token.cancel();
    work.await
}

async fn take_unless(
    order: &Order<'_>,
    progress: &watch::Sender<Progress>,
    stopped: &CancellationToken,
) -> Result<Taken, BackupError> {
    let begun = order.clock.now().wall;
    let id = BackupId::new(begun, order.server());
    let cluster = &order.cluster.spec.name;
    let named = |it: &Target| Reached { target: it.name.clone(), ..Reached::default() };
    progress.send_modify(|it| it.targets = order.targets.iter().map(named).collect());
    let mut asked = unless(stopped, ask(order)).await?;
    let object = names::data(cluster, &id, asked.method, !order.backups.encrypt_to.is_empty());
    progress.send_modify(|it| it.total = Some(asked.size));
    let sending = order.sending(&id, &object)?;
    let sweeping = Sweeping::begin(order.targets, order.backups, cluster, begun).await;
    let lanes = Lanes::begin(order.targets, &sending, progress, stopped).await;
    let mut lanes = lanes.map_err(BackupError::io("the spool"))?;
    drop(sending);
    let made = async {
        let (filled, stored) = run(order, &mut asked, &lanes, progress).await?;
        let manifest = describe(order, (id, object), (begun, asked), (filled, stored));
        let bytes = manifest.to_bytes().map_err(|error| BackupError::Manifest {
            object: names::manifest(cluster, &manifest.id),
            error,
        })?;
        Ok((manifest, Bytes::from(bytes)))
    };
    let made = unless(stopped, made).await;
    let (manifest, bytes) = match made {
        Ok(made) => made,
        // Why no target was left is known to them.
        Err(error) => {
            let lacking = lanes.abandon().await;
            let by_targets = matches!(error, BackupError::NoTarget(_)) && !lacking.is_empty();
            return Err(if by_targets { BackupError::NoTarget(lacking) } else { error });
        }
    };
    progress.send_modify(|it| it.stage = Stage::Sending);
    let drained = lanes.drain().await;
    if stopped.is_cancelled() {
        lanes.abandon().await;
        return Err(BackupError::Stopped);
    }
    drained.map_err(BackupError::NoTarget)?;
    progress.send_modify(|it| it.stage = Stage::Finishing);
    let lacking = lanes.finish(&manifest, bytes).await;
    sweeping.end().await;
    if lacking.len() < order.targets.len() {
        Ok(Taken { manifest, lacking })
    } else if stopped.is_cancelled() {
        Err(BackupError::Stopped)
    } else {
        Err(BackupError::NoTarget(lacking))
    }
}

/// Work that is dropped when somebody asks to stop.
async fn unless<T>(
    stopped: &CancellationToken,
    work: impl Future<Output = Result<T, BackupError>>,
) -> Result<T, BackupError> {
    tokio::select! {
        biased;
        () = stopped.cancelled() => Err(BackupError::Stopped),
        done = work => done,
    }
}

fn describe(
    order: &Order<'_>,
    (id, object): (BackupId, String),
    (begun, asked): (WallTime, Asked),
    (filled, stored): (Filled, Stored),
) -> Manifest {
    let status = &order.source.status;
    Manifest {
        format: FORMAT,
        id,
        cluster: order.cluster.spec.name.clone(),
        server: order.server().clone(),
        method: asked.method,
        flavor: status.flavor,
        version: status.version,
        position: filled.position,
        at_most: filled.at_most,
        tool: asked.tool,
        begun,
        ended: order.clock.now().wall,
        schemas: asked.schemas,
        lower_case_table_names: asked.lower_case_table_names,
        innodb: asked.innodb,
        accounts_left_out: asked.accounts.left_out,
        plain_bytes: filled.plain_bytes,
        accounts_at: filled.accounts_at,
        encrypted_to: order.backups.encrypt_to.clone(),
        object,
        bytes: stored.bytes,
        sha256: stored.sha256,
        parts: stored.parts,
        tables: filled.tables,
        run: order.run.cloned(),
        unknown: Unknown::new(),
    }
}

async fn ask(order: &Order<'_>) -> Result<Asked, BackupError> {
    let server = order.server();
    let address = &order.source.server.address;
    let mut conn = connect(address, order.account(), CONNECT_LIMIT, &Distance::default())
        .await
        .map_err(|error| BackupError::Connect { server: server.to_string(), error })?;
    let refused = |error| BackupError::server(server, error);
    let question = format!(
        "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA \
         WHERE LOWER(SCHEMA_NAME) NOT IN ({OWN}) ORDER BY 1"
    );
    let schemas: Vec<String> = conn.query(question).await.map_err(refused)?;
    if schemas.is_empty() {
        return Err(BackupError::server(server, "it holds no schema that could be backed up"));
    }
    let question = "SELECT CAST(SUM(DATA_LENGTH) AS UNSIGNED) FROM information_schema.TABLES \
                    WHERE TABLE_TYPE = 'BASE TABLE'";
    let size: Option<Option<u64>> = conn.query_first(question).await.map_err(refused)?;
    let question = "SELECT @@global.lower_case_table_names";
    let lower_case_table_names = conn.query_first(question).await.map_err(refused)?;
    let lower_case_table_names = lower_case_table_names.unwrap_or_default();
    let size = size.flatten().unwrap_or_default();
    let flavor = order.source.status.flavor;
    let (accounts, innodb, (method, tool)) = match order.agent {
        // Its files hold its accounts.
        Some(link) => {
            let innodb = physical::layout(&mut conn, flavor).await.map_err(refused)?;
            (Accounts::default(), Some(innodb), physical::ask(link).await?)
        }
        None => {
            let accounts = accounts(&mut conn, flavor, server).await?;
            (accounts, None, (Method::Logical, order.reach().version().await?))
        }
    };
    // What stands elsewhere than in the server's directory is told to nobody.
    let innodb = innodb.filter(Innodb::is_plain);
    Ok(Asked { conn, schemas, lower_case_table_names, innodb, accounts, method, tool, size })
}

async fn run(
    order: &Order<'_>,
    asked: &mut Asked,
    lanes: &Lanes,
    progress: &watch::Sender<Progress>,
) -> Result<(Filled, Stored), BackupError> {
    progress.send_modify(|it| it.stage = Stage::Reading);
    let (into, from) = tokio::io::duplex(PIPE);
    let pace = Pace::new(order.clock, order.backups.storing.rate_limit);
    let (senders, part_size) = (lanes.senders().to_vec(), order.backups.part_size);
    // A task of its own, so that it goes on while the packing one waits for its compressor.
    let cutting = tokio::spawn(async move { cut(from, &senders, part_size, pace).await });
    let cutting = AbortOnDropHandle::new(cutting);
    let cutting = async {
        let stored = cutting.await.unwrap_or(Err(StoringError::BrokenOff));
        stored.map_err(|error| match error {
            StoringError::NobodyLeft => BackupError::NoTarget(Vec::new()),
            StoringError::Stream(error) => BackupError::io("packing")(error),
            other => BackupError::Unknown(other.to_string()),
        })
    };
    tokio::try_join!(fill(order, asked, into, progress), cutting)
}

/// Writes the whole dump into the stream, and ends it only when the program ended well.
async fn fill(
    order: &Order<'_>,
    asked: &mut Asked,
    into: DuplexStream,
    progress: &watch::Sender<Progress>,
) -> Result<Filled, BackupError> {
    if let Some(link) = order.agent {
        return physical::fill(order, (link, asked.method), into, progress).await;
    }
    let flavor = order.source.status.flavor;
    let packed = packing(into, &order.backups.encrypt_to, order.backups.compression).await;
    let mut packed = packed.map_err(BackupError::io("packing"))?;
    let mut counting = begin_counting(order, asked).await;
    let begun = order.clock.now().moment;
    let mut tool = Tool::start(order.reach().dump(&asked.schemas))?;
    let reading = |error| BackupError::io("reading the dump")(error);
    let mut printed = Printed::begin(tool.output()?, PIECE).map_err(reading)?;
    let head = preamble(order);
    packed.write_all(head.as_bytes()).await.map_err(BackupError::io("packing"))?;
    let mut plain_bytes = head.len() as u64;
    let mut ends = Ends::default();
    let mut turn = order.turn.clone();
    loop {
        let first = plain_bytes == head.len() as u64;
        // Until then there is a lock.
        let next = async {
            match first {
                true => printed.next().await,
                false => in_turn(&mut turn, &tool, printed.next()).await,
            }
        };
        let next = waiting(&mut packed, next).await;
        let next = next.map_err(BackupError::io("packing"))?;
        let Some(part) = next.map_err(reading)? else { break };
        if first {
            // The lock is given back before anything else.
            counting = counting.snapshot_taken().await;
            same_accounts(order, asked).await?;
        }
        ends.take(&part);
        packed.write_all(&part).await.map_err(BackupError::io("packing"))?;
        plain_bytes += part.len() as u64;
        progress.send_modify(|it| it.plain = plain_bytes);
    }
    tool.ended().await?;
    let incomplete = |what: &str| BackupError::Tool { name: asked.tool.clone(), what: what.into() };
    if !ends.is_complete() {
        return Err(incomplete("its output does not end as a whole dump does"));
    }
    let position = ends.position(flavor);
    let position = position.ok_or_else(|| incomplete("its output does not name its position"))?;
    let took = order.clock.now().moment.since(begun);
    let named = position.clone();
    // MariaDB's dump names what is in the binary log. That of a server which was rebuilt is empty at first,
    // and a domain that it does not name has not moved since.
    let before = order.source.status.replicated.iter();
    let position = before.fold(position, |at, before| at.with_domains_of(before));
    let (accounts_at, script) = (plain_bytes, asked.accounts.script());
    packed.write_all(script.as_bytes()).await.map_err(BackupError::io("packing"))?;
    packed.shutdown().await.map_err(BackupError::io("packing"))?;
    plain_bytes += script.len() as u64;
    if matches!(counting, Counted::Seen(_)) {
        progress.send_modify(|it| it.stage = Stage::Counting);
    }
    let tables = counting.count(turn, took.max(LEAST_EXTRA), &named).await;
    Ok(Filled { plain_bytes, accounts_at, position, at_most: None, tables })
}

/// How far the counting of tables is; it never fails a backup.
enum Counted {
    /// Nobody wants it.
    Unwanted,
    /// There is a lock, and a snapshot.
    Held(Held),
    /// There is a snapshot.
    Seen(Seen),
    /// It cannot be done.
    Failed(String),
}

async fn begin_counting(order: &Order<'_>, asked: &Asked) -> Counted {
    if !order.backups.checksums {
        return Counted::Unwanted;
    }
    let ground = Ground {
        address: order.source.server.address.clone(),
        account: order.account().clone(),
        flavor: order.source.status.flavor,
        schemas: asked.schemas.clone(),
    };
    Held::take(ground).await.map_or_else(Counted::Failed, Counted::Held)
}

impl Counted {
    async fn snapshot_taken(self) -> Counted {
        match self {
            Counted::Held(held) => held.release().await.map_or_else(Counted::Failed, Counted::Seen),
            other => other,
        }
    }

    async fn count(self, turn: Turn, limit: Duration, position: &Gtids) -> Option<Counts> {
        match self {
            Counted::Unwanted => None,
            Counted::Held(_) => Some(Counts::missing("the dump was empty")),
            Counted::Seen(seen) => Some(seen.count(turn, limit, position).await),
            Counted::Failed(why) => Some(Counts::missing(why)),
        }
    }
}

/// What the program prints next. It stands still, and with it the session that it reads from, as long as it is
/// not its turn.
async fn in_turn<T>(turn: &mut Turn, tool: &Tool, printed: impl Future<Output = T>) -> T {
    tokio::pin!(printed);
    loop {
        tokio::select! {
            biased;
            () = turn.lost() => {
                tool.stand_still();
                turn.come().await;
                tool.go_on();
            }
            printed = &mut printed => return printed,
        }
    }
}

/// What the dump begins with: nothing of it may enter the binary log of the server it is loaded into.
fn preamble(order: &Order<'_>) -> String {
    let (cluster, server) = (&order.cluster.spec.name, order.server());
    format!("-- Regent's backup of {cluster}, server {server}\nSET SESSION sql_log_bin = 0;\n")
}

/// The program's first output says that its snapshot was taken. Accounts that are then as they were before
/// it are as they were in the snapshot.
async fn same_accounts(order: &Order<'_>, asked: &mut Asked) -> Result<(), BackupError> {
    let flavor = order.source.status.flavor;
    if accounts(&mut asked.conn, flavor, order.server()).await? == asked.accounts {
        return Ok(());
    }
    let what = "its accounts changed while the dump began; take the backup again";
    Err(BackupError::server(order.server(), what))
}
