//! Carrying out steps: each brings about one state on one server and reads it back.

use super::fence;
use crate::clock::{Clock, Moment};
use crate::config::Credentials;
use crate::decision::plan::{Outcome, Step};
use crate::decision::topology::{ClusterName, Epoch, ServerSpec, Timing};

/// All that a step needs to reach its server.
#[derive(Clone, Debug)]
pub struct Access {
    /// The server as declared.
    pub server: ServerSpec,
    /// Its cluster.
    pub cluster: ClusterName,
    /// The accounts of its cluster.
    pub credentials: Credentials,
    /// How long things may take.
    pub timing: Timing,
    /// The clock the order's permit was read from.
    pub clock: Clock,
    /// The last step's connection, while it is fresh; clones share it.
    pub link: Link,
}

/// A connection kept from one step on a server to its next one.
#[derive(Clone, Debug, Default)]
pub struct Link(pub(in crate::runtime) super::mysql::steps::Kept);

/// Brings about a step's state; ends within the step's limit.
///
/// After `permit` no first changing statement is sent any more: somebody else may lead by then.
pub async fn perform(step: &Step, epoch: Epoch, access: &Access, permit: Moment) -> Outcome {
    let limit = step.limit();
    let deadline = access.clock.now().moment + limit;
    let work = async {
        match (step, &access.server.fence) {
            (Step::Fenced { .. }, _) if access.clock.now().moment > permit => {
                Outcome::Retry("permit ran out".to_owned())
            }
            (Step::Fenced { .. }, Some(fence)) => fence::run(fence, &told(epoch, access)).await,
            (Step::Fenced { .. }, None) => {
                Outcome::Failed("no fence command is declared here".to_owned())
            }
            _ => super::mysql::steps::perform(step, access, permit, deadline).await,
        }
    };
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Retry(format!("not there after {} ms", limit.as_millis())),
    }
}

/// What a fence command reads from its environment.
fn told(epoch: Epoch, access: &Access) -> [(&'static str, String); 5] {
    let server = &access.server;
    [
        ("REGENT_CLUSTER", access.cluster.to_string()),
        ("REGENT_SERVER", server.name.to_string()),
        ("REGENT_ADDRESS", server.address.to_string()),
        ("REGENT_DATA_CENTER", server.data_center.to_string()),
        ("REGENT_EPOCH", epoch.to_string()),
    ]
}
