//! Everything the demonstration runs: servers, watchers, proxy, and the directory they share.

use super::DemoError;
use super::answers::{Api, Status};
use super::ports::free_ports;
use super::process::{Launch, Process, tail};
use super::servers::accounts::{MONITOR, REPLICATION, SHOP};
use super::servers::{DatabaseFlavor, Installation, Server, ServerOptions, ServerSet, connect};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const NAME: &str = "shop";
const SERVERS: [(&str, &str, &str); 3] =
    [("db1", "paris", ", promotion: prefer"), ("db2", "paris", ""), ("db3", "london", "")];
const WATCHERS: [(&str, &str); 3] = [("w1", "paris"), ("w2", "london"), ("w3", "cloud")];
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
    /// Where the first proxy takes writes.
    pub write_port: u16,
    /// Where the first proxy takes reads.
    pub read_port: u16,
    /// The configuration file of the watchers and the first proxy.
    pub configuration: PathBuf,
    program: PathBuf,
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
    /// `lossless` or `best_effort`.
    pub durability: &'static str,
}

/// A watcher or proxy, running or not.
#[derive(Debug)]
struct Node {
    id: String,
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
        ClusterOptions { flavor, program: None, directory: None, durability: "lossless" }
    }
}

impl Cluster {
    /// The name it has in its configuration.
    pub const NAME: &str = NAME;

    /// The ids of its watchers.
    pub const WATCHERS: [&str; 3] = [WATCHERS[0].0, WATCHERS[1].0, WATCHERS[2].0];

    /// Starts three servers that replicate, and writes the configuration that names them.
    pub async fn start_servers(options: &ClusterOptions) -> Result<Cluster, DemoError> {
        let installation = Installation::find(options.flavor)?;
        let directory = match &options.directory {
            Some(path) => StateDirectory { path: path.clone(), borrowed: true },
            None => state_directory()?,
        };
        let ports = free_ports(SERVERS.len() + 2 * WATCHERS.len() + 2);
        let [db1, db2, db3, peers_and_apis @ .., write_port, read_port] = ports.as_slice() else {
            return Err(DemoError::NoPorts);
        };
        let set = ServerSet::new(directory.path.join("servers"), installation)?;
        set.template().await?;
        let start = |name: &'static str, port: u16| set.start(name, port, ServerOptions::default());
        let (first, second, third) =
            tokio::try_join!(start("db1", *db1), start("db2", *db2), start("db3", *db3))?;
        set.replicate(&first, &[&second, &third]).await?;
        let (peers, apis) = peers_and_apis.split_at(WATCHERS.len());
        let urls = apis.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let configuration =
            write_configuration(&directory.path, [peers, apis, &ports], options.durability)?;
        let program = match &options.program {
            Some(program) => program.clone(),
            None => std::env::current_exe()?,
        };
        Ok(Cluster {
            servers: vec![first, second, third],
            nodes: Vec::new(),
            api: Api::new(urls)?,
            write_port: *write_port,
            read_port: *read_port,
            configuration,
            program,
            directory,
        })
    }

    /// Starts the watchers and the proxy.
    pub fn start_regent(&mut self) -> Result<(), DemoError> {
        for (id, _) in WATCHERS {
            let store = self.directory.path.join(id);
            fs::create_dir_all(&store)?;
            let configuration = self.configuration.clone();
            let more = ["--data-dir".into(), store.into_os_string()];
            self.add_node("watch", id, configuration, more.to_vec())?;
        }
        self.add_node("proxy", "proxy1", self.configuration.clone(), Vec::new())
    }

    /// Starts another watcher or proxy, which is part of the cluster from now on.
    pub fn add_node(
        &mut self,
        command: &str,
        id: &str,
        configuration: PathBuf,
        more: Vec<OsString>,
    ) -> Result<(), DemoError> {
        let mut arguments: Vec<OsString> =
            vec![command.into(), "--config".into(), configuration.into_os_string()];
        arguments.extend(["--id".into(), id.into()]);
        arguments.extend(more);
        self.nodes.push(Node { id: id.to_owned(), arguments, process: None });
        self.start_node(id)
    }

    /// Starts a watcher or proxy that was killed, on what it left on disk; nothing happens when it runs.
    pub fn start_node(&mut self, id: &str) -> Result<(), DemoError> {
        let log = self.log_of(id);
        let Some(node) = self.nodes.iter_mut().find(|node| node.id == id) else {
            return Ok(());
        };
        if !node.process.as_mut().is_some_and(Process::is_running) {
            let (program, arguments) = (self.program.clone(), node.arguments.clone());
            node.process = Some(Process::start(Launch { program, arguments, log, input: None })?);
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
                    if connect(self.write_port, SHOP, Some("shop"), limit).await.is_ok() {
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

fn write_configuration(
    directory: &Path,
    [peers, apis, server_ports]: [&[u16]; 3],
    durability: &str,
) -> Result<PathBuf, DemoError> {
    let mut text = String::from("# Written by `regent demo`.\nwatchers:\n");
    for (index, (id, data_center)) in WATCHERS.iter().enumerate() {
        text += &format!(
            "  - {{ id: {id}, data_center: {data_center}, peer: 127.0.0.1:{}, api: 127.0.0.1:{} }}\n",
            peers[index], apis[index]
        );
    }
    text += &format!("clusters:\n  - name: {NAME}\n    servers:\n");
    for ((name, data_center, more), port) in SERVERS.iter().zip(server_ports) {
        text += &format!(
            "      - {{ name: {name}, address: 127.0.0.1:{port}, data_center: {data_center}{more} }}\n"
        );
    }
    text += "    credentials:\n";
    for (role, account) in [("monitor", MONITOR), ("replication", REPLICATION)] {
        let path = directory.join(format!("{role}.password"));
        write_private(&path, account.password)?;
        // A JSON string is a YAML string, whatever the path holds.
        let quoted = serde_json::Value::from(path.to_string_lossy());
        text += &format!("      {role}: {{ user: {}, password_file: {quoted} }}\n", account.user);
    }
    text += &format!("    durability: {durability}\n    rules: default\n");
    let [.., write, read] = server_ports else {
        return Err(DemoError::NoPorts);
    };
    text += &format!(
        "    proxy: {{ write: 127.0.0.1:{write}, read: 127.0.0.1:{read}, max_replica_lag: 5s }}\n"
    );
    let path = directory.join("regent.yaml");
    fs::write(&path, text)?;
    Ok(path)
}

fn write_private(path: &Path, content: &str) -> Result<(), DemoError> {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    Ok(writeln!(file, "{content}")?)
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
