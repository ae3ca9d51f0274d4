//! Requests to leave servers alone for a while, also because they get other data: what is refused, and with
//! which advice.

use super::requests::{declared, refuse};
use crate::clock::WallTime;
use crate::decision::cluster::Command;
use crate::decision::maintenance::{Change, LONGEST, subject};
use crate::decision::rejoin;
use crate::decision::replacing::Replacement;
use crate::decision::situation::Situation;
use crate::decision::topology::ServerName;
use crate::decision::view::{Refusal, RefusalCode, Request};
use std::time::Duration;

/// The longest reason and name that are kept.
const WORDS: usize = 300;

/// By how much a server's clock may be ahead of a watcher's, in microseconds. A copy that the watchers begin sooner
/// after a person gave up replacing its data is made again.
const CLOCKS_DIFFER: u64 = 10_000_000;

/// What a request to begin or end it changes.
pub(super) fn changes(
    situation: &Situation,
    now: WallTime,
    request: Request,
) -> Result<Vec<Command>, Refusal> {
    Ok(match request {
        Request::Maintain { cluster, server, lasts, reason, by, new_data } => {
            let goes = new_data.then(|| data_goes(situation, server.as_ref(), now)).transpose()?;
            let change = begin(situation, server, lasts, reason, by)?;
            [Command::Maintain { cluster, change }].into_iter().chain(goes).collect()
        }
        Request::EndMaintenance { server, new_data: true, .. } => {
            vec![data_replaced(situation, server)?]
        }
        Request::EndMaintenance { cluster, server, by, .. } => {
            let change = end(situation, server, &by)?;
            vec![Command::Maintain { cluster, change }]
        }
        _ => Vec::new(),
    })
}

/// What begins maintenance of a server, or of the whole cluster.
fn begin(
    situation: &Situation,
    server: Option<ServerName>,
    lasts: Duration,
    reason: String,
    by: String,
) -> Result<Change, Refusal> {
    let forbidden = |text: String| refuse(RefusalCode::Forbidden, text);
    let cluster = &situation.spec.name;
    if let Some(server) = &server {
        declared(situation, server)?;
        if situation.primary().is_some_and(|primary| &primary.name == server) {
            return Err(forbidden(format!(
                "{server} is the primary, and clients use it; move the role first: regent \
                 switchover {cluster}"
            )));
        }
    }
    let open = situation.state.procedure.as_ref();
    if let Some(open) = open.filter(|open| open.to.is_some() && open.to == server) {
        return Err(forbidden(format!("{} {} is about to promote it", open.kind, open.id)));
    }
    if lasts.is_zero() || lasts > LONGEST {
        let days = LONGEST.as_secs() / (24 * 3600);
        return Err(forbidden(format!("it lasts no time or longer than {days} days")));
    }
    if reason.trim().is_empty() || reason.len() > WORDS || by.len() > WORDS {
        return Err(forbidden(format!("give a reason of 1 to {WORDS} characters")));
    }
    let lasts_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
    Ok(Change::Begin { server, lasts_ms, reason, by })
}

/// What ends it.
fn end(situation: &Situation, server: Option<ServerName>, by: &str) -> Result<Change, Refusal> {
    if let Some(server) = &server {
        declared(situation, server)?;
    }
    let notice = situation.state.maintenance.of(server.as_ref());
    let Some(notice) = notice else {
        let text = format!("{} is not in maintenance", subject(server.as_ref()));
        return Err(refuse(RefusalCode::Forbidden, text));
    };
    let by = if by.is_empty() { "an operator" } else { by };
    Ok(Change::End { server, until: notice.until, why: format!("{by} said so") })
}

/// What has it known that a server's data goes.
fn data_goes(
    situation: &Situation,
    server: Option<&ServerName>,
    now: WallTime,
) -> Result<Command, Refusal> {
    let server = named(server)?;
    if let Some(open) = &situation.state.procedure {
        let text = format!("{} {} is open; ask again when it is over", open.kind, open.id);
        return Err(refuse(RefusalCode::Busy, text));
    }
    let (cluster, server) = (situation.spec.name.clone(), server.clone());
    let clock = now.0.saturating_mul(1_000) + CLOCKS_DIFFER;
    Ok(Command::Replace { cluster, server, change: Replacement::Begins { clock } })
}

/// What has it known that a server has its data again, and ends its maintenance.
fn data_replaced(situation: &Situation, server: Option<ServerName>) -> Result<Command, Refusal> {
    let server = named(server.as_ref())?;
    declared(situation, server)?;
    let forbidden = |text: String| Err(refuse(RefusalCode::Forbidden, text));
    if !situation.is_rebuilding(server) || situation.maintained(server).is_none() {
        return forbidden(format!(
            "nobody said that {server}'s data goes, or the watchers look after it again"
        ));
    }
    let (primary, replica) = (situation.primary(), situation.spec.server(server));
    let (Some(primary), Some(replica)) = (primary, replica) else {
        let text = "there is no primary right now".to_owned();
        return Err(refuse(RefusalCode::Busy, text));
    };
    if let Some(why) = rejoin::strays(situation, replica, primary) {
        return forbidden(why);
    }
    let (cluster, server) = (situation.spec.name.clone(), server.clone());
    Ok(Command::Replace { cluster, server, change: Replacement::Done })
}

fn named(server: Option<&ServerName>) -> Result<&ServerName, Refusal> {
    let missing = || refuse(RefusalCode::Forbidden, "name the server".to_owned());
    server.ok_or_else(missing)
}
