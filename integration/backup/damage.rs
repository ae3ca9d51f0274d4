//! What is damaged at a target is found, named, and never restored from.

use crate::faulty::Mood;
use crate::stage::{Mariadb, Mysql, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_and_named() {
    let Some(stage) = Stage::set(Mysql).await else { return };
    stage.configure("", &stage.dump());
    let manifest = stage.regent(&["now", "shop", "--json"]).await.json();
    let id = manifest["id"].as_str().unwrap();
    let data = stage.bucket.file(&format!("regent/{}", manifest["object"].as_str().unwrap()));
    let whole = std::fs::read(&data).unwrap();
    assert_eq!(stage.regent(&["verify", "shop", id]).await.code, 0);

    let mut bytes = whole.clone();
    bytes[6_000_000] ^= 1;
    std::fs::write(&data, &bytes).unwrap();
    let verified = stage.regent(&["verify", "shop", id]).await;
    verified.refused(1, "part 2, ");
    verified.refused(1, " bytes from byte 5242880 on, has the checksum ");
    let file = stage.file("out.sql").display().to_string();
    stage.regent(&["restore", "shop", id, "--file", &file]).await.refused(1, "part 2");
    assert!(!stage.file("out.sql").exists(), "half a file is worse than none");

    std::fs::write(&data, &whole[..whole.len() - 1]).unwrap();
    stage.regent(&["verify", "shop", id]).await.refused(1, "ends too early");
    std::fs::remove_file(&data).unwrap();
    stage.regent(&["verify", "shop", id]).await.refused(1, "is not there");

    let name = format!("regent/shop/manifests/{id}.json");
    let text = std::fs::read_to_string(stage.bucket.file(&name)).unwrap();
    std::fs::write(stage.bucket.file(&name), text.replace("\"bytes\": ", "\"bytes\": 1")).unwrap();
    stage.regent(&["show", "shop", id]).await.refused(1, &format!("shop/manifests/{id}.json"));
    let catalogs = stage.regent(&["list", "--json", "--target", "s3"]).await.json();
    assert_eq!(catalogs[0]["backups"], serde_json::json!([]));
    assert_eq!(catalogs[0]["unusable"][0]["object"], format!("shop/manifests/{id}.json"));
    stage.regent(&["show", "shop", "../../etc"]).await.refused(1, "is no backup's id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_s3_lost_is_noticed_before_the_backup_counts() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    stage.configure("", &stage.dump());
    stage.bucket.turn(Mood::Forgetful);
    let taken = stage.regent(&["now", "shop"]).await;
    taken.refused(1, "5242880 bytes are there instead of the ");
    // The part itself is this server's own to forget.
    let mut objects = stage.bucket.everything();
    objects.retain(|name| name.starts_with("backups/"));
    assert_eq!(objects, Vec::<String>::new());
}
