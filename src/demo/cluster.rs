//! Everything the demonstration runs: servers, watchers, proxy, and the directory they share.

use super::answers::{Api, Status};
use super::ports::free_ports;
use super::process::{Launch, Process, tail};
use super::servers::accounts::{MONITOR, REPLICATION, SHOP};
use super::servers::{DatabaseFlavor, Installation, Server, ServerOptions, ServerSet, connect};
use super::{DemoError, DemoOptions};
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

/// A running cluster. Dropping it kills every process and removes the directory.
#[derive(Debug)]
pub(super) struct Cluster {
    // Declared before the directory: processes end before their files go.
    pub(super) servers: Vec<Server>,
    processes: Vec<(String, Process)>,
    pub(super) api: Api,
    pub(super) write_port: u16,
    pub(super) read_port: u16,
    pub(super) configuration: PathBuf,
    program: PathBuf,
    directory: StateDirectory,
}

#[derive(Debug)]
struct StateDirectory(PathBuf);

impl Drop for StateDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Cluster {
    /// Starts three servers that replicate, and writes the configuration that names them.
    pub(super) async fn start_servers(options: &DemoOptions) -> Result<Cluster, DemoError> {
        let installation = Installation::find(options.flavor)?;
        let directory = state_directory()?;
        let ports = free_ports(SERVERS.len() + 2 * WATCHERS.len() + 2);
        let [db1, db2, db3, peers_and_apis @ .., write_port, read_port] = ports.as_slice() else {
            return Err(DemoError::NoPorts);
        };
        let set = ServerSet::new(directory.0.join("servers"), installation)?;
        set.template().await?;
        let start = |name: &'static str, port: u16| set.start(name, port, ServerOptions::default());
        let (first, second, third) =
            tokio::try_join!(start("db1", *db1), start("db2", *db2), start("db3", *db3))?;
        set.replicate(&first, &[&second, &third]).await?;
        let (peers, apis) = peers_and_apis.split_at(WATCHERS.len());
        let urls = apis.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let configuration = write_configuration(&directory.0, peers, apis, &ports)?;
        let program = match &options.program {
            Some(program) => program.clone(),
            None => std::env::current_exe()?,
        };
        Ok(Cluster {
            servers: vec![first, second, third],
            processes: Vec::new(),
            api: Api::new(urls)?,
            write_port: *write_port,
            read_port: *read_port,
            configuration,
            program,
            directory,
        })
    }

    /// Starts the watchers and the proxy.
    pub(super) fn start_regent(&mut self) -> Result<(), DemoError> {
        for (id, _) in WATCHERS {
            let store = self.directory.0.join(id);
            fs::create_dir_all(&store)?;
            let arguments = ["--id".into(), id.into(), "--data-dir".into(), store.into_os_string()];
            self.start(id, "watch", arguments.to_vec())?;
        }
        self.start("proxy1", "proxy", vec!["--id".into(), "proxy1".into()])
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
    pub(super) fn server(&mut self, name: &str) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.name() == name)
    }

    /// The names of the servers that ordinary accounts may write to, asked of each directly.
    pub(super) async fn writable(&self) -> Vec<String> {
        let mut names = Vec::new();
        for server in &self.servers {
            if server.is_writable().await.unwrap_or(false) {
                names.push(server.name().to_owned());
            }
        }
        names
    }

    /// Where logs and data are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory.0
    }

    /// The program that watchers and proxy run.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Ends the proxy and the watchers in order, then the servers.
    pub(super) async fn stop(mut self) {
        while let Some((_, mut process)) = self.processes.pop() {
            process.terminate(Duration::from_secs(3)).await;
        }
        // Nobody will read their data again, so they need not end in order.
        self.servers.clear();
    }

    fn start(&mut self, id: &str, command: &str, more: Vec<OsString>) -> Result<(), DemoError> {
        let mut arguments: Vec<OsString> =
            vec![command.into(), "--config".into(), self.configuration.clone().into_os_string()];
        arguments.extend(more);
        let log = self.directory.0.join(format!("{id}.log"));
        let launch = Launch { program: self.program.clone(), arguments, log, input: None };
        self.processes.push((id.to_owned(), Process::start(launch)?));
        Ok(())
    }

    fn check_processes(&mut self) -> Result<(), DemoError> {
        for (name, process) in &mut self.processes {
            if !process.is_running() {
                return Err(DemoError::Ended { name: name.clone(), log: tail(process.log(), 12) });
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
    Ok(StateDirectory(path))
}

fn write_configuration(
    directory: &Path,
    peers: &[u16],
    apis: &[u16],
    server_ports: &[u16],
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
    text += "    durability: lossless\n    rules: default\n";
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
