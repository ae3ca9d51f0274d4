//! Writes canary rows on primaries, over a connection or two each.

use super::mysql::canary::Canary;
use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::decision::topology::{Epoch, ServerKey, WatcherName};
use crate::watcher::{CanaryResult, Input};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc};

/// Where canary rows are written.
pub struct Canaries {
    canaries: BTreeMap<ServerKey, Arc<Mutex<Canary>>>,
    own: WatcherName,
    clock: Clock,
    inbox: mpsc::Sender<Input>,
}

impl Canaries {
    /// Knows how to reach every declared server; connects when first asked to.
    pub fn new(
        config: &Config,
        own: &WatcherName,
        clock: Clock,
        inbox: &mpsc::Sender<Input>,
    ) -> Canaries {
        let mut canaries = BTreeMap::new();
        for cluster in &config.clusters {
            for server in &cluster.spec.servers {
                let key =
                    ServerKey { cluster: cluster.spec.name.clone(), server: server.name.clone() };
                let canary = Canary::new(server.clone(), cluster.credentials.monitor.clone());
                canaries.insert(key, Arc::new(Mutex::new(canary)));
            }
        }
        Canaries { canaries, own: own.clone(), clock, inbox: inbox.clone() }
    }

    /// Writes the row of `epoch` in a task of its own, unless `permit` has passed by then.
    pub fn write(&self, server: ServerKey, epoch: Epoch, permit: Moment) {
        let found = self.canaries.get(&server).cloned();
        let (own, clock, inbox) = (self.own.clone(), self.clock, self.inbox.clone());
        tokio::spawn(async move {
            let result = match found {
                Some(canary) if clock.now().moment <= permit => {
                    canary.lock().await.write(&own, epoch).await
                }
                _ => CanaryResult::Unknown,
            };
            let _ = inbox.send(Input::CanaryDone { server, result }).await;
        });
    }
}

impl fmt::Debug for Canaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canaries").field("servers", &self.canaries.len()).finish_non_exhaustive()
    }
}
