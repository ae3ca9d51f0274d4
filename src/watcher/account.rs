//! What a leader reckons with besides reports: procedures that ended, and when maintenance is over.
//!
//! Both are counted on the leader's own clock. What happened under a predecessor is only known by
//! wall clock, so that is read once, when leadership or maintenance begins.

use crate::clock::WallTime;
use crate::clock::{Moment, Now};
use crate::decision::cluster::ClusterState;
use crate::decision::maintenance::{Change, Maintenance};
use crate::decision::response::Past;
use crate::decision::topology::ServerName;
use std::collections::BTreeMap;
use std::time::Duration;

/// Past procedures remembered for cooldowns and budgets.
const PAST_KEPT: usize = 500;

/// The leader's account of one cluster.
#[derive(Debug)]
pub(super) struct Account {
    ended: Vec<Ended>,
    /// When each notice of maintenance is over, and for which end it was reckoned.
    ends: BTreeMap<Option<ServerName>, (WallTime, Moment)>,
}

/// A procedure that ended.
#[derive(Debug)]
struct Ended {
    finding: String,
    /// When this leader learned of it, and how long ago it was then.
    learned: Moment,
    ago: Duration,
}

impl Account {
    /// What a new leader knows of its predecessors' procedures.
    pub(super) fn inherited(now: Now, state: Option<&ClusterState>) -> Account {
        let mut ended = Vec::new();
        for answered in state.into_iter().flat_map(|state| &state.answered) {
            ended.push(Ended {
                finding: answered.finding.clone(),
                learned: now.moment,
                ago: Duration::from_millis(now.wall.0.saturating_sub(answered.at.0)),
            });
        }
        Account { ended, ends: BTreeMap::new() }
    }

    /// A procedure for that finding has just ended.
    pub(super) fn ended(&mut self, now: Moment, finding: &str) {
        self.ended.push(Ended { finding: finding.to_owned(), learned: now, ago: Duration::ZERO });
        let surplus = self.ended.len().saturating_sub(PAST_KEPT);
        self.ended.drain(..surplus);
    }

    /// What was done before, for cooldowns and budgets.
    pub(super) fn past(&self, now: Moment) -> Vec<Past> {
        let past = |ended: &Ended| Past {
            finding: ended.finding.clone(),
            ago: ended.ago + now.since(ended.learned),
        };
        self.ended.iter().map(past).collect()
    }

    /// Ends all maintenance whose time is over.
    pub(super) fn maintenance_over(&mut self, now: Now, maintenance: &Maintenance) -> Vec<Change> {
        self.ends.retain(|server, _| maintenance.of(server.as_ref()).is_some());
        let mut over = Vec::new();
        for (server, notice) in maintenance.all() {
            let reckoned = (notice.until, now.moment + notice.left(now.wall));
            let end = self.ends.entry(server.cloned()).or_insert(reckoned);
            if end.0 != notice.until {
                *end = reckoned;
            }
            if end.1 <= now.moment {
                let why = "its time has passed".to_owned();
                over.push(Change::End { server: server.cloned(), until: notice.until, why });
            }
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::maintenance::Notice;

    fn at(seconds: u64, wall: u64) -> Now {
        Now { moment: Moment(seconds * 1_000_000), wall: WallTime(wall * 1_000) }
    }

    fn until(since: u64, until: u64) -> Maintenance {
        let notice = Notice {
            since: WallTime(since * 1_000),
            until: WallTime(until * 1_000),
            ..Notice::default()
        };
        Maintenance { cluster: Some(notice), ..Maintenance::default() }
    }

    #[test]
    fn maintenance_ends_by_the_leaders_own_clock() {
        let mut account = Account::inherited(at(5, 100), None);
        let maintenance = until(100, 130);
        assert!(account.maintenance_over(at(5, 100), &maintenance).is_empty());
        assert!(account.maintenance_over(at(34, 100_000), &maintenance).is_empty(), "wall jumped");
        assert_eq!(account.maintenance_over(at(35, 0), &maintenance).len(), 1);
        let longer = until(100, 140);
        assert!(account.maintenance_over(at(35, 135), &longer).is_empty(), "it was prolonged");
    }

    #[test]
    fn a_new_leader_goes_on_with_what_is_left_and_never_longer() {
        let maintenance = until(100, 130);
        let mut account = Account::inherited(at(1, 120), None);
        assert!(account.maintenance_over(at(1, 120), &maintenance).is_empty());
        assert_eq!(account.maintenance_over(at(11, 120), &maintenance).len(), 1);
        let mut account = Account::inherited(at(1, 7), None);
        assert!(account.maintenance_over(at(1, 7), &maintenance).is_empty());
        assert_eq!(account.maintenance_over(at(31, 8), &maintenance).len(), 1, "its clock is slow");
    }

    #[test]
    fn a_new_leader_inherits_cooldowns_and_budgets() {
        let mut state = ClusterState::default();
        state.answered.push_back(crate::decision::response::Answered {
            finding: "primary_dead".to_owned(),
            at: WallTime(90_000),
        });
        let account = Account::inherited(at(2, 100), Some(&state));
        let past = account.past(Moment(5_000_000));
        assert_eq!(
            (past[0].finding.as_str(), past[0].ago),
            ("primary_dead", Duration::from_secs(13))
        );
    }
}
