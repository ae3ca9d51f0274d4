//! A server follows nobody and takes writes.

use super::applier::{drain, end_torn};
use super::read_only::end_earlier_attempts;
use super::semi_sync;
use super::session::{PAUSE, Session, StepError, position};
use crate::decision::plan::Facts;
use crate::decision::report::{Receiver, Status, Writable};
use crate::decision::topology::Flavor;
use crate::runtime::mysql::dialect::Threads;
use std::time::Duration;

/// How long the first replica may take to connect to a primary that is about to be opened.
const LISTENER: Duration = Duration::from_millis(500);

pub(super) async fn bring_about(session: &mut Session, acks: u32) -> Result<Facts, StepError> {
    end_earlier_attempts(session).await?;
    let before = session.status().await?;
    if before.writable == Writable::Open && before.channels.is_empty() {
        let before = waiting(session, before, acks).await?;
        return Ok(position(&before));
    }
    session.permitted()?;
    for channel in before.channels.iter().filter(|one| one.receiver != Receiver::Stopped) {
        let stop = session.dialect.stop(Threads::Receiver, &channel.name);
        session.run(&stop).await?;
    }
    // What was received and not applied would be lost with the relay log. What a primary received is
    // not wanted.
    let drained = match before.writable {
        Writable::Open => before.clone(),
        Writable::ReadOnly | Writable::Closed => drain(session).await?,
    };
    for channel in &drained.channels {
        end_torn(session, &channel.name).await?;
        let stop = session.dialect.stop(Threads::Both, &channel.name);
        let forget = session.dialect.forget(&channel.name);
        session.run(&format!("{stop}; {forget}")).await?;
    }
    if before.writable != Writable::Open {
        waiting(session, drained, acks).await?;
        // A restart must come back read-only.
        session.persist_closed().await?;
        listened_to(session, acks).await?;
        let open = session.dialect.open();
        session.run(open).await?;
    }
    let after = session.status().await?;
    if after.writable != Writable::Open || !after.channels.is_empty() {
        return Err(StepError::Retry("somebody closed it again".to_owned()));
    }
    Ok(position(&after))
}

/// Waits a moment for a replica to be connected, where MariaDB's commits are to wait.
///
/// Commits that wait hold its log, and a connection needs the log to begin: one that comes between the
/// first commits and the rest of them is served only seconds later, and nobody acknowledges meanwhile.
async fn listened_to(session: &mut Session, acks: u32) -> Result<(), StepError> {
    if acks == 0 || session.dialect.flavor == Flavor::MySql {
        return Ok(());
    }
    let line = session.access().distance.round_trip().unwrap_or_default() * 6;
    let least = session.left().saturating_sub(LISTENER + line);
    while session.left() > least {
        let there = session.status().await?.semi_sync.clients >= acks;
        // It is counted just before it is served.
        tokio::time::sleep(PAUSE).await;
        if there {
            break;
        }
    }
    Ok(())
}

/// Lets commits wait where a restart since that was arranged undid it: it is never kept across one.
async fn waiting(session: &mut Session, status: Status, acks: u32) -> Result<Status, StepError> {
    let waits = status.semi_sync.source && status.semi_sync.acks == acks;
    if acks == 0 || waits {
        return Ok(status);
    }
    semi_sync::commits_wait(session, acks).await?;
    session.status().await
}
