//! Restores into servers that hold something, that are broken off, and that become replicas.

use crate::stage::{Ended, Mariadb, Mysql, Stage, asked, sums};
use crate::tearing::torn;
use regent::demo::servers::{DatabaseFlavor, Server};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;
use tokio::time::timeout;

both! {
    a_restored_server_follows_and_converges
    a_server_that_holds_data_is_overwritten_only_by_name
}

async fn restore(stage: &Stage, into: &Server, more: &[&str]) -> Ended {
    let into = into.address().to_string();
    let mut order = vec!["restore", "shop", "latest", "--into", &into, "--user", "root"];
    order.extend(["--password-file", "root"]);
    order.extend(more);
    stage.in_place(&order).await
}

/// Everything that a server has executed.
async fn position(server: &Server, flavor: DatabaseFlavor) -> Vec<String> {
    let question = match flavor {
        Mysql => "SELECT @@global.gtid_executed",
        Mariadb => "SELECT @@global.gtid_current_pos",
    };
    asked(server, question).await
}

async fn a_restored_server_follows_and_converges(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    stage.configure("", &stage.dump());
    stage.empty.open_for_writes().await.unwrap();
    for (target, client) in [("local", 77), ("s3", 78)] {
        assert_eq!(stage.regent(&["now", "shop", "--target", target]).await.code, 0);
        let order = format!("INSERT INTO shop.lines_ (client) VALUES ({client})");
        stage.primary.execute(&order).await.unwrap();
        let dry = ["--target", target, "--follow", "--dry-run"];
        let again = ["--overwrite", &stage.empty.address().to_string()];
        let more = if target == "s3" { again.to_vec() } else { Vec::new() };
        let planned = restore(&stage, &stage.empty, &[&dry[..], &more[..]].concat()).await;
        assert_eq!(planned.code, 0, "{}", planned.stderr);
        let said = "let it follow db1, the primary, read-only; 1 transaction(s) came since";
        assert!(planned.stdout.contains(said), "{}", planned.stdout);
        let done = restore(&stage, &stage.empty, &[&dry[..3], &more[..]].concat()).await;
        assert_eq!(done.code, 0, "{}", done.stderr);
        let later = format!("SELECT COUNT(*) FROM shop.lines_ WHERE client = {client}");
        stage.empty.wait_for(&later, 1).await.unwrap();
        assert_eq!(sums(&stage.empty).await, sums(&stage.primary).await);
        assert_eq!(
            position(&stage.empty, flavor).await,
            position(&stage.primary, flavor).await,
            "its position is right"
        );
        assert!(!stage.empty.is_writable().await.unwrap());
    }
    let gone = asked(&stage.empty, "SHOW TABLES FROM regent LIKE 'restoring'").await;
    assert!(gone.is_empty(), "the note of a restore goes with its end");
}

async fn a_server_that_holds_data_is_overwritten_only_by_name(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    stage.configure("", &stage.dump());
    stage.regent(&["now", "shop", "--json"]).await.json();
    stage.primary.execute("INSERT INTO shop.lines_ (client) VALUES (91)").await.unwrap();
    stage.replica.wait_for("SELECT COUNT(*) FROM shop.lines_ WHERE client = 91", 1).await.unwrap();
    let whole = sums(&stage.replica).await;

    restore(&stage, &stage.replica, &[]).await.refused(1, "replicates already from");
    restore(&stage, &stage.replica, &[]).await.refused(1, "--overwrite");
    let wrong = restore(&stage, &stage.replica, &["--overwrite", "db1"]).await;
    wrong.refused(2, "--into is db2; type --overwrite db2");
    let needed = restore(&stage, &stage.primary, &["--overwrite", "db1"]).await;
    needed.refused(1, "is needed: db2 follows it");
    let dry = restore(&stage, &stage.replica, &["--overwrite", "db2", "--dry-run"]).await;
    assert!(dry.stdout.contains("throw away of"), "{}{}", dry.stdout, dry.stderr);
    assert_eq!(sums(&stage.replica).await, whole, "nothing was done so far");

    let done = restore(&stage, &stage.replica, &["--overwrite", "db2", "--follow"]).await;
    assert_eq!(done.code, 0, "{}", done.stderr);
    stage.replica.wait_for("SELECT COUNT(*) FROM shop.lines_ WHERE client = 91", 1).await.unwrap();
    assert_eq!(sums(&stage.replica).await, sums(&stage.primary).await);
    assert_eq!(position(&stage.replica, flavor).await, position(&stage.primary, flavor).await);
}

/// A MySQL server waits a minute for such an applier to stop.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_transaction_holds_up_no_restore() {
    let Some(stage) = Stage::set(Mysql).await else { return };
    stage.configure("", &stage.dump());
    assert_eq!(stage.regent(&["now", "shop", "--target", "local"]).await.code, 0);
    torn(&stage.primary, &stage.replica).await;
    let order = ["--target", "local", "--overwrite", "db2", "--follow"];
    let done = restore(&stage, &stage.replica, &order);
    let done = timeout(Duration::from_secs(45), done).await.expect("it waits for the applier");
    assert_eq!(done.code, 0, "{}", done.stderr);
    let all = "SELECT COUNT(*) FROM shop.pictures";
    let rows = stage.primary.query::<u64>(all).await.unwrap().unwrap();
    stage.replica.wait_for(all, rows).await.unwrap();
    assert_eq!(sums(&stage.replica).await, sums(&stage.primary).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_broken_off_is_named_by_the_next() {
    let Some(stage) = Stage::set(Mysql).await else { return };
    stage.configure("", &stage.dump());
    let manifest = stage.regent(&["now", "shop", "--json"]).await.json();
    let real = stage.dump().with_file_name("mysql").display().to_string();
    let wrapper = stage.file("mysql-slow");
    std::fs::write(
        &wrapper,
        format!("#!/bin/bash\nhead -c 9000000 | {real} \"$@\"\nexec sleep 99\n"),
    )
    .unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = stage.file("regent.yaml");
    let usual = std::fs::read_to_string(&config).unwrap();
    let slow = usual.replace(&format!("mysql: {real}"), &format!("mysql: {}", wrapper.display()));
    assert_ne!(usual, slow);
    std::fs::write(&config, slow).unwrap();
    let into = stage.empty.address().to_string();
    let mut order = vec!["restore", "shop", "latest", "--into", &into, "--user", "root"];
    order.push("--password-file");
    let file = stage.file("root").display().to_string();
    order.push(&file);
    let mut child = stage.command(&order).stderr(Stdio::piped()).spawn().unwrap();
    let half = stage.empty.wait_for("SELECT COUNT(*) FROM shop.lines_", 1).await;
    child.kill().unwrap();
    child.wait().unwrap();
    half.unwrap();
    // The client goes on with what it was given.
    tokio::time::sleep(Duration::from_millis(500)).await;

    std::fs::write(&config, usual).unwrap();
    let id = manifest["id"].as_str().unwrap();
    let again = restore(&stage, &stage.empty, &[]).await;
    again.refused(1, &format!("holds what a restore of {id} left that began at"));
    let done = restore(&stage, &stage.empty, &["--overwrite", &into]).await;
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(sums(&stage.empty).await, sums(&stage.primary).await);
}
