//! How a moment is reached: from which backup, over which segments, and without which transactions.

use super::history::Archive;
use super::names::{Beginning, SegmentName};
pub use super::refusal::NoWay;
use super::segment::Segment;
use crate::clock::WallTime;
use crate::decision::backup::catalog::Entry;
use crate::decision::backup::manifest::Kind;
use crate::decision::backup::names::BackupId;
use crate::decision::gtid::Gtids;
use serde::Serialize;
use std::fmt;

/// Up to where transactions are carried out.
#[derive(Clone, Debug, PartialEq)]
pub enum Until {
    /// All that was committed up to then, in microseconds since the Unix epoch.
    Time(u64),
    /// Up to this transaction and with it.
    Including(Gtids),
    /// Up to this transaction and without it.
    Before(Gtids),
    /// All that is archived.
    Latest,
}

/// Transactions that were archived and then lost by a failover.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lost {
    /// When the history without them goes on.
    pub at: WallTime,
    /// The transactions.
    pub gtids: Gtids,
    /// The number of the segment that goes on without them.
    #[serde(skip)]
    number: u64,
    /// All before them.
    #[serde(skip)]
    kept: Gtids,
}

/// The way to a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The backup that is restored first.
    pub backup: BackupId,
    /// What it holds.
    pub from: Gtids,
    /// The segments whose transactions follow, in this order.
    pub segments: Vec<Segment>,
    /// Those of their transactions that are left out.
    pub left_out: Vec<Lost>,
    /// The failover that ended the history which is followed, when it is not the one that went on.
    pub ended_by: Option<Lost>,
    /// Up to where.
    pub until: Until,
}

impl Plan {
    /// The same way from what a server on the backup's files turned out to hold.
    pub fn going_on_from(self, held: &Gtids) -> Result<Plan, NoWay> {
        if let Some(gtid) = self.until.gtid().filter(|gtid| held.contains(gtid)) {
            return Err(NoWay::Holds(self.backup, gtid.to_string()));
        }
        if let Some(lost) = self.left_out.iter().find(|lost| lost.is_held_by(held)) {
            return Err(NoWay::HoldsLost(self.backup, lost.gtids.to_string()));
        }
        Ok(Plan { from: held.clone(), ..self })
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Until::Time(micros) => {
                let stamp = jiff::Timestamp::from_microsecond(i64::try_from(*micros).unwrap_or(0));
                match stamp {
                    Ok(stamp) => write!(f, "{stamp}"),
                    Err(_) => write!(f, "{micros} us"),
                }
            }
            Until::Including(gtid) => write!(f, "{gtid}"),
            Until::Before(gtid) => write!(f, "just before {gtid}"),
            Until::Latest => f.write_str("its end"),
        }
    }
}

impl Until {
    /// The transaction of that GTID, as an end.
    pub fn transaction(text: &str, included: bool) -> Result<Until, String> {
        let set = Gtids::try_from(text.to_owned()).map_err(|error| error.to_string())?;
        let many = match &set {
            Gtids::MySql(_) => set.count_beyond(&Gtids::empty(set.flavor())) != 1,
            Gtids::MariaDb(_) => set.parts().len() != 1,
        };
        if many {
            return Err(format!("{text:?} is not one transaction, such as UUID:17 or 0-1-17"));
        }
        Ok(if included { Until::Including(set) } else { Until::Before(set) })
    }

    /// The transaction that it names.
    pub(super) fn gtid(&self) -> Option<&Gtids> {
        match self {
            Until::Including(gtid) | Until::Before(gtid) => Some(gtid),
            Until::Time(_) | Until::Latest => None,
        }
    }
}

impl Lost {
    pub(super) fn of(fork: &Segment) -> Lost {
        Lost {
            at: fork.name.first,
            gtids: fork.lost.clone().unwrap_or_else(|| Gtids::empty(fork.flavor)),
            number: fork.name.number,
            kept: fork.from.clone(),
        }
    }

    /// Whether it is this transaction, found in that segment.
    pub(super) fn names(&self, gtid: &Gtids, segment: u64) -> bool {
        segment < self.number && self.gtids.names_beyond(&self.kept, gtid)
    }

    /// Whether somebody with that position has some of it.
    pub(super) fn is_held_by(&self, position: &Gtids) -> bool {
        match position {
            Gtids::MySql(_) => !position.common(&self.gtids).is_empty(),
            Gtids::MariaDb(_) => position.parts().iter().any(|part| {
                Gtids::parse(position.flavor(), part)
                    .is_ok_and(|part| self.gtids.names_beyond(&self.kept, &part))
            }),
        }
    }
}

/// Looks for the way to a moment, from the newest segment that may matter back to the backup.
#[derive(Clone, Debug)]
pub struct Search<'a> {
    archive: &'a Archive,
    backups: &'a [Entry],
    kind: Kind,
    until: Until,
    /// All forks of the history that is followed, the oldest first.
    forks: Vec<Lost>,
    ended_by: Option<Lost>,
    backup: Option<&'a Entry>,
    /// What was read so far, the newest first.
    read: Vec<Segment>,
    /// The place of the segment to be read next.
    next: Option<usize>,
    /// Whether the transaction that was asked for was seen.
    found: bool,
}

impl<'a> Search<'a> {
    /// Begins the search; `forks` are all segments that begin with one, `named` the backup to restore. Only
    /// backups of that kind count.
    pub fn new(
        archive: &'a Archive,
        forks: &[Segment],
        backups: &'a [Entry],
        (named, kind, until): (Option<&BackupId>, Kind, Until),
    ) -> Result<Search<'a>, NoWay> {
        if archive.segments.is_empty() {
            let cluster = archive.cluster.to_string();
            return Err(NoWay::NothingArchived(cluster, archive.target.clone()));
        }
        let forks = forks.iter().map(Lost::of).collect();
        let found = until.gtid().is_none();
        let (backup, next) = (None, None);
        let read = Vec::new();
        let ended_by = None;
        let mut search =
            Search { archive, backups, kind, until, forks, ended_by, backup, read, next, found };
        if let Some(named) = named {
            let entry = backups.iter().find(|entry| &entry.id == named);
            let entry = entry.ok_or_else(|| NoWay::NoSuchBackup(named.clone()))?;
            if entry.method.kind() != kind {
                let (backup, kind) = (named.clone(), entry.method.kind());
                return Err(NoWay::OtherKind { backup, kind });
            }
            search.backup = Some(entry);
            search.follow(entry)?;
        } else if search.found {
            search.backup = Some(search.newest_before()?);
        }
        search.next = Some(search.last_place());
        Ok(search)
    }

    /// The history that holds what the named backup holds.
    fn follow(&mut self, entry: &Entry) -> Result<(), NoWay> {
        if let Some(place) = self.forks.iter().position(|fork| fork.is_held_by(&entry.position)) {
            self.end_by(place);
        }
        let late = |micros: u64| entry.ended.0.saturating_mul(1_000) > micros;
        match &self.until {
            Until::Time(micros) if late(*micros) => Err(NoWay::TooNew {
                backup: entry.id.clone(),
                ended: entry.ended,
                until: self.until.to_string(),
            }),
            Until::Including(gtid) | Until::Before(gtid) if entry.most().contains(gtid) => {
                Err(NoWay::Holds(entry.id.clone(), gtid.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// The newest backup of the history that is followed from before the moment.
    fn newest_before(&self) -> Result<&'a Entry, NoWay> {
        let before = |entry: &&Entry| match &self.until {
            Until::Time(micros) => entry.ended.0.saturating_mul(1_000) <= *micros,
            Until::Including(gtid) | Until::Before(gtid) => !entry.most().contains(gtid),
            Until::Latest => true,
        };
        let of_history = |entry: &&Entry| !self.forks.iter().any(|it| it.is_held_by(entry.most()));
        // Where the history that is followed has ended, none of what went on without it.
        let end = self.read.first().filter(|_| self.ended_by.is_some());
        let within = |entry: &&Entry| end.is_none_or(|end| end.to.contains(entry.most()));
        let fitting = self.backups.iter().filter(before).filter(of_history).filter(within);
        let (own, others): (Vec<&Entry>, Vec<&Entry>) =
            fitting.partition(|entry| entry.method.kind() == self.kind);
        let newest = |of: Vec<&'a Entry>| of.into_iter().max_by_key(|entry| entry.ended);
        newest(own).ok_or_else(|| {
            let of_kind = self.backups.iter().filter(|entry| entry.method.kind() == self.kind);
            let oldest = of_kind.map(|entry| entry.ended).min();
            NoWay::NoBackup {
                kind: self.kind,
                until: self.until.to_string(),
                oldest: oldest.map_or("there is none".to_owned(), |at| {
                    format!("the oldest one ended at {at}")
                }),
                other: newest(others).map(|entry| entry.id.clone()),
            }
        })
    }

    /// Follows the history up to that fork, and not what went on from there.
    fn end_by(&mut self, fork: usize) {
        let later = self.forks.split_off(fork);
        self.ended_by = later.into_iter().next();
        if let Some(ended_by) = &self.ended_by {
            self.read.retain(|segment| segment.name.number < ended_by.number);
        }
    }

    /// The place of the last segment that may matter.
    fn last_place(&self) -> usize {
        let names = &self.archive.segments;
        let of_history = |name: &&SegmentName| {
            self.ended_by.as_ref().is_none_or(|ended_by| name.number < ended_by.number)
        };
        let count = names.iter().take_while(of_history).count();
        let last = count.saturating_sub(1);
        match &self.until {
            Until::Time(micros) => {
                let later = |name: &SegmentName| name.last.0.saturating_mul(1_000) > *micros;
                names.iter().take(count).position(later).unwrap_or(last)
            }
            _ => last,
        }
    }

    /// The segment whose manifest is to be read next; none when the way is known.
    pub fn wants(&self) -> Option<&'a SegmentName> {
        self.archive.segments.get(self.next?)
    }

    /// Takes in the manifest that was wanted.
    pub fn take(&mut self, segment: Segment) -> Result<(), NoWay> {
        let Some(place) = self.next else { return Ok(()) };
        if let Some(later) = self.read.last().filter(|later| !fits(&segment, later)) {
            return Err(NoWay::Broken(later.name.clone(), segment.name));
        }
        let number = segment.name.number;
        let (from, holds) = (segment.from.clone(), |gtid: &Gtids| {
            segment.to.contains(gtid) && !segment.from.contains(gtid)
        });
        let here = !self.found && self.until.gtid().is_some_and(holds);
        self.read.push(segment);
        if here {
            self.found_in(number)?;
        }
        let arrived = self.backup.is_some_and(|entry| entry.position.contains(&from));
        if self.found && arrived {
            self.next = None;
            return Ok(());
        }
        self.go_back(place)
    }

    /// The transaction that was asked for is in this segment.
    fn found_in(&mut self, number: u64) -> Result<(), NoWay> {
        self.found = true;
        let gtid = self.until.gtid().cloned();
        let lost = gtid.and_then(|gtid| self.forks.iter().position(|it| it.names(&gtid, number)));
        if let Some(fork) = lost {
            self.end_by(fork);
        }
        // Nothing after it matters.
        self.read.retain(|segment| segment.name.number <= number);
        if self.backup.is_none() {
            self.backup = Some(self.newest_before()?);
        }
        Ok(())
    }

    fn go_back(&mut self, place: usize) -> Result<(), NoWay> {
        let names = &self.archive.segments;
        let earliest = names.get(place).map(|name| name.first).unwrap_or_default();
        let hole = self.archive.hole_before(place);
        if place > 0 && hole.is_none() {
            self.next = Some(place - 1);
            return Ok(());
        }
        if !self.found {
            let gtid = self.until.to_string();
            let to = names.iter().map(|name| name.last).max().unwrap_or_default();
            return Err(NoWay::Unknown { gtid, from: earliest, to });
        }
        let backup = self.backup.map_or_else(|| self.newest_before(), Ok)?.id.clone();
        Err(match hole {
            Some(hole) => NoWay::Hole { backup, hole },
            None => NoWay::BeginsLater { backup, begins: earliest },
        })
    }

    /// The way, once nothing more is wanted.
    pub fn plan(mut self) -> Result<Plan, NoWay> {
        let backup = self.backup.map_or_else(|| self.newest_before(), Ok)?;
        self.reaches()?;
        self.read.reverse();
        let first = self.read.first().map_or(u64::MAX, |segment| segment.name.number);
        let within = |lost: &Lost| lost.number > first;
        Ok(Plan {
            backup: backup.id.clone(),
            from: backup.position.clone(),
            left_out: self.forks.into_iter().filter(within).collect(),
            segments: self.read,
            ended_by: self.ended_by,
            until: self.until,
        })
    }

    /// Whether everything up to the moment is archived.
    fn reaches(&self) -> Result<(), NoWay> {
        let Until::Time(micros) = self.until else { return Ok(()) };
        let last = self.read.iter().map(|segment| segment.name.last).max().unwrap_or_default();
        let reached = self.archive.reached.as_ref().filter(|_| self.ended_by.is_none());
        let reached = reached.map(|reached| reached.at).unwrap_or_default();
        let later = last.0.saturating_mul(1_000) > micros;
        if later || reached.0.saturating_mul(1_000) >= micros {
            return Ok(());
        }
        Err(NoWay::NotYet { reaches: last.max(reached), until: self.until.to_string() })
    }
}

/// Whether one segment goes on where the other ends.
fn fits(earlier: &Segment, later: &Segment) -> bool {
    match later.name.begins {
        Beginning::Continues => earlier.to == later.from,
        Beginning::Fork => earlier.to.contains(&later.from),
        Beginning::Start | Beginning::Gap => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::names;
    use super::super::segment::Reached;
    use super::super::segment::tests::{gtids, segment};
    use super::super::walk::{Verdict, Walk};
    use super::*;
    use crate::decision::backup::manifest::Method;
    use crate::decision::backup::manifest::tests::manifest;
    use crate::decision::cluster::Unknown;

    /// Segments 1 to 5, ten seconds each; what segment 3 ends with is lost when segment 4 begins.
    fn history() -> Vec<Segment> {
        let mut forked = segment(4, Beginning::Fork, ("A:1-10", "B:1-5"), (31, 40));
        forked.lost = Some(gtids("A:11-12"));
        vec![
            segment(1, Beginning::Start, ("A:1-2", "A:3-4"), (1, 10)),
            segment(2, Beginning::Continues, ("A:1-4", "A:5-8"), (11, 20)),
            segment(3, Beginning::Continues, ("A:1-8", "A:9-12"), (21, 30)),
            forked,
            segment(5, Beginning::Continues, ("A:1-10,B:1-5", "B:6-9"), (41, 50)),
        ]
    }

    /// Backups that ended at 5, 22, 30 (of what was lost) and 45 seconds.
    fn backups() -> Vec<Entry> {
        let one = |ended: u64, position: &str| {
            let mut entry = Entry::of(&manifest(ended * 1_000 - 1_000, "db1"));
            entry.position = gtids(position);
            entry
        };
        vec![one(45, "A:1-10,B:1-7"), one(30, "A:1-11"), one(22, "A:1-9"), one(5, "A:1-3")]
    }

    fn search(
        segments: &[Segment],
        backups: &[Entry],
        named: Option<usize>,
        until: Until,
    ) -> Result<Plan, NoWay> {
        search_of(Kind::Logical, segments, backups, (named, until))
    }

    fn search_of(
        kind: Kind,
        segments: &[Segment],
        backups: &[Entry],
        (named, until): (Option<usize>, Until),
    ) -> Result<Plan, NoWay> {
        let cluster = crate::decision::topology::ClusterName::from("shop");
        let objects: Vec<String> =
            segments.iter().map(|it| names::manifest(&cluster, &it.name)).collect();
        let mut archive = Archive::new(cluster, "local".to_owned(), &objects);
        let (at, position) = (WallTime(60_000), gtids("A:1-10,B:1-9"));
        archive.reached = Some(Reached { format: 1, at, position, unknown: Unknown::new() });
        let forks: Vec<Segment> = segments.iter().filter(|it| it.lost.is_some()).cloned().collect();
        let named = named.map(|place| &backups[place].id);
        let mut search = Search::new(&archive, &forks, backups, (named, kind, until))?;
        while let Some(name) = search.wants() {
            let found = segments.iter().find(|it| &it.name == name).unwrap().clone();
            search.take(found)?;
        }
        search.plan()
    }

    fn planned(named: Option<usize>, until: Until) -> Result<(usize, Vec<u64>), NoWay> {
        let (segments, backups) = (history(), backups());
        let plan = search(&segments, &backups, named, until)?;
        let backup = backups.iter().position(|entry| entry.id == plan.backup).unwrap();
        Ok((backup, plan.segments.iter().map(|it| it.name.number).collect()))
    }

    fn second(at: u64) -> Until {
        Until::Time(at * 1_000_000)
    }

    #[test]
    fn the_newest_backup_before_the_moment_and_what_follows_it() {
        assert_eq!(planned(None, second(15)), Ok((3, vec![1, 2])));
        assert_eq!(planned(None, second(28)), Ok((2, vec![3])));
        assert_eq!(planned(None, second(46)), Ok((0, vec![5])));
        assert_eq!(planned(None, second(60)), Ok((0, vec![5])));
        assert_eq!(planned(None, Until::Latest), Ok((0, vec![5])));
        assert_eq!(planned(Some(3), second(46)), Ok((3, vec![1, 2, 3, 4, 5])));
        assert!(matches!(planned(None, second(61)), Err(NoWay::NotYet { .. })));
        assert!(matches!(planned(None, second(4)), Err(NoWay::NoBackup { .. })));
        assert!(matches!(planned(Some(0), second(44)), Err(NoWay::TooNew { .. })));
    }

    #[test]
    fn the_history_that_went_on_is_followed_and_the_fork_is_named() {
        // The backup that holds lost transactions is passed over.
        assert_eq!(planned(None, second(42)), Ok((2, vec![3, 4, 5])));
        let plan = search(&history(), &backups(), None, second(42)).unwrap();
        assert_eq!(plan.left_out.len(), 1);
        assert_eq!(plan.left_out[0].gtids, gtids("A:11-12"));
        let mut walk = Walk::new(plan, gtids("A:1-9"));
        let mut verdict = |segment, gtid: &str, at: u64| {
            walk.next(segment, &gtids(gtid), at * 1_000_000).unwrap()
        };
        assert_eq!(verdict(3, "A:9", 22), Verdict::PassOver, "the backup has it");
        assert_eq!(verdict(3, "A:10", 23), Verdict::CarryOut);
        assert_eq!(verdict(3, "A:11", 24), Verdict::PassOver, "it was lost");
        assert_eq!(verdict(4, "A:11", 31), Verdict::CarryOut, "the number was used again");
        assert_eq!(verdict(4, "B:1", 42), Verdict::CarryOut);
        assert_eq!(verdict(5, "B:6", 43), Verdict::Stop);
        // Whoever wants what was lost gets it.
        let plan = search(&history(), &backups(), Some(1), Until::Latest).unwrap();
        assert_eq!((plan.segments.len(), plan.ended_by.is_some()), (1, true));
        assert!(matches!(planned(Some(1), second(42)), Err(NoWay::NotYet { .. })));
    }

    #[test]
    fn either_kind_is_ground_and_neither_stands_in_for_the_other() {
        let (segments, mut backups) = (history(), backups());
        let files = |backups: &[Entry], named, until| {
            search_of(Kind::Physical, &segments, backups, (named, until))
        };
        backups[0].method = Method::PhysicalClone;
        let plan = search(&segments, &backups, None, second(46)).unwrap();
        assert_eq!(plan.backup, backups[2].id);
        assert_eq!(files(&backups, None, second(46)).unwrap().backup, backups[0].id);
        let refused = search(&segments, &backups, Some(0), second(46)).unwrap_err();
        assert!(refused.to_string().contains("--data-dir"), "{refused}");
        let refused = files(&backups, None, second(28)).unwrap_err().to_string();
        assert!(refused.starts_with("no physical backup is from before"), "{refused}");
        assert!(refused.contains("--into"), "{refused}");
    }

    #[test]
    fn what_a_copy_may_hold_beyond_its_position_is_reckoned_with() {
        let (segments, mut backups) = (history(), backups());
        backups.truncate(1);
        backups[0].method = Method::PhysicalClone;
        backups[0].at_most = Some(gtids("A:1-10,B:1-8"));
        let files =
            |until| search_of(Kind::Physical, &segments, &backups, (None, until)).map(|it| it.from);
        let before = |gtid: &str| Until::Before(gtids(gtid));
        assert!(matches!(files(before("B:8")), Err(NoWay::NoBackup { .. })));
        assert_eq!(files(before("B:9")), Ok(gtids("A:1-10,B:1-7")));
        let plan = search_of(Kind::Physical, &segments, &backups, (None, before("B:9"))).unwrap();
        let held = gtids("A:1-10,B:1-8");
        assert_eq!(plan.clone().going_on_from(&held).map(|plan| plan.from), Ok(held));
        let refused = plan.clone().going_on_from(&gtids("A:1-10,B:1-9"));
        assert!(matches!(refused, Err(NoWay::Holds(..))), "{refused:?}");
    }

    #[test]
    fn a_transaction_is_found_in_whichever_history_has_it() {
        let including = |gtid: &str| Until::Including(gtids(gtid));
        assert_eq!(planned(None, including("B:2")), Ok((2, vec![3, 4])));
        assert_eq!(planned(None, including("B:8")), Ok((0, vec![5])));
        assert_eq!(planned(None, including("A:6")), Ok((3, vec![1, 2])));
        let plan = search(&history(), &backups(), None, including("A:12")).unwrap();
        assert!(plan.ended_by.is_some() && plan.left_out.is_empty(), "it was lost: {plan:?}");
        assert!(matches!(planned(None, including("B:10")), Err(NoWay::Unknown { .. })));
        assert!(matches!(planned(Some(2), including("A:9")), Err(NoWay::Holds(..))));
        let plan = search(&history(), &backups(), None, Until::Before(gtids("A:6"))).unwrap();
        let mut walk = Walk::new(plan, gtids("A:1-3"));
        assert_eq!(walk.next(2, &gtids("A:5"), 1), Ok(Verdict::CarryOut));
        assert_eq!(walk.next(2, &gtids("A:6"), 1), Ok(Verdict::Stop));
        let plan = search(&history(), &backups(), None, including("A:6")).unwrap();
        let mut walk = Walk::new(plan, gtids("A:1-3"));
        assert_eq!(walk.next(2, &gtids("A:6"), 1), Ok(Verdict::Last));
    }

    #[test]
    fn holes_are_refused_with_what_can_be_had() {
        let mut segments = history();
        segments.remove(1);
        let refused = search(&segments, &backups(), Some(3), second(25)).unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, NoWay::Hole { .. }), "{text}");
        assert!(text.contains("segment 2 is missing") && text.contains("00:00:10"), "{text}");
        assert!(search(&segments, &backups(), None, second(28)).is_ok(), "a newer backup does");
        let refused = search(&history()[1..], &backups(), Some(3), second(25)).unwrap_err();
        assert!(matches!(refused, NoWay::BeginsLater { .. }), "{refused}");
        let mut segments = history();
        segments[2].from = gtids("A:1-7");
        let refused = search(&segments, &backups(), Some(3), second(25)).unwrap_err();
        assert!(matches!(refused, NoWay::Broken(..)), "{refused}");
        let refused = search(&[], &backups(), None, Until::Latest).unwrap_err();
        assert!(matches!(refused, NoWay::NothingArchived(..)), "{refused}");
    }
}
