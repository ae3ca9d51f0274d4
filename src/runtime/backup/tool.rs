//! The databases' own programs: reading a server's data as SQL, and feeding SQL to a server.

use super::BackupError;
use crate::config::Account;
use crate::config::backups::Tools;
use crate::decision::topology::{Endpoint, Flavor};
use crate::runtime::steps::Programs;
use rustix::process::{Pid, Signal, kill_process};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

/// The end of what a program complains about that is told.
const COMPLAINT: usize = 500;
/// How long a program may take to end after its output did.
const ENDING: Duration = Duration::from_secs(60);

/// The largest row there can be.
const LARGEST_PACKET: &str = "--max-allowed-packet=1073741824";

/// One run of a program.
#[derive(Debug)]
pub(super) struct Tool {
    name: String,
    child: Child,
    complaints: JoinHandle<String>,
}

/// How to reach a server with a program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach<'a> {
    pub flavor: Flavor,
    pub way: Way<'a>,
    pub account: &'a Account,
    pub tools: &'a Tools,
}

/// The way to a server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way<'a> {
    /// Over the network.
    Address(&'a Endpoint),
    /// A socket of this machine.
    Socket(&'a Path),
}

impl Reach<'_> {
    /// Reads these schemas as SQL, at one consistent moment, with that moment's position.
    pub(super) fn dump(&self, schemas: &[String]) -> Command {
        let (name, declared) = match self.flavor {
            Flavor::MySql => ("mysqldump", &self.tools.mysqldump),
            Flavor::MariaDb => ("mariadb-dump", &self.tools.mariadb_dump),
        };
        let mut command = self.program(name, declared);
        command.args(["--single-transaction", "--quick", "--hex-blob"]);
        command.args(["--routines", "--events", "--triggers"]);
        match self.flavor {
            // The position is read under the lock that begins the snapshot.
            Flavor::MySql => {
                command.args(["--source-data=2", "--set-gtid-purged=ON", "--no-tablespaces"])
            }
            Flavor::MariaDb => command.args(["--master-data=2", "--gtid"]),
        };
        command.arg("--databases").arg("--").args(schemas);
        // A group of its own, see `Tool::stand_still`.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        command
    }

    /// How the program that dumps names itself.
    pub(super) async fn version(&self) -> Result<String, BackupError> {
        let mut command = match self.flavor {
            Flavor::MySql => self.program("mysqldump", &self.tools.mysqldump),
            Flavor::MariaDb => self.program("mariadb-dump", &self.tools.mariadb_dump),
        };
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut tool = Tool::start(command)?;
        let mut said = String::new();
        let mut output = tool.output()?.take(COMPLAINT as u64);
        let failed = |what: String| BackupError::Tool { name: tool.name.clone(), what };
        output.read_to_string(&mut said).await.map_err(|error| failed(error.to_string()))?;
        drop(output);
        tool.ended().await?;
        // The path it was started by says nothing on other machines.
        let words = said.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
        Ok(words)
    }

    /// Carries out SQL, and writes none of it to the server's binary log.
    pub(super) fn load(&self) -> Command {
        let (name, declared) = client(self.flavor, self.tools);
        loading(self.program(name, declared))
    }

    /// Turns a binary log into statements.
    pub(super) fn decode(&self) -> Command {
        let (name, declared) = match self.flavor {
            Flavor::MySql => ("mysqlbinlog", &self.tools.mysqlbinlog),
            Flavor::MariaDb => ("mariadb-binlog", &self.tools.mariadb_binlog),
        };
        let found = || Programs::from_environment().find(name);
        let mut command = Command::new(declared.clone().unwrap_or_else(found));
        command.args(["--no-defaults", "--verify-binlog-checksum", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }

    /// Carries out a binary log's statements from there, and writes them to the server's own.
    pub(super) fn carry_out(&self, statements: Stdio) -> Command {
        let (name, declared) = client(self.flavor, self.tools);
        let mut command = self.program(name, declared);
        command.args(["--batch", "--binary-mode", "--skip-reconnect"]);
        command.stdin(statements).stdout(Stdio::null());
        command
    }

    /// A program on its way to the server.
    fn program(&self, name: &str, declared: &Option<PathBuf>) -> Command {
        let mut command = bare(name, declared);
        match self.way {
            Way::Address(address) => command
                .arg("--protocol=TCP")
                .arg(format!("--host={}", address.host))
                .arg(format!("--port={}", address.port)),
            Way::Socket(socket) => {
                command.arg("--protocol=SOCKET").arg(format!("--socket={}", socket.display()))
            }
        };
        command
            .arg(format!("--user={}", self.account.user))
            // Where the machine's other users cannot read it, unlike an argument.
            .env("MYSQL_PWD", self.account.password.reveal());
        command
    }
}

/// As [`Reach::load`], as the root without a password of a server that only a socket leads to.
pub(super) fn load_by_socket(flavor: Flavor, tools: &Tools, socket: &Path) -> Command {
    let (name, declared) = client(flavor, tools);
    let mut command = bare(name, declared);
    command.args(["--protocol=SOCKET", "--user=root"]).env_remove("MYSQL_PWD");
    command.arg(format!("--socket={}", socket.display()));
    loading(command)
}

fn client(flavor: Flavor, tools: &Tools) -> (&'static str, &Option<PathBuf>) {
    match flavor {
        Flavor::MySql => ("mysql", &tools.mysql),
        Flavor::MariaDb => ("mariadb", &tools.mariadb),
    }
}

fn loading(mut command: Command) -> Command {
    // Comments are a part of a routine's body.
    command.args(["--batch", "--binary-mode", "--skip-reconnect", "--comments"]);
    command.arg("--init-command=SET SESSION sql_log_bin = 0");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    command
}

/// A program that reads nobody's option files.
fn bare(name: &str, declared: &Option<PathBuf>) -> Command {
    let found = || Programs::from_environment().find(name);
    let mut command = Command::new(declared.clone().unwrap_or_else(found));
    command
        .arg("--no-defaults")
        .args(["--default-character-set=utf8mb4", LARGEST_PACKET])
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Tool {
    /// Starts it; it is killed with whoever drops it.
    pub(super) fn start(command: Command) -> Result<Tool, BackupError> {
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        Tool::start_as(name, command)
    }

    /// As [`Tool::start`], under another name than that of what is started first.
    pub(super) fn start_as(name: String, mut command: Command) -> Result<Tool, BackupError> {
        let failed = |what: String| BackupError::Tool { name: name.clone(), what };
        let mut child = command
            .spawn()
            .map_err(|error| BackupError::NoTool { name: name.clone(), what: error.to_string() })?;
        let Some(stderr) = child.stderr.take() else {
            return Err(failed("it has no standard error".to_owned()));
        };
        let complaints = tokio::spawn(last_of(stderr));
        Ok(Tool { name, child, complaints })
    }

    /// The program.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Lets it do nothing until [`Tool::go_on`]. Should its maker die meanwhile the system ends it: nobody is
    /// left in its group who could let it go on.
    pub(super) fn stand_still(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it do on.
    pub(super) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            // One that has ended needs no signal.
            let _ = kill_process(pid, signal);
        }
    }

    /// What it prints.
    pub(super) fn output(&mut self) -> Result<ChildStdout, BackupError> {
        let what = "its output cannot be read".to_owned();
        self.child.stdout.take().ok_or(BackupError::Tool { name: self.name.clone(), what })
    }

    /// What it reads.
    pub(super) fn input(&mut self) -> Result<ChildStdin, BackupError> {
        let what = "it reads nothing".to_owned();
        self.child.stdin.take().ok_or(BackupError::Tool { name: self.name.clone(), what })
    }

    /// Waits until it has ended; only status 0 is a success.
    pub(super) async fn ended(self) -> Result<(), BackupError> {
        self.ended_saying().await.map(drop)
    }

    /// As [`Tool::ended`], with the end of what it complained about all the same.
    pub(super) async fn ended_saying(mut self) -> Result<String, BackupError> {
        let failed = |what: String| BackupError::Tool { name: self.name.clone(), what };
        let status = match tokio::time::timeout(ENDING, self.child.wait()).await {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed(format!("it did not end in {} s", ENDING.as_secs()))),
        };
        let said = tokio::time::timeout(ENDING, self.complaints).await;
        let said = said.ok().and_then(Result::ok).unwrap_or_default();
        if status.success() {
            tracing::debug!(program = self.name, "{}", said.trim());
            return Ok(said);
        }
        let what = format!("{status}: {}", said.trim());
        match status.code() {
            Some(_) => Err(failed(what)),
            None => Err(BackupError::ToolKilled { name: self.name.clone(), what }),
        }
    }

    /// For a program that is fed for hours, its end is awaited without a limit: it works on what it was
    /// given last.
    pub(super) async fn finished(self) -> Result<(), BackupError> {
        self.finished_saying().await.map(drop)
    }

    /// As [`Tool::finished`], with the end of what it complained about all the same.
    pub(super) async fn finished_saying(mut self) -> Result<String, BackupError> {
        let _ = self.child.wait().await;
        self.ended_saying().await
    }
}

/// Lets a pipe from a program hold that much, where the system does: one that stays small only costs time.
pub(super) fn widen(pipe: impl AsFd, size: usize) {
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, size);
}

/// Reads everything a program complains about, and keeps the end of it.
async fn last_of(mut stderr: ChildStderr) -> String {
    let (mut kept, mut buffer) = (Vec::new(), vec![0_u8; 4096]);
    loop {
        match stderr.read(&mut buffer).await {
            Ok(0) | Err(_) => return String::from_utf8_lossy(&kept).into_owned(),
            Ok(count) => {
                kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
                let excess = kept.len().saturating_sub(COMPLAINT);
                kept.drain(..excess);
            }
        }
    }
}
