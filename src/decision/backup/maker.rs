//! Which watcher makes a backup: one that is near the server, and rather not the leader, which has
//! failovers to do.

use crate::decision::topology::{DataCenter, WatcherName};
use std::collections::{BTreeMap, BTreeSet};

/// The watchers there are, as their leader sees them.
#[derive(Clone, Copy, Debug)]
pub struct Watchers<'a> {
    /// All of them, and where they stand.
    pub declared: &'a BTreeMap<WatcherName, DataCenter>,
    /// Those that were heard of lately, the leader included.
    pub reachable: &'a BTreeSet<WatcherName>,
    /// The one that leads.
    pub leader: &'a WatcherName,
}

/// Chooses who makes a backup of a server that stands there; `tried_by` are those whose attempts of
/// this run have failed, once per attempt.
pub fn pick(
    watchers: Watchers<'_>,
    stands: &DataCenter,
    tried_by: &[WatcherName],
) -> Option<WatcherName> {
    let reachable = watchers.declared.iter().filter(|(name, _)| watchers.reachable.contains(*name));
    let best = reachable.min_by_key(|(name, place)| {
        let failed = tried_by.iter().filter(|tried| tried == name).count();
        (failed, *place != stands, *name == watchers.leader, (*name).clone())
    });
    best.map(|(name, _)| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_that_did_not_fail_makes_it_and_rather_not_the_leader() {
        let place = |name: &str, place: &str| (WatcherName::from(name), DataCenter::from(place));
        let declared =
            BTreeMap::from([place("a", "paris"), place("b", "paris"), place("c", "london")]);
        let chosen = |reachable: &[&str], leader: &str, stands: &str, tried: &[&str]| {
            let reachable = reachable.iter().map(|name| WatcherName::from(*name)).collect();
            let leader = WatcherName::from(leader);
            let watchers = Watchers { declared: &declared, reachable: &reachable, leader: &leader };
            let tried: Vec<_> = tried.iter().map(|name| WatcherName::from(*name)).collect();
            pick(watchers, &stands.into(), &tried).map(|name| name.0)
        };
        for (reachable, leader, stands, tried, maker) in [
            (["a", "b", "c"].as_slice(), "a", "paris", [].as_slice(), "b"),
            (&["a", "b", "c"], "c", "paris", &[], "a"),
            (&["a", "b", "c"], "c", "london", &[], "c"),
            (&["b", "c"], "b", "paris", &[], "b"),
            (&["a", "b", "c"], "a", "paris", &["b"], "a"),
            (&["a", "b", "c"], "a", "paris", &["b", "a"], "c"),
            (&["a", "b", "c"], "a", "nowhere", &[], "b"),
        ] {
            let found = chosen(reachable, leader, stands, tried);
            assert_eq!(found.as_deref(), Some(maker), "{reachable:?} {leader} {stands} {tried:?}");
        }
        assert_eq!(chosen(&[], "a", "paris", &[]), None);
    }
}
