//! Reads `timing` and refuses combinations that cannot work.

use super::fields::TIMING;
use super::reader::{Reading, Section};
use super::values::Shown;
use crate::decision::topology::Timing;
use std::time::Duration;

/// Reads all timings; what is left out keeps its default.
pub fn timing(reading: &mut Reading<'_>, file: &Section<'_>) -> Timing {
    let mut timing = Timing::default();
    let Some(field) = reading.optional(file, "timing") else {
        return timing;
    };
    let Some(section) = reading.section(&field, TIMING) else {
        return timing;
    };
    let before = reading.errors.len();
    let durations: [(&str, &mut Duration, u64, u64); 6] = [
        ("probe_interval", &mut timing.probe_interval, 10, 60_000),
        ("probe_timeout", &mut timing.probe_timeout, 10, 60_000),
        ("replication_heartbeat", &mut timing.replication_heartbeat, 10, 60_000),
        ("lease", &mut timing.lease, 200, 300_000),
        ("lease_renewal", &mut timing.lease_renewal, 20, 60_000),
        ("raft_tick", &mut timing.raft_tick, 5, 10_000),
    ];
    for (name, place, least, most) in durations {
        let range = Duration::from_millis(least)..=Duration::from_millis(most);
        let Some(field) = reading.optional(&section, name) else {
            continue;
        };
        *place = reading.duration(&field, range).unwrap_or(*place);
    }
    let counts: [(&str, &mut u32, u32, u32); 2] = [
        ("raft_heartbeat_ticks", &mut timing.raft_heartbeat_ticks, 1, 100),
        ("raft_election_ticks", &mut timing.raft_election_ticks, 3, 1_000),
    ];
    for (name, place, least, most) in counts {
        let Some(field) = reading.optional(&section, name) else {
            continue;
        };
        *place = reading.integer(&field, least..=most).unwrap_or(*place);
    }
    if reading.errors.len() == before {
        combinations(reading, &section, &timing);
    }
    timing
}

fn combinations(reading: &mut Reading<'_>, section: &Section<'_>, timing: &Timing) {
    let mut refuse = |names: [&str; 2], what: String| {
        // The mistake stands where somebody wrote something, not at a default.
        let name = names.into_iter().find(|name| section.has(name)).unwrap_or(names[0]);
        reading.error(section.at(name), &section.path_of(name), what);
    };
    if timing.probe_timeout > timing.probe_interval * 20 {
        let what = format!(
            "probe_timeout {} is more than 20 times probe_interval {}, so a lost server would be \
             noticed late in spite of frequent probes; write {} or less",
            Shown(timing.probe_timeout),
            Shown(timing.probe_interval),
            Shown(timing.probe_interval * 20)
        );
        refuse(["probe_timeout", "probe_interval"], what);
    }
    if timing.replication_heartbeat > timing.probe_timeout * 4 {
        let what = format!(
            "replication_heartbeat {} is more than 4 times probe_timeout {}, so replicas could not \
             tell in time whether the primary lives; write {} or less",
            Shown(timing.replication_heartbeat),
            Shown(timing.probe_timeout),
            Shown(timing.probe_timeout * 4)
        );
        refuse(["replication_heartbeat", "probe_timeout"], what);
    }
    if timing.lease < timing.lease_renewal * 3 {
        let what = format!(
            "lease {} is less than 3 times lease_renewal {}, so two lost renewals would stop \
             traffic; write a lease of {} or more",
            Shown(timing.lease),
            Shown(timing.lease_renewal),
            Shown(timing.lease_renewal * 3)
        );
        refuse(["lease", "lease_renewal"], what);
    }
    if timing.raft_election_ticks < timing.raft_heartbeat_ticks * 3 {
        let what = format!(
            "raft_election_ticks {} is less than 3 times raft_heartbeat_ticks {}, so one late \
             heartbeat would start an election; write {} or more",
            timing.raft_election_ticks,
            timing.raft_heartbeat_ticks,
            timing.raft_heartbeat_ticks * 3
        );
        refuse(["raft_election_ticks", "raft_heartbeat_ticks"], what);
    }
    let election = timing.election_min() * 2;
    if timing.lease <= election {
        let what = format!(
            "lease {} ends before watchers can elect another leader, which takes up to {} (raft_tick \
             x raft_election_ticks x 2), so each change of leader would stop traffic; write a \
             longer lease or a shorter raft_tick",
            Shown(timing.lease),
            Shown(election)
        );
        let raft = if section.has("raft_tick") { "raft_tick" } else { "raft_election_ticks" };
        refuse(["lease", raft], what);
    }
}
