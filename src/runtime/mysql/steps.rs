//! Steps over MySQL connections, one file each.

mod applier;
mod detached;
mod export;
mod following;
mod link;
mod read_only;
mod rebuild;
mod receiver;
mod semi_sync;
mod session;
mod writable;

use crate::clock::Moment;
use crate::decision::plan::{Facts, Outcome, Step};
use crate::runtime::steps::Access;
pub(in crate::runtime) use link::Kept;
use session::{Session, StepError};

/// Brings about a step's state; the caller limits the time to `deadline`.
pub(in crate::runtime) async fn perform(
    step: &Step,
    access: &Access,
    permit: Moment,
    deadline: Moment,
) -> Outcome {
    match attempt(step, access, permit, deadline).await {
        Ok(facts) => Outcome::Done(facts),
        Err(StepError::Retry(reason)) => Outcome::Retry(reason),
        Err(StepError::Failed(reason)) => Outcome::Failed(reason),
    }
}

async fn attempt(
    step: &Step,
    access: &Access,
    permit: Moment,
    deadline: Moment,
) -> Result<Facts, StepError> {
    if let Step::Rebuilt { address, since, .. } = step {
        let order = rebuild::Order { donor: address, since: *since };
        return rebuild::bring_about(access, permit, deadline, &order).await;
    }
    let mut session = Session::resume(access, permit, deadline).await?;
    let facts = match step {
        Step::ReadOnly { .. } => read_only::bring_about(&mut session).await,
        Step::ReceiverStopped { .. } => receiver::bring_about(&mut session).await,
        Step::CaughtUp { to, .. } => applier::bring_about(&mut session, to).await,
        Step::CommitsWait { acks, .. } => semi_sync::commits_wait(&mut session, *acks).await,
        Step::Acknowledges { on, .. } => semi_sync::acknowledges(&mut session, *on).await,
        Step::Writable { acks, .. } => writable::bring_about(&mut session, *acks).await,
        Step::Fenced { .. } => Err(StepError::Failed("not a step on the server".to_owned())),
        Step::Following { address, .. } => following::bring_about(&mut session, address).await,
        Step::Detached { .. } => detached::bring_about(&mut session).await,
        Step::Exported { address, known, waived, .. } => {
            let (source, known, waived) = (address, known.as_ref(), *waived);
            export::bring_about(&mut session, &export::Wanted { source, known, waived }).await
        }
        // Its server may be away: it connects by itself.
        Step::Rebuilt { .. } => Err(StepError::Failed("it is made without a session".to_owned())),
    };
    // After an error nobody knows what the server still does on this connection.
    match &facts {
        Ok(_) => session.keep(),
        Err(_) => session.close().await,
    }
    facts
}
