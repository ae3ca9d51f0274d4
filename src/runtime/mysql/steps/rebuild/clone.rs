//! MySQL's own copy: the server fetches the donor's data files and restarts on them.

use super::super::semi_sync;
use super::super::session::{Session, StepError, position};
use super::{LOOK, Order, awake};
use crate::decision::plan::Facts;
use crate::runtime::mysql::dialect::quoted;
use std::time::Duration;

/// The server takes no writes, and takes this for one.
const CLOSED: u16 = 1290;

/// The copy is there; the server ended and nobody starts it again by itself.
const NOT_SUPERVISED: u16 = 3707;

/// How long a server may take to begin with what it was told to do.
const BEGINNING: Duration = Duration::from_secs(30);

const LOAD: &str = "INSTALL PLUGIN clone SONAME 'mysql_clone.so'";

const LOADED: &str = "SELECT COUNT(*) FROM information_schema.PLUGINS \
    WHERE PLUGIN_NAME = 'clone' AND PLUGIN_STATUS = 'ACTIVE'";

const STATUS: &str = "SELECT STATE, CAST(UNIX_TIMESTAMP(BEGIN_TIME) * 1000000 AS UNSIGNED), \
    ERROR_NO FROM performance_schema.clone_status";

const PROGRESS: &str = "SELECT COALESCE(MAX(IF(STATE = 'In Progress', STAGE, NULL)), ''), \
    CAST(COALESCE(SUM(DATA), 0) AS UNSIGNED), CAST(COALESCE(SUM(ESTIMATE), 0) AS UNSIGNED) \
    FROM performance_schema.clone_progress";

/// How the last copy that counts went.
#[derive(Debug, PartialEq, Eq)]
enum Last {
    /// None was begun.
    None,
    Running,
    Whole,
    Failed(u16),
}

pub(super) async fn bring_about(
    mut session: Session,
    order: &Order<'_>,
) -> Result<Facts, StepError> {
    match last(&mut session, order.since).await? {
        Last::Whole => return finish(session).await,
        Last::Running => return watch(session, order).await,
        Last::None | Last::Failed(_) => {}
    }
    prepare(&mut session, order).await?;
    let mut worker = session.another().await?;
    let statement = instance_from(&session, order);
    let ended = {
        let cloning = worker.try_change(&statement);
        tokio::pin!(cloning);
        loop {
            match tokio::time::timeout(LOOK, &mut cloning).await {
                Ok(ended) => break ended,
                // The server may already be on its way down.
                Err(_) => {
                    let _ = tokio::time::timeout(LOOK, tell(&mut session)).await;
                }
            }
        }
    };
    match ended {
        Ok(None | Some(NOT_SUPERVISED)) => {}
        Ok(Some(code)) => {
            close_again(&mut session).await?;
            return Err(StepError::Retry(format!("error {code} while copying")));
        }
        // It restarts, or the connection broke while it goes on copying.
        Err(_) => {}
    }
    watch(session, order).await
}

/// What copying needs on both sides: the plugin everywhere, semi-sync's where the donor has it.
async fn prepare(session: &mut Session, order: &Order<'_>) -> Result<(), StepError> {
    session.permitted()?;
    let mut donor = session.to(order.donor).await?;
    load(&mut donor, LOAD).await?;
    let (source, replica) = (donor.dialect.semi_sync_source, donor.dialect.semi_sync_replica);
    donor.close().await;
    load(session, LOAD).await?;
    // The data files name the plugins to load, and a copy that names more is refused.
    if let Some((install, _)) = session.dialect.install_source().filter(|_| source.is_some()) {
        semi_sync::load(session, install).await?;
    }
    if let Some((install, _)) = session.dialect.install_replica().filter(|_| replica.is_some()) {
        semi_sync::load(session, install).await?;
    }
    let donors = quoted(&order.donor.to_string());
    session.run(&format!("SET GLOBAL clone_valid_donor_list = {donors}")).await?;
    let lift = session.dialect.lift_strict_closing();
    session.run(lift).await
}

async fn load(session: &mut Session, install: &str) -> Result<(), StepError> {
    let loaded: Vec<u64> = session.ask(LOADED).await?;
    if loaded.first() == Some(&0) {
        semi_sync::load(session, install).await?;
    }
    Ok(())
}

fn instance_from(session: &Session, order: &Order<'_>) -> String {
    let account = &session.credentials().monitor;
    format!(
        "CLONE INSTANCE FROM {}@{}:{} IDENTIFIED BY {}",
        quoted(&account.user),
        quoted(&order.donor.host),
        order.donor.port,
        quoted(account.password.reveal())
    )
}

async fn last(session: &mut Session, since: u64) -> Result<Last, StepError> {
    let loaded: Vec<u64> = session.ask(LOADED).await?;
    if loaded.first() == Some(&0) {
        return Ok(Last::None);
    }
    let rows: Vec<(String, Option<u64>, Option<u16>)> = session.ask(STATUS).await?;
    let Some((state, begun, error)) = rows.into_iter().next() else {
        return Ok(Last::None);
    };
    // Its time has whole milliseconds only.
    if begun.is_none_or(|begun| begun / 1000 < since / 1000) {
        return Ok(Last::None);
    }
    Ok(match state.as_str() {
        "Completed" => Last::Whole,
        "Failed" => Last::Failed(error.unwrap_or_default()),
        _ => Last::Running,
    })
}

/// Shows how far it is.
async fn tell(session: &mut Session) -> Result<(), StepError> {
    let rows: Vec<(String, u64, u64)> = session.ask(PROGRESS).await?;
    if let Some((stage, done, total)) = rows.into_iter().next() {
        session.report(stage.to_ascii_lowercase(), done, (total > 0).then_some(total));
    }
    Ok(())
}

/// Waits until the copy is whole and the server runs on it.
async fn watch(mut session: Session, order: &Order<'_>) -> Result<Facts, StepError> {
    let begun = session.left();
    loop {
        match last(&mut session, order.since).await {
            Ok(Last::Whole) => return finish(session).await,
            Ok(Last::Failed(code)) => {
                close_again(&mut session).await?;
                return Err(StepError::Retry(format!("copying failed with error {code}")));
            }
            Ok(Last::None) if begun.saturating_sub(session.left()) > BEGINNING => {
                return Err(StepError::Retry("copying did not begin".to_owned()));
            }
            Ok(Last::None) => {}
            Ok(Last::Running) => {
                let _ = tell(&mut session).await;
            }
            Err(_) => {
                let (access, permit, deadline) = session.parts();
                // Whoever supervises the server may be a person; only the step's limit ends this.
                let meanwhile = "copied; waiting for whoever supervises it to start it again";
                session = awake(&access, permit, deadline, deadline, meanwhile).await?;
                continue;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn finish(mut session: Session) -> Result<Facts, StepError> {
    let status = session.status().await?;
    session.close().await;
    Ok(position(&status))
}

/// A copy that failed leaves the server as it was lifted for it.
async fn close_again(session: &mut Session) -> Result<(), StepError> {
    let close = session.dialect.close(false);
    match session.try_change(close).await? {
        None | Some(CLOSED) => Ok(()),
        Some(code) => Err(StepError::Retry(format!("error {code} while closing it again"))),
    }
}
