//! Archived binary logs that no backup needs any more are removed, and only those.

use crate::archiver::{Archiver, SOON, assert_whole, executed, segments_in};
use crate::binlogs::one;
use crate::bucket::files_below;
use crate::stage::{Mariadb, Mysql, Stage, sums};
use regent::demo::servers::DatabaseFlavor;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

both! { only_segments_that_no_backup_needs_are_removed }

/// On S3 for one flavour, in a folder for the other.
fn target(stage: &Stage) -> (&'static str, PathBuf) {
    match stage.flavor {
        Mysql => ("s3", stage.bucket.file("regent/shop")),
        Mariadb => ("local", stage.file("folder/shop")),
    }
}

/// Some transactions, each in a segment of its own.
async fn written(stage: &Stage, ids: std::ops::Range<u32>) {
    let archive = target(stage).1.join("binlogs");
    for id in ids {
        one(stage, &format!("INSERT INTO shop.last VALUES ({id})")).await;
        let wanted = executed(&stage.primary).await;
        for _ in 0..600 {
            if segments_in(&archive).last().is_some_and(|last| last.to.contains(&wanted)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Makes a backup that somebody asked for one of a schedule.
fn schedule(stage: &Stage, id: &str, slot: u64) {
    let path = target(stage).1.join(format!("manifests/{id}.json"));
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    manifest["run"] = json!({ "schedule": "nightly", "slot": slot, "number": 1 });
    std::fs::write(path, manifest.to_string()).unwrap();
    stage.bucket.forget_sums();
}

async fn taken(stage: &Stage) -> String {
    let now = ["now", "shop", "--target", target(stage).0, "--json"];
    stage.regent(&now).await.json()["id"].as_str().unwrap().to_owned()
}

async fn pruned(stage: &Stage, more: &[&str]) -> Value {
    let prune = ["prune", "shop", "--target", target(stage).0, "--json"];
    stage.regent(&[&prune[..], more].concat()).await.json()[0]["archive"].clone()
}

/// Manifests and data of the archive.
fn objects(stage: &Stage) -> [Vec<String>; 2] {
    ["manifests", "data"].map(|kind| {
        let mut names = files_below(&target(stage).1.join("binlogs").join(kind));
        names.retain(|name| name.starts_with("0000"));
        let stems = names.iter().map(|name| name.split('.').next().unwrap().to_owned());
        stems.collect()
    })
}

async fn only_segments_that_no_backup_needs_are_removed(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    let keep = |keep: &str| {
        stage.configure(&format!("{SOON}\n      keep: {{ {keep} }}"), &stage.dump());
    };
    keep("last: 1");
    let (name, place) = target(&stage);
    let first = taken(&stage).await;
    let archiver = Archiver::run(stage.command(&["archive", "shop", "--json", "--target", name]));
    written(&stage, 1..4).await;
    let second = taken(&stage).await;
    written(&stage, 4..6).await;
    // Days of MariaDB have seconds, and no fractions of them.
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let question = "SELECT DATE_FORMAT(UTC_TIMESTAMP() - INTERVAL 1 SECOND, '%Y-%m-%dT%H:%i:%sZ')";
    let moment: Option<String> = stage.primary.query(question).await.unwrap();
    let then = sums(&stage.primary).await;
    written(&stage, 6..7).await;
    archiver.stop().await;
    let all = segments_in(&place.join("binlogs"));
    assert!(all.len() >= 5, "{all:?}");

    // Somebody asked for the first one, so it stays, and with it all that follows.
    let found = pruned(&stage, &[]).await;
    assert_eq!((&found["removed"], &found["kept"]), (&json!([]), &json!(all.len())), "{found}");
    assert_eq!(found["because"], format!("backup {first} lacks some of what is in it"));
    // The wanted time before the newest one is longer than the archive.
    schedule(&stage, &first, 1);
    schedule(&stage, &second, 2);
    keep("last: 1, recovery_window: 2h");
    let found = pruned(&stage, &["--dry-run"]).await;
    assert_eq!(found["removed"], json!([]), "{found}");

    keep("last: 1");
    let before = objects(&stage);
    let dry = pruned(&stage, &["--dry-run"]).await;
    assert_eq!(objects(&stage), before);
    let removed = dry["removed"].as_array().unwrap().len();
    assert!(removed >= 2 && removed < all.len() - 1, "{dry}");
    assert_eq!(dry["because"], format!("backup {second} lacks some of what is in it"));
    // What a removal that was killed after a manifest leaves.
    std::fs::remove_file(place.join(format!("binlogs/manifests/{}.json", all[0].name))).unwrap();
    let done = pruned(&stage, &[]).await;
    assert_eq!(done["removed"].as_array().unwrap()[..], dry["removed"].as_array().unwrap()[1..]);
    assert_eq!((&done["left_over"], &done["oldest"]), (&json!(1), &dry["oldest"]), "{done}");
    let [manifests, data] = objects(&stage);
    assert_eq!((manifests.len(), &manifests), (all.len() - removed, &data));
    assert_whole(&segments_in(&place.join("binlogs")));
    assert_eq!(pruned(&stage, &[]).await["removed"], json!([]));

    let into = stage.empty.address().to_string();
    let mut wanted = vec!["restore", "shop", &second, "--into", &into, "--user", "root"];
    let moment = moment.unwrap();
    wanted.extend(["--password-file", "root", "--target", name, "--to-time", &moment]);
    let restored = stage.in_place(&wanted).await;
    assert_eq!(restored.code, 0, "{}", restored.stderr);
    assert_eq!(sums(&stage.empty).await, then);
}
