//! One number for what all watchers must agree upon.

use super::{Config, Security, schedules};
use std::fmt::Write;

impl Config {
    /// Equal on two watchers exactly when they were given the same declaration. Secrets and paths
    /// of one machine are no part of it, nor are comments, order of keys or defaults written out.
    pub fn fingerprint(&self) -> String {
        let mut text = Canonical(String::new());
        for watcher in &self.watchers {
            text.line(&["watcher", watcher.id.as_str(), watcher.data_center.as_str()]);
            text.line(&["at", &watcher.peer.to_string(), &watcher.api.to_string()]);
        }
        for cluster in &self.clusters {
            let spec = &cluster.spec;
            text.line(&["cluster", spec.name.as_str()]);
            for server in &spec.servers {
                let address = server.address.to_string();
                let promotion = format!("{:?}", server.promotion);
                let data_center = server.data_center.as_str();
                text.line(&["server", server.name.as_str(), &address, data_center, &promotion]);
                let fence = server.fence.as_ref().map(|fence| fence.limit);
                let more = format!("{:?} {:?} {fence:?}", server.follows, server.admin_address);
                text.line(&["further", &more]);
            }
            text.line(&["durability", &format!("{:?}", spec.durability)]);
            text.line(&["rules", &format!("{:?}", spec.rules)]);
            text.line(&["lag", &spec.max_replica_lag.as_millis().to_string()]);
            let users = &cluster.credentials;
            text.line(&["users", &users.monitor.user, &users.replication.user]);
            if let Some(proxy) = &cluster.proxy {
                let read = proxy.read.as_ref().map_or_else(String::new, ToString::to_string);
                let limits = format!("{} {}", proxy.hold.as_millis(), proxy.max_connections);
                text.line(&["proxy", &proxy.write.to_string(), &read, &limits]);
            }
            for line in cluster.backups.iter().flat_map(schedules::told) {
                text.line(&["backups", &line]);
            }
        }
        text.line(&["timing", &format!("{:?}", self.timing)]);
        let security = match self.security {
            Some(Security::Files(_)) => "on",
            Some(Security::Insecure) => "insecure",
            None => "off",
        };
        text.line(&["security", security]);
        format!("{:032x}", fnv(text.0.as_bytes()))
    }
}

/// Text in which no two different declarations look the same.
struct Canonical(String);

impl Canonical {
    fn line(&mut self, words: &[&str]) {
        for word in words {
            // Lengths keep `a b` and `a`, `b` apart.
            write!(self.0, "{}:{word},", word.len()).expect("a String takes any text");
        }
        self.0.push('\n');
    }
}

/// FNV-1a with 128 bits: the same in every version and on every machine.
fn fnv(bytes: &[u8]) -> u128 {
    const START: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(START, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}
