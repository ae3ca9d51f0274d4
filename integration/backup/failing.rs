//! Backups that fail are nowhere to be seen afterwards.

use crate::bucket::files_below;
use crate::stage::{Mariadb, Mysql, Stage, ended};
use regent::demo::servers::DatabaseFlavor;
use std::process::Stdio;
use std::time::Duration;

both! { a_dump_that_fails_at_its_end_is_no_backup an_interrupted_backup_leaves_nothing }

async fn a_dump_that_fails_at_its_end_is_no_backup(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    let faults = [
        ("\"${dump[@]}\"; kill -9 $$", "signal: 9"),
        ("\"${dump[@]}\"; echo 'the disk is gone' >&2; exit 3", "the disk is gone"),
        ("\"${dump[@]}\" | head -c -60", "does not end as a whole dump does"),
        ("exit 0", "does not end as a whole dump does"),
    ];
    for (script, said) in faults {
        stage.configure("", &stage.faulty_dump(script));
        for target in ["s3", "local"] {
            stage.regent(&["now", "shop", "--target", target]).await.refused(1, said);
            assert!(stage.listed(target).await.is_empty(), "{script}");
        }
        assert_eq!(stage.bucket.everything(), Vec::<String>::new(), "{script}");
        assert_eq!(files_below(&stage.file("folder")), Vec::<String>::new(), "{script}");
    }
}

async fn an_interrupted_backup_leaves_nothing(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    stage.configure("", &stage.faulty_dump("\"${dump[@]}\"; exec sleep 1000"));
    let mut command = stage.command(&["now", "shop"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let process = rustix::process::Pid::from_child(&child);
    stage.bucket.until_a_part_came().await;
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    let waited = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    ended(&waited.await.unwrap()).refused(1, "stopped on request");
    assert_eq!(stage.bucket.everything(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_left_is_removed_by_the_next_backup() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    stage.configure("", &stage.faulty_dump("\"${dump[@]}\"; exec sleep 30"));
    let folder = stage.file("folder");
    let mut child = stage.command(&["now", "shop", "--target", "local"]).spawn().unwrap();
    let grown = || {
        let files = files_below(&folder);
        let sizes = files.iter().map(|name| std::fs::metadata(folder.join(name)).unwrap().len());
        sizes.sum::<u64>() > 0
    };
    for _ in 0..600 {
        if grown() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let left = files_below(&folder);
    assert!(matches!(left.as_slice(), [name] if name.ends_with(".partial")), "{left:?}");
    assert!(stage.listed("local").await.is_empty());
    stage.configure("", &stage.dump());
    assert_eq!(stage.regent(&["now", "shop", "--target", "local"]).await.code, 0);
    assert_eq!(files_below(&folder).len(), 2, "{:?}", files_below(&folder));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_loss_of_s3_is_outlasted() {
    let Some(mut stage) = Stage::set(Mysql).await else { return };
    stage.configure("", &stage.halved_dump());
    let mut command = stage.command(&["now", "shop", "--json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    stage.bucket.until_a_part_came().await;
    stage.bucket.take_away().await;
    std::fs::write(stage.file("go"), "").unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.bucket.bring_back().await;
    let waited = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let ended = ended(&waited.await.unwrap());
    let id = ended.json()["id"].as_str().unwrap().to_owned();
    assert!(ended.stderr.contains("trying again"), "it never noticed: {}", ended.stderr);
    assert_eq!(stage.listed("s3").await, [id]);
    assert_eq!(stage.regent(&["verify", "shop", "latest"]).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_refused_at_once() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    std::fs::write(stage.file("s3"), "another secret").unwrap();
    stage.configure("", &stage.dump());
    let ended = stage.regent(&["now", "shop"]).await;
    ended.refused(1, "SignatureDoesNotMatch");
    assert!(!ended.stderr.contains("another secret") && !ended.stderr.contains("trying again"));
}
