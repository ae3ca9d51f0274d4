//! When backups are due: cron patterns in a time zone, evaluated as pure functions of a wall clock.
//!
//! Every time of a pattern is a [`Slot`], and a slot gets one run. The run begins a little later, by
//! a jitter that every watcher computes alike, and before the slot's window ends. Of several slots
//! that nobody served (the watchers were down, a run took too long) only the newest is made up for.
//!
//! When the clocks of the zone change: a pattern that names its hours comes once per time on the
//! clock face, at the first of two equal times, and right after the gap if its time is skipped. A
//! pattern for every hour comes in every hour that passes.
//!
//! A wall clock may jump. Slots that lie behind one that was served are never served, and what was
//! written down by a clock far ahead of the present one is disregarded.

use crate::clock::WallTime;
use crate::decision::topology::{ClusterName, ScheduleName};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// Patterns are shorter.
const MOST_PATTERN: usize = 128;

/// Missed slots that are named.
const MOST_MISSED: usize = 16;

/// More steps than a pattern has times within two days.
const MOST_STEPS: usize = 3_000;

/// So far two clocks may differ before one of them is taken to be wrong.
pub const CLOCKS_DIFFER: Duration = Duration::from_secs(3_600);

/// A pattern that has no time in the forty years after this one has none at all. The parser's calendar
/// ends with them, so looking for such a time does not take long.
const LAST_YEARS: DateTime = DateTime::constant(4960, 1, 1, 0, 0, 0, 0);

/// One time of a schedule, by which its run is known; a backup that people asked for has the time
/// at which they did.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Slot(pub WallTime);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// When backups of one kind begin and how long they may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    every_hour: bool,
    /// Runs begin up to so much after their slot, so that not all clusters begin at once; never
    /// more than half of the time in which they may begin.
    pub jitter: Duration,
    /// For how long after its slot a run may begin; until the next slot when absent.
    pub window: Option<Duration>,
    /// An attempt that takes longer is given up, and its run with it.
    pub timeout: Duration,
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// It cannot be read.
    #[error(
        "{pattern:?} is no cron pattern: {why}; write minute, hour, day of month, month and day of week, for example 30 2 * * *"
    )]
    Malformed {
        /// What was written.
        pattern: String,
        /// What the parser says.
        why: String,
    },
    /// It is unreasonably long.
    #[error("a cron pattern of {0} bytes is too long; at most 128 are read")]
    TooLong(usize),
    /// It has no time at all.
    #[error("{0:?} never comes: no month that it names has such a day")]
    Never(String),
}

/// Whose schedule it is; jitter goes by it.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The cluster.
    pub cluster: &'a ClusterName,
    /// The schedule's name.
    pub schedule: &'a ScheduleName,
}

/// What was done about a schedule so far.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// When the watchers agreed on the schedule as it stands: slots before are none of its slots.
    pub since: WallTime,
    /// Slots that were served, well or badly; the newer ones at least.
    pub taken: &'a BTreeSet<Slot>,
}

/// The times of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its slot.
    pub slot: Slot,
    /// From when on it is due.
    pub begins: WallTime,
    /// From when on it may no longer begin.
    pub until: WallTime,
}

/// What a schedule asks for at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// The run to begin now.
    pub due: Option<Planned>,
    /// Slots since the newest served one that will get no run, newest first; at most sixteen.
    pub missed: Vec<Slot>,
    /// The run that comes next, or after the one that is due.
    pub next: Option<Planned>,
}

impl Schedule {
    /// Reads a pattern of five fields, or a nickname such as `@daily`. There is no jitter, a run may
    /// begin until the next slot, and it may take a day, until told otherwise.
    pub fn new(pattern: &str, zone: TimeZone) -> Result<Schedule, ScheduleError> {
        if pattern.len() > MOST_PATTERN {
            return Err(ScheduleError::TooLong(pattern.len()));
        }
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let malformed = |why: String| ScheduleError::Malformed { pattern: pattern.to_owned(), why };
        let cron = parser.parse(pattern).map_err(|error| malformed(error.to_string()))?;
        // The parser takes a comma for a list, and nobody would find a time that fits none.
        let fields = [&cron.pattern.minutes, &cron.pattern.hours, &cron.pattern.months];
        if fields.iter().any(|field| field.values().is_empty()) {
            return Err(malformed("a field names nothing".to_owned()));
        }
        if cron.find_next_occurrence(&LAST_YEARS, true).is_err() {
            return Err(ScheduleError::Never(pattern.to_owned()));
        }
        let every_hour = (0..24).all(|hour| cron.pattern.hour_match(hour).unwrap_or(false));
        Ok(Schedule {
            cron,
            zone,
            every_hour,
            jitter: Duration::ZERO,
            window: None,
            timeout: Duration::from_secs(24 * 3_600),
        })
    }

    /// What a moment of the wall clock asks for.
    pub fn outlook(&self, owner: Owner<'_>, past: Past<'_>, now: WallTime) -> Outlook {
        let mut outlook = Outlook::default();
        let newest = self.newest(now);
        let floor = past.floor(now, newest);
        let open = |slot: &Slot| slot.0 >= floor.0 && floor.1.is_none_or(|taken| *slot > taken);
        let mut slot = newest.filter(open);
        if let Some(planned) = slot.map(|slot| self.planned(owner, slot))
            && now < planned.until
        {
            if now < planned.begins {
                outlook.next = Some(planned);
            } else {
                outlook.due = Some(planned);
            }
            slot = self.before(planned.slot).filter(open);
        }
        while let Some(missed) = slot.filter(|_| outlook.missed.len() < MOST_MISSED) {
            outlook.missed.push(missed);
            slot = self.before(missed).filter(open);
        }
        if outlook.next.is_none() {
            outlook.next = self.after(now).map(|slot| self.planned(owner, slot));
        }
        outlook
    }

    /// The times of a slot's run.
    pub fn planned(&self, owner: Owner<'_>, slot: Slot) -> Planned {
        let next = self.after(slot.0);
        let by_window = self.window.map(|window| later(slot.0, window));
        let until = by_window.into_iter().chain(next.map(|next| next.0)).min();
        let until = until.unwrap_or(WallTime(u64::MAX));
        let room = until.0.saturating_sub(slot.0.0) / 2;
        let most = millis(self.jitter).min(room);
        let spread = draw(owner, slot) % (most + 1);
        Planned { slot, begins: WallTime(slot.0.0.saturating_add(spread)), until }
    }

    /// The newest slot that is not after that time.
    pub fn newest(&self, now: WallTime) -> Option<Slot> {
        let now = stamp(now)?;
        if self.every_hour {
            let here = now.to_zoned(self.zone.clone());
            return slot_at(self.cron.find_previous_occurrence(&here, true).ok()?.timestamp());
        }
        // Within a repeated hour the clock face shows less than it has shown already.
        let day_before = now.checked_sub(Duration::from_secs(24 * 3_600)).ok()?;
        let shown = self.zone.to_datetime(now);
        let mut face = shown.max(self.zone.to_offset(day_before).to_datetime(now));
        for step in 0..MOST_STEPS {
            face = self.cron.find_previous_occurrence(&face, step == 0).ok()?;
            let at = self.first_at(face)?;
            if at <= now {
                return slot_at(at);
            }
        }
        None
    }

    /// The first slot after that time.
    pub fn after(&self, time: WallTime) -> Option<Slot> {
        let time = stamp(time)?;
        if self.every_hour {
            let here = time.to_zoned(self.zone.clone());
            return slot_at(self.cron.find_next_occurrence(&here, false).ok()?.timestamp());
        }
        let mut face = self.zone.to_datetime(time);
        for _ in 0..MOST_STEPS {
            face = self.cron.find_next_occurrence(&face, false).ok()?;
            let at = self.first_at(face)?;
            if at > time {
                return slot_at(at);
            }
        }
        None
    }

    fn before(&self, slot: Slot) -> Option<Slot> {
        self.newest(WallTime(slot.0.0.checked_sub(1)?))
    }

    /// When clocks of the zone first show that, or first show more where they skip it.
    fn first_at(&self, face: DateTime) -> Option<Timestamp> {
        match self.zone.to_ambiguous_timestamp(face).offset() {
            AmbiguousOffset::Unambiguous { offset }
            | AmbiguousOffset::Fold { before: offset, .. } => offset.to_timestamp(face).ok(),
            AmbiguousOffset::Gap { after, .. } => {
                let before_the_gap = after.to_timestamp(face).ok()?;
                Some(self.zone.following(before_the_gap).next()?.timestamp())
            }
        }
    }
}

impl fmt::Display for Schedule {
    /// Pattern and zone: two schedules that print alike have the same slots.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.cron.as_str(), self.zone.iana_name().unwrap_or("in its own zone"))
    }
}

impl Past<'_> {
    /// From when on slots count, and the newest served slot. What a clock far ahead wrote down says
    /// nothing; then only the newest slot counts, for nobody knows what was before.
    fn floor(&self, now: WallTime, newest: Option<Slot>) -> (WallTime, Option<Slot>) {
        let believed = later(now, CLOCKS_DIFFER);
        let taken = self.taken.range(..=Slot(believed)).next_back().copied();
        let since = Some(self.since).filter(|since| *since <= believed);
        (since.or(newest.map(|slot| slot.0)).unwrap_or(now), taken)
    }
}

/// A number that depends on nothing but its arguments, and on every bit of them.
fn draw(owner: Owner<'_>, slot: Slot) -> u64 {
    let names = [owner.cluster.as_str(), owner.schedule.as_str()];
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut take = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for name in names {
        take(name.as_bytes());
        take(&[0]);
    }
    take(&slot.0.0.to_le_bytes());
    // The low bits of such a sum are poor, and they are the ones that are used.
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// That time as the calendar knows it, in whole seconds; `None` beyond its years.
pub(super) fn stamp(time: WallTime) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(time.0 / 1_000).ok()?).ok()
}

fn slot_at(stamp: Timestamp) -> Option<Slot> {
    u64::try_from(stamp.as_millisecond()).ok().map(|millis| Slot(WallTime(millis)))
}

/// A time that much later, or the last one there is.
pub(super) fn later(time: WallTime, by: Duration) -> WallTime {
    WallTime(time.0.saturating_add(millis(by)))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
