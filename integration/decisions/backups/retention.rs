//! Which backups stay: by hand for what people ask for, and by chance for what must never happen.

use super::{id, wall, zone};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use regent::clock::WallTime;
use regent::decision::backup::names::BackupId;
use regent::decision::backup::retention::{Backup, Pruning, Retention, Worth};
use regent::decision::gtid::Gtids;
use regent::decision::topology::Flavor;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

fn gtids(from: u64, to: u64) -> Gtids {
    let text = format!("aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa:{from}-{to}");
    Gtids::parse(Flavor::MySql, if from > to { "" } else { &text }).unwrap()
}

/// A good backup of that moment, which holds as many transactions as hours have passed since 1970.
fn backup(name: &str, at: WallTime) -> Backup {
    Backup {
        name: id(name),
        at,
        gtids: gtids(1, at.0 / HOUR),
        worth: Worth::Good,
        held: false,
        replays: true,
        locked_until: None,
        base: None,
    }
}

/// One good backup at 02:30 on each day of a month, named by the day.
fn nightly(month: &str, days: u8) -> Vec<Backup> {
    let one = |day| {
        let day = format!("{month}-{day:02}");
        backup(&day, wall(&format!("{day}T02:30:00Z")))
    };
    (1..=days).map(one).collect()
}

fn wanted(last: u32, days: u32, weeks: u32, months: u32) -> Retention {
    Retention { last, days, weeks, months, ..Retention::all(TimeZone::UTC) }
}

/// What stays, with the reasons as people read them.
fn kept(pruning: &Pruning) -> Vec<String> {
    let line = |(name, reasons): (&BackupId, &BTreeSet<_>)| {
        let reasons: Vec<_> = reasons.iter().map(ToString::to_string).collect();
        format!("{name}: {}", reasons.join("; "))
    };
    pruning.kept.iter().map(line).collect()
}

fn names(list: &[BackupId]) -> Vec<&str> {
    list.iter().map(BackupId::as_str).collect()
}

#[test]
fn days_weeks_and_months_keep_the_newest_of_each() {
    let mut backups = nightly("2026-03", 31);
    backups.extend(nightly("2026-04", 8));
    let pruning = wanted(1, 3, 3, 2).prune(wall("2026-04-08T12:00:00Z"), &backups);
    assert_eq!(
        kept(&pruning),
        [
            "2026-03-29: the newest of the week from 2026-03-23 on",
            "2026-03-31: the newest of 2026-03",
            "2026-04-05: the newest of the week from 2026-03-30 on",
            "2026-04-06: the newest of 2026-04-06",
            "2026-04-07: the newest of 2026-04-07",
            "2026-04-08: the newest good one; number 1 of the last 1; the newest of 2026-04-08; \
             the newest of the week from 2026-04-06 on; the newest of 2026-04",
        ]
    );
    assert_eq!(pruning.deleted.len(), 33);
    assert_eq!(names(&pruning.deleted[..2]), ["2026-04-04", "2026-04-03"]);
}

#[test]
fn days_begin_where_the_zone_says() {
    let backups = [
        backup("late", wall("2026-06-01T21:00:00Z")),
        backup("next", wall("2026-06-01T22:30:00Z")),
    ];
    let now = wall("2026-06-02T12:00:00Z");
    assert_eq!(names(&wanted(0, 2, 0, 0).prune(now, &backups).deleted), ["late"]);
    let berlin = Retention { days: 2, ..Retention::all(zone("Europe/Berlin")) };
    assert!(berlin.prune(now, &backups).deleted.is_empty());
}

#[test]
fn nothing_asked_for_deletes_nothing() {
    let backups = nightly("2026-03", 31);
    let pruning = wanted(0, 0, 0, 0).prune(wall("2036-04-08T12:00:00Z"), &backups);
    assert!(pruning.deleted.is_empty() && pruning.kept.len() == 31);
}

#[test]
fn what_is_broken_counts_for_nothing_and_goes_when_a_newer_good_one_exists() {
    let mut backups = nightly("2026-03", 6);
    for day in [1, 4, 5] {
        backups[day].worth = Worth::Broken;
    }
    backups[0].worth = Worth::Proven;
    let now = wall("2026-03-06T12:00:00Z");
    let pruning = wanted(1, 0, 0, 0).prune(now, &backups);
    assert_eq!(
        kept(&pruning),
        [
            "2026-03-01: the newest one that was restored",
            "2026-03-04: the newest good one; number 1 of the last 1",
            "2026-03-05: broken, but no newer one is good",
            "2026-03-06: broken, but no newer one is good",
        ]
    );
    assert_eq!(names(&pruning.deleted), ["2026-03-03", "2026-03-02"]);
}

#[test]
fn holds_and_locks_are_respected() {
    let mut backups = nightly("2026-03", 6);
    backups[0].held = true;
    backups[1].locked_until = Some(wall("2026-03-06T12:00:00Z"));
    backups[2].locked_until = Some(wall("2026-03-06T12:00:01Z"));
    let pruning = wanted(1, 0, 0, 0).prune(wall("2026-03-06T12:00:00Z"), &backups);
    assert_eq!(
        kept(&pruning),
        [
            "2026-03-01: somebody forbade to delete it",
            "2026-03-03: locked until 2026-03-06T12:00:01.000Z",
            "2026-03-06: the newest good one; number 1 of the last 1",
        ]
    );
}

#[test]
fn a_base_stays_with_what_needs_it_and_goes_after_it() {
    let mut backups = nightly("2026-03", 8);
    for (after, base) in [(1, 0), (2, 1), (5, 4), (6, 5), (7, 6)] {
        backups[after].base = Some(backups[base].name.clone());
    }
    backups[2].at = backups[0].at;
    let now = wall("2026-03-08T12:00:00Z");
    let pruning = wanted(1, 0, 0, 0).prune(now, &backups);
    assert_eq!(
        kept(&pruning),
        [
            "2026-03-05: 2026-03-08 cannot be restored without it",
            "2026-03-06: 2026-03-08 cannot be restored without it",
            "2026-03-07: 2026-03-08 cannot be restored without it",
            "2026-03-08: the newest good one; number 1 of the last 1",
        ]
    );
    assert_eq!(
        names(&pruning.deleted),
        ["2026-03-03", "2026-03-02", "2026-03-04", "2026-03-01"],
        "a base went before what needs it"
    );
    // Without its base, or with a broken one, it is no backup; nor if it needs itself.
    backups[4].worth = Worth::Broken;
    assert!(wanted(1, 0, 0, 0).prune(now, &backups).kept.contains_key(&id("2026-03-04")));
    backups.remove(4);
    assert!(wanted(1, 0, 0, 0).prune(now, &backups).kept.contains_key(&id("2026-03-04")));
    backups[4].base = Some(backups[6].name.clone());
    assert!(wanted(1, 0, 0, 0).prune(now, &backups).kept.contains_key(&id("2026-03-04")));
}

#[test]
fn the_recovery_window_keeps_its_base() {
    let backups = nightly("2026-03", 20);
    let policy = Retention { recovery: Some(Duration::from_millis(7 * DAY)), ..wanted(1, 0, 0, 0) };
    let pruning = policy.prune(wall("2026-03-20T12:00:00Z"), &backups);
    let kept: Vec<_> = pruning.kept.keys().map(BackupId::as_str).collect();
    assert_eq!(kept.first(), Some(&"2026-03-13"));
    assert_eq!(kept.len(), 8);
}

#[test]
fn only_what_logs_can_follow_counts_for_the_recovery_window() {
    let mut backups = nightly("2026-03", 20);
    for backup in &mut backups[8..] {
        backup.replays = false;
    }
    let policy = Retention { recovery: Some(Duration::from_millis(3 * DAY)), ..wanted(1, 0, 0, 0) };
    let pruning = policy.prune(wall("2026-03-20T12:00:00Z"), &backups);
    let kept: Vec<_> = pruning.kept.keys().map(BackupId::as_str).collect();
    assert_eq!(kept, ["2026-03-05", "2026-03-06", "2026-03-07", "2026-03-08", "2026-03-20"]);
}

#[test]
fn time_that_passes_without_a_new_backup_deletes_nothing() {
    let backups = nightly("2026-03", 20);
    let policy = Retention { recovery: Some(Duration::from_millis(3 * DAY)), ..wanted(2, 3, 2, 1) };
    let today = policy.prune(wall("2026-03-20T12:00:00Z"), &backups);
    for later in ["2026-05-01T00:00:00Z", "2036-01-01T00:00:00Z"] {
        assert_eq!(policy.prune(wall(later), &backups), today, "at {later}");
    }
}

#[test]
fn a_clock_that_was_wrong_costs_no_good_backup() {
    let mut backups = nightly("2026-03", 6);
    backups.push(backup("next-year", wall("2027-03-01T00:00:00Z")));
    let now = wall("2026-03-06T12:00:00Z");
    let pruning = wanted(2, 0, 0, 0).prune(now, &backups);
    assert_eq!(
        kept(&pruning),
        [
            "2026-03-05: number 2 of the last 2",
            "2026-03-06: the newest good one; number 1 of the last 2",
            "next-year: of a time to come, so a clock was wrong",
        ]
    );
    // A clock that is far behind takes all of them to be of a time to come.
    let pruning = wanted(2, 0, 0, 0).prune(wall("2020-01-01T00:00:00Z"), &backups);
    assert!(pruning.deleted.is_empty());
}

/// Backups of one to two hundred days, as they come to be one after the other.
fn history() -> impl Strategy<Value = Vec<Backup>> {
    let one =
        (1..40_u64, 0..10_u8, any::<bool>(), 0..8_u8, prop::option::weighted(0.3, 1..4_usize));
    prop::collection::vec(one, 1..40).prop_map(|list| {
        let mut at = wall("2026-01-15T00:00:00Z").0;
        let mut backups: Vec<Backup> = Vec::new();
        for (number, (hours, worth, held, locked, base)) in list.into_iter().enumerate() {
            at += hours * HOUR * 3;
            let mut next = backup(&format!("b{number:02}"), WallTime(at));
            next.worth = match worth {
                0..2 => Worth::Broken,
                2..4 => Worth::Proven,
                _ => Worth::Good,
            };
            next.held = held && worth == 9;
            next.locked_until = (locked == 7).then_some(WallTime(at + 10 * DAY));
            let base = base.and_then(|back| number.checked_sub(back));
            next.base = base.map(|number| backups[number].name.clone());
            backups.push(next);
        }
        backups
    })
}

fn policy() -> impl Strategy<Value = Retention> {
    let zone_name = prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York"]);
    let recovery = prop::option::of(0..30_u64);
    (0..4_u32, 0..5_u32, 0..4_u32, 0..3_u32, recovery, zone_name).prop_map(
        |(last, days, weeks, months, recovery, name)| Retention {
            last,
            days,
            weeks,
            months,
            recovery: recovery.map(|days| Duration::from_millis(days * DAY)),
            zone: zone(name),
        },
    )
}

fn staying(pruning: &Pruning, backups: &[Backup]) -> Vec<Backup> {
    let stays = |backup: &&Backup| pruning.kept.contains_key(&backup.name);
    backups.iter().filter(stays).cloned().collect()
}

/// Whether it can be restored from these, said once more.
fn restorable(backup: &Backup, backups: &[Backup]) -> bool {
    let base = |name: &BackupId| backups.iter().find(|other| other.name == *name);
    let whole = |name: &BackupId| base(name).is_some_and(|base| restorable(base, backups));
    backup.worth != Worth::Broken && backup.base.as_ref().is_none_or(whole)
}

fn newest(backups: &[Backup], least: Worth) -> Option<BackupId> {
    let good = backups.iter().filter(|one| one.worth >= least && restorable(one, backups));
    good.max_by_key(|one| one.at).map(|one| one.name.clone())
}

/// The hours to which these lead: from some good backup on without a gap in the segments.
fn reachable(backups: &[Backup], segments: &[(u64, u64)]) -> BTreeSet<u64> {
    let mut hours = BTreeSet::new();
    for backup in backups.iter().filter(|one| restorable(one, backups)) {
        let mut hour = backup.at.0 / HOUR;
        hours.insert(hour);
        while let Some((_, to)) = segments.iter().find(|(from, to)| *from <= hour + 1 && hour < *to)
        {
            hours.extend(hour..=*to);
            hour = *to;
        }
    }
    hours
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_newest_good_and_the_newest_proven_one_always_stay(
        backups in history(), policy in policy(), later in 0..400_u64,
    ) {
        let now = WallTime(backups.last().unwrap().at.0 + later * DAY);
        let pruning = policy.prune(now, &backups);
        let left = staying(&pruning, &backups);
        prop_assert_eq!(left.len() + pruning.deleted.len(), backups.len());
        for least in [Worth::Good, Worth::Proven] {
            let before = newest(&backups, least);
            prop_assert_eq!(newest(&left, least), before);
        }
        for backup in &backups {
            let stays = pruning.kept.contains_key(&backup.name);
            prop_assert!(stays || !backup.held);
            prop_assert!(stays || backup.locked_until.is_none_or(|until| until <= now));
            // Nothing goes before a newer good one exists.
            let better = newest(&left, Worth::Good).and_then(|name| {
                left.iter().find(|left| left.name == name)
            });
            prop_assert!(stays || better.is_some_and(|better| better.at >= backup.at));
        }
        prop_assert!(left.iter().all(|one| restorable(one, &left) == restorable(one, &backups)));
        prop_assert!(pruning.kept.values().all(|reasons| !reasons.is_empty()));
    }

    #[test]
    fn what_goes_is_needed_by_nothing_that_is_still_there(backups in history(), policy in policy()) {
        let now = backups.last().unwrap().at;
        let pruning = policy.prune(now, &backups);
        let mut left: BTreeMap<_, _> =
            backups.iter().map(|backup| (&backup.name, backup)).collect();
        for gone in &pruning.deleted {
            prop_assert!(left.remove(gone).is_some());
            let needs = left.values().find(|other| other.base.as_ref() == Some(gone));
            prop_assert!(needs.is_none(), "{gone} went before {:?}", needs.map(|it| &it.name));
        }
    }

    #[test]
    fn twice_is_as_good_as_once(backups in history(), policy in policy(), later in 0..40_u64) {
        let now = WallTime(backups.last().unwrap().at.0 + later * DAY);
        let left = staying(&policy.prune(now, &backups), &backups);
        prop_assert_eq!(&policy.prune(now, &left).deleted, &Vec::<BackupId>::new());
    }

    /// What has no reason to stay gets none later; so it does not matter when it is deleted.
    #[test]
    fn what_may_go_may_go_for_ever(backups in history(), policy in policy(), cut in 1..40_usize) {
        let cut = cut.min(backups.len());
        let early = policy.prune(backups[cut - 1].at, &backups[..cut]);
        let needed = |name: &BackupId| {
            backups[cut..].iter().any(|later| later.base.as_ref() == Some(name))
        };
        // A backup cannot be made upon one that is gone.
        prop_assume!(!early.deleted.iter().any(needed));
        let late = policy.prune(backups.last().unwrap().at, &backups);
        for gone in &early.deleted {
            prop_assert!(!late.kept.contains_key(gone), "{gone}: {:?}", late.kept.get(gone));
        }
    }

    /// Every hour of the recovery window that could be restored can still be, with gaps in the archive.
    #[test]
    fn the_recovery_window_loses_nothing(
        backups in history(),
        policy in policy(),
        spans in prop::collection::vec((1..60_u64, prop::bool::weighted(0.95)), 5..120),
    ) {
        let newest_good = newest(&backups, Worth::Good);
        let now = backups.last().unwrap().at;
        let mut from = backups[0].at.0 / HOUR - 30;
        let mut archived = Vec::new();
        for (hours, there) in spans {
            if there {
                archived.push((from + 1, from + hours));
            }
            from += hours;
        }
        let pruning = policy.prune(now, &backups);
        let left = staying(&pruning, &backups);
        let before = reachable(&backups, &archived);
        let after = reachable(&left, &archived);
        let Some(newest) = newest_good else {
            return Ok(());
        };
        let newest = backups.iter().find(|one| one.name == newest).unwrap().at.0;
        let Some(window) = policy.recovery else { return Ok(()) };
        let begins = (newest - u64::try_from(window.as_millis()).unwrap()) / HOUR + 1;
        let lost: Vec<_> = before.range(begins..).filter(|hour| !after.contains(hour)).collect();
        prop_assert!(lost.is_empty(), "lost {lost:?}");
    }
}
