//! One dump to several targets, and what S3 is asked for beside keeping it.

use crate::bucket::{ACCESS_KEY, files_below};
use crate::small::Small;
use crate::stage::{Mariadb, Mysql, Stage};
use regent::clock::Clock;
use std::process::Stdio;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn one_dump_goes_to_all_targets() {
    let Some(stage) = Stage::set(Mysql).await else { return };
    // The real dump runs once: the second time it says nothing.
    let ran = stage.file("ran").display().to_string();
    let script = format!("[ -e {ran} ] && exit 0; touch {ran}; exec \"${{dump[@]}}\"");
    stage.configure("", &stage.faulty_dump(&script));
    let taken = stage.regent(&["now", "shop", "--target", "local", "--target", "s3"]).await;
    assert_eq!(taken.code, 0, "{}", taken.stderr);
    assert!(taken.stdout.contains(" is at local, s3: "), "{}", taken.stdout);
    let mut shown = Vec::new();
    for target in ["s3", "local"] {
        assert_eq!(stage.regent(&["verify", "shop", "latest", "--target", target]).await.code, 0);
        let show = ["show", "shop", "latest", "--json", "--target", target];
        let mut manifest = stage.regent(&show).await.json();
        // Each target was looked at for itself.
        assert_eq!(manifest["verdict"]["is"], "whole");
        for own in ["proof", "verdict"] {
            manifest.as_object_mut().and_then(|all| all.remove(own));
        }
        shown.push(manifest);
    }
    assert_eq!(shown[0], shown[1]);
    let unknown = stage.regent(&["now", "shop", "--target", "local", "--target", "moon"]).await;
    unknown.refused(1, "there is no target \"moon\"; there is s3, local");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_folder_fails_alone_and_leaves_nothing() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    let folder = stage.file("folder");
    let Some(_small) = Small::mount(folder.clone(), "4m") else { return };
    stage.configure("", &stage.dump());
    let alone = stage.regent(&["now", "shop", "--target", "local"]).await;
    alone.refused(1, "target local: ");
    alone.refused(1, "No space left on device");
    assert_eq!(files_below(&folder), Vec::<String>::new());

    let taken = stage.regent(&["now", "shop", "--all-targets", "--json"]).await;
    taken.refused(1, "not at local: ");
    taken.refused(1, "No space left on device");
    let manifest: serde_json::Value = serde_json::from_str(&taken.stdout).unwrap();
    let stored: Vec<(&str, bool)> = manifest["targets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["target"].as_str().unwrap(), it["stored"].as_bool().unwrap()))
        .collect();
    assert_eq!(stored, [("s3", true), ("local", false)]);
    assert_eq!(files_below(&folder), Vec::<String>::new());
    assert!(stage.listed("local").await.is_empty());
    assert_eq!(stage.listed("s3").await, [manifest["id"].as_str().unwrap()]);
    assert_eq!(stage.regent(&["verify", "shop", "latest"]).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_fails_at_its_end_is_at_no_target() {
    let Some(stage) = Stage::set(Mysql).await else { return };
    let script = "\"${dump[@]}\"; echo 'the disk is gone' >&2; exit 3";
    stage.configure("", &stage.faulty_dump(script));
    stage.regent(&["now", "shop", "--all-targets"]).await.refused(1, "the disk is gone");
    assert_eq!(stage.bucket.everything(), Vec::<String>::new());
    assert_eq!(files_below(&stage.file("folder")), Vec::<String>::new());
    assert_eq!(stage.bucket.state().unfinished(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_locked_and_paced_as_configured() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    let s3 = format!(
        "access_key: {ACCESS_KEY}, secret_key_file: s3, storage_class: STANDARD_IA, \
         object_lock: {{ mode: compliance, days: 30 }}"
    );
    stage.configure_s3(&s3, "      rate_limit: 2MiB\n", &stage.dump());
    let manifest = stage.regent(&["now", "shop", "--json"]).await.json();
    let (id, object) = (manifest["id"].as_str().unwrap(), manifest["object"].as_str().unwrap());
    let kept_as = stage.bucket.state().kept_as.lock().unwrap().clone();
    let until = (Clock::start().now().wall.0 / 86_400_000 + 30).to_string();
    let lock = [Some("COMPLIANCE".to_owned()), Some(until)];
    let [class, rest @ ..] = kept_as.get(&format!("regent/{object}")).unwrap().clone();
    assert_eq!((class.as_deref(), &rest), (Some("STANDARD_IA"), &lock));
    let [_, rest @ ..] = kept_as.get(&format!("regent/shop/manifests/{id}.json")).unwrap().clone();
    assert_eq!(rest, lock);

    let moment = |field: &str| manifest[field].as_u64().unwrap();
    let (took, bytes) = (moment("ended") - moment("begun"), moment("bytes"));
    assert!(took >= (bytes - (6 << 20)) * 1000 / (2 << 20), "{bytes} bytes took {took} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_takes_little_memory_whatever_it_holds() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    let whole = stage.file("whole").display().to_string();
    // Comments, for the sake of their length.
    let script = format!(
        "\"${{dump[@]}}\" > {whole}; head -n 30 {whole}; \
         head -c 90000000 /dev/urandom | base64 -w 1000 | sed 's/^/-- /'; tail -n +31 {whole}"
    );
    stage.configure("", &stage.faulty_dump(&script));
    let file = stage.file("regent.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("part_size: 5MiB", "part_size: 16MiB")).unwrap();
    let mut command = stage.command(&["now", "shop", "--all-targets", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        // A process that has just ended has none any more.
        let seen = std::fs::read_to_string(&status).unwrap_or_default();
        let peak = seen.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = peak.and_then(|it| it.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        most = most.max(kilobytes.unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ended = crate::stage::ended(&child.wait_with_output().unwrap());
    let bytes = ended.json()["bytes"].as_u64().unwrap();
    assert!(bytes > 90_000_000, "{bytes}");
    eprintln!("{most} kB for {bytes} bytes");
    assert!((20_000..150_000).contains(&most), "{most} kB");
}
