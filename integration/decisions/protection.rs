//! What is known of acknowledgements errs on the safe side through every procedure.

use super::executor::World;
use regent::decision::planning::{pause, reopen};
use regent::decision::procedure::Kind;
use regent::decision::response::procedure;
use regent::decision::topology::ServerName;

const THREE: &str =
    "primary: db1\nservers:\n  - { name: db1 }\n  - { name: db2 }\n  - { name: db3 }\n";

fn names(world: &World) -> Vec<&str> {
    world.now().protection.may_acknowledge.iter().map(ServerName::as_str).collect()
}

#[test]
fn a_failover_keeps_the_old_regime_until_the_route_opens() {
    let mut world = World::new(&THREE.replace("db1 }", "db1, seen: refused }"));
    let before = world.now().protection.clone();
    world.respond();
    let mut term = 7;
    while world.open().is_some() && world.primary().is_none() {
        assert_eq!(world.now().protection, before, "the dead primary's regime was forgotten");
        assert!(
            world
                .now()
                .preparing
                .as_ref()
                .is_some_and(|next| { next.may_acknowledge.contains(&ServerName::from("db3")) })
        );
        world.run(term, 2);
        term += 1;
    }
    assert_eq!(world.primary().map(ServerName::as_str), Some("db2"));
    assert!(world.now().protection.in_force && world.now().preparing.is_none());
    assert_eq!(names(&world), ["db3"]);
}

#[test]
fn a_switchover_lets_the_former_primary_acknowledge() {
    let mut world = World::new(THREE);
    let plan = pause(&"db1".into());
    world.begin(procedure(Kind::Switchover, String::new(), "db1".into(), plan));
    world.run(7, usize::MAX / 2);
    assert_eq!(names(&world), ["db1", "db3"]);
    assert!(world.now().protection.in_force);
}

#[test]
fn a_switchover_given_up_goes_on_as_before() {
    let mut world = World::new(THREE);
    world.failing.insert("caught_up");
    let plan = pause(&"db1".into());
    world.begin(procedure(Kind::Switchover, String::new(), "db1".into(), plan));
    world.run(7, usize::MAX / 2);
    assert!(world.primary().is_none());
    let former = world.situation.spec.server(&"db1".into()).unwrap().clone();
    let plan = reopen(&world.situation, &former);
    world.begin(procedure(Kind::Repair, String::new(), "db1".into(), plan));
    world.run(7, usize::MAX / 2);
    assert_eq!(world.primary().map(ServerName::as_str), Some("db1"));
    assert_eq!(names(&world), ["db2", "db3"]);
    assert!(world.now().protection.in_force);
}
