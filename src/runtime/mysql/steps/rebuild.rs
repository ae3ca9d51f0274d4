//! A server's data is replaced by a copy of another one's.
//!
//! This takes hours where data is large, far longer than any permit. The permit covers the first
//! statement; what follows acts on this one server alone, which counts for nothing until the copy
//! is whole, and an attempt that comes later ends an earlier one on the server itself.

mod clone;
mod copy;

use super::session::{Session, StepError};
use crate::clock::Moment;
use crate::decision::plan::Facts;
use crate::decision::topology::{Endpoint, Flavor};
use crate::runtime::steps::Access;
use std::time::Duration;

/// How long a server may be away before an attempt begins.
const AWAY: Duration = Duration::from_secs(600);

/// Between two looks at a server that is away or at work.
const LOOK: Duration = Duration::from_millis(250);

/// Whose data a server gets, and which copy counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order<'a> {
    pub donor: &'a Endpoint,
    pub since: u64,
}

pub(super) async fn bring_about(
    access: &Access,
    permit: Moment,
    deadline: Moment,
    order: &Order<'_>,
) -> Result<Facts, StepError> {
    let until = access.clock.now().moment + AWAY;
    let mut session = awake(access, permit, deadline, until, "waiting until it answers").await?;
    match session.dialect.flavor {
        Flavor::MySql => clone::bring_about(session, order).await,
        Flavor::MariaDb => {
            let copied = copy::bring_about(&mut session, order).await;
            session.close().await;
            copied
        }
    }
}

/// A connection to a server that may be away for a while.
async fn awake(
    access: &Access,
    permit: Moment,
    deadline: Moment,
    until: Moment,
    meanwhile: &str,
) -> Result<Session, StepError> {
    loop {
        match Session::open(access, permit, deadline).await {
            Ok(session) => return Ok(session),
            Err(StepError::Retry(why)) if access.clock.now().moment >= until => {
                return Err(StepError::Retry(why));
            }
            Err(StepError::Retry(why)) => {
                let before = access.progress.as_ref().map(|last| last.borrow().clone());
                let before = before.unwrap_or_default();
                access.report(format!("{meanwhile}: {why}"), before.done, before.total);
                tokio::time::sleep(LOOK).await;
            }
            Err(error) => return Err(error),
        }
    }
}
