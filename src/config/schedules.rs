//! Reads `backups.schedules` and `backups.keep`: when backups are taken without anybody asking, and
//! how many of them stay.

use super::backups::{Backups, Target};
use super::fields::{KEEP, SCHEDULE};
use super::reader::{Field, Reading, Section};
use crate::decision::backup::choice::{Place, USUAL_LAG, Wish};
use crate::decision::backup::declared::Declared;
use crate::decision::backup::proving::{Proving, When};
use crate::decision::backup::retention::Retention;
use crate::decision::backup::schedule::Schedule;
use crate::decision::topology::{DataCenter, ScheduleName, ServerName, ServerSpec};
use jiff::tz::TimeZone;
use std::collections::BTreeSet;
use std::time::Duration;

/// More of one cluster would be a mistake.
const MOST_SCHEDULES: usize = 16;
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3_600);
const LEAST_RECOVERY: Duration = Duration::from_secs(3_600);
const MOST_RECOVERY: Duration = Duration::from_secs(3_650 * 24 * 3_600);

/// Backups that are taken without anybody asking.
#[derive(Clone, Debug)]
pub struct Scheduled {
    /// When, and from where.
    pub declared: Declared,
    /// The targets they go to, one or more, each whole.
    pub targets: Vec<String>,
}

/// Reads all schedules; `servers` are all of the cluster, if they could be read.
pub(super) fn schedules(
    reading: &mut Reading<'_>,
    backups: &Section<'_>,
    targets: &[Target],
    servers: Option<&[ServerSpec]>,
) -> Vec<Scheduled> {
    let Some(field) = reading.optional(backups, "schedules") else {
        return Vec::new();
    };
    let items = reading.list(&field);
    if items.len() > MOST_SCHEDULES {
        let what = format!("has {} schedules; at most {MOST_SCHEDULES} can be", items.len());
        reading.wrong(&field, what);
    }
    let mut names = BTreeSet::new();
    let items = items.iter().take(MOST_SCHEDULES);
    items.filter_map(|item| scheduled(reading, item, &mut names, targets, servers)).collect()
}

fn scheduled(
    reading: &mut Reading<'_>,
    item: &Field<'_>,
    names: &mut BTreeSet<String>,
    targets: &[Target],
    servers: Option<&[ServerSpec]>,
) -> Option<Scheduled> {
    let section = reading.section(item, SCHEDULE)?;
    let name = reading.need(&section, "name", "nightly").and_then(|field| {
        let name = reading.name(&field)?;
        if !names.insert(name.clone()) {
            let what = format!("schedule {} is there already; give each its own", field.shown());
            reading.wrong(&field, what);
        }
        Some(name)
    });
    let zone = zone(reading, &section);
    let schedule = reading.need(&section, "cron", "\"30 2 * * *\"").and_then(|field| {
        let text = reading.text(&field)?;
        match Schedule::new(&text, zone?) {
            Ok(schedule) => Some(schedule),
            Err(error) => {
                reading.wrong(&field, error.to_string());
                None
            }
        }
    });
    let jitter = span(reading, &section, "jitter", Duration::ZERO..=DAY / 2);
    let window = span(reading, &section, "window", MINUTE..=DAY * 32);
    let timeout = span(reading, &section, "timeout", MINUTE..=DAY * 7);
    let targets = written_to(reading, &section, targets);
    let wish = wish(reading, &section, servers);
    let mut schedule = schedule?;
    schedule.jitter = jitter.unwrap_or(schedule.jitter);
    schedule.window = window;
    schedule.timeout = timeout.unwrap_or(schedule.timeout);
    let declared = Declared { name: ScheduleName(name?), schedule, wish };
    Some(Scheduled { declared, targets: targets? })
}

fn span(
    reading: &mut Reading<'_>,
    section: &Section<'_>,
    name: &str,
    range: std::ops::RangeInclusive<Duration>,
) -> Option<Duration> {
    let field = reading.optional(section, name)?;
    reading.duration(&field, range)
}

/// The zone of `time_zone`, or UTC; none where it is wrong.
fn zone(reading: &mut Reading<'_>, section: &Section<'_>) -> Option<TimeZone> {
    if !section.has("time_zone") {
        return Some(TimeZone::UTC);
    }
    let field = reading.optional(section, "time_zone")?;
    let name = reading.text(&field)?;
    let found = TimeZone::get(&name).ok();
    if found.is_none() {
        let what = format!(
            "{} is no time zone that this machine knows; write UTC, or a name such as Europe/Paris",
            field.shown()
        );
        reading.wrong(&field, what);
    }
    found
}

/// The targets that `target` or `targets` names, or the first one there is.
fn written_to(
    reading: &mut Reading<'_>,
    section: &Section<'_>,
    targets: &[Target],
) -> Option<Vec<String>> {
    let one = reading.optional(section, "target");
    let Some(field) = reading.optional(section, "targets") else {
        let named = match one {
            Some(field) => target(reading, &field, targets),
            None => targets.first().map(|first| first.name.clone()),
        };
        return named.map(|name| vec![name]);
    };
    if one.is_some() {
        let what = "target says already where they go; write one of both";
        reading.wrong(&field, what.to_owned());
        return None;
    }
    let items = reading.list(&field);
    if items.is_empty() {
        reading.wrong(&field, "names no target; name one, or remove the line".to_owned());
    }
    let mut named = Vec::new();
    for item in &items {
        let name = target(reading, item, targets)?;
        if named.contains(&name) {
            let what = format!("{} is there already; name each target once", item.shown());
            reading.wrong(item, what);
        }
        named.push(name);
    }
    Some(named)
}

/// The target of that name.
pub(super) fn target(
    reading: &mut Reading<'_>,
    field: &Field<'_>,
    targets: &[Target],
) -> Option<String> {
    let name = reading.name(field)?;
    if targets.iter().any(|target| target.name == name) {
        return Some(name);
    }
    let known: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    if !known.is_empty() {
        let what = format!("no target is called {}; write {}", field.shown(), known.join(" or "));
        reading.wrong(field, what);
    }
    None
}

fn wish(reading: &mut Reading<'_>, section: &Section<'_>, servers: Option<&[ServerSpec]>) -> Wish {
    let from = match reading.optional(section, "from") {
        Some(field) => {
            let items = reading.list(&field);
            items.iter().filter_map(|item| place(reading, item, servers)).collect()
        }
        None => Vec::new(),
    };
    let primary = reading
        .optional(section, "primary")
        .and_then(|field| reading.choice(&field, &[("never", false), ("last_resort", true)]));
    let max_lag = span(reading, section, "max_lag", Duration::from_secs(1)..=DAY * 32);
    let (primary, max_lag) = (primary.unwrap_or(false), max_lag.unwrap_or(USUAL_LAG));
    Wish { from, primary, max_lag, only: None }
}

/// A server or a data center of the cluster.
fn place(
    reading: &mut Reading<'_>,
    item: &Field<'_>,
    servers: Option<&[ServerSpec]>,
) -> Option<Place> {
    let name = reading.name(item)?;
    let servers = servers?;
    if servers.iter().any(|server| server.name.as_str() == name) {
        return Some(Place::Server(ServerName(name)));
    }
    if servers.iter().any(|server| server.data_center.as_str() == name) {
        return Some(Place::DataCenter(DataCenter(name)));
    }
    let known: Vec<&str> = servers.iter().take(10).map(|server| server.name.as_str()).collect();
    let what = format!(
        "{} is neither a server of this cluster nor a data center of one; write {}, or where they stand",
        item.shown(),
        known.join(", ")
    );
    reading.wrong(item, what);
    None
}

/// Reads how many backups stay.
pub(super) fn keep(reading: &mut Reading<'_>, backups: &Section<'_>) -> Option<Retention> {
    let field = reading.optional(backups, "keep")?;
    let section = reading.section(&field, KEEP)?;
    let zone = zone(reading, &section);
    let mut count = |name: &str| {
        let field = reading.optional(&section, name)?;
        reading.integer(&field, 1..=10_000)
    };
    let [last, days, weeks, months] =
        ["last", "days", "weeks", "months"].map(|name| count(name).unwrap_or_default());
    let recovery = reading
        .optional(&section, "recovery_window")
        .and_then(|field| reading.duration(&field, LEAST_RECOVERY..=MOST_RECOVERY));
    let fields = ["last", "days", "weeks", "months", "recovery_window"];
    if !fields.iter().any(|name| section.has(name)) {
        let what = "says nothing; write how many stay, such as keep: { last: 3, days: 7 }";
        reading.wrong(&field, what.to_owned());
    }
    Some(Retention { last, days, weeks, months, recovery, zone: zone? })
}

/// What all watchers must agree upon, a line each.
pub(super) fn told(backups: &Backups) -> Vec<String> {
    let schedule = |it: &Scheduled| {
        let Declared { name, schedule, wish } = &it.declared;
        let times = (schedule.jitter, schedule.window, schedule.timeout);
        format!("{name} {schedule} {times:?} {wish:?} {}", it.targets.join(" "))
    };
    let keep = backups.keep.iter().map(|keep| {
        let Retention { last, days, weeks, months, recovery, zone } = keep;
        let zone = zone.iana_name().unwrap_or_default();
        format!("keep {last} {days} {weeks} {months} {recovery:?} {zone}")
    });
    let proving = backups.verify.proving.iter().map(|Proving { when, alert_after }| {
        let when = match when {
            When::Every(span) => format!("every {span:?}"),
            When::Cron(schedule) => schedule.to_string(),
        };
        format!("proven {when} {alert_after:?}")
    });
    let binlogs = &backups.binlogs;
    let archived = binlogs.archive_to.iter();
    let archived = archived.map(|it| format!("archived at {it} {:?}", binlogs.alert_after));
    let each = backups.schedules.iter().map(schedule).chain(keep).chain(proving);
    each.chain(archived).collect()
}
