//! Backups beside the same tools piped by hand: how fast, and with how much memory.

use crate::bucket::{ACCESS_KEY, BUCKET, Bucket, SECRET_KEY};
use crate::report::progress;
use anyhow::{Context, Result, bail, ensure};
use mysql_async::prelude::Queryable;
use regent::clock::Clock;
use regent::demo::ports::free_ports;
use regent::demo::process::{Launch, Process};
use regent::demo::servers::accounts::{BACKUP, MONITOR, REPLICATION};
use regent::demo::servers::{DatabaseFlavor, Installation, Server, ServerOptions, ServerSet};
use serde::Serialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::sleep;

/// Between two looks at what a process uses.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of one row: half of it cannot be compressed, half of it almost vanishes.
const ROW: u64 = 1000;
/// Rows that one statement adds.
const ROWS: u64 = 65_536;
const TOKEN: &str = "the-token-of-a-measured-agent";
const LEVEL: u32 = 3;

/// What is read, what is done with it, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Logical,
    /// With rows and checksums of all tables, which nobody counts by hand.
    LogicalCounted,
    Physical,
    PhysicalToS3,
}

impl Way {
    const ALL: [Way; 4] = [Way::Logical, Way::LogicalCounted, Way::Physical, Way::PhysicalToS3];

    fn name(self) -> &'static str {
        match self {
            Way::Logical => "logical",
            Way::LogicalCounted => "logical, tables counted",
            Way::Physical => "physical",
            Way::PhysicalToS3 => "physical, to S3",
        }
    }

    fn is_physical(self) -> bool {
        matches!(self, Way::Physical | Way::PhysicalToS3)
    }

    fn method(self) -> &'static str {
        if self.is_physical() { "physical" } else { "logical" }
    }

    fn target(self) -> &'static str {
        if self == Way::PhysicalToS3 { "s3" } else { "local" }
    }

    /// The configuration that counts nothing, or the one that does.
    fn configuration(self) -> &'static str {
        if self == Way::LogicalCounted { "counting.yaml" } else { "regent.yaml" }
    }
}

/// One way of backing up one flavour.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub flavor: String,
    pub way: &'static str,
    /// Whether more was done than by hand.
    pub counted: bool,
    pub runs: u32,
    /// What was read, and what was stored.
    pub plain_mb: f64,
    pub stored_mb: f64,
    /// Medians, counted by what was read.
    pub by_hand_mb_per_second: f64,
    pub regent_mb_per_second: f64,
    /// Regent's throughput as a share of that by hand.
    pub ratio: f64,
    /// Resident at the highest: of the process that stores, and of the agent.
    pub regent_peak_mb: f64,
    pub agent_peak_mb: Option<f64>,
}

/// How much, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub megabytes: u64,
    pub runs: u32,
}

/// Fills a server of each flavour and backs it up, by hand and with Regent in turn.
pub async fn measure(flavors: &[DatabaseFlavor], load: Load) -> Result<Vec<Measured>> {
    let mut all = Vec::new();
    for flavor in flavors {
        let bench = Bench::set(*flavor, load).await.with_context(|| format!("{flavor}"))?;
        for way in Way::ALL {
            if way == Way::PhysicalToS3 && !has_aws().await {
                progress("nothing by hand to compare S3 with: there is no `aws` here");
                continue;
            }
            let measured = bench.compare(way, load.runs).await;
            all.push(measured.with_context(|| format!("{flavor}, {}", way.name()))?);
        }
    }
    Ok(all)
}

/// A filled server with an agent beside it.
struct Bench {
    flavor: DatabaseFlavor,
    server: Server,
    installation: Installation,
    agent: Process,
    bucket: Bucket,
    place: tempfile::TempDir,
}

/// Whether the AWS command line can be called.
async fn has_aws() -> bool {
    let asked = Command::new("aws").arg("--version").output().await;
    asked.is_ok_and(|output| output.status.success())
}

impl Bench {
    async fn set(flavor: DatabaseFlavor, load: Load) -> Result<Bench> {
        let installation = Installation::find(flavor)?;
        let place = tempfile::tempdir()?;
        let set = ServerSet::new(place.path().join("servers"), installation.clone())?;
        let ports = free_ports(2);
        let (port, agent_port) = (ports[0], ports[1]);
        let log = match flavor {
            DatabaseFlavor::Mysql => "--innodb-redo-log-capacity=512M",
            DatabaseFlavor::Mariadb => "--innodb-log-file-size=512M",
        };
        let extra = vec!["--innodb-buffer-pool-size=256M".to_owned(), log.to_owned()];
        let options = ServerOptions { read_only: false, extra, ..ServerOptions::default() };
        progress(&format!("{flavor}: starting a server, {} MB of data", load.megabytes));
        let server = set.start("db1", port, options).await?;
        if flavor == DatabaseFlavor::Mysql {
            let mut conn = server.connect().await?;
            conn.query_drop("INSTALL PLUGIN clone SONAME 'mysql_clone.so'").await?;
        }
        fill(&server, load.megabytes).await?;
        for (name, text) in [
            ("monitor", MONITOR.password),
            ("replication", REPLICATION.password),
            ("backup", BACKUP.password),
            ("token", TOKEN),
            ("secret", SECRET_KEY),
        ] {
            std::fs::write(place.path().join(name), text)?;
        }
        let bucket = Bucket::serve(&place.path().join("bucket")).await?;
        let ground = Ground { server: &server, installation: &installation, agent_port };
        for (way, checksums) in [(Way::LogicalCounted, "on"), (Way::Logical, "off")] {
            let config = ground.configuration(&bucket, checksums, place.path());
            std::fs::write(place.path().join(way.configuration()), config)?;
        }
        let agent = Process::start(Launch {
            program: env!("CARGO_BIN_EXE_regent").into(),
            arguments: vec![
                "agent".into(),
                "--server".into(),
                "db1".into(),
                "--config".into(),
                place.path().join("regent.yaml").into(),
            ],
            log: place.path().join("agent.log"),
            ..Launch::default()
        })?;
        let knock = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", agent_port)).await.is_err() {
                sleep(LOOK).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), knock).await.context("no agent")?;
        Ok(Bench { flavor, server, installation, agent, bucket, place })
    }

    async fn compare(&self, way: Way, runs: u32) -> Result<Measured> {
        // What was never read comes from the disk; the first one pays for that, and does not count.
        self.by_hand(way).await?;
        let (mut by_hand, mut regent, mut peak) = (Vec::new(), Vec::new(), 0.0_f64);
        let mut manifest = Value::Null;
        for run in 1..=runs {
            by_hand.push(self.by_hand(way).await?);
            let (seconds, used, said) = self.regent(way).await?;
            regent.push(seconds);
            peak = peak.max(used);
            manifest = said;
            progress(&format!(
                "{}, {}, run {run}: {:.1} s by hand, {seconds:.1} s",
                self.flavor,
                way.name(),
                by_hand.last().copied().unwrap_or_default()
            ));
        }
        let bytes =
            |field: &str| manifest[field].as_f64().context("no such field").map(|it| it / 1e6);
        let plain_mb = bytes("plain_bytes")?;
        let rate = |seconds: Vec<f64>| {
            let median = crate::figures::Samples::new(seconds).median().unwrap_or(f64::NAN);
            plain_mb / median
        };
        let (hand, own) = (rate(by_hand), rate(regent));
        let agent_peak_mb = match way.is_physical() {
            true => Some(peak_of(self.agent.id()).context("the agent is gone")?),
            false => None,
        };
        Ok(Measured {
            flavor: self.flavor.to_string(),
            way: way.name(),
            counted: way == Way::LogicalCounted,
            runs,
            plain_mb,
            stored_mb: bytes("bytes")?,
            by_hand_mb_per_second: hand,
            regent_mb_per_second: own,
            ratio: own / hand,
            regent_peak_mb: peak,
            agent_peak_mb,
        })
    }

    /// As somebody would who has the tools and a shell; a file is on the disk in the end, as Regent's is.
    async fn by_hand(&self, way: Way) -> Result<f64> {
        let (program, place) = (|name: &str| self.installation.program(name), self.place.path());
        let out = place.join("by-hand");
        let reach = format!(
            "--host=127.0.0.1 --port={} --user={} --protocol=tcp",
            self.server.port(),
            BACKUP.user
        );
        let client = |name: &str, rest: &str| {
            format!("{} --no-defaults {reach} {rest}", program(name).display())
        };
        let dump = "--single-transaction --quick --hex-blob --routines --events --triggers \
                    --default-character-set=utf8mb4 --databases shop";
        let source = match (self.flavor, way.method()) {
            (DatabaseFlavor::Mysql, "logical") => {
                client("mysqldump", &format!("--source-data=2 --set-gtid-purged=ON {dump}"))
            }
            (DatabaseFlavor::Mariadb, "logical") => {
                client("mariadb-dump", &format!("--master-data=2 --gtid {dump}"))
            }
            (DatabaseFlavor::Mysql, _) => {
                let to = place.join("cloned").display().to_string();
                let clone = format!("-e \"CLONE LOCAL DATA DIRECTORY = '{to}'\"");
                let clone = client("mysql", &clone);
                format!("{clone} && tar --create --file=- --directory={to} .")
            }
            (DatabaseFlavor::Mariadb, _) => {
                let backup = program("mariadb-backup").display().to_string();
                let to = place.join("work").display().to_string();
                let password = format!("--password={}", BACKUP.password);
                format!(
                    "{backup} --no-defaults --backup --stream=xbstream {reach} {password} \
                     --target-dir={to}"
                )
            }
        };
        let script = format!("set -o pipefail; {{ {source}; }} | {}", self.stored_by_hand(way));
        let clock = Clock::start();
        let begun = clock.now().moment;
        let output = Command::new("bash")
            .args(["-c", &script])
            .env("MYSQL_PWD", BACKUP.password)
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .stdin(Stdio::null())
            .output()
            .await?;
        let seconds = clock.now().moment.since(begun).as_secs_f64();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let said = said.lines().last().unwrap_or_default();
        ensure!(output.status.success(), "by hand: {said}");
        for left in ["cloned", "work"] {
            let _ = std::fs::remove_dir_all(place.join(left));
        }
        match way {
            Way::PhysicalToS3 => self.empty_bucket()?,
            _ => std::fs::remove_file(out)?,
        }
        Ok(seconds)
    }

    /// Where a stream goes.
    fn stored_by_hand(&self, way: Way) -> String {
        let file = self.place.path().join("by-hand").display().to_string();
        let to = match way {
            Way::PhysicalToS3 => format!(
                "aws --endpoint-url {} s3 cp - s3://{BUCKET}/by-hand --expected-size 2000000000",
                self.bucket.endpoint()
            ),
            _ => format!("cat > {file} && sync {file}"),
        };
        format!("zstd -q -{LEVEL} -c | {to}")
    }

    /// Seconds, the peak of its memory, and the manifest.
    async fn regent(&self, way: Way) -> Result<(f64, f64, Value)> {
        let clock = Clock::start();
        let begun = clock.now().moment;
        let mut child = Command::new(env!("CARGO_BIN_EXE_regent"))
            .args(["backup", "now", "shop", "--server", "db1", "--json"])
            .args(["--method", way.method(), "--target", way.target(), "--config"])
            .arg(self.place.path().join(way.configuration()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let peak = peak_until_it_ends(&mut child).await?;
        let seconds = clock.now().moment.since(begun).as_secs_f64();
        let output = child.wait_with_output().await?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        match way {
            Way::PhysicalToS3 => self.empty_bucket()?,
            _ => std::fs::remove_dir_all(self.place.path().join("folder"))?,
        }
        Ok((seconds, peak, serde_json::from_slice(&output.stdout)?))
    }
}

impl Bench {
    fn empty_bucket(&self) -> Result<()> {
        let root = self.place.path().join("bucket");
        std::fs::remove_dir_all(&root)?;
        Ok(std::fs::create_dir_all(root.join(BUCKET))?)
    }
}

async fn peak_until_it_ends(child: &mut Child) -> Result<f64> {
    let mut peak = 0.0_f64;
    while child.try_wait()?.is_none() {
        if let Some(used) = child.id().and_then(peak_of) {
            peak = peak.max(used);
        }
        sleep(LOOK).await;
    }
    Ok(peak)
}

/// What a process used at its highest, in MB; none when it is gone.
fn peak_of(process: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes / 1024.0)
}

/// Fills a table.
pub async fn fill(server: &Server, megabytes: u64) -> Result<()> {
    let mut conn = server.connect().await?;
    let mut statements = vec![
        "CREATE DATABASE IF NOT EXISTS shop".to_owned(),
        "CREATE TABLE shop.load_ (id INT AUTO_INCREMENT PRIMARY KEY, noise VARBINARY(500), \
         text VARCHAR(500))"
            .to_owned(),
        "CREATE TABLE shop.seed (id INT AUTO_INCREMENT PRIMARY KEY)".to_owned(),
        "INSERT INTO shop.seed VALUES (NULL)".to_owned(),
    ];
    for _ in 0..ROWS.ilog2() {
        statements.push("INSERT INTO shop.seed SELECT NULL FROM shop.seed".to_owned());
    }
    for statement in statements {
        conn.query_drop(statement).await?;
    }
    let mut left = megabytes * 1_000_000 / ROW;
    while left > 0 {
        let rows = left.min(ROWS);
        let statement = format!(
            "INSERT INTO shop.load_ (noise, text) \
             SELECT RANDOM_BYTES({half}), REPEAT('the shop ', {half} DIV 9) FROM shop.seed LIMIT {rows}",
            half = ROW / 2
        );
        conn.query_drop(statement).await?;
        left -= rows;
    }
    conn.query_drop("CREATE TABLE shop.last (id INT PRIMARY KEY)").await?;
    Ok(())
}

/// The dump and copy programs, as the configuration names them.
pub fn tools(flavor: DatabaseFlavor, installation: &Installation) -> String {
    let tool = |field: &str, name: &str| -> String {
        let path: PathBuf = installation.program(name);
        format!("{field}: {}", path.display())
    };
    match flavor {
        DatabaseFlavor::Mysql => {
            [tool("mysqldump", "mysqldump"), tool("mysql", "mysql")].join(", ")
        }
        DatabaseFlavor::Mariadb => [
            tool("mariadb_dump", "mariadb-dump"),
            tool("mariadb", "mariadb"),
            tool("mariadb_backup", "mariadb-backup"),
            tool("mbstream", "mbstream"),
        ]
        .join(", "),
    }
}

/// What is backed up, and by whom.
struct Ground<'a> {
    server: &'a Server,
    installation: &'a Installation,
    agent_port: u16,
}

impl Ground<'_> {
    fn configuration(&self, bucket: &Bucket, checksums: &str, place: &Path) -> String {
        format!(
            "watchers:
  - {{ id: one, data_center: here, peer: 127.0.0.1:7401, api: 127.0.0.1:7400 }}
clusters:
  - name: shop
    servers:
      - name: db1
        address: {address}
        data_center: here
        agent: {{ address: 127.0.0.1:{agent_port}, token_file: token, scratch: {scratch} }}
    credentials:
      monitor: {{ user: {monitor}, password_file: monitor }}
      replication: {{ user: {replication}, password_file: replication }}
    backups:
      targets:
        - {{ name: local, folder: folder }}
        - name: s3
          s3: {{ bucket: {BUCKET}, endpoint: '{endpoint}', region: us-east-1,
                access_key: {ACCESS_KEY}, secret_key_file: secret }}
      compression: {LEVEL}
      checksums: {checksums}
      account: {{ user: {backup}, password_file: backup }}
      tools: {{ {tools} }}
",
            address = self.server.address(),
            agent_port = self.agent_port,
            scratch = place.join("scratch").display(),
            monitor = MONITOR.user,
            replication = REPLICATION.user,
            endpoint = bucket.endpoint(),
            backup = BACKUP.user,
            tools = tools(self.server.flavor(), self.installation),
        )
    }
}
