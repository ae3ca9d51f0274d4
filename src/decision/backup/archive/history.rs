//! What an archive adds up to, told from the names of its segments.

use super::names::{Beginning, SegmentName, segment_of};
use super::segment::Reached;
use crate::clock::WallTime;
use crate::decision::backup::catalog::{Entry, Unusable};
use crate::decision::backup::names::BackupId;
use crate::decision::gtid::Gtids;
use crate::decision::topology::ClusterName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The archived binary log of one cluster at one target.
#[derive(Clone, Debug, PartialEq)]
pub struct Archive {
    /// The cluster.
    pub cluster: ClusterName,
    /// The target's name.
    pub target: String,
    /// Its segments, the oldest first; each number once.
    pub segments: Vec<SegmentName>,
    /// Up to when nothing is missing, as far as it was written down.
    pub reached: Option<Reached>,
    /// What cannot be used, and why.
    pub unusable: Vec<Unusable>,
}

/// Consecutive segments without a hole, by their places among all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The place of its first segment.
    pub first: usize,
    /// The place of its last segment.
    pub last: usize,
}

/// Why segments do not follow on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Segments of these numbers are not there.
    Missing {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// No server had the transactions any more when they were to be archived.
    Purged,
    /// Archiving began anew.
    BegunAnew,
}

/// A time of which transactions are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// The latest commit before it.
    pub after: WallTime,
    /// The earliest commit after it.
    pub until: WallTime,
    /// How it came about.
    pub cause: Cause,
}

/// Moments of which each can be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The first.
    pub from: WallTime,
    /// The last.
    pub to: WallTime,
    /// The backup that they are restored from, the earliest of perhaps several.
    pub backup: BackupId,
}

/// What can be restored, and what not, at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recoverable {
    /// How many segments there are.
    pub segments: usize,
    /// Moments that can be restored.
    pub windows: Vec<Window>,
    /// Times of which transactions are missing.
    pub holes: Vec<Hole>,
    /// Moments at which a failover lost transactions that are archived.
    pub forks: Vec<WallTime>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Missing { first, last } if first == last => {
                write!(f, "segment {first} is missing")
            }
            Cause::Missing { first, last } => write!(f, "segments {first} to {last} are missing"),
            Cause::Purged => f.write_str("the servers had purged what was to be archived"),
            Cause::BegunAnew => f.write_str("archiving was begun anew"),
        }
    }
}

impl Archive {
    /// The archive that consists of the segments with these manifests.
    pub fn new(cluster: ClusterName, target: String, manifests: &[String]) -> Archive {
        let (segments, unusable) = (Vec::new(), Vec::new());
        let mut archive = Archive { cluster, target, segments, reached: None, unusable };
        archive.add(manifests);
        archive
    }

    /// Takes in the manifests of further segments.
    pub fn add(&mut self, manifests: &[String]) {
        for object in manifests {
            let Some(name) = segment_of(&self.cluster, object) else { continue };
            // They are listed in the order of their numbers, as a rule.
            let place = self.segments.partition_point(|known| known.number < name.number);
            match self.segments.get(place).filter(|known| known.number == name.number) {
                Some(first) => {
                    let why = format!("number {} is there already: {first}", name.number);
                    self.unusable.push(Unusable { object: object.clone(), why });
                }
                None => self.segments.insert(place, name),
            }
        }
    }

    /// Why the segment at that place does not go on where the one before it ended, if there is one.
    pub fn hole_before(&self, place: usize) -> Option<Hole> {
        let before = self.segments.get(place.checked_sub(1)?)?;
        let segment = self.segments.get(place)?;
        let cause = if segment.number > before.number + 1 {
            Cause::Missing { first: before.number + 1, last: segment.number - 1 }
        } else {
            match segment.begins {
                Beginning::Continues | Beginning::Fork => return None,
                Beginning::Gap => Cause::Purged,
                Beginning::Start => Cause::BegunAnew,
            }
        };
        Some(Hole { after: before.last, until: segment.first, cause })
    }

    /// Times of which transactions are missing.
    pub fn holes(&self) -> Vec<Hole> {
        (0..self.segments.len()).filter_map(|place| self.hole_before(place)).collect()
    }

    /// All stretches without a hole, the oldest first.
    pub fn stretches(&self) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = Vec::new();
        for place in 0..self.segments.len() {
            match stretches.last_mut().filter(|_| self.hole_before(place).is_none()) {
                Some(stretch) => stretch.last = place,
                None => stretches.push(Stretch { first: place, last: place }),
            }
        }
        stretches
    }

    /// Up to when a stretch lacks nothing.
    pub fn end_of(&self, stretch: &Stretch) -> WallTime {
        let own = self.segments.get(stretch.first..=stretch.last).unwrap_or_default();
        let last = own.iter().map(|name| name.last).max().unwrap_or_default();
        let newest = stretch.last + 1 == self.segments.len();
        let reached = self.reached.as_ref().filter(|_| newest).map(|reached| reached.at);
        reached.map_or(last, |at| at.max(last))
    }

    /// What can be restored. `begins` has for each stretch every transaction before its first one, as far as
    /// that is known.
    pub fn recoverable(&self, begins: &[Option<Gtids>], backups: &[Entry]) -> Recoverable {
        let stretches = self.stretches();
        let mut windows = Vec::new();
        for (stretch, from) in stretches.iter().zip(begins) {
            let Some(from) = from else { continue };
            let to = self.end_of(stretch);
            let usable = |entry: &&Entry| entry.position.contains(from) && entry.ended <= to;
            let earliest = backups.iter().filter(usable).min_by_key(|entry| entry.ended);
            windows.extend(earliest.map(|entry| Window {
                from: entry.ended,
                to,
                backup: entry.id.clone(),
            }));
        }
        let forks = self.segments.iter().filter(|name| name.begins == Beginning::Fork);
        Recoverable {
            segments: self.segments.len(),
            windows,
            holes: self.holes(),
            forks: forks.map(|name| name.first).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment::tests::gtids;
    use super::*;
    use crate::decision::backup::archive::names;
    use crate::decision::backup::manifest::tests::manifest;
    use crate::decision::cluster::Unknown;

    fn archive(names: &[(u64, Beginning, u64, u64)]) -> Archive {
        let cluster = ClusterName::from("shop");
        let object = |(number, begins, first, last): &(u64, Beginning, u64, u64)| {
            let (first, last) = (WallTime(first * 1_000), WallTime(last * 1_000));
            names::manifest(
                &cluster,
                &SegmentName { number: *number, first, last, begins: *begins, writer: None },
            )
        };
        let objects: Vec<String> = names.iter().map(object).collect();
        Archive::new(cluster.clone(), "local".to_owned(), &objects)
    }

    #[test]
    fn holes_are_seen_from_the_names_alone() {
        let archive = archive(&[
            (4, Beginning::Start, 10, 20),
            (5, Beginning::Continues, 20, 30),
            (7, Beginning::Continues, 40, 50),
            (8, Beginning::Fork, 48, 60),
            (9, Beginning::Gap, 70, 80),
            (9, Beginning::Continues, 75, 80),
        ]);
        let places: Vec<_> = archive.stretches().iter().map(|it| (it.first, it.last)).collect();
        assert_eq!(places, [(0, 1), (2, 3), (4, 4)]);
        let holes = archive.recoverable(&[], &[]).holes;
        let causes: Vec<_> = holes.iter().map(|hole| hole.cause).collect();
        assert_eq!(causes, [Cause::Missing { first: 6, last: 6 }, Cause::Purged]);
        assert_eq!((holes[0].after, holes[0].until), (WallTime(30_000), WallTime(40_000)));
        assert_eq!(archive.unusable.len(), 1, "a number that is there twice");
        assert_eq!(archive.recoverable(&[], &[]).forks, [WallTime(48_000)]);
    }

    #[test]
    fn a_window_begins_with_the_first_backup_that_its_segments_follow() {
        let mut archive =
            archive(&[(1, Beginning::Start, 10, 20), (2, Beginning::Continues, 20, 30)]);
        let entry = |begun: u64, position: &str| {
            let mut entry = Entry::of(&manifest(begun * 1_000, "db1"));
            entry.position = gtids(position);
            entry
        };
        let backups = [entry(25, "0-1-9"), entry(15, "0-1-5"), entry(2, "0-1-1")];
        let begins = [Some(gtids("0-1-3"))];
        let window = archive.recoverable(&begins, &backups).windows.remove(0);
        assert_eq!((window.from, window.to), (WallTime(16_000), WallTime(30_000)));
        assert_eq!(window.backup, backups[1].id);
        let (at, position) = (WallTime(90_000), gtids("0-1-9"));
        archive.reached = Some(Reached { format: 1, at, position, unknown: Unknown::new() });
        assert_eq!(archive.recoverable(&begins, &backups).windows[0].to, at);
        assert!(archive.recoverable(&begins, &backups[2..]).windows.is_empty());
    }
}
