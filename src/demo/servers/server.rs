//! One running server: starting, hurting, asking.

use super::accounts::{Account, ROOT};
use super::{DatabaseFlavor, Installation, ServerError, mariadb, mysql, template};
use crate::demo::process::{Host, Launch, Process, kill_leftover, tail};
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, OptsBuilder};
use rustix::process::Signal;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(60);
const QUERY_LIMIT: Duration = Duration::from_secs(10);

/// A database server that this process started; dropping it kills it.
#[derive(Debug)]
pub struct Server {
    name: String,
    port: u16,
    place: PathBuf,
    installation: Installation,
    template: PathBuf,
    options: ServerOptions,
    lives: u32,
    process: Option<Process>,
}

/// How to start a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Whether every start leaves it read-only, as production servers should be; on by default.
    pub read_only: bool,
    /// Further command line options, such as `--replica-net-timeout=2`; these win over the built-in ones.
    pub extra: Vec<String>,
    /// Where it runs; loopback unless said otherwise.
    pub host: Host,
    /// Whether it is started again when it asks for that, as after its data was replaced.
    pub supervised: bool,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        let host = Host::loopback();
        ServerOptions { read_only: true, extra: Vec::new(), host, supervised: true }
    }
}

impl Server {
    pub(super) fn new(
        name: &str,
        port: u16,
        place: PathBuf,
        installation: Installation,
        template: PathBuf,
        options: ServerOptions,
    ) -> Server {
        Server {
            name: name.to_owned(),
            port,
            place,
            installation,
            template,
            options,
            lives: 0,
            process: None,
        }
    }

    /// The name it was started under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.options.host.address.into(), self.port)
    }

    /// Its data directory.
    pub fn datadir(&self) -> PathBuf {
        self.place.join("data")
    }

    /// Its error log.
    pub fn error_log(&self) -> PathBuf {
        self.place.join("error.log")
    }

    /// Which database it is.
    pub fn flavor(&self) -> DatabaseFlavor {
        self.installation.flavor()
    }

    /// The process id, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Whether its process exists; a hung one counts as running.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// Changes the options for its next start.
    pub fn set_options(&mut self, options: ServerOptions) {
        self.options = options;
    }

    /// Kills it as a power cut would.
    pub fn kill9(&mut self) {
        self.process = None;
    }

    /// Stops its process from running while its sockets stay open (`SIGSTOP`).
    pub fn stop_hang(&mut self) -> Result<(), ServerError> {
        self.signal(Signal::STOP)
    }

    /// Lets a hung process go on.
    pub fn resume(&mut self) -> Result<(), ServerError> {
        self.signal(Signal::CONT)
    }

    /// Ends it in order; kills it when that takes longer than 30 seconds.
    pub async fn shutdown(&mut self) {
        if let Some(mut process) = self.process.take() {
            // A stopped process could not act on the request.
            let _ = process.signal(Signal::CONT);
            process.terminate(Duration::from_secs(30)).await;
        }
    }

    /// Starts it again on the data it has, killing it first if it still runs, and waits until it answers.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        self.kill9();
        self.launch()?;
        self.wait_until_up().await
    }

    /// Throws its data away and starts it empty, under a number of its own: with the old one it would
    /// pass over all that it once wrote itself.
    pub async fn wipe_and_recreate(&mut self) -> Result<(), ServerError> {
        self.kill9();
        self.lives += 1;
        kill_leftover(&self.pid_file(), &self.place);
        empty(&self.place)?;
        template::copy(self.template.clone(), self.datadir()).await?;
        self.launch()?;
        self.wait_until_up().await
    }

    /// A connection with every privilege, made within ten seconds.
    pub async fn connect(&self) -> Result<Conn, ServerError> {
        connect(self.address(), ROOT, None, QUERY_LIMIT).await
    }

    /// Runs a statement with every privilege.
    pub async fn execute(&self, statement: &str) -> Result<(), ServerError> {
        let run = async {
            let mut connection = connect(self.address(), ROOT, None, QUERY_LIMIT).await?;
            connection.query_drop(statement).await?;
            connection.disconnect().await?;
            Ok(())
        };
        self.limited(run).await
    }

    /// The first row of a query's answer, asked with every privilege.
    pub async fn query<T: FromRow + Send + 'static>(
        &self,
        query: &str,
    ) -> Result<Option<T>, ServerError> {
        let run = async {
            let mut connection = connect(self.address(), ROOT, None, QUERY_LIMIT).await?;
            let row = connection.query_first(query).await?;
            connection.disconnect().await?;
            Ok(row)
        };
        self.limited(run).await
    }

    /// Whether ordinary accounts may write to it.
    pub async fn is_writable(&self) -> Result<bool, ServerError> {
        Ok(self.query::<bool>("SELECT @@global.read_only").await? == Some(false))
    }

    /// Opens it for writes.
    pub async fn open_for_writes(&self) -> Result<(), ServerError> {
        let statements = match self.flavor() {
            DatabaseFlavor::Mysql => mysql::OPEN,
            DatabaseFlavor::Mariadb => mariadb::OPEN,
        };
        for statement in statements {
            self.execute(statement).await?;
        }
        Ok(())
    }

    /// Lets it replicate from `source`; only for a server that replicates from nowhere yet.
    pub async fn follow(&self, source: &Server) -> Result<(), ServerError> {
        let statements = match self.flavor() {
            DatabaseFlavor::Mysql => mysql::follow(source.address()),
            DatabaseFlavor::Mariadb => mariadb::follow(source.address()),
        };
        for statement in &statements {
            self.execute(statement).await?;
        }
        Ok(())
    }

    /// Waits up to 30 seconds until a query succeeds and its number is at least `least`.
    pub async fn wait_for(&self, query: &str, least: u64) -> Result<(), ServerError> {
        self.wait_for_within(query, least, Duration::from_secs(30)).await
    }

    /// Like [`Server::wait_for`], with a limit of the caller's.
    pub async fn wait_for_within(
        &self,
        query: &str,
        least: u64,
        limit: Duration,
    ) -> Result<(), ServerError> {
        let asking = async {
            loop {
                if let Ok(Some(number)) = self.query::<u64>(query).await
                    && number >= least
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let silent = ServerError::Silent { at: self.address(), limit };
        tokio::time::timeout(limit, asking).await.map_err(|_| silent)
    }

    async fn limited<T>(
        &self,
        work: impl Future<Output = Result<T, ServerError>>,
    ) -> Result<T, ServerError> {
        let silent = ServerError::Silent { at: self.address(), limit: QUERY_LIMIT };
        tokio::time::timeout(QUERY_LIMIT, work).await.map_err(|_| silent)?
    }

    fn signal(&mut self, signal: Signal) -> Result<(), ServerError> {
        if let Some(process) = &mut self.process {
            process.signal(signal)?;
        }
        Ok(())
    }

    /// Addresses are unique among the servers of a machine, so they serve as server ids, with a higher
    /// one for each life.
    fn server_id(&self) -> u32 {
        let [_, _, high, low] = self.options.host.address.octets();
        let number = u32::from(self.port) + u32::from(u16::from_be_bytes([high, low]));
        number + 200_000 * self.lives.saturating_sub(1)
    }

    fn pid_file(&self) -> PathBuf {
        self.place.join("server.pid")
    }

    fn settings(&self) -> PathBuf {
        self.place.join("server.cnf")
    }

    fn scratch(&self) -> PathBuf {
        self.place.join("scratch")
    }

    fn launch(&mut self) -> Result<(), ServerError> {
        std::fs::create_dir_all(self.scratch())?;
        let recommended = match self.flavor() {
            DatabaseFlavor::Mysql => mysql::RECOMMENDED,
            DatabaseFlavor::Mariadb => mariadb::RECOMMENDED,
        };
        std::fs::write(self.settings(), recommended)?;
        let launch = Launch {
            program: self.installation.server().to_owned(),
            arguments: self.arguments(),
            log: self.error_log(),
            network: self.options.host.network.clone(),
            // So MySQL knows that somebody starts it again.
            environment: match self.options.supervised {
                true => vec![("MYSQLD_PARENT_PID", std::process::id().to_string().into())],
                false => Vec::new(),
            },
            supervised: self.options.supervised,
            ..Launch::default()
        };
        self.process = Some(Process::start(launch)?);
        Ok(())
    }

    fn arguments(&self) -> Vec<OsString> {
        let (places, settings, opened) = match self.flavor() {
            DatabaseFlavor::Mysql => {
                (mysql::places(&self.installation), mysql::SETTINGS, mysql::OPENED)
            }
            DatabaseFlavor::Mariadb => {
                (mariadb::places(&self.installation), mariadb::SETTINGS, mariadb::OPENED)
            }
        };
        // The server accepts it as the first option only.
        let mut all =
            vec![OsString::from(format!("--defaults-file={}", self.settings().display()))];
        all.extend(places);
        all.extend(super::as_user());
        all.extend(settings.iter().map(OsString::from));
        if !self.options.read_only {
            all.extend(opened.iter().map(OsString::from));
        }
        let (port, host) = (self.port, self.options.host.address);
        let own = [
            format!("--port={port}"),
            format!("--server-id={}", self.server_id()),
            format!("--report-host={host}"),
            format!("--report-port={port}"),
            format!("--bind-address={host}"),
            "--skip-name-resolve".to_owned(),
            // Relative to the data directory: an absolute path may be too long for a socket.
            "--socket=server.sock".to_owned(),
            // A server deletes temporary files in its directory when it starts, its neighbours' too.
            format!("--tmpdir={}", self.scratch().display()),
            format!("--datadir={}", self.datadir().display()),
            format!("--pid-file={}", self.pid_file().display()),
            format!("--log-error={}", self.error_log().display()),
        ];
        all.extend(own.map(OsString::from));
        all.extend(self.options.extra.iter().map(OsString::from));
        all
    }

    async fn wait_until_up(&mut self) -> Result<(), ServerError> {
        let (at, log, name) = (self.address(), self.error_log(), self.name.clone());
        let failed = move |log: &Path| ServerError::Start { name, log: tail(log, 8) };
        let asking = async {
            loop {
                if !self.is_running() {
                    return false;
                }
                let limit = Duration::from_millis(500);
                if let Ok(connection) = connect(at, ROOT, None, limit).await {
                    let _ = connection.disconnect().await;
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        };
        match tokio::time::timeout(START_LIMIT, asking).await {
            Ok(true) => Ok(()),
            _ => Err(failed(&log)),
        }
    }
}

/// Removes all that a directory holds, not the directory: it may be a file system of its own.
fn empty(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A connection within a limit.
pub(crate) async fn connect(
    at: SocketAddr,
    account: Account,
    schema: Option<&str>,
    limit: Duration,
) -> Result<Conn, ServerError> {
    let options = OptsBuilder::default()
        .ip_or_hostname(at.ip().to_string())
        .tcp_port(at.port())
        .user(Some(account.user))
        .pass(Some(account.password))
        .db_name(schema)
        .prefer_socket(false)
        .wait_timeout(Some(60));
    let made = tokio::time::timeout(limit, Conn::new(options)).await;
    Ok(made.map_err(|_| ServerError::Silent { at, limit })??)
}
