//! Reads `backups.binlogs`: how the binary log is archived.

use super::fields::BINLOGS;
use super::reader::{Field, Reading, Section};
use super::tree::Kind;
use super::values;
use std::time::Duration;

const SIZES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 30;

/// How the binary log is archived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binlogs {
    /// A segment is stored when it has so many bytes; a transaction is never divided.
    pub segment_size: u64,
    /// A segment is stored when its first transaction has waited so long.
    pub segment_age: Duration,
}

impl Default for Binlogs {
    fn default() -> Binlogs {
        Binlogs { segment_size: 16 << 20, segment_age: Duration::from_secs(60) }
    }
}

pub(super) fn binlogs(reading: &mut Reading<'_>, backups: &Section<'_>) -> Binlogs {
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
