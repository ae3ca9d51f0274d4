//! An agent beside the stage's replica.

use crate::stage::{Mariadb, Stage};
use regent::demo::ports::free_ports;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub const TOKEN: &str = "the-token-of-the-agent-4417";

/// An agent beside the replica; it is killed with its value.
pub struct Agent {
    pub child: Child,
    log: PathBuf,
}

/// Where an agent is, and what is said of it in the configuration.
pub struct Declared {
    pub port: u16,
    pub scratch: PathBuf,
    /// Further fields of `backups`.
    pub backups: String,
    /// Further programs.
    pub tools: String,
}

impl Declared {
    pub fn new(stage: &Stage) -> Declared {
        let tools = match stage.flavor {
            Mariadb => format!(
                "mariadb_backup: {}, mbstream: {}, ",
                stage.program("mariadb-backup").display(),
                stage.program("mbstream").display()
            ),
            _ => String::new(),
        };
        let port = free_ports(1)[0];
        Declared { port, scratch: stage.file("scratch"), backups: String::new(), tools }
    }

    /// Writes the configuration with an agent beside the replica.
    pub fn configure(&self, stage: &Stage) {
        stage.configure(&self.backups, &stage.dump());
        stage.secret("token", TOKEN);
        let path = stage.file("regent.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        let replica = format!("address: {}, data_center: here", stage.replica.address());
        let agent = format!(
            "{replica}, agent: {{ address: 127.0.0.1:{}, token_file: token, scratch: {} }}",
            self.port,
            self.scratch.display()
        );
        let with = text
            .replace(&replica, &agent)
            .replace("tools: { ", &format!("tools: {{ {}", self.tools));
        assert_ne!(with, text);
        std::fs::write(path, with).unwrap();
    }

    /// Starts an agent that finds other programs first; returns when it listens.
    pub async fn start(&self, stage: &Stage, programs: Option<&Path>) -> Agent {
        let log = stage.file(&format!("agent-{}.log", self.port));
        let file = std::fs::File::create(&log).unwrap();
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("regent"));
        command.env_remove("RUST_LOG").args(["agent", "--server", "db2", "--config"]);
        command.arg(stage.file("regent.yaml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        if let Some(programs) = programs {
            command.env("REGENT_PROGRAMS", programs);
        }
        let mut agent = Agent { child: command.spawn().unwrap(), log };
        for _ in 0..300 {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return agent;
            }
            assert!(agent.child.try_wait().unwrap().is_none(), "{}", agent.said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the agent does not listen: {}", agent.said());
    }

    /// Waits until nothing is in the scratch directory but the agent's lock.
    pub async fn nothing_left(&self) {
        for _ in 0..200 {
            if self.left() == ["agent.lock"] {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{:?} is left", self.left());
    }

    /// What is in the scratch directory.
    pub fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.scratch).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "lost+found").collect()
    }
}

impl Agent {
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory with a program of that name that does what the script says.
pub fn instead(stage: &Stage, name: &str, script: &str) -> PathBuf {
    let directory = stage.file("instead");
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join(name);
    std::fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// Makes an authority `NAME.ca` and, signed by it, `NAME.pem` with `NAME.key` for this machine's loopback
/// address; false where there is no `openssl`.
pub fn certificates(stage: &Stage, name: &str) -> bool {
    let script = format!(
        "set -e; new='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
        openssl req -x509 $new -keyout {name}.ca.key -out {name}.ca -subj /CN={name}-authority -days 30
        openssl req $new -keyout {name}.key -out {name}.csr -subj /CN={name}
        printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' >{name}.ext
        openssl x509 -req -in {name}.csr -CA {name}.ca -CAkey {name}.ca.key -CAcreateserial \
            -out {name}.pem -days 30 -extfile {name}.ext"
    );
    if Command::new("openssl").arg("version").output().is_err() {
        return false;
    }
    let mut command = Command::new("bash");
    let output = command.args(["-c", &script]).current_dir(stage.place.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}
