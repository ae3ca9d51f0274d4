//! Backups that stand still while their cluster cannot be written to.

use crate::scheduled::Maker;
use crate::stage::{Mariadb, Mysql, Stage, asked, ended, sums};
use regent::config::Config;
use regent::demo::servers::DatabaseFlavor;
use regent::watcher::BackupEnd;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{sleep, timeout};

both! { reading_and_counting_stand_still_and_lose_nothing }

/// Makes a table that takes long to count: a value that is reckoned for each row, or, where `CHECKSUM TABLE`
/// leaves such values out, many rows.
fn slow(flavor: DatabaseFlavor) -> [&'static str; 2] {
    match flavor {
        Mysql => [
            "CREATE TABLE shop.slow (id INT PRIMARY KEY, \
             sum CHAR(128) AS (SHA2(REPEAT(id, 200000), 512)) VIRTUAL)",
            "INSERT INTO shop.slow (id) SELECT id FROM shop.noise ORDER BY id LIMIT 1500",
        ],
        Mariadb => [
            "CREATE TABLE shop.slow (id INT PRIMARY KEY)",
            "INSERT INTO shop.slow SELECT seq FROM shop.seq_1_to_1000000",
        ],
    }
}

async fn reading_and_counting_stand_still_and_lose_nothing(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    for statement in slow(flavor) {
        stage.primary.execute(statement).await.unwrap();
    }
    stage.replica.wait_for("SELECT COUNT(*) FROM shop.slow", 1500).await.unwrap();
    let schedule = "      schedules: [ { name: nightly, cron: '30 2 * * *' } ]\n";
    stage.configure(schedule, &stage.dump());
    let config = Config::load(&stage.file("regent.yaml")).unwrap().config;
    let mut maker = Maker::of(&config);

    maker.begin(1);
    until_counting(&stage, true).await;
    maker.make_way(true);
    until_counting(&stage, false).await;
    assert!(timeout(Duration::from_secs(2), maker.ended()).await.is_err(), "it went on");
    until_counting(&stage, false).await;
    maker.make_way(false);
    let end = maker.ended().await;
    let BackupEnd::Made { backup, .. } = end else { panic!("{end:?}") };
    let shown = stage.regent(&["show", "shop", backup.as_str(), "--json"]).await.json();
    let tables = &shown["tables"];
    let counted: Vec<_> = tables["sums"].as_array().unwrap().iter().map(sum_of).collect();
    for sum in sums(&stage.replica).await {
        assert!(counted.contains(&sum), "{sum:?}: {tables}");
    }
    assert!(tables.get("left_out").is_none() && tables.get("missing").is_none(), "{tables}");
}

fn sum_of(sum: &serde_json::Value) -> (String, u64) {
    (sum["table"].as_str().unwrap().to_owned(), sum["checksum"].as_u64().unwrap())
}

/// Waits until the table is being counted, or is not.
async fn until_counting(stage: &Stage, wanted: bool) {
    let question = "SELECT INFO FROM information_schema.PROCESSLIST \
                    WHERE INFO LIKE 'CHECKSUM TABLE%slow%'";
    let look = async {
        while asked(&stage.replica, question).await.is_empty() == wanted {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let seen = timeout(Duration::from_secs(30), look).await;
    assert!(seen.is_ok(), "counted: {}", !wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_by_hand_goes_on_when_a_watcher_says_so() {
    a_backup_by_hand_goes_on(Then::Opens).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_by_hand_goes_on_when_no_watcher_says_anything_more() {
    a_backup_by_hand_goes_on(Then::Leaves).await;
}

async fn a_backup_by_hand_goes_on(then: Then) {
    let Some(stage) = Stage::set(Mysql).await else { return };
    stage.configure("", &stage.dump());
    let watcher = Arc::new(Mutex::new(Then::Waits));
    let api = listen(Arc::clone(&watcher));
    let mut command = stage.command(&["now", "shop", "--target", "local", "--api", &api]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Whatever the watcher said until then, some of it was read.
    sleep(Duration::from_secs(5)).await;
    assert!(child.try_wait().unwrap().is_none(), "it did not stand still");
    *watcher.lock().unwrap() = then;
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let said = timeout(Duration::from_secs(12), output).await.expect("it goes on").unwrap();
    let said = ended(&said);
    assert_eq!(said.code, 0, "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stands_still_for_ever_when_its_maker_is_killed() {
    let Some(stage) = Stage::set(Mysql).await else { return };
    stage.configure("", &stage.dump());
    let api = listen(Arc::new(Mutex::new(Then::Waits)));
    let mut command = stage.command(&["now", "shop", "--target", "local", "--api", &api]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let maker = child.id();
    let stands_still = async {
        loop {
            let mut stopped = processes().into_iter().filter(|it| it.state == 'T');
            match stopped.find(|it| it.parent == maker) {
                Some(found) => break found.pid,
                None => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let dump = timeout(Duration::from_secs(20), stands_still).await.expect("the dump stands still");
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = async {
        while processes().iter().any(|it| it.pid == dump && it.state != 'Z') {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), gone).await.expect("the dump ends with its maker");
}

struct Process {
    pid: u32,
    state: char,
    parent: u32,
}

/// All processes, as `proc(5)` tells of them.
fn processes() -> Vec<Process> {
    let stats = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = stats.filter_map(|it| std::fs::read_to_string(it.path().join("stat")).ok());
    let read = |stat: String| {
        // A program's name, in parentheses, may hold anything.
        let (pid, rest) = stat.split_once(' ')?;
        let mut fields = rest.rsplit_once(") ")?.1.split(' ');
        let (state, parent) = (fields.next()?.chars().next()?, fields.next()?);
        Some(Process { pid: pid.parse().ok()?, state, parent: parent.parse().ok()? })
    };
    stats.filter_map(read).collect()
}

/// What a watcher does that has said that its cluster has no open route.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// It has nothing to add.
    Waits,
    /// It says that there is one again.
    Opens,
    /// It hangs up, and answers nobody any more.
    Leaves,
}

/// Answers as a watcher does.
fn listen(then: Arc<Mutex<Then>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let then = Arc::clone(&then);
            std::thread::spawn(move || answer(&stream, &then));
        }
    });
    format!("http://{address}")
}

fn answer(stream: &TcpStream, then: &Mutex<Then>) {
    let now = || *then.lock().unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while let Some(first) = lines.next() {
        lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
        let asked = |known: bool| {
            first.starts_with(&format!("GET /v1/clusters/shop/urgent?wait=30&unless={known} "))
        };
        assert!(asked(true) || asked(false), "{first}");
        while asked(true) && now() == Then::Waits {
            std::thread::sleep(Duration::from_millis(20));
        }
        while asked(false) && now() != Then::Waits {
            std::thread::sleep(Duration::from_millis(20));
        }
        if now() == Then::Leaves {
            return;
        }
        let body = format!(r#"{{"urgent":{}}}"#, now() == Then::Waits);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = stream;
        if stream.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}
