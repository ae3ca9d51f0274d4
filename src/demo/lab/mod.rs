//! Three data centers on one machine: a network namespace for each host, joined by a router that drops
//! or delays what it is told to.
//!
//! Each host has one link, to the router, and every packet between two hosts passes it; so whatever is
//! cut is cut in one place. A desk beside the data centers reaches every host whatever is cut: there
//! stands whoever starts, hurts and judges. Namespaces live as long as the process that made them, and
//! nobody outside sees their addresses, so that labs side by side do not meet.

mod cuts;
mod faults;
mod namespace;
mod relay;
mod volume;

pub use cuts::{Cut, Place};
pub use faults::{Fault, FaultError};
pub use volume::Volume;

use super::process::Host;
use super::sites::{Site, Sites};
use cuts::rules;
use namespace::Namespace;
pub use namespace::inside;
use relay::Relay;
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};

/// The data centers, in the order of their networks, 10.77.1.0/24 being the first one's.
pub const DATA_CENTERS: [&str; 3] = ["paris", "london", "cloud"];

/// Every host: its name, its data center and the last part of its address.
const HOSTS: [(&str, &str, u8); 10] = [
    ("db1", "paris", 11),
    ("db2", "london", 11),
    ("db3", "cloud", 11),
    ("w1", "paris", 5),
    ("w2", "london", 5),
    ("w3", "cloud", 5),
    ("proxy1", "paris", 20),
    ("proxy2", "london", 20),
    ("shop1", "paris", 30),
    ("shop2", "london", 30),
];
const DESK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 255, 1);
const DELAYING: Ipv4Addr = Ipv4Addr::new(10, 77, 254, 2);

/// Why the lab could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// This machine or this user cannot have one.
    #[error("no data centers on this machine: {0}")]
    Impossible(String),
    /// A program refused.
    #[error("{program}: {said}")]
    Refused {
        /// Which one.
        program: String,
        /// What it printed.
        said: String,
    },
    /// A file, process or thread could not be made.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The data centers with their hosts. Dropping it removes everything, when what ran in it has ended.
#[derive(Debug)]
pub struct Lab {
    relay: Option<Relay>,
    shops: BTreeMap<&'static str, Option<Runtime>>,
    cuts: Vec<Cut>,
    hosts: BTreeMap<&'static str, Member>,
    desk: Namespace,
    delaying: Namespace,
    router: Namespace,
}

#[derive(Debug)]
struct Member {
    data_center: &'static str,
    address: Ipv4Addr,
    namespace: Namespace,
}

impl Lab {
    /// Makes all hosts and links them. Needs root, and `ip`, `iptables` and `nsenter`.
    pub fn set_up() -> Result<Lab, LabError> {
        Lab::is_possible()?;
        let router = Namespace::new()?;
        router.sh("echo 1 >/proc/sys/net/ipv4/ip_forward
            for name in all default; do echo 0 >/proc/sys/net/ipv4/conf/$name/rp_filter; done")?;
        router.ip("link set lo up")?;
        let desk = Namespace::new()?;
        link(&router, "desk", &desk, DESK)?;
        let delaying = Namespace::new()?;
        link(&router, "delaying", &delaying, DELAYING)?;
        let mut hosts = BTreeMap::new();
        for (name, data_center, number) in HOSTS {
            let namespace = Namespace::new()?;
            let address = Ipv4Addr::new(10, 77, network_of(data_center), number);
            link(&router, name, &namespace, address)?;
            hosts.insert(name, Member { data_center, address, namespace });
        }
        let mut shops = BTreeMap::new();
        for (name, host) in hosts.iter().filter(|(name, _)| name.starts_with("shop")) {
            shops.insert(*name, Some(host.namespace.runtime(1)?));
        }
        let mut lab = Lab { relay: None, shops, cuts: Vec::new(), hosts, desk, delaying, router };
        lab.heal()?;
        Ok(lab)
    }

    /// Whether this user may make namespaces here, and has the programs for it.
    pub fn is_possible() -> Result<(), LabError> {
        if !rustix::process::geteuid().is_root() {
            return Err(LabError::Impossible("only root makes network namespaces".to_owned()));
        }
        for program in ["ip", "iptables-restore", "nsenter", "unshare"] {
            let found = std::process::Command::new(program).arg("--version").output();
            if found.is_err() {
                let text = format!("{program} is missing; run scripts/setup");
                return Err(LabError::Impossible(text));
            }
        }
        Ok(())
    }

    /// The network of the desk.
    pub fn desk(&self) -> &Path {
        self.desk.path()
    }

    /// Where a cluster's members stand: in each data center a server and a watcher, and in the first two
    /// a proxy.
    pub fn sites(&self) -> Sites {
        let of = |prefix: &str, ports: &[u16]| {
            let chosen = self.hosts.iter().filter(|(name, _)| name.starts_with(prefix));
            let site = |(name, member): (&&'static str, &Member)| Site {
                name,
                data_center: member.data_center,
                host: Host {
                    address: member.address,
                    network: Some(member.namespace.path().to_owned()),
                },
                ports: ports.to_vec(),
            };
            chosen.map(site).collect()
        };
        Sites {
            servers: of("db", &[3306]),
            watchers: of("w", &[7401, 7400]),
            proxies: of("proxy", &[3306, 3307]),
        }
    }

    /// The runtime of the shop beside a proxy: whatever it spawns connects from there.
    pub fn shop_beside(&self, proxy: &str) -> Option<&Handle> {
        let place = self.hosts.get(proxy)?.data_center;
        let mut shops = self.shops.iter();
        let found = shops.find(|(name, _)| self.data_center(name) == Some(place));
        found.and_then(|(_, runtime)| runtime.as_ref()).map(Runtime::handle)
    }

    /// The data center of a host.
    pub fn data_center(&self, host: &str) -> Option<&'static str> {
        self.hosts.get(host).map(|member| member.data_center)
    }

    /// Drops further packets, from now on.
    pub fn cut(&mut self, cuts: impl IntoIterator<Item = Cut>) -> Result<(), LabError> {
        self.cuts.extend(cuts);
        self.apply()
    }

    /// Drops nothing any more.
    pub fn heal(&mut self) -> Result<(), LabError> {
        self.cuts.clear();
        self.apply()
    }

    /// Delays every packet between data centers by this much, and loses this share of them.
    pub fn slow_down(&mut self, delay: Duration, loss: f64) -> Result<(), LabError> {
        self.speed_up()?;
        self.relay = Some(Relay::start(self.delaying.path(), delay, loss)?);
        let mut orders = "rule add iif delaying lookup main pref 10
            route replace default via 10.77.254.2 dev delaying table 100\n"
            .to_owned();
        for (from, to) in directions() {
            orders += &format!("rule add from {from} to {to} lookup 100 pref 20\n");
        }
        self.router.ip(&orders)
    }

    /// Ends the delay.
    pub fn speed_up(&mut self) -> Result<(), LabError> {
        if self.relay.is_none() {
            return Ok(());
        }
        let mut orders = "rule del pref 10\n".to_owned();
        for _ in directions() {
            orders += "rule del pref 20\n";
        }
        self.router.ip(&orders)?;
        // What it holds back still arrives while it ends.
        self.relay = None;
        Ok(())
    }

    fn apply(&self) -> Result<(), LabError> {
        let address = |name: &str| self.hosts.get(name).map(|member| member.address);
        self.router.run("iptables-restore", &[], &rules(&self.cuts, address))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for runtime in self.shops.values_mut().filter_map(Option::take) {
            runtime.shutdown_background();
        }
    }
}

fn network_of(data_center: &str) -> u8 {
    let place = DATA_CENTERS.iter().position(|name| *name == data_center);
    place.map_or(0, |place| place as u8 + 1)
}

fn subnet(data_center: &str) -> String {
    format!("10.77.{}.0/24", network_of(data_center))
}

/// From each data center to each other one.
fn directions() -> Vec<(String, String)> {
    let pairs = DATA_CENTERS.iter().flat_map(|from| DATA_CENTERS.iter().map(move |to| (from, to)));
    pairs.filter(|(from, to)| from != to).map(|(from, to)| (subnet(from), subnet(to))).collect()
}

/// The largest packets there are, so that nothing is ever split and put together again.
const MTU: u32 = 65_535;

fn link(
    router: &Namespace,
    name: &str,
    host: &Namespace,
    address: Ipv4Addr,
) -> Result<(), LabError> {
    let peer = host.path().display();
    router.ip(&format!(
        "link add {name} mtu {MTU} type veth peer name eth0 mtu {MTU} netns {peer}
         address add {ROUTER}/32 dev {name}
         link set {name} up
         route add {address}/32 dev {name}"
    ))?;
    host.ip(&format!(
        "link set lo up
         address add {address}/32 dev eth0
         link set eth0 up
         route add {ROUTER}/32 dev eth0
         route add default via {ROUTER} dev eth0 src {address}"
    ))
}
