//! Watchers whose wall clocks jump. Nothing decides by those, so nothing may come of it.

use crate::stage::{Outcome, Setting, Stage, check, is_there, play_with};
use regent::demo::cluster::Cluster;
use regent::demo::servers::{DatabaseFlavor, Installation};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn jump_by_a_day_on_mysql() {
    play_shifted(DatabaseFlavor::Mysql, async |stage, place| clocks_jump(stage, place).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/test --all"]
async fn jump_by_a_day_on_mariadb() {
    play_shifted(DatabaseFlavor::Mariadb, async |stage, place| clocks_jump(stage, place).await)
        .await;
}

/// A day in seconds.
const DAY: i64 = 86_400;

/// A scenario whose processes can be told another time, with a directory beside it.
pub async fn play_shifted(
    flavor: DatabaseFlavor,
    scenario: impl AsyncFnOnce(&mut Stage, &Path) -> Outcome,
) {
    let place = tempfile::tempdir().expect("a directory");
    let library = place.path().join("clock.so");
    if !is_there(compiled(&library)) || !is_there(Installation::find(flavor)) {
        return;
    }
    let mut setting = Setting::new(flavor);
    setting.cluster.environment =
        vec![("LD_PRELOAD", library.into()), ("SHIFTED_CLOCKS", place.path().into())];
    play_with(setting, async |stage| scenario(stage, place.path()).await).await;
}

/// Builds what shifts the clock of processes that it is preloaded into.
fn compiled(library: &Path) -> Result<(), String> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/cluster/clock.c");
    let mut compiler = Command::new("cc");
    let told = compiler.args(["-shared", "-fPIC", "-O1", source, "-o"]).arg(library).output();
    let told = told.map_err(|error| format!("no C compiler: {error}"))?;
    told.status.success().then_some(()).ok_or(String::from_utf8_lossy(&told.stderr).into_owned())
}

/// Forth and back while all is well, with a maintenance that must last; then a failover led by one
/// whose clock is two days behind its predecessor's.
async fn clocks_jump(stage: &mut Stage, place: &Path) -> Outcome {
    stage.begin().await?;
    let order = ["maintenance", "shop", "db2", "--for", "10m", "--reason", "new disks"];
    let said = stage.regent(&order).await?;
    check(said.code == 0, || format!("maintenance said {said:?}"))?;
    let quiet = stage.until_shop("db2 is left alone", |it| it.health("db2") == "maintenance");
    let before = quiet.await?;
    let leader = stage.leader().await?;
    for (leads, follows) in [(DAY, -DAY), (-DAY, DAY), (3600, 0), (DAY, -DAY)] {
        for (number, id) in Cluster::WATCHERS.into_iter().enumerate() {
            let ahead = if number == leader { leads } else { follows };
            set_ahead(stage, place, id, ahead)?;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        stage.writes_go_on().await?;
        let now = stage.until_shop("there is an answer", |_| true).await?;
        let same = now.epoch() == before.epoch() && now.leader == before.leader;
        let kept = now.health("db2") == "maintenance" && now.primary() == before.primary();
        check(same && kept, || format!("{leads} s changed the cluster: {:?}", now.view))?;
    }
    let said = stage.regent(&["maintenance", "shop", "db2", "--end"]).await?;
    check(said.code == 0, || format!("its end said {said:?}"))?;
    let ahead = last_event_is_ahead(stage).await?;
    check(ahead > DAY - 3600, || format!("the leader's clock is ahead by {ahead} s only"))?;
    stage.whole().await?;

    let killed = stage.primary().await?;
    stage.cluster.kill_node(Cluster::WATCHERS[leader]);
    stage.server(&killed).kill9();
    stage.failed_over(&killed).await?;
    let ahead = last_event_is_ahead(stage).await?;
    check(ahead < 3600 - DAY, || format!("the new leader's clock is ahead by {ahead} s"))?;
    stage.cluster.start_node(Cluster::WATCHERS[leader])?;
    stage.bring_back(&killed).await?;
    stage.judge().await
}

/// A watcher's wall clock jumps.
pub fn set_ahead(stage: &Stage, place: &Path, watcher: &str, seconds: i64) -> Outcome {
    let process = stage.cluster.process_of(watcher).ok_or("it does not run")?;
    Ok(std::fs::write(place.join(process.to_string()), seconds.to_string())?)
}

/// By how many seconds the newest event is later than this machine's clock says.
async fn last_event_is_ahead(stage: &Stage) -> Outcome<i64> {
    let latest = stage.watchers.latest_event().await;
    let path = format!("/v1/events?after={}&limit=1", latest.saturating_sub(1));
    let answer = stage.watchers.get(&path).await.unwrap_or_default();
    let at = answer[0]["at"].as_i64().ok_or(format!("no time in {answer}"))?;
    let now = i64::try_from(regent::clock::Clock::start().now().wall.0)?;
    Ok((at - now) / 1000)
}
