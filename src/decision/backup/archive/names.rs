//! What the objects of an archive are called at a target.
//!
//! ```text
//! CLUSTER/binlogs/manifests/NAME.json               written last: a segment exists when this does
//! CLUSTER/binlogs/data/NAME.binlog.zst[.age]        a binary log, as `mysqlbinlog` reads it
//! CLUSTER/binlogs/reached.json                      up to when nothing is missing
//! ```
//!
//! NAME is `000000000042-20261122T191500123Z-20261122T191601456Z-e01f22c3`: the segment's number, the moments
//! of its earliest and latest commit, whose it is (which the first versions left out), and a word when it
//! does not go on where the one before it ended.

use crate::clock::WallTime;
use crate::decision::topology::ClusterName;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

const DIGITS: usize = 12;

/// How a segment's beginning is related to what was archived before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beginning {
    /// Nothing was archived before.
    Start,
    /// With the transaction after the last one archived.
    Continues,
    /// Earlier than that: a failover lost transactions that had been archived.
    Fork,
    /// Later than that: no server had the transactions between any more.
    Gap,
}

impl Beginning {
    fn word(self) -> Option<&'static str> {
        match self {
            Beginning::Continues => None,
            Beginning::Start => Some("start"),
            Beginning::Fork => Some("fork"),
            Beginning::Gap => Some("gap"),
        }
    }
}

/// A segment's name; later segments have higher numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SegmentName {
    /// Its number; the next segment has the next one.
    pub number: u64,
    /// When the earliest of its transactions was committed.
    pub first: WallTime,
    /// When the latest of its transactions was committed.
    pub last: WallTime,
    /// How it is related to the one before it.
    pub begins: Beginning,
    /// The number of the archiver that stored it: two of them never write the same object.
    pub writer: Option<u32>,
}

/// A text that is no segment's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no segment's name")]
pub struct NameError(String);

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (compact(self.first), compact(self.last));
        write!(f, "{:0DIGITS$}-{first}-{last}", self.number)?;
        if let Some(writer) = self.writer {
            write!(f, "-{writer:08x}")?;
        }
        self.begins.word().map_or(Ok(()), |word| write!(f, "-{word}"))
    }
}

impl FromStr for SegmentName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<SegmentName, NameError> {
        read(text).ok_or_else(|| NameError(text.chars().take(100).collect()))
    }
}

impl TryFrom<String> for SegmentName {
    type Error = NameError;

    fn try_from(text: String) -> Result<SegmentName, NameError> {
        text.parse()
    }
}

impl From<SegmentName> for String {
    fn from(name: SegmentName) -> String {
        name.to_string()
    }
}

fn read(text: &str) -> Option<SegmentName> {
    let mut pieces = text.split('-').peekable();
    let number = pieces.next().filter(|digits| digits.len() == DIGITS)?;
    let number =
        number.bytes().all(|digit| digit.is_ascii_digit()).then(|| number.parse().ok())??;
    let (first, last) = (moment(pieces.next()?)?, moment(pieces.next()?)?);
    let writer = pieces.peek().and_then(|piece| writer(piece));
    if writer.is_some() {
        pieces.next();
    }
    let begins = match pieces.next() {
        None => Beginning::Continues,
        Some("start") => Beginning::Start,
        Some("fork") => Beginning::Fork,
        Some("gap") => Beginning::Gap,
        Some(_) => return None,
    };
    let name = SegmentName { number, first, last, begins, writer };
    (pieces.next().is_none() && first <= last).then_some(name)
}

/// Reads `e01f22c3`.
fn writer(text: &str) -> Option<u32> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let fits = text.len() == 8 && text.bytes().all(is_digit);
    fits.then(|| u32::from_str_radix(text, 16).ok())?
}

fn compact(at: WallTime) -> String {
    at.to_string().chars().filter(char::is_ascii_alphanumeric).collect()
}

/// Reads `20261122T191500123Z`.
fn moment(text: &str) -> Option<WallTime> {
    if text.len() != 19 || !text.is_ascii() || text.get(8..9) != Some("T") || !text.ends_with('Z') {
        return None;
    }
    let part = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse::<i16>().ok())?
    };
    let small = |from: usize, to: usize| i8::try_from(part(from, to)?).ok();
    let nanoseconds = i32::from(part(15, 18)?) * 1_000_000;
    let (month, day) = (small(4, 6)?, small(6, 8)?);
    let (hour, minute, second) = (small(9, 11)?, small(11, 13)?, small(13, 15)?);
    let at = DateTime::new(part(0, 4)?, month, day, hour, minute, second, nanoseconds).ok()?;
    let millis = at.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond();
    Some(WallTime(u64::try_from(millis).ok()?))
}

/// Where a cluster's archive is.
pub fn archive_of(cluster: &ClusterName) -> String {
    format!("{cluster}/binlogs/")
}

/// Where the manifests of a cluster's segments are.
pub fn manifests_of(cluster: &ClusterName) -> String {
    format!("{}manifests/", archive_of(cluster))
}

/// Where the data of a cluster's segments is.
pub fn data_of(cluster: &ClusterName) -> String {
    format!("{}data/", archive_of(cluster))
}

/// A segment's manifest.
pub fn manifest(cluster: &ClusterName, name: &SegmentName) -> String {
    format!("{}{name}.json", manifests_of(cluster))
}

/// A segment's data.
pub fn data(cluster: &ClusterName, name: &SegmentName, encrypted: bool) -> String {
    let end = if encrypted { ".age" } else { "" };
    format!("{}{name}.binlog.zst{end}", data_of(cluster))
}

/// Where it says up to when nothing is missing.
pub fn reached(cluster: &ClusterName) -> String {
    format!("{}reached.json", archive_of(cluster))
}

/// The segment that a manifest of this name belongs to; none for a name that Regent does not give.
pub fn segment_of(cluster: &ClusterName, manifest: &str) -> Option<SegmentName> {
    manifest.strip_prefix(&manifests_of(cluster))?.strip_suffix(".json")?.parse().ok()
}

/// The segment that data of this name belongs to; none for a name that Regent does not give.
pub fn segment_of_data(cluster: &ClusterName, data: &str) -> Option<SegmentName> {
    let name = data.strip_prefix(&data_of(cluster))?;
    name.strip_suffix(".age").unwrap_or(name).strip_suffix(".binlog.zst")?.parse().ok()
}

/// What the names of all manifests of that number and later ones come after.
pub fn before(cluster: &ClusterName, number: u64) -> String {
    format!("{}{number:0DIGITS$}", manifests_of(cluster))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_were_made_of() {
        let (first, last) = (WallTime(1_795_374_900_123), WallTime(1_795_374_961_456));
        for begins in [Beginning::Start, Beginning::Continues, Beginning::Fork, Beginning::Gap] {
            let mut name = SegmentName { number: 42, first, last, begins, writer: None };
            assert_eq!(name.to_string().parse(), Ok(name.clone()), "{name}");
            name.writer = Some(0x00e0_1f22);
            assert_eq!(name.to_string().parse(), Ok(name.clone()), "{name}");
            let cluster = ClusterName::from("shop");
            assert_eq!(segment_of(&cluster, &manifest(&cluster, &name)), Some(name.clone()));
            assert_eq!(segment_of(&cluster, &data(&cluster, &name, true)), None);
            for encrypted in [true, false] {
                let data = data(&cluster, &name, encrypted);
                assert_eq!(segment_of_data(&cluster, &data), Some(name.clone()));
            }
            assert!(before(&cluster, 42) < manifest(&cluster, &name));
            assert!(before(&cluster, 43) > manifest(&cluster, &name));
        }
    }

    #[test]
    fn other_names_are_nobodys() {
        let right = "000000000042-20261122T191500123Z-20261122T191601456Z";
        assert!(right.parse::<SegmentName>().is_ok());
        for (from, to) in [
            ("Z-2026", "Z-2025"),
            ("1122T", "1322T"),
            ("000000000042", "42"),
            ("500123Z-", "500+23Z-"),
            ("456Z", "456Z-moon"),
            ("456Z", "456Z-gap-gap"),
            ("456Z", "456Z-E01F22C3"),
            ("456Z", "456Z-e01f22c"),
            ("456Z", "456Z-gap-e01f22c3"),
            ("0042-", "00\u{e9}2-"),
        ] {
            let wrong = right.replacen(from, to, 1);
            assert!(wrong.parse::<SegmentName>().is_err(), "{wrong} was taken");
        }
    }
}
