//! A backup that somebody asks for hears from the watchers when something goes before it. Where none of them
//! can be reached it is made all the same.

use super::args::Global;
use super::reach::{client, encoded};
use crate::api::client::Client;
use crate::api::types::EventView;
use crate::decision::topology::ClusterName;
use crate::runtime::backup::{Priority, Turn};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// How many events are asked for at once; as many as are given.
const PAGE: usize = 1000;
/// How long one request waits for new events.
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
        let path = format!("/v1/events?limit={PAGE}&cluster={}", encoded(cluster.as_str()));
        let listen = |client| AbortOnDropHandle::new(tokio::spawn(hear(client, path, priority)));
        Hearing { turn, _listening: client(global).ok().map(listen) }
    }
}

async fn hear(client: Client, path: String, priority: Priority) {
    let (mut after, mut wait) = (0, Duration::ZERO);
    loop {
        let path = format!("{path}&after={after}&wait={}", wait.as_secs());
        let Ok(read) = client.get::<Vec<EventView>>(&path, wait).await else {
            // Nobody would tell when it ends.
            priority.set(false);
            wait = Duration::ZERO;
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        if let Some(others) = read.view.iter().rev().find_map(comes_first) {
            priority.set(others);
        }
        after = read.view.last().map_or(after, |event| event.seq);
        wait = if read.view.len() < PAGE { WAIT } else { Duration::ZERO };
    }
}

/// Whether something goes before backups since that event; none where it says nothing about that.
fn comes_first(event: &EventView) -> Option<bool> {
    match event.kind.as_str() {
        "route_closed" => Some(true),
        "procedure_closed" => Some(false),
        _ => None,
    }
}
