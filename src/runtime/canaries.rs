//! Writes canary rows on primaries, over one connection each.

use super::mysql::canary::{CanaryError, write_canary};
use super::mysql::connect::connect;
use crate::clock::{Clock, Moment};
use crate::config::{Account, Config};
use crate::decision::topology::{Endpoint, Epoch, ServerKey, WatcherName};
use crate::watcher::{CanaryResult, Input};
use mysql_async::Conn;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tracing::debug;

/// How long one row may take once there is a connection.
const LIMIT: Duration = Duration::from_secs(2);

/// Where canary rows are written.
pub struct Canaries {
    perches: BTreeMap<ServerKey, Arc<Perch>>,
    own: WatcherName,
    clock: Clock,
    inbox: mpsc::Sender<Input>,
}

struct Perch {
    address: Endpoint,
    account: Account,
    conn: Mutex<Option<Conn>>,
}

impl Canaries {
    /// Knows how to reach every declared server; connects when first asked to.
    pub fn new(
        config: &Config,
        own: &WatcherName,
        clock: Clock,
        inbox: &mpsc::Sender<Input>,
    ) -> Canaries {
        let mut perches = BTreeMap::new();
        for cluster in &config.clusters {
            for server in &cluster.spec.servers {
                let key =
                    ServerKey { cluster: cluster.spec.name.clone(), server: server.name.clone() };
                let perch = Perch {
                    address: server.address.clone(),
                    account: cluster.credentials.monitor.clone(),
                    conn: Mutex::new(None),
                };
                perches.insert(key, Arc::new(perch));
            }
        }
        Canaries { perches, own: own.clone(), clock, inbox: inbox.clone() }
    }

    /// Writes the row of `epoch` in a task of its own, unless `permit` has passed by then.
    pub fn write(&self, server: ServerKey, epoch: Epoch, permit: Moment) {
        let found = self.perches.get(&server).cloned();
        let (own, clock, inbox) = (self.own.clone(), self.clock, self.inbox.clone());
        tokio::spawn(async move {
            let result = match found {
                Some(perch) if clock.now().moment <= permit => perch.write(&own, epoch).await,
                _ => CanaryResult::Unknown,
            };
            let _ = inbox.send(Input::CanaryDone { server, result }).await;
        });
    }
}

impl Perch {
    async fn write(&self, own: &WatcherName, epoch: Epoch) -> CanaryResult {
        let mut place = self.conn.lock().await;
        let kept = match place.take() {
            Some(conn) => Some(conn),
            None => connect(&self.address, &self.account, LIMIT).await.ok(),
        };
        let Some(mut conn) = kept else { return CanaryResult::Unknown };
        match write_canary(&mut conn, own, epoch, LIMIT).await {
            Ok(()) => {
                *place = Some(conn);
                CanaryResult::Written
            }
            Err(CanaryError::Stalled) => CanaryResult::Stalled,
            Err(CanaryError::Database(error)) => {
                debug!(address = %self.address, "canary row not written: {error}");
                CanaryResult::Unknown
            }
        }
    }
}

impl fmt::Debug for Canaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canaries").field("servers", &self.perches.len()).finish_non_exhaustive()
    }
}
