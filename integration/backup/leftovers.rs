//! What a killed process left is never taken for a backup, and is removed by a later one.

use crate::bucket::files_below;
use crate::stage::{Mariadb, Stage};
use std::process::Stdio;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_upload_is_aborted_by_a_later_backup() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    let spool = "      spool: { folder: spool, limit: 100MiB }\n";
    stage.configure(spool, &stage.halved_dump());
    let mut command = stage.command(&["now", "shop"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    stage.bucket.until_a_part_came().await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(stage.listed("s3").await.is_empty());
    assert_eq!(stage.bucket.state().unfinished(), 1);
    assert_eq!(files_below(&stage.file("spool")).len(), 1, "its lock");
    std::fs::write(stage.file("go"), "").unwrap();

    // As long as it may still be at work, it is left alone.
    assert_eq!(stage.regent(&["now", "shop"]).await.code, 0);
    assert_eq!(stage.bucket.state().unfinished(), 1);
    assert_eq!(files_below(&stage.file("spool")), Vec::<String>::new());
    stage.bucket.age(Duration::from_secs(25 * 3600));
    assert_eq!(stage.regent(&["now", "shop"]).await.code, 0);
    assert_eq!(stage.bucket.state().unfinished(), 0);
    assert_eq!(stage.listed("s3").await.len(), 2);
    assert_eq!(stage.bucket.everything().len(), 4, "{:?}", stage.bucket.everything());
}

#[tokio::test(flavor = "multi_thread")]
async fn data_without_a_manifest_is_removed_once_it_is_old() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    stage.configure("", &stage.dump());
    let both = ["now", "shop", "--all-targets", "--json"];
    let manifest = stage.regent(&both).await.json();
    let (id, object) = (manifest["id"].as_str().unwrap(), manifest["object"].as_str().unwrap());
    let folder = stage.file("folder");
    let places = [stage.bucket.file("regent"), folder.clone()];
    for place in &places {
        std::fs::remove_file(place.join(format!("shop/manifests/{id}.json"))).unwrap();
    }
    assert_eq!(stage.regent(&both).await.code, 0);
    assert!(places.iter().all(|place| place.join(object).exists()), "it is too young");
    let days = Duration::from_secs(4 * 24 * 3600);
    stage.bucket.age(days);
    let data = std::fs::File::options().write(true).open(folder.join(object)).unwrap();
    let stored = data.metadata().unwrap().modified().unwrap();
    data.set_modified(stored - days).unwrap();
    assert_eq!(stage.regent(&both).await.code, 0);
    assert!(places.iter().all(|place| !place.join(object).exists()));
    for target in ["s3", "local"] {
        assert_eq!(stage.listed(target).await.len(), 2);
        let verified = stage.regent(&["verify", "shop", "latest", "--target", target]).await;
        assert_eq!(verified.code, 0, "{}", verified.stderr);
    }
}
