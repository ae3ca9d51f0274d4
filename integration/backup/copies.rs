//! Copies of a server's files: proven by a restore, and brought to a moment.

use crate::archiver::{Archiver, SOON, executed, segments, until_archived};
use crate::beside::{Agent, Declared, instead};
use crate::binlogs::{live, one, position};
use crate::bucket::files_below;
use crate::physical::{with_clone, writes};
use crate::proofs::{entry, prove, verify};
use crate::stage::{Ended, Mariadb, Mysql, Stage, sums};
use regent::demo::lab::Volume;
use regent::demo::servers::DatabaseFlavor;
use serde_json::{Value, json};
use std::path::Path;

both! {
    a_restore_proves_a_copy
    what_no_server_runs_on_is_no_proven_copy
    files_are_brought_to_the_moment_before_a_table_was_dropped
    the_latest_is_one_that_can_be_restored_that_way
}

/// A stage with an agent, and further fields of `backups`.
async fn with_agent(flavor: DatabaseFlavor, more: &str) -> Option<(Stage, Declared, Agent)> {
    let stage = Stage::set(flavor).await?;
    let mut declared = Declared::new(&stage);
    declared.backups = format!("{}\n{more}", verify(&stage, &stage.server));
    declared.configure(&stage);
    with_clone(&stage).await;
    let agent = declared.start(&stage, None).await;
    Some((stage, declared, agent))
}

async fn take(stage: &Stage, more: &[&str]) -> Value {
    let now = [&["now", "shop", "--method", "physical", "--json"], more].concat();
    stage.regent(&now).await.json()
}

async fn a_restore_proves_a_copy(flavor: DatabaseFlavor) {
    let Some((stage, _declared, agent)) = with_agent(flavor, "").await else { return };
    let writing = writes(&stage.primary).await;
    let manifest = take(&stage, &["--all-targets"]).await;
    writing.end().await;
    assert_eq!(manifest["innodb"]["page_size"], 16_384, "{manifest}: {}", agent.said());
    assert_eq!(entry(&stage, "s3").await["proof"]["is"], "unproven");
    let proven = prove(&stage, "s3", "latest").await.json();
    assert_eq!((&proven["whole"], &proven["how"]), (&json!(true), &json!("restored")), "{proven}");
    assert!(proven["check"]["checked"].as_u64().unwrap() > 10, "{proven}");
    assert_eq!(proven["check"]["compared"], Value::Null, "{proven}");
    assert_eq!(entry(&stage, "s3").await["proof"]["is"], "proven");
    let shown = stage.regent(&["show", "shop", "latest"]).await;
    assert!(shown.stdout.contains("by restore"), "{}", shown.stdout);
    assert!(files_below(&stage.file("proofs")).is_empty(), "something is left of the server");

    // Files that are at another position than the manifest says are no such backup.
    let id = manifest["id"].as_str().unwrap();
    let path = stage.file(&format!("folder/shop/manifests/{id}.json"));
    let mut other = manifest.clone();
    other.as_object_mut().unwrap().remove("targets");
    other.as_object_mut().unwrap().remove("at_most");
    let beyond = match flavor {
        Mysql => format!("{},11111111-1111-1111-1111-111111111111:1", text(&other["position"])),
        Mariadb => format!("{},7-7-7", text(&other["position"])),
    };
    other["position"] = json!(beyond);
    std::fs::write(&path, other.to_string()).unwrap();
    let found = prove(&stage, "local", id).await;
    if flavor == Mysql {
        found.refused(1, "is NOT good: a server on its files has ");
        assert_eq!(entry(&stage, "local").await["proof"]["is"], "failed");
    } else {
        // A domain that had not moved is in no file.
        assert_eq!(found.code, 0, "{}", found.stderr);
        other["position"] = json!(format!("{}9", text(&manifest["position"])));
        std::fs::write(&path, other.to_string()).unwrap();
        prove(&stage, "local", id).await.refused(1, "is NOT good: its files name ");
        assert_eq!(entry(&stage, "local").await["proof"]["is"], "failed");
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

async fn what_no_server_runs_on_is_no_proven_copy(flavor: DatabaseFlavor) {
    let Some((mut stage, mut declared, _agent)) = with_agent(flavor, "").await else { return };
    // What is damaged below must not be mended by what was logged last.
    stage.replica.shutdown().await;
    stage.replica.restart().await.unwrap();
    stage.replica.follow(&stage.primary).await.unwrap();
    let manifest = take(&stage, &[]).await;
    let id = text(&manifest["id"]);
    let (name, real) = match flavor {
        Mysql => ("tar", "/bin/tar".to_owned()),
        Mariadb => ("mbstream", stage.program("mbstream").display().to_string()),
    };
    // What unpacks a copy damages it.
    let unpacked = |then: &str| instead(&stage, name, &format!("{real} \"$@\" || exit 1; {then}"));
    let programs = unpacked("true");
    declared.tools = declared.tools.replace(&real, &programs.join(name).display().to_string());
    declared.configure(&stage);
    let proving = async || prove_with(&stage, &programs, id).await;

    let page = "dd if=/dev/urandom of=shop/noise.ibd bs=16384 seek=100 count=40 conv=notrunc";
    unpacked(page);
    let found = proving().await;
    found.refused(1, "is NOT good");
    assert_eq!(entry(&stage, "s3").await["proof"]["is"], "failed", "{}", found.stderr);
    assert!(files_below(&stage.file("proofs")).is_empty(), "something is left of the server");
    unpacked(if flavor == Mysql { "rm mysql.ibd" } else { "rm ibdata1" });
    let found = proving().await;
    found.refused(1, "is NOT good");

    // What fails for another reason says nothing about the copy.
    unpacked("true");
    assert_eq!(proving().await.code, 0);
    unpacked("kill -9 $$");
    proving().await.refused(1, "signal: 9");
    assert_eq!(entry(&stage, "s3").await["proof"]["is"], "proven");
    std::fs::create_dir_all(stage.file("elsewhere")).unwrap();
    declared.backups = format!(
        "      verify: {{ server: /bin/false, directory: {} }}",
        stage.file("elsewhere").display()
    );
    declared.configure(&stage);
    unpacked("true");
    proving().await.refused(1, "does not tell its version");
    assert_eq!(entry(&stage, "s3").await["proof"]["is"], "proven");
    assert!(files_below(&stage.file("elsewhere")).is_empty());
}

/// A proof by a command that finds other programs first.
async fn prove_with(stage: &Stage, programs: &Path, id: &str) -> Ended {
    let mut command = stage.command(&["verify", "shop", id, "--restore", "--json"]);
    command.env("REGENT_PROGRAMS", programs);
    let run = move || command.output().unwrap();
    crate::stage::ended(&tokio::task::spawn_blocking(run).await.unwrap())
}

async fn files_are_brought_to_the_moment_before_a_table_was_dropped(flavor: DatabaseFlavor) {
    let Some((mut stage, _declared, _agent)) = with_agent(flavor, SOON).await else { return };
    let archiver = Archiver::start(&stage);
    let writing = writes(&stage.primary).await;
    let manifest = take(&stage, &[]).await;
    writing.end().await;
    // Of a CLONE only its bounds are known.
    assert_eq!(manifest["at_most"].is_string(), flavor == Mysql, "{manifest}");
    live(&stage).await;
    let (before, held) = (sums(&stage.primary).await, executed(&stage.primary).await);
    let dropped = one(&stage, "DROP TABLE shop.lines_").await;
    one(&stage, "INSERT INTO shop.later (id) VALUES (100)").await;
    until_archived(&stage, &stage.primary).await;
    archiver.stop().await;
    let listed = stage.regent(&["list", "shop", "--target", "s3", "--json"]).await.json();
    let window = &listed[0]["recovery"]["windows"][0];
    assert_eq!(window["backup"], manifest["id"], "{listed}");

    stage.empty.shutdown().await;
    let place = stage.empty.datadir();
    std::fs::remove_dir_all(&place).unwrap();
    let directory = place.display().to_string();
    let restore = ["restore", "shop", "latest", "--data-dir", &directory, "--json"];
    let wanted = [&restore[..], &["--before-gtid", &dropped]].concat();
    let planned = stage.in_place(&[&wanted[..], &["--dry-run"]].concat()).await.json();
    assert_eq!((&planned["done"], &planned["id"]), (&json!(false), &manifest["id"]), "{planned}");
    assert!(!place.exists());
    let past = [&restore[..], &["--to-time", "2020-01-01T00:00:00Z"]].concat();
    stage.in_place(&past).await.refused(1, "no physical backup is from before");
    let restored = stage.in_place(&wanted).await.json();
    assert_eq!(restored["statements"], json!([]), "{restored}");
    assert!(restored["transactions"].as_u64().unwrap() > 10, "{restored}");
    assert!(files_below(&stage.file("proofs")).is_empty(), "something is left of the server");
    assert!(!files_below(&place).iter().any(|name| name.contains("regent-restore")));

    stage.empty.restart().await.unwrap();
    assert_eq!(sums(&stage.empty).await, before, "{restored}");
    assert_eq!(position(&stage.empty).await.to_wait_text(), held.to_wait_text(), "{restored}");
    let question = "SELECT COUNT(*) FROM mysql.user WHERE User = 'regent-restore'";
    assert_eq!(stage.empty.query::<u64>(question).await.unwrap(), Some(0));
    // It goes on from there, with the table dropped again.
    stage.empty.follow(&stage.primary).await.unwrap();
    let later = "SELECT COUNT(*) FROM shop.later WHERE id = 100";
    stage.empty.wait_for(later, 1).await.unwrap();
    assert_eq!(sums(&stage.empty).await, sums(&stage.primary).await);
    assert_eq!(position(&stage.empty).await.to_wait_text(), {
        executed(&stage.primary).await.to_wait_text()
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_leaves_nothing_in_the_directory() {
    let Some((stage, _declared, _agent)) = with_agent(Mariadb, SOON).await else { return };
    let archiver = Archiver::start(&stage);
    take(&stage, &[]).await;
    one(&stage, "INSERT INTO shop.last VALUES (1)").await;
    until_archived(&stage, &stage.primary).await;
    one(&stage, "INSERT INTO shop.last VALUES (2)").await;
    until_archived(&stage, &stage.primary).await;
    archiver.stop().await;
    let all = segments(&stage);
    let path = stage.bucket.file(&format!("regent/{}", all.last().unwrap().object));
    let whole = std::fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(&path, damaged).unwrap();

    let place = stage.file("place");
    let directory = place.display().to_string();
    let restore = ["restore", "shop", "latest", "--data-dir", &directory, "--to-time", "latest"];
    let broken_off = stage.in_place(&restore).await;
    broken_off.refused(1, " is damaged: part 1, ");
    assert!(!broken_off.stderr.contains("--resume"), "{}", broken_off.stderr);
    assert_eq!(files_below(&place), Vec::<String>::new());
    assert_eq!(files_below(&stage.file("proofs")), Vec::<String>::new());
    std::fs::write(&path, whole).unwrap();
    let done = stage.in_place(&restore).await;
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.contains("2 transaction(s) from "), "{}", done.stdout);
    assert!(place.join("ibdata1").is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_without_room_says_nothing_about_the_copy() {
    let Some((stage, mut declared, _agent)) = with_agent(Mariadb, "").await else { return };
    let place = stage.file("small");
    let Ok(_volume) = Volume::mount(&stage.file("small.disk"), &place, 24) else {
        eprintln!("skipped: only root mounts file systems");
        return;
    };
    let manifest = take(&stage, &[]).await;
    let section = format!("server: {}, directory: {}", stage.server.display(), place.display());
    declared.backups = format!("      verify: {{ {section} }}");
    declared.configure(&stage);
    let proof = prove(&stage, "s3", text(&manifest["id"])).await;
    proof.refused(1, "has no room for all files of the backup");
    assert_eq!(entry(&stage, "s3").await["proof"]["is"], "unproven");
    let left = files_below(&place);
    assert_eq!(left, Vec::<String>::new());
}

async fn the_latest_is_one_that_can_be_restored_that_way(flavor: DatabaseFlavor) {
    let Some((stage, _declared, _agent)) = with_agent(flavor, "").await else { return };
    let now = ["now", "shop", "--method", "logical", "--json"];
    let logical = stage.regent(&now).await.json();
    let into = stage.empty.address().to_string();
    let server = ["restore", "shop", "latest", "--into", &into, "--user", "root", "--json"];
    let server = [&server[..], &["--password-file", "root", "--dry-run"]].concat();
    let place = stage.file("place").display().to_string();
    let files = ["restore", "shop", "latest", "--data-dir", &place, "--dry-run", "--json"];
    stage.in_place(&files).await.refused(1, "holds no physical backup of shop");
    let physical = take(&stage, &[]).await;
    let picked = stage.in_place(&server).await;
    assert_eq!(picked.json()["id"], logical["id"]);
    let newer = format!("{} is newer and of the other kind", text(&physical["id"]));
    assert!(picked.stderr.contains(&newer), "{}", picked.stderr);
    let picked = stage.in_place(&files).await;
    assert_eq!(picked.json()["id"], physical["id"]);
    assert!(!picked.stderr.contains("newer"), "{}", picked.stderr);
    assert_eq!(
        stage.regent(&["show", "shop", "latest", "--json"]).await.json()["id"],
        physical["id"]
    );
}
