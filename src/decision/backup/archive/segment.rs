//! What is known of one segment. Written last; without it there is no segment.

use super::names::{self, Beginning, SegmentName};
use crate::clock::WallTime;
use crate::decision::backup::manifest::{ManifestError, Part, Sha256, parts_fault};
use crate::decision::cluster::Unknown;
use crate::decision::gtid::Gtids;
use crate::decision::topology::{ClusterName, Flavor, ServerName, Version};
use serde::{Deserialize, Serialize};

/// The newest format that this version writes and reads.
pub const FORMAT: u32 = 1;
/// No segment's manifest is larger; its sets may have tens of thousands of intervals.
pub const MOST_BYTES: usize = 8 << 20;

/// Consecutive transactions of a cluster's binary log, as they are archived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Which version of this form it has.
    pub format: u32,
    /// Its name.
    pub name: SegmentName,
    /// The cluster.
    pub cluster: ClusterName,
    /// The server that it was read from.
    pub server: ServerName,
    /// That server's product.
    pub flavor: Flavor,
    /// That server's version.
    pub version: Version,
    /// Every transaction before its first one.
    pub from: Gtids,
    /// The transactions in it.
    pub gtids: Gtids,
    /// Every transaction up to its last one; the next segment goes on from here.
    pub to: Gtids,
    /// Archived before, and lost by a failover: what follows was written without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Gtids>,
    /// Never archived: no server had them any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Gtids>,
    /// How many transactions it has.
    pub transactions: u64,
    /// When it was stored.
    pub stored: WallTime,
    /// How many bytes of binary log it has.
    pub plain_bytes: u64,
    /// The public keys it was encrypted to; empty when it is not encrypted.
    #[serde(default)]
    pub encrypted_to: Vec<String>,
    /// The object that holds the data.
    pub object: String,
    /// How many bytes that object has.
    pub bytes: u64,
    /// The object's checksum, as `sha256sum` tells it.
    pub sha256: Sha256,
    /// The object's parts, one after the other.
    pub parts: Vec<Part>,
    /// What newer versions added.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Up to when an archive lacks nothing: all that its primary had committed then is in its segments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// Which version of this form it has.
    pub format: u32,
    /// When the primary was asked.
    pub at: WallTime,
    /// What the archive held.
    pub position: Gtids,
    /// What newer versions added.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// The one field that every format has.
#[derive(Deserialize)]
struct Formatted {
    format: u32,
}

impl Segment {
    /// Reads the manifest of that segment of that cluster, and refuses what does not fit together.
    pub fn read(
        cluster: &ClusterName,
        name: &SegmentName,
        bytes: &[u8],
    ) -> Result<Segment, ManifestError> {
        let segment: Segment = formatted(bytes)?;
        match segment.fault(cluster, name) {
            Some(fault) => Err(ManifestError::Wrong(fault)),
            None => Ok(segment),
        }
    }

    /// What does not fit together.
    fn fault(&self, cluster: &ClusterName, name: &SegmentName) -> Option<String> {
        if &self.cluster != cluster || &self.name != name {
            return Some(format!("it says it is {} of {}", self.name, self.cluster));
        }
        // Only this object is ever read or removed, whatever the manifest says.
        let object = names::data(cluster, name, !self.encrypted_to.is_empty());
        if self.object != object {
            return Some(format!("its data should be {object}"));
        }
        if let Some(fault) = parts_fault(&self.parts, self.bytes) {
            return Some(fault);
        }
        let sets = [Some(&self.from), Some(&self.gtids), Some(&self.to)];
        let sets = sets.into_iter().chain([self.lost.as_ref(), self.missing.as_ref()]).flatten();
        if sets.into_iter().any(|set| set.flavor() != self.flavor) {
            return Some(format!("one of its positions is not one of {}", self.flavor));
        }
        if self.from.union(&self.gtids) != self.to {
            return Some("its transactions do not lead to where it ends".to_owned());
        }
        (self.lost.is_some() != (name.begins == Beginning::Fork))
            .then(|| "its name and its lost transactions contradict each other".to_owned())
    }

    /// How it is written down.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        written(self)
    }
}

impl Reached {
    /// Reads what an archive says of itself.
    pub fn read(bytes: &[u8]) -> Result<Reached, ManifestError> {
        formatted(bytes)
    }

    /// How it is written down.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        written(self)
    }
}

fn formatted<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, ManifestError> {
    if bytes.len() > MOST_BYTES {
        return Err(ManifestError::TooLarge);
    }
    let Formatted { format } = serde_json::from_slice(bytes).map_err(unreadable)?;
    if format > FORMAT {
        return Err(ManifestError::Newer(format));
    }
    serde_json::from_slice(bytes).map_err(unreadable)
}

fn written<T: Serialize>(form: &T) -> Result<Vec<u8>, ManifestError> {
    let text = serde_json::to_vec_pretty(form).map_err(unreadable)?;
    if text.len() > MOST_BYTES { Err(ManifestError::TooLarge) } else { Ok(text) }
}

fn unreadable(error: serde_json::Error) -> ManifestError {
    ManifestError::Unreadable(error.to_string().chars().take(200).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "8f1ac2f0-71ca-11e1-9e33-c80aa9429562";

    /// A position, `A` and `B` being servers, empty for none.
    pub(in crate::decision::backup::archive) fn gtids(text: &str) -> Gtids {
        let flavor = if text.contains(':') { Flavor::MySql } else { Flavor::MariaDb };
        Gtids::parse(flavor, &text.replace('A', A).replace('B', B)).unwrap()
    }

    /// A segment with these transactions after that position, committed from `first` to `last` (seconds).
    pub(in crate::decision::backup::archive) fn segment(
        number: u64,
        begins: Beginning,
        (from, inside): (&str, &str),
        (first, last): (u64, u64),
    ) -> Segment {
        let cluster = ClusterName::from("shop");
        let (first, last) = (WallTime(first * 1_000), WallTime(last * 1_000));
        let name = SegmentName { number, first, last, begins, writer: None };
        let inside = gtids(inside);
        let flavor = inside.flavor();
        let from = if from.is_empty() { Gtids::empty(flavor) } else { gtids(from) };
        let (to, lost) = (from.union(&inside), Gtids::empty(flavor));
        Segment {
            format: FORMAT,
            object: names::data(&cluster, &name, false),
            server: ServerName::from("db2"),
            flavor,
            version: Version { major: 9, minor: 7, patch: 0 },
            from,
            gtids: inside,
            to,
            lost: (begins == Beginning::Fork).then_some(lost),
            missing: None,
            transactions: 1,
            stored: last,
            plain_bytes: 10,
            encrypted_to: Vec::new(),
            bytes: 5,
            sha256: Sha256([1; 32]),
            parts: vec![Part { bytes: 5, sha256: Sha256([1; 32]) }],
            unknown: Unknown::new(),
            name,
            cluster,
        }
    }

    fn sample() -> Segment {
        segment(7, Beginning::Continues, ("A:1-4", "A:5-9"), (10, 20))
    }

    fn read(written: &Segment) -> Result<Segment, ManifestError> {
        let sample = sample();
        Segment::read(&sample.cluster, &sample.name, &written.to_bytes().unwrap())
    }

    #[test]
    fn what_is_written_is_read_with_what_newer_versions_add() {
        let mut written = sample();
        written.unknown.insert("moon".to_owned(), "full".into());
        assert_eq!(read(&written).unwrap(), written);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let changes: [fn(&mut Segment); 9] = [
            |it| it.format = 2,
            |it| it.object = "shop/binlogs/data/../../other".to_owned(),
            |it| it.encrypted_to = vec!["age1x".to_owned()],
            |it| it.bytes = 11,
            |it| it.parts.clear(),
            |it| it.cluster = "other".into(),
            |it| it.name.number = 8,
            |it| it.to = gtids("A:1-8"),
            |it| it.lost = Some(gtids("A:7")),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut written = sample();
            change(&mut written);
            assert!(read(&written).is_err(), "change {number} was taken");
        }
    }

    proptest! {
        #[test]
        fn damaged_ones_get_an_answer(at in 0..900_usize, byte in any::<u8>()) {
            let sample = sample();
            let mut bytes = sample.to_bytes().unwrap();
            let at = at.min(bytes.len() - 1);
            bytes[at] = byte;
            let _ = Segment::read(&sample.cluster, &sample.name, &bytes);
            bytes.truncate(at);
            prop_assert!(Segment::read(&sample.cluster, &sample.name, &bytes).is_err());
        }
    }
}
