//! What watchers agree on, whatever the network and the disks do.

use crate::network::Cluster;
use regent::clock::Moment;
use regent::decision::topology::{Timing, WatcherName};
use regent::watcher::consensus::{Consensus, ConsensusError, Refused};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(10);

fn elected(count: usize, seed: u64) -> (Cluster, usize) {
    let mut cluster = Cluster::new(count, seed);
    cluster.run_until(LONG, |c| c.leader().is_some_and(|l| !c.nodes[l].state.is_empty()));
    let leader = cluster.leader().unwrap();
    (cluster, leader)
}

#[test]
fn a_leader_is_elected_and_commits() {
    for count in [1, 3, 5] {
        let (mut cluster, leader) = elected(count, 7);
        assert!(cluster.propose(leader, b"hello"));
        cluster.run_until(LONG, |c| c.nodes.iter().all(|n| n.state.len() == 2));
        assert!(cluster.nodes.iter().all(|n| n.state[1].data == b"hello"));
        let follower = (leader + 1) % count;
        if follower != leader {
            let refused = cluster.raft(follower).propose(b"no".to_vec());
            let leader = Some(cluster.nodes[leader].name.clone());
            assert_eq!(refused, Err(Refused::NotLeader { leader }));
        }
    }
}

#[test]
fn an_isolated_leader_steps_down_after_its_lease_and_before_another_leads_its_lease_is_over() {
    for seed in 0..20 {
        let (mut cluster, old) = elected(3, seed);
        let now = cluster.now;
        cluster.raft(old).read_index(now, 5).unwrap();
        cluster.drain(old);
        cluster.run_until(LONG, |c| !c.nodes[old].reads.is_empty());
        assert_eq!(cluster.nodes[old].reads[0].context, 5);
        let lease = cluster.raft(old).surely_leads_until().unwrap();
        assert!(lease > now && lease < now + Timing::default().election_min());
        cluster.cut[old] = true;
        cluster.run_until(LONG, |c| c.leader().is_some_and(|l| l != old));
        assert!(cluster.now > lease, "seed {seed}: a leader at {:?}", cluster.now);
        cluster.run(Timing::default().election_min() * 2);
        assert!(!cluster.raft(old).is_leader());
        assert_eq!(cluster.raft(old).surely_leads_until(), None);
        cluster.cut[old] = false;
        cluster.run(Duration::from_secs(2));
        cluster.assert_agreed();
    }
}

#[test]
fn a_restarted_follower_does_not_break_the_lease() {
    for seed in 0..20 {
        let (mut cluster, old) = elected(3, seed);
        cluster.run(Duration::from_millis(300));
        let now = cluster.now;
        cluster.raft(old).read_index(now, 1).unwrap();
        cluster.drain(old);
        cluster.run_until(LONG, |c| !c.nodes[old].reads.is_empty());
        let lease = cluster.raft(old).surely_leads_until().unwrap();
        cluster.cut[old] = true;
        for other in (0..3).filter(|other| *other != old) {
            cluster.crash(other);
            cluster.start(other);
        }
        cluster.run_until(LONG, |c| c.leader().is_some_and(|l| l != old));
        assert!(cluster.now > lease, "seed {seed}");
    }
}

#[test]
fn a_lagging_watcher_catches_up_by_snapshot_even_with_a_slow_disk() {
    let (mut cluster, leader) = elected(3, 3);
    let behind = (leader + 1) % 3;
    cluster.cut[behind] = true;
    for round in 0..700u32 {
        assert!(cluster.propose(leader, &round.to_be_bytes()));
        cluster.run(Duration::from_millis(10));
    }
    cluster.run(Duration::from_secs(1));
    cluster.compact(leader);
    cluster.run(Duration::from_millis(100));
    cluster.disk_delay = Duration::from_secs(2);
    cluster.cut[behind] = false;
    cluster.run_until(LONG, |c| c.nodes[behind].snapshots > 0);
    // The leader dies while the snapshot is not on disk yet: no campaign may begin from it.
    cluster.run(Duration::from_secs(3));
    cluster.disk_delay = Duration::from_millis(1);
    cluster.run_until(Duration::from_secs(30), |c| c.nodes[behind].state.len() >= 701);
    cluster.crash(behind);
    cluster.start(behind);
    cluster.run(Duration::from_secs(5));
    cluster.assert_agreed();
    assert!(cluster.nodes[behind].state.len() >= 701);
}

fn storm(seed: u64) -> Cluster {
    let mut cluster = Cluster::new(3, seed);
    let mut proposal = 0u64;
    for _ in 0..60 {
        cluster.loss_percent = cluster.draw() % 30;
        cluster.disk_delay = Duration::from_micros(100 + cluster.draw() % 80_000);
        let node = (cluster.draw() % 3) as usize;
        match cluster.draw() % 6 {
            0 if cluster.nodes[node].raft.is_some() => cluster.crash(node),
            1 | 2 if cluster.nodes[node].raft.is_none() => cluster.start(node),
            3 => cluster.cut[node] = !cluster.cut[node],
            4 if cluster.nodes[node].raft.is_some() && cluster.nodes[node].state.len() > 3 => {
                let state = &cluster.nodes[node].state;
                let index = state.last().unwrap().index;
                let bytes = serde_json::to_vec(
                    &state.iter().map(|e| (e.index, e.term, &e.data)).collect::<Vec<_>>(),
                );
                cluster.raft(node).compact(index, bytes.unwrap()).unwrap();
                cluster.drain(node);
            }
            _ => {}
        }
        for _ in 0..5 {
            if let Some(leader) = cluster.leader() {
                proposal += 1;
                cluster.propose(leader, &proposal.to_be_bytes());
            }
            let span = Duration::from_millis(cluster.draw() % 200);
            cluster.run(span);
            cluster.assert_agreed();
        }
    }
    cluster.loss_percent = 0;
    cluster.cut = vec![false; 3];
    for node in 0..3 {
        if cluster.nodes[node].raft.is_none() {
            cluster.start(node);
        }
    }
    cluster.run(Duration::from_secs(8));
    let leader = cluster.leader().expect("a leader once all is well");
    assert!(cluster.propose(leader, b"healed"));
    cluster.run_until(LONG, |c| {
        c.nodes.iter().all(|n| n.state.last().is_some_and(|e| e.data == b"healed"))
    });
    cluster.assert_agreed();
    cluster
}

#[test]
fn the_committed_log_is_one_through_loss_partitions_crashes_and_slow_disks() {
    for seed in 0..40 {
        storm(seed);
    }
}

#[test]
fn equal_seeds_make_equal_runs() {
    for seed in [1, 2, 3] {
        let (one, other) = (storm(seed).trace, storm(seed).trace);
        assert_eq!(one, other, "seed {seed}");
        assert!(!one.is_empty());
    }
    assert_ne!(storm(1).trace, storm(2).trace);
}

fn reopen(cluster: &Cluster, node: usize) -> Result<(), ConsensusError> {
    let all: Vec<WatcherName> = cluster.nodes.iter().map(|n| n.name.clone()).collect();
    let stored = &cluster.nodes[node].disk;
    Consensus::start(&all[node], &all, Timing::default(), 1, stored, Moment(0)).map(|_| ())
}

#[test]
fn a_store_that_contradicts_itself_is_named() {
    let (mut cluster, leader) = elected(3, 5);
    for round in 0..10u8 {
        cluster.propose(leader, &[round]);
        cluster.run(Duration::from_millis(200));
    }
    assert_eq!(reopen(&cluster, leader), Ok(()));
    let whole = cluster.nodes[leader].disk.clone();

    cluster.nodes[leader].disk.entries.remove(4);
    assert_eq!(reopen(&cluster, leader), Err(ConsensusError::Gap { after: 4, found: 6 }));

    cluster.nodes[leader].disk = whole.clone();
    cluster.nodes[leader].disk.entries.truncate(3);
    let lost = reopen(&cluster, leader);
    assert!(matches!(lost, Err(ConsensusError::CommitBeyondLog { last: 3, .. })), "{lost:?}");

    cluster.nodes[leader].disk = whole.clone();
    cluster.nodes[leader].disk.entries[2].1[9] ^= 1;
    let bad = reopen(&cluster, leader);
    assert!(matches!(bad, Err(ConsensusError::BadEntry { index: 3, .. })), "{bad:?}");

    cluster.nodes[leader].disk = whole.clone();
    cluster.nodes[leader].disk.hard_state = None;
    assert_eq!(reopen(&cluster, leader), Err(ConsensusError::NoHardState { last: 11 }));
}

#[test]
fn an_emptied_watcher_is_told_that_it_forgot() {
    let (mut cluster, leader) = elected(3, 9);
    let emptied = (leader + 1) % 3;
    cluster.propose(leader, b"kept");
    cluster.run(Duration::from_secs(1));
    cluster.crash(emptied);
    cluster.nodes[emptied].disk = Default::default();
    cluster.start(emptied);
    let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cluster.run(Duration::from_secs(2));
    }));
    let said = said.unwrap_err();
    let said = said.downcast_ref::<String>().unwrap();
    assert!(said.contains("Forgot"), "{said}");
}

#[test]
fn garbage_is_ignored() {
    let (mut cluster, leader) = elected(3, 11);
    let from = cluster.nodes[(leader + 1) % 3].name.clone();
    let own = cluster.nodes[leader].name.clone();
    let now = cluster.now;
    for bytes in [&b""[..], b"\xff\xff\xff", &[0x0b; 5000]] {
        assert!(cluster.raft(leader).step(now, &from, bytes).unwrap().is_some());
        assert!(cluster.raft(leader).step(now, &own, bytes).unwrap().is_some());
        assert!(cluster.raft(leader).step(now, &"x".into(), bytes).unwrap().is_some());
    }
}
