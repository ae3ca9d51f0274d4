//! Semi-synchronous replication, on the sending and on the receiving side.

use super::applier::drain;
use super::receiver::until;
use super::session::{PAUSE, Session, StepError, position};
use crate::decision::plan::Facts;
use crate::decision::report::{Receiver, Status};
use crate::decision::topology::Flavor;
use crate::runtime::mysql::dialect::Threads;
use std::collections::BTreeMap;
use std::time::Duration;

/// The plugin is loaded already: another watcher or a person was faster.
const PLUGIN_EXISTS: u16 = 1125;

/// The server takes no writes.
const CLOSED: u16 = 1290;

/// How long a receiver's new connection may take to come to terms with its source, within a data center.
const TERMS: Duration = Duration::from_millis(700);

/// Commits wait for `acks` acknowledgements, or not at all.
///
/// The plugin is loaded even for none: a replica counts only when its receiver connected to a
/// source that had the plugin already. On a server that still has something to apply, that is
/// applied first, as its applier would wait as well.
pub(super) async fn commits_wait(session: &mut Session, acks: u32) -> Result<Facts, StepError> {
    if session.dialect.flavor == Flavor::MariaDb && acks > 1 {
        return Err(StepError::Failed(format!(
            "MariaDB waits for one acknowledgement at the most, not {acks}"
        )));
    }
    if let Some((install, _)) = session.dialect.install_source() {
        load(session, install).await?;
    }
    if acks > 0 && !session.status().await?.channels.is_empty() {
        drain(session).await?;
    }
    set(session, acks).await?;
    let status = session.status().await?;
    let there = match acks {
        0 => !status.semi_sync.source,
        acks => status.semi_sync.source && status.semi_sync.acks == acks,
    };
    if !there {
        return Err(StepError::Retry("the settings did not stay as they were set".to_owned()));
    }
    if acks > 0 && !is_on(session, &session.dialect.waiting()).await? {
        return Err(StepError::Retry("set, but commits do not wait yet".to_owned()));
    }
    Ok(position(&status))
}

/// Sets what is not so yet, the switch last.
///
/// The switch is never kept on across a restart: a replica's applier would wait for itself, and
/// whoever opens a restarted primary sets it anew before. So that nobody writes there earlier, the
/// server comes back closed. All else is kept, best effort.
pub(super) async fn set(session: &mut Session, acks: u32) -> Result<(), StepError> {
    let switch = session.dialect.waiting_switch();
    let kept = session.persisted().await?;
    if acks > 0 {
        prepare(session, acks, &kept).await?;
        session.close_at_restart(&kept).await?;
        return session.run(&session.dialect.source_waits(true)).await;
    }
    session.run(&session.dialect.source_waits(false)).await?;
    if kept.get(&switch).is_some_and(|value| value == "ON") {
        session.run(&format!("SET PERSIST {switch} = OFF")).await?;
    }
    // So that nothing but the switch is left to do when this server is promoted.
    prepare(session, 1, &kept).await
}

/// Sets how commits wait once they do, where it differs.
async fn prepare(
    session: &mut Session,
    acks: u32,
    kept: &BTreeMap<String, String>,
) -> Result<(), StepError> {
    let wanted = session.dialect.waiting_settings(acks);
    let names: Vec<String> = wanted.iter().map(|(name, _)| format!("@@global.{name}")).collect();
    let question = format!("SELECT CONCAT_WS(',', {})", names.join(", "));
    let present: Vec<String> = session.ask(&question).await?;
    let present: Vec<&str> = present.first().map_or(vec![], |all| all.split(',').collect());
    let persists = session.dialect.persisted().is_some();
    let word = if persists { "PERSIST" } else { "GLOBAL" };
    let mut orders = Vec::new();
    for (index, (name, value)) in wanted.iter().enumerate() {
        let set = present.get(index).is_some_and(|now| same(now, value));
        let stays = !persists || kept.get(name).is_some_and(|kept| same(kept, value));
        if !set || !stays {
            orders.push(format!("SET {word} {name} = {}", literal(value)));
        }
    }
    match orders.is_empty() {
        true => Ok(()),
        false => session.run(&orders.join("; ")).await,
    }
}

/// Switches are read as numbers and kept as words.
fn same(present: &str, wanted: &str) -> bool {
    present.eq_ignore_ascii_case(wanted) || (present == "1" && wanted == "ON")
}

fn literal(value: &str) -> String {
    let number = value.bytes().all(|byte| byte.is_ascii_digit());
    if number { value.to_owned() } else { format!("'{value}'") }
}

/// The server acknowledges what it receives, or not; a connected receiver does so at once.
pub(super) async fn acknowledges(session: &mut Session, on: bool) -> Result<Facts, StepError> {
    if let Some((install, _)) = session.dialect.install_replica() {
        if !on {
            return Ok(acknowledged(&session.status().await?));
        }
        load(session, install).await?;
    }
    let before = session.status().await?;
    if before.semi_sync.replica != on {
        let set = session.dialect.acknowledges(on);
        session.run(&set).await?;
    }
    // The setting takes effect when the receiver connects.
    let effective = is_on(session, &session.dialect.acknowledging()).await? == on;
    if before.semi_sync.replica != on || !effective {
        for channel in &before.channels {
            if channel.receiver != Receiver::Stopped {
                let stop = session.dialect.stop(Threads::Receiver, &channel.name);
                let start = session.dialect.start(Threads::Receiver, &channel.name);
                session.run(&stop).await?;
                session.run(&start).await?;
            }
        }
    }
    let began = session.left();
    let running = |name: &str| {
        before.channels.iter().any(|one| one.name == name && one.receiver == Receiver::Connected)
    };
    let after = until(session, |status| {
        let back = status
            .channels
            .iter()
            .all(|channel| !running(&channel.name) || channel.receiver == Receiver::Connected);
        back && status.semi_sync.replica == on
    })
    .await?;
    if before.channels.iter().any(|channel| running(&channel.name)) {
        // It asks its source as much again as connecting to it took, and more.
        let line = began.saturating_sub(session.left());
        in_effect(session, on, TERMS + line * 3).await?;
    }
    Ok(acknowledged(&after))
}

/// What it may have acknowledged: all that it received, but for what it wrote itself.
fn acknowledged(status: &Status) -> Facts {
    let received = status.received();
    let received = received.without_origin(status.uuid.as_deref(), status.server_id);
    Facts { executed: Some(status.executed.clone()), received: Some(received), fork: None }
}

/// Waits until the receiver's present connection acknowledges, or no longer does.
async fn in_effect(session: &mut Session, on: bool, limit: Duration) -> Result<(), StepError> {
    let least = session.left().saturating_sub(limit);
    while is_on(session, &session.dialect.acknowledging()).await? != on {
        if session.left() <= least {
            let reason = if on { "set, but its source asks for none" } else { "not yet off" };
            return Err(StepError::Retry(format!("acknowledgements: {reason}")));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Lets all commits that wait now end without an acknowledgement, and later ones as well.
///
/// On MySQL that is quick once no replica is connected; otherwise, and while one is leaving, it
/// takes up to a second, until the thread that reads acknowledgements looks up.
pub(super) async fn let_go(session: &mut Session) -> Result<(), StepError> {
    if let Some(statement) = session.dialect.waits_without_clients(false) {
        session.run(&statement).await?;
        if !is_on(session, &session.dialect.waiting()).await? {
            return Ok(());
        }
    }
    session.run(&session.dialect.source_waits(false)).await
}

/// Undoes [`let_go`], also after the permit: commits that nobody holds must not be acknowledged.
pub(super) async fn hold_again(session: &mut Session) -> Result<(), StepError> {
    session.change(&session.dialect.source_waits(true)).await?;
    match session.dialect.waits_without_clients(true) {
        Some(statement) => session.change(&statement).await,
        None => Ok(()),
    }
}

/// Loads a plugin, which writes a system table, though not the binary log.
///
/// A server that is closed refuses that, so `super_read_only` is lifted for the one statement;
/// `read_only` keeps ordinary accounts out meanwhile. All of it goes in one packet, which the
/// server finishes whatever becomes of this side. Should it stay lifted all the same, because the
/// server refused the plugin and the connection broke then, probes see it and it is fenced.
pub(super) async fn load(session: &mut Session, install: &str) -> Result<(), StepError> {
    let mut refused = session.try_run(install).await?;
    if refused == Some(CLOSED) {
        let (lift, close) = ("SET GLOBAL super_read_only = OFF", session.dialect.close(false));
        refused = session.try_run(&format!("{lift}; {install}; {close}")).await?;
        if refused.is_some() {
            session.run(close).await?;
        }
    }
    match refused {
        None | Some(PLUGIN_EXISTS) => session.learn().await,
        Some(code) => Err(StepError::Failed(format!("error {code} while loading semi-sync"))),
    }
}

async fn is_on(session: &mut Session, question: &str) -> Result<bool, StepError> {
    let rows: Vec<(String, String)> = session.ask(question).await?;
    Ok(rows.first().is_some_and(|(_, value)| value == "ON"))
}
