//! A database server for one proof: it listens on a socket of its own directory, knows no network, and
//! is gone afterwards with all that it held.

use super::BackupError;
use super::locked::{PREFIX, Place, SOCKET, sweep};
use crate::clock::Clock;
use crate::config::Account;
use crate::config::backups::Backups;
use crate::decision::backup::manifest::Manifest;
use crate::decision::topology::{Flavor, Version};
use crate::runtime::mysql::dialect::Dialect;
use crate::runtime::steps::Programs;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;
use tokio::time::error::Elapsed;

/// Initialising a data directory takes some seconds, on a slow disk more.
const INITIALIZATION: Duration = Duration::from_secs(300);
const START: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);
/// How long a server may take to end after its connections broke.
const DYING: Duration = Duration::from_secs(10);
/// The signal that cannot be refused.
const KILLED: i32 = 9;
/// The account or its password is refused.
const DENIED: u16 = 1045;
const CONNECT: Duration = Duration::from_secs(10);
/// The end of a log that is told.
const TOLD: u64 = 1_500;

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

/// What a backup's server is to be, where the configuration says.
pub(super) fn wanted<'a>(
    (manifest, backups): (&Manifest, &'a Backups),
    clock: Clock,
) -> Wanted<'a> {
    Wanted {
        flavor: manifest.flavor,
        version: manifest.version,
        lower_case_table_names: manifest.lower_case_table_names,
        server: backups.verify.server.as_deref(),
        directory: &backups.verify.directory,
        name: format!("{}-{}", clock.now().wall.0, std::process::id()),
    }
}

/// A server that is there for a proof.
#[derive(Debug)]
pub(super) struct Throwaway {
    // It ends before its directory goes.
    process: Process,
    place: Place,
    socket: PathBuf,
    login: Option<Account>,
    pub flavor: Flavor,
    pub version: Version,
}

/// A place where a server can be started, and its program.
pub(super) struct Site {
    place: Place,
    layout: Layout,
    version: Version,
}

/// How a server is started on files that others made.
pub(super) struct Opening {
    /// What it is told beside the usual.
    pub words: Vec<OsString>,
    /// Whom it knows; root without a password when absent.
    pub login: Option<Account>,
    /// How long it may take: to apply what was written last.
    pub limit: Duration,
}

/// A server that did not start.
#[derive(Debug)]
pub(super) struct NotStarted {
    pub what: String,
    /// Whether it ended by itself, so that its files may be the reason.
    pub by_itself: bool,
}

/// A child that ends with this, and with its parent where the system has `setpriv`.
#[derive(Debug)]
struct Process(Arc<Mutex<Child>>);

impl Site {
    /// Removes what others left, and makes a place for a server.
    pub(super) async fn make(wanted: &Wanted<'_>) -> Result<Site, BackupError> {
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
            data: place.path.join("data"),
            flavor: wanted.flavor,
            lower_case_table_names: wanted.lower_case_table_names,
        };
        Ok(Site { place, layout, version })
    }

    /// The same with its data elsewhere.
    pub(super) fn with_data(self, data: &Path) -> Site {
        Site { layout: Layout { data: data.to_owned(), ..self.layout }, ..self }
    }

    /// Where its data is.
    pub(super) fn data(&self) -> &Path {
        &self.layout.data
    }

    /// What only this user can read, and what goes with it.
    pub(super) fn directory(&self) -> &Path {
        &self.place.path
    }

    /// Whether there is room left for more.
    pub(super) fn has_room(&self) -> bool {
        has_room(&self.layout.data)
    }

    /// Starts a server on what is there.
    pub(super) async fn open(self, opening: Opening) -> Result<Throwaway, NotStarted> {
        let Site { place, layout, version } = self;
        let not = |error: BackupError| {
            let what = match error {
                BackupError::Throwaway(what) => what,
                error => error.to_string(),
            };
            NotStarted { what, by_itself: false }
        };
        let temporary = fs::create_dir_all(place.path.join("tmp"));
        temporary.map_err(|error| not(failed(format!("{}: {error}", place.path.display()))))?;
        let mut words = layout.serving();
        words.extend(opening.words);
        let process = layout.launch(words, "server.log", None).map_err(not)?;
        let (flavor, login) = (layout.flavor, opening.login);
        let socket = place.path.join(SOCKET);
        let server = Throwaway { process, place, socket, login, flavor, version };
        server.until_up(&layout, opening.limit).await?;
        Ok(server)
    }
}

impl From<NotStarted> for BackupError {
    fn from(not: NotStarted) -> BackupError {
        failed(not.what)
    }
}

impl Throwaway {
    /// Removes what others left, and starts a server.
    pub(super) async fn start(wanted: &Wanted<'_>) -> Result<Throwaway, BackupError> {
        let site = Site::make(wanted).await?;
        site.layout.initialize().await?;
        let opening = Opening { words: Vec::new(), login: None, limit: START };
        Ok(site.open(opening).await?)
    }
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) fn directory(&self) -> &Path {
        &self.place.path
    }

    pub(super) async fn connect(&self) -> Result<Conn, mysql_async::Error> {
        let options = OptsBuilder::default()
            .socket(Some(self.socket.display().to_string()))
            .user(Some(self.login.as_ref().map_or("root", |login| login.user.as_str())))
            .pass(self.login.as_ref().map(|login| login.password.reveal()))
            .stmt_cache_size(0);
        let connected = tokio::time::timeout(CONNECT, Conn::new(options)).await;
        connected.unwrap_or_else(|_| Err(mysql_async::Error::Other("it does not answer".into())))
    }

    /// Whether it has not ended by itself.
    pub(super) fn is_running(&self) -> bool {
        self.process.ended().is_none()
    }

    /// Whether it has ended, and nobody killed it, as a system does that is short of memory.
    pub(super) fn gave_up(&self) -> bool {
        self.process.ended().is_some_and(|status| status.signal() != Some(KILLED))
    }

    /// As [`Throwaway::gave_up`], of one whose connection broke: it may not have ended quite yet.
    pub(super) async fn gives_up(&self) -> bool {
        let _ = self.ended_within(DYING).await;
        self.gave_up()
    }

    async fn ended_within(&self, limit: Duration) -> Result<ExitStatus, Elapsed> {
        let ending = async {
            loop {
                if let Some(status) = self.process.ended() {
                    return status;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(limit, ending).await
    }

    /// Whether its directory has room left for more.
    pub(super) fn has_room(&self) -> bool {
        has_room(&self.place.path)
    }

    /// Carries out a last statement and ends in order, so that another server can be started on its data.
    pub(super) async fn shut_down(
        self,
        statement: &str,
        limit: Duration,
    ) -> Result<(), BackupError> {
        let refused = |error| failed(format!("it is to end: {error}"));
        let mut conn = self.connect().await.map_err(refused)?;
        conn.query_drop(statement).await.map_err(refused)?;
        // It may close the connection before it answers.
        let _ = conn.query_drop("SHUTDOWN").await;
        match self.ended_within(limit).await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(failed(format!("it ended with {status}: {}", self.last_words()))),
            Err(_) => Err(failed(format!("it did not end in {} s", limit.as_secs()))),
        }
    }

    /// Why it is not there any more, in its own words.
    pub(super) fn last_words(&self) -> String {
        tail(&self.place.path.join("server.log"))
    }

    async fn until_up(&self, layout: &Layout, limit: Duration) -> Result<(), NotStarted> {
        let up = async {
            loop {
                if let Some(status) = self.process.ended() {
                    let what = format!("{status}: {}", self.last_words());
                    let by_itself = self.gave_up() && self.has_room() && has_room(&layout.data);
                    return Err(NotStarted { what, by_itself });
                }
                let answered = match self.connect().await {
                    Ok(mut conn) => conn.query_drop("DO 0").await,
                    Err(error) => Err(error),
                };
                match answered {
                    Ok(()) => return Ok(()),
                    // Whoever is not let in once is never let in.
                    Err(mysql_async::Error::Server(error)) if error.code == DENIED => {
                        let what = format!("it lets nobody in: {}", self.last_words());
                        return Err(NotStarted { what, by_itself: false });
                    }
                    Err(_) => tokio::time::sleep(LOOK).await,
                }
            }
        };
        let late = |_| {
            let (program, seconds) = (layout.program.display(), limit.as_secs());
            let what = format!("{program} did not answer in {seconds} s: {}", self.last_words());
            Err(NotStarted { what, by_itself: false })
        };
        tokio::time::timeout(limit, up).await.unwrap_or_else(late)
    }
}

fn has_room(path: &Path) -> bool {
    let Ok(found) = rustix::fs::statvfs(path) else { return false };
    found.f_bavail.saturating_mul(found.f_frsize) > 64 << 20
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

/// Which program runs where.
struct Layout {
    program: PathBuf,
    place: PathBuf,
    data: PathBuf,
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
                fs::create_dir_all(&self.data).map_err(io)?;
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
        all.push(option("--datadir", &self.data));
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
        all.push(option("--socket", &self.place.join(SOCKET)));
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
