//! What stays at a target, and what is removed.

use crate::bucket::files_below;
use crate::stage::{Mariadb, Stage};
use regent::decision::backup::manifest::Method;
use regent::decision::backup::names;
use serde_json::{Value, json};

/// Copies of one real backup, as a schedule would have made them on consecutive days, and the one that
/// somebody asked for.
async fn stored(stage: &Stage, days: u64) -> (String, Vec<String>) {
    let made = stage.regent(&["now", "shop", "--target", "local", "--json"]).await.json();
    let folder = stage.file("folder");
    let data = folder.join(made["object"].as_str().unwrap());
    let mut ids = Vec::new();
    for day in 1..=days {
        let begun = 1_795_000_000_000 - day * 24 * 3_600_000;
        let id = names::BackupId::new(regent::clock::WallTime(begun), &"db2".into());
        let object = names::data(&"shop".into(), &id, Method::Logical, false);
        let mut manifest = made.clone();
        manifest["id"] = json!(id);
        manifest["object"] = json!(object);
        manifest["begun"] = json!(begun);
        manifest["ended"] = json!(begun + 1);
        manifest["run"] = json!({ "schedule": "nightly", "slot": begun, "number": 1 });
        std::fs::copy(&data, folder.join(object)).unwrap();
        let place = folder.join(names::manifest(&"shop".into(), &id));
        std::fs::write(place, manifest.to_string()).unwrap();
        ids.push(id.to_string());
    }
    (made["id"].as_str().unwrap().to_owned(), ids)
}

fn removed(pruned: &Value) -> Vec<&str> {
    let list = pruned[0]["removed"].as_array().unwrap();
    list.iter().map(|id| id.as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_asks_to_keep_is_removed() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    stage.configure("", &stage.dump());
    stage.regent(&["prune", "shop"]).await.refused(1, "backups: keep");
    stage.configure("      keep: { recovery_window: 2d }", &stage.dump());
    let (by_hand, ids) = stored(&stage, 5).await;
    let window = ["prune", "shop", "--target", "local", "--dry-run", "--json"];
    let dry = stage.regent(&window).await.json();
    assert_eq!(removed(&dry), [ids[3].as_str(), &ids[4]], "{dry}");
    assert_eq!(dry[0]["kept"][&ids[2]], json!(["the recovery window begins with it"]));
    stage.configure("      keep: { last: 2 }", &stage.dump());
    let held = ["hold", "shop", &ids[3], "--target", "local", "--reason", "the auditors want it"];
    assert_eq!(stage.regent(&held).await.code, 0);
    let prune = ["prune", "shop", "--target", "local", "--json"];
    let dry = stage.regent(&[&prune[..], &["--dry-run"]].concat()).await.json();
    assert_eq!(removed(&dry), [ids[2].as_str(), &ids[4]], "{dry}");
    assert_eq!(stage.listed("local").await.len(), 6);
    let done = stage.regent(&prune).await.json();
    assert_eq!(removed(&done), removed(&dry));
    let reasons = &done[0]["kept"];
    assert_eq!(reasons[&ids[3]], json!(["somebody forbade to delete it"]), "{done}");
    assert_eq!(reasons[&by_hand], json!(["somebody asked for it"]));
    let left = [&by_hand, &ids[0], &ids[1], &ids[3]];
    assert_eq!(stage.listed("local").await, left.map(String::as_str));
    assert_eq!(files_below(&stage.file("folder")).len(), 2 * left.len() + 1);
    for id in left {
        let verify = ["verify", "shop", id, "--target", "local"];
        assert_eq!(stage.regent(&verify).await.code, 0, "{id}");
    }
    let off = ["hold", "shop", &ids[3], "--target", "local", "--off"];
    assert_eq!(stage.regent(&off).await.code, 0);
    assert_eq!(removed(&stage.regent(&prune).await.json()), [ids[3].as_str()]);
    assert_eq!(removed(&stage.regent(&prune).await.json()), Vec::<&str>::new());
    stage.regent(&["hold", "shop", "../x", "--target", "local"]).await.refused(1, "no backup's id");

    let remove = async |id: &str, more: &[&str]| {
        stage.regent(&[&["remove", "shop", id, "--target", "local"], more].concat()).await
    };
    remove("latest", &["--yes"]).await.refused(1, "there is no backup latest");
    remove(&by_hand, &[]).await.refused(2, "add --yes");
    let dry = remove(&by_hand, &["--dry-run"]).await;
    assert!(dry.stdout.contains("would be removed from local"), "{}", dry.stdout);
    assert_eq!(stage.listed("local").await.len(), 3);
    assert_eq!(remove(&by_hand, &["--yes", "--json"]).await.json()["removed"], json!(true));
    assert_eq!(stage.listed("local").await, [ids[0].as_str(), &ids[1]]);
    let held = ["hold", "shop", &ids[0], "--target", "local"];
    assert_eq!(stage.regent(&held).await.code, 0);
    remove(&ids[0], &["--yes"]).await.refused(1, "hold shop");
    assert_eq!(remove(&ids[1], &["--yes"]).await.code, 0);
    let off = ["hold", "shop", &ids[0], "--target", "local", "--off"];
    assert_eq!(stage.regent(&off).await.code, 0);
    remove(&ids[0], &["--yes"]).await.refused(1, "is the last backup of shop");
    assert_eq!(files_below(&stage.file("folder")).len(), 3, "its data, its manifest and its proof");
}
