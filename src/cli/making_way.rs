//! A backup that somebody asks for hears from the watchers when something goes before it. Where none of them
//! can be reached it is made all the same.

use super::args::Global;
use super::reach::{client, encoded};
use crate::api::client::Client;
use crate::api::types::UrgentBody;
use crate::decision::topology::ClusterName;
use crate::runtime::backup::{Priority, Turn};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// How long one request waits for news.
const WAIT: Duration = Duration::from_secs(30);
/// Between two attempts to reach a watcher.
const AGAIN: Duration = Duration::from_secs(2);

/// What a backup goes by, as long as this is kept.
pub(super) struct Hearing {
    pub turn: Turn,
    _listening: Option<AbortOnDropHandle<()>>,
}

impl Hearing {
    /// Begins to listen.
    pub(super) fn begin(global: &Global, cluster: &ClusterName) -> Hearing {
        let priority = Priority::new();
        let turn = priority.turn();
        let path = format!("/v1/clusters/{}/urgent", encoded(cluster.as_str()));
        let listen = |client| AbortOnDropHandle::new(tokio::spawn(hear(client, path, priority)));
        Hearing { turn, _listening: client(global).ok().map(listen) }
    }
}

async fn hear(client: Client, path: String, priority: Priority) {
    let mut known = false;
    loop {
        let path = format!("{path}?wait={}&unless={known}", WAIT.as_secs());
        let told = client.get::<UrgentBody>(&path, WAIT).await;
        // Where nobody tells when it begins, nobody would tell when it ends.
        known = told.as_ref().is_ok_and(|read| read.view.urgent);
        priority.set(known);
        if told.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
    }
}
