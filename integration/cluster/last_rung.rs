//! A server that no other is to give its data comes back from a backup, also when that breaks off.

use crate::asking::{Said, Shop};
use crate::backups::fill;
use crate::held::{self, Held};
use crate::rejoining::{exported, has_table, write_alone};
use crate::stage::{Outcome, Setting, Stage, check, play_with};
use regent::demo::servers::accounts::ROOT;
use regent::demo::servers::{DatabaseFlavor, Installation};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// A server is emptied before it is loaded, which may take long on a busy machine.
const LOADING: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn brings_a_replica_back_on_mysql() {
    play(DatabaseFlavor::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brings_a_replica_back_on_mariadb() {
    play(DatabaseFlavor::Mariadb).await;
}

async fn play(flavor: DatabaseFlavor) {
    let mut setting = Setting::new(flavor);
    let rules = include_str!("../../failover-rules/default.yaml");
    setting.cluster.rules = Some(rules.replace("rebuild: true", "rebuild: false"));
    let place = tempfile::tempdir().expect("a directory");
    play_with(setting, async |stage| it_comes_back(stage, place.path()).await).await;
}

async fn it_comes_back(stage: &mut Stage, place: &Path) -> Outcome {
    fill(stage).await?;
    configure(stage, place)?;
    stage.begin().await?;
    let primary = stage.primary().await?;
    let [replica, other] = stage.others(&primary).try_into().map_err(|_| "three servers")?;
    let configuration = stage.cluster.configuration.display().to_string();
    let now = ["backup", "now", "shop", "--server", &other, "--config", &configuration];
    let said = stage.regent(&now).await?;
    check(said.code == 0, || format!("the backup said {said:?}"))?;
    let seen = stage.watchers.latest_event().await;
    write_alone(stage, &replica, "mine").await?;
    stage.until_exported(&replica, seen).await?;

    let said = rejoin(stage, place, &primary, &["--dry-run"]).await?;
    check(said.code == 1 && said.err.contains("is the primary"), || format!("{said:?}"))?;
    let said = rejoin(stage, place, &replica, &[]).await?;
    check(said.code == 2 && said.err.contains("add --yes"), || format!("{said:?}"))?;
    let said = rejoin(stage, place, &replica, &["--dry-run"]).await?;
    for part in ["write down what", "throw away of", "let it follow"] {
        check(said.code == 0 && said.out.contains(part), || format!("no {part:?} in {said:?}"))?;
    }
    check(has_table(stage, &replica, "mine").await?, || "a dry run did something".to_owned())?;

    // The command dies half-way.
    Held(place).hold()?;
    let mut command = command(stage, place, &replica, &["--yes"]);
    let said = place.join("said");
    let stderr = std::fs::File::create(&said)?;
    let mut child = command.stdout(Stdio::null()).stderr(stderr).spawn()?;
    let loading = Held(place).reached(stage, "the backup is being loaded", LOADING).await;
    loading.map_err(|error| {
        format!("{error}: {}", std::fs::read_to_string(&said).unwrap_or_default())
    })?;
    child.kill().await?;
    Held(place).release()?;
    let text = exported(stage, &replica, seen).await?;
    check(text.contains(&format!("'only on {replica}'")), || text)?;
    let left = |shop: &Shop| shop.health(&replica) == "maintenance";
    stage.until_shop("the watchers leave it alone", left).await?;
    stage.writes_go_on().await?;

    let said = rejoin(stage, place, &replica, &["--yes", "--json"]).await?;
    check(said.code == 0, || format!("going on said {said:?}"))?;
    let steps = said.json()?["steps"].to_string();
    check(steps.contains("go on loading SQL"), || steps)?;
    let replaced = |(_, kind, text): &(u64, String, String)| {
        kind == "data_replaced" && text.starts_with(&replica)
    };
    let known = stage.watchers.events().await.iter().any(replaced);
    check(known, || "the watchers do not know of its new data".to_owned())?;
    stage.whole().await?;
    check(!has_table(stage, &replica, "mine").await?, || "its own table is there".to_owned())?;
    check(stage.primary().await? == primary, || format!("{primary} was replaced"))?;
    stage.writes_go_on().await?;
    let sum = "SELECT CAST(SUM(CRC32(CONCAT(id, bytes))) AS UNSIGNED) FROM shop.noise";
    let theirs: Option<u64> = stage.peek(&primary).query(sum).await?;
    let own: Option<u64> = stage.peek(&replica).query(sum).await?;
    check(theirs == own && own.is_some(), || format!("{own:?} and not {theirs:?}"))?;
    stage.judge().await?;
    // It may give its new transactions the numbers of those that were written down.
    let seen = stage.watchers.latest_event().await;
    write_alone(stage, &replica, "other").await?;
    stage.until_exported(&replica, seen).await?;
    let text = exported(stage, &replica, seen).await?;
    check(text.contains("other"), || text)?;
    it_is_refused_when_logs_are_gone(stage, place, (&primary, &replica)).await
}

/// What the primary cannot send any more no backup makes up for, and nothing is thrown away.
async fn it_is_refused_when_logs_are_gone(
    stage: &Stage,
    place: &Path,
    (primary, replica): (&str, &str),
) -> Outcome {
    for _ in 0..100 {
        let server = stage.peek(primary);
        server.execute("FLUSH BINARY LOGS").await?;
        server.execute("PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY").await?;
        let said = rejoin(stage, place, replica, &["--dry-run"]).await?;
        if said.code == 1 && said.err.contains("has not kept all binary logs since that backup") {
            return Ok(());
        }
        check(said.code == 0, || format!("{said:?}"))?;
    }
    Err("a backup that is too old was accepted".into())
}

fn command(stage: &Stage, place: &Path, server: &str, more: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_regent"));
    command.env_remove("RUST_LOG").env_remove("REGENT_API").kill_on_drop(true);
    command.args(arguments(place, server, stage)).args(more).stdin(Stdio::null());
    command
}

fn arguments(place: &Path, server: &str, stage: &Stage) -> Vec<String> {
    let (root, file) = (ROOT.user, place.join(ROOT.user).display().to_string());
    let configuration = stage.cluster.configuration.display().to_string();
    let words = ["rejoin", "shop", server, "--rebuild", "--from-backup", "--user", root];
    let mut all: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    all.extend(["--password-file".to_owned(), file, "--config".to_owned(), configuration]);
    all
}

async fn rejoin(stage: &Stage, place: &Path, server: &str, more: &[&str]) -> Outcome<Said> {
    let own = arguments(place, server, stage);
    let mut all: Vec<&str> = own.iter().map(String::as_str).collect();
    all.extend(more);
    stage.regent(&all).await
}

fn configure(stage: &Stage, place: &Path) -> Outcome {
    let (field, program, dump, dumps) = match stage.flavor() {
        DatabaseFlavor::Mysql => ("mysql", "mysql", "mysqldump", "mysqldump"),
        DatabaseFlavor::Mariadb => ("mariadb", "mariadb", "mariadb_dump", "mariadb-dump"),
    };
    let (installation, client) = (Installation::find(stage.flavor())?, place.join("client"));
    let script = "{ head -c 1500000; wait_here; cat; } | exec \"$real\" \"$@\"";
    Held(place).instead_of(&installation.program(program), &client, script)?;
    let dumps = installation.program(dumps);
    let (client, dumps) = (client.display(), dumps.display());
    held::password(ROOT, place)?;
    held::configure(
        stage,
        place,
        &format!("      tools: {{ {field}: {client}, {dump}: {dumps} }}\n"),
    )
}
