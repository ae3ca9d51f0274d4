//! What one seed simulates: who there is, where it stands, and how the servers are set up.

use crate::random::Random;
use crate::world::{HEALED, HEALED_LATE};
use regent::decision::rules::RuleSet;
use regent::decision::topology::{
    AcknowledgedIn, ClusterName, ClusterSpec, Clusters, DataCenter, Durability, Endpoint, Fence,
    OnQuorumLoss, ServerName, ServerSpec, Timing,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Data centers by number.
pub const PLACES: [&str; 3] = ["paris", "london", "cloud"];

/// A bug made on purpose, to show that the invariants notice it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// None: the real thing.
    None,
    /// Leaders count leases as over long before the proxies do.
    LeaseNotAwaited,
    /// Leaders are told executed positions for received ones.
    ReceivedIgnored,
    /// Each watcher decides alone.
    NoQuorum,
    /// Nobody is told that what a server holds counts for nothing, as its data goes.
    ReplacedTrusted,
}

/// One seed's world before it starts.
#[derive(Clone, Debug)]
pub struct Setting {
    pub seed: u64,
    pub flaw: Flaw,
    /// Data center of each watcher, server and proxy.
    pub watchers: Vec<usize>,
    pub servers: Vec<usize>,
    pub proxies: Vec<usize>,
    pub durability: Durability,
    pub timing: Timing,
    /// Replication threads stay stopped when a server restarts (`skip_replica_start`).
    pub skip_start: bool,
    /// The first primary comes back writable when it restarts, until told otherwise.
    pub opens_at_restart: bool,
    /// Semi-sync settings are forgotten at a restart.
    pub forgets_semi_sync: bool,
    /// A setting of every server endangers what it received (`relay_log_recovery`).
    pub endangered: bool,
    /// For a while at first two servers take writes, so that nobody can say which is the primary.
    pub unclear: bool,
    /// A command takes servers out of service.
    pub fence: bool,
    /// Probes get in although all connection slots are taken.
    pub side_door: bool,
    /// The shipped rules in force.
    pub rules: &'static str,
    /// A backup is to be made while there are faults.
    pub backups: bool,
    /// People give servers other data while there are faults.
    pub replaces: bool,
    /// In a thousand: messages lost and doubled while there are faults.
    pub loss: u64,
    pub doubled: u64,
}

impl Setting {
    pub fn draw(seed: u64, flaw: Flaw) -> Setting {
        let mut random = Random::new(seed ^ 0x5e77_1e55);
        let lossless = |acknowledged_in| Durability::Lossless { acknowledged_in };
        let fence = Durability::BestEffort { on_quorum_loss: OnQuorumLoss::Fence };
        let durability = match random.weighted(&[5, 3, 3]) {
            0 => lossless(AcknowledgedIn::Any),
            1 => lossless(AcknowledgedIn::OtherDataCenter),
            _ => fence,
        };
        let watchers = if random.permille(200) { vec![0, 1, 2, 0, 1] } else { vec![0, 1, 2] };
        let servers = match random.weighted(&[4, 3, 2]) {
            0 => vec![0, 0, 1],
            1 => vec![0, 1, 2],
            _ => vec![0, 0, 1, 1],
        };
        Setting {
            seed,
            flaw,
            watchers,
            servers,
            proxies: vec![0, 1],
            durability: match flaw {
                Flaw::LeaseNotAwaited => fence,
                Flaw::ReceivedIgnored | Flaw::ReplacedTrusted => lossless(AcknowledgedIn::Any),
                Flaw::None | Flaw::NoQuorum => durability,
            },
            timing: Timing::default(),
            skip_start: random.permille(700),
            opens_at_restart: random.permille(200),
            forgets_semi_sync: random.permille(150),
            loss: [0, 5, 30][random.index(3)],
            doubled: [0, 10][random.index(2)],
            endangered: random.permille(50),
            unclear: random.permille(50),
            fence: random.permille(250),
            side_door: random.permille(300),
            backups: false,
            replaces: false,
            rules: if random.permille(200) { "cross-data-center" } else { "default" },
        }
    }

    /// When everything must be well.
    pub fn healed(&self) -> u64 {
        if self.backups || self.replaces { HEALED_LATE } else { HEALED }
    }

    pub fn lossless(&self) -> bool {
        matches!(self.durability, Durability::Lossless { .. })
    }

    /// The watchers' own timing.
    pub fn watcher_timing(&self) -> Timing {
        match self.flaw {
            Flaw::LeaseNotAwaited => Timing { lease: Duration::from_millis(1), ..self.timing },
            _ => self.timing,
        }
    }

    /// Faults do not last as long here as rules are patient.
    fn rules(&self) -> RuleSet {
        let mut set = RuleSet::shipped(self.rules).unwrap();
        for rule in set.rules.iter_mut().filter(|rule| rule.confirm > Duration::from_secs(2)) {
            rule.confirm = Duration::from_secs(2);
        }
        set
    }

    pub fn clusters(&self) -> Clusters {
        let server = |(number, place): (usize, &usize)| {
            let place = DataCenter::from(PLACES[*place]);
            let command = vec!["power-off".to_owned()];
            let fence = Fence { command, limit: Duration::from_secs(2) };
            ServerSpec {
                fence: self.fence.then_some(fence),
                ..ServerSpec::new(server_name(number), address(number), place)
            }
        };
        let spec = ClusterSpec {
            name: cluster(),
            servers: self.servers.iter().enumerate().map(server).collect(),
            durability: self.durability,
            rules: self.rules(),
            max_replica_lag: Duration::from_secs(5),
        };
        BTreeMap::from([(cluster(), Arc::new(spec))])
    }
}

/// The one cluster.
pub fn cluster() -> ClusterName {
    ClusterName::from("shop")
}

pub fn server_name(number: usize) -> ServerName {
    ServerName(format!("db{}", number + 1))
}

/// The number of a server by its name.
pub fn server_number(name: &ServerName) -> usize {
    name.as_str()[2..].parse::<usize>().unwrap() - 1
}

pub fn address(number: usize) -> Endpoint {
    Endpoint { host: format!("10.1.0.{}", number + 1), port: 3306 }
}
