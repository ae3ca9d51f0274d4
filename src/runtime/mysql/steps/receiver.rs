//! A server receives nothing more from its source.

use super::session::{PAUSE, Session, StepError, position};
use crate::decision::plan::Facts;
use crate::decision::report::{Receiver, Status};
use crate::decision::topology::Flavor;
use crate::runtime::mysql::dialect::Threads;

/// MariaDB's receiver, when it acknowledges and is stopped, connects to its source once more to end its
/// own connection there: for two seconds in vain when the source hangs or is cut off. A second is the least
/// that can be set, and plenty.
const BRIEFLY: &str = "SET GLOBAL rpl_semi_sync_slave_kill_conn_timeout = 1";

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
        let stop = match session.dialect.flavor {
            Flavor::MariaDb if status.semi_sync.replica => format!("{BRIEFLY}; {stop}"),
            _ => stop,
        };
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
        session.still_wanted()?;
        if session.left() < PAUSE * 4 {
            return Err(StepError::Retry("the state did not come about in time".to_owned()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
