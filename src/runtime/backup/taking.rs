//! Taking a backup: a dump is packed and stored, and the manifest written last.

use super::accounts::{Accounts, accounts};
use super::agent::Link;
use super::packing::packing;
use super::physical;
use super::position::Ends;
use super::source::Source;
use super::storing::{Sending, Stored, StoringError, store};
use super::target::{Target, TargetError, Upload};
use super::tool::{Reach, Tool};
use super::{BackupError, Progress};
use crate::clock::{Clock, WallTime};
use crate::config::backups::Backups;
use crate::config::{Account, ClusterConfig};
use crate::decision::backup::manifest::{FORMAT, Manifest, Method};
use crate::decision::backup::names::{self, BackupId};
use crate::decision::cluster::Unknown;
use crate::decision::gtid::Gtids;
use crate::decision::topology::ServerName;
use crate::runtime::mysql::connect::connect;
use crate::runtime::mysql::distance::Distance;
use bytes::Bytes;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

/// Schemas that are the server's own, and the one that holds Regent's canary.
pub(super) const OWN: &str = "'mysql', 'information_schema', 'performance_schema', 'sys', 'regent'";

pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// What is between packing and storing.
const PIPE: usize = 256 << 10;
const BUFFER: usize = 128 << 10;

/// What to back up, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The cluster.
    pub cluster: &'a ClusterConfig,
    /// How it is backed up.
    pub backups: &'a Backups,
    /// Which server.
    pub source: &'a Source,
    /// Where to.
    pub target: &'a Target,
    /// Who hands out a copy of its files; nobody where it is read as SQL.
    pub agent: Option<&'a Link>,
    /// The clock.
    pub clock: Clock,
}

/// What the server said before its dump began.
struct Asked {
    conn: Conn,
    schemas: Vec<String>,
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
            address: &self.source.server.address,
            account: self.account(),
            tools: &self.backups.tools,
        }
    }

    fn target_failed(&self, error: TargetError) -> BackupError {
        BackupError::Target { target: self.target.name.clone(), error }
    }
}

/// Takes a backup. Whatever fails, or when `stop` ends first, nothing of it is left at the target.
pub async fn take(
    order: &Order<'_>,
    progress: &watch::Sender<Progress>,
    stop: impl Future<Output = ()>,
) -> Result<Manifest, BackupError> {
    let begun = order.clock.now().wall;
    let id = BackupId::new(begun, order.server());
    let cluster = &order.cluster.spec.name;
    let mut asked = ask(order).await?;
    let object = names::data(cluster, &id, asked.method, !order.backups.encrypt_to.is_empty());
    progress.send_modify(|it| it.total = Some(asked.size));
    order.target.sweep(&names::data_of(cluster), begun).await;
    let begin = order.target.begin(&object).await;
    let upload = Arc::new(begin.map_err(|error| order.target_failed(error))?);
    let mut sending = Sending::new();
    let ended = tokio::select! {
        biased;
        () = stop => Err(BackupError::Stopped),
        ended = run(order, &mut asked, (&upload, &mut sending), progress) => ended,
    };
    let (filled, stored) = match ended {
        Ok(both) => both,
        Err(error) => {
            sending.shutdown().await;
            abort(&upload, &object).await;
            return Err(error);
        }
    };
    if let Err(error) = upload.finish(stored.bytes).await {
        // It may have been finished all the same.
        abort(&upload, &object).await;
        remove(order, &object).await;
        return Err(order.target_failed(error));
    }
    let manifest = describe(order, (id, object), (begun, asked), (filled, stored));
    match write(order, &manifest).await {
        Ok(()) => Ok(manifest),
        Err(error) => {
            // It may have been written all the same. As long as it may be there, so must the data.
            if remove(order, &names::manifest(cluster, &manifest.id)).await {
                remove(order, &manifest.object).await;
            }
            Err(error)
        }
    }
}

/// Whether an object of a failed backup is surely gone.
async fn remove(order: &Order<'_>, object: &str) -> bool {
    let removed = order.target.remove(object).await;
    if let Err(error) = &removed {
        tracing::warn!(object, %error, "what is left of a failed backup could not be removed");
    }
    removed.is_ok()
}

async fn abort(upload: &Upload, object: &str) {
    if let Err(error) = upload.abort().await {
        tracing::warn!(object, %error, "what was stored of it could not be removed");
    }
}

async fn write(order: &Order<'_>, manifest: &Manifest) -> Result<(), BackupError> {
    let object = names::manifest(&manifest.cluster, &manifest.id);
    let bytes = manifest.to_bytes();
    let bytes = bytes.map_err(|error| BackupError::Manifest { object: object.clone(), error })?;
    let put = order.target.put(&object, Bytes::from(bytes)).await;
    put.map_err(|error| order.target_failed(error))
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
        tool: asked.tool,
        begun,
        ended: order.clock.now().wall,
        schemas: asked.schemas,
        accounts_left_out: asked.accounts.left_out,
        plain_bytes: filled.plain_bytes,
        accounts_at: filled.accounts_at,
        encrypted_to: order.backups.encrypt_to.clone(),
        object,
        bytes: stored.bytes,
        sha256: stored.sha256,
        parts: stored.parts,
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
    let size = size.flatten().unwrap_or_default();
    let (accounts, (method, tool)) = match order.agent {
        // Its files hold its accounts.
        Some(link) => (Accounts::default(), physical::ask(link).await?),
        None => {
            let accounts = accounts(&mut conn, order.source.status.flavor, server).await?;
            (accounts, (Method::Logical, order.reach().version().await?))
        }
    };
    Ok(Asked { conn, schemas, accounts, method, tool, size })
}

async fn run(
    order: &Order<'_>,
    asked: &mut Asked,
    storing: (&Arc<Upload>, &mut Sending),
    progress: &watch::Sender<Progress>,
) -> Result<(Filled, Stored), BackupError> {
    let (into, from) = tokio::io::duplex(PIPE);
    let storing = async {
        let stored = |bytes| {
            progress.send_modify(|it| it.stored = bytes);
        };
        let stored = store(from, storing, order.backups.part_size, stored).await;
        stored.map_err(|error| match error {
            StoringError::Target(error) => order.target_failed(error),
            StoringError::Stream(error) => BackupError::io("packing")(error),
            other => BackupError::Unknown(other.to_string()),
        })
    };
    tokio::try_join!(fill(order, asked, into, progress), storing)
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
    let mut tool = Tool::start(order.reach().dump(&asked.schemas))?;
    let mut output = tool.output()?;
    let head = preamble(order);
    packed.write_all(head.as_bytes()).await.map_err(BackupError::io("packing"))?;
    let mut plain_bytes = head.len() as u64;
    let mut ends = Ends::default();
    let mut buffer = vec![0_u8; BUFFER];
    loop {
        let count = output.read(&mut buffer).await.map_err(BackupError::io("reading the dump"))?;
        let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else {
            break;
        };
        if plain_bytes == head.len() as u64 {
            same_accounts(order, asked).await?;
        }
        ends.take(part);
        packed.write_all(part).await.map_err(BackupError::io("packing"))?;
        plain_bytes += count as u64;
        progress.send_modify(|it| it.plain = plain_bytes);
    }
    tool.ended().await?;
    let incomplete = |what: &str| BackupError::Tool { name: asked.tool.clone(), what: what.into() };
    if !ends.is_complete() {
        return Err(incomplete("its output does not end as a whole dump does"));
    }
    let position = ends.position(flavor);
    let position = position.ok_or_else(|| incomplete("its output does not name its position"))?;
    // MariaDB's dump names what is in the binary log. That of a server which was rebuilt is empty at first,
    // and a domain that it does not name has not moved since.
    let before = order.source.status.replicated.iter();
    let position = before.fold(position, |at, before| at.with_domains_of(before));
    let (accounts_at, script) = (plain_bytes, asked.accounts.script());
    packed.write_all(script.as_bytes()).await.map_err(BackupError::io("packing"))?;
    packed.shutdown().await.map_err(BackupError::io("packing"))?;
    plain_bytes += script.len() as u64;
    Ok(Filled { plain_bytes, accounts_at, position })
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
