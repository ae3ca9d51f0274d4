//! Which slot is due when: stories of watchers that look at their clock now and then, and a count by
//! hand of every minute around the changes of clocks.

use super::{check, shown, wall, zone};
use jiff::civil::{DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use regent::clock::WallTime;
use regent::decision::backup::schedule::{Owner, Past, Planned, Schedule, ScheduleError, Slot};
use regent::decision::topology::{ClusterName, ScheduleName};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

/// A schedule, and when somebody who can begin runs looks at the clock; each due run is begun.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Story {
    cron: String,
    zone: String,
    since: String,
    cluster: Option<String>,
    jitter: Option<SignedDuration>,
    window: Option<SignedDuration>,
    at: Vec<String>,
}

#[test]
fn every_story_goes_as_written() {
    check("integration/decisions/backups/schedules", 8, tell);
}

fn tell(given: &str) -> String {
    let story: Story =
        serde_yaml::from_str(given).unwrap_or_else(|error| panic!("{error}\n{given}"));
    let zone = zone(&story.zone);
    let mut schedule = match Schedule::new(&story.cron, zone.clone()) {
        Ok(schedule) => schedule,
        Err(error) => return format!("refused: {error}\n"),
    };
    schedule.jitter = story.jitter.map_or(Duration::ZERO, SignedDuration::unsigned_abs);
    schedule.window = story.window.map(SignedDuration::unsigned_abs);
    let cluster = ClusterName(story.cluster.unwrap_or_else(|| "shop".to_owned()));
    let name = ScheduleName::from("nightly");
    let owner = Owner { cluster: &cluster, schedule: &name };
    let mut taken = BTreeSet::new();
    let mut text = String::new();
    for at in &story.at {
        let now = wall(at);
        let past = Past { since: wall(&story.since), taken: &taken };
        let outlook = schedule.outlook(owner, past, now);
        writeln!(text, "{}", shown(now, &zone)).unwrap();
        for missed in &outlook.missed {
            writeln!(text, "    missed {}", shown(missed.0, &zone)).unwrap();
        }
        if let Some(due) = outlook.due {
            writeln!(text, "    begin {}", times(&due, &zone)).unwrap();
        }
        if let Some(next) = outlook.next {
            writeln!(text, "    next {}", times(&next, &zone)).unwrap();
        }
        taken.extend(outlook.due.map(|due| due.slot));
    }
    text
}

fn times(planned: &Planned, zone: &TimeZone) -> String {
    let [slot, begins, until] =
        [planned.slot.0, planned.begins, planned.until].map(|time| shown(time, zone));
    if slot == begins {
        format!("{slot}, until {until}")
    } else {
        format!("{slot} at {begins}, until {until}")
    }
}

/// What a pattern means, said once more without a parser.
type Meaning = fn(DateTime) -> bool;

/// Patterns that name their hours: once per time on the clock face.
const BY_THE_FACE: &[(&str, Meaning)] = &[
    ("30 2 * * *", |face| face.hour() == 2 && face.minute() == 30),
    ("0 3 * * *", |face| face.hour() == 3 && face.minute() == 0),
    ("0,30 1-3 * * *", |face| (1..=3).contains(&face.hour()) && face.minute() % 30 == 0),
    ("15 2,14 * * *", |face| [2, 14].contains(&face.hour()) && face.minute() == 15),
    ("* 2 * * *", |face| face.hour() == 2),
    ("20 */2 * * *", |face| face.hour() % 2 == 0 && face.minute() == 20),
    ("45 1 * * SUN", |face| {
        face.weekday() == Weekday::Sunday && face.hour() == 1 && face.minute() == 45
    }),
    ("10 2 29 * *", |face| face.day() == 29 && face.hour() == 2 && face.minute() == 10),
];

/// Patterns for every hour: whenever an hour passes.
const BY_THE_HOUR: &[(&str, Meaning)] = &[
    ("0 * * * *", |face| face.minute() == 0),
    ("*/15 * * * *", |face| face.minute() % 15 == 0),
    ("50 0-23 * * *", |face| face.minute() == 50),
];

/// Zones, and days around which their clocks change.
const CHANGES: &[(&str, &str)] = &[
    ("Europe/Berlin", "2026-03-29T00:00:00Z"),
    ("Europe/Berlin", "2026-10-25T00:00:00Z"),
    ("America/New_York", "2026-03-08T06:00:00Z"),
    ("America/New_York", "2026-11-01T06:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:00:00Z"),
    ("Asia/Kathmandu", "2026-03-29T00:00:00Z"),
    ("UTC", "2026-03-29T00:00:00Z"),
];

const MINUTE: u64 = 60_000;

/// Every minute of two days around a change, with what the clocks of the zone show then.
fn minutes(zone: &TimeZone, change: &str) -> Vec<(WallTime, DateTime)> {
    let middle = wall(change).0;
    let minutes = (0..2 * 24 * 60).map(|minute| middle - 24 * 60 * MINUTE + minute * MINUTE);
    let face = |at: u64| {
        let stamp = Timestamp::from_millisecond(i64::try_from(at).unwrap()).unwrap();
        (WallTime(at), zone.to_datetime(stamp))
    };
    minutes.map(face).collect()
}

fn slots_by_hand(minutes: &[(WallTime, DateTime)], meaning: Meaning, by_face: bool) -> Vec<Slot> {
    let mut slots = Vec::new();
    let mut shown = minutes[0].1;
    for (at, face) in &minutes[1..] {
        let comes = if by_face {
            // Whatever is shown for the first time now, or is skipped now.
            let minute = SignedDuration::from_mins(1);
            let first = shown.checked_add(minute).unwrap();
            let mut new = first.series(jiff::Span::new().minutes(1)).take_while(|new| new <= face);
            let comes = new.any(meaning);
            shown = shown.max(*face);
            comes
        } else {
            meaning(*face)
        };
        if comes {
            slots.push(Slot(*at));
        }
    }
    slots
}

#[test]
fn slots_are_what_a_count_by_hand_finds_around_every_change_of_clocks() {
    let by_face = BY_THE_FACE.iter().map(|pattern| (pattern, true));
    let patterns: Vec<_> =
        by_face.chain(BY_THE_HOUR.iter().map(|pattern| (pattern, false))).collect();
    for (name, change) in CHANGES {
        let zone = zone(name);
        let minutes = minutes(&zone, change);
        for ((pattern, meaning), by_face) in &patterns {
            let schedule = Schedule::new(pattern, zone.clone()).unwrap();
            let expected = slots_by_hand(&minutes, *meaning, *by_face);
            let (first, last) = (minutes[0].0, minutes[minutes.len() - 1].0);
            let mut found = Vec::new();
            let mut slot = schedule.after(first);
            while let Some(next) = slot.filter(|slot| slot.0 <= last) {
                found.push(next);
                slot = schedule.after(next.0);
            }
            assert_eq!(found, expected, "{pattern} in {name} around {change}");
            for (at, _) in minutes.iter().step_by(13) {
                let newest = expected.iter().rev().find(|slot| slot.0 <= *at);
                // Within the same minute nothing changes.
                for at in [at.0, at.0 + 1, at.0 + MINUTE - 1] {
                    if let Some(newest) = newest {
                        let found = schedule.newest(WallTime(at));
                        assert_eq!(found, Some(*newest), "{pattern} in {name} at {at}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_pattern_that_makes_no_sense_is_refused_with_what_would() {
    for pattern in [
        "",
        "every night",
        "30 2 * *",
        "0 30 2 * * *",
        "61 2 * * *",
        "30 24 * * *",
        "@x",
        ", 2 * * *",
        "30 2 * , *",
    ] {
        let error = Schedule::new(pattern, TimeZone::UTC).unwrap_err();
        assert!(matches!(error, ScheduleError::Malformed { .. }), "{pattern}: {error}");
        assert!(error.to_string().contains("30 2 * * *"), "{error}");
    }
    for pattern in ["0 0 30 2 *", "* * 31 2,4,6,9,11 *", "0 0 , * ,"] {
        let error = Schedule::new(pattern, TimeZone::UTC);
        assert!(matches!(error, Err(ScheduleError::Never(_))), "{pattern}");
    }
    let long = "1,".repeat(100);
    assert!(matches!(Schedule::new(&long, TimeZone::UTC), Err(ScheduleError::TooLong(200))));
    assert!(Schedule::new("0 0 29 2 *", TimeZone::UTC).is_ok());
    assert!(Schedule::new("0 0 29 2 +MON", TimeZone::UTC).is_ok());
    assert!(Schedule::new("@daily", TimeZone::UTC).is_ok());
}

#[test]
fn jitter_differs_between_clusters_and_slots_and_is_the_same_for_everybody() {
    let mut schedule = Schedule::new("0 2 * * *", zone("Europe/Berlin")).unwrap();
    schedule.jitter = Duration::from_secs(1_800);
    let name = ScheduleName::from("nightly");
    let spread = |cluster: &str, day: u64| {
        let cluster = ClusterName::from(cluster);
        let slot = Slot(WallTime(1_790_000_000_000 + day * 24 * 60 * MINUTE));
        let planned = schedule.planned(Owner { cluster: &cluster, schedule: &name }, slot);
        planned.begins.0 - slot.0.0
    };
    // A watcher of another version must compute this too.
    assert_eq!(
        [spread("shop", 0), spread("shop", 1), spread("till", 0)],
        [996_601, 1_081_563, 1_731_015]
    );
    let mut all: Vec<u64> = (0..500).map(|day| spread("shop", day)).collect();
    assert!(all.iter().all(|spread| *spread <= 1_800_000));
    all.sort_unstable();
    // Spread over the whole span, and evenly enough.
    assert!((700_000..1_100_000).contains(&all[250]), "the middle one is {}", all[250]);
    assert!(all[10] < 120_000 && all[489] > 1_680_000, "{} to {}", all[10], all[489]);
}

#[test]
fn jitter_never_outlasts_the_time_in_which_a_run_may_begin() {
    let (cluster, name) = (ClusterName::from("shop"), ScheduleName::from("often"));
    let owner = Owner { cluster: &cluster, schedule: &name };
    let mut schedule = Schedule::new("*/5 * * * *", TimeZone::UTC).unwrap();
    schedule.jitter = Duration::from_secs(3_600);
    let mut slot = schedule.after(wall("2026-03-01T00:00:00Z")).unwrap();
    for _ in 0..200 {
        let planned = schedule.planned(owner, slot);
        assert_eq!(planned.until.0 - slot.0.0, 5 * MINUTE);
        assert!(planned.begins.0 - slot.0.0 <= 5 * MINUTE / 2);
        slot = schedule.after(slot.0).unwrap();
    }
    schedule.window = Some(Duration::from_secs(60));
    let planned = schedule.planned(owner, slot);
    assert_eq!(planned.until.0 - slot.0.0, MINUTE);
    assert!(planned.begins.0 - slot.0.0 <= MINUTE / 2);
}

/// What happens between two looks at the clock, in seconds: ordinary passing, outages, corrections of
/// the clock either way, and a clock that is altogether wrong.
fn step() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => 1..4_000_i64,
        2 => 4_000..400_000_i64,
        2 => -7_200..0_i64,
        1 => prop_oneof![Just(400 * 86_400_i64), Just(-400 * 86_400_i64)],
    ]
}

fn any_schedule() -> impl Strategy<Value = Schedule> {
    let patterns: Vec<_> =
        BY_THE_FACE.iter().chain(BY_THE_HOUR).map(|(pattern, _)| *pattern).collect();
    let zones = prop::sample::select(vec!["Europe/Berlin", "UTC", "Australia/Lord_Howe"]);
    let window = prop::option::of(60..40_000_u64);
    (prop::sample::select(patterns), zones, 0..10_000_u64, window).prop_map(
        |(pattern, name, jitter, window)| {
            let mut schedule = Schedule::new(pattern, zone(name)).unwrap();
            schedule.jitter = Duration::from_secs(jitter);
            schedule.window = window.map(Duration::from_secs);
            schedule
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_slot_is_served_twice_and_only_the_newest_is_made_up_for(
        schedule in any_schedule(),
        steps in prop::collection::vec(step(), 1..60),
        start in 0..31_000_000_i64,
    ) {
        let (cluster, name) = (ClusterName::from("shop"), ScheduleName::from("nightly"));
        let owner = Owner { cluster: &cluster, schedule: &name };
        let begin = i64::try_from(wall("2026-01-01T00:00:00Z").0 / 1_000).unwrap() + start;
        let since = WallTime(u64::try_from(begin).unwrap() * 1_000);
        let mut now = begin;
        let mut taken = BTreeSet::new();
        for step in steps {
            now += step;
            let at = WallTime(u64::try_from(now).unwrap() * 1_000);
            let outlook = schedule.outlook(owner, Past { since, taken: &taken }, at);
            prop_assert!(outlook.missed.iter().all(|missed| !taken.contains(missed)));
            // A beginning that lies far ahead was written down by a wrong clock.
            let least = if since.0 > at.0 + 60 * MINUTE { WallTime(0) } else { since };
            prop_assert!(outlook.missed.iter().all(|missed| missed.0 <= at && missed.0 >= least));
            if let Some(next) = outlook.next {
                let waits = next.begins > at && !taken.contains(&next.slot);
                prop_assert!(waits || next.slot.0 > at);
            }
            let Some(due) = outlook.due else { continue };
            prop_assert!(due.begins <= at && at < due.until && due.slot.0 >= least);
            prop_assert_eq!(Some(due.slot), schedule.newest(at));
            prop_assert!(!outlook.missed.contains(&due.slot));
            prop_assert!(taken.insert(due.slot), "{} was due twice", due.slot);
        }
    }

    #[test]
    fn no_text_makes_it_panic(pattern in "[ -~*/,0-9LW#@+-]{0,40}", at in 0..100_000_000_000_000_u64) {
        if let Ok(schedule) = Schedule::new(&pattern, TimeZone::UTC) {
            let _ = (schedule.newest(WallTime(at)), schedule.after(WallTime(at)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_watcher_that_looks_often_enough_serves_every_slot_once(
        schedule in any_schedule(),
        day in prop::sample::select(vec!["2026-03-28T20:00:00Z", "2026-10-24T20:00:00Z", "2026-07-01T00:00:00Z"]),
        start in 0..8 * 3_600_u64,
    ) {
        let (cluster, name) = (ClusterName::from("shop"), ScheduleName::from("nightly"));
        let owner = Owner { cluster: &cluster, schedule: &name };
        let since = WallTime(wall(day).0 + start * 1_000);
        let mut taken = BTreeSet::new();
        let mut wanted = BTreeSet::new();
        let last = since.0 + 8 * 60 * MINUTE;
        let mut slot = schedule.after(WallTime(since.0 - 1));
        while let Some(next) = slot.filter(|slot| slot.0.0 <= last) {
            wanted.insert(next);
            slot = schedule.after(next.0);
        }
        for at in (since.0..=last + 3 * 60 * MINUTE).step_by(30_000) {
            let past = Past { since, taken: &taken };
            let outlook = schedule.outlook(owner, past, WallTime(at));
            prop_assert!(outlook.missed.is_empty(), "{:?} at {at}", outlook.missed);
            taken.extend(outlook.due.map(|due| due.slot));
        }
        prop_assert!(wanted.is_subset(&taken), "{:?}", wanted.difference(&taken).next());
    }
}
