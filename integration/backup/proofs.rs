//! A backup is proven by a restore, and what is wrong with one is found.

use crate::bucket::files_below;
use crate::stage::{Ended, Mariadb, Mysql, Stage, ended, sums};
use regent::demo::servers::DatabaseFlavor;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

both! {
    a_restore_proves_a_backup_taken_while_the_cluster_is_written_to
    what_is_not_as_it_was_is_found
}

/// The section that says where servers for proofs are made.
pub fn verify(stage: &Stage, server: &Path) -> String {
    let directory = stage.file("proofs");
    std::fs::create_dir_all(&directory).unwrap();
    format!("      verify: {{ server: {}, directory: {} }}", server.display(), directory.display())
}

pub async fn prove(stage: &Stage, target: &str, backup: &str) -> Ended {
    let order = ["verify", "shop", backup, "--restore", "--json", "--target", target];
    stage.regent(&order).await
}

pub async fn entry(stage: &Stage, target: &str) -> Value {
    let catalogs = stage.regent(&["list", "shop", "--json", "--target", target]).await.json();
    catalogs[0]["backups"][0].clone()
}

async fn a_restore_proves_a_backup_taken_while_the_cluster_is_written_to(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    stage.configure(&verify(&stage, &stage.server), &stage.dump());
    // On the primary itself there is not a moment at which nothing is written.
    let writing = async {
        let mut conn = stage.primary.connect().await.unwrap();
        loop {
            let order = "INSERT INTO shop.lines_ (client) VALUES (4)";
            mysql_async::prelude::Queryable::query_drop(&mut conn, order).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let order = ["now", "shop", "--server", "db1", "--json"];
    let manifest = tokio::select! {
        () = writing => return,
        ended = stage.regent(&order) => ended.json(),
    };
    let tables = manifest["tables"]["sums"].as_array().unwrap();
    let names: Vec<&str> = tables.iter().map(|it| it["table"].as_str().unwrap()).collect();
    for name in ["lines_", "noise", "audit", "last", "orders"] {
        assert!(names.contains(&name), "{name} was not counted: {}", manifest["tables"]);
    }
    let lines = tables.iter().find(|it| it["table"] == "lines_").unwrap();
    assert!(lines["rows"].as_u64().unwrap() > 3, "nothing was written meanwhile: {lines}");

    assert_eq!(entry(&stage, "s3").await["proof"]["is"], "unproven");
    let proven = prove(&stage, "s3", "latest").await.json();
    assert_eq!((&proven["whole"], &proven["how"]), (&json!(true), &json!("restored")), "{proven}");
    let compared = &proven["check"]["compared"];
    assert_eq!(compared["sums"], json!(tables.len()), "{proven}");
    assert_eq!(proven["check"]["refused"], Value::Null, "{proven}");
    assert_eq!(entry(&stage, "s3").await["proof"]["is"], "proven");
    let listed = stage.regent(&["list", "shop", "--target", "s3"]).await;
    assert!(listed.stdout.contains("proven"), "{}", listed.stdout);
    let shown = stage.regent(&["show", "shop", "latest"]).await;
    assert!(shown.stdout.contains("by restore"), "{}", shown.stdout);
    assert!(files_below(&stage.file("proofs")).is_empty(), "something is left of the server");

    // A later look without a restore takes nothing away from it.
    assert_eq!(stage.regent(&["verify", "shop", "latest"]).await.code, 0);
    assert_eq!(entry(&stage, "s3").await["proof"]["is"], "proven");
}

async fn what_is_not_as_it_was_is_found(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    stage.configure(&verify(&stage, &stage.server), &stage.dump());
    stage.primary.execute("CREATE TABLE shop.log (what VARCHAR(9)) ENGINE = MyISAM").await.unwrap();
    // Its dump has six digits of it.
    stage.primary.execute("CREATE TABLE shop.prices (price FLOAT)").await.unwrap();
    stage.primary.execute("INSERT INTO shop.prices VALUES (123456.78)").await.unwrap();
    stage.primary.execute("INSERT INTO shop.log VALUES ('one')").await.unwrap();
    stage.replica.wait_for("SELECT COUNT(*) FROM shop.log", 1).await.unwrap();
    let taken = stage.regent(&["now", "shop", "--target", "local", "--json"]).await;
    assert!(taken.stderr.contains("! shop.log is MyISAM, not InnoDB"), "{}", taken.stderr);
    let id = taken.json()["id"].as_str().unwrap().to_owned();
    let path = stage.file(&format!("folder/shop/manifests/{id}.json"));
    let whole = std::fs::read_to_string(&path).unwrap();
    let changed = |table: &str, field: &str, by: u64| {
        let mut manifest: Value = serde_json::from_str(&whole).unwrap();
        let tables = manifest["tables"]["sums"].as_array_mut().unwrap();
        let sum = tables.iter_mut().find(|it| it["table"] == table).unwrap();
        sum[field] = json!(sum[field].as_u64().unwrap() + by);
        std::fs::write(&path, manifest.to_string()).unwrap();
    };

    changed("lines_", "rows", 1);
    let found = prove(&stage, "local", &id).await;
    found.refused(1, "is NOT good: what is restored is not what was backed up");
    found.refused(1, "shop.lines_ has 3 rows and had 4");
    assert_eq!(entry(&stage, "local").await["proof"]["is"], "failed");
    let latest = stage.regent(&["show", "shop", "latest", "--target", "local"]).await;
    latest.refused(1, "no backup of shop that is good; 1 failed");
    changed("noise", "checksum", 1);
    prove(&stage, "local", &id).await.refused(1, "shop.noise has the checksum");

    // With the right manifest it is as good as ever, and the table without a snapshot does not matter.
    std::fs::write(&path, &whole).unwrap();
    let mut manifest: Value = serde_json::from_str(&whole).unwrap();
    manifest["tables"]["loose"][0]["rows"] = json!(7);
    std::fs::write(&path, manifest.to_string()).unwrap();
    let proven = prove(&stage, "local", &id).await.json();
    let unsure = proven["check"]["compared"]["unsure"].as_array().unwrap();
    let unsure: Vec<&str> = unsure.iter().map(|it| it["table"].as_str().unwrap()).collect();
    assert_eq!(unsure, ["prices", "log"], "{proven}");
    assert_eq!(entry(&stage, "local").await["proof"]["is"], "proven");

    // What is cut off later is found by reading alone.
    let data = stage.file(&format!("folder/{}", manifest["object"].as_str().unwrap()));
    let bytes = std::fs::read(&data).unwrap();
    std::fs::write(&data, &bytes[..bytes.len() - 1]).unwrap();
    let read = stage.regent(&["verify", "shop", &id, "--target", "local"]).await;
    read.refused(1, "ends too early");
    assert_eq!(entry(&stage, "local").await["proof"]["is"], "failed");
    prove(&stage, "local", &id).await.refused(1, "ends too early");
    assert!(files_below(&stage.file("proofs")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_start_says_nothing_about_the_backup() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    let programs = [
        ("exit 1", "does not tell its version"),
        (
            "echo 'mariadbd  Ver 9.1.1-MariaDB'",
            "is MariaDB 9.1.1, and the backup is of MariaDB 10.",
        ),
        (
            "case \"$*\" in *--version*) exec REAL \"$@\" ;; esac; echo 'no disk' >&2; exit 1",
            "no disk",
        ),
        (
            "case \"$*\" in *--socket*) echo 'no memory' >&2; exit 1 ;; esac; exec REAL \"$@\"",
            "no memory",
        ),
    ];
    stage.configure("", &stage.dump());
    stage.regent(&["now", "shop", "--json"]).await.json();
    for (script, said) in programs {
        let server = program(&stage, script);
        stage.configure(&verify(&stage, &server), &stage.dump());
        prove(&stage, "s3", "latest").await.refused(1, said);
        assert_eq!(entry(&stage, "s3").await["proof"]["is"], "unproven", "{script}");
        assert!(files_below(&stage.file("proofs")).is_empty(), "{script}");
    }
}

/// A server program that does what the script says.
fn program(stage: &Stage, script: &str) -> PathBuf {
    // An installation like the real one, but for its server program.
    let above = stage.server.canonicalize().unwrap().ancestors().nth(2).unwrap().to_owned();
    let base = if above.join("share").is_dir() { above } else { above.join("usr") };
    std::fs::create_dir_all(stage.file("installed/programs")).unwrap();
    // It is there already from the second time on.
    let _ = std::os::unix::fs::symlink(base, stage.file("installed/usr"));
    let path = stage.file("installed/programs/server");
    let text =
        format!("#!/bin/bash\n{}\n", script.replace("REAL", &stage.server.display().to_string()));
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_proof_left_is_gone_after_the_next() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    stage.configure(&verify(&stage, &stage.server), &stage.dump());
    stage.regent(&["now", "shop", "--json"]).await.json();
    let mut command = stage.command(&["verify", "shop", "latest", "--restore"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let directory = stage.file("proofs");
    let has = |name: &str| files_below(&directory).iter().any(|file| file.ends_with(name));
    for _ in 0..600 {
        if has("/pid") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(has("/pid"), "the server never started");
    assert_eq!(prove(&stage, "s3", "latest").await.code, 0);
    assert_eq!(files_below(&directory), Vec::<String>::new());

    let mut command = stage.command(&["verify", "shop", "latest", "--restore"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..600 {
        if has("/pid") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    let waited = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    ended(&waited.await.unwrap()).refused(1, "stopped on request");
    assert_eq!(files_below(&directory), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncounted_backup_is_proven_by_its_restore_alone() {
    let Some(stage) = Stage::set(Mysql).await else { return };
    let section = format!("      checksums: off\n{}", verify(&stage, &stage.server));
    stage.configure(&section, &stage.dump());
    let before = sums(&stage.replica).await;
    let manifest = stage.regent(&["now", "shop", "--json"]).await.json();
    assert_eq!(manifest["tables"], Value::Null);
    let proven = prove(&stage, "s3", "latest").await.json();
    assert_eq!(proven["check"]["compared"], Value::Null);
    assert_eq!(sums(&stage.replica).await, before, "the source is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_manifest_and_a_bad_proof_hide_no_backup() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    stage.configure("", &stage.dump());
    let mut ids = Vec::new();
    for _ in 0..3 {
        let manifest = stage.regent(&["now", "shop", "--json"]).await.json();
        ids.push(manifest["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(stage.regent(&["verify", "shop", &ids[2]]).await.code, 0);
    let file = |kind: &str, id: &str| stage.bucket.file(&format!("regent/shop/{kind}/{id}.json"));
    std::fs::write(file("manifests", &ids[1]), "{\"format\": 1,").unwrap();
    std::fs::write(file("proofs", &ids[2]), "[]").unwrap();
    // Nothing but the configuration and the target is read: there is no watcher and no state of one.
    let catalogs = stage.regent(&["list", "shop", "--json", "--target", "s3"]).await.json();
    assert_eq!(stage.listed("s3").await, [ids[2].clone(), ids[0].clone()]);
    let unusable: Vec<&str> = catalogs[0]["unusable"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["object"].as_str().unwrap())
        .collect();
    let [manifest, proof] =
        [format!("shop/manifests/{}.json", ids[1]), format!("shop/proofs/{}.json", ids[2])];
    assert_eq!(unusable, [manifest, proof]);
    // Looking again makes the proof anew.
    assert_eq!(stage.regent(&["verify", "shop", &ids[2]]).await.code, 0);
    assert_eq!(entry(&stage, "s3").await["proof"]["is"], "whole");
}
