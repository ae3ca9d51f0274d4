//! A physical backup: the agent beside the server sends a copy of its files, which is packed here.

use super::agent::Link;
use super::packing::{packing, waiting};
use super::taking::{Filled, Order};
use super::{BackupError, Progress};
use crate::config::backups::Method as Wanted;
use crate::config::{ClusterConfig, Security};
use crate::decision::backup::manifest::{Innodb, Method};
use crate::decision::topology::{Flavor, ServerName};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

/// Who hands out the copy of that server's files that a backup made this way needs; nobody for a logical
/// one.
pub fn agent_for(
    wanted: Wanted,
    security: Option<&Security>,
    cluster: &ClusterConfig,
    server: &ServerName,
) -> Result<Option<Link>, BackupError> {
    match wanted {
        Wanted::Logical => Ok(None),
        Wanted::Physical => Link::to(security, cluster, server).map(Some),
    }
}

/// How the agent would copy the server's files, and with what.
pub(super) async fn ask(link: &Link) -> Result<(Method, String), BackupError> {
    let told = link.ask().await?;
    match told.sent {
        None => Ok((told.method, told.tool)),
        Some(sent) => Err(BackupError::Agent {
            server: told.server,
            what: format!("it is sending a copy already, {sent} bytes so far; try again later"),
        }),
    }
}

/// How the server's files are laid out, as far as they do not tell that themselves.
pub(super) async fn layout(conn: &mut Conn, flavor: Flavor) -> Result<Innodb, mysql_async::Error> {
    let question = "SELECT @@global.innodb_page_size, @@global.innodb_data_file_path";
    let told: Option<(u32, String)> = conn.query_first(question).await?;
    let (page_size, data_file_path) = told.unwrap_or_default();
    let undo_tablespaces = match flavor {
        Flavor::MySql => None,
        Flavor::MariaDb => conn.query_first("SELECT @@global.innodb_undo_tablespaces").await?,
    };
    Ok(Innodb { page_size, data_file_path, undo_tablespaces })
}

/// Writes all that the agent sends into the stream, and ends it only when all of it came.
pub(super) async fn fill(
    order: &Order<'_>,
    (link, method): (&Link, Method),
    into: DuplexStream,
    progress: &watch::Sender<Progress>,
) -> Result<Filled, BackupError> {
    let packed = packing(into, &order.backups.encrypt_to, order.backups.compression).await;
    let mut packed = packed.map_err(BackupError::io("packing"))?;
    let (head, mut pulled) = link.pull().await?;
    if head.method != method {
        return Err(failed(order, "it changed its way of copying meanwhile"));
    }
    let mut plain_bytes = 0;
    loop {
        let next = waiting(&mut packed, pulled.next()).await;
        let Some(bytes) = next.map_err(BackupError::io("packing"))?? else {
            break;
        };
        packed.write_all(&bytes).await.map_err(BackupError::io("packing"))?;
        plain_bytes += bytes.len() as u64;
        progress.send_modify(|it| it.plain = plain_bytes);
    }
    let end = pulled.end()?;
    let position = end.position;
    if position.flavor() != order.source.status.flavor {
        return Err(failed(order, "its position is not one of this server"));
    }
    // As with a dump: what the binary log does not name has not moved since it was begun.
    let before = order.source.status.replicated.iter();
    let position = before.fold(position, |at, before| at.with_domains_of(before));
    packed.shutdown().await.map_err(BackupError::io("packing"))?;
    // Tables are counted in what a dump reads; whoever unpacks files checks them as they are.
    let at_most = end.at_most.filter(|most| most != &position && most.contains(&position));
    Ok(Filled { plain_bytes, accounts_at: plain_bytes, position, at_most, tables: None })
}

fn failed(order: &Order<'_>, what: &str) -> BackupError {
    let server = order.source.server.name.to_string();
    BackupError::Agent { server, what: what.to_owned() }
}
