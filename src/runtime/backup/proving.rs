//! Looking whether a backup is worth anything: reading it again, or restoring it into a server that
//! is thrown away afterwards, and writing beside it what came of that.
//!
//! Only what is wrong with the backup itself counts against it. An attempt that fails for another reason,
//! such as a full disk here, has no result.

use super::copied;
use super::counting::count;
use super::fetching::{failed_at, proof, verify};
use super::packing::Identities;
use super::restoring::{load, make_accounts};
use super::target::{Target, TargetError};
use super::throwaway::{Throwaway, wanted};
use super::tool::load_by_socket;
use super::{BackupError, Progress};
use crate::clock::{Clock, WallTime};
use crate::config::backups::Backups;
use crate::decision::backup::counts::Compared;
use crate::decision::backup::manifest::{Kind, Manifest};
use crate::decision::backup::names;
use crate::decision::backup::proof::{Check, How, Proof, ProofError};
use crate::decision::gtid::Gtids;
use crate::decision::topology::Flavor;
use bytes::Bytes;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::watch;

/// What to look at, and what with.
#[derive(Clone, Copy, Debug)]
pub struct Examination<'a> {
    /// Where it is.
    pub target: &'a Target,
    /// Which backup.
    pub manifest: &'a Manifest,
    /// What opens it.
    pub identities: &'a Identities,
    /// The programs, and where a server may be started.
    pub backups: &'a Backups,
    /// The clock.
    pub clock: Clock,
}

/// What came of looking.
#[derive(Clone, Debug, PartialEq)]
pub struct Examined {
    /// What was found.
    pub check: Check,
    /// Why it could not be written beside the backup.
    pub unwritten: Option<String>,
}

/// Looks, and writes beside the backup what was found; an error says nothing about the backup.
pub async fn examine(
    how: How,
    examination: &Examination<'_>,
    progress: &watch::Sender<Progress>,
) -> Result<Examined, BackupError> {
    let begun = examination.clock.now().wall;
    let found = match how {
        How::Read => read(examination, progress).await,
        How::Restored => match examination.manifest.method.kind() {
            Kind::Logical => restored(examination, progress).await,
            Kind::Physical => copied::proven(examination, progress).await,
        },
    };
    let check = match found {
        Ok(found) => found.check(begun, examination.clock.now().wall),
        Err(error) => {
            let error = at_fault(examination, error).await?;
            Check::good(begun, examination.clock.now().wall).failed(&error.to_string())
        }
    };
    let unwritten = write(examination, how, &check).await.err().map(|error| error.to_string());
    Ok(Examined { check, unwritten })
}

/// What a backup turned out to be.
#[derive(Default)]
pub(super) struct Found {
    pub server: Option<String>,
    pub compared: Option<Compared>,
    /// How many tables of a copy were read whole.
    pub checked: Option<u64>,
    pub refused: Vec<String>,
    /// The restored server's position, where it is not the backup's.
    pub elsewhere: Option<String>,
}

impl Found {
    fn check(self, begun: WallTime, at: WallTime) -> Check {
        let Found { server, compared, checked, refused, elsewhere } = self;
        let different = compared.as_ref().filter(|compared| !compared.is_equal());
        let why = different.map(|compared| {
            let count = compared.differences.len() as u64 + compared.more;
            let first = compared.differences.iter().take(3).map(ToString::to_string);
            let shown = first.collect::<Vec<_>>().join("; ");
            let more = if count > 3 { format!(" and {} more", count - 3) } else { String::new() };
            format!("what is restored is not what was backed up: {shown}{more}")
        });
        let check = Check { server, compared, checked, refused, ..Check::good(begun, at) };
        match elsewhere.or(why) {
            Some(why) => check.failed(&why),
            None => check,
        }
    }
}

async fn read(
    examination: &Examination<'_>,
    progress: &watch::Sender<Progress>,
) -> Result<Found, BackupError> {
    let Examination { target, manifest, identities, .. } = *examination;
    verify(target, manifest, identities, progress).await?;
    Ok(Found::default())
}

async fn restored(
    examination: &Examination<'_>,
    progress: &watch::Sender<Progress>,
) -> Result<Found, BackupError> {
    let Examination { target, manifest, identities, backups, .. } = *examination;
    let server = Throwaway::start(&wanted((manifest, backups), examination.clock)).await?;
    let client = load_by_socket(manifest.flavor, &backups.tools, server.socket());
    let loaded = load((target, manifest), (identities, None), client, progress).await;
    let script = loaded.map_err(|error| blame(&server, error))?;
    let compared = compare(&server, manifest, &script).await;
    compared.map_err(|error| {
        let what = format!("asking it what it holds: {error}");
        blame(&server, BackupError::Throwaway(what))
    })
}

/// Makes the accounts, looks at the position and compares all tables.
async fn compare(
    server: &Throwaway,
    manifest: &Manifest,
    script: &str,
) -> Result<Found, mysql_async::Error> {
    let mut conn = server.connect().await?;
    let position = &manifest.position;
    if manifest.flavor == Flavor::MariaDb {
        // A dump of MySQL sets it itself. A position holds digits, commas and dashes only.
        let text = position.to_wait_text();
        conn.query_drop(format!("SET GLOBAL gtid_slave_pos = '{text}'")).await?;
    }
    let mut found =
        Found { server: Some(format!("{} {}", server.flavor, server.version)), ..Found::default() };
    let at = position_of(&mut conn, manifest.flavor).await?;
    let wanted = position.to_wait_text();
    if at.as_ref().is_none_or(|at| at.to_wait_text() != wanted) {
        let at = at.map_or_else(|| "none".to_owned(), |at| at.to_string());
        let at: String = at.chars().take(100).collect();
        let wanted: String = wanted.chars().take(100).collect();
        found.elsewhere = Some(format!("the position is {at} after the restore and not {wanted}"));
    }
    if let Some(counts) = manifest.tables.as_ref().filter(|counts| counts.missing.is_none()) {
        let mut counting = server.connect().await?;
        let sums = count(&mut counting, &manifest.schemas).await?;
        found.compared = Some(counts.compare(&sums));
    }
    found.refused = make_accounts(&mut conn, script).await?;
    Ok(found)
}

pub(super) async fn position_of(
    conn: &mut Conn,
    flavor: Flavor,
) -> Result<Option<Gtids>, mysql_async::Error> {
    let question = match flavor {
        Flavor::MySql => "SELECT @@global.gtid_executed",
        Flavor::MariaDb => "SELECT @@global.gtid_slave_pos",
    };
    let text: Option<String> = conn.query_first(question).await?;
    Ok(text.and_then(|text| Gtids::parse(flavor, &text).ok()))
}

/// A server that ended, or has no room left, says nothing about what it was fed.
pub(super) fn blame(server: &Throwaway, error: BackupError) -> BackupError {
    if !matches!(error, BackupError::Tool { .. } | BackupError::Throwaway(_)) {
        return error;
    }
    if !server.is_running() {
        let what = format!("it ended while it was used: {}", server.last_words());
        return BackupError::Throwaway(what);
    }
    if !server.has_room() {
        let directory = server.directory().display();
        let what = format!(
            "there is no room left in {directory}; free some, or name a roomier place in \
             backups.verify.directory"
        );
        return BackupError::Throwaway(what);
    }
    error
}

/// Passes on what is the backup's own fault; gives up with what is not.
async fn at_fault(
    examination: &Examination<'_>,
    error: BackupError,
) -> Result<BackupError, BackupError> {
    match &error {
        BackupError::Damaged { .. } | BackupError::Tool { .. } => Ok(error),
        BackupError::Target { error: TargetError::Missing(_), .. } => Ok(error),
        BackupError::Target { error: TargetError::Refused { .. }, .. }
            if is_cut_short(examination).await =>
        {
            Ok(error)
        }
        _ => Err(error),
    }
}

/// Whether the beginning of the data is to be had, and its end is not there.
async fn is_cut_short(examination: &Examination<'_>) -> bool {
    let Examination { target, manifest, .. } = *examination;
    let begins = target.read(&manifest.object, 0, 1).await.is_ok();
    let last = manifest.bytes.saturating_sub(1);
    let ends = target.read(&manifest.object, last, 1).await;
    begins && matches!(ends, Err(TargetError::Refused { .. } | TargetError::Missing(_)))
}

/// Writes what was found beside the backup, next to what the other way of looking found.
async fn write(examination: &Examination<'_>, how: How, check: &Check) -> Result<(), BackupError> {
    let Examination { target, manifest, .. } = *examination;
    let object = names::proof(&manifest.cluster, &manifest.id);
    let new = || Proof::new(manifest.cluster.clone(), manifest.id.clone());
    let mut known = match proof(target, manifest).await {
        Ok(known) => known.unwrap_or_else(new),
        // What a newer version wrote stays; anything else that cannot be used is replaced.
        Err(BackupError::Proof { error, .. }) if !matches!(error, ProofError::Newer(_)) => new(),
        Err(BackupError::Target { error: TargetError::Refused { .. }, .. }) => new(),
        Err(error) => return Err(error),
    };
    known.note(how, check.clone());
    let bytes = known.to_bytes();
    let bytes = bytes.map_err(|error| BackupError::Proof { object: object.clone(), error })?;
    let put = target.put(&object, Bytes::from(bytes)).await;
    put.map_err(|error| failed_at(target, error))
}
