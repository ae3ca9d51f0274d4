//! Every slot gets one run although any watcher may die: the account step by step, under arbitrary
//! changes, and in a small world of watchers that die, fall silent and come back.

use super::{id, wall, zone};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use regent::clock::{Moment, WallTime};
use regent::decision::backup::duty::{
    BEAT, Duty, PAUSE, SILENT, TRUSTED, Watch, YIELDED, forgotten, outlook,
};
use regent::decision::backup::runs::{
    ATTEMPTS, Account, Attempt, Change, Outcome, Rejected, Run, RunState, Runs,
};
use regent::decision::backup::schedule::{Owner, Schedule, Slot};
use regent::decision::topology::{ClusterName, ScheduleName, ServerName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const NIGHTLY: &str = "nightly";

fn attempt(slot: u64, number: u32) -> Attempt {
    Attempt { schedule: NIGHTLY.into(), slot: Slot(WallTime(slot)), number }
}

fn begin(slot: u64, number: u32, watcher: &str) -> Change {
    Change::Begin { attempt: attempt(slot, number), watcher: watcher.into(), server: "db3".into() }
}

fn finish(slot: u64, number: u32) -> Change {
    let backup = id(&format!("{slot}-{number}"));
    Change::Finish { attempt: attempt(slot, number), backup, bytes: 9, lacking: Vec::new() }
}

fn fail(slot: u64, number: u32, again: bool) -> Change {
    Change::Fail { attempt: attempt(slot, number), why: "the tool ended with 3".to_owned(), again }
}

fn progress(slot: u64, number: u32) -> Change {
    Change::Progress { attempt: attempt(slot, number), bytes: 7 }
}

fn declared() -> Runs {
    let mut runs = Runs::default();
    let says = "30 2 * * * UTC".to_owned();
    runs.apply(WallTime(0), &Change::Declare { schedule: NIGHTLY.into(), says }).unwrap();
    runs
}

fn account(runs: &Runs) -> &Account {
    &runs.schedules[&ScheduleName::from(NIGHTLY)]
}

/// Applies changes in turn, at times one second apart.
fn all(runs: &mut Runs, changes: &[Change]) -> Vec<Result<(), Rejected>> {
    let apply = |(at, change)| runs.apply(WallTime(1_000 * at), change).map(|_| ());
    (1_u64..).zip(changes).map(apply).collect()
}

#[test]
fn a_run_goes_from_beginning_to_end() {
    let mut runs = declared();
    let told = runs.apply(WallTime(5), &begin(100, 1, "paris")).unwrap().unwrap();
    assert_eq!(told.0, "backup_began");
    assert!(told.1.ends_with("attempt 1: paris reads from db3"), "{}", told.1);
    assert_eq!(runs.apply(WallTime(6), &progress(100, 1)), Ok(None));
    let told = runs.apply(WallTime(7), &finish(100, 1)).unwrap().unwrap();
    assert!(told.1.ends_with("attempt 1: made 100-1"), "{}", told.1);
    let account = account(&runs);
    assert_eq!(account.open, None);
    let done = Outcome::Done { backup: id("100-1"), bytes: 9, lacking: Vec::new() };
    assert_eq!(account.ended[0].outcome, done);
}

#[test]
fn people_are_told_which_targets_lack_a_backup() {
    let mut runs = declared();
    runs.apply(WallTime(5), &begin(100, 1, "paris")).unwrap();
    let mut finish = finish(100, 1);
    let Change::Finish { lacking, .. } = &mut finish else { unreachable!() };
    *lacking = vec!["far: it is full".to_owned(), "x".repeat(1_000)];
    let (kind, text) = runs.apply(WallTime(7), &finish).unwrap().unwrap();
    assert_eq!(kind, "backup_lacking");
    assert!(text.contains("made 100-1, which is not at far: it is full; xxx"), "{text}");
    let Outcome::Done { lacking, .. } = &account(&runs).ended[0].outcome else { panic!() };
    assert_eq!((lacking.len(), lacking[1].len()), (2, 200));
}

#[test]
fn only_the_newest_attempt_is_heard() {
    let mut runs = declared();
    let changes = [
        begin(100, 1, "paris"),
        begin(100, 2, "london"),
        progress(100, 1),
        finish(100, 1),
        fail(100, 1, true),
        fail(100, 1, false),
        finish(100, 2),
        finish(100, 2),
        begin(100, 3, "paris"),
    ];
    let ok = Ok(());
    let outdated = Err(Rejected::Outdated);
    assert_eq!(
        all(&mut runs, &changes),
        [
            ok.clone(),
            ok.clone(),
            outdated.clone(),
            outdated.clone(),
            outdated.clone(),
            outdated.clone(),
            ok,
            outdated,
            Err(Rejected::Served),
        ]
    );
    assert_eq!(account(&runs).ended[0].attempts, 2);
}

#[test]
fn two_watchers_that_both_begin_do_not_both_run() {
    let mut runs = declared();
    let changes = [begin(100, 1, "paris"), begin(100, 1, "london"), begin(200, 1, "london")];
    assert_eq!(
        all(&mut runs, &changes),
        [Ok(()), Err(Rejected::Outdated), Err(Rejected::Busy(Slot(WallTime(100))))]
    );
    // An attempt that nobody began, and one that skips a number.
    let mut runs = declared();
    let changes = [begin(100, 2, "paris"), begin(100, 1, "paris"), begin(100, 3, "paris")];
    assert_eq!(
        all(&mut runs, &changes),
        [Err(Rejected::Outdated), Ok(()), Err(Rejected::Outdated)]
    );
}

#[test]
fn an_older_slot_has_no_run_after_a_newer_one() {
    let mut runs = declared();
    let changes = [begin(200, 1, "paris"), fail(200, 1, false), begin(100, 1, "paris")];
    let superseded = Err(Rejected::Superseded(Slot(WallTime(200))));
    assert_eq!(all(&mut runs, &changes), [Ok(()), Ok(()), superseded]);
}

#[test]
fn a_slot_of_a_clock_far_ahead_stands_in_nobodys_way() {
    let mut runs = declared();
    let year = 365 * 24 * 3_600_000;
    runs.apply(WallTime(year), &begin(year, 1, "paris")).unwrap();
    runs.apply(WallTime(year), &finish(year, 1)).unwrap();
    runs.apply(WallTime(2_000), &begin(1_000, 1, "paris")).unwrap();
    runs.apply(WallTime(3_000), &finish(1_000, 1)).unwrap();
    assert_eq!(account(&runs).taken(), BTreeSet::from([Slot(WallTime(1_000))]));
    runs.apply(WallTime(year), &begin(year, 1, "paris")).unwrap();
}

#[test]
fn failed_attempts_are_made_again_but_not_for_ever() {
    let mut runs = declared();
    for number in 1..=ATTEMPTS {
        runs.apply(WallTime(1), &begin(100, number, "paris")).unwrap();
        if number < ATTEMPTS {
            let told = runs.apply(WallTime(2), &fail(100, number, true)).unwrap().unwrap();
            assert_eq!(told.0, "backup_attempt_failed");
            // A failed attempt has nothing more to say.
            assert_eq!(runs.apply(WallTime(2), &finish(100, number)), Err(Rejected::Outdated));
            assert_eq!(runs.apply(WallTime(2), &progress(100, number)), Err(Rejected::Outdated));
        }
    }
    let more = runs.apply(WallTime(2), &begin(100, ATTEMPTS + 1, "paris"));
    assert_eq!(more, Err(Rejected::TooMany));
    assert_eq!(account(&runs).open.as_ref().unwrap().tried.len(), 4);
    let told = runs.apply(WallTime(3), &fail(100, ATTEMPTS, true)).unwrap().unwrap();
    assert_eq!(told.0, "backup_failed");
    assert_eq!(account(&runs).open, None);
    let why = "the tool ended with 3".to_owned();
    assert_eq!(account(&runs).ended[0].outcome, Outcome::Failed { why });
}

#[test]
fn what_makes_way_has_not_failed_and_is_made_again_soon() {
    let (mut runs, mut watch) = (declared(), Watch::default());
    let (cluster, name, schedule) = nightly();
    let owner = Owner { cluster: &cluster, schedule: &name };
    let says = schedule.to_string();
    runs.apply(WallTime(0), &Change::Declare { schedule: name.clone(), says }).unwrap();
    let slot = wall("2026-06-02T02:30:00+02:00");
    let mut now = Moment::ZERO;
    for number in 1..=3 * ATTEMPTS {
        runs.apply(slot, &begin(slot.0, number, "paris")).unwrap();
        let made_way =
            Change::Yield { attempt: attempt(slot.0, number), why: "is promoted".to_owned() };
        let told = runs.apply(slot, &made_way).unwrap().unwrap();
        assert_eq!(told.0, "backup_yielded");
        assert_eq!(runs.apply(slot, &made_way), Err(Rejected::Outdated));
        assert_eq!(runs.apply(slot, &finish(slot.0, number)), Err(Rejected::Outdated));
        watch.look(now, &runs);
        assert_eq!(watch.duty(owner, &schedule, &runs, (slot, now)), None);
        now = now + YIELDED;
        let next = Duty::Begin { attempt: attempt(slot.0, number + 1) };
        assert_eq!(watch.duty(owner, &schedule, &runs, (slot, now)), Some(next));
    }
    assert_eq!(account(&runs).open.as_ref().unwrap().failures(), 0);
}

#[test]
fn a_slot_that_nobody_began_is_told_as_missed_and_stays_missed() {
    let mut runs = declared();
    let miss = |slot: u64| Change::Miss {
        schedule: NIGHTLY.into(),
        slot: Slot(WallTime(slot)),
        why: "db2 is 700 s behind".to_owned(),
    };
    runs.apply(WallTime(50), &begin(100, 1, "paris")).unwrap();
    assert_eq!(runs.apply(WallTime(60), &miss(200)), Err(Rejected::Busy(Slot(WallTime(100)))));
    runs.apply(WallTime(70), &finish(100, 1)).unwrap();
    assert_eq!(runs.apply(WallTime(80), &miss(100)), Err(Rejected::Served));
    let told = runs.apply(WallTime(90), &miss(300)).unwrap().unwrap();
    assert_eq!(told.0, "backup_missed");
    assert!(told.1.ends_with("was not made: db2 is 700 s behind"), "{}", told.1);
    let superseded = Err(Rejected::Superseded(Slot(WallTime(300))));
    assert_eq!(runs.apply(WallTime(95), &begin(200, 1, "paris")), superseded);
    assert_eq!(account(&runs).ended.back().unwrap().attempts, 0);
    runs.apply(WallTime(99), &begin(400, 1, "paris")).unwrap();
}

#[test]
fn a_sign_of_life_counts_without_an_entry() {
    let (mut runs, mut watch) = (declared(), Watch::default());
    let (cluster, name, schedule) = nightly();
    let owner = Owner { cluster: &cluster, schedule: &name };
    let says = schedule.to_string();
    runs.apply(WallTime(0), &Change::Declare { schedule: name.clone(), says }).unwrap();
    let slot = wall("2026-06-02T02:30:00+02:00");
    runs.apply(slot, &begin(slot.0, 1, "paris")).unwrap();
    let duty = |watch: &Watch, now| watch.duty(owner, &schedule, &runs, (slot, now));
    watch.look(Moment::ZERO, &runs);
    let later = Moment::ZERO + SILENT;
    watch.heard(later, &attempt(slot.0, 2));
    assert!(duty(&watch, later).is_some(), "another attempt was heard");
    watch.heard(later, &attempt(slot.0, 1));
    watch.look(later + BEAT, &runs);
    assert_eq!(duty(&watch, later + SILENT - BEAT), None);
    assert!(duty(&watch, later + SILENT).is_some());
    assert!(TRUSTED + BEAT < SILENT, "a watcher stops before it is taken for dead");
}

#[test]
fn schedules_that_are_declared_no_longer_are_forgotten_once_their_run_is_over() {
    let mut runs = declared();
    runs.apply(WallTime(1), &begin(100, 1, "paris")).unwrap();
    let name = ScheduleName::from(NIGHTLY);
    assert_eq!(forgotten(&runs, &BTreeSet::from([&name])), []);
    for _ in 0..2 {
        for change in forgotten(&runs, &BTreeSet::new()) {
            runs.apply(WallTime(2), &change).unwrap();
        }
    }
    assert!(runs.is_empty(), "{runs:?}");
}

#[test]
fn a_schedule_that_changes_keeps_its_runs_and_forgets_its_past_slots() {
    let mut runs = declared();
    all(&mut runs, &[begin(100, 1, "paris"), finish(100, 1), begin(200, 1, "paris")]);
    let declare = |says: &str| Change::Declare { schedule: NIGHTLY.into(), says: says.to_owned() };
    assert_eq!(runs.apply(WallTime(9), &declare("30 2 * * * UTC")), Ok(None));
    assert_eq!(account(&runs).since, WallTime(0));
    assert!(runs.apply(WallTime(9), &declare("0 8 * * * UTC")).unwrap().is_some());
    assert_eq!(account(&runs).since, WallTime(9));
    assert_eq!(account(&runs).taken().len(), 2);
    let forget = Change::Forget { schedule: NIGHTLY.into() };
    assert_eq!(runs.apply(WallTime(9), &forget), Err(Rejected::Busy(Slot(WallTime(200)))));
    runs.apply(WallTime(9), &finish(200, 1)).unwrap();
    runs.apply(WallTime(9), &forget).unwrap();
    assert_eq!(runs.apply(WallTime(9), &begin(300, 1, "paris")), Err(Rejected::NoSuchSchedule));
}

#[test]
fn what_a_newer_version_added_is_kept() {
    let text = r#"{"schedules":{"nightly":{"says":"x","since":5,"colour":"blue",
        "open":{"slot":7,"opened":8,"attempt":1,"speed":9,
            "state":{"running":{"watcher":"paris","server":"db3","since":8}}}}},"more":[1]}"#;
    let runs: Runs = serde_json::from_str(text).unwrap();
    let written = serde_json::to_string(&runs).unwrap();
    for kept in ["\"colour\":\"blue\"", "\"speed\":9", "\"more\":[1]"] {
        assert!(written.contains(kept), "{kept} is not in {written}");
    }
    assert_eq!(serde_json::from_str::<Runs>(&written).unwrap(), runs);
}

fn nightly() -> (ClusterName, ScheduleName, Schedule) {
    let mut schedule = Schedule::new("30 2 * * *", zone("Europe/Berlin")).unwrap();
    schedule.timeout = Duration::from_secs(4 * 3_600);
    ("shop".into(), NIGHTLY.into(), schedule)
}

#[test]
fn a_leader_begins_takes_over_and_gives_up() {
    let (cluster, name, schedule) = nightly();
    let owner = Owner { cluster: &cluster, schedule: &name };
    let (mut runs, mut watch) = (Runs::default(), Watch::default());
    let start = wall("2026-06-01T12:00:00+02:00");
    let says = "30 2 * * * Europe/Berlin".to_owned();
    let duty = |watch: &Watch, runs: &Runs, at: WallTime, moment: Moment| {
        watch.duty(owner, &schedule, runs, (at, moment))
    };
    let zero = Moment::ZERO;
    assert_eq!(duty(&watch, &runs, start, zero), Some(Duty::Declare { says: says.clone() }));
    runs.apply(start, &Change::Declare { schedule: name.clone(), says }).unwrap();
    assert_eq!(duty(&watch, &runs, start, zero), None);
    let due = wall("2026-06-02T02:30:00+02:00");
    let next = |number| Some(Duty::Begin { attempt: attempt(due.0, number) });
    assert_eq!(duty(&watch, &runs, due, zero), next(1));
    runs.apply(due, &begin(due.0, 1, "paris")).unwrap();
    // It has not been seen yet, then it is heard again and again, then no more.
    assert_eq!(duty(&watch, &runs, due, zero), None);
    let mut now = zero;
    for _ in 0..30 {
        watch.look(now, &runs);
        now = now + BEAT * 3;
        assert_eq!(duty(&watch, &runs, due, now), None);
        runs.apply(due, &progress(due.0, 1)).unwrap();
    }
    watch.look(now, &runs);
    assert_eq!(duty(&watch, &runs, due, now + SILENT / 2), None);
    assert_eq!(duty(&watch, &runs, due, now + SILENT), next(2));
    // A new leader has seen nothing, and waits as long as the first one did.
    let mut other = Watch::default();
    other.look(now + SILENT, &runs);
    assert_eq!(duty(&other, &runs, due, now + SILENT), None);
    assert_eq!(duty(&other, &runs, due, now + SILENT * 2), next(2));
    // A failed attempt is followed by another one after a pause, which grows.
    runs.apply(due, &begin(due.0, 2, "london")).unwrap();
    runs.apply(due, &fail(due.0, 2, true)).unwrap();
    watch.look(now, &runs);
    assert_eq!(duty(&watch, &runs, due, now + PAUSE), None);
    assert_eq!(duty(&watch, &runs, due, now + PAUSE * 2), next(3));
    // Not when the next slot has come.
    let late = wall("2026-06-03T02:30:00+02:00");
    let given_up = duty(&watch, &runs, late, now + PAUSE * 2);
    assert!(matches!(&given_up, Some(Duty::GiveUp { why, .. }) if why.contains("the tool ended")));
    // Nor is one that takes for ever borne for ever.
    runs.apply(due, &begin(due.0, 3, "london")).unwrap();
    watch.look(now, &runs);
    now = now + schedule.timeout;
    runs.apply(due, &progress(due.0, 3)).unwrap();
    watch.look(now, &runs);
    let given_up = duty(&watch, &runs, due, now);
    assert!(
        matches!(&given_up, Some(Duty::GiveUp { why, .. }) if why.contains("longer than 14400"))
    );
}

fn change() -> impl Strategy<Value = (u64, Change)> {
    let slot = (0..6_u64).prop_map(|slot| slot * 1_000_000);
    let number = 1..=ATTEMPTS + 1;
    let change =
        (slot, number, 0..9_u8, any::<bool>()).prop_map(|(slot, number, kind, again)| match kind {
            0..4 => begin(slot, number, "paris"),
            4..6 => finish(slot, number),
            6..8 => fail(slot, number, again),
            _ => progress(slot, number),
        });
    // No clock is so far behind that a slot lies ahead of it.
    (2_000_000..6_000_000_u64, change)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_order_of_changes_makes_two_runs_of_one_slot(changes in prop::collection::vec(change(), 1..200)) {
        let mut runs = declared();
        let mut made: BTreeMap<Slot, u32> = BTreeMap::new();
        let mut newest: BTreeMap<Slot, u32> = BTreeMap::new();
        for (at, change) in changes {
            let before = runs.clone();
            match runs.apply(WallTime(at), &change) {
                Err(_) => prop_assert_eq!(&runs, &before, "a rejected change left a trace"),
                Ok(_) => match &change {
                    Change::Begin { attempt, .. } => {
                        let older = newest.insert(attempt.slot, attempt.number).unwrap_or(0);
                        prop_assert_eq!(attempt.number, older + 1);
                        prop_assert!(!made.contains_key(&attempt.slot));
                    }
                    Change::Finish { attempt, .. } => {
                        prop_assert_eq!(newest.get(&attempt.slot), Some(&attempt.number));
                        prop_assert_eq!(made.insert(attempt.slot, attempt.number), None);
                    }
                    _ => {}
                },
            }
            let account = account(&runs);
            let slots: Vec<_> = account.ended.iter().map(|ended| ended.slot).collect();
            prop_assert!(slots.is_sorted() && account.ended.len() <= 32);
            let again: Runs = serde_json::from_str(&serde_json::to_string(&runs).unwrap()).unwrap();
            prop_assert_eq!(&again, &runs);
        }
    }
}

/// A watcher at work on an attempt; it may die, or be cut off and go on working.
#[derive(Clone, Debug)]
struct Worker {
    attempt: Attempt,
    left: u32,
    cut_off: u32,
    fails: bool,
}

/// What becomes of the next attempt that is begun.
#[derive(Clone, Debug)]
enum Fate {
    /// It takes so many beats.
    Works(u32),
    /// It dies, and nothing is heard of it.
    Dies,
    /// It fails after so many and says so.
    Fails(u32),
    /// It takes so many, and all that it says arrives so much later.
    CutOff(u32, u32),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        3 => (1..200_u32).prop_map(Fate::Works),
        2 => Just(Fate::Dies),
        2 => (0..50_u32).prop_map(Fate::Fails),
        2 => (1..100_u32, 0..60_u32).prop_map(|(works, late)| Fate::CutOff(works, late)),
    ]
}

/// The world: an account, workers, and whoever leads.
struct World {
    runs: Runs,
    workers: Vec<Worker>,
    stored: BTreeMap<Slot, Vec<u32>>,
}

impl World {
    /// Ten seconds of everybody's work.
    fn work(&mut self, at: WallTime) {
        for mut worker in std::mem::take(&mut self.workers) {
            worker.left = worker.left.saturating_sub(1);
            if worker.left > 0 {
                if worker.cut_off == 0 {
                    let attempt = worker.attempt.clone();
                    let _ = self.runs.apply(at, &Change::Progress { attempt, bytes: 1 });
                }
                self.workers.push(worker);
            } else if worker.cut_off > 0 {
                // Done, but nobody is told yet.
                worker.cut_off -= 1;
                worker.left = 1;
                self.workers.push(worker);
            } else {
                let (slot, number) = (worker.attempt.slot, worker.attempt.number);
                let change = match worker.fails {
                    true => fail(slot.0.0, number, true),
                    false => finish(slot.0.0, number),
                };
                if self.runs.apply(at, &change).is_ok() && !worker.fails {
                    self.stored.entry(slot).or_default().push(number);
                }
            }
        }
    }

    fn begin(&mut self, at: WallTime, attempt: &Attempt, fate: &Fate) {
        let begin = begin(attempt.slot.0.0, attempt.number, "paris");
        self.runs.apply(at, &begin).expect("what a leader is to do is allowed");
        let (left, cut_off, fails) = match fate {
            Fate::Works(left) => (*left, 0, false),
            Fate::Fails(left) => (*left, 0, true),
            Fate::CutOff(left, late) => (*left, *late, false),
            Fate::Dies => return,
        };
        self.workers.push(Worker { attempt: attempt.clone(), left, cut_off, fails });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..Default::default() })]

    /// A day of a backup every hour. Leaders come and go, and each begins to count anew.
    #[test]
    fn every_slot_gets_one_backup_or_one_failure(
        fates in prop::collection::vec(fate(), 1..80),
        changes_of_leader in prop::collection::btree_set(0..8_640_u32, 0..40),
        away in 0..8_640_u32,
        away_for in 0..3_000_u32,
    ) {
        let mut schedule = Schedule::new("0 * * * *", TimeZone::UTC).unwrap();
        schedule.timeout = Duration::from_secs(3_600);
        let (cluster, name) = (ClusterName::from("shop"), ScheduleName::from(NIGHTLY));
        let owner = Owner { cluster: &cluster, schedule: &name };
        let start = wall("2026-06-01T00:30:00Z");
        let mut fates = fates.iter().cycle();
        let mut world =
            World { runs: Runs::default(), workers: Vec::new(), stored: BTreeMap::new() };
        let mut watch = Watch::default();
        for tick in 0..8_640_u32 {
            let at = WallTime(start.0 + u64::from(tick) * 10_000);
            let moment = Moment::ZERO + BEAT * tick;
            world.work(at);
            if changes_of_leader.contains(&tick) {
                watch = Watch::default();
            }
            // All watchers are down: workers too.
            if (away..away + away_for).contains(&tick) {
                world.workers.clear();
                continue;
            }
            watch.look(moment, &world.runs);
            // A leader is not asked at every beat.
            if tick % 3 != 0 {
                continue;
            }
            match watch.duty(owner, &schedule, &world.runs, (at, moment)) {
                None => {}
                Some(Duty::Declare { says }) => {
                    let schedule = name.clone();
                    world.runs.apply(at, &Change::Declare { schedule, says }).unwrap();
                }
                Some(Duty::Begin { attempt }) => world.begin(at, &attempt, fates.next().unwrap()),
                Some(Duty::GiveUp { attempt, why }) => {
                    world.runs.apply(at, &Change::Fail { attempt, why, again: false }).unwrap();
                }
            }
        }
        let account = account(&world.runs);
        for (slot, stored) in &world.stored {
            prop_assert_eq!(stored.len(), 1, "{} has backups {:?}", slot, stored);
        }
        let done = |slot: &Slot| world.stored.contains_key(slot);
        for ended in &account.ended {
            let says_done = matches!(ended.outcome, Outcome::Done { .. });
            prop_assert_eq!(says_done, done(&ended.slot), "{}", ended.slot);
        }
        let end = WallTime(start.0 + 8_640 * 10_000);
        prop_assert!(outlook(owner, &schedule, account, end).next.is_some());
        let served = account.taken();
        prop_assert!(served.len() >= 6, "only {} slots were served", served.len());
    }
}

/// A run that was seen is shown as it is.
#[test]
fn a_run_tells_who_does_what() {
    let mut runs = declared();
    all(
        &mut runs,
        &[begin(100, 1, "paris"), fail(100, 1, true), begin(100, 2, "london"), progress(100, 2)],
    );
    let Some(Run { attempt: 2, state, tried, .. }) = &account(&runs).open else {
        panic!("{:?}", account(&runs).open);
    };
    assert_eq!(tried.iter().map(ServerName::as_str).collect::<Vec<_>>(), ["db3"]);
    let RunState::Running { watcher, bytes: 7, beats: 1, .. } = state else {
        panic!("{state:?}");
    };
    assert_eq!(watcher.as_str(), "london");
}
