//! Which replicas acknowledge commits, how many must, and what that proves.
//!
//! A commit is acknowledged when `acks` of the replicas that *may* acknowledge hold it. So among
//! any `may - acks + 1` of them at least one holds every acknowledged commit; and once that many
//! have stopped receiving, fewer than `acks` are left and no further commit can complete.

use super::cluster::{ClusterState, Writer};
use super::diagnosis::divergence;
use super::gtid::Gtids;
use super::plan::Facts;
use super::report::{Receiver, Status};
use super::situation::Situation;
use super::topology::{AcknowledgedIn, Durability, Flavor, ServerName, ServerSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What protects acknowledged commits, as the watchers have agreed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// Replicas that may have acknowledged a commit of the current primary. A server is in it
    /// before it is told to acknowledge and until it has confirmed that it stopped.
    pub may_acknowledge: BTreeSet<ServerName>,
    /// The smallest number of acknowledgements a commit has waited for in this epoch.
    pub acks: u32,
    /// Whether the primary confirmed that its commits wait.
    pub in_force: bool,
    /// Whether a rule chose that commits do not wait until a replica is back to acknowledge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub degraded: bool,
    /// What was acknowledged in this epoch by other means than those that may acknowledge now: by a
    /// replica that no longer does, or by nobody before commits waited. A survivor must hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Gtids>,
}

impl Protection {
    /// What is to protect the next primary's commits, or those of this one if it goes on.
    pub fn prepare(&self) -> Protection {
        let (may_acknowledge, floor) = (self.may_acknowledge.clone(), self.floor.clone());
        Protection { may_acknowledge, floor, ..Protection::default() }
    }

    /// A replica no longer acknowledges. It may be the only one that holds what it did acknowledge.
    pub fn relieve(&mut self, server: &ServerName, holds: &Facts) {
        if self.may_acknowledge.remove(server) {
            self.raise(holds.received.as_ref());
        }
    }

    /// The primary's commits wait for so many from now on. Those before did not, or for others.
    pub fn wait(&mut self, acks: u32, holds: &Facts) {
        self.acks = acks;
        self.in_force = acks > 0;
        if self.in_force {
            self.raise(holds.executed.as_ref());
        }
    }

    /// A server was opened; another one than before holds all that was to be proven.
    pub fn begin_on(&mut self, server: &ServerName, former: &Writer) {
        self.may_acknowledge.remove(server);
        if !matches!(former, Writer::Closed { former } if former == server) {
            self.floor = None;
        }
    }

    fn raise(&mut self, held: Option<&Gtids>) {
        let all = self.floor.iter().chain(held).cloned();
        self.floor = all.reduce(|all, more| all.union(&more));
    }

    /// How many of the replicas that may acknowledge must have stopped receiving, so that no
    /// acknowledged commit is unseen and none can follow; `None` when nothing is protected.
    pub fn survey_need(&self) -> Option<usize> {
        let acks = usize::try_from(self.acks).ok()?;
        if !self.in_force || acks == 0 || acks > self.may_acknowledge.len() {
            return None;
        }
        Some(self.may_acknowledge.len() - acks + 1)
    }

    /// Whether those servers having stopped prove that nothing acknowledged is lost or can follow.
    pub fn proven_by<'a>(&self, stopped: impl IntoIterator<Item = &'a ServerName>) -> bool {
        let counted = stopped.into_iter().filter(|name| self.may_acknowledge.contains(*name));
        self.survey_need().is_some_and(|need| counted.count() >= need)
    }
}

/// Whether a former primary can complete no commit any more, because too few of those that may
/// acknowledge still receive, and no restart of it undoes that.
pub fn revoked<'a>(
    state: &ClusterState,
    former: &ServerName,
    stopped: impl IntoIterator<Item = &'a ServerName>,
) -> bool {
    state.protection.proven_by(stopped) && state.restarts.closed(former)
}

/// Which servers should acknowledge for a primary, and how the rule was met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Those that should.
    pub ackers: BTreeSet<ServerName>,
    /// How many a commit should wait for; zero means that it does not wait.
    pub acks: u32,
    /// Acknowledgements come from the primary's own data center although another is wanted,
    /// because no replica elsewhere is usable.
    pub degraded: bool,
}

/// Who should acknowledge commits of `primary`.
///
/// One acknowledgement is asked for: MariaDB knows no other number, and it lets the cluster go on
/// writing while all but one of its replicas are away.
pub fn wanted(situation: &Situation, primary: &ServerSpec) -> Wanted {
    let Durability::Lossless { acknowledged_in } = situation.spec.durability else {
        return Wanted::default();
    };
    let usable =
        |server: &&ServerSpec| server.name != primary.name && is_usable(situation, primary, server);
    let elsewhere = |server: &&ServerSpec| server.data_center != primary.data_center;
    let usable: Vec<_> = situation.spec.servers.iter().filter(usable).collect();
    // One in maintenance may be stopped at any time; it is counted on only where it is the last.
    let left_alone = |server: &&ServerSpec| situation.maintained(&server.name).is_some();
    let at_work: Vec<_> = usable.iter().copied().filter(|server| !left_alone(server)).collect();
    let usable = if at_work.is_empty() { usable } else { at_work };
    // Likewise one whose history forked, which is to be rebuilt: another takes over before that.
    let forked = |server: &&ServerSpec| divergence(situation, server).is_some();
    let sound: Vec<_> = usable.iter().copied().filter(|server| !forked(server)).collect();
    let usable = if sound.is_empty() { usable } else { sound };
    let all: BTreeSet<_> = usable.iter().copied().collect_names();
    let far: BTreeSet<_> = usable.iter().copied().filter(elsewhere).collect_names();
    match acknowledged_in {
        AcknowledgedIn::Any => Wanted { ackers: all, acks: 1, degraded: false },
        AcknowledgedIn::OtherDataCenter if far.is_empty() => {
            Wanted { degraded: !all.is_empty(), ackers: all, acks: 1 }
        }
        AcknowledgedIn::OtherDataCenter => Wanted { ackers: far, acks: 1, degraded: false },
    }
}

/// A server that answers and that the primary can count on: one that follows it, or one that will when
/// that server has become the primary. To count on one that does not follow yet would block commits.
fn is_usable(situation: &Situation, primary: &ServerSpec, server: &ServerSpec) -> bool {
    let steady =
        matches!(&situation.state.writer, Writer::Open { primary: now } if *now == primary.name);
    let whole = !situation.is_rebuilding(&server.name);
    whole
        && situation.status(&server.name).is_some_and(|status| match status.channel() {
            None => !steady,
            Some(channel) => {
                let follows = !steady || channel.source == primary.address;
                let stopped = channel.receiver == Receiver::Stopped;
                follows && channel.error.is_none() && (!stopped || status.semi_sync.replica)
            }
        })
}

/// Whether a replica may go on acknowledging though others are to: its history forked, but it still
/// applies what it receives, and its acknowledgements end when it is rebuilt.
pub fn spared(situation: &Situation, server: &ServerSpec) -> bool {
    let channel = situation.status(&server.name).and_then(Status::channel);
    let applies = channel.is_some_and(|channel| channel.applying && channel.error.is_none());
    applies && divergence(situation, server).is_some()
}

/// Whether the primary asks fewer replicas than it needs although one that should acknowledge is
/// connected and ready to: it connected before the primary could ask.
pub fn unasked(situation: &Situation, primary: &ServerSpec, wanted: &Wanted) -> bool {
    let asks = situation.status(&primary.name).map(|status| &status.semi_sync);
    let too_few = asks.is_some_and(|asks| asks.source && asks.clients < asks.acks.max(1));
    too_few && wanted.ackers.iter().any(|server| ready(situation, primary, server).is_some())
}

/// Whether commits wait, and too few are there to acknowledge them.
pub fn blocked(status: &Status) -> bool {
    let asks = &status.semi_sync;
    asks.waiting > 0 && asks.clients < asks.acks.max(1)
}

/// Whether what a server says it holds includes commits that wait: MariaDB's log names them, MySQL
/// names them once they are over.
pub fn tells_what_waits(status: &Status) -> bool {
    status.flavor == Flavor::MariaDb
}

/// Whether commits wait for acknowledgements that never come, though a replica that is counted holds
/// all that the primary has logged: it received that over a connection that asked for none, or its
/// answer was lost with one.
///
/// The acknowledgement of any later commit makes up for that. But on MariaDB those that wait may hold
/// the log, so that there is no later one; the leader's canary row finds that.
pub fn unheard(situation: &Situation, primary: &ServerSpec, wanted: &Wanted) -> bool {
    let Some(status) = situation.status(&primary.name) else {
        return false;
    };
    let asks = &status.semi_sync;
    let waits = asks.source && asks.waiting > 0 && asks.clients >= asks.acks.max(1);
    let holds = |server: &ServerName| {
        let replica = ready(situation, primary, server);
        replica.is_some_and(|it| it.received().contains(&status.executed))
    };
    let held_up = situation.canary_stalled.is_some() && tells_what_waits(status);
    waits && held_up && wanted.ackers.iter().any(holds)
}

/// The status of a replica that is connected to the primary and set to acknowledge.
fn ready<'a>(
    situation: &'a Situation,
    primary: &ServerSpec,
    server: &ServerName,
) -> Option<&'a Status> {
    let status = situation.status(server).filter(|_| situation.follows(server, primary))?;
    let receiver = status.channel().map(|channel| channel.receiver);
    (status.semi_sync.replica && receiver == Some(Receiver::Connected)).then_some(status)
}

/// Whether somebody is there to acknowledge: connected to the primary, and hearing it.
pub fn anybody_there(situation: &Situation, wanted: &Wanted) -> bool {
    situation.witnesses().iter().any(|(server, _)| wanted.ackers.contains(*server))
}

trait Names {
    fn collect_names(self) -> BTreeSet<ServerName>;
}

impl<'a, I: Iterator<Item = &'a ServerSpec>> Names for I {
    fn collect_names(self) -> BTreeSet<ServerName> {
        self.map(|server| server.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Protection;

    #[test]
    fn the_survey_intersects_every_set_that_can_acknowledge() {
        for may in 1..=6_u32 {
            for acks in 1..=may {
                let names = (0..may).map(|n| format!("db{n}").as_str().into()).collect();
                let protection = Protection {
                    may_acknowledge: names,
                    acks,
                    in_force: true,
                    ..Protection::default()
                };
                let need = u32::try_from(protection.survey_need().unwrap()).unwrap();
                assert!(need + acks > may, "{need} and {acks} of {may} may miss each other");
                assert!(may - need < acks, "{need} of {may} stopped still leaves {acks} to ack");
            }
        }
    }

    #[test]
    fn nothing_is_proven_without_protection() {
        let mut protection = Protection::default();
        assert_eq!(protection.survey_need(), None);
        protection.may_acknowledge.insert("db2".into());
        protection.acks = 2;
        protection.in_force = true;
        assert_eq!(protection.survey_need(), None, "more acks than replicas prove nothing");
    }

    #[test]
    fn a_primary_that_may_come_back_open_is_not_fenced_by_its_replicas() {
        use super::super::cluster::ClusterState;
        let may_acknowledge = ["db2", "db3"].map(Into::into).into();
        let protection =
            Protection { may_acknowledge, acks: 1, in_force: true, ..Protection::default() };
        let mut state = ClusterState { protection, ..ClusterState::default() };
        let (former, stopped) = ("db1".into(), ["db2".into(), "db3".into()]);
        assert!(!super::revoked(&state, &former, &stopped), "nothing is known of its restart");
        state.restarts.learn(&[("db1".into(), true)].into());
        assert!(super::revoked(&state, &former, &stopped));
        assert!(!super::revoked(&state, &former, &stopped[..1]), "db3 may acknowledge still");
        state.restarts.learn(&[("db1".into(), false)].into());
        assert!(!super::revoked(&state, &former, &stopped), "it would come back open");
    }

    #[test]
    fn what_a_relieved_replica_acknowledged_is_not_forgotten() {
        use super::{Facts, Gtids, Writer};
        use crate::decision::topology::Flavor;
        let gtids = |text: &str| Gtids::parse(Flavor::MySql, text).ok();
        let uuid = "00000000-0000-4000-8000-000000000001";
        let holds = |text: &str| Facts { executed: gtids(text), received: gtids(text), fork: None };
        let may_acknowledge = ["db2", "db3"].map(Into::into).into();
        let mut protection = Protection { may_acknowledge, ..Protection::default() };
        protection.relieve(&"db4".into(), &holds(&format!("{uuid}:1-99")));
        assert_eq!(protection.floor, None, "it never acknowledged");
        protection.wait(1, &holds(&format!("{uuid}:1-5")));
        protection.relieve(&"db2".into(), &holds(&format!("{uuid}:1-9")));
        assert_eq!(protection.floor, gtids(&format!("{uuid}:1-9")));
        let mut next = protection.prepare();
        next.begin_on(&"db1".into(), &Writer::Closed { former: "db1".into() });
        assert_eq!(next.floor, protection.floor, "the same primary goes on");
        next.begin_on(&"db3".into(), &Writer::Closed { former: "db1".into() });
        assert_eq!(next.floor, None);
    }
}
