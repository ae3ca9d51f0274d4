//! A server has applied all it must hold.

use super::read_only::{GONE, KILL_DENIED};
use super::semi_sync;
use super::session::{PAUSE, Session, StepError, position};
use crate::decision::gtid::Gtids;
use crate::decision::plan::Facts;
use crate::decision::report::{Channel, Receiver, Status, Writable};
use crate::decision::topology::Flavor;
use crate::runtime::mysql::dialect::Threads;
use std::time::Duration;

/// How long one wait on the server lasts before the applier is looked at again.
const SLICE: Duration = Duration::from_millis(200);

pub(super) async fn bring_about(session: &mut Session, to: &Gtids) -> Result<Facts, StepError> {
    apply(session, |_| to.clone()).await.map(|status| position(&status))
}

/// Everything the server has received is applied.
pub(super) async fn drain(session: &mut Session) -> Result<Status, StepError> {
    apply(session, Status::received).await
}

/// Lets the appliers run until all that `wanted` names is applied.
///
/// An applier's own commits wait for acknowledgements too where commits do, and nobody
/// acknowledges them; so the waiting is switched off meanwhile, unless the server takes writes.
async fn apply(
    session: &mut Session,
    wanted: impl Fn(&Status) -> Gtids,
) -> Result<Status, StepError> {
    let status = session.status().await?;
    if status.executed.contains(&wanted(&status)) {
        return Ok(status);
    }
    if !status.semi_sync.source || status.writable != Writable::Closed {
        return run(session, wanted).await;
    }
    semi_sync::let_go(session).await?;
    let applied = run(session, wanted).await;
    semi_sync::hold_again(session).await?;
    applied
}

async fn run(
    session: &mut Session,
    wanted: impl Fn(&Status) -> Gtids,
) -> Result<Status, StepError> {
    loop {
        let status = session.status().await?;
        let to = wanted(&status);
        if status.executed.contains(&to) {
            return Ok(status);
        }
        if !status.received().contains(&to) && idle(&status) {
            return Err(StepError::Failed("it never received all it must hold".to_owned()));
        }
        session.still_wanted()?;
        for channel in &status.channels {
            start(session, channel, &status).await?;
        }
        let left = session.left();
        if left < SLICE / 2 {
            return Err(StepError::Retry("still applying what it received".to_owned()));
        }
        let wait = session.dialect.wait_applied(&to, SLICE.min(left / 2));
        // The answer only ends the wait; what was applied is read back.
        let _: Vec<Option<i64>> = session.ask(&wait).await?;
    }
}

/// Whether no channel receives, so that nothing more can come.
fn idle(status: &Status) -> bool {
    status.channels.iter().all(|channel| channel.receiver == Receiver::Stopped)
}

/// Starts an applier that somebody stopped; one that an error stopped needs people.
async fn start(session: &mut Session, channel: &Channel, status: &Status) -> Result<(), StepError> {
    if channel.applying {
        return Ok(());
    }
    if let Some(error) = channel.applier_error() {
        let (code, text) = (error.code, &error.text);
        return Err(StepError::Failed(format!("its applier stopped, error {code}: {text}")));
    }
    // Tried on 10.11 with positions by GTID: with both threads stopped, `START SLAVE SQL_THREAD`
    // deletes the relay log, and `Gtid_IO_Pos` goes back to what was applied.
    if status.flavor == Flavor::MariaDb && channel.receiver == Receiver::Stopped {
        return Err(StepError::Failed(
            "its applier is stopped, and starting it would throw received transactions away"
                .to_owned(),
        ));
    }
    let start = session.dialect.start(Threads::Applier, &channel.name);
    session.run(&start).await
}

/// Ends an applier that waits for the rest of a transaction which a dead source never sent, nor told
/// anybody that it was committed; whatever else it is at is rolled back too.
pub(super) async fn end_torn(session: &mut Session, channel: &str) -> Result<(), StepError> {
    let Some(question) = session.dialect.torn_applier(channel) else {
        return Ok(());
    };
    loop {
        let appliers: Vec<u64> = session.ask(&question).await?;
        if appliers.is_empty() {
            return Ok(());
        }
        match session.end(&appliers).await?.first() {
            None | Some((_, GONE)) => tokio::time::sleep(PAUSE).await,
            Some((_, KILL_DENIED)) => {
                return Err(StepError::Retry(
                    "its applier waits within a transaction, and ending it takes the privilege \
                     SYSTEM_USER"
                        .to_owned(),
                ));
            }
            Some((_, code)) => {
                return Err(StepError::Failed(format!("error {code} while ending its applier")));
            }
        }
    }
}
