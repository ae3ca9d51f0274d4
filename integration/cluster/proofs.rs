//! Backups that the watchers prove by themselves: watchers and leaders that die meanwhile, backups that are
//! damaged, and alerts.
//!
//! A schedule comes every ten minutes, and the watchers' clocks are set to shortly before, an hour ahead, so
//! that a proof is overdue. The server for a proof does not start as long as a file is there.

use crate::asking::Shop;
use crate::clocks::{play_shifted, set_ahead};
use crate::held::{self, Held, private};
use crate::stage::{Outcome, PATIENCE, Stage, check};
use age::secrecy::ExposeSecret;
use regent::demo::cluster::Cluster;
use regent::demo::servers::{DatabaseFlavor, Installation};
use serde_json::Value;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

const HOUR: i64 = 3_600;

/// A chore whose watcher was killed is taken over after 15 s; an empty server is made in some.
const TAKEN_OVER: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn are_made_by_another_watcher_when_one_dies_on_mysql() {
    play_shifted(DatabaseFlavor::Mysql, async |stage, place| watchers_die(stage, place).await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/test --all"]
async fn are_made_by_another_watcher_when_one_dies_on_mariadb() {
    play_shifted(DatabaseFlavor::Mariadb, async |stage, place| watchers_die(stage, place).await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/test --all"]
async fn that_fail_are_told_on_mysql() {
    play_shifted(DatabaseFlavor::Mysql, async |stage, place| one_is_damaged(stage, place).await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_fail_are_told_on_mariadb() {
    play_shifted(DatabaseFlavor::Mariadb, async |stage, place| one_is_damaged(stage, place).await)
        .await;
}

/// First the watcher that proves, then the leader.
async fn watchers_die(stage: &mut Stage, place: &Path) -> Outcome {
    Held(place).hold()?;
    begin(stage, place).await?;
    let shop = proving(stage, place, |_| true).await?;
    let first = holder(&shop);
    alarmed(stage).await?;
    stage.cluster.kill_node(&first);
    let shop = proving(stage, place, |it| holder(it) != first).await?;
    let (second, since) = (holder(&shop), chore(&shop)["since"].clone());
    stage.cluster.start_node(&first)?;
    come_soon(stage, place, HOUR)?;
    stage.whole().await?;

    let leader = Cluster::WATCHERS[stage.leader().await?];
    if leader != second {
        stage.cluster.kill_node(leader);
        let led = |shop: &Shop| shop.leader.as_deref().is_some_and(|it| it != leader);
        stage.until_shop("another watcher leads", led).await?;
    }
    let shop = until(stage, "the chore is known", |it| chore(it)["working"] == true).await?;
    let kept = holder(&shop) == second && chore(&shop)["since"] == since;
    check(kept, || format!("{second} did not go on since {since}: {}", chore(&shop)))?;

    Held(place).release()?;
    proven(stage).await?;
    check(told(stage, "backup_proven").await? == 1, || "it was told again".to_owned())?;
    let left = std::fs::read_dir(place.join("proofs"))?.count();
    check(left == 0, || format!("{left} servers of proofs are left"))?;
    if leader != second {
        stage.cluster.start_node(leader)?;
    }
    stage.whole().await?;
    stage.judge().await
}

/// One is proven with nobody asking, and the next one is damaged before it is.
async fn one_is_damaged(stage: &mut Stage, place: &Path) -> Outcome {
    begin(stage, place).await?;
    alarmed(stage).await?;
    let first = proven(stage).await?;
    Held(place).hold()?;
    come_soon(stage, place, 2 * HOUR + 600)?;
    let shop = proving(stage, place, |it| !chore(it)["doing"].to_string().contains(&first)).await?;
    let doing = chore(&shop)["doing"].as_str().unwrap_or_default().to_owned();
    let second = doing.split(' ').nth(1).unwrap_or_default().to_owned();
    damage(&place.join("folder"), &second)?;
    Held(place).release()?;
    let failed = until(stage, "it is told as failed", |it| {
        proofs(it)["failed"][0]["backup"] == second.as_str()
    });
    let shop = failed.await?;
    let newest = &proofs(&shop)["newest"]["backup"];
    check(*newest == first.as_str(), || format!("{}", proofs(&shop)))?;
    alarmed(stage).await?;
    check(told(stage, "backup_proof_failed").await? == 1, || "it was told again".to_owned())?;
    let said = stage.regent(&["status", "shop"]).await?;
    for part in ["backup_unproven", &second, "prove: by "] {
        check(said.out.contains(part), || format!("status does not tell {part}: {}", said.out))?;
    }
    stage.judge().await
}

/// Everything runs, and the schedule comes soon.
async fn begin(stage: &mut Stage, place: &Path) -> Outcome {
    configure(stage, place)?;
    stage.begin().await?;
    let declared =
        |shop: &Shop| shop.view["backups"][0]["next"].is_u64() && proofs(shop)["target"] == "local";
    stage.until_shop("schedule and proofs are known", declared).await?;
    come_soon(stage, place, HOUR)
}

/// Sets all watchers' clocks ahead, to shortly before the schedule comes.
fn come_soon(stage: &Stage, place: &Path, ahead: i64) -> Outcome {
    let now = i64::try_from(regent::clock::Clock::start().now().wall.0 / 1_000)?;
    let ahead = ahead + (600 - now % 600 + 597) % 600;
    for id in Cluster::WATCHERS.iter().filter(|id| stage.cluster.process_of(id).is_some()) {
        set_ahead(stage, place, id, ahead)?;
    }
    Ok(())
}

fn configure(stage: &Stage, place: &Path) -> Outcome {
    let proofs = place.join("proofs");
    std::fs::create_dir(&proofs)?;
    let server = slow(stage, place)?;
    let (key, pair) = (place.join("key"), age::x25519::Identity::generate());
    private(&key, pair.to_string().expose_secret())?;
    let more = format!(
        "      schedules: [ {{ name: often, cron: '*/10 * * * *' }} ]
      encrypt_to: [ {} ]
      keep: {{ last: 50 }}
      verify: {{ server: {}, directory: {}, identity: {}, every: 1h, alert_after: 1h }}
",
        pair.to_public(),
        server.display(),
        proofs.display(),
        key.display(),
    );
    held::configure(stage, place, &more)
}

/// The server program, which does not start while it is held. What lies beside it is looked for there.
fn slow(stage: &Stage, place: &Path) -> Outcome<PathBuf> {
    let name = match stage.flavor() {
        DatabaseFlavor::Mysql => "mysqld",
        DatabaseFlavor::Mariadb => "mariadbd",
    };
    let real = Installation::find(stage.flavor())?.program(name).canonicalize()?;
    let base = real.ancestors().nth(2).ok_or("it lies nowhere")?;
    let beside = place.join("installation");
    std::fs::create_dir_all(beside.join("bin"))?;
    for folder in ["share", "lib", "usr"].iter().filter(|folder| base.join(folder).is_dir()) {
        symlink(base.join(folder), beside.join(folder))?;
    }
    let path = beside.join("bin").join(name);
    Held(place).instead_of(&real, &path, "wait_here; exec \"$real\" \"$@\"")?;
    Ok(path)
}

/// Changes a byte in the middle of a backup's data.
fn damage(folder: &Path, id: &str) -> Outcome {
    let data = folder.join("shop/data");
    let of = |path: &PathBuf| path.display().to_string().contains(id);
    let mut found = std::fs::read_dir(&data)?.flatten().map(|entry| entry.path()).filter(of);
    let path = found.next().ok_or(format!("{} holds nothing of {id}", data.display()))?;
    let mut bytes = std::fs::read(&path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Ok(std::fs::write(&path, bytes)?)
}

/// Waits until a watcher makes a proof that fits, and its server is about to start.
async fn proving(stage: &Stage, place: &Path, fits: impl Fn(&Shop) -> bool) -> Outcome<Shop> {
    let at_it = |shop: &Shop| chore(shop)["doing"].as_str().is_some_and(|it| !it.is_empty());
    let shop = until(stage, "a proof is made", |shop| at_it(shop) && fits(shop)).await?;
    Held(place).reached(stage, "its server is about to start", PATIENCE).await?;
    Ok(shop)
}

/// Waits until there is a proven backup and nobody is alarmed; its name.
async fn proven(stage: &Stage) -> Outcome<String> {
    let good = |shop: &Shop| {
        proofs(shop)["newest"].is_object() && shop.finding("backup_unproven").is_none()
    };
    let shop = until(stage, "a backup is proven", good).await?;
    told(stage, "backup_unproven_over").await?;
    let name = proofs(&shop)["newest"]["backup"].as_str();
    Ok(name.ok_or("it has no name")?.to_owned())
}

/// Waits until people are told that nothing is proven, although the servers are well.
async fn alarmed(stage: &Stage) -> Outcome {
    let shop = until(stage, "nothing is proven", |it| it.finding("backup_unproven").is_some());
    let shop = shop.await?;
    told(stage, "backup_unproven").await?;
    check(shop.state() == "healthy", || format!("{}", shop.view))
}

/// Waits until people are told that; how often they were.
async fn told(stage: &Stage, kind: &str) -> Outcome<usize> {
    let look = async |stage: &Stage| {
        let events = stage.watchers.events().await;
        Some(events.iter().filter(|(_, it, _)| it == kind).count()).filter(|count| *count > 0)
    };
    stage.until(&format!("{kind} is told"), PATIENCE, look).await
}

async fn until(stage: &Stage, what: &str, wanted: impl Fn(&Shop) -> bool) -> Outcome<Shop> {
    let look = async |stage: &Stage| stage.watchers.shop().await.filter(&wanted);
    stage.until(what, TAKEN_OVER, look).await
}

fn chore(shop: &Shop) -> &Value {
    &shop.view["chores"][0]
}

fn holder(shop: &Shop) -> String {
    chore(shop)["watcher"].as_str().unwrap_or_default().to_owned()
}

fn proofs(shop: &Shop) -> &Value {
    &shop.view["proofs"][0]
}
