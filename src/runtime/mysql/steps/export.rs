//! What a server alone holds is written down for people, as SQL with its GTIDs.
//!
//! The server takes no writes and receives nothing, so its position stands still; the primary is
//! read after that, so whatever the primary lacks then it lacks for good.

mod reading;
mod sql;

use super::session::{PAUSE, Session, StepError, position};
use crate::decision::gtid::Gtids;
use crate::decision::plan::{Export, Facts, Fork};
use crate::decision::report::{Receiver, Status, Writable};
use crate::decision::topology::Endpoint;
use reading::Log;
use sql::Script;
use std::time::Duration;

/// How long the applier may take for what was received; and a commit that the server acknowledged
/// may take to be seen on the primary.
const SETTLING: Duration = Duration::from_secs(10);

/// What is to be written down, and what to do when it cannot be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub source: &'a Endpoint,
    pub known: Option<&'a Gtids>,
    pub waived: bool,
}

pub(super) async fn bring_about(
    session: &mut Session,
    wanted: &Wanted<'_>,
) -> Result<Facts, StepError> {
    let Settled { status, primary, beyond } = settled(session, wanted).await?;
    let clock: Vec<u64> = session.ask(session.dialect.clock()).await?;
    let clock = clock.first().copied().unwrap_or_default();
    let held = wanted.known.is_some_and(|known| known.contains(&beyond));
    let export = match beyond.is_empty() || held {
        true => None,
        false => match write_down(session, &beyond, &status, &primary.executed).await {
            Ok(export) => Some(export),
            Err(StepError::Failed(_)) if wanted.waived => None,
            Err(error) => return Err(error),
        },
    };
    let fork = Fork { beyond, primary: primary.executed, clock, export };
    Ok(Facts { fork: Some(Box::new(fork)), ..position(&status) })
}

/// A server with all applied that it will ever apply, and the primary after that.
struct Settled {
    status: Status,
    primary: Status,
    beyond: Gtids,
}

/// Waits until the two can be compared.
///
/// What the primary wrote itself and has not committed is on its way while its commits wait for an
/// acknowledgement; it is in the primary's own log, and was acknowledged to nobody.
async fn settled(session: &mut Session, wanted: &Wanted<'_>) -> Result<Settled, StepError> {
    let mut primary = session.to(wanted.source).await?;
    let least = session.left().saturating_sub(SETTLING);
    let found = loop {
        let status = still(session).await?;
        let theirs = primary.status().await?;
        let foreign = |all: &Gtids| all.without_origin(theirs.uuid.as_deref(), theirs.server_id);
        let mut pending = status.received().minus(&status.executed).minus(&theirs.executed);
        let mut beyond = status.beyond(&theirs.executed);
        if theirs.semi_sync.waiting > 0 {
            (pending, beyond) = (foreign(&pending), foreign(&beyond));
        }
        let lost = beyond.minus(&foreign(&beyond));
        if pending.is_empty() && lost.is_empty() {
            break Ok(Settled { status, primary: theirs, beyond });
        }
        if session.left() <= least {
            if !lost.is_empty() {
                break Err(format!("it holds what the primary wrote itself and has lost: {lost}"));
            }
            if wanted.waived {
                break Ok(Settled { status, primary: theirs, beyond });
            }
            break Err(format!("it received and does not apply what nobody else has: {pending}"));
        }
        tokio::time::sleep(PAUSE * 10).await;
    };
    primary.close().await;
    found.map_err(StepError::Failed)
}

/// The status of a server that stands still.
async fn still(session: &mut Session) -> Result<Status, StepError> {
    let status = session.status().await?;
    let receives = status.channels.iter().any(|one| one.receiver != Receiver::Stopped);
    if status.writable != Writable::Closed || receives {
        return Err(StepError::Failed("somebody opened it, or lets it receive again".to_owned()));
    }
    Ok(status)
}

async fn write_down(
    session: &mut Session,
    beyond: &Gtids,
    status: &Status,
    primary: &Gtids,
) -> Result<Export, StepError> {
    let met = status.met(primary);
    let first = reading::first_log(session, &met).await?;
    let mut script = Script::begin(session, beyond, primary).await?;
    let mut log = Log::open(session, &first).await?;
    let mut written = Gtids::empty(beyond.flavor());
    while let Some(event) = log.next().await? {
        if let Some(gtid) = log.wanted(&event, &met)? {
            written = written.union(&gtid);
            script.transaction(&gtid, &event).await?;
        } else if log.within() {
            script.event(session, &log, &event).await?;
        }
        session.report(format!("reading {}", log.file()), script.bytes(), None);
    }
    log.close().await;
    if !written.contains(beyond) {
        let missing = beyond.minus(&written);
        script.discard().await;
        return Err(StepError::Failed(format!("its binary log does not hold {missing}")));
    }
    script.end(session, written).await
}
