//! Settings that endanger a promotion.

use super::{Finding, FindingKind, of};
use crate::decision::situation::Situation;
use crate::decision::topology::{Durability, ServerSpec};

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
            lossless && !settings.durable,
            "commits are not synced to disk (sync_binlog, innodb_flush_log_at_trx_commit)",
        ),
    ];
    let wrong = checks.into_iter().filter(|(wrong, _)| *wrong);
    let tell = |(_, what): (bool, &str)| {
        let text = format!("{}: {what}", server.name);
        of(FindingKind::SettingEndangers, server, text, Vec::new())
    };
    wrong.map(tell).collect()
}
