//! Procedures end the same wherever their leader dies, and whatever is done twice.

use super::executor::{World, is_closed};
use regent::decision::cluster::Command;
use regent::decision::diagnosis::{FindingKind, diagnose};
use regent::decision::plan::{Facts, Outcome, Step};
use regent::decision::planning::pause;
use regent::decision::procedure::{Ending, Kind, Procedure, StepState};
use regent::decision::rejoin::more_urgent;
use regent::decision::response::procedure;
use regent::decision::topology::{Epoch, ServerName};
use std::time::Duration;

const DEAD: &str = "primary: db1\nservers:\n  - { name: db1, seen: refused }\n  - { name: db2 }\n  - { name: db3 }\n";
const WELL: &str =
    "primary: db1\nservers:\n  - { name: db1 }\n  - { name: db2 }\n  - { name: db3 }\n";
const ASTRAY: &str = "primary: db1\nservers:\n  - { name: db1 }\n  - { name: db2, follows: nobody, semi_sync: { replica: false } }\n  - { name: db3 }\n";
const DIVERGED: &str = "primary: db1\nservers:\n  - { name: db1 }\n  - { name: db2, executed: \"A:1-100,B:1\" }\n  - { name: db3 }\n";
const ALL_DIVERGED: &str = "primary: db1\nservers:\n  - { name: db1 }\n  - { name: db2, executed: \"A:1-100,B:1\", follows: nobody }\n  - { name: db3, executed: \"A:1-100,C:1\", follows: nobody }\n";
const READ_ONLY: &str = "primary: db1\nservers:\n  - { name: db1, writable: closed }\n  - { name: db2 }\n  - { name: db3 }\n";

fn switchover() -> Procedure {
    let plan = pause(&"db1".into());
    procedure(Kind::Switchover, "an operator asks".to_owned(), "db1".into(), plan)
}

/// Worlds in which a procedure was just opened, with the primary at its end.
fn opened() -> Vec<(&'static str, World, &'static str)> {
    let mut worlds = Vec::new();
    for (name, sketch, primary) in [
        ("failover", DEAD, "db2"),
        ("repair of a replica", ASTRAY, "db1"),
        ("repair of the primary", READ_ONLY, "db1"),
        ("rejoin from the primary", ALL_DIVERGED, "db1"),
    ] {
        let mut world = World::new(sketch);
        world.respond();
        worlds.push((name, world, primary));
    }
    let mut world = World::new(WELL);
    world.begin(switchover());
    worlds.push(("switchover", world, "db2"));
    worlds
}

#[test]
fn a_later_leader_finishes_from_any_point() {
    for (name, world, primary) in opened() {
        let mut whole = world.clone();
        whole.run(7, usize::MAX / 2);
        assert_eq!(whole.primary().unwrap().as_str(), primary, "{name}");
        let length = whole.journal.len() - world.journal.len();
        assert!(length >= 3, "{name} took only {length} commands");
        for prefix in 0..length {
            let mut resumed = world.clone();
            resumed.run(7, prefix);
            resumed.run(8, usize::MAX / 2);
            assert_eq!(resumed.roles, whole.roles, "{name} resumed after {prefix} commands");
            assert_eq!(resumed.now().writer, whole.now().writer, "{name} after {prefix}");
            assert_eq!(resumed.now().protection, whole.now().protection, "{name} after {prefix}");
            let ended = resumed.now().ended.back().unwrap().ending.clone();
            assert!(matches!(ended, Some(Ending::Done { .. })), "{name}: {ended:?}");
        }
    }
}

/// Commits that wait for the servers to be rebuilt are ended with nobody there to read how.
#[test]
fn clients_are_away_while_a_rejoin_closes_the_primary() {
    let mut world = World::new(ALL_DIVERGED);
    world.respond();
    let mut whole = world.clone();
    whole.run(7, usize::MAX / 2);
    assert_eq!(whole.now().epoch, world.now().epoch.next());
    let mut away = 0;
    for prefix in 0..whole.journal.len() - world.journal.len() {
        let mut part = world.clone();
        part.run(7, prefix);
        let open = part.open().unwrap();
        let closing = open.plan.iter().enumerate().any(|(stage, planned)| {
            let closes = matches!(&planned.steps[0].step, Step::ReadOnly { server } if server.as_str() == "db1");
            closes && matches!(open.step_state(stage, 0), StepState::Running { .. })
        });
        assert_eq!(is_closed(part.now()), closing, "after {prefix} commands");
        assert!(!closing || open.epoch == part.now().epoch, "nobody of this epoch is there");
        away += usize::from(closing);
    }
    assert_eq!(away, 1);
}

/// While the primary takes no writes nobody can tell that the other replica's history forked as well;
/// to let it follow could only fail, and would end the copy.
#[test]
fn a_rejoin_that_closed_the_primary_gives_way_to_no_replica() {
    let mut world = World::new(ALL_DIVERGED);
    world.respond();
    let after = |commands| {
        let mut part = world.clone();
        part.run(7, commands);
        part
    };
    let copies = |part: &World| part.now().rebuilding.contains_key(&ServerName::from("db2"));
    let world = (0..100).map(after).find(copies).unwrap();
    let closed = ALL_DIVERGED.replace("name: db1", "name: db1, writable: closed");
    let mut situation = World::new(&closed).situation;
    situation.state = world.now().clone();
    let open = situation.state.procedure.take().unwrap();
    let findings = diagnose(&situation);
    assert!(findings.iter().any(|it| it.kind == FindingKind::ReplicaAstray), "{findings:?}");
    let long = |_: &_| Duration::from_secs(60);
    let rejoin = (&open, open.rejoin.as_ref().unwrap());
    let urgent = more_urgent(&situation, rejoin, findings, &long, &[]);
    assert!(urgent.is_none(), "{urgent:?}");
}

#[test]
fn every_step_twice_is_as_good_as_once() {
    for (name, mut once, _) in opened() {
        let mut twice = once.clone();
        twice.twice = true;
        once.run(7, usize::MAX / 2);
        twice.run(7, usize::MAX / 2);
        assert_eq!(once.roles, twice.roles, "{name}");
        assert_eq!(once.state, twice.state, "{name}");
        // Every command that comes a second time is rejected.
        for command in once.journal.clone() {
            // Another repair may be opened under the same epoch; Raft applies no entry twice.
            if matches!(&command, Command::Open { procedure, .. } if procedure.kind == Kind::Repair)
            {
                continue;
            }
            assert!(!once.apply(command.clone()), "{name}: taken twice: {command:?}");
        }
    }
}

#[test]
fn late_results_are_rejected() {
    let mut world = World::new(DEAD);
    world.respond();
    let cluster = world.cluster();
    let begin = |attempt, term| Command::Begin {
        cluster: cluster.clone(),
        procedure: 1,
        stage: 0,
        step: 0,
        attempt,
        term,
    };
    let finish = |attempt| Command::Finish {
        cluster: cluster.clone(),
        procedure: 1,
        stage: 0,
        step: 0,
        attempt,
        outcome: Outcome::Done(Facts::default()),
    };
    assert!(!world.apply(finish(1)), "a result without a beginning was taken");
    assert!(world.apply(begin(1, 7)));
    assert!(world.apply(begin(2, 8)), "a later leader makes its own attempt");
    assert!(!world.apply(finish(1)), "the late result of the former leader was taken");
    assert!(world.apply(finish(2)));
    assert!(!world.apply(begin(3, 9)), "a finished step was begun again");
}

#[test]
fn before_the_point_of_no_return_it_is_abandoned_and_after_it_stuck() {
    let mut early = World::new(DEAD);
    early.failing.insert("caught_up");
    early.respond();
    early.run(7, usize::MAX / 2);
    assert!(matches!(early.now().ended[0].ending, Some(Ending::Abandoned { .. })));
    assert!(is_closed(early.now()) && early.roles.is_empty(), "{:?}", early.roles);

    let mut late = World::new(DEAD);
    late.failing.insert("writable");
    late.respond();
    late.run(7, usize::MAX / 2);
    assert!(matches!(late.now().ended[0].ending, Some(Ending::Stuck { .. })));
    assert!(is_closed(late.now()));
}

#[test]
fn an_opening_that_saw_another_epoch_is_rejected() {
    let mut world = World::new(WELL);
    let open = |seen| Command::Open {
        cluster: "shop".into(),
        seen: Epoch(seen),
        procedure: Box::new(switchover()),
    };
    assert!(!world.apply(open(0)));
    assert!(world.apply(open(1)));
    assert_eq!(world.now().epoch, Epoch(2));
    assert!(!world.apply(open(2)), "a second procedure was opened beside the first");
}

/// A rejoin relieves a server of acknowledging before its data is replaced, and asks it again after:
/// what it acknowledges from then on is among what must be seen at the next failover.
#[test]
fn who_is_asked_to_acknowledge_again_may_have() {
    let mut world = World::new(DIVERGED);
    world.respond();
    let (mut relieved, mut asked) = (false, false);
    for prefix in 0..100 {
        let mut part = world.clone();
        part.run(7, prefix);
        let Some(open) = part.open() else { continue };
        let counted = part.now().protection.may_acknowledge.contains(&"db2".into());
        relieved |= !counted;
        let begun = open.journal.iter().any(|entry| {
            let planned = &open.plan[entry.stage].steps[entry.step].step;
            matches!(planned, Step::Acknowledges { on: true, .. })
        });
        assert!(counted || !begun, "asked, and not counted after {prefix} commands");
        asked |= begun;
    }
    assert!(relieved && asked);
}

/// A rebuilt server may give the same numbers to other transactions, see the tests on real servers.
#[test]
fn what_was_written_down_is_forgotten_with_the_data() {
    let mut world = World::new(DIVERGED);
    world.respond();
    let (mut known, mut term) = (Vec::new(), 7);
    while world.open().is_some() {
        world.run(term, 2);
        term += 1;
        known.push(world.now().exports.contains_key(&"db2".into()));
    }
    assert!(known.contains(&true) && world.now().exports.is_empty(), "{known:?}");
}
