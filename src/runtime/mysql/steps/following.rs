//! A server follows another one, with every option of its connection kept, and takes no writes.

use super::applier::drain;
use super::read_only;
use super::semi_sync;
use super::session::{PAUSE, Session, StepError, position};
use crate::decision::plan::Facts;
use crate::decision::report::{Channel, Receiver, Status};
use crate::decision::topology::{Endpoint, Flavor};
use crate::runtime::mysql::dialect::{Change, Threads};
use std::time::Duration;

/// How long the first connection to the source may take before the attempt ends.
const FIRST_CONNECTION: Duration = Duration::from_millis(2500);

pub(super) async fn bring_about(
    session: &mut Session,
    address: &Endpoint,
) -> Result<Facts, StepError> {
    let status = read_only::ensure(session).await?;
    if status.channels.len() > 1 && status.channel().is_none() {
        let count = status.channels.len();
        return Err(StepError::Failed(format!(
            "{count} named channels, and none is the managed one"
        )));
    }
    if status.semi_sync.source {
        // Its applier would wait for acknowledgements that nobody gives.
        semi_sync::set(session, 0).await?;
    }
    match status.channel() {
        Some(channel) if follows(channel, address) => resume(session, channel).await?,
        Some(channel) => repoint(session, channel, address).await?,
        None => begin(session, address).await?,
    }
    let status = connected(session, address).await?;
    Ok(position(&status))
}

fn follows(channel: &Channel, address: &Endpoint) -> bool {
    &channel.source == address && channel.by_gtid
}

async fn resume(session: &mut Session, channel: &Channel) -> Result<(), StepError> {
    if let Some(error) = channel.applier_error() {
        return Err(StepError::Failed(format!("its applier stopped, error {}", error.code)));
    }
    if channel.receiver != Receiver::Stopped && channel.applying {
        return Ok(());
    }
    let start = session.dialect.start(Threads::Both, &channel.name);
    session.run(&start).await
}

/// Changes the source of a channel once its relay log is applied.
async fn repoint(
    session: &mut Session,
    channel: &Channel,
    address: &Endpoint,
) -> Result<(), StepError> {
    session.permitted()?;
    if channel.receiver != Receiver::Stopped {
        let stop = session.dialect.stop(Threads::Receiver, &channel.name);
        session.run(&stop).await?;
    }
    // An applier that is late on purpose would take as long as that, and need not: what it has
    // received can be had again from its new source.
    if channel.delay.is_zero() || !is_held_by(session, address).await? {
        drain(session).await?;
    }
    // Where the relay log ends within a transaction, which a dead source leaves behind, MySQL's
    // applier takes a minute to stop; but it may run on, and drops that part when the new source begins.
    let goes_on = session.dialect.flavor == Flavor::MySql && channel.by_gtid && channel.applying;
    if !goes_on {
        let stop = session.dialect.stop(Threads::Both, &channel.name);
        session.run(&stop).await?;
    }
    let change = session.dialect.change(&Change {
        channel: &channel.name,
        source: address,
        heartbeat: session.heartbeat(),
        position_by_gtid: !channel.by_gtid,
        login: None,
    });
    session.run(&change).await?;
    let start = session.dialect.start(Threads::Both, &channel.name);
    session.run(&start).await
}

/// Whether a server has applied all that this one has received.
async fn is_held_by(session: &mut Session, address: &Endpoint) -> Result<bool, StepError> {
    let received = session.status().await?.received();
    let mut source = session.to(address).await?;
    let held = source.status().await.map(|status| status.executed.contains(&received));
    source.close().await;
    held
}

/// Makes the channel of a server that follows nobody, a former primary perhaps.
async fn begin(session: &mut Session, address: &Endpoint) -> Result<(), StepError> {
    if let Some(adopt) = session.dialect.adopt_position() {
        session.run(adopt).await?;
    }
    let account = session.credentials().replication.clone();
    let change = session.dialect.change(&Change {
        channel: "",
        source: address,
        heartbeat: session.heartbeat(),
        position_by_gtid: true,
        login: Some((&account.user, account.password.reveal())),
    });
    session.run_secretly(&change).await?;
    let start = session.dialect.start(Threads::Both, "");
    session.run(&start).await
}

/// Waits for the receiver's connection, and says why there is none.
async fn connected(session: &mut Session, address: &Endpoint) -> Result<Status, StepError> {
    let patience = FIRST_CONNECTION.min(session.left() / 2);
    let least = session.left().saturating_sub(patience);
    loop {
        let status = session.status().await?;
        let channel = status.channel().filter(|channel| follows(channel, address));
        let Some(channel) = channel else {
            return Err(StepError::Retry("somebody changed its source".to_owned()));
        };
        if channel.receiver == Receiver::Connected && channel.applying {
            return Ok(status);
        }
        if let (true, Some(error)) = (channel.receiver == Receiver::Stopped, &channel.error) {
            let (code, text) = (error.code, &error.text);
            return Err(StepError::Failed(format!("cannot follow, error {code}: {text}")));
        }
        session.still_wanted()?;
        if session.left() < least {
            let code = channel.error.as_ref().map_or(0, |error| error.code);
            return Err(StepError::Retry(format!("not connected to its source, error {code}")));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
