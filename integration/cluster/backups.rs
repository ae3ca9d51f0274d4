//! Scheduled backups: watchers that die while they make one, and failovers that come meanwhile.
//!
//! A schedule comes every ten minutes, and the watchers' clocks are set to shortly before. The dump program
//! stops in the middle of its output as long as a file is there.

use crate::asking::Shop;
use crate::clocks::{play_shifted, set_ahead};
use crate::held::{self, Held};
use crate::lagging::stop_applying;
use crate::stage::{Outcome, PATIENCE, Stage, check};
use regent::demo::cluster::Cluster;
use regent::demo::servers::{DatabaseFlavor, Installation};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// An attempt that fails is made again a minute later.
const PAUSED: Duration = Duration::from_secs(120);
/// Longer than all that is left of a dump takes.
const STILL: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn are_made_by_another_watcher_when_one_dies_on_mysql() {
    play_shifted(DatabaseFlavor::Mysql, async |stage, place| its_watcher_dies(stage, place).await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/test --all"]
async fn are_made_by_another_watcher_when_one_dies_on_mariadb() {
    play_shifted(DatabaseFlavor::Mariadb, async |stage, place| {
        its_watcher_dies(stage, place).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/test --all"]
async fn make_way_on_mysql() {
    play_shifted(DatabaseFlavor::Mysql, async |stage, place| it_makes_way(stage, place).await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn make_way_on_mariadb() {
    play_shifted(DatabaseFlavor::Mariadb, async |stage, place| it_makes_way(stage, place).await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_still_on_mysql() {
    play_shifted(DatabaseFlavor::Mysql, async |stage, place| it_stands_still(stage, place).await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/test --all"]
async fn stand_still_on_mariadb() {
    play_shifted(DatabaseFlavor::Mariadb, async |stage, place| it_stands_still(stage, place).await)
        .await;
}

/// The watcher that makes it is killed with all it does; another one makes it for the same slot.
async fn its_watcher_dies(stage: &mut Stage, place: &Path) -> Outcome {
    begin(stage, place).await?;
    let shop = running(stage, 1).await?;
    half_way(stage, place).await?;
    let (slot, maker) = (run(&shop)["slot"].clone(), word(&run(&shop)["watcher"])?);
    check(run(&shop)["server"] != shop.view["primary"], || format!("{}", run(&shop)))?;
    stage.cluster.kill_node(&maker);
    let shop = running(stage, 2).await?;
    check(run(&shop)["slot"] == slot, || format!("another slot than {slot}: {}", run(&shop)))?;
    check(run(&shop)["watcher"] != maker.as_str(), || format!("{maker} makes it again"))?;
    Held(place).release()?;
    stage.cluster.start_node(&maker)?;
    made(stage, &slot).await?;
    stage.whole().await?;
    stage.judge().await
}

/// A switchover to the server that is read, and then the death of that new primary.
async fn it_makes_way(stage: &mut Stage, place: &Path) -> Outcome {
    begin(stage, place).await?;
    let shop = running(stage, 1).await?;
    half_way(stage, place).await?;
    let (slot, source) = (run(&shop)["slot"].clone(), word(&run(&shop)["server"])?);
    let said = stage.regent(&["switchover", "shop", "--to", &source, "--yes"]).await?;
    check(said.code == 0, || format!("switchover said {said:?}"))?;
    let told = async |stage: &Stage| {
        let events = stage.watchers.events().await;
        events.iter().any(|(_, kind, _)| kind == "backup_yielded").then_some(())
    };
    stage.until("the backup makes way", PATIENCE, told).await?;
    stage.writes_go_on().await?;
    let shop = running(stage, 2).await?;
    check(run(&shop)["slot"] == slot, || format!("another slot than {slot}: {}", run(&shop)))?;
    check(run(&shop)["server"] != source.as_str(), || format!("{source} is read again"))?;
    half_way(stage, place).await?;
    stage.server(&source).kill9();
    stage.failed_over(&source).await?;
    Held(place).release()?;
    made(stage, &slot).await?;
    stage.bring_back(&source).await?;
    stage.judge().await
}

/// db1 dies while db3, which is never promoted, is read; the failover waits for db2's applier. The rest of the
/// backup, seconds of work at most, is not taken before that.
async fn it_stands_still(stage: &mut Stage, place: &Path) -> Outcome {
    let text = std::fs::read_to_string(&stage.cluster.configuration)?;
    let never = text.replacen("name: db3,", "name: db3, promotion: never,", 1);
    check(never != text, || format!("nothing to replace in {text}"))?;
    std::fs::write(&stage.cluster.configuration, never)?;
    begin(stage, place).await?;
    let shop = running(stage, 1).await?;
    half_way(stage, place).await?;
    let slot = run(&shop)["slot"].clone();
    check(run(&shop)["server"] == "db3", || format!("{}", run(&shop)))?;
    let applier = stop_applying(stage, "db2").await?;
    stage.writes_go_on().await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    stage.server("db1").kill9();
    let waits = |shop: &Shop| shop.busy() && shop.view["procedure"]["kind"] == "failover";
    stage.until_shop("the failover waits for the applier", waits).await?;

    Held(place).release()?;
    tokio::time::sleep(STILL).await;
    let shop = stage.until_shop("there is an answer", |_| true).await?;
    check(waits(&shop), || format!("it did not wait: {:?}", shop.view))?;
    check(run(&shop)["state"] == "running", || format!("it went on: {}", run(&shop)))?;
    applier.disconnect().await?;
    let now = stage.failed_over("db1").await?;
    check(now == "db2", || format!("{now} was promoted"))?;
    made(stage, &slot).await?;
    let yielded = stage.watchers.events().await.iter().any(|(_, kind, _)| kind == "backup_yielded");
    check(!yielded, || "it was given up".to_owned())?;
    stage.bring_back("db1").await?;
    stage.judge().await
}

/// Everything runs, and the schedule comes soon.
async fn begin(stage: &mut Stage, place: &Path) -> Outcome {
    fill(stage).await?;
    Held(place).hold()?;
    configure(stage, place)?;
    stage.begin().await?;
    let declared = |shop: &Shop| shop.view["backups"][0]["next"].is_u64();
    stage.until_shop("the schedule is known", declared).await?;
    let now = regent::clock::Clock::start().now().wall.0 / 1_000;
    let ahead = i64::try_from((600 - now % 600 + 597) % 600)?;
    for id in Cluster::WATCHERS {
        set_ahead(stage, place, id, ahead)?;
    }
    Ok(())
}

/// More than a pipe holds, so that a dump stops with whoever reads it.
pub async fn fill(stage: &Stage) -> Outcome {
    let primary = stage.peek("db1");
    primary.execute("CREATE TABLE shop.noise (id INT PRIMARY KEY, bytes LONGBLOB)").await?;
    for id in 0..8 {
        let row = format!("INSERT INTO shop.noise VALUES ({id}, REPEAT('{id}', 500000))");
        primary.execute(&row).await?;
    }
    Ok(())
}

fn configure(stage: &Stage, place: &Path) -> Outcome {
    let (field, program) = match stage.flavor() {
        DatabaseFlavor::Mysql => ("mysqldump", "mysqldump"),
        DatabaseFlavor::Mariadb => ("mariadb_dump", "mariadb-dump"),
    };
    let (real, dump) = (Installation::find(stage.flavor())?.program(program), place.join("dump"));
    let script = "set -o pipefail; \"$real\" \"$@\" | { head -c 100000; wait_here; cat; }";
    Held(place).instead_of(&real, &dump, script)?;
    let more = format!(
        "      tools: {{ {field}: {} }}
      schedules: [ {{ name: often, cron: '*/10 * * * *' }} ]
      keep: {{ last: 50 }}
",
        dump.display()
    );
    held::configure(stage, place, &more)
}

/// Waits until that attempt, or a later one, has begun to read.
async fn running(stage: &Stage, attempt: u64) -> Outcome<Shop> {
    let begun = |shop: &Shop| {
        let run = run(shop);
        run["state"] == "running" && run["attempt"].as_u64() >= Some(attempt)
    };
    stage.until_shop(&format!("attempt {attempt} of a backup runs"), begun).await
}

/// Waits until the dump is in the middle of its output.
async fn half_way(stage: &Stage, place: &Path) -> Outcome {
    Held(place).reached(stage, "the dump has begun", PATIENCE).await
}

fn run(shop: &Shop) -> &Value {
    &shop.view["backups"][0]["run"]
}

fn word(value: &Value) -> Outcome<String> {
    Ok(value.as_str().ok_or(format!("{value} is no text"))?.to_owned())
}

/// Waits until the run of that slot has made a backup, which is the only one of that slot there is.
async fn made(stage: &Stage, slot: &Value) -> Outcome {
    let done = |shop: &Shop| {
        let success = &shop.view["backups"][0]["last_success"];
        success["slot"].as_u64() >= slot.as_u64()
    };
    let look = async |stage: &Stage| stage.watchers.shop().await.filter(&done);
    stage.until("there is a backup", PAUSED, look).await?;
    let configuration = stage.cluster.configuration.display().to_string();
    let list = ["backup", "list", "shop", "--json", "--config", &configuration];
    let listed = stage.regent(&list).await?.json()?;
    let backups = listed[0]["backups"].as_array().cloned().unwrap_or_default();
    let of_slot: Vec<_> = backups.iter().filter(|backup| backup["run"]["slot"] == *slot).collect();
    let [backup] = of_slot.as_slice() else {
        return Err(format!("{} backups of slot {slot}: {listed}", of_slot.len()).into());
    };
    let id = word(&backup["id"])?;
    let verify = ["backup", "verify", "shop", &id, "--config", &configuration];
    let said = stage.regent(&verify).await?;
    check(said.code == 0, || format!("verify said {said:?}"))
}
