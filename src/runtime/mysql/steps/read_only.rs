//! A server takes no writes from anybody.

use super::semi_sync;
use super::session::{PAUSE, Session, StepError, position};
use crate::decision::plan::Facts;
use crate::decision::report::{Status, Writable};
use crate::decision::topology::Flavor;
use mysql_async::Row;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Between two rounds of ending sessions while the server is being closed.
const ROUND: Duration = Duration::from_millis(20);

/// How long commits under way may take to end by themselves: several round trips between data centers.
const GRACE: Duration = Duration::from_millis(150);

/// After so many rounds, privileged sessions that keep coming back fail the attempt.
const PRIVILEGED_ROUNDS: usize = 40;

/// What closing leaves of the step's limit for what follows the setting.
const CLOSING: Duration = Duration::from_millis(400);

/// The longest time during which the pending setting may hold up a server's writes.
const FIRST_TRY: Duration = Duration::from_millis(1000);

/// A statement took longer than its session allows.
const OVERDUE: u16 = 1969;

/// A lock was not given in time.
const LOCK_OVERDUE: u16 = 1205;

/// There is no such session any more.
pub(super) const GONE: u16 = 1094;

/// The account may not end sessions of that one.
pub(super) const KILL_DENIED: u16 = 1095;

pub(super) async fn bring_about(session: &mut Session) -> Result<Facts, StepError> {
    let status = ensure(session).await?;
    Ok(position(&status))
}

/// Closes the server and reads that back.
///
/// The setting waits for commits under way, and a commit that waits for an acknowledgement may wait
/// without end. Then client sessions are ended, again and again until the setting is there; their
/// clients get an error, never an acknowledgement. MariaDB cannot do that, see [`close_first`]; so there
/// it is done only when nobody reads what they are told any more.
pub(super) async fn ensure(session: &mut Session) -> Result<Status, StepError> {
    let before = session.status().await?;
    if before.writable != Writable::Closed {
        end_earlier_attempts(session).await?;
        if let Some(events) = session.dialect.stop_events() {
            session.run(events).await?;
        }
        let waits = before.semi_sync.source;
        if before.flavor == Flavor::MariaDb && waits {
            if session.clients_cut() {
                close_unread(session).await?;
            } else {
                close_first(session).await?;
            }
        } else {
            close_with_another(session, waits).await?;
        }
        // Their open transactions can no longer commit, and their locks would hold up the applier.
        end_sessions(session, &[session.id()], |_| true).await?;
    }
    session.persist_closed().await?;
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

/// What one round of ending sessions found.
#[derive(Default)]
struct Round {
    /// Client sessions that were not ended before this round.
    living: usize,
    /// Those that were, and are still there.
    dying: usize,
    /// Users whose sessions may not be ended.
    denied: BTreeSet<String>,
    /// The first of the own sessions was waiting for a lock when the round began.
    own_waits: bool,
}

/// Sets MariaDB read-only where commits wait for acknowledgements; ends no session before.
///
/// When this product ends a session whose commit waits, or the one that leads its group, the
/// clients are not cut off and read that their commits succeeded, which no replica holds. While
/// acknowledgements come, the setting is there within milliseconds. While none come it gives up
/// on the server itself, so that nothing of it is left to take effect later.
async fn close_first(session: &mut Session) -> Result<(), StepError> {
    let patience = session.left().saturating_sub(CLOSING).min(FIRST_TRY).max(PAUSE);
    let Some(bounded) = session.dialect.limit_statements(patience) else {
        return Err(StepError::Failed("its statements cannot be limited".to_owned()));
    };
    session.run(&bounded).await?;
    let refused = session.try_run(session.dialect.close(false)).await?;
    if let Some(unbounded) = session.dialect.limit_statements(Duration::ZERO) {
        session.run(&unbounded).await?;
    }
    match refused {
        None => Ok(()),
        Some(OVERDUE | LOCK_OVERDUE) => {
            let waiting = session.status().await?.semi_sync.waiting;
            Err(StepError::Retry(match waiting {
                0 => "the setting waits for statements that do not end".to_owned(),
                _ => "commits wait for acknowledgements".to_owned(),
            }))
        }
        Some(code) => Err(StepError::Failed(format!("error {code} while setting it read-only"))),
    }
}

/// Sets MariaDB read-only where commits wait in vain, once nobody reads what their sessions are told.
async fn close_unread(session: &mut Session) -> Result<(), StepError> {
    // The server gives up with the step, so that nothing of it is left to take effect later.
    if let Some(bounded) = session.dialect.limit_statements(session.left()) {
        session.run(&bounded).await?;
    }
    close_with_another(session, true).await?;
    match session.dialect.limit_statements(Duration::ZERO) {
        Some(unbounded) => session.run(&unbounded).await,
        None => Ok(()),
    }
}

async fn close_with_another(session: &mut Session, commits_wait: bool) -> Result<(), StepError> {
    let mut other = session.another().await?;
    let closed = close(session, &mut other, commits_wait).await;
    other.close().await;
    closed
}

/// Sets the server read-only while another connection ends what stands in the way.
///
/// Commits under way are given [`GRACE`]: while acknowledgements come they end by themselves, and one
/// whose session is ended would stay, see below.
///
/// MySQL 9.7 cuts the connection of a killed session at once, so that its client learns nothing,
/// but its commit goes on waiting for the acknowledgement. Once nobody is left to be told, the
/// waiting is switched off: while the setting is pending no commit can begin, so that none is
/// acknowledged meanwhile, and whoever opens the server again lets commits wait before. (A
/// transaction that was prepared by `XA PREPARE` is the exception: a new session may commit it
/// until the setting has got its first lock.)
async fn close(
    session: &mut Session,
    other: &mut Session,
    commits_wait: bool,
) -> Result<(), StepError> {
    let setter = session.id();
    let statement = session.dialect.close(false);
    let closing = session.run(statement);
    tokio::pin!(closing);
    if let Ok(closed) = tokio::time::timeout(GRACE, &mut closing).await {
        return closed;
    }
    let mut released = false;
    let closed = make_way(closing, setter, other, commits_wait.then_some(&mut released)).await;
    if closed.is_err() {
        if released {
            semi_sync::hold_again(other).await?;
        }
        // What is still pending would hold up all writes, and take effect at any time.
        other.try_change(&other.dialect.kill(setter)).await?;
    }
    closed
}

/// Ends what stands in the way of the pending setting, round by round, until it is there.
///
/// `released` becomes true when commits that wait are let go; absent where none can wait.
async fn make_way(
    mut closing: impl Future<Output = Result<(), StepError>> + Unpin,
    setter: u64,
    other: &mut Session,
    mut released: Option<&mut bool>,
) -> Result<(), StepError> {
    let own = [setter, other.id()];
    let mut quiet_rounds = 0;
    loop {
        let round = end_sessions(other, &own, |_| true).await?;
        // Only once the setting waits for its lock, a session that comes later cannot commit.
        quiet_rounds = if round.living == 0 && round.own_waits { quiet_rounds + 1 } else { 0 };
        if quiet_rounds >= 2
            && let Some(released) = released.take()
        {
            *released = true;
            semi_sync::let_go(other).await?;
        }
        if let Ok(closed) = tokio::time::timeout(ROUND, &mut closing).await {
            return closed;
        }
        if other.left() < ROUND * 3 {
            return Err(StepError::Retry(obstacle(&round)));
        }
    }
}

/// Ends what an attempt that was given up, by this watcher or one that died, left pending: it would
/// hold up all writes, and take effect after somebody opened the server again.
pub(super) async fn end_earlier_attempts(session: &mut Session) -> Result<(), StepError> {
    let settings = [false, true].map(|lasting| session.dialect.close(lasting));
    loop {
        let rows: Vec<Row> = session.ask("SHOW PROCESSLIST").await?;
        let own = &session.credentials().monitor.user;
        let pending = rows.iter().filter(|row| {
            let user: Option<String> = row.get(1);
            let text: Option<String> = row.get(7).unwrap_or_default();
            user.as_ref() == Some(own) && text.is_some_and(|text| settings.contains(&text.as_str()))
        });
        let pending: Vec<u64> = pending.filter_map(|row| row.get(0)).collect();
        if pending.is_empty() {
            return Ok(());
        }
        if session.left() < ROUND * 3 {
            return Err(StepError::Retry("an earlier attempt does not end".to_owned()));
        }
        for id in pending {
            session.try_run(&session.dialect.kill(id)).await?;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn obstacle(round: &Round) -> String {
    if round.denied.is_empty() {
        return "the setting waits for statements that do not end".to_owned();
    }
    let users: Vec<&str> = round.denied.iter().map(String::as_str).collect();
    let users = users.join(", ");
    format!("the setting waits for sessions that may not be ended, error {KILL_DENIED}: {users}")
}

/// Ends client sessions; replication, system and Regent's own ones stay.
async fn end_sessions(
    session: &mut Session,
    own: &[u64],
    chosen: impl Fn(&str) -> bool,
) -> Result<Round, StepError> {
    let rows: Vec<Row> = session.ask("SHOW PROCESSLIST").await?;
    let mut round = Round::default();
    let mut living = BTreeMap::new();
    for row in rows {
        let id: u64 = row.get(0).unwrap_or_default();
        let user: String = row.get(1).unwrap_or_default();
        let command: String = row.get(4).unwrap_or_default();
        if own.first() == Some(&id) {
            // The product's documented names of states, not a message.
            let state: Option<String> = row.get(6).unwrap_or_default();
            round.own_waits = state.is_some_and(|state| state.starts_with("Waiting for"));
        }
        if own.contains(&id) || !is_client(session, &user, &command) || !chosen(&user) {
            continue;
        }
        if command == "Killed" {
            round.dying += 1;
            continue;
        }
        living.insert(id, user);
    }
    round.living = living.len();
    let ids: Vec<u64> = living.keys().copied().collect();
    for (id, code) in session.end(&ids).await? {
        match code {
            GONE => {}
            // The setting stops this one too, unless its commit waits; then it is named.
            KILL_DENIED => round.denied.extend(living.remove(&id)),
            code => return Err(StepError::Failed(format!("error {code} while ending a session"))),
        }
    }
    Ok(round)
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

/// Where nothing stronger than `read_only` exists, sessions that it does not stop are ended, until
/// a look finds none.
///
/// They may come back later and write: the product offers nothing against that. Scheduled events,
/// which also write past the setting, are stopped before it and stay stopped: a server that is
/// opened again does not know whether somebody wants them.
async fn end_privileged_sessions(session: &mut Session, question: &str) -> Result<(), StepError> {
    let grantees: Vec<String> = session.ask(question).await?;
    let users: Vec<String> = grantees.iter().map(|grantee| user_of(grantee)).collect();
    let own = [session.id()];
    for _ in 0..PRIVILEGED_ROUNDS {
        let chosen = |user: &str| users.iter().any(|one| one == user);
        let round = end_sessions(session, &own, chosen).await?;
        if let Some(user) = round.denied.first() {
            return Err(StepError::Failed(format!(
                "may not end sessions of {user}, which write past read_only, error {KILL_DENIED}"
            )));
        }
        if round.living + round.dying == 0 {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(StepError::Retry("sessions that write past read_only keep coming back".to_owned()))
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
