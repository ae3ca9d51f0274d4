//! Copying a server's files: which way, and with a program that streams them.

use super::cloning;
use super::frames::{self, FORMAT, Head};
use super::scratch::{Scratch, options_file, told_in};
use super::sending::Sending;
use crate::config::Account;
use crate::config::backups::Tools;
use crate::decision::backup::manifest::Method;
use crate::decision::gtid::Gtids;
use crate::decision::topology::{Flavor, ServerSpec};
use crate::runtime::backup::BackupError;
use crate::runtime::backup::taking::CONNECT_LIMIT;
use crate::runtime::backup::tool::Tool;
use crate::runtime::mysql::connect::connect;
use crate::runtime::mysql::distance::Distance;
use crate::runtime::steps::Programs;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// The most that a program says of its version.
const MOST_VERSION: u64 = 4096;
/// What ties a program to whoever starts it.
const SETPRIV: [&str; 2] = ["/usr/bin/setpriv", "/bin/setpriv"];
/// Both programs end with this when the copy is whole.
const WHOLE: &str = "completed OK!";
/// What they write about their copy; the older name is the second one.
const TOLD: [&str; 2] = ["mariadb_backup_info", "xtrabackup_info"];

/// The server that an agent stands beside, and what it copies it with.
#[derive(Debug)]
pub(super) struct Beside {
    pub server: ServerSpec,
    pub account: Account,
    pub tools: Tools,
    pub scratch: Scratch,
}

/// What a copy holds.
#[derive(Clone, Debug)]
pub(super) struct Copied {
    /// Every transaction that is in it.
    pub position: Gtids,
    /// Where that is not known exactly: nothing is in it beside these.
    pub at_most: Option<Gtids>,
}

impl Beside {
    pub(super) async fn connect(&self) -> Result<Conn, BackupError> {
        let (address, server) = (&self.server.address, self.server.name.to_string());
        connect(address, &self.account, CONNECT_LIMIT, &Distance::default())
            .await
            .map_err(|error| BackupError::Connect { server, error })
    }

    pub(super) fn refused(&self, error: impl ToString) -> BackupError {
        BackupError::server(&self.server.name, error)
    }

    /// How this server's files are copied, and what does it.
    pub(super) async fn method(&self, conn: &mut Conn) -> Result<(Method, String), BackupError> {
        let version: Option<String> =
            conn.query_first("SELECT VERSION()").await.map_err(|error| self.refused(error))?;
        let version = version.unwrap_or_default();
        let method = match (version.contains("MariaDB"), &self.tools.xtrabackup) {
            (true, _) => Method::PhysicalMariadbBackup,
            (false, Some(_)) => Method::PhysicalXtrabackup,
            (false, None) => return Ok((Method::PhysicalClone, format!("CLONE of {version}"))),
        };
        Ok((method, version_of(self.program(method)).await?))
    }

    fn program(&self, method: Method) -> Program {
        let (name, declared) = match method {
            Method::PhysicalXtrabackup => ("xtrabackup", &self.tools.xtrabackup),
            _ => ("mariadb-backup", &self.tools.mariadb_backup),
        };
        Program::new(name, declared)
    }

    /// Sends a copy; says what it holds.
    pub(super) async fn copy(&self, sending: &mut Sending) -> Result<Copied, BackupError> {
        let mut conn = self.connect().await?;
        let (method, tool) = self.method(&mut conn).await?;
        sending.send(frames::head(&Head { format: FORMAT, method, tool })).await?;
        match method {
            Method::PhysicalClone => cloning::copy(self, conn, sending).await,
            _ => {
                drop(conn);
                let position = self.stream(method, sending).await?;
                Ok(Copied { position, at_most: None })
            }
        }
    }

    /// Passes on what a program streams, and takes nothing for a copy that it does not call whole.
    async fn stream(&self, method: Method, sending: &mut Sending) -> Result<Gtids, BackupError> {
        let (group, flavor) = match method {
            Method::PhysicalXtrabackup => ("xtrabackup", Flavor::MySql),
            _ => ("mariadb-backup", Flavor::MariaDb),
        };
        let in_scratch = |error| BackupError::io(self.scratch.root().display().to_string())(error);
        let place = self.scratch.tool_place().map_err(in_scratch)?;
        let options = options_file(&place, group, &self.account)?;
        let mut program = self.program(method);
        program
            .command
            .arg(format!("--defaults-file={}", options.display()))
            .args(["--backup", "--stream=xbstream"])
            .args(over_tcp(method, &self.server.address.host))
            .arg(format!("--port={}", self.server.address.port))
            .arg(format!("--user={}", self.account.user))
            .arg(format!("--target-dir={}", place.display()))
            .arg(format!("--extra-lsndir={}", place.display()));
        let mut tool = program.start()?;
        let name = tool.name().to_owned();
        let failed = |what: String| BackupError::Tool { name: name.clone(), what };
        let passed = sending.pass_on(tool.output()?).await;
        let said = tool.ended_saying().await?;
        passed?;
        if !said.trim_end().ends_with(WHOLE) {
            return Err(failed(format!("it did not end with {WHOLE:?} but with {said:?}")));
        }
        let told = told_in(&place, &TOLD)
            .map_err(|error| failed(format!("it wrote nothing about its copy: {error}")))?;
        let position = position(flavor, &told);
        position
            .ok_or_else(|| failed("it does not tell its position; is the binary log on?".into()))
    }

    /// Ends what a copy left running in the server, and removes what it left in the scratch directory.
    pub(super) async fn tidy(&self) {
        cloning::end(self).await;
        if let Err(error) = self.scratch.clear() {
            let place = self.scratch.root().display();
            tracing::warn!(%error, "what a copy left in {place} could not be removed");
        }
    }
}

/// A program that is about to be started.
#[derive(Debug)]
pub(in crate::runtime::backup) struct Program {
    name: String,
    pub command: Command,
}

impl Program {
    /// A program, declared or found. Where the system can do that, it is killed with this process, however
    /// this process ends.
    pub(in crate::runtime::backup) fn new(name: &str, declared: &Option<PathBuf>) -> Program {
        let found = || Programs::from_environment().find(name);
        let path = declared.clone().unwrap_or_else(found);
        let name = path.display().to_string();
        let setpriv = SETPRIV.iter().map(Path::new).find(|it| it.is_file());
        let mut command = match setpriv.filter(|_| path.is_file()) {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(path);
                command
            }
            None => Command::new(path),
        };
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Program { name, command }
    }

    /// Starts it.
    pub(in crate::runtime::backup) fn start(self) -> Result<Tool, BackupError> {
        Tool::start_as(self.name, self.command)
    }
}

/// How these programs are led to a server's port rather than to a socket.
fn over_tcp(method: Method, host: &str) -> Vec<String> {
    match method {
        // It does not know the word protocol, and takes this name for the socket's.
        Method::PhysicalXtrabackup if host == "localhost" => vec!["--host=127.0.0.1".to_owned()],
        Method::PhysicalXtrabackup => vec![format!("--host={host}")],
        _ => vec!["--protocol=tcp".to_owned(), format!("--host={host}")],
    }
}

/// How a program names itself, wherever it prints that.
pub(in crate::runtime::backup) async fn version_of(
    mut program: Program,
) -> Result<String, BackupError> {
    program.command.arg("--version");
    let mut tool = program.start()?;
    let mut printed = String::new();
    let mut output = tool.output()?.take(MOST_VERSION);
    output.read_to_string(&mut printed).await.map_err(BackupError::io("asking for its version"))?;
    drop(output);
    let said = tool.ended_saying().await?;
    let last = if printed.trim().is_empty() { said } else { printed };
    let line = last.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let mut words = line.split_whitespace();
    // The path it was started by says nothing on other machines.
    let name = words.next().map(|word| Path::new(word).file_name().unwrap_or_default());
    let name = name.unwrap_or_default().to_string_lossy().into_owned();
    Ok(std::iter::once(name.as_str()).chain(words).collect::<Vec<_>>().join(" "))
}

/// The position that a program noted among the files of its copy.
pub(in crate::runtime::backup) fn noted_in(place: &Path, flavor: Flavor) -> Option<Gtids> {
    position(flavor, &told_in(place, &TOLD).ok()?)
}

/// The position in what a program wrote about its copy.
fn position(flavor: Flavor, told: &str) -> Option<Gtids> {
    let line = told.split("\nbinlog_pos = ").nth(1)?;
    let (_, rest) = line.split_once("GTID of the last change '")?;
    let (position, _) = rest.split_once('\'')?;
    Gtids::parse(flavor, position).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_tell_their_position() {
        let told = "uuid = 1\ntool_name = mariadb-backup\nbinlog_pos = filename 'binlog.000001', \
                    position '77', GTID of the last change '0-1-7,1-2-3'\ninnodb_from_lsn = 0\n";
        let found = position(Flavor::MariaDb, told);
        assert_eq!(found, Gtids::parse(Flavor::MariaDb, "0-1-7,1-2-3").ok());
        let uuid = "1da1663f-e691-11f1-aa06-02fc00000001";
        let told = format!(
            "a = b\nbinlog_pos = filename 'x', position '7', GTID of the last change '{uuid}:1-3,\n\
             {}:1'\n",
            uuid.replace('f', "e")
        );
        assert!(position(Flavor::MySql, &told).is_some());
        assert_eq!(position(Flavor::MariaDb, "a = b\nbinlog_pos = filename 'x'\n"), None);
        let empty = "a\nbinlog_pos = filename 'x', GTID of the last change ''\n";
        assert_eq!(position(Flavor::MariaDb, empty), Some(Gtids::empty(Flavor::MariaDb)));
    }
}
