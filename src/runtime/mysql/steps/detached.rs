//! A server follows nobody and keeps nothing that it received.

use super::session::{PAUSE, Session, StepError, position};
use crate::decision::plan::Facts;
use crate::decision::report::{Channel, Receiver};
use crate::decision::topology::Flavor;
use crate::runtime::mysql::dialect::Threads;
use std::time::Duration;

/// How long a receiver may take to connect again, for the rest of a transaction.
const RECONNECTING: Duration = Duration::from_secs(2);

pub(super) async fn bring_about(session: &mut Session) -> Result<Facts, StepError> {
    let status = session.status().await?;
    for channel in &status.channels {
        if channel.applying || channel.receiver != Receiver::Stopped {
            stop(session, channel).await?;
        }
        let forget = session.dialect.forget(&channel.name);
        session.run(&forget).await?;
    }
    let status = session.status().await?;
    if !status.channels.is_empty() {
        return Err(StepError::Retry("somebody lets it follow again".to_owned()));
    }
    Ok(position(&status))
}

/// Stops a channel, the applier first: MySQL's waits for a minute when it has only a part of a
/// transaction and nothing more comes, so what comes is let in until it has stopped.
async fn stop(session: &mut Session, channel: &Channel) -> Result<(), StepError> {
    let name = &channel.name;
    let applier_first = session.dialect.flavor == Flavor::MySql && channel.applying;
    if applier_first {
        if channel.receiver == Receiver::Stopped {
            let receive = session.dialect.start(Threads::Receiver, name);
            session.run(&receive).await?;
            reconnected(session, name).await?;
        }
        let stop = session.dialect.stop(Threads::Applier, name);
        session.run(&stop).await?;
    }
    let stop = session.dialect.stop(Threads::Both, name);
    session.run(&stop).await
}

/// Waits a moment for the receiver's connection; without one, stopping takes longer.
async fn reconnected(session: &mut Session, name: &str) -> Result<(), StepError> {
    let least = session.left().saturating_sub(RECONNECTING);
    while session.left() > least {
        session.still_wanted()?;
        let status = session.status().await?;
        let channel = status.channels.iter().find(|channel| channel.name == name);
        if channel.is_none_or(|channel| channel.receiver == Receiver::Connected) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
