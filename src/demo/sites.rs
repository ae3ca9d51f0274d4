//! Where the members of a cluster stand, and the configuration that says so.

use super::DemoError;
use super::ports::free_ports;
use super::process::Host;
use super::servers::accounts::{MONITOR, REPLICATION};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What rules of the caller's are called, beside the configuration.
const RULES: &str = "rules.yaml";

/// The members of a cluster and their places.
#[derive(Clone, Debug)]
pub struct Sites {
    /// The database servers; the first one begins as the primary.
    pub servers: Vec<Site>,
    /// The watchers.
    pub watchers: Vec<Site>,
    /// The proxies, which all listen on the same ports, each on its own host.
    pub proxies: Vec<Site>,
}

/// The place of one member.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its name in the configuration.
    pub name: &'static str,
    /// The data center it stands in.
    pub data_center: &'static str,
    /// Where it runs.
    pub host: Host,
    /// A server's port; a watcher's for peers and for HTTP; a proxy's for writes and for reads.
    pub ports: Vec<u16>,
}

const SERVERS: [(&str, &str); 3] = [("db1", "paris"), ("db2", "paris"), ("db3", "london")];
const WATCHERS: [(&str, &str); 3] = [("w1", "paris"), ("w2", "london"), ("w3", "cloud")];
const PROXY: (&str, &str) = ("proxy1", "paris");

impl Site {
    /// The address of its first port, or of another.
    pub fn address(&self, port: usize) -> SocketAddr {
        let port = self.ports.get(port).copied().unwrap_or_default();
        SocketAddr::new(self.host.address.into(), port)
    }
}

impl Sites {
    /// Everything on loopback, on ports that are free.
    pub fn loopback() -> Result<Sites, DemoError> {
        let mut ports = free_ports(SERVERS.len() + 2 * WATCHERS.len() + 2).into_iter();
        let mut site = |(name, data_center), count| {
            let ports: Vec<u16> = ports.by_ref().take(count).collect();
            match ports.len() == count {
                true => Ok(Site { name, data_center, host: Host::loopback(), ports }),
                false => Err(DemoError::NoPorts),
            }
        };
        Ok(Sites {
            servers: SERVERS.into_iter().map(|it| site(it, 1)).collect::<Result<_, _>>()?,
            watchers: WATCHERS.into_iter().map(|it| site(it, 2)).collect::<Result<_, _>>()?,
            proxies: vec![site(PROXY, 2)?],
        })
    }

    /// Writes the configuration, with files for the passwords, into a directory.
    pub(super) fn configure(
        &self,
        cluster: &str,
        (durability, rules): (&str, Option<&str>),
        directory: &Path,
    ) -> Result<PathBuf, DemoError> {
        let mut text = String::from("# Written by `regent demo`.\nwatchers:\n");
        for site in &self.watchers {
            let (peer, api) = (site.address(0), site.address(1));
            let Site { name, data_center, .. } = site;
            text += &format!(
                "  - {{ id: {name}, data_center: {data_center}, peer: {peer}, api: {api} }}\n"
            );
        }
        if self.watchers.iter().any(|site| !site.host.address.is_loopback()) {
            text += "security: { insecure: true }\n";
        }
        text += &format!("clusters:\n  - name: {cluster}\n    servers:\n");
        for (number, site) in self.servers.iter().enumerate() {
            let Site { name, data_center, .. } = site;
            let address = site.address(0);
            let promotion = if number == 0 { ", promotion: prefer" } else { "" };
            text += &format!(
                "      - {{ name: {name}, address: {address}, data_center: {data_center}{promotion} }}\n"
            );
        }
        text += "    credentials:\n";
        for (role, account) in [("monitor", MONITOR), ("replication", REPLICATION)] {
            let path = directory.join(format!("{role}.password"));
            write_private(&path, account.password)?;
            // A JSON string is a YAML string, whatever the path holds.
            let quoted = serde_json::Value::from(path.to_string_lossy());
            text +=
                &format!("      {role}: {{ user: {}, password_file: {quoted} }}\n", account.user);
        }
        let rules = match rules {
            Some(rules) => {
                fs::write(directory.join(RULES), rules)?;
                RULES
            }
            None => "default",
        };
        text += &format!("    durability: {durability}\n    rules: {rules}\n");
        let [write, read] = self.proxy_listeners();
        text += &format!("    proxy: {{ write: {write}, read: {read}, max_replica_lag: 5s }}\n");
        let path = directory.join("regent.yaml");
        fs::write(&path, text)?;
        Ok(path)
    }

    /// One configuration serves all proxies, so several hosts listen on every address they have.
    fn proxy_listeners(&self) -> [SocketAddr; 2] {
        let [first, ..] = self.proxies.as_slice() else {
            return [SocketAddr::from(([0, 0, 0, 0], 0)); 2];
        };
        [0, 1].map(|port| match first.host.address.is_loopback() {
            true => first.address(port),
            false => SocketAddr::from(([0, 0, 0, 0], first.address(port).port())),
        })
    }
}

fn write_private(path: &Path, content: &str) -> Result<(), DemoError> {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    Ok(writeln!(file, "{content}")?)
}
