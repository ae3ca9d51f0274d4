//! Carrying out steps: each brings about one state on one server and reads it back.

use crate::clock::{Clock, Moment};
use crate::config::Credentials;
use crate::decision::plan::{Outcome, Step};
use crate::decision::topology::{Endpoint, Timing};

/// All that a step needs to reach its server.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where the step's server accepts connections.
    pub address: Endpoint,
    /// The accounts of its cluster.
    pub credentials: Credentials,
    /// How long things may take.
    pub timing: Timing,
    /// The clock the order's permit was read from.
    pub clock: Clock,
    /// Whether the sessions that proxies led to it before this epoch have ended on the clients' side.
    pub clients_cut: bool,
    /// The last step's connection, while it is fresh; clones share it.
    pub link: Link,
}

/// A connection kept from one step on a server to its next one.
#[derive(Clone, Debug, Default)]
pub struct Link(pub(in crate::runtime) super::mysql::steps::Kept);

/// Brings about a step's state; ends within the step's limit.
///
/// After `permit` no first changing statement is sent any more: somebody else may lead by then.
pub async fn perform(step: &Step, access: &Access, permit: Moment) -> Outcome {
    let limit = step.limit();
    let deadline = access.clock.now().moment + limit;
    let work = super::mysql::steps::perform(step, access, permit, deadline);
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Retry(format!("not there after {} ms", limit.as_millis())),
    }
}
