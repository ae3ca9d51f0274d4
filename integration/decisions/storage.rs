//! What newer versions add to the replicated state is kept, and what they need stops this one.

use super::executor::World;
use regent::decision::cluster::State;
use serde_json::{Value, json};

/// Adds a field to every object that is a struct which newer versions may extend.
#[test]
fn fields_of_newer_versions_are_kept() {
    let mut world = World::new(
        "primary: db1\nservers:\n  - { name: db1, seen: refused }\n  - { name: db2 }\n  - { name: db3 }\n",
    );
    world.respond();
    world.run(7, 4);
    let mut stored = serde_json::to_value(&world.state).unwrap();
    let places = ["", "/clusters/shop", "/clusters/shop/procedure"];
    for place in places {
        let object = stored.pointer_mut(place).and_then(Value::as_object_mut).unwrap();
        object.insert("from_the_future".to_owned(), json!({ "deep": [1, 2] }));
    }
    let mut state: State = serde_json::from_value(stored.clone()).unwrap();
    assert_eq!(serde_json::to_value(&state).unwrap(), stored);

    // Still there after more was applied.
    std::mem::swap(&mut world.state, &mut state);
    world.run(8, usize::MAX / 2);
    let again = serde_json::to_value(&world.state).unwrap();
    for place in ["", "/clusters/shop", "/clusters/shop/ended/0"] {
        let kept = again.pointer(&format!("{place}/from_the_future"));
        assert_eq!(kept, Some(&json!({ "deep": [1, 2] })), "lost at {place:?}");
    }
}
