//! Reads what proves backups: whether tables are counted, and how and when a backup is restored for
//! a proof.

use super::fields::VERIFY;
use super::reader::{Field, Reading, Section};
use crate::decision::backup::proving::{Proving, When};
use crate::decision::backup::schedule::Schedule;
use jiff::tz::TimeZone;
use std::path::PathBuf;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);
const YEAR: Duration = Duration::from_secs(366 * 24 * 3_600);
const USUAL_ALERT: Duration = Duration::from_secs(26 * 3_600);
/// On a disk, unlike the usual directory for temporary files.
const USUAL_DIRECTORY: &str = "/var/tmp";

/// How backups are proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verify {
    /// The database's server program; looked for where there is none.
    pub server: Option<PathBuf>,
    /// Where the data of a server that is started for a proof lies so long.
    pub directory: PathBuf,
    /// The file with the secret key for a watcher's proofs.
    pub identity: Option<PathBuf>,
    /// When backups are proven, if that is wanted.
    pub proving: Option<Proving>,
}

impl Default for Verify {
    fn default() -> Verify {
        let directory = PathBuf::from(USUAL_DIRECTORY);
        Verify { server: None, directory, identity: None, proving: None }
    }
}

/// Whether the tables are counted when a backup is made.
pub(super) fn checksums(reading: &mut Reading<'_>, section: &Section<'_>) -> bool {
    let words = [("on", true), ("off", false)];
    let field = reading.optional(section, "checksums");
    field.and_then(|field| reading.choice(&field, &words)).unwrap_or(true)
}

/// Reads `verify`.
pub(super) fn verify(reading: &mut Reading<'_>, section: &Section<'_>) -> Verify {
    let field = reading.optional(section, "verify");
    let Some(section) = field.and_then(|field| reading.section(&field, VERIFY)) else {
        return Verify::default();
    };
    let mut path = |name: &str| {
        let field = reading.optional(&section, name)?;
        let text = reading.text(&field)?;
        if text.is_empty() {
            reading.wrong(&field, "is empty; write a path, or remove it".to_owned());
        }
        Some(reading.base.join(text))
    };
    let (server, directory, identity) = (path("server"), path("directory"), path("identity"));
    let directory = directory.unwrap_or_else(|| PathBuf::from(USUAL_DIRECTORY));
    Verify { server, directory, identity, proving: proving(reading, &section) }
}

fn proving(reading: &mut Reading<'_>, section: &Section<'_>) -> Option<Proving> {
    let when = when(reading, section);
    let field = reading.optional(section, "alert_after");
    let alert_after = match &field {
        Some(field) => reading.duration(field, MINUTE..=YEAR)?,
        None => USUAL_ALERT,
    };
    if let (None, Some(field)) = (&when, &field) {
        let what = "is of no use, as nothing says when backups are proven; write every or cron";
        reading.wrong(field, what.to_owned());
    }
    if let Some(When::Every(span)) = &when
        && *span > alert_after
    {
        let what = "is longer than alert_after, so that every proof would come too late";
        reading.error(section.at("every"), &section.path_of("every"), what.to_owned());
    }
    Some(Proving { when: when?, alert_after })
}

fn when(reading: &mut Reading<'_>, section: &Section<'_>) -> Option<When> {
    let (every, cron) = (reading.optional(section, "every"), reading.optional(section, "cron"));
    let zone = reading.optional(section, "time_zone");
    match (every, cron) {
        (Some(_), Some(cron)) => {
            reading.wrong(&cron, "stands beside every; write one of them".to_owned());
            None
        }
        (Some(every), None) => {
            if let Some(zone) = zone {
                reading.wrong(&zone, "says nothing to every; it belongs to cron".to_owned());
            }
            reading.duration(&every, HOUR..=YEAR).map(When::Every)
        }
        (None, Some(cron)) => {
            let zone = match zone {
                Some(zone) => time_zone(reading, &zone)?,
                None => TimeZone::UTC,
            };
            let pattern = reading.text(&cron)?;
            match Schedule::new(&pattern, zone) {
                Ok(schedule) => Some(When::Cron(Box::new(schedule))),
                Err(error) => {
                    reading.wrong(&cron, error.to_string());
                    None
                }
            }
        }
        (None, None) => None,
    }
}

fn time_zone(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<TimeZone> {
    let name = reading.text(field)?;
    let found = TimeZone::get(&name).ok();
    if found.is_none() {
        let what = format!("{} is no time zone; write one such as Europe/Paris", field.shown());
        reading.wrong(field, what);
    }
    found
}
