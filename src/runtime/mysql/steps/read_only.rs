//! A server takes no writes from anybody.

use super::session::{PAUSE, Session, StepError, position};
use crate::decision::plan::Facts;
use crate::decision::report::{Status, Writable};
use mysql_async::Row;
use std::time::Duration;

/// Between two rounds of ending sessions while the server is being closed.
const ROUND: Duration = Duration::from_millis(30);

pub(super) async fn bring_about(session: &mut Session) -> Result<Facts, StepError> {
    let status = ensure(session).await?;
    Ok(position(&status))
}

/// Closes the server and reads that back.
///
/// The setting waits for commits under way, and a commit that waits for an acknowledgement waits
/// without end. So client sessions are ended, again and again until the setting is there; their
/// clients get an error, never an acknowledgement.
pub(super) async fn ensure(session: &mut Session) -> Result<Status, StepError> {
    let before = session.status().await?;
    if before.writable != Writable::Closed {
        session.permitted()?;
        if let Some(events) = session.dialect.stop_events() {
            session.run(events).await?;
        }
        let mut other = session.another().await?;
        let ended = close_while_ending_sessions(session, &mut other).await;
        other.close().await;
        ended?;
    }
    if let Some(question) = session.dialect.privileged_users() {
        end_privileged_sessions(session, question).await?;
    }
    let after = session.status().await?;
    match after.writable {
        Writable::Closed => Ok(after),
        Writable::ReadOnly | Writable::Open => {
            Err(StepError::Retry("somebody opened it again".to_owned()))
        }
    }
}

async fn close_while_ending_sessions(
    session: &mut Session,
    other: &mut Session,
) -> Result<(), StepError> {
    let own = [session.id(), other.id()];
    end_sessions(other, &own, |_| true).await?;
    let closing = close(session);
    tokio::pin!(closing);
    loop {
        tokio::select! {
            biased;
            closed = &mut closing => return closed,
            () = tokio::time::sleep(ROUND) => end_sessions(other, &own, |_| true).await?,
        }
    }
}

async fn close(session: &mut Session) -> Result<(), StepError> {
    let lasting = session.dialect.close(true);
    match session.try_run(lasting).await? {
        None => Ok(()),
        // Without the privilege to persist, or with persistence off, at least now.
        Some(_) => session.run(session.dialect.close(false)).await,
    }
}

/// Ends client sessions; replication, system and Regent's own ones stay.
async fn end_sessions(
    session: &mut Session,
    own: &[u64],
    chosen: impl Fn(&str) -> bool,
) -> Result<(), StepError> {
    let rows: Vec<Row> = session.ask("SHOW PROCESSLIST").await?;
    for row in rows {
        let id: u64 = row.get(0).unwrap_or_default();
        let user: String = row.get(1).unwrap_or_default();
        let command: String = row.get(4).unwrap_or_default();
        if own.contains(&id) || !is_client(session, &user, &command) || !chosen(&user) {
            continue;
        }
        match session.try_run(&session.dialect.kill(id)).await? {
            // Gone already; or its account may not be touched, and is stopped by the setting.
            None | Some(1094 | 1095) => {}
            Some(code) => {
                return Err(StepError::Failed(format!("error {code} while ending a session")));
            }
        }
    }
    Ok(())
}

fn is_client(session: &Session, user: &str, command: &str) -> bool {
    let credentials = session.credentials();
    let system = ["system user", "event_scheduler", "unauthenticated user", ""];
    let served =
        ["Binlog Dump", "Binlog Dump GTID", "Daemon", "Slave_IO", "Slave_SQL", "Slave_worker"];
    !system.contains(&user)
        && !served.contains(&command)
        && user != credentials.monitor.user
        && user != credentials.replication.user
}

/// Where nothing stronger than `read_only` exists, sessions that it does not stop are ended.
async fn end_privileged_sessions(session: &mut Session, question: &str) -> Result<(), StepError> {
    let grantees: Vec<String> = session.ask(question).await?;
    let users: Vec<String> = grantees.iter().map(|grantee| user_of(grantee)).collect();
    let own = [session.id()];
    for _ in 0..3 {
        end_sessions(session, &own, |user| users.iter().any(|one| one == user)).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// The user in `'user'@'host'`.
fn user_of(grantee: &str) -> String {
    let user = grantee.rsplit_once('@').map_or(grantee, |(user, _)| user);
    user.trim_matches('\'').to_owned()
}

#[cfg(test)]
mod tests {
    use super::user_of;

    #[test]
    fn grantees_are_read() {
        assert_eq!(user_of("'root'@'%'"), "root");
        assert_eq!(user_of("'a@b'@'10.%'"), "a@b");
    }
}
