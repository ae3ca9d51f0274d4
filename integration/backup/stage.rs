//! A primary, its replica and an empty server, a configuration that names them, and the command.

use crate::bucket::{ACCESS_KEY, BUCKET, Bucket, SECRET_KEY};
use mysql_async::prelude::Queryable;
use regent::demo::ports::free_ports;
use regent::demo::servers::accounts::{BACKUP, MONITOR, REPLICATION, ROOT};
use regent::demo::servers::{DatabaseFlavor, Installation, Server, ServerOptions, ServerSet};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub use DatabaseFlavor::{Mariadb, Mysql};

pub struct Stage {
    pub flavor: DatabaseFlavor,
    pub primary: Server,
    pub replica: Server,
    pub empty: Server,
    pub bucket: Bucket,
    pub place: tempfile::TempDir,
    programs: PathBuf,
    /// The database's server program.
    pub server: PathBuf,
}

/// How a command ended.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// It failed, and says so with this.
    pub fn refused(&self, code: i32, text: &str) {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(text), "{:?} lacks {text:?}", self.stderr);
    }
}

impl Stage {
    /// None where the flavour is not installed.
    pub async fn set(flavor: DatabaseFlavor) -> Option<Stage> {
        let installation = match Installation::find(flavor) {
            Ok(installation) => installation,
            Err(error) => {
                let required =
                    std::env::var_os("REGENT_REQUIRE_SERVERS").is_some_and(|it| it == "1");
                assert!(!required, "{error}");
                eprintln!("skipped: {error}");
                return None;
            }
        };
        let place = tempfile::tempdir().unwrap();
        let (programs, server) = (installation.program(""), installation.server().to_owned());
        let set = ServerSet::new(place.path().join("servers"), installation).unwrap();
        let mut servers = Vec::new();
        for (number, port) in free_ports(3).into_iter().enumerate() {
            let name = format!("db{}", number + 1);
            servers.push(set.start(&name, port, ServerOptions::default()).await.unwrap());
        }
        let [primary, replica, empty] = <[Server; 3]>::try_from(servers).unwrap();
        set.replicate(&primary, &[&replica]).await.unwrap();
        let bucket = Bucket::start(&place.path().join("store")).await;
        let stage = Stage { flavor, primary, replica, empty, bucket, place, programs, server };
        stage.fill().await;
        stage.secret("monitor", MONITOR.password);
        stage.secret("replication", REPLICATION.password);
        stage.secret("root", ROOT.password);
        stage.secret("backup", BACKUP.password);
        stage.secret("s3", SECRET_KEY);
        Some(stage)
    }

    /// Everything a dump could forget.
    async fn fill(&self) {
        let mut conn = self.primary.connect().await.unwrap();
        for statement in SCHEMA {
            conn.query_drop(*statement).await.unwrap();
        }
        // Bytes that cannot be compressed, so that there are several parts.
        conn.query_drop("INSERT INTO shop.noise (bytes) VALUES (RANDOM_BYTES(1000))")
            .await
            .unwrap();
        for _ in 0..13 {
            let double = "INSERT INTO shop.noise (bytes) SELECT RANDOM_BYTES(1000) FROM shop.noise";
            conn.query_drop(double).await.unwrap();
        }
        conn.query_drop("CREATE TABLE shop.last (id INT PRIMARY KEY)").await.unwrap();
        self.replica.wait_for("SELECT COUNT(*) FROM shop.last", 0).await.unwrap();
    }

    pub fn secret(&self, name: &str, text: &str) {
        let path = self.file(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Writes a configuration; `backups` are further fields of that section.
    pub fn configure(&self, backups: &str, dump: &Path) {
        let keys = format!("access_key: {ACCESS_KEY}, secret_key_file: s3");
        self.configure_s3(&keys, backups, dump);
    }

    /// The same with other fields of the S3 target: who asks, and how.
    pub fn configure_s3(&self, s3: &str, backups: &str, dump: &Path) {
        let (db1, db2) = (self.primary.address(), self.replica.address());
        let endpoint = self.bucket.endpoint();
        let (client, dump_name, decoder, decoder_name) = match self.flavor {
            Mysql => ("mysql", "mysqldump", "mysqlbinlog", "mysqlbinlog"),
            Mariadb => ("mariadb", "mariadb_dump", "mariadb-binlog", "mariadb_binlog"),
        };
        let (client_path, decoder_path) = (self.programs.join(client), self.programs.join(decoder));
        let text = format!(
            "watchers:
  - {{ id: one, data_center: here, peer: 127.0.0.1:7401, api: 127.0.0.1:7400 }}
clusters:
  - name: shop
    servers:
      - {{ name: db1, address: {db1}, data_center: here }}
      - {{ name: db2, address: {db2}, data_center: here }}
    credentials:
      monitor: {{ user: {}, password_file: monitor }}
      replication: {{ user: {}, password_file: replication }}
    backups:
      targets:
        - name: s3
          s3: {{ bucket: {BUCKET}, prefix: regent, endpoint: '{endpoint}', {s3} }}
        - {{ name: local, folder: folder }}
      account: {{ user: backup, password_file: backup }}
      part_size: 5MiB
      compression: 1
      tools: {{ {dump_name}: {}, {client}: {}, {decoder_name}: {} }}
{backups}",
            MONITOR.user,
            REPLICATION.user,
            dump.display(),
            client_path.display(),
            decoder_path.display(),
        );
        std::fs::write(self.file("regent.yaml"), text).unwrap();
    }

    /// One of the flavour's programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// The flavour's own dump program.
    pub fn dump(&self) -> PathBuf {
        self.programs.join(match self.flavor {
            Mysql => "mysqldump",
            Mariadb => "mariadb-dump",
        })
    }

    /// A dump program that does what the script says; `$dump` is the real one with all its arguments.
    pub fn faulty_dump(&self, script: &str) -> PathBuf {
        let real = self.dump();
        let path = self.file("faulty-dump");
        let text = format!(
            "#!/bin/bash\ndump=('{0}' \"$@\")\ncase \"$*\" in *--version*) exec \"${{dump[@]}}\" ;; \
             esac\n{script}\n",
            real.display()
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A dump program that waits in the middle until the file `go` is there, and makes the file `dumped`
    /// when all of it was taken from it.
    pub fn halved_dump(&self) -> PathBuf {
        let [whole, go, dumped] = ["whole", "go", "dumped"].map(|name| self.file(name));
        let script = format!(
            "\"${{dump[@]}}\" > {0}; head -c 12000000 {0}; while [ ! -e {1} ]; do sleep 0.05; done; \
             tail -c +12000001 {0}; echo > {2}",
            whole.display(),
            go.display(),
            dumped.display()
        );
        self.faulty_dump(&script)
    }

    /// Twice the bytes that cannot be compressed, so many times.
    pub async fn fill_more(&self, times: u32) {
        let double = "INSERT INTO shop.noise (bytes) SELECT RANDOM_BYTES(1000) FROM shop.noise";
        for _ in 0..times {
            self.primary.execute(double).await.unwrap();
        }
        self.primary.execute("CREATE TABLE shop.more (id INT PRIMARY KEY)").await.unwrap();
        self.replica.wait_for("SELECT COUNT(*) FROM shop.more", 0).await.unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("regent"));
        command.env_remove("REGENT_API").env_remove("RUST_LOG").arg("backup").args(arguments);
        command.arg("--config").arg(self.file("regent.yaml"));
        command
    }

    pub async fn regent(&self, arguments: &[&str]) -> Ended {
        let mut command = self.command(arguments);
        let run = move || command.output().unwrap();
        ended(&tokio::task::spawn_blocking(run).await.unwrap())
    }

    /// As [`Stage::regent`], with paths that start from the stage's directory.
    pub async fn in_place(&self, arguments: &[&str]) -> Ended {
        let mut command = self.command(arguments);
        command.current_dir(self.place.path());
        let run = move || command.output().unwrap();
        ended(&tokio::task::spawn_blocking(run).await.unwrap())
    }

    /// Feeds a file to a server with the database's own client.
    pub async fn client(&self, server: &Server, sql: &Path) -> Ended {
        let mut command = Command::new(self.programs.join(match self.flavor {
            Mysql => "mysql",
            Mariadb => "mariadb",
        }));
        let address = server.address();
        command
            .arg("--no-defaults")
            .arg(format!("--host={}", address.ip()))
            .arg(format!("--port={}", address.port()))
            .arg(format!("--user={}", ROOT.user))
            .env("MYSQL_PWD", ROOT.password)
            .stdin(std::fs::File::open(sql).unwrap());
        let run = move || command.output().unwrap();
        ended(&tokio::task::spawn_blocking(run).await.unwrap())
    }

    /// The ids that a target lists.
    pub async fn listed(&self, target: &str) -> Vec<String> {
        let catalogs = self.regent(&["list", "--json", "--target", target]).await.json();
        let backups = catalogs[0]["backups"].as_array().unwrap();
        backups.iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
    }
}

pub fn ended(output: &Output) -> Ended {
    Ended {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout.clone()).unwrap(),
        stderr: String::from_utf8(output.stderr.clone()).unwrap(),
    }
}

/// The sum of every table of the shop.
pub async fn sums(server: &Server) -> Vec<(String, u64)> {
    let mut conn = server.connect().await.unwrap();
    let tables: Vec<String> = conn
        .query(
            "SELECT TABLE_NAME FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA = 'shop' AND TABLE_TYPE = 'BASE TABLE' ORDER BY 1",
        )
        .await
        .unwrap();
    let mut sums = Vec::new();
    for table in tables {
        let question = format!("CHECKSUM TABLE shop.{table}");
        let sum: Option<(String, Option<u64>)> = conn.query_first(question).await.unwrap();
        sums.push((table, sum.unwrap().1.unwrap()));
    }
    sums
}

/// All answers to a question.
pub async fn asked(server: &Server, question: &str) -> Vec<String> {
    server.connect().await.unwrap().query(question).await.unwrap()
}

const SCHEMA: &[&str] = &[
    "CREATE TABLE shop.lines_ (id INT AUTO_INCREMENT PRIMARY KEY, client INT UNSIGNED NOT NULL, \
     note TEXT CHARACTER SET utf8mb4, raw VARBINARY(200), twice INT AS (client * 2) STORED)",
    "CREATE TABLE shop.noise (id INT AUTO_INCREMENT PRIMARY KEY, bytes VARBINARY(1000))",
    "CREATE TABLE shop.audit (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(50))",
    "CREATE VIEW shop.many AS SELECT client FROM shop.lines_ WHERE twice > 3",
    "CREATE TRIGGER shop.noted AFTER INSERT ON shop.lines_ FOR EACH ROW \
     INSERT INTO shop.audit (what) VALUES (CONCAT('line of ', NEW.client))",
    "CREATE FUNCTION shop.twice (n INT) RETURNS INT DETERMINISTIC RETURN n * 2",
    "CREATE EVENT shop.tidy ON SCHEDULE EVERY 1 DAY DO DELETE FROM shop.audit WHERE id < 0",
    "INSERT INTO shop.lines_ (client, note, raw) VALUES (1, 'h\u{e9} \u{2603}', x'00ff27225c0a'), \
     (2, 'it''s; -- x', NULL), (3, NULL, '')",
    "CREATE ROLE reader",
    "GRANT SELECT ON shop.* TO reader",
    "CREATE USER 'app'@'10.%' IDENTIFIED BY 'app-secret'",
    "GRANT reader TO 'app'@'10.%'",
    "GRANT INSERT ON shop.lines_ TO 'app'@'10.%'",
];
