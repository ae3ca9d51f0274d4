//! Copies of a server's files, taken by the agent beside it, and servers that are started on them.

use crate::beside::{Declared, TOKEN, certificates, instead};
use crate::bucket::files_below;
use crate::scheduled::Maker;
use crate::stage::{Mariadb, Mysql, Stage, asked, ended, sums};
use mysql_async::prelude::Queryable;
use regent::config::Config;
use regent::decision::topology::ServerName;
use regent::demo::lab::Volume;
use regent::demo::servers::{DatabaseFlavor, Server};
use regent::watcher::BackupEnd;
use serde_json::Value;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

both! {
    a_copy_taken_under_writes_becomes_a_replica
    what_is_no_whole_copy_is_no_backup
    an_agent_that_is_killed_leaves_no_backup
    a_scheduled_run_takes_a_copy
}

async fn a_copy_taken_under_writes_becomes_a_replica(flavor: DatabaseFlavor) {
    let Some(mut stage) = Stage::set(flavor).await else { return };
    let mut declared = Declared::new(&stage);
    let key = age::x25519::Identity::generate();
    let secret = age::secrecy::ExposeSecret::expose_secret(&key.to_string()).to_owned();
    std::fs::write(stage.file("key.txt"), secret).unwrap();
    declared.backups = format!("      encrypt_to: [ {} ]\n      method: physical", key.to_public());
    declared.configure(&stage);
    with_clone(&stage).await;
    let _agent = declared.start(&stage, None).await;
    let quiet = sum_of(&stage.replica, "noise").await;

    let writing = writes(&stage.primary).await;
    let manifest = stage.regent(&["now", "shop", "--all-targets", "--json"]).await.json();
    writing.end().await;
    declared.nothing_left().await;
    let method = manifest["method"].as_str().unwrap();
    let (expected, end) = match flavor {
        Mysql => ("physical_clone", ".tar.zst.age"),
        Mariadb => ("physical_mariadb_backup", ".xbstream.zst.age"),
    };
    assert_eq!(method, expected);
    assert!(manifest["object"].as_str().unwrap().ends_with(end), "{manifest}");
    let id = manifest["id"].as_str().unwrap();
    for target in ["s3", "local"] {
        assert_eq!(stage.listed(target).await, [id]);
        let verify = ["verify", "shop", id, "--identity", "key.txt", "--target", target];
        assert_eq!(stage.in_place(&verify).await.code, 0);
    }
    let shown = stage.regent(&["show", "shop", id, "--json"]).await.json();
    assert_eq!((&shown["verdict"]["is"], &shown["tables"]), (&"whole".into(), &Value::Null));
    let into = stage.empty.address().to_string();
    let running = ["restore", "shop", id, "--into", &into, "--user", "root"];
    let running = [&running[..], &["--password-file", "root", "--identity", "key.txt"]].concat();
    stage.in_place(&running).await.refused(1, "--data-dir");

    stage.empty.shutdown().await;
    let place = stage.empty.datadir();
    let data_dir = place.display().to_string();
    let restore = ["restore", "shop", id, "--identity", "key.txt", "--json", "--data-dir"];
    let restore = [&restore[..], &[&data_dir]].concat();
    stage.in_place(&restore).await.refused(1, "is not empty");
    std::fs::remove_dir_all(&place).unwrap();
    let dry = [&restore[..], &["--dry-run"]].concat();
    assert_eq!(stage.in_place(&dry).await.json()["done"], false);
    assert!(!place.exists());
    let restored = stage.in_place(&restore).await.json();
    assert!(files_below(&place).iter().all(|name| !name.contains("regent-restore")));

    stage.empty.restart().await.unwrap();
    for statement in restored["statements"].as_array().unwrap() {
        stage.empty.execute(statement.as_str().unwrap()).await.unwrap();
    }
    let (_, position) = manifest["position"].as_str().unwrap().split_once(' ').unwrap();
    let question = match flavor {
        // It may hold more than was there when the copy began.
        Mysql => format!("SELECT GTID_SUBSET('{position}', @@global.gtid_executed) = 1"),
        Mariadb => format!("SELECT @@global.gtid_slave_pos = '{position}'"),
    };
    assert_eq!(asked(&stage.empty, &question).await, ["1"], "it begins where the copy ended");
    assert_eq!(sum_of(&stage.empty, "noise").await, quiet);
    let before: u64 = count(&stage.empty).await;
    assert!(before > 0, "nothing was written before the copy ended");

    // What came later arrives, and nothing twice.
    stage.primary.execute("INSERT INTO shop.lines_ (client) VALUES (77)").await.unwrap();
    stage.empty.follow(&stage.primary).await.unwrap();
    let later = "SELECT COUNT(*) FROM shop.lines_ WHERE client = 77";
    stage.empty.wait_for(later, 1).await.unwrap();
    assert_eq!(sums(&stage.empty).await, sums(&stage.primary).await);
    assert!(count(&stage.empty).await > before, "nothing was written after the copy ended");
}

async fn what_is_no_whole_copy_is_no_backup(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    let mut declared = Declared::new(&stage);
    declared.configure(&stage);
    let now = ["now", "shop", "--method", "physical", "--server"];
    let (replica, primary) = ([&now[..], &["db2"]].concat(), [&now[..], &["db1"]].concat());
    stage.regent(&primary).await.refused(1, "db1 has no agent");
    stage.regent(&replica).await.refused(1, "nobody can be reached at http://127.0.0.1:");
    let real = match flavor {
        Mysql => "/bin/tar".to_owned(),
        Mariadb => stage.program("mariadb-backup").display().to_string(),
    };
    let name = match flavor {
        Mysql => "tar",
        Mariadb => "mariadb-backup",
    };
    let programs = instead(&stage, name, &format!("exec {real} \"$@\""));
    declared.tools = declared.tools.replace(&real, &programs.join(name).display().to_string());
    declared.configure(&stage);
    let agent = declared.start(&stage, Some(&programs)).await;
    if flavor == Mysql {
        stage.regent(&replica).await.refused(1, "INSTALL PLUGIN clone");
    }
    with_clone(&stage).await;

    stage.secret("token", "another token of some length");
    let refused = stage.regent(&replica).await;
    refused.refused(1, "it refuses the token");
    assert!(!refused.stderr.contains(TOKEN) && !refused.stderr.contains("another token"));
    stage.secret("token", TOKEN);

    let mut faults = vec![
        (format!("{real} \"$@\"; kill -9 $$"), "signal: 9"),
        (format!("{real} \"$@\"; echo 'the disk is gone' >&2; exit 3"), "the disk is gone"),
    ];
    if flavor == Mariadb {
        let version = format!("[ \"$1\" = --version ] && exec {real} --version\n");
        faults.push((format!("{version}{real} \"$@\" 2>/dev/null"), "did not end with"));
        faults.push((format!("{version}exit 0"), "did not end with"));
        for (script, _) in &mut faults[..2] {
            *script = format!("{version}{script}");
        }
    }
    for ((script, said), target) in faults.into_iter().zip(["s3", "local"].into_iter().cycle()) {
        instead(&stage, name, &script);
        let order = [&replica[..], &["--target", target]].concat();
        stage.regent(&order).await.refused(1, said);
        assert!(stage.listed(target).await.is_empty(), "{script}");
        assert_eq!(stage.bucket.everything(), Vec::<String>::new(), "{script}");
        assert_eq!(files_below(&stage.file("folder")), Vec::<String>::new(), "{script}");
        declared.nothing_left().await;
    }
    instead(&stage, name, &format!("exec {real} \"$@\""));
    assert_eq!(stage.regent(&replica).await.code, 0, "{}", agent.said());
    let passwords = ["of-the-backup-account-7713", TOKEN];
    assert!(passwords.iter().all(|secret| !agent.said().contains(secret)));
}

async fn an_agent_that_is_killed_leaves_no_backup(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    let mut declared = Declared::new(&stage);
    let name = if flavor == Mysql { "tar" } else { "mariadb-backup" };
    let real = match flavor {
        Mysql => "/bin/tar".to_owned(),
        Mariadb => stage.program(name).display().to_string(),
    };
    let slow = format!("{real} \"$@\"; [ \"$1\" = --version ] || while :; do sleep 0.1; done");
    let programs = instead(&stage, name, &slow);
    declared.tools = declared.tools.replace(&real, &programs.join(name).display().to_string());
    declared.configure(&stage);
    with_clone(&stage).await;
    let mut agent = declared.start(&stage, Some(&programs)).await;
    let order = ["now", "shop", "--method", "physical"];
    let now = |stage: &Stage| {
        let mut command = stage.command(&order);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };

    // Whoever asks goes away: the agent ends what it began, and keeps nothing.
    let child = now(&stage);
    stage.bucket.until_a_part_came().await;
    stage.regent(&order).await.refused(1, "sending a copy already");
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    let waited = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    ended(&waited.await.unwrap()).refused(1, "stopped on request");
    declared.nothing_left().await;
    assert!(!runs(&programs), "what the agent started goes on");
    assert_eq!(stage.bucket.everything(), Vec::<String>::new());

    // The agent dies: there is no backup, and the next agent cleans up.
    let child = now(&stage);
    stage.bucket.until_a_part_came().await;
    agent.child.kill().unwrap();
    agent.child.wait().unwrap();
    let waited = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    ended(&waited.await.unwrap()).refused(1, "the connection broke off");
    assert_eq!(stage.bucket.everything(), Vec::<String>::new());
    assert!(stage.listed("s3").await.is_empty());
    assert!(declared.left().len() > 1, "there was nothing to clean up: {:?}", declared.left());
    instead(&stage, name, &format!("exec {real} \"$@\""));
    let _agent = declared.start(&stage, Some(&programs)).await;
    assert_eq!(declared.left(), ["agent.lock"]);
    assert_eq!(stage.regent(&order).await.code, 0);
}

async fn a_scheduled_run_takes_a_copy(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    let mut declared = Declared::new(&stage);
    let schedule = "{ name: nightly, cron: '30 2 * * *', target: local }";
    declared.backups = format!("      method: physical\n      schedules: [ {schedule} ]");
    declared.configure(&stage);
    with_clone(&stage).await;
    let agent = declared.start(&stage, None).await;
    let config = Config::load(&stage.file("regent.yaml")).unwrap().config;
    let wish = config.schedules().into_values().flatten().next().unwrap().wish;
    assert_eq!(wish.only, Some([ServerName::from("db2")].into()));
    let end = Maker::of(&config).make(1).await;
    let BackupEnd::Made { backup, .. } = end else { panic!("{end:?}: {}", agent.said()) };
    assert_eq!(stage.listed("local").await, [backup.as_str()]);
    let order = ["show", "shop", backup.as_str(), "--target", "local", "--json"];
    let manifest = stage.regent(&order).await.json();
    assert!(manifest["method"].as_str().unwrap().starts_with("physical_"), "{manifest}");
    assert_eq!(manifest["run"]["schedule"], "nightly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_would_not_fit_is_not_begun() {
    let Some(stage) = Stage::set(Mysql).await else { return };
    let mut declared = Declared::new(&stage);
    let place = stage.file("small");
    let Ok(_volume) = Volume::mount(&stage.file("small.disk"), &place, 24) else {
        eprintln!("skipped: only root mounts file systems");
        return;
    };
    declared.scratch = place;
    declared.configure(&stage);
    with_clone(&stage).await;
    let _agent = declared.start(&stage, None).await;
    let refused = stage.regent(&["now", "shop", "--method", "physical"]).await;
    refused.refused(1, "nothing was begun");
    let begun = asked(&stage.replica, "SELECT STATE FROM performance_schema.clone_status").await;
    assert!(begun.is_empty(), "{begun:?}");
    assert!(stage.bucket.everything().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_travels_encrypted() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    if !certificates(&stage, "right") || !certificates(&stage, "wrong") {
        eprintln!("skipped: there is no openssl to make certificates with");
        return;
    }
    let declared = Declared::new(&stage);
    let secured = |authority: &str| {
        declared.configure(&stage);
        let path = stage.file("regent.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        let files = "certificate: right.pem, key: right.key, tokens: token";
        let section = format!("security: {{ ca: {authority}.ca, {files} }}\n{text}");
        std::fs::write(path, section).unwrap();
    };
    secured("right");
    // The keys of S3 have no business on a server's host.
    std::fs::rename(stage.file("s3"), stage.file("elsewhere")).unwrap();
    let _agent = declared.start(&stage, None).await;
    std::fs::rename(stage.file("elsewhere"), stage.file("s3")).unwrap();
    let now = ["now", "shop", "--method", "physical"];
    let taken = stage.regent(&now).await;
    assert_eq!(taken.code, 0, "{}", taken.stderr);
    assert_eq!(stage.regent(&["verify", "shop", "latest"]).await.code, 0);
    secured("wrong");
    stage.regent(&now).await.refused(1, "nobody can be reached at https://127.0.0.1:");
    declared.configure(&stage);
    stage.regent(&now).await.refused(1, "the agent of db2: ");
    assert_eq!(stage.listed("s3").await.len(), 1);
}

/// Loads what copies MySQL, as an administrator does once.
pub async fn with_clone(stage: &Stage) {
    if stage.flavor == Mysql {
        let mut conn = stage.replica.connect().await.unwrap();
        for statement in [
            "SET GLOBAL super_read_only = OFF",
            "SET SESSION sql_log_bin = 0",
            "INSTALL PLUGIN clone SONAME 'mysql_clone.so'",
            "SET GLOBAL super_read_only = ON",
        ] {
            conn.query_drop(statement).await.unwrap();
        }
    }
}

/// Whether anything runs that was started from that directory.
fn runs(programs: &std::path::Path) -> bool {
    let mark = programs.display().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.map(|entry| entry.path().join("cmdline")).any(|path| {
        let line = std::fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&mark)
    })
}

async fn sum_of(server: &Server, table: &str) -> Vec<(String, u64)> {
    sums(server).await.into_iter().filter(|(name, _)| name == table).collect()
}

async fn count(server: &Server) -> u64 {
    server.query("SELECT COUNT(*) FROM shop.audit WHERE what = 'meanwhile'").await.unwrap().unwrap()
}

/// Somebody who writes all the time.
pub struct Writing {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

pub async fn writes(server: &Server) -> Writing {
    let mut conn = server.connect().await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let statement = "INSERT INTO shop.audit (what) VALUES ('meanwhile')";
    conn.query_drop(statement).await.unwrap();
    let task = tokio::spawn(async move {
        while !stopped.load(Ordering::Relaxed) {
            conn.query_drop(statement).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // Once more, surely after the copy.
        conn.query_drop(statement).await.unwrap();
    });
    Writing { stop, task }
}

impl Writing {
    pub async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}
