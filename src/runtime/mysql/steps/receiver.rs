//! A server receives nothing more from its source.

use super::session::{PAUSE, Session, StepError, position};
use crate::decision::plan::Facts;
use crate::decision::report::{Receiver, Status};
use crate::runtime::mysql::dialect::Threads;

pub(super) async fn bring_about(session: &mut Session) -> Result<Facts, StepError> {
    let status = session.status().await?;
    let running: Vec<String> = status
        .channels
        .iter()
        .filter(|channel| channel.receiver != Receiver::Stopped)
        .map(|channel| channel.name.clone())
        .collect();
    if running.is_empty() {
        return Ok(position(&status));
    }
    for channel in running {
        let stop = session.dialect.stop(Threads::Receiver, &channel);
        session.run(&stop).await?;
    }
    let stopped = |status: &Status| {
        status.channels.iter().all(|channel| channel.receiver == Receiver::Stopped)
    };
    Ok(position(&until(session, stopped).await?))
}

/// Reads the status until it is as wished; the step's limit ends it otherwise.
pub(super) async fn until(
    session: &mut Session,
    wished: impl Fn(&Status) -> bool,
) -> Result<Status, StepError> {
    loop {
        let status = session.status().await?;
        if wished(&status) {
            return Ok(status);
        }
        if session.left() < PAUSE * 4 {
            return Err(StepError::Retry("the state did not come about in time".to_owned()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
