//! Adopting a running cluster: exactly one writable server that the others follow.

use super::diagnosis::{Finding, FindingKind, about};
use super::report::Writable;
use super::situation::Situation;
use super::topology::{ServerName, ServerSpec};

/// What the topology says about who is the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This one, for this reason.
    Primary {
        /// Who.
        server: ServerName,
        /// As a sentence.
        why: String,
    },
    /// It cannot be told.
    Unclear {
        /// What was seen, one line per server and a reason first.
        seen: Vec<String>,
    },
}

/// Reads the primary off the running topology: every server must answer, exactly one takes writes,
/// and all others follow it.
pub fn verdict(situation: &Situation) -> Verdict {
    let servers = &situation.spec.servers;
    let seen: Vec<String> = servers.iter().map(|server| describe(situation, server)).collect();
    let unclear = |why: String| Verdict::Unclear {
        seen: std::iter::once(why).chain(seen.iter().cloned()).collect(),
    };
    let silent = servers.iter().filter(|server| situation.status(&server.name).is_none());
    let silent: Vec<_> = silent.map(|server| server.name.to_string()).collect();
    if !silent.is_empty() {
        return unclear(format!("no status of {}", silent.join(", ")));
    }
    let writable = |server: &&ServerSpec| {
        situation.status(&server.name).is_some_and(|status| status.writable == Writable::Open)
    };
    let writers: Vec<_> = servers.iter().filter(writable).collect();
    let [primary] = writers.as_slice() else {
        return unclear(match writers.len() {
            0 => "no server takes writes".to_owned(),
            n => format!("{n} servers take writes"),
        });
    };
    let stray = servers.iter().filter(|server| server.name != primary.name).find(|server| {
        let channel = situation.status(&server.name).and_then(|status| status.channel());
        channel.is_none_or(|channel| channel.source != primary.address)
    });
    if let Some(stray) = stray {
        return unclear(format!("{} does not follow {}", stray.name, primary.name));
    }
    if situation.status(&primary.name).is_some_and(|status| !status.channels.is_empty()) {
        return unclear(format!("{} takes writes and follows another server", primary.name));
    }
    let why =
        format!("{} is the only one that takes writes, and all others follow it", primary.name);
    Verdict::Primary { server: primary.name.clone(), why }
}

/// Why a server cannot be adopted as primary on an operator's word; `None` when it can.
pub fn objection(situation: &Situation, primary: &ServerName) -> Option<String> {
    let Some(status) = situation.status(primary) else {
        return Some(format!("{primary} does not answer, so nothing can be said of it"));
    };
    let ahead = situation.spec.servers.iter().find(|server| {
        situation.status(&server.name).is_some_and(|other| {
            let beyond = other.beyond(&status.executed);
            !beyond.without_origin(status.uuid.as_deref(), status.server_id).is_empty()
        })
    });
    ahead.map(|server| {
        format!(
            "{} holds transactions that {primary} does not have; they would be lost",
            server.name
        )
    })
}

/// The finding of a cluster without an adopted primary.
pub(super) fn finding(situation: &Situation) -> Option<Finding> {
    match verdict(situation) {
        Verdict::Primary { .. } => None,
        Verdict::Unclear { mut seen } => {
            let why = seen.remove(0);
            let text = format!(
                "not adopted, because {why}; mend that, or run: regent adopt {} --primary SERVER",
                situation.spec.name
            );
            Some(about(FindingKind::NotAdopted, None, text, seen))
        }
    }
}

fn describe(situation: &Situation, server: &ServerSpec) -> String {
    let name = &server.name;
    let Some(status) = situation.status(name) else {
        let sight = situation.views.get(name).and_then(|views| views.values().next());
        let what = sight.map_or("not probed yet".to_owned(), |view| view.sight.to_string());
        return format!("{name}: {what}");
    };
    let writes = match status.writable {
        Writable::Open => "takes writes",
        Writable::ReadOnly | Writable::Closed => "read-only",
    };
    let follows = status.channel().map_or("follows nobody".to_owned(), |channel| {
        let source = situation.spec.server_at(&channel.source);
        let source = source.map_or(channel.source.to_string(), |server| server.name.to_string());
        format!("follows {source}")
    });
    format!("{name}: {writes}, {follows}")
}
