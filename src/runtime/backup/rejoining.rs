//! What a server alone holds, looked at before a backup takes the place of its data.

use super::BackupError;
use super::following::Membership;
use super::restoring::{Destination, look};
use crate::decision::topology::ServerName;

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
