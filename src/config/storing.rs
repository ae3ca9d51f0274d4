//! Reads how a target is borne with that does not take what it is sent, and what it is asked for beside.

use super::fields::{OBJECT_LOCK, SPOOL};
use super::reader::{Field, Reading, Section};
use super::tree::Kind;
use super::values;
use std::path::PathBuf;
use std::time::Duration;

const USUAL_PATIENCE: Duration = Duration::from_secs(3600);
const MOST_PATIENCE: Duration = Duration::from_secs(24 * 3600);
const USUAL_REQUEST: Duration = Duration::from_secs(120);
const MOST_REQUEST: Duration = Duration::from_secs(3600);
/// Ten years: what is locked by mistake is paid for so long.
const MOST_DAYS: u32 = 3650;

/// What is done while a target does not take what it is sent.
#[derive(Clone, Debug)]
pub struct Storing {
    /// How long a request is made again before the target is given up.
    pub give_up_after: Duration,
    /// Where parts wait meanwhile; without one the dump waits.
    pub spool: Option<Spool>,
    /// At most so many bytes a second are stored.
    pub rate_limit: Option<u64>,
}

/// Where parts wait that S3 does not take.
#[derive(Clone, Debug)]
pub struct Spool {
    /// A directory of this machine.
    pub folder: PathBuf,
    /// How many bytes of one backup it may hold.
    pub limit: u64,
}

/// How long nobody may change or remove what was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectLock {
    /// Who may lift it.
    pub mode: LockMode,
    /// For how many days.
    pub days: u32,
}

/// Who may lift a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Whoever has a certain permission.
    Governance,
    /// Nobody.
    Compliance,
}

/// Reads these fields of `backups`.
pub(super) fn storing(reading: &mut Reading<'_>, section: &Section<'_>) -> Storing {
    let give_up_after = reading
        .optional(section, "give_up_after")
        .and_then(|field| reading.duration(&field, Duration::from_secs(1)..=MOST_PATIENCE))
        .unwrap_or(USUAL_PATIENCE);
    let spool = reading.optional(section, "spool").and_then(|field| spool(reading, &field));
    let rate_limit = reading
        .optional(section, "rate_limit")
        .and_then(|field| size(reading, &field, "20MiB, which is per second"));
    Storing { give_up_after, spool, rate_limit }
}

fn spool(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<Spool> {
    let section = reading.section(field, SPOOL)?;
    let folder = reading.need(&section, "folder", "/var/spool/regent").and_then(|field| {
        let folder = reading.text(&field)?;
        if folder.is_empty() {
            reading.wrong(&field, "is empty; write /var/spool/regent".to_owned());
        }
        Some(reading.base.join(folder))
    });
    let limit = reading
        .need(&section, "limit", "50GiB")
        .and_then(|field| size(reading, &field, "how much may lie there, such as 50GiB"));
    Some(Spool { folder: folder?, limit: limit? })
}

/// Reads how long a request to S3 may take.
pub(super) fn request_limit(reading: &mut Reading<'_>, section: &Section<'_>) -> Duration {
    reading
        .optional(section, "request_limit")
        .and_then(|field| reading.duration(&field, Duration::from_secs(1)..=MOST_REQUEST))
        .unwrap_or(USUAL_REQUEST)
}

/// Reads how long nobody may remove what was stored.
pub(super) fn object_lock(reading: &mut Reading<'_>, section: &Section<'_>) -> Option<ObjectLock> {
    let field = reading.optional(section, "object_lock")?;
    let section = reading.section(&field, OBJECT_LOCK)?;
    let modes = [("governance", LockMode::Governance), ("compliance", LockMode::Compliance)];
    let mode = reading
        .need(&section, "mode", "governance")
        .and_then(|field| reading.choice(&field, &modes));
    let days = reading
        .need(&section, "days", "30")
        .and_then(|field| reading.integer(&field, 1..=MOST_DAYS));
    Some(ObjectLock { mode: mode?, days: days? })
}

fn size(reading: &mut Reading<'_>, field: &Field<'_>, right: &str) -> Option<u64> {
    let found = match &field.node.kind {
        Kind::Text(_) => values::size(&reading.text(field)?),
        _ => None,
    };
    let fits = found.filter(|bytes| *bytes > 0);
    if fits.is_none() {
        reading.wrong(field, format!("{} will not do; write {right}", field.shown()));
    }
    fits
}
