//! How a primary is lost that a majority of watchers cannot reach.

use super::{Finding, FindingKind, about, evidence, of};
use crate::decision::report::Sight;
use crate::decision::situation::{Situation, View};
use crate::decision::topology::{ServerSpec, WatcherName};

/// What to call it; a primary that some replica hears is not lost.
pub(super) fn finding(
    situation: &Situation,
    primary: &ServerSpec,
    fresh: &[(&WatcherName, &View)],
) -> Finding {
    let loss = Loss { situation, primary, fresh };
    loss.not_known_yet().or_else(|| loss.heard()).unwrap_or_else(|| loss.named())
}

struct Loss<'a> {
    situation: &'a Situation,
    primary: &'a ServerSpec,
    fresh: &'a [(&'a WatcherName, &'a View)],
}

impl Loss<'_> {
    /// A new leader may have heard of the primary and not yet of the replicas that would hear it.
    fn not_known_yet(&self) -> Option<Finding> {
        let majority = self.situation.majority();
        let unknown = self.situation.replicas().filter(|replica| {
            let looks = self.situation.views.get(&replica.name).map_or(0, |views| views.len());
            looks < majority && self.situation.status(&replica.name).is_none()
        });
        let names: Vec<_> = unknown.map(|replica| replica.name.as_str()).collect();
        if names.is_empty() {
            return None;
        }
        let text = format!(
            "a majority of watchers cannot reach {}; whether {} hear(s) it is not known yet",
            self.primary.name,
            names.join(", ")
        );
        Some(about(FindingKind::WatchersMissing, None, text, evidence(self.fresh)))
    }

    /// It lives, for some replica hears it.
    fn heard(&self) -> Option<Finding> {
        let witnesses = self.situation.witnesses();
        if witnesses.is_empty() {
            return None;
        }
        let mut evidence = evidence(self.fresh);
        for (replica, heard) in &witnesses {
            evidence.push(format!("{replica} heard from it {} ms ago", heard.as_millis()));
        }
        let (name, heard) = (&self.primary.name, witnesses.len());
        let silent = self.count(&Sight::Refused) + self.count(&Sight::Unreachable);
        let (kind, text) = if self.count(&Sight::Hung) > silent {
            (
                FindingKind::PrimaryOverloaded,
                format!("{name} answers too slowly, but {heard} replica(s) hear it: it lives"),
            )
        } else {
            (
                FindingKind::PrimaryUnreachableInPart,
                format!(
                    "a majority of watchers cannot reach {name}, but {heard} replica(s) still \
                     hear it"
                ),
            )
        };
        Some(of(kind, self.primary, text, evidence))
    }

    fn named(&self) -> Finding {
        let name = &self.primary.name;
        let (refused, hung) = (self.count(&Sight::Refused), self.count(&Sight::Hung));
        let (kind, text) = if refused >= self.situation.majority() {
            (
                FindingKind::PrimaryDead,
                format!("{name} is dead: nobody listens at {}", self.primary.address),
            )
        } else if hung > 0 && hung >= refused {
            (FindingKind::PrimaryHung, format!("{name} accepts connections but answers nothing"))
        } else {
            self.cut_off().unwrap_or_else(|| {
                (FindingKind::PrimaryUnreachable, format!("{name} cannot be reached"))
            })
        };
        let mut evidence = evidence(self.fresh);
        evidence.push("no replica hears it".to_owned());
        of(kind, self.primary, text, evidence)
    }

    /// Whether rather the network is to blame: a few watchers reach it, or those that stand with it
    /// are not heard of either.
    fn cut_off(&self) -> Option<(FindingKind, String)> {
        let name = &self.primary.name;
        let alive = self.fresh.iter().filter(|(_, view)| view.sight.shows_life());
        let reach: Vec<_> = alive.map(|(watcher, _)| watcher.as_str()).collect();
        if !reach.is_empty() {
            let text = format!(
                "only watcher(s) {} reach(es) {name}; a majority and all replicas do not",
                reach.join(", ")
            );
            return Some((FindingKind::PrimaryReachableToFew, text));
        }
        let place = &self.primary.data_center;
        let mut near = self.situation.watchers.iter().filter(|(_, at)| *at == place).peekable();
        near.peek()?;
        let heard = |watcher: &WatcherName| self.fresh.iter().any(|(name, _)| *name == watcher);
        if near.any(|(watcher, _)| heard(watcher)) {
            return None;
        }
        let text =
            format!("{place} is lost or cut off: neither {name} nor a watcher there answers");
        Some((FindingKind::PrimaryIsolated, text))
    }

    fn count(&self, sight: &Sight) -> usize {
        self.fresh.iter().filter(|(_, view)| view.sight.same_kind(sight)).count()
    }
}
