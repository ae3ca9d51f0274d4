//! A server of a cluster gets its data from a backup: what it alone holds before, and when it has caught up after.

use super::BackupError;
use super::following::Membership;
use super::restoring::{Destination, look};
use crate::decision::report::Receiver;
use crate::decision::topology::ServerName;
use std::time::Duration;

/// How often it is looked whether a server has caught up.
const BETWEEN: Duration = Duration::from_millis(500);

/// What the server has committed and its cluster's primary has not, if anything.
pub async fn beyond(
    membership: &Membership<'_>,
    destination: &Destination<'_>,
) -> Result<Option<String>, BackupError> {
    let server = ServerName(destination.address.to_string());
    // What it holds by now, the primary had before.
    let status = look(destination, &server).await?;
    let others = membership.others(destination).await;
    let (_, primary) = others.primary()?;
    let beyond = status.beyond(&primary.executed);
    Ok((!beyond.is_empty()).then(|| beyond.to_string()))
}

/// Waits until the server holds all that its cluster's primary holds now, however long that takes, and tells how many
/// transactions it still lacks; an error where replication ends before.
pub async fn caught_up(
    membership: &Membership<'_>,
    destination: &Destination<'_>,
    lacks: impl Fn(u64),
) -> Result<(), BackupError> {
    let server = ServerName(destination.address.to_string());
    let others = membership.others(destination).await;
    let (primary, at_primary) = others.primary()?;
    loop {
        let status = look(destination, &server).await?;
        if status.executed.contains(&at_primary.executed) {
            return Ok(());
        }
        lacks(at_primary.executed.count_beyond(&status.executed));
        let channel = status.channels.iter().find(|channel| channel.source == primary.address);
        let why = match channel.map(|channel| (channel.receiver, &channel.error)) {
            None => Some("it does not follow any more".to_owned()),
            Some((_, Some(error))) => Some(format!("error {}: {}", error.code, error.text)),
            Some((Receiver::Stopped, None)) => Some("it receives nothing any more".to_owned()),
            Some(_) => None,
        };
        if let Some(why) = why {
            let what = format!("it has not caught up with {}: {why}", primary.name);
            return Err(BackupError::server(&server, what));
        }
        tokio::time::sleep(BETWEEN).await;
    }
}
