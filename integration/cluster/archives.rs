//! The binary log that the watchers archive by themselves: servers and watchers that die meanwhile, and a
//! moment that is restored from it.

use crate::asking::Shop;
use crate::held;
use crate::stage::{Outcome, PATIENCE, Stage, check};
use mysql_async::prelude::Queryable;
use regent::demo::ports::free_ports;
use regent::demo::servers::accounts::ROOT;
use regent::demo::servers::{Installation, Server, ServerOptions, ServerSet};
use rustix::process::Signal;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// A chore whose watcher was killed is taken over after 15 s.
const TAKEN_OVER: Duration = Duration::from_secs(60);

/// What hinders it is told after 30 s.
const TOLD: Duration = Duration::from_secs(120);

crate::on_both_flavors!(
    a_table_is_undropped_whoever_died,
    #[ignore = "scripts/test --all"]
    a_target_that_fails_is_told_and_nothing_is_lost,
);

async fn a_table_is_undropped_whoever_died(stage: &mut Stage) -> Outcome {
    let place = tempfile::tempdir()?;
    configure(stage, place.path())?;
    stage.begin().await?;
    let configuration = stage.cluster.configuration.display().to_string();
    let shop = working(stage, |_| true).await?;
    let first = holder(&shop);
    let taken = stage.regent(&["backup", "now", "shop", "--config", &configuration]).await?;
    check(taken.code == 0, || format!("now said {taken:?}"))?;
    let second = stage.regent(&["backup", "archive", "shop", "--config", &configuration]).await?;
    check(second.code == 1 && format!("{second:?}").contains("the watchers archive"), || {
        format!("a second archiver said {second:?}")
    })?;

    let killed = stage.primary().await?;
    stage.server(&killed).kill9();
    stage.failed_over(&killed).await?;
    stage.writes_go_on().await?;
    // With one flavour it dies; with the other it comes to itself when somebody else archives, in the middle of
    // what it did.
    let dies = !stage.is_mysql();
    match dies {
        true => stage.cluster.kill_node(&first),
        false => stage.cluster.signal_node(&first, Signal::STOP)?,
    }
    working(stage, |shop| holder(shop) != first).await?;
    match dies {
        true => stage.cluster.start_node(&first)?,
        false => stage.cluster.signal_node(&first, Signal::CONT)?,
    }
    stage.bring_back(&killed).await?;
    stage.writes_go_on().await?;
    stage.stop_writer().await;

    let primary = stage.primary().await?;
    let (before, dropped) = drop_a_table(stage, stage.peek(&primary)).await?;
    archived(stage).await?;
    let said = stage.regent(&["status", "shop"]).await?;
    for part in ["archive: by ", "binary log at local: "] {
        check(said.out.contains(part), || format!("status does not tell {part}: {}", said.out))?;
    }
    is_whole(stage).await?;

    let set = ServerSet::new(place.path().join("servers"), Installation::find(stage.flavor())?)?;
    let port = free_ports(1)[0];
    let fresh = set.start("fresh", port, ServerOptions::default()).await?;
    let (into, password) = (fresh.address().to_string(), held::password(ROOT, place.path())?);
    let mut restore =
        vec!["backup", "restore", "shop", "latest", "--into", &into, "--user", ROOT.user];
    let password = password.display().to_string();
    restore.extend(["--password-file", &password, "--before-gtid", &dropped]);
    restore.extend(["--config", &configuration]);
    let restored = stage.regent(&restore).await?;
    check(restored.code == 0, || format!("restore said {restored:?}"))?;
    let after = sums(&fresh).await?;
    check(after == before, || format!("{before:?} were there, and {after:?} are restored"))?;
    stage.judge().await
}

/// While writes go on.
async fn a_target_that_fails_is_told_and_nothing_is_lost(stage: &mut Stage) -> Outcome {
    let place = tempfile::tempdir()?;
    configure(stage, place.path())?;
    stage.begin().await?;
    working(stage, |_| true).await?;
    let (folder, aside) = (place.path().join("folder"), place.path().join("aside"));
    std::fs::rename(&folder, &aside)?;
    std::fs::write(&folder, "")?;
    told(stage, "archive_failing").await?;
    let said = stage.regent(&["status", "shop"]).await?;
    check(said.out.contains("hindered: "), || format!("status does not tell: {}", said.out))?;
    std::fs::remove_file(&folder)?;
    std::fs::rename(&aside, &folder)?;
    told(stage, "archive_resumed").await?;
    stage.writes_go_on().await?;
    archived(stage).await?;
    is_whole(stage).await?;
    stage.judge().await
}

/// Waits until an event of that kind is told.
async fn told(stage: &Stage, wanted: &str) -> Outcome {
    let look = async |stage: &Stage| {
        let events = stage.watchers.events().await;
        events.iter().any(|(_, kind, _)| kind == wanted).then_some(())
    };
    stage.until(&format!("{wanted} is told"), TOLD, look).await
}

/// The archive has no hole, no failover lost what is in it, and nobody was told otherwise.
async fn is_whole(stage: &Stage) -> Outcome {
    let configuration = stage.cluster.configuration.display().to_string();
    let list = ["backup", "list", "shop", "--json", "--config", &configuration];
    let listed = stage.regent(&list).await?.json()?;
    let (recovery, none) = (&listed[0]["recovery"], Value::Array(Vec::new()));
    let whole = recovery["holes"] == none && recovery["forks"] == none;
    check(whole, || format!("the archive has holes: {recovery}"))?;
    let events = stage.watchers.events().await;
    let wrong = events.iter().find(|(_, kind, _)| kind == "archive_gap");
    check(wrong.is_none(), || format!("told for nothing: {wrong:?}"))
}

fn configure(stage: &Stage, place: &Path) -> Outcome {
    let installation = Installation::find(stage.flavor())?;
    let names = match stage.is_mysql() {
        true => [("mysqldump", "mysqldump"), ("mysql", "mysql"), ("mysqlbinlog", "mysqlbinlog")],
        false => [
            ("mariadb_dump", "mariadb-dump"),
            ("mariadb", "mariadb"),
            ("mariadb_binlog", "mariadb-binlog"),
        ],
    };
    let tools =
        names.map(|(field, name)| format!("{field}: {}", installation.program(name).display()));
    let more = format!(
        "      tools: {{ {} }}
      binlogs: {{ archive_to: local, segment_size: 1MiB, segment_age: 1s, alert_after: 1m }}
",
        tools.join(", ")
    );
    held::configure(stage, place, &more)
}

fn chore(shop: &Shop) -> Option<&Value> {
    shop.view["chores"].as_array()?.iter().find(|chore| chore["chore"] == "archive")
}

fn holder(shop: &Shop) -> String {
    chore(shop).and_then(|chore| chore["watcher"].as_str()).unwrap_or_default().to_owned()
}

/// Waits until such a watcher archives, and has got on with it.
async fn working(stage: &Stage, wanted: impl Fn(&Shop) -> bool) -> Outcome<Shop> {
    let works = |shop: &Shop| {
        let working = chore(shop).is_some_and(|chore| chore["working"] == true);
        working && wanted(shop) && shop.view["archive"]["segments"].as_u64() > Some(0)
    };
    let look = async |stage: &Stage| stage.watchers.shop().await.filter(&works);
    stage.until("a watcher archives the binary log", TAKEN_OVER, look).await
}

/// Waits until all that was committed by now is archived.
async fn archived(stage: &Stage) -> Outcome {
    let now = regent::clock::Clock::start().now().wall.0;
    let reaches = |shop: &Shop| shop.view["archive"]["reached"].as_u64() > Some(now + 2_000);
    let look = async |stage: &Stage| stage.watchers.shop().await.filter(&reaches);
    stage.until("all is archived", PATIENCE * 3, look).await?;
    Ok(())
}

/// Makes a table and drops it: what all tables were before that, and the transaction that dropped it.
async fn drop_a_table(
    stage: &Stage,
    primary: &Server,
) -> Outcome<(Vec<(String, Option<u64>)>, String)> {
    let mut conn = primary.connect().await?;
    conn.query_drop("CREATE TABLE shop.precious (id INT PRIMARY KEY, text VARCHAR(9))").await?;
    conn.query_drop("INSERT INTO shop.precious VALUES (1, 'one'), (2, 'two')").await?;
    let before = sums(primary).await?;
    if stage.is_mysql() {
        conn.query_drop("SET SESSION gtid_next = 'AUTOMATIC:oops'").await?;
    }
    conn.query_drop("DROP TABLE shop.precious").await?;
    let question = match stage.is_mysql() {
        true => "SELECT CONCAT(@@GLOBAL.server_uuid, ':oops:1')",
        false => "SELECT @@SESSION.last_gtid",
    };
    let dropped: Option<String> = conn.query_first(question).await?;
    if stage.is_mysql() {
        conn.query_drop("SET SESSION gtid_next = 'AUTOMATIC'").await?;
    }
    conn.query_drop("CREATE TABLE shop.too_late (id INT PRIMARY KEY)").await?;
    Ok((before, dropped.ok_or("nobody knows what dropped it")?))
}

/// The sum of every table of the shop.
async fn sums(server: &Server) -> Outcome<Vec<(String, Option<u64>)>> {
    let mut conn = server.connect().await?;
    let tables: Vec<String> = conn
        .query(
            "SELECT TABLE_NAME FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA = 'shop' AND TABLE_TYPE = 'BASE TABLE' ORDER BY 1",
        )
        .await?;
    let mut sums = Vec::new();
    for table in tables {
        let question = format!("CHECKSUM TABLE shop.{table}");
        let sum: Option<(String, Option<u64>)> = conn.query_first(question).await?;
        sums.push((table, sum.and_then(|(_, sum)| sum)));
    }
    Ok(sums)
}
