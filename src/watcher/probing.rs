//! When each server is due for a probe, and what the probes of all watchers said.

use crate::clock::Moment;
use crate::decision::gtid::Gtids;
use crate::decision::report::{Receiver, Sight, Status};
use crate::decision::situation::{View, witness_window};
use crate::decision::topology::{
    ClusterName, Clusters, Endpoint, ServerKey, ServerName, Timing, WatcherName,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A probe that was not answered for so many time limits is taken for lost.
const LOST_AFTER: u32 = 5;

/// A watcher's own schedule of probes.
#[derive(Debug)]
pub struct Schedule {
    timing: Timing,
    due: BTreeSet<(Moment, ServerKey)>,
    entries: BTreeMap<ServerKey, Entry>,
}

#[derive(Debug)]
struct Entry {
    due: Moment,
    /// When the probe under way was begun.
    under_way: Option<Moment>,
    /// Failed probes in a row.
    failures: u32,
    /// Probe again as soon as the one under way ends.
    again: bool,
}

impl Schedule {
    /// All servers, spread over one interval by `seed` so that watchers do not probe in step.
    pub fn new(clusters: &Clusters, timing: Timing, seed: u64, now: Moment) -> Schedule {
        let mut schedule = Schedule { timing, due: BTreeSet::new(), entries: BTreeMap::new() };
        let interval = u64::try_from(timing.probe_interval.as_micros()).unwrap_or(u64::MAX).max(1);
        for (cluster, spec) in clusters {
            for server in &spec.servers {
                let key = ServerKey { cluster: cluster.clone(), server: server.name.clone() };
                let offset = mix(seed, key.to_string().as_bytes()) % interval;
                let due = now + Duration::from_micros(offset);
                schedule.due.insert((due, key.clone()));
                let entry = Entry { due, under_way: None, failures: 0, again: false };
                schedule.entries.insert(key, entry);
            }
        }
        schedule
    }

    /// The next time anything is due.
    pub fn next(&self) -> Option<Moment> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Servers to probe now.
    pub fn take_due(&mut self, now: Moment) -> Vec<ServerKey> {
        let mut taken = Vec::new();
        while self.next().is_some_and(|due| due <= now) {
            let Some((_, key)) = self.due.pop_first() else {
                break;
            };
            let lost = now + self.timing.probe_timeout * LOST_AFTER;
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.under_way = Some(now);
                entry.due = lost;
                self.due.insert((lost, key.clone()));
                taken.push(key);
            }
        }
        taken
    }

    /// A probe ended. A failed one is repeated sooner, so that a second opinion comes fast.
    pub fn done(&mut self, now: Moment, key: &ServerKey, sight: &Sight) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let Some(begun) = entry.under_way.take() else {
            return;
        };
        entry.failures = if sight.shows_life() { 0 } else { entry.failures.saturating_add(1) };
        let interval = match entry.failures {
            1..=3 => self.timing.probe_interval / 4,
            _ => self.timing.probe_interval,
        };
        let due = if std::mem::take(&mut entry.again) { now } else { (begun + interval).max(now) };
        self.due.remove(&(entry.due, key.clone()));
        entry.due = due;
        self.due.insert((due, key.clone()));
    }

    /// Something is wrong with a cluster: look at all of it at once.
    pub fn hurry(&mut self, now: Moment, cluster: &ClusterName) {
        let all = ServerKey { cluster: cluster.clone(), server: ServerName::from("") };
        let of_cluster =
            self.entries.range_mut(all..).take_while(|(key, _)| &key.cluster == cluster);
        for (key, entry) in of_cluster {
            if entry.under_way.is_some() {
                entry.again = true;
            } else if entry.due > now {
                self.due.remove(&(entry.due, key.clone()));
                entry.due = now;
                self.due.insert((now, key.clone()));
            }
        }
    }
}

/// The newest report of each watcher on each server, stamped with the leader's clock at arrival.
#[derive(Debug, Default)]
pub struct Table(BTreeMap<ServerKey, BTreeMap<WatcherName, Row>>);

#[derive(Debug)]
struct Row {
    sight: Sight,
    arrived: Moment,
    since: Moment,
    times: u32,
    heard: Option<Moment>,
    last_alive: Option<Moment>,
    /// What the server held when it was last alive, if it no longer is.
    held: Option<Gtids>,
    /// The last probes, a bit for each that showed no life, the newest lowest.
    silences: u32,
    /// What it was last seen to follow, and since when; zero for what it followed when first seen.
    source: Option<Endpoint>,
    source_since: Moment,
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// More of the same.
    Nothing,
    /// A failing or changed sight: look at the cluster now.
    Notable,
}

impl Table {
    /// Notes a report.
    pub fn note(&mut self, now: Moment, from: &WatcherName, key: ServerKey, sight: Sight) -> News {
        let old_news = self.is_old_news(from, &key, &sight);
        let rows = self.0.entry(key).or_default();
        let alive = sight.shows_life().then_some(now);
        let Some(row) = rows.get_mut(from) else {
            let row = Row {
                arrived: now,
                since: now,
                times: 1,
                heard: None,
                last_alive: alive,
                held: None,
                silences: u32::from(alive.is_none()),
                source: source_of(&sight),
                source_since: Moment::ZERO,
                sight,
            };
            rows.insert(from.clone(), row);
            return News::Notable;
        };
        let same = row.sight.same_kind(&sight);
        let notable = !same || !sight.shows_life() || differs(&row.sight, &sight);
        let still_failing = !row.sight.shows_life() && !sight.shows_life();
        if same || still_failing {
            row.times = row.times.saturating_add(1);
        } else {
            row.times = 1;
            row.since = now;
        }
        if received_something(&row.sight, &sight) && !old_news {
            row.heard = Some(now);
        }
        if alive.is_some() && row.source != source_of(&sight) {
            row.source = source_of(&sight);
            // What it followed before it was first alive is not known.
            row.source_since = row.last_alive.map_or(Moment::ZERO, |_| now);
        }
        row.silences = row.silences << 1 | u32::from(alive.is_none());
        row.held = match (std::mem::replace(&mut row.sight, sight), &row.sight) {
            (_, Sight::Alive(_)) => None,
            (Sight::Alive(status), _) => Some(status.executed),
            (_, _) => row.held.take(),
        };
        row.arrived = now;
        row.last_alive = alive.or(row.last_alive);
        if notable { News::Notable } else { News::Nothing }
    }

    /// Whether a replica received only what another replica of the same source was known to hold by
    /// then. One that catches up goes on reading what had arrived long after its source died.
    fn is_old_news(&self, from: &WatcherName, key: &ServerKey, sight: &Sight) -> bool {
        let before = self.0.get(key).and_then(|rows| rows.get(from)).map(|row| &row.sight);
        let channel_of = |sight: &Sight| sight.status().and_then(Status::channel).cloned();
        let (Some(before), Some(own)) = (before.and_then(channel_of), channel_of(sight)) else {
            return false;
        };
        if before.received == own.received {
            return false; // A heartbeat, which only a living source sends.
        }
        let all = ServerKey { cluster: key.cluster.clone(), server: ServerName::from("") };
        let of_cluster = self.0.range(all..).take_while(|(other, _)| other.cluster == key.cluster);
        let others = of_cluster.filter(|(other, _)| other.server != key.server);
        let statuses =
            others.flat_map(|(_, rows)| rows.values()).filter_map(|row| row.sight.status());
        let same_source =
            |status: &&Status| status.channel().is_some_and(|it| it.source == own.source);
        statuses.filter(same_source).any(|status| status.received().contains(&own.received))
    }

    /// The views of one server as of now.
    pub fn views(
        &self,
        now: Moment,
        key: &ServerKey,
        timing: &Timing,
    ) -> BTreeMap<WatcherName, View> {
        let rows = self.0.get(key);
        let view = |row: &Row| {
            // Counters tell something only from the second report on. Until a whole window has
            // been watched, a connected receiver counts as hearing its source.
            let young = now.since(row.since) < witness_window(timing);
            let heard = row.heard.map(|heard| row.arrived.since(heard));
            View {
                sight: row.sight.clone(),
                age: now.since(row.arrived),
                lasting: now.since(row.since),
                times: row.times,
                falls: falls(row.silences),
                heard_source: heard.or(young.then_some(Duration::ZERO)),
                following: now.since(row.source_since),
                last_alive: row.last_alive.map(|alive| now.since(alive)),
                held: row.held.clone(),
            }
        };
        rows.into_iter().flatten().map(|(watcher, row)| (watcher.clone(), view(row))).collect()
    }
}

/// How often an answer was followed by silence.
fn falls(silences: u32) -> u32 {
    (silences & !(silences >> 1) & (u32::MAX >> 1)).count_ones()
}

fn source_of(sight: &Sight) -> Option<Endpoint> {
    sight.status().and_then(Status::channel).map(|channel| channel.source.clone())
}

/// Whether a status changed in a way that decisions look at.
fn differs(before: &Sight, after: &Sight) -> bool {
    let (Some(before), Some(after)) = (before.status(), after.status()) else {
        return true;
    };
    let link = |status: &crate::decision::report::Status| {
        status.channel().map(|channel| (channel.source.clone(), channel.receiver, channel.applying))
    };
    before.writable != after.writable
        || before.semi_sync.source != after.semi_sync.source
        || before.semi_sync.replica != after.semi_sync.replica
        || link(before) != link(after)
}

/// Whether the server's receiver got anything from its source between two reports.
fn received_something(before: &Sight, after: &Sight) -> bool {
    let (Some(before), Some(after)) = (before.status(), after.status()) else {
        return false;
    };
    let (Some(before), Some(after)) = (before.channel(), after.channel()) else {
        return false;
    };
    after.receiver == Receiver::Connected
        && before.source == after.source
        && (after.beats > before.beats || after.received != before.received)
}

/// FNV-1a over the seed and some bytes: spreads probes, decides nothing.
fn mix(seed: u64, bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64 ^ seed;
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::sketch;

    #[test]
    fn a_change_of_source_is_dated() {
        let seen = |source: &str| {
            let text = format!(
                "primary: db1\nservers: [{{ name: db1 }}, {{ name: db2 }}, \
                                {{ name: db3, follows: {source} }}]"
            );
            let situation = sketch::read(&text).unwrap().situation;
            let views = situation.views.get(&ServerName::from("db3")).unwrap();
            views.values().next().unwrap().sight.clone()
        };
        let (watcher, timing) = (WatcherName::from("w1"), Timing::default());
        let key = ServerKey { cluster: "shop".into(), server: "db3".into() };
        let mut table = Table::default();
        let mut following = |at: u64, sight: Sight| {
            let now = Moment(at * 1_000_000);
            table.note(now, &watcher, key.clone(), sight);
            table.views(now, &key, &timing).get(&watcher).unwrap().following.as_secs()
        };
        // What it followed when first seen it may have followed for ever.
        assert_eq!(following(50, seen("db1")), 50);
        assert_eq!(following(60, seen("db2")), 0);
        assert_eq!(following(61, Sight::Hung), 1);
        assert_eq!(following(62, seen("db2")), 2);
    }
}
