//! Whole clusters in one thread, one per seed, with every promise checked after each event.

mod faults;
mod flaws;
mod invariants;
mod network;
mod proxies;
mod random;
mod replication;
mod servers;
mod setting;
mod steps;
mod sweep;
mod tally;
mod trace;
mod watchers;
mod world;

use setting::Flaw;
use sweep::{Run, sweep};

/// Seeds of the default sweep.
const SEEDS: u64 = 4;

#[test]
fn promises_are_kept() {
    let chosen = std::env::var("REGENT_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    if let Some(seed) = chosen {
        let print = std::env::var("REGENT_TRACE").map_or(true, |value| value != "0");
        let run = Run::of(seed, Flaw::None, print);
        assert!(run.broken.is_none(), "seed {seed}: {}", run.told());
        return;
    }
    let seeds = std::env::var("REGENT_SEEDS").ok().map_or(SEEDS, |seeds| seeds.parse().unwrap());
    sweep(1..=seeds);
}

#[test]
fn one_seed_is_one_run() {
    for seed in [4] {
        let (a, b) = (Run::of(seed, Flaw::None, false), Run::of(seed, Flaw::None, false));
        assert_eq!((a.hash, a.events), (b.hash, b.events), "seed {seed}");
    }
}

fn is_caught(flaw: Flaw, seeds: u64) {
    let caught = (1..=seeds).find_map(|seed| Run::of(seed, flaw, false).broken);
    assert!(caught.is_some(), "{flaw:?} was not noticed in {seeds} seeds");
}

#[test]
fn a_lease_that_is_not_awaited_is_caught() {
    is_caught(Flaw::LeaseNotAwaited, 40);
}

#[test]
fn promoting_by_executed_position_is_caught() {
    is_caught(Flaw::ReceivedIgnored, 40);
}

#[test]
fn acting_without_quorum_is_caught() {
    is_caught(Flaw::NoQuorum, 5);
}
