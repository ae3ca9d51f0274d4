//! What a promotion may lose: measured from what was last seen of the former primary.

use super::candidate::{Survey, everything};
use super::gtid::Gtids;
use super::procedure::Procedure;
use super::situation::{Situation, View};
use super::topology::{Durability, ServerName};
use std::time::Duration;

/// What may be lost when one of the surveyed servers is promoted, as a sentence; `None` when it is
/// proven that nothing is.
pub fn stated(situation: &Situation, procedure: &Procedure, survey: &Survey) -> Option<String> {
    let from = &procedure.from;
    if procedure.former_is_read_only() && survey.received.contains_key(from) {
        return None;
    }
    let unproven = super::planning::unproven(situation, procedure, survey);
    if unproven.is_none() && matches!(situation.spec.durability, Durability::Lossless { .. }) {
        return None;
    }
    let measured = measured(situation, from, survey);
    Some(match unproven {
        Some(why) => format!("{why}; {measured}"),
        None => measured,
    })
}

fn measured(situation: &Situation, from: &ServerName, survey: &Survey) -> String {
    let Some((seen, ago)) = last_seen(situation, from) else {
        return format!("what {from} held was never seen, so what is lost cannot be measured");
    };
    let ago = ago.as_millis();
    let held = everything(situation, survey).unwrap_or_else(|| Gtids::empty(seen.flavor()));
    let missing = seen.minus(&held);
    if missing.is_empty() {
        return format!(
            "the survivors hold all that {from} was last seen to hold, {ago} ms ago; what it \
             committed after that may be lost"
        );
    }
    let count = seen.count_beyond(&held);
    format!(
        "{count} transaction(s) that {from} was last seen to hold, {ago} ms ago, are on no \
         survivor: {missing}; these, and what it committed after that, may be lost"
    )
}

/// The newest that any watcher saw a server hold, and how long ago.
pub(super) fn last_seen(situation: &Situation, server: &ServerName) -> Option<(Gtids, Duration)> {
    let seen = |view: &View| match view.sight.status() {
        Some(status) => Some((status.executed.clone(), view.age)),
        None => Some((view.held.clone()?, view.last_alive?)),
    };
    let views = situation.views.get(server)?.values().filter_map(seen);
    views.reduce(|(all, ago), (more, newer)| (all.union(&more), ago.min(newer)))
}
