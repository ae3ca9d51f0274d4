//! A database server for one proof: it listens on a socket of its own directory, knows no network, and
//! is gone afterwards with all that it held.
//!
//! The directory is locked as long as its maker lives. What a killed process left, its server
//! included, is found unlocked by the next one and removed.

use super::BackupError;
use crate::decision::topology::{Flavor, Version};
use crate::runtime::mysql::dialect::Dialect;
use crate::runtime::steps::Programs;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

/// What the names of all these directories begin with.
const PREFIX: &str = "regent-proof-";
/// Initialising a data directory takes some seconds, on a slow disk more.
const INITIALIZATION: Duration = Duration::from_secs(300);
const START: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);
const CONNECT: Duration = Duration::from_secs(10);
/// The end of a log that is told.
const TOLD: u64 = 1_500;
/// No socket has a longer path.
const LONGEST_SOCKET: usize = 107;
/// More directories are not looked through.
const MOST_LEFT: usize = 1_000;

/// What a throw-away server is to be.
#[derive(Clone, Debug)]
pub(super) struct Wanted<'a> {
    pub flavor: Flavor,
    pub version: Version,
    /// As it was on the server that was backed up.
    pub lower_case_table_names: u8,
    /// The server program, where one is configured.
    pub server: Option<&'a Path>,
    /// Where its directory is made.
    pub directory: &'a Path,
    /// Makes the directory's name unique on this machine.
    pub name: String,
}

/// A server that is there for a proof.
#[derive(Debug)]
pub(super) struct Throwaway {
    // It ends before its directory goes.
    process: Process,
    place: Place,
    pub flavor: Flavor,
    pub version: Version,
}

/// A locked directory; removed with this.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    _lock: File,
}

/// A child that ends with this, and with its parent where the system has `setpriv`.
#[derive(Debug)]
struct Process(Arc<Mutex<Child>>);

impl Throwaway {
    /// Removes what others left, and starts a server.
    pub(super) async fn start(wanted: &Wanted<'_>) -> Result<Throwaway, BackupError> {
        let program = program(wanted)?;
        let version = version_of(&program, wanted).await?;
        let directory = wanted.directory.to_owned();
        let name = format!("{PREFIX}{}", wanted.name);
        let making = tokio::task::spawn_blocking(move || {
            sweep(&directory);
            Place::make(&directory, &name)
        });
        let made = making.await.map_err(|_| failed("it was broken off".to_owned()))?;
        let place =
            made.map_err(|error| failed(format!("{}: {error}", wanted.directory.display())))?;
        let layout = Layout {
            program,
            place: place.path.clone(),
            flavor: wanted.flavor,
            lower_case_table_names: wanted.lower_case_table_names,
        };
        layout.initialize().await?;
        let process = layout.launch(layout.serving(), "server.log", None)?;
        let server = Throwaway { process, place, flavor: wanted.flavor, version };
        server.until_up(&layout).await?;
        Ok(server)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.place.path.join("s")
    }

    pub(super) fn directory(&self) -> &Path {
        &self.place.path
    }

    pub(super) async fn connect(&self) -> Result<Conn, mysql_async::Error> {
        let options = OptsBuilder::default()
            .socket(Some(self.socket().display().to_string()))
            .user(Some("root"))
            .stmt_cache_size(0);
        let connected = tokio::time::timeout(CONNECT, Conn::new(options)).await;
        connected.unwrap_or_else(|_| Err(mysql_async::Error::Other("it does not answer".into())))
    }

    /// Whether it has not ended by itself.
    pub(super) fn is_running(&self) -> bool {
        self.process.ended().is_none()
    }

    /// Whether its directory has room left for more.
    pub(super) fn has_room(&self) -> bool {
        let Ok(found) = rustix::fs::statvfs(&self.place.path) else { return false };
        found.f_bavail.saturating_mul(found.f_frsize) > 64 << 20
    }

    /// Why it is not there any more, in its own words.
    pub(super) fn last_words(&self) -> String {
        tail(&self.place.path.join("server.log"))
    }

    async fn until_up(&self, layout: &Layout) -> Result<(), BackupError> {
        let up = async {
            loop {
                if let Some(status) = self.process.ended() {
                    return Err(failed(format!("{status}: {}", self.last_words())));
                }
                if let Ok(mut conn) = self.connect().await
                    && conn.query_drop("DO 0").await.is_ok()
                {
                    return Ok(());
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let late = || {
            let (program, seconds) = (layout.program.display(), START.as_secs());
            failed(format!("{program} did not answer in {seconds} s: {}", self.last_words()))
        };
        tokio::time::timeout(START, up).await.unwrap_or_else(|_| Err(late()))
    }
}

fn failed(what: String) -> BackupError {
    BackupError::Throwaway(what)
}

/// The server program for a product.
fn program(wanted: &Wanted<'_>) -> Result<PathBuf, BackupError> {
    let name = match wanted.flavor {
        Flavor::MySql => "mysqld",
        Flavor::MariaDb => "mariadbd",
    };
    if let Some(configured) = wanted.server {
        return Ok(configured.to_owned());
    }
    let mut places = Programs::from_environment();
    // Where distributions put it, which is on no ordinary user's path.
    places.0.extend(["/usr/sbin", "/usr/local/sbin", "/usr/libexec"].map(PathBuf::from));
    let found = places.find(name);
    if found.is_absolute() && found.is_file() {
        return Ok(found);
    }
    Err(failed(format!(
        "there is no {name} on this machine; install the database's server program (it need not run), \
         or name it in backups.verify.server"
    )))
}

/// The program's version, if it can take what is to be restored.
async fn version_of(program: &Path, wanted: &Wanted<'_>) -> Result<Version, BackupError> {
    let mut command = tokio::process::Command::new(program);
    command.args(["--no-defaults", "--version"]).stdin(Stdio::null()).kill_on_drop(true);
    let shown = program.display();
    let asked = tokio::time::timeout(CONNECT, command.output()).await;
    let output = match asked {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(failed(format!("{shown} cannot be started: {error}"))),
        Err(_) => return Err(failed(format!("{shown} does not tell its version"))),
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = said.split_whitespace().skip_while(|word| *word != "Ver").skip(1);
    let Some(version) = words.next().filter(|_| output.status.success()) else {
        return Err(failed(format!("{shown} does not tell its version")));
    };
    let dialect = Dialect::new(version, &[]);
    let (has, of) = (dialect.version, wanted.version);
    let newer = (has.major, has.minor) >= (of.major, of.minor);
    if dialect.flavor != wanted.flavor || has.major != of.major || !newer {
        return Err(failed(format!(
            "{shown} is {} {has}, and the backup is of {} {of}; name a server program of that version, \
             or a later one with the same first number, in backups.verify.server",
            dialect.flavor, wanted.flavor
        )));
    }
    Ok(has)
}

impl Place {
    fn make(directory: &Path, name: &str) -> io::Result<Place> {
        let path = directory.canonicalize()?.join(name);
        if path.join("s").as_os_str().len() > LONGEST_SOCKET {
            return Err(io::Error::other(
                "is too long a path for a socket; write a shorter one in backups.verify.directory",
            ));
        }
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = File::create(path.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Place { path, _lock: lock })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "could not be removed");
        }
    }
}

/// Removes what killed processes left, as far as this user may.
fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.take(MOST_LEFT).flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(lock) = File::open(path.join("lock")) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        kill_leftover(&path);
        match fs::remove_dir_all(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed what a killed proof left"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "could not be removed"),
        }
    }
}

/// Kills the server of a directory whose maker is gone, if that process is really it.
fn kill_leftover(path: &Path) {
    let read = fs::read_to_string(path.join("pid")).unwrap_or_default();
    let Some(pid) = read.trim().parse().ok().and_then(Pid::from_raw) else { return };
    let command = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    if String::from_utf8_lossy(&command).contains(&*path.to_string_lossy()) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Which program runs where.
struct Layout {
    program: PathBuf,
    place: PathBuf,
    flavor: Flavor,
    lower_case_table_names: u8,
}

/// The scripts that MariaDB's system tables are made with, in this order; those that a version lacks are
/// passed over.
const SCRIPTS: &[&str] = &[
    "mysql_system_tables.sql",
    "mariadb_system_tables.sql",
    "mysql_performance_tables.sql",
    "mariadb_performance_tables.sql",
    "mysql_system_tables_data.sql",
    "mariadb_system_tables_data.sql",
    "maria_add_gis_sp_bootstrap.sql",
    "mysql_sys_schema.sql",
    "mariadb_sys_schema.sql",
];

/// Little memory, and nothing that only matters after a power cut.
const BOTH: &[&str] = &[
    "--skip-networking",
    "--skip-log-bin",
    "--skip-name-resolve",
    "--server-id=1",
    "--max-connections=10",
    "--max-allowed-packet=1G",
    "--performance-schema=OFF",
    "--event-scheduler=OFF",
    "--local-infile=OFF",
    "--innodb-buffer-pool-size=128M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=OFF",
    "--innodb-strict-mode=OFF",
];
const MYSQL: &[&str] = &[
    "--mysqlx=OFF",
    "--gtid-mode=ON",
    "--enforce-gtid-consistency=ON",
    "--secure-file-priv=NULL",
    "--loose-innodb-redo-log-capacity=256M",
    "--table-open-cache=400",
    "--table-definition-cache=400",
];
const MARIADB: &[&str] =
    &["--innodb-log-file-size=128M", "--aria-pagecache-buffer-size=16M", "--key-buffer-size=8M"];

impl Layout {
    fn data(&self) -> PathBuf {
        self.place.join("data")
    }

    /// Fills an empty data directory; its root has no password, and nobody else can reach it.
    async fn initialize(&self) -> Result<(), BackupError> {
        let mut arguments = self.beginning();
        let io = |error: io::Error| failed(format!("{}: {error}", self.place.display()));
        fs::create_dir_all(self.place.join("tmp")).map_err(io)?;
        let input = match self.flavor {
            Flavor::MySql => {
                arguments.extend(["--initialize-insecure", "--mysqlx=OFF"].map(OsString::from));
                None
            }
            Flavor::MariaDb => {
                fs::create_dir_all(self.data()).map_err(io)?;
                let quiet = ["--bootstrap", "--silent-startup", "--log-warnings=0"];
                arguments.extend(quiet.map(OsString::from));
                Some(self.script().map_err(io)?)
            }
        };
        let process = self.launch(arguments, "initialize.log", input.as_deref())?;
        let ending = async {
            loop {
                if let Some(status) = process.ended() {
                    return status;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let status = tokio::time::timeout(INITIALIZATION, ending).await;
        if status.is_ok_and(|status| status.success()) {
            return Ok(());
        }
        let said = tail(&self.place.join("initialize.log"));
        let program = self.program.display();
        Err(failed(format!("{program} could not initialise a data directory: {said}")))
    }

    /// What makes MariaDB's system tables.
    fn script(&self) -> io::Result<PathBuf> {
        let base = self.base().unwrap_or_else(|| PathBuf::from("/usr"));
        let path = self.place.join("bootstrap.sql");
        let mut text = File::create(&path)?;
        text.write_all(b"create database if not exists mysql;\nuse mysql;\n")?;
        text.write_all(b"SET @auth_root_socket=NULL;\nSET @skip_auth_anonymous=1;\n")?;
        let mut found = false;
        for name in SCRIPTS {
            let places =
                ["share/mysql", "share/mariadb", "share"].map(|it| base.join(it).join(name));
            if let Some(script) = places.iter().find(|path| path.is_file()) {
                text.write_all(&fs::read(script)?)?;
                text.write_all(b"\n")?;
                found = true;
            }
        }
        if !found {
            let what = format!("no scripts of system tables are below {}/share", base.display());
            return Err(io::Error::other(what));
        }
        Ok(path)
    }

    /// Where the installation keeps what the server reads beside its data, if it is where it usually is.
    fn base(&self) -> Option<PathBuf> {
        let real = self.program.canonicalize().ok()?;
        let above = real.ancestors().nth(2)?;
        let bases = [above.to_owned(), above.join("usr")];
        let has = |base: &PathBuf, share: &str| base.join(share).is_dir();
        let shares = ["share/mysql", "share/mariadb", "share/english"];
        bases.into_iter().find(|base| shares.iter().any(|share| has(base, share)))
    }

    /// What every start begins with.
    fn beginning(&self) -> Vec<OsString> {
        let mut all = vec![OsString::from("--no-defaults")];
        if let Some(base) = self.base() {
            all.push(option("--basedir", &base));
            for (name, places) in [
                ("--lc-messages-dir", ["share/mysql", "share/mariadb"]),
                ("--character-sets-dir", ["share/mysql/charsets", "share/mariadb/charsets"]),
                ("--plugin-dir", ["lib/mysql/plugin", "lib/plugin"]),
            ] {
                let found = places.map(|place| base.join(place)).into_iter().find(|it| it.is_dir());
                all.extend(found.map(|path| option(name, &path)));
            }
        }
        if rustix::process::geteuid().is_root() {
            all.push("--user=root".into());
        }
        // MySQL keeps for ever what it was initialised with.
        all.push(format!("--lower-case-table-names={}", self.lower_case_table_names).into());
        all.push(option("--datadir", &self.data()));
        all.push(option("--tmpdir", &self.place.join("tmp")));
        all
    }

    fn serving(&self) -> Vec<OsString> {
        let mut all = self.beginning();
        let own = match self.flavor {
            Flavor::MySql => MYSQL,
            Flavor::MariaDb => MARIADB,
        };
        all.extend(BOTH.iter().chain(own).map(OsString::from));
        all.push(option("--socket", &self.place.join("s")));
        all.push(option("--pid-file", &self.place.join("pid")));
        all
    }

    fn launch(
        &self,
        arguments: Vec<OsString>,
        log: &str,
        input: Option<&Path>,
    ) -> Result<Process, BackupError> {
        let program = self.program.clone();
        let failed = |error: io::Error| failed(format!("{}: {error}", program.display()));
        let log = File::create(self.place.join(log)).map_err(failed)?;
        let words = ["/usr/bin/setpriv", "/bin/setpriv"].map(Path::new);
        let setpriv = words.into_iter().find(|path| path.is_file());
        let mut command = Command::new(setpriv.unwrap_or(&self.program));
        if setpriv.is_some() {
            command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program);
        }
        let stdin = match input {
            Some(path) => Stdio::from(File::open(path).map_err(failed)?),
            None => Stdio::null(),
        };
        let stdout = log.try_clone().map_err(failed)?;
        command.args(arguments).stdin(stdin).stdout(stdout).stderr(log);
        command.current_dir(&self.place);
        Process::start(command).map_err(failed)
    }
}

impl Process {
    /// The system ties a child to the thread that made it, so one thread makes it and waits for it.
    fn start(mut command: Command) -> io::Result<Process> {
        let (started, starting) = mpsc::channel();
        let work = move || {
            let child = command.spawn().map(|child| Arc::new(Mutex::new(child)));
            let kept = child.as_ref().ok().map(Arc::downgrade);
            let _ = started.send(child.map(Process));
            while let Some(child) = kept.as_ref().and_then(std::sync::Weak::upgrade) {
                let ended = child.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
                if !matches!(ended, Ok(None)) {
                    return;
                }
                drop(child);
                std::thread::sleep(LOOK);
            }
        };
        std::thread::Builder::new().name("throw-away server".to_owned()).spawn(work)?;
        starting.recv().map_err(|_| io::Error::other("its thread is gone"))?
    }

    fn ended(&self) -> Option<ExitStatus> {
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        child.try_wait().ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What it holds is thrown away, so it need not end in order.
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn option(name: &str, path: &Path) -> OsString {
    let mut text = OsString::from(name);
    text.push("=");
    text.push(path);
    text
}

/// The end of a log.
fn tail(path: &Path) -> String {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TOLD)))?;
        file.take(TOLD).read_to_end(&mut text)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&text).trim().to_owned(),
        Err(error) => format!("its log cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_others_use_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let used = Place::make(directory.path(), "regent-proof-used").unwrap();
        let left = directory.path().join("regent-proof-left");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("lock"), "").unwrap();
        fs::write(left.join("pid"), std::process::id().to_string()).unwrap();
        let other = directory.path().join("somebody-elses");
        fs::create_dir(&other).unwrap();
        sweep(directory.path());
        assert!(!left.exists() && other.exists() && used.path.exists());
        let path = used.path.clone();
        drop(used);
        assert!(!path.exists());
    }
}
