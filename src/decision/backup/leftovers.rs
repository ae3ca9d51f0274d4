//! What processes that died left at a target.

use super::names;
use crate::clock::WallTime;
use crate::decision::topology::ClusterName;
use std::collections::BTreeSet;
use std::time::Duration;

/// Data that has no manifest after so long will have none. S3 dates an object by the beginning of its
/// upload, which may take days.
const LOST: Duration = Duration::from_secs(3 * 24 * 3600);

/// The data, by name and age, that no manifest belongs to and none will. The manifests must have been
/// listed after the data.
pub fn lost(
    cluster: &ClusterName,
    data: &[(String, WallTime)],
    manifests: &[String],
    now: WallTime,
) -> Vec<String> {
    let ids: BTreeSet<String> = manifests
        .iter()
        .filter_map(|object| names::id_of(cluster, object))
        .map(String::from)
        .collect();
    let folder = names::data_of(cluster);
    let known = |name: &str| {
        name.match_indices('.').any(|(at, _)| name.get(..at).is_some_and(|id| ids.contains(id)))
    };
    let is_lost = |(object, stored): &&(String, WallTime)| {
        let age = Duration::from_millis(now.0.saturating_sub(stored.0));
        // Whatever Regent did not name is somebody else's.
        let name = object.strip_prefix(&folder).filter(|name| names::is_data(name));
        age > LOST && name.is_some_and(|name| !known(name))
    };
    data.iter().filter(is_lost).map(|(object, _)| object.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::backup::manifest::Method;
    use crate::decision::backup::names::BackupId;
    use crate::decision::topology::ServerName;

    #[test]
    fn only_old_data_without_a_manifest_is_lost() {
        let cluster = ClusterName::from("shop");
        let day = 24 * 3600 * 1000;
        let now = WallTime(1_795_365_900_123);
        let id = |days: u64| BackupId::new(WallTime(now.0 - days * day), &ServerName::from("db.1"));
        let data = |days: u64| {
            (
                names::data(&cluster, &id(days), Method::Logical, days > 4),
                WallTime(now.0 - days * day),
            )
        };
        let mut all: Vec<(String, WallTime)> = [1, 4, 5, 6].into_iter().map(data).collect();
        all.push(("shop/data/notes.txt".to_owned(), WallTime(0)));
        all.push(("shop/data/sub/20261122T164500123Z-db1.sql.zst".to_owned(), WallTime(0)));
        let manifests = [names::manifest(&cluster, &id(5))];
        assert_eq!(lost(&cluster, &all, &manifests, now), [data(4).0, data(6).0]);
        assert!(lost(&cluster, &all, &manifests, WallTime(0)).is_empty(), "a clock that is wrong");
    }
}
