//! Requests to leave servers alone for a while: what is refused, and with which advice.

use super::requests::{declared, refuse};
use crate::decision::maintenance::{Change, LONGEST, subject};
use crate::decision::situation::Situation;
use crate::decision::topology::ServerName;
use crate::decision::view::{Refusal, RefusalCode};
use std::time::Duration;

/// The longest reason and name that are kept.
const WORDS: usize = 300;

/// What begins maintenance of a server, or of the whole cluster.
pub(super) fn begin(
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
pub(super) fn end(
    situation: &Situation,
    server: Option<ServerName>,
    by: &str,
) -> Result<Change, Refusal> {
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
