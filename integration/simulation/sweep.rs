//! Many seeds, and what they came across.

use crate::setting::{Flaw, Setting};
use crate::tally::Tally;
use crate::world::World;
use std::io::Write as _;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// So many seeds must come across every fault and every step.
const ENOUGH: usize = 150;

/// And so many every finding.
const PLENTY: usize = 2000;

/// How one run went.
#[derive(Debug)]
pub struct Run {
    pub hash: u64,
    pub events: u64,
    pub broken: Option<String>,
    pub tally: Tally,
}

impl Run {
    pub fn of(seed: u64, flaw: Flaw, print: bool) -> Run {
        Run::on(Setting::draw(seed, flaw), print)
    }

    /// The same world with a schedule of backups.
    pub fn with_backups(seed: u64, print: bool) -> Run {
        Run::on(Setting { backups: true, ..Setting::draw(seed, Flaw::None) }, print)
    }

    /// The same world where people give servers other data.
    pub fn with_replacing(seed: u64, flaw: Flaw, print: bool) -> Run {
        Run::on(Setting { replaces: true, ..Setting::draw(seed, flaw) }, print)
    }

    fn on(setting: Setting, print: bool) -> Run {
        let run = catch_unwind(AssertUnwindSafe(|| {
            let mut world = World::new(setting, print);
            if print {
                let setting = format!("{:?}", world.setting);
                world.say(|| setting);
            }
            world.run();
            world.tally.add("run", "writes", world.invariants.written);
            world.tally.add("run", "acknowledged", world.invariants.acknowledged);
            world.tally.add("run", "events", world.trace.events);
            Run {
                hash: world.trace.hash(),
                events: world.trace.events,
                broken: world.invariants.broken.take(),
                tally: std::mem::take(&mut world.tally),
            }
        }));
        run.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Run {
                hash: 0,
                events: 0,
                broken: Some(format!("panic: {}", text.unwrap_or_default())),
                tally: Tally::default(),
            }
        })
    }

    pub fn told(&self) -> &str {
        self.broken.as_deref().unwrap_or("all promises were kept")
    }
}

/// Runs the seeds, tells what they reached, and fails if any broke a promise.
pub fn sweep(seeds: RangeInclusive<u64>) {
    let mut tally = Tally::default();
    let mut failures = Vec::new();
    let mut hash = 0_u64;
    let count = seeds.clone().count();
    for seed in seeds {
        let run = Run::of(seed, Flaw::None, false);
        hash = hash.rotate_left(5) ^ run.hash;
        tally.merge(&run.tally);
        if let Some(broken) = &run.broken {
            let line = format!("seed {seed}: {broken}\n  replay: scripts/simulate --seed {seed}\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            failures.push(seed);
        }
    }
    let table = tally.table();
    let unreached = tally.unreached();
    let text = format!(
        "{count} seeds, trace {hash:016x}; what they came across:{table}\n  not reached: {}\n",
        unreached.join("; ")
    );
    let _ = std::io::stderr().write_all(text.as_bytes());
    let wanted = |it: &&String| count >= PLENTY || !it.starts_with("finding");
    let missing: Vec<_> = unreached.iter().filter(wanted).collect();
    assert!(count < ENOUGH || missing.is_empty(), "{count} seeds did not reach {missing:?}");
    assert!(
        failures.is_empty(),
        "{} of {count} seeds broke a promise: {failures:?}",
        failures.len()
    );
}
