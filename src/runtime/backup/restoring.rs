//! Bringing a backup back: into a file, or into a new server.

use super::accounts::{Accounts, MOST_BYTES};
use super::clearing::{Content, close_to_others};
use super::fetching::Opened;
use super::following::Membership;
use super::packing::Identities;
use super::resuming::{self, Note, Passing};
use super::taking::CONNECT_LIMIT;
use super::target::Target;
use super::tool::{Reach, Tool, Way};
use super::{BackupError, Progress};
use crate::config::Account;
use crate::config::backups::Tools;
use crate::decision::backup::manifest::Manifest;
use crate::decision::report::{Receiver, Sight, Status, Writable};
use crate::decision::topology::{Endpoint, Flavor, ServerName, ServerSpec, Timing};
use crate::runtime::mysql::connect::connect;
use crate::runtime::mysql::distance::Distance;
use crate::runtime::mysql::probe::Prober;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::path::Path;
use std::time::Duration;
use tokio::fs::OpenOptions;
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, Command};
use tokio::sync::watch;

/// The first look at a server may take longer than one probe.
const LOOKS: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(100);
const FEEDING: &str = "feeding the server";
/// So much SQL is looked at together.
const PIECE: u64 = 1 << 20;

/// A new server to restore into.
#[derive(Clone, Debug)]
pub struct Destination<'a> {
    /// Where it is.
    pub address: Endpoint,
    /// An account there with all privileges.
    pub account: Account,
    /// The programs.
    pub tools: &'a Tools,
}

/// What a restore brought about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Statements about accounts that the server refused, by what they begin with; everything else is
    /// there.
    pub refused: Vec<String>,
    /// What was done, or would be, in this order.
    pub says: Vec<String>,
}

/// Writes a backup's SQL into a new file that only this user can read; a failure leaves none.
pub async fn into_file(
    target: &Target,
    manifest: &Manifest,
    identities: &Identities,
    path: &Path,
    progress: &watch::Sender<Progress>,
) -> Result<(), BackupError> {
    let what = path.display().to_string();
    let mut options = OpenOptions::new();
    let opening = options.write(true).create_new(true).mode(0o600).open(path).await;
    let mut file = opening.map_err(BackupError::io(what.clone()))?;
    let written = async {
        let mut opened = Opened::new(target, manifest, identities, progress).await?;
        opened.pass_on(manifest.plain_bytes, &mut file).await?;
        opened.end().await?;
        file.flush().await.map_err(BackupError::io(what.clone()))?;
        file.sync_all().await.map_err(BackupError::io(what.clone()))
    };
    let written = written.await;
    if written.is_err() {
        let _ = tokio::fs::remove_file(path).await;
    }
    written
}

/// What is wanted of a restore into a server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// The cluster that the server is to be a replica of afterwards.
    pub follow: Option<Membership<'a>>,
    /// The cluster of the backup, whose servers are asked whether the server is needed, where what it
    /// holds may be thrown away.
    pub overwrite: Option<Membership<'a>>,
    /// Go on with what was broken off.
    pub resume: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What a restore has to do beside loading.
struct Plan {
    content: Content,
    start: Start,
    primary: Option<ServerSpec>,
    says: Vec<String>,
}

/// From where on a backup is loaded.
#[derive(Debug)]
enum Start {
    /// From its beginning, once all that is there was thrown away.
    Anew,
    /// From where a former attempt broke off.
    On(Note),
    /// All of it is there.
    Done,
}

/// Loads a backup into a server that holds nothing yet, or whose data may be thrown away, gives it the
/// backup's position, and lets it follow its cluster's primary if that is wanted.
pub async fn into_server(
    (target, manifest): (&Target, &Manifest),
    identities: &Identities,
    destination: &Destination<'_>,
    wish: &Wish<'_>,
    progress: &watch::Sender<Progress>,
) -> Result<Restored, BackupError> {
    if manifest.method.is_physical() {
        let text = format!(
            "backup {} is physical: restore it into an empty directory (--data-dir), and start a server on it",
            manifest.id
        );
        return Err(BackupError::Unknown(text));
    }
    let server = ServerName(destination.address.to_string());
    let mut conn = session(destination, &server).await?;
    let status = look(destination, &server).await?;
    let plan = plan(&mut conn, (manifest, &status), (destination, &server), wish).await?;
    let Plan { content, start, primary, says } = plan;
    if wish.dry_run {
        return Ok(Restored { refused: Vec::new(), says });
    }
    let from = Origin { target, manifest, identities, progress };
    let noted = !matches!(start, Start::Done);
    let refused = match start {
        Start::Done => Vec::new(),
        start => {
            resuming::alone(&mut conn, &server).await?;
            let clears = matches!(start, Start::Anew) && !content.is_empty();
            if clears {
                let cleared = content.clear(&mut conn, &status).await;
                cleared.map_err(|error| BackupError::server(&server, error))?;
            }
            let into = (destination, &server, &status);
            let filled = fill(&mut conn, &from, into, (start, wish.follow.is_some())).await;
            filled.map_err(|error| BackupError::Incomplete {
                server: server.to_string(),
                backup: manifest.id.to_string(),
                error: Box::new(error),
            })?
        }
    };
    if let (Some(membership), Some(primary)) = (&wish.follow, &primary)
        && (noted || !follows(&status, primary))
    {
        membership.follow((destination, &server), primary, noted).await?;
    }
    Ok(Restored { refused, says })
}

/// Whether a server is a replica of that primary already.
fn follows(status: &Status, primary: &ServerSpec) -> bool {
    status.channels.iter().any(|channel| {
        let receives = channel.receiver == Receiver::Connected;
        channel.source == primary.address && receives && channel.applying
    })
}

/// What is loaded.
struct Origin<'a> {
    target: &'a Target,
    manifest: &'a Manifest,
    identities: &'a Identities,
    progress: &'a watch::Sender<Progress>,
}

/// Loads what is missing, and closes the server to others meanwhile. Where it is to follow, the note and all
/// writing rights of this account stay until it does.
async fn fill(
    conn: &mut Conn,
    from: &Origin<'_>,
    (destination, server, status): (&Destination<'_>, &ServerName, &Status),
    (start, follows): (Start, bool),
) -> Result<Vec<String>, BackupError> {
    let Origin { target, manifest, identities, progress } = *from;
    let refused = |error| BackupError::server(server, error);
    // On MySQL nobody, not even this account, can write before.
    close_to_others(conn, status).await.map_err(refused)?;
    let note = match start {
        Start::On(note) => note,
        _ => Note::begin(conn, manifest).await.map_err(refused)?,
    };
    let reach = Reach {
        flavor: manifest.flavor,
        way: Way::Address(&destination.address),
        account: &destination.account,
        tools: destination.tools,
    };
    let passing = Some(Passing::new(note));
    let loaded = load((target, manifest), (identities, passing), reach.load(), progress).await;
    let placed = match loaded {
        Ok(script) => place(destination, manifest, server, &script).await,
        Err(error) => Err(error),
    };
    if follows {
        return placed;
    }
    let left = async {
        let mut conn = session(destination, server).await?;
        if placed.is_ok() {
            resuming::forget(&mut conn).await.map_err(refused)?;
        }
        match (status.writable, status.flavor) {
            (Writable::Open, _) => ask(&mut conn, server, "SET GLOBAL read_only = OFF").await,
            (_, Flavor::MySql) => ask(&mut conn, server, "SET GLOBAL super_read_only = ON").await,
            (_, Flavor::MariaDb) => Ok(()),
        }
    };
    let left = left.await;
    // Why it broke off says more than that the server cannot be asked any more.
    let statements = placed?;
    left.map(|()| statements)
}

/// The backup whose restore into a server was broken off, if one was.
pub async fn broken_off(destination: &Destination<'_>) -> Result<Option<String>, BackupError> {
    let server = ServerName(destination.address.to_string());
    let mut conn = session(destination, &server).await?;
    Ok(Note::read(&mut conn, &server).await?.map(|note| note.backup))
}

/// Looks whether all that is wanted can be done, and says what that is.
async fn plan(
    conn: &mut Conn,
    (manifest, status): (&Manifest, &Status),
    (destination, server): (&Destination<'_>, &ServerName),
    wish: &Wish<'_>,
) -> Result<Plan, BackupError> {
    fit(manifest, status, server)?;
    let content = Content::of(conn, status, server).await?;
    let mut says = Vec::new();
    let start = match wish.resume {
        true => go_on(conn, (&content, manifest, status), (server, wish)).await?,
        false => Start::Anew,
    };
    if matches!(start, Start::Anew) && !content.is_empty() {
        let Some(membership) = &wish.overwrite else {
            let why = content.objection(status.flavor);
            let text = format!(
                "{server} {why}, or type its name after --overwrite to throw away all that it holds"
            );
            return Err(BackupError::NotEmpty(text));
        };
        let others = membership.others(destination).await;
        if let Some(follower) = others.follower(destination) {
            let text = format!("{server} is needed: {follower} follows it; nothing is thrown away");
            return Err(BackupError::NotEmpty(text));
        }
        says.push(format!("throw away of {server}: {}", content.lost()));
    }
    let (bytes, object, plain) = (manifest.bytes, &manifest.object, manifest.plain_bytes);
    match &start {
        Start::Anew => {
            says.push(format!("fetch {bytes} bytes from {object} and load {plain} bytes of SQL into {server}"));
        }
        Start::On(note) => says.push(format!(
            "fetch {bytes} bytes from {object}, and go on loading SQL into {server} at byte {} of {plain}",
            note.reached()
        )),
        Start::Done => says.push(format!("load nothing: {server} holds all of the backup")),
    }
    if !matches!(start, Start::Done) {
        says.push(format!("give it the position {}", manifest.position));
    }
    let mut primary = None;
    if let Some(membership) = &wish.follow {
        let others = membership.others(destination).await;
        let (found, at_primary) = others.primary()?;
        membership.reaches((found, at_primary), manifest, status).await?;
        if matches!(start, Start::Done) && !at_primary.executed.contains(&status.executed) {
            let text =
                format!("{server} has transactions that {}, the primary, has not", found.name);
            return Err(BackupError::NotEmpty(text));
        }
        let behind = at_primary.executed.count_beyond(&manifest.position);
        says.push(format!(
            "let it follow {}, the primary, read-only; {behind} transaction(s) came since the backup",
            found.name
        ));
        primary = Some(found.clone());
    }
    Ok(Plan { content, start, primary, says })
}

/// From where on a restore is gone on with; an error where something else became of the server.
async fn go_on(
    conn: &mut Conn,
    (content, manifest, status): (&Content, &Manifest, &Status),
    (server, wish): (&ServerName, &Wish<'_>),
) -> Result<Start, BackupError> {
    let refused = |why: String| {
        let anew =
            "to begin anew and throw away all that it holds, type its name after --overwrite";
        Err(BackupError::NotEmpty(format!("{server} {why}; {anew}")))
    };
    let (own, schemas) = ((manifest, status), content.schemas.as_slice());
    let Some(note) = &content.broken_off else {
        let executed = &status.executed;
        let holds = executed.contains(&manifest.position) && !executed.is_empty();
        let nothing_else = wish.follow.is_some() || manifest.position.contains(executed);
        return match (holds && nothing_else, content.is_empty() || wish.overwrite.is_some()) {
            (true, _) if wish.overwrite.is_none() => Ok(Start::Done),
            (_, true) => Ok(Start::Anew),
            (_, false) => refused(format!("holds nothing of backup {} to go on with", manifest.id)),
        };
    };
    let fits = resuming::untouched(conn, (note, schemas), own).await;
    match fits.map_err(|error| BackupError::server(server, error))? {
        Ok(()) => Ok(Start::On(note.clone())),
        Err(_) if wish.overwrite.is_some() => Ok(Start::Anew),
        Err(why) => refused(why),
    }
}

pub(super) async fn session(
    destination: &Destination<'_>,
    server: &ServerName,
) -> Result<Conn, BackupError> {
    let (address, account) = (&destination.address, &destination.account);
    connect(address, account, CONNECT_LIMIT, &Distance::default())
        .await
        .map_err(|error| BackupError::Connect { server: server.to_string(), error })
}

pub(super) async fn ask(
    conn: &mut Conn,
    server: &ServerName,
    statement: &str,
) -> Result<(), BackupError> {
    conn.query_drop(statement).await.map_err(|error| BackupError::server(server, error))
}

pub(super) async fn look(
    destination: &Destination<'_>,
    server: &ServerName,
) -> Result<Status, BackupError> {
    let spec = ServerSpec::new(server.clone(), destination.address.clone(), "new".into());
    let mut prober = Prober::new(&spec, destination.account.clone(), Timing::default());
    let mut sight = prober.probe().await;
    for _ in 1..LOOKS {
        if !matches!(sight, Sight::Hung | Sight::Unreachable) {
            break;
        }
        tokio::time::sleep(BETWEEN).await;
        sight = prober.probe().await;
    }
    match sight {
        Sight::Alive(status) => Ok(*status),
        sight => Err(BackupError::server(server, sight)),
    }
}

/// Whether a server is of a kind that can take a backup.
fn fit(manifest: &Manifest, status: &Status, server: &ServerName) -> Result<(), BackupError> {
    let refused = |why: String| Err(BackupError::NotEmpty(format!("{server} {why}")));
    if status.flavor != manifest.flavor {
        return refused(format!("is {}, the backup is of {}", status.flavor, manifest.flavor));
    }
    let (has, of) = (status.version, manifest.version);
    if (has.major, has.minor) < (of.major, of.minor) {
        return refused(format!("has version {has}, the backup is of {of}; use a newer server"));
    }
    Ok(())
}

/// Feeds all data to a server with its client program; the statements about accounts are returned.
pub(super) async fn load(
    (target, manifest): (&Target, &Manifest),
    (identities, passing): (&Identities, Option<Passing>),
    client: Command,
    progress: &watch::Sender<Progress>,
) -> Result<String, BackupError> {
    let accounts = manifest.plain_bytes.saturating_sub(manifest.accounts_at);
    if accounts > MOST_BYTES as u64 {
        let (object, what) = (manifest.object.clone(), format!("{accounts} bytes of accounts"));
        return Err(BackupError::Damaged { object, what });
    }
    let mut opened = Opened::new(target, manifest, identities, progress).await?;
    let mut tool = Tool::start(client)?;
    let mut input = tool.input()?;
    let fed = feed(&mut opened, manifest.accounts_at, (&mut input, passing)).await;
    drop(input);
    match (tool.finished().await, fed) {
        // A program that fails stops reading, and says why.
        (Err(error), Ok(()) | Err(BackupError::Io { .. })) => return Err(error),
        (_, fed) => fed?,
    }
    let mut script = Vec::new();
    opened.pass_on(accounts, &mut script).await?;
    opened.end().await?;
    String::from_utf8(script).map_err(|_| BackupError::Damaged {
        object: manifest.object.clone(),
        what: "its accounts are no text".to_owned(),
    })
}

async fn feed(
    opened: &mut Opened<'_>,
    bytes: u64,
    (input, passing): (&mut ChildStdin, Option<Passing>),
) -> Result<(), BackupError> {
    match passing {
        None => opened.pass_on(bytes, input).await?,
        Some(passing) => feed_noting(opened, bytes, (input, passing)).await?,
    }
    input.shutdown().await.map_err(BackupError::io(FEEDING))
}

/// Feeds what a restore carries out that can be gone on with.
async fn feed_noting(
    opened: &mut Opened<'_>,
    bytes: u64,
    (input, mut passing): (&mut ChildStdin, Passing),
) -> Result<(), BackupError> {
    let (mut left, mut read) = (bytes, Vec::new());
    let mut sql = Passing::head().into_bytes();
    while left > 0 {
        let most = left.min(PIECE);
        opened.pass_on(most, &mut read).await?;
        left -= most;
        passing.pass(&read, &mut sql)?;
        input.write_all(&sql).await.map_err(BackupError::io(FEEDING))?;
        read.clear();
        sql.clear();
    }
    passing.end(&mut sql)?;
    input.write_all(&sql).await.map_err(BackupError::io(FEEDING))
}

/// Makes the accounts and sets the position, then looks whether the server has it.
async fn place(
    destination: &Destination<'_>,
    manifest: &Manifest,
    server: &ServerName,
    script: &str,
) -> Result<Vec<String>, BackupError> {
    let mut conn = session(destination, server).await?;
    ask(&mut conn, server, "SET SESSION sql_log_bin = 0").await?;
    let made = make_accounts(&mut conn, script).await;
    let refused = made.map_err(|error| BackupError::server(server, error))?;
    let status = look(destination, server).await?;
    if !status.executed.contains(&manifest.position) {
        let variable = match manifest.flavor {
            Flavor::MySql => "gtid_purged",
            Flavor::MariaDb => "gtid_slave_pos",
        };
        // A position holds letters, digits, colons, commas and dashes only.
        let position = manifest.position.to_wait_text();
        ask(&mut conn, server, &format!("SET GLOBAL {variable} = '{position}'")).await?;
    }
    let status = look(destination, server).await?;
    if !status.executed.contains(&manifest.position) {
        let what = format!(
            "its position is {} and not the backup's, {}",
            status.executed, manifest.position
        );
        return Err(BackupError::server(server, what));
    }
    Ok(refused)
}

/// Makes the accounts, as far as the server takes them; gives back what it refused.
pub(super) async fn make_accounts(
    conn: &mut Conn,
    script: &str,
) -> Result<Vec<String>, mysql_async::Error> {
    let mut refused = Vec::new();
    for statement in Accounts::statements_of(script) {
        match conn.query_drop(statement).await {
            Ok(()) => {}
            Err(mysql_async::Error::Server(error)) => {
                refused.push(format!("{} (error {})", named(statement), error.code));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}

/// A statement about an account without what is secret in it.
fn named(statement: &str) -> String {
    let secret = [" IDENTIFIED ", " REQUIRE ", " AS "];
    let end = secret.iter().filter_map(|word| statement.find(word)).min();
    let shown = &statement[..end.unwrap_or(statement.len())];
    shown.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn no_password_is_shown() {
        let statement = "CREATE USER IF NOT EXISTS `a`@`%` IDENTIFIED BY PASSWORD '*6C7A'";
        assert_eq!(named(statement), "CREATE USER IF NOT EXISTS `a`@`%`");
        let statement = "GRANT USAGE ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD '*6C7A'";
        assert_eq!(named(statement), "GRANT USAGE ON *.* TO `a`@`%`");
        assert_eq!(named("GRANT `r` TO `a`"), "GRANT `r` TO `a`");
    }
}
