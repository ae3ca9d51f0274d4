//! Reads `backups.binlogs`: how the binary log is archived.

use super::backups::Target;
use super::fields::BINLOGS;
use super::reader::{Field, Reading, Section};
use super::schedules::target;
use super::tree::Kind;
use super::values;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const USUAL_ALERT: Duration = Duration::from_secs(15 * 60);
const LONGEST_ALERT: Duration = Duration::from_secs(30 * 24 * 3_600);
const SIZES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 30;

/// How the binary log is archived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binlogs {
    /// A segment is stored when it has so many bytes; a transaction is never divided.
    pub segment_size: u64,
    /// A segment is stored when its first transaction has waited so long.
    pub segment_age: Duration,
    /// The target that the watchers archive it at, if they do.
    pub archive_to: Option<String>,
    /// An archive that is behind for longer is worth an alert.
    pub alert_after: Duration,
}

impl Default for Binlogs {
    fn default() -> Binlogs {
        Binlogs {
            segment_size: 16 << 20,
            segment_age: MINUTE,
            archive_to: None,
            alert_after: USUAL_ALERT,
        }
    }
}

pub(super) fn binlogs(
    reading: &mut Reading<'_>,
    backups: &Section<'_>,
    targets: &[Target],
) -> Binlogs {
    let mut found = Binlogs::default();
    let Some(field) = reading.optional(backups, "binlogs") else { return found };
    let Some(section) = reading.section(&field, BINLOGS) else { return found };
    if let Some(field) = reading.optional(&section, "segment_size") {
        found.segment_size = size(reading, &field).unwrap_or(found.segment_size);
    }
    if let Some(field) = reading.optional(&section, "segment_age") {
        let range = Duration::from_secs(1)..=Duration::from_secs(3_600);
        found.segment_age = reading.duration(&field, range).unwrap_or(found.segment_age);
    }
    if let Some(field) = reading.optional(&section, "archive_to") {
        found.archive_to = target(reading, &field, targets);
    }
    // A segment is stored when it is that old, and no sooner.
    let least = (found.segment_age * 2).max(MINUTE);
    match reading.optional(&section, "alert_after") {
        Some(field) => {
            if found.archive_to.is_none() && !section.has("archive_to") {
                let what = "is of no use, as the watchers archive nothing; write archive_to";
                reading.wrong(&field, what.to_owned());
            }
            let said = reading.duration(&field, least..=LONGEST_ALERT);
            found.alert_after = said.unwrap_or(found.alert_after);
        }
        None => found.alert_after = found.alert_after.max(least),
    }
    found
}

fn size(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<u64> {
    let found = match &field.node.kind {
        Kind::Text(_) => values::size(&reading.text(field)?),
        _ => None,
    };
    let fits = found.filter(|bytes| SIZES.contains(bytes));
    if fits.is_none() {
        let what = format!("{} will not do; write 1MiB to 1GiB", field.shown());
        reading.wrong(field, what);
    }
    fits
}
