//! Settings that endanger a promotion, of one server and of all of them together.

use super::{Finding, FindingKind, about, of};
use crate::decision::report::Status;
use crate::decision::situation::Situation;
use crate::decision::topology::{Durability, ServerName, ServerSpec};
use std::collections::BTreeMap;

pub(super) fn findings(situation: &Situation, server: &ServerSpec) -> Vec<Finding> {
    let Some(status) = situation.status(&server.name) else {
        return Vec::new();
    };
    let settings = &status.settings;
    let lossless = matches!(situation.spec.durability, Durability::Lossless { .. });
    let checks = [
        (!settings.binlog, "its binary log is off, so nobody can follow it"),
        (
            !settings.logs_replica_updates,
            "it does not log what it applies, so nobody can follow it after a promotion",
        ),
        (!settings.gtids, "GTIDs are not enforced (gtid_mode, gtid_strict_mode)"),
        (
            settings.relay_log_recovery,
            "relay_log_recovery throws received transactions away at a restart",
        ),
        (
            settings.relay_log_recovery && !settings.relay_log_synced,
            "received transactions are not synced to disk (sync_relay_log), so that a crash makes \
             relay_log_recovery throw them away",
        ),
        (
            lossless && !settings.durable,
            "commits are not synced to disk (sync_binlog, innodb_flush_log_at_trx_commit)",
        ),
        (
            settings.restarts_open == Some(true),
            "it would come back writable from a restart; set read_only in its option file",
        ),
    ];
    let wrong = checks.into_iter().filter(|(wrong, _)| *wrong);
    let tell = |(_, what): (bool, &str)| {
        let text = format!("{}: {what}", server.name);
        of(FindingKind::SettingEndangers, server, text, Vec::new())
    };
    wrong.map(tell).collect()
}

/// What the servers should have in common and have not.
pub(super) fn differences(situation: &Situation) -> Vec<Finding> {
    let release = |status: &Status| {
        let version = status.version;
        Some(format!("{} {}.{}", status.flavor, version.major, version.minor))
    };
    let checks = [
        (differing(situation, release), "versions differ, and an older one cannot follow a newer"),
        (
            differing(situation, |status| status.settings.gtid_mode.clone()),
            "GTID modes differ, and not every server could follow every other",
        ),
    ];
    let told = checks.into_iter().filter_map(|(groups, what)| {
        let text = format!("{what}: {}", groups?);
        Some(about(FindingKind::SettingEndangers, None, text, Vec::new()))
    });
    told.collect()
}

/// Who has what, where not all have the same.
fn differing(situation: &Situation, what: impl Fn(&Status) -> Option<String>) -> Option<String> {
    let mut groups: BTreeMap<String, Vec<&ServerName>> = BTreeMap::new();
    for server in &situation.spec.servers {
        if let Some(value) = situation.status(&server.name).and_then(&what) {
            groups.entry(value).or_default().push(&server.name);
        }
    }
    if groups.len() < 2 {
        return None;
    }
    let tell = |(value, names): (&String, &Vec<&ServerName>)| {
        let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
        format!("{value} on {}", names.join(", "))
    };
    Some(groups.iter().map(tell).collect::<Vec<_>>().join("; "))
}
