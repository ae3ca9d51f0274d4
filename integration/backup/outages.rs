//! S3 that refuses, hangs or is gone, for a while and for longer.

use crate::bucket::files_below;
use crate::faulty::Mood;
use crate::small::Small;
use crate::stage::{Ended, Mariadb, Mysql, Stage, ended, sums};
use regent::demo::servers::DatabaseFlavor;
use std::process::{Child, Stdio};
use std::time::Duration;

both! { a_dump_goes_on_while_s3_is_gone_and_all_of_it_arrives }

const SPOOL: &str = "      spool: { folder: spool, limit: 100MiB }\n";

/// Begins a backup whose dump stops in the middle, and waits until parts of it are stored.
async fn begun(stage: &Stage) -> Child {
    let mut command = stage.command(&["now", "shop", "--json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    stage.bucket.until_a_part_came().await;
    child
}

async fn end_of(child: Child) -> Ended {
    let waited = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    ended(&waited.await.unwrap())
}

/// Lets the dump go on.
fn go(stage: &Stage) {
    std::fs::write(stage.file("go"), "").unwrap();
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..600 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

/// What waits in the spool, by name.
fn spooled(stage: &Stage) -> Vec<String> {
    let mut names = files_below(&stage.file("spool"));
    names.retain(|name| !name.ends_with("/lock"));
    names
}

async fn a_dump_goes_on_while_s3_is_gone_and_all_of_it_arrives(flavor: DatabaseFlavor) {
    all_arrives_after(flavor, Duration::ZERO).await;
}

/// When S3 comes back that long after the dump has ended.
async fn all_arrives_after(flavor: DatabaseFlavor, away: Duration) {
    let Some(mut stage) = Stage::set(flavor).await else { return };
    stage.fill_more(1).await;
    stage.configure(SPOOL, &stage.halved_dump());
    let before = sums(&stage.replica).await;
    let child = begun(&stage).await;
    stage.bucket.take_away().await;
    go(&stage);
    until("the dump ends without S3", || stage.file("dumped").exists()).await;
    until("parts are spooled", || !spooled(&stage).is_empty()).await;
    tokio::time::sleep(away).await;
    stage.bucket.bring_back().await;
    let ended = end_of(child).await;
    let manifest = ended.json();
    let id = manifest["id"].as_str().unwrap();
    assert!(manifest["parts"].as_array().unwrap().len() > 3, "{manifest}");
    assert_eq!(stage.listed("s3").await, [id]);
    assert_eq!(files_below(&stage.file("spool")), Vec::<String>::new());

    let into = stage.empty.address().to_string();
    let root = stage.file("root").display().to_string();
    let restore =
        ["restore", "shop", id, "--into", &into, "--user", "root", "--password-file", &root];
    let restored = stage.regent(&restore).await;
    assert_eq!(restored.code, 0, "{}", restored.stderr);
    assert_eq!(sums(&stage.empty).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_begins_while_s3_is_gone() {
    let Some(mut stage) = Stage::set(Mariadb).await else { return };
    stage.configure(SPOOL, &stage.halved_dump());
    stage.bucket.take_away().await;
    go(&stage);
    let mut command = stage.command(&["now", "shop", "--json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the dump ends without S3", || stage.file("dumped").exists()).await;
    stage.bucket.bring_back().await;
    let id = end_of(child).await.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(stage.regent(&["verify", "shop", &id]).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_silence_are_outlasted() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    let keys = format!(
        "access_key: {}, secret_key_file: s3, request_limit: 2s",
        crate::bucket::ACCESS_KEY
    );
    stage.configure_s3(&keys, "", &stage.halved_dump());
    for (mood, said) in
        [(Mood::Busy, "status 503, ServiceUnavailable"), (Mood::Hanging, "no answer within 2 s")]
    {
        let _ = std::fs::remove_file(stage.file("go"));
        let child = begun(&stage).await;
        stage.bucket.turn(mood);
        go(&stage);
        tokio::time::sleep(Duration::from_secs(3)).await;
        stage.bucket.turn(Mood::Fine);
        let ended = end_of(child).await;
        let id = ended.json()["id"].as_str().unwrap().to_owned();
        assert!(ended.stderr.contains(said) && ended.stderr.contains("trying again"));
        assert_eq!(stage.regent(&["verify", "shop", &id]).await.code, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_that_is_gone_for_too_long_is_given_up() {
    let Some(mut stage) = Stage::set(Mysql).await else { return };
    stage.fill_more(1).await;
    stage.configure(&format!("{SPOOL}      give_up_after: 2s\n"), &stage.halved_dump());
    let child = begun(&stage).await;
    stage.bucket.take_away().await;
    go(&stage);
    let ended = end_of(child).await;
    ended.refused(1, "target s3: ");
    ended.refused(1, "; given up after ");
    ended.refused(1, "could not be removed");
    assert_eq!(files_below(&stage.file("spool")), Vec::<String>::new());
    stage.bucket.bring_back().await;
    assert!(stage.listed("s3").await.is_empty());
    assert_eq!(stage.bucket.state().unfinished(), 1);

    // What could not be removed then is removed later.
    stage.bucket.age(Duration::from_secs(25 * 3600));
    let next = stage.regent(&["now", "shop"]).await;
    assert_eq!(next.code, 0, "{}", next.stderr);
    assert_eq!(stage.bucket.state().unfinished(), 0);
    assert_eq!(stage.bucket.everything().len(), 2, "{:?}", stage.bucket.everything());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_makes_the_dump_wait() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    waits_for_room(stage, "6MiB").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_spool_makes_the_dump_wait() {
    let Some(stage) = Stage::set(Mysql).await else { return };
    let Some(_small) = Small::mount(stage.file("spool"), "7m") else { return };
    waits_for_room(stage, "100MiB").await;
}

/// Where one part fits, and not two.
async fn waits_for_room(mut stage: Stage, limit: &str) {
    stage.fill_more(3).await;
    let spool =
        format!("      spool: {{ folder: spool, limit: {limit} }}\n      give_up_after: 5m\n");
    stage.configure(&spool, &stage.halved_dump());
    let child = begun(&stage).await;
    stage.bucket.take_away().await;
    go(&stage);
    until("a part is spooled", || spooled(&stage).len() == 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(spooled(&stage).len(), 1, "a second part does not fit");
    assert!(!stage.file("dumped").exists(), "nobody has room for the rest of the dump");
    stage.bucket.bring_back().await;
    let id = end_of(child).await.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(stage.regent(&["verify", "shop", &id]).await.code, 0);
    assert_eq!(spooled(&stage), Vec::<String>::new());
}

/// As [`a_dump_goes_on_while_s3_is_gone_and_all_of_it_arrives`], for as long as `scripts/soak` says, and with limits
/// as they are by themselves.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour: scripts/soak"]
async fn s3_is_gone_for_long() {
    let minutes = std::env::var("REGENT_SOAK_MINUTES").ok();
    let minutes: Option<u64> = minutes.and_then(|text| text.parse().ok());
    // Whoever runs all tests that are passed over does not mean this one.
    let Some(minutes) = minutes else { return };
    let away = Duration::from_secs(60 * minutes);
    all_arrives_after(Mysql, away).await;
}
