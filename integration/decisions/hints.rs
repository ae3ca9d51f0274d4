//! What proxies notice makes watchers look sooner.

use super::executor::World;
use super::storage::lone;
use regent::clock::{Moment, Now, WallTime};
use regent::decision::lease::FromProxy;
use regent::decision::report::Sight;
use regent::decision::topology::{Clusters, Timing};
use regent::watcher::{Input, Output, Stored, Watcher};
use std::collections::{BTreeMap, BTreeSet};

/// A lone watcher that leads, and its clock.
struct Lone {
    watcher: Watcher,
    now: Moment,
}

impl Lone {
    fn start() -> Lone {
        let spec = World::new("primary: db1\nservers:\n  - { name: db1 }\n  - { name: db2 }\n")
            .situation
            .spec;
        let setup = lone(Clusters::from([(spec.name.clone(), spec)]));
        let now = Moment(1_000_000);
        let start = Now { moment: now, wall: WallTime(0) };
        let watcher = Watcher::start(setup, &Stored::default(), start).unwrap();
        let mut lone = Lone { watcher, now };
        lone.pass(5_000);
        lone
    }

    /// Time passes; the probes begun meanwhile, which end at once.
    fn pass(&mut self, millis: u64) -> usize {
        let step = |_| {
            self.now = Moment(self.now.0 + 1_000);
            self.tell(Input::Wakeup)
        };
        (0..millis).map(step).sum()
    }

    /// Probes begun because of that input.
    fn tell(&mut self, input: Input) -> usize {
        let now = Now { moment: self.now, wall: WallTime(0) };
        let (mut inputs, mut probes) = (vec![input], 0);
        while let Some(input) = inputs.pop() {
            for output in self.watcher.handle(now, input).unwrap() {
                match output {
                    Output::Persist { ticket, .. } => inputs.push(Input::Persisted { ticket }),
                    Output::Probe { server } => {
                        probes += 1;
                        // What shows life and is always the same causes no look by itself.
                        let sight = Sight::Strange("quiet".to_owned());
                        inputs.push(Input::ProbeDone { server, sight });
                    }
                    _ => {}
                }
            }
        }
        probes
    }
}

fn renewal(unreached: &[&str]) -> Input {
    let message = FromProxy::Renew {
        sent: Moment(1),
        seen: BTreeMap::new(),
        sessions: BTreeMap::new(),
        unreached: unreached.iter().map(|name| (*name).into()).collect::<BTreeSet<_>>(),
    };
    Input::ProxyMessage { proxy: "p1".into(), message }
}

#[test]
fn all_servers_are_looked_at_when_a_proxy_cannot_reach_one() {
    let mut lone = Lone::start();
    // Between two probes.
    let interval = Timing::default().probe_interval.as_millis();
    let quiet = (0..interval).find(|_| lone.pass(1) == 0 && lone.tell(renewal(&[])) == 0);
    assert!(quiet.is_some(), "a renewal alone causes no probes");
    assert_eq!(lone.tell(renewal(&["elsewhere"])), 0);
    assert_eq!(lone.tell(renewal(&["shop"])), 2);
    // However often it is said, by whomever.
    let again: usize = (0..50).map(|_| lone.tell(renewal(&["shop"])) + lone.pass(1)).sum();
    assert!(again <= 2, "{again} probes within 50 ms");
}
