//! What newer versions add to the replicated state is kept, and what they need stops this one.

use super::executor::World;
use regent::clock::{Moment, Now, WallTime};
use regent::decision::cluster::State;
use regent::decision::topology::{Clusters, Timing};
use regent::watcher::{Fatal, Input, Output, Setup, Stored, Watcher};
use serde_json::{Value, json};
use std::collections::BTreeMap;

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

/// Runs a lone watcher for a while, its disk answering at once; stops at the first fatal error.
fn run(watcher: &mut Watcher, kept: &mut Stored, from: u64) -> Result<(), Fatal> {
    let mut inputs = vec![Input::Wakeup];
    for step in 0..200 {
        let now = Now { moment: Moment(1_000_000 + (from + step) * 50_000), wall: WallTime(0) };
        for input in std::mem::take(&mut inputs) {
            for output in watcher.handle(now, input)? {
                if let Output::Persist { ticket, record } = output {
                    kept.hard_state = record.hard_state.or(kept.hard_state.take());
                    if let Some((first, _)) = record.entries.first() {
                        kept.entries.retain(|(index, _)| index < first);
                    }
                    kept.entries.extend(record.entries);
                    inputs.push(Input::Persisted { ticket });
                }
            }
        }
        inputs.push(Input::Wakeup);
    }
    Ok(())
}

/// A watcher that is the only one, and so leads.
pub fn lone(clusters: Clusters) -> Setup {
    Setup {
        own: "paris".into(),
        watchers: BTreeMap::from([("paris".into(), "paris".into())]),
        clusters,
        backups: BTreeMap::new(),
        chores: BTreeMap::new(),
        proofs: BTreeMap::new(),
        archives: BTreeMap::new(),
        timing: Timing::default(),
        seed: 1,
    }
}

#[test]
fn an_entry_of_a_newer_format_stops_the_watcher() {
    let setup = lone(Clusters::new());
    let start = Now { moment: Moment(1_000_000), wall: WallTime(0) };
    let mut kept = Stored::default();
    let mut watcher = Watcher::start(setup.clone(), &kept, start).unwrap();
    run(&mut watcher, &mut kept, 0).unwrap();
    assert!(watcher.consensus().leader().is_some(), "it did not elect itself");

    // The same log, with the newest entry as a newer version would have written it.
    let newer = json!({ "format": 99, "at": 0, "commands": [{ "teleport": {} }] });
    let (_, encoded) = kept.entries.last_mut().expect("a leader's first entry");
    *encoded = with_payload(encoded, newer.to_string().as_bytes());
    let mut restarted = Watcher::start(setup, &kept, start).unwrap();
    let fatal = run(&mut restarted, &mut kept, 0).unwrap_err();
    assert!(matches!(fatal, Fatal::TooOld { needed: 99, .. }), "{fatal}");
}

/// A stored Raft entry with other contents: protobuf's field 4 (`data`) appended, sealed anew.
fn with_payload(sealed: &[u8], payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 128, "one byte of length: {}", payload.len());
    let mut entry = sealed[5..].to_vec();
    entry.extend([4 << 3 | 2, u8::try_from(payload.len()).unwrap()]);
    entry.extend_from_slice(payload);
    let mut whole = vec![sealed[0]];
    whole.extend_from_slice(&crc32fast::hash(&entry).to_be_bytes());
    whole.extend_from_slice(&entry);
    whole
}
