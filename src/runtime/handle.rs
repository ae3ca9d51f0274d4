//! How the rest of a process speaks to its watcher: questions in, answers out, both bounded.

use crate::decision::topology::{ClusterName, Endpoint, WatcherName};
use crate::decision::view::{Refusal, RefusalCode, Request, Response};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// How many questions may wait for the watcher; the next one is refused as busy.
pub const MAX_WAITING: usize = 64;

/// How long a question may go unanswered.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A way to ask one watcher; clones are cheap and ask the same one.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: WatcherName,
    apis: BTreeMap<WatcherName, Endpoint>,
    asks: mpsc::Sender<Asked>,
    health: watch::Receiver<NodeHealth>,
}

/// The watcher's own end: whoever runs the watcher takes the questions and tells its health.
#[derive(Debug)]
pub struct Desk {
    /// Questions in the order they came; each wants its `answer` sent.
    pub asked: mpsc::Receiver<Asked>,
    /// Set whenever the leader, the term or readiness changes.
    pub health: watch::Sender<NodeHealth>,
}

/// One question and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Takes the answer; closed when the asker gave up.
    pub answer: oneshot::Sender<Response>,
}

/// What a watcher knows of its own place among the watchers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeHealth {
    /// Whether it has caught up with the leader's log since it started.
    pub ready: bool,
    /// Who leads, as far as it knows.
    pub leader: Option<WatcherName>,
    /// Raft's term.
    pub term: u64,
    /// The clusters of which something goes before the backups.
    pub urgent: BTreeSet<ClusterName>,
}

/// Why a question got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The watcher did not answer within [`ANSWER_LIMIT`]; whether it did what was asked is unknown.
    #[error("the watcher did not answer within {} s", ANSWER_LIMIT.as_secs())]
    TooSlow,
    /// The watcher stopped.
    #[error("the watcher has stopped")]
    Stopped,
}

impl Handle {
    /// Opens a desk for watcher `name`; `apis` tells where every watcher listens for HTTP.
    pub fn open(name: WatcherName, apis: BTreeMap<WatcherName, Endpoint>) -> (Handle, Desk) {
        let (asks, asked) = mpsc::channel(MAX_WAITING);
        let (health, seen) = watch::channel(NodeHealth::default());
        let shared = Shared { name, apis, asks, health: seen };
        (Handle { shared: Arc::new(shared) }, Desk { asked, health })
    }

    /// Asks the watcher. A full queue is answered with a `Busy` refusal at once.
    pub async fn ask(&self, request: Request) -> Result<Response, Unavailable> {
        let (answer, answered) = oneshot::channel();
        match self.shared.asks.try_send(Asked { request, answer }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Ok(Response::Refused(busy())),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Unavailable::Stopped),
        }
        match tokio::time::timeout(ANSWER_LIMIT, answered).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(_)) => Err(Unavailable::Stopped),
            Err(_) => Err(Unavailable::TooSlow),
        }
    }

    /// The name of the watcher that answers here.
    pub fn name(&self) -> &WatcherName {
        &self.shared.name
    }

    /// Where that watcher listens for HTTP, if it is declared.
    pub fn api_of(&self, watcher: &WatcherName) -> Option<&Endpoint> {
        self.shared.apis.get(watcher)
    }

    /// The newest health the watcher told.
    pub fn health(&self) -> NodeHealth {
        self.shared.health.borrow().clone()
    }

    /// The same, from now on.
    pub fn changes(&self) -> watch::Receiver<NodeHealth> {
        self.shared.health.clone()
    }
}

fn busy() -> Refusal {
    let text = format!("{MAX_WAITING} requests are waiting for this watcher; try again shortly");
    Refusal { code: RefusalCode::Busy, text, leader: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Request {
        Request::Status { cluster: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_desk_refuses_and_a_silent_one_times_out() {
        let (handle, desk) = Handle::open("paris".into(), BTreeMap::new());
        let waiting: Vec<_> = (0..MAX_WAITING)
            .map(|_| {
                let handle = handle.clone();
                tokio::spawn(async move { handle.ask(question()).await })
            })
            .collect();
        // The scheduler may come back to this task before all others have run once.
        for _ in 0..MAX_WAITING {
            tokio::task::yield_now().await;
        }
        let refused = handle.ask(question()).await.unwrap();
        assert!(matches!(refused, Response::Refused(r) if r.code == RefusalCode::Busy));
        for one in waiting {
            assert_eq!(one.await.unwrap(), Err(Unavailable::TooSlow));
        }
        drop(desk);
        assert_eq!(handle.ask(question()).await, Err(Unavailable::Stopped));
    }
}
