//! Which segments of an archive nothing needs any more.
//!
//! Logs are carried out on a backup from the first transaction that it lacks, without a hole. So segments go
//! from the oldest on, and the first one that is needed keeps all that follow it.

use super::names::{self, SegmentName};
use super::recovery::Lost;
use super::segment::Segment;
use crate::clock::WallTime;
use crate::decision::backup::catalog::{Catalog, Entry};
use crate::decision::backup::names::{BackupId, manifests_of};
use crate::decision::backup::retention::Worth;
use crate::decision::gtid::Gtids;
use crate::decision::topology::ClusterName;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// Why a segment stays, and with it all that follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stays {
    /// Archiving goes on from it.
    Newest,
    /// That backup lacks some of what is in it.
    Lacked(BackupId),
    /// It reaches into the time of which any moment is to be restored; that begins here.
    InRecoveryWindow(WallTime),
    /// There is no good backup, so nobody knows what the next one will lack.
    NoBackup,
    /// That object belongs to a backup, or to the segment, and cannot be read.
    Unreadable(String),
}

/// What the segments at a target are needed for.
#[derive(Clone, Debug, PartialEq)]
pub struct Needs {
    /// The backups that stay, with what they hold.
    backups: Vec<(BackupId, Gtids)>,
    /// Where the time begins of which any moment is to be restored.
    window: Option<WallTime>,
    /// The manifest of a backup that nobody can read, and so does not know what it lacks.
    unreadable: Option<String>,
}

impl Needs {
    /// What the backups of a target need that stay there, whoever made them, and the time that is wanted
    /// before the newest of them. Physical ones count too: people can carry logs out on them by hand.
    pub fn new(
        catalog: &Catalog,
        removed: &[BackupId],
        (recovery, now): (Option<Duration>, WallTime),
    ) -> Needs {
        let stays =
            |entry: &&Entry| entry.proof.worth() != Worth::Broken && !removed.contains(&entry.id);
        let staying: Vec<&Entry> = catalog.backups.iter().filter(stays).collect();
        let newest = staying.iter().map(|entry| entry.ended).max().unwrap_or(now).min(now);
        let span = |wanted: Duration| u64::try_from(wanted.as_millis()).unwrap_or(u64::MAX);
        let folder = manifests_of(&catalog.cluster);
        let unreadable = catalog.unusable.iter().find(|it| it.object.starts_with(&folder));
        Needs {
            backups: staying.iter().map(|it| (it.id.clone(), it.position.clone())).collect(),
            window: recovery.map(|wanted| WallTime(newest.0.saturating_sub(span(wanted)))),
            unreadable: unreadable.map(|it| it.object.clone()),
        }
    }

    /// Why the oldest segment stays, if it does. `forks` are all segments that begin with one.
    pub fn why_stays(&self, segment: &Segment, forks: &[Segment]) -> Option<Stays> {
        if let Some(object) = &self.unreadable {
            return Some(Stays::Unreadable(object.clone()));
        }
        if self.backups.is_empty() {
            return Some(Stays::NoBackup);
        }
        let later: Vec<&Segment> =
            forks.iter().filter(|fork| fork.name.number > segment.name.number).collect();
        let lacks =
            |(_, holds): &&(BackupId, Gtids)| !holds.contains(&counted(segment, &later, holds));
        if let Some((backup, _)) = self.backups.iter().find(lacks) {
            return Some(Stays::Lacked(backup.clone()));
        }
        let within = self.window.filter(|begins| segment.name.last >= *begins);
        within.map(Stays::InRecoveryWindow)
    }
}

/// What of a segment can be carried out after a backup that holds that: what a later failover lost
/// belongs to no backup of the history that went on.
fn counted(segment: &Segment, later: &[&Segment], holds: &Gtids) -> Gtids {
    let followed = later.iter().filter(|fork| !Lost::of(fork).is_held_by(holds));
    followed.fold(segment.gtids.clone(), |gtids, fork| gtids.common(&fork.from))
}

/// The data of an archive that no manifest belongs to and none will: it was listed after the manifests, and
/// the archive has gone on from its number.
pub fn left_over(cluster: &ClusterName, manifests: &[SegmentName], data: &[String]) -> Vec<String> {
    let known: BTreeSet<&SegmentName> = manifests.iter().collect();
    let newest = manifests.iter().map(|name| name.number).max();
    let is_left = |object: &&String| {
        let named = names::segment_of_data(cluster, object);
        named.is_some_and(|name| newest >= Some(name.number) && !known.contains(&name))
    };
    data.iter().filter(is_left).cloned().collect()
}

impl fmt::Display for Stays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stays::Newest => f.write_str("archiving goes on from it"),
            Stays::Lacked(backup) => write!(f, "backup {backup} lacks some of what is in it"),
            Stays::InRecoveryWindow(begins) => {
                write!(f, "the recovery window begins at {begins}")
            }
            Stays::NoBackup => f.write_str("there is no good backup to carry it out on"),
            Stays::Unreadable(object) => {
                write!(f, "{object} cannot be read, and nobody knows what it needs")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::Beginning;
    use super::super::segment::tests::{gtids, segment};
    use super::*;
    use crate::decision::backup::catalog::Unusable;
    use crate::decision::backup::manifest::tests::manifest;
    use crate::decision::backup::proof::{How, Proof, tests::check};

    /// Segments 1 to 4, ten seconds each; A:11-12 of the second one are lost when the third begins.
    fn history() -> Vec<Segment> {
        let mut forked = segment(3, Beginning::Fork, ("A:1-10", "B:1-5"), (31, 40));
        forked.lost = Some(gtids("A:11-12"));
        vec![
            segment(1, Beginning::Start, ("A:1-4", "A:5-9"), (11, 20)),
            segment(2, Beginning::Continues, ("A:1-9", "A:10-12"), (21, 30)),
            forked,
            segment(4, Beginning::Continues, ("A:1-10,B:1-5", "B:6"), (41, 50)),
        ]
    }

    fn catalog(backups: &[(u64, &str)]) -> Catalog {
        let mut catalog = Catalog::new("shop".into(), "local".to_owned());
        for (ended, position) in backups {
            let mut manifest = manifest(ended * 1_000 - 1_000, "db1");
            manifest.position = gtids(position);
            catalog.add("x", Ok(manifest));
        }
        catalog
    }

    /// How many segments go, and why the next one stays; the last one always does.
    fn gone(needs: &Needs) -> (usize, Option<Stays>) {
        let all = history();
        let older = &all[..3];
        let stays = |segment: &Segment| needs.why_stays(segment, &all[2..3]);
        let count = older.iter().take_while(|segment| stays(segment).is_none()).count();
        (count, older.get(count).and_then(stays))
    }

    fn needs(backups: &[(u64, &str)], removed: &[BackupId]) -> Needs {
        Needs::new(&catalog(backups), removed, (None, WallTime(90_000)))
    }

    #[test]
    fn a_backup_keeps_what_it_lacks_and_all_that_follows() {
        let (old, new) = ((15, "A:1-6"), (45, "A:1-10,B:1-5"));
        let both = catalog(&[old, new]);
        let oldest = both.backups[1].id.clone();
        let stays = Some(Stays::Lacked(oldest.clone()));
        assert_eq!(gone(&needs(&[old, new], &[])), (0, stays));
        assert_eq!(gone(&needs(&[old, new], &[oldest])), (3, None));
        assert_eq!(gone(&needs(&[(45, "A:1-9")], &[])).0, 1);
        // It is of the history that ended, and what it lacks of that can be had.
        assert_eq!(gone(&needs(&[(45, "A:1-11")], &[])).0, 1);
    }

    #[test]
    fn nothing_goes_while_it_is_unknown_what_is_needed() {
        assert_eq!(gone(&needs(&[], &[])), (0, Some(Stays::NoBackup)));
        let mut catalog = catalog(&[(45, "A:1-10,B:1-5")]);
        let needs = |catalog: &Catalog| Needs::new(catalog, &[], (None, WallTime(90_000)));
        catalog.unusable.push(Unusable { object: "shop/proofs/x".to_owned(), why: String::new() });
        assert_eq!(gone(&needs(&catalog)).0, 3, "a proof says nothing of what is in a backup");
        let object = "shop/manifests/x.json".to_owned();
        catalog.unusable.push(Unusable { object: object.clone(), why: String::new() });
        assert_eq!(gone(&needs(&catalog)), (0, Some(Stays::Unreadable(object))));
        catalog.unusable.clear();
        let id = catalog.backups[0].id.clone();
        let mut failed = Proof::new("shop".into(), id.clone());
        failed.note(How::Read, check(5_000, false));
        catalog.judge("x", &id, Ok(failed));
        assert_eq!(gone(&needs(&catalog)), (0, Some(Stays::NoBackup)));
    }

    #[test]
    fn the_recovery_window_keeps_its_segments_whatever_a_clock_says() {
        let catalog = catalog(&[(45, "A:1-10,B:1-5")]);
        let after = |seconds: u64, now: u64| {
            let wanted = Some(Duration::from_secs(seconds));
            gone(&Needs::new(&catalog, &[], (wanted, WallTime(now * 1_000))))
        };
        let begins = |at: u64| Some(Stays::InRecoveryWindow(WallTime(at * 1_000)));
        assert_eq!(after(20, 60), (1, begins(25)));
        assert_eq!(after(20, 90_000), (1, begins(25)), "it reaches back from the newest backup");
        assert_eq!(after(20, 40), (0, begins(20)));
        assert_eq!(after(2, 60), (3, None));
    }

    #[test]
    fn only_data_that_nobody_is_about_to_list_is_left_over() {
        let cluster = ClusterName::from("shop");
        let all: Vec<SegmentName> = history().into_iter().map(|it| it.name).collect();
        let mut other = all[3].clone();
        other.last = WallTime(49_000);
        let next = SegmentName { number: 5, ..other.clone() };
        let stored = [&all[0], &all[1], &all[2], &all[3], &other, &next];
        let mut data: Vec<String> =
            stored.iter().map(|name| names::data(&cluster, name, name.number == 1)).collect();
        data.push("shop/binlogs/data/notes.txt".to_owned());
        assert_eq!(
            left_over(&cluster, &all[2..], &data),
            [&data[0], &data[1], &data[4]].map(String::clone)
        );
        assert!(left_over(&cluster, &[], &data).is_empty(), "an archive that is about to begin");
    }
}
