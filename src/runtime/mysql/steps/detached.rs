//! A server follows nobody and keeps nothing that it received.

use super::applier::end_torn;
use super::session::{Session, StepError, position};
use crate::decision::plan::Facts;
use crate::decision::report::Receiver;
use crate::runtime::mysql::dialect::Threads;

pub(super) async fn bring_about(session: &mut Session) -> Result<Facts, StepError> {
    let status = session.status().await?;
    for channel in &status.channels {
        if channel.receiver != Receiver::Stopped {
            let stop = session.dialect.stop(Threads::Receiver, &channel.name);
            session.run(&stop).await?;
        }
        if channel.applying {
            end_torn(session, &channel.name).await?;
        }
        let stop = session.dialect.stop(Threads::Both, &channel.name);
        let forget = session.dialect.forget(&channel.name);
        session.run(&format!("{stop}; {forget}")).await?;
    }
    let status = session.status().await?;
    if !status.channels.is_empty() {
        return Err(StepError::Retry("somebody lets it follow again".to_owned()));
    }
    Ok(position(&status))
}
