//! Everything the demonstration runs: servers, watchers, proxy, and the directory they share.

use super::DemoError;
use super::answers::{Api, Status};
use super::process::{Launch, Process, tail};
use super::servers::accounts::SHOP;
use super::servers::{DatabaseFlavor, Installation, Server, ServerOptions, ServerSet, connect};
use super::sites::{Site, Sites};
use rustix::process::Signal;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const NAME: &str = "shop";
const WATCHERS: [&str; 3] = ["w1", "w2", "w3"];
const UP_LIMIT: Duration = Duration::from_secs(60);

/// A running cluster. Dropping it kills every process and removes the directory, unless the caller
/// named one.
#[derive(Debug)]
pub struct Cluster {
    // Declared before the directory: processes end before their files go.
    /// The database servers: `db1`, the first primary, `db2` and `db3`.
    pub servers: Vec<Server>,
    nodes: Vec<Node>,
    pub(super) api: Api,
    sites: Sites,
    /// The configuration file of the watchers and the proxies.
    pub configuration: PathBuf,
    program: PathBuf,
    /// What watchers and proxies find in their environment.
    environment: Vec<(&'static str, OsString)>,
    directory: StateDirectory,
}

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Which database to run.
    pub flavor: DatabaseFlavor,
    /// The program whose `watch` and `proxy` commands are run; this very program when absent.
    pub program: Option<PathBuf>,
    /// An existing directory for everything, which stays the caller's; one that goes with the
    /// cluster when absent.
    pub directory: Option<PathBuf>,
    /// `lossless` or `best_effort`, or a mapping.
    pub durability: &'static str,
    /// Rules in place of the default ones, as the text of their file.
    pub rules: Option<String>,
    /// Where everything stands; on loopback when absent.
    pub sites: Option<Sites>,
    /// What its watchers and proxies find in their environment beside this process's own.
    pub environment: Vec<(&'static str, OsString)>,
}

/// A watcher or proxy, running or not.
#[derive(Debug)]
struct Node {
    id: String,
    network: Option<PathBuf>,
    arguments: Vec<OsString>,
    process: Option<Process>,
}

#[derive(Debug)]
struct StateDirectory {
    path: PathBuf,
    borrowed: bool,
}

impl Drop for StateDirectory {
    fn drop(&mut self) {
        if !self.borrowed {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl ClusterOptions {
    /// A lossless cluster of this flavour in a directory of its own.
    pub fn new(flavor: DatabaseFlavor) -> ClusterOptions {
        let durability = "lossless";
        let environment = Vec::new();
        ClusterOptions {
            flavor,
            program: None,
            directory: None,
            durability,
            rules: None,
            sites: None,
            environment,
        }
    }
}

impl Cluster {
    /// The name it has in its configuration.
    pub const NAME: &str = NAME;

    /// The ids of its watchers.
    pub const WATCHERS: [&str; 3] = WATCHERS;

    /// Starts three servers that replicate, and writes the configuration that names them.
    pub async fn start_servers(options: &ClusterOptions) -> Result<Cluster, DemoError> {
        let installation = Installation::find(options.flavor)?;
        let directory = match &options.directory {
            Some(path) => StateDirectory { path: path.clone(), borrowed: true },
            None => state_directory()?,
        };
        let sites = match &options.sites {
            Some(sites) => sites.clone(),
            None => Sites::loopback()?,
        };
        let mut environment = options.environment.clone();
        environment.push(("REGENT_PROGRAMS", installation.program("").into_os_string()));
        let set = ServerSet::new(directory.path.join("servers"), installation)?;
        set.template().await?;
        let start = |site: &Site| {
            let options = ServerOptions { host: site.host.clone(), ..ServerOptions::default() };
            set.start(site.name, site.address(0).port(), options)
        };
        let servers = futures_util::future::try_join_all(sites.servers.iter().map(start)).await?;
        if let [first, others @ ..] = servers.as_slice() {
            set.replicate(first, &others.iter().collect::<Vec<_>>()).await?;
        }
        let configuration = sites.configure(
            NAME,
            (options.durability, options.rules.as_deref()),
            &directory.path,
        )?;
        let urls = sites.watchers.iter().map(|site| format!("http://{}", site.address(1)));
        let api = Api::new(urls.collect())?;
        let program = match &options.program {
            Some(program) => program.clone(),
            None => std::env::current_exe()?,
        };
        let nodes = Vec::new();
        Ok(Cluster { servers, nodes, api, sites, configuration, program, environment, directory })
    }

    /// Starts the watchers and the proxies.
    pub fn start_regent(&mut self) -> Result<(), DemoError> {
        let sites = self.sites.clone();
        for site in &sites.watchers {
            let store = self.directory.path.join(site.name);
            fs::create_dir_all(&store)?;
            self.add_node("watch", site, ["--data-dir".into(), store.into_os_string()])?;
        }
        for site in &sites.proxies {
            self.add_node("proxy", site, ["--data-center".into(), site.data_center.into()])?;
        }
        Ok(())
    }

    fn add_node(
        &mut self,
        command: &str,
        site: &Site,
        more: [OsString; 2],
    ) -> Result<(), DemoError> {
        let configuration = self.configuration.clone().into_os_string();
        let mut arguments: Vec<OsString> = vec![command.into(), "--config".into(), configuration];
        arguments.extend(["--id".into(), site.name.into()]);
        arguments.extend(more);
        let (id, network) = (site.name.to_owned(), site.host.network.clone());
        self.nodes.push(Node { id, network, arguments, process: None });
        self.start_node(site.name)
    }

    /// Starts a watcher or proxy that was killed, on what it left on disk; nothing happens when it runs.
    pub fn start_node(&mut self, id: &str) -> Result<(), DemoError> {
        let log = self.log_of(id);
        let Some(node) = self.nodes.iter_mut().find(|node| node.id == id) else {
            return Ok(());
        };
        if !node.process.as_mut().is_some_and(Process::is_running) {
            let (program, arguments) = (self.program.clone(), node.arguments.clone());
            let network = node.network.clone();
            let environment = self.environment.clone();
            let launch =
                Launch { program, arguments, log, network, environment, ..Launch::default() };
            node.process = Some(Process::start(launch)?);
        }
        Ok(())
    }

    /// Kills a watcher or proxy as a power cut would.
    pub fn kill_node(&mut self, id: &str) {
        if let Some(node) = self.nodes.iter_mut().find(|node| node.id == id) {
            node.process = None;
        }
    }

    /// The process id of a watcher or proxy, while it runs.
    pub fn process_of(&self, id: &str) -> Option<u32> {
        let node = self.nodes.iter().find(|node| node.id == id)?;
        node.process.as_ref().map(Process::id)
    }

    /// Where everything stands.
    pub fn sites(&self) -> &Sites {
        &self.sites
    }

    /// Where the first proxy takes writes.
    pub fn write(&self) -> SocketAddr {
        self.of_first_proxy(0)
    }

    /// Where the first proxy takes reads.
    pub fn read(&self) -> SocketAddr {
        self.of_first_proxy(1)
    }

    fn of_first_proxy(&self, port: usize) -> SocketAddr {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        self.sites.proxies.first().map_or(nowhere, |site| site.address(port))
    }

    /// Stops a watcher or proxy from running while its sockets stay open, or lets it go on.
    pub fn signal_node(&mut self, id: &str, signal: Signal) -> Result<(), DemoError> {
        let node = self.nodes.iter_mut().find(|node| node.id == id);
        if let Some(process) = node.and_then(|node| node.process.as_mut()) {
            process.signal(signal)?;
        }
        Ok(())
    }

    /// The file that a watcher or proxy logs to.
    pub fn log_of(&self, id: &str) -> PathBuf {
        self.directory.path.join(format!("{id}.log"))
    }

    /// The addresses of the watchers' interfaces, in the order of [`Cluster::WATCHERS`].
    pub fn urls(&self) -> &[String] {
        self.api.urls()
    }

    /// Waits until the watchers say that everything serves, and the proxy lets the shop in.
    pub(super) async fn wait_until_whole(&mut self) -> Result<Status, DemoError> {
        let mut last = None;
        let asking = async {
            loop {
                self.check_processes()?;
                last = self.api.status().await;
                if let Some(status) = last.as_ref().filter(|status| status.is_whole(NAME)) {
                    let limit = Duration::from_secs(2);
                    if connect(self.write(), SHOP, Some("shop"), limit).await.is_ok() {
                        return Ok(status.clone());
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        match tokio::time::timeout(UP_LIMIT, asking).await {
            Ok(result) => result,
            Err(_) => Err(DemoError::NotWhole { limit: UP_LIMIT, status: format!("{last:?}") }),
        }
    }

    /// The server of this name.
    pub fn server(&mut self, name: &str) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.name() == name)
    }

    /// The names of the servers that ordinary accounts may write to, asked of each directly.
    pub async fn writable(&self) -> Vec<String> {
        let mut names = Vec::new();
        for server in &self.servers {
            if server.is_writable().await.unwrap_or(false) {
                names.push(server.name().to_owned());
            }
        }
        names
    }

    /// Where logs and data are.
    pub fn directory(&self) -> &Path {
        &self.directory.path
    }

    /// The program that watchers and proxy run.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Ends the proxy and the watchers in order, then the servers.
    pub async fn stop(mut self) {
        while let Some(node) = self.nodes.pop() {
            if let Some(mut process) = node.process {
                process.terminate(Duration::from_secs(3)).await;
            }
        }
        // Nobody will read their data again, so they need not end in order.
        self.servers.clear();
    }

    fn check_processes(&mut self) -> Result<(), DemoError> {
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process
                && !process.is_running()
            {
                let log = tail(process.log(), 12);
                return Err(DemoError::Ended { name: node.id.clone(), log });
            }
        }
        Ok(())
    }
}

/// A private directory named after this process; those of processes that are gone are removed.
fn state_directory() -> Result<StateDirectory, DemoError> {
    const PREFIX: &str = "regent-demo-";
    let parent = std::env::temp_dir();
    for entry in fs::read_dir(&parent)?.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if owner
            .is_some_and(|id| id.parse::<u32>().is_ok() && !Path::new("/proc").join(id).exists())
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let path = parent.join(format!("{PREFIX}{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&path)?;
    Ok(StateDirectory { path, borrowed: false })
}

impl DatabaseFlavor {
    /// The name people know it by.
    pub fn title(self) -> &'static str {
        match self {
            DatabaseFlavor::Mysql => "MySQL",
            DatabaseFlavor::Mariadb => "MariaDB",
        }
    }
}
