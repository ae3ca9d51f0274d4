//! A backup, and what is restored from it.

use crate::stage::{Mariadb, Mysql, Stage, asked, sums};
use regent::demo::servers::DatabaseFlavor;

both! { an_encrypted_backup_in_s3_comes_back_whole a_backup_in_a_folder_is_a_file_for_anybody }

async fn an_encrypted_backup_in_s3_comes_back_whole(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    let key = age::x25519::Identity::generate();
    let secret = age::secrecy::ExposeSecret::expose_secret(&key.to_string()).to_owned();
    std::fs::write(stage.file("key.txt"), secret).unwrap();
    stage.configure(&format!("      encrypt_to: [ {} ]", key.to_public()), &stage.dump());
    let before = sums(&stage.replica).await;
    let mut answers = Vec::new();
    for question in same_answers(flavor) {
        answers.push((question, asked(&stage.replica, question).await));
    }
    let manifest = stage.regent(&["now", "shop", "--json"]).await.json();
    assert_eq!(manifest["server"], "db2", "the replica is read");
    assert!(manifest["parts"].as_array().unwrap().len() > 1, "{manifest}");
    let id = manifest["id"].as_str().unwrap();
    // The cluster lives on.
    stage.primary.execute("INSERT INTO shop.lines_ (client) VALUES (77)").await.unwrap();

    assert_eq!(stage.listed("s3").await, [id]);
    assert!(stage.listed("local").await.is_empty());
    let stored =
        std::fs::read(stage.bucket.file(&format!("regent/{}", object(&manifest)))).unwrap();
    assert_eq!(stored.len() as u64, manifest["bytes"].as_u64().unwrap());
    assert!(stored.starts_with(b"age-encryption.org/v1"));

    stage.regent(&["verify", "shop", "latest"]).await.refused(2, "--identity");
    let with_key = ["verify", "shop", "latest", "--identity", "key.txt"];
    let verified = stage.in_place(&with_key).await;
    assert_eq!(verified.code, 0, "{}", verified.stderr);

    let into = stage.empty.address().to_string();
    let mut restore =
        vec!["restore", "shop", id, "--into", &into, "--user", "root", "--password-file", "root"];
    restore.extend(["--identity", "key.txt", "--json"]);
    let mut dry = restore.clone();
    dry.push("--dry-run");
    assert_eq!(stage.in_place(&dry).await.json()["done"], false);
    assert!(sums(&stage.empty).await.is_empty());
    let restored = stage.in_place(&restore).await.json();
    assert_eq!(restored["refused"], serde_json::json!([]), "{restored}");
    assert_eq!(sums(&stage.empty).await, before);
    for (question, was) in answers {
        assert_eq!(asked(&stage.empty, question).await, was, "{question}");
    }
    stage.in_place(&restore).await.refused(1, "holds data already (shop)");

    // The position is right: what came later arrives, and nothing twice.
    stage.empty.follow(&stage.primary).await.unwrap();
    let later = "SELECT COUNT(*) FROM shop.lines_ WHERE client = 77";
    stage.empty.wait_for(later, 1).await.unwrap();
    assert_eq!(sums(&stage.empty).await, sums(&stage.primary).await);
    assert!(!stage.empty.is_writable().await.unwrap(), "it is as closed as before");
}

/// What must be answered alike before and after.
fn same_answers(flavor: DatabaseFlavor) -> Vec<&'static str> {
    let mut all = vec![
        "SHOW GRANTS FOR 'app'@'10.%'",
        "SHOW GRANTS FOR reader",
        "SHOW CREATE USER 'app'@'10.%'",
        "SELECT client FROM shop.many ORDER BY 1",
        "SELECT CAST(shop.twice(21) AS CHAR)",
        "SELECT CONCAT(EVENT_NAME, EVENT_DEFINITION, STATUS) FROM information_schema.EVENTS",
        "SELECT CONCAT(TRIGGER_NAME, ACTION_STATEMENT) FROM information_schema.TRIGGERS \
         WHERE TRIGGER_SCHEMA = 'shop'",
    ];
    all.push(match flavor {
        Mysql => "SELECT @@global.gtid_executed",
        Mariadb => "SELECT @@global.gtid_slave_pos",
    });
    all
}

async fn a_backup_in_a_folder_is_a_file_for_anybody(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    stage.configure("", &stage.dump());
    let order = ["now", "shop", "--target", "local", "--server", "db1", "--json"];
    let manifest = stage.regent(&order).await.json();
    assert_eq!(manifest["server"], "db1");
    let folder = stage.file("folder");
    let (id, data) = (manifest["id"].as_str().unwrap(), folder.join(object(&manifest)));
    let names = crate::bucket::files_below(&folder);
    assert_eq!(names, [object(&manifest), format!("shop/manifests/{id}.json")]);
    let sum = std::process::Command::new("sha256sum").arg(&data).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    assert!(sum.starts_with(manifest["sha256"].as_str().unwrap()), "{sum}");

    let sql = stage.file("shop.sql");
    let out = sql.display().to_string();
    let restore = ["restore", "shop", id, "--target", "local", "--file", &out];
    let restored = stage.regent(&restore).await;
    assert_eq!(restored.code, 0, "{}", restored.stderr);
    let text = std::fs::read(&sql).unwrap();
    assert_eq!(text.len() as u64, manifest["plain_bytes"].as_u64().unwrap());
    assert!(text.starts_with(b"-- Regent's backup of shop, server db1"));
    stage.regent(&restore).await.refused(1, "exists");

    // As the documentation says: with nothing but the database's own client.
    let mut conn = stage.empty.connect().await.unwrap();
    mysql_async::prelude::Queryable::query_drop(&mut conn, "SET GLOBAL read_only = OFF")
        .await
        .unwrap();
    let loaded = stage.client(&stage.empty, &sql).await;
    assert_eq!(loaded.code, 0, "{}", loaded.stderr);
    assert_eq!(sums(&stage.empty).await, sums(&stage.primary).await);
}

fn object(manifest: &serde_json::Value) -> String {
    manifest["object"].as_str().unwrap().to_owned()
}
