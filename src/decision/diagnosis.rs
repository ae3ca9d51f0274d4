//! Findings: what is wrong with a cluster, each with its evidence.
//!
//! A primary is dead when a majority of watchers says so *and* no replica shows that it lives.
//! A stale view is unknown, and unknown is never dead.

mod kinds;
mod lost;
mod primary;
mod protection;
mod replicas;
mod settings;

pub use kinds::{ALL_KINDS, FindingKind};
pub(super) use replicas::{apart, divergence};

use super::situation::{Situation, View};
use super::topology::{ServerName, ServerSpec, WatcherName};
use super::view::FindingView;

/// How many failed probes in a row make one watcher believe it.
pub const CONFIRMING_PROBES: u32 = 2;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its kind.
    pub kind: FindingKind,
    /// The server it is about; none when it is about the whole cluster.
    pub server: Option<ServerName>,
    /// As a sentence.
    pub text: String,
    /// Who said what, one line each.
    pub evidence: Vec<String>,
}

impl Finding {
    /// As it is shown.
    pub fn view(&self) -> FindingView {
        FindingView {
            kind: self.kind.to_string(),
            server: self.server.clone(),
            text: self.text.clone(),
            evidence: self.evidence.clone(),
        }
    }
}

/// Everything that is wrong, most important first.
pub fn diagnose(situation: &Situation) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(primary) = situation.primary() {
        found.extend(primary::findings(situation, primary));
        found.extend(protection::findings(situation, primary));
        found.extend(replicas::second_writers(situation));
        for replica in situation.replicas() {
            found.extend(replicas::findings(situation, replica));
        }
        found.extend(replicas::no_candidate(situation));
    } else {
        found.extend(super::adoption::finding(situation));
    }
    for server in &situation.spec.servers {
        found.extend(settings::findings(situation, server));
    }
    found.extend(settings::differences(situation));
    found.sort_by(|a, b| (a.kind, &a.server).cmp(&(b.kind, &b.server)));
    found
}

fn of(kind: FindingKind, server: &ServerSpec, text: String, evidence: Vec<String>) -> Finding {
    about(kind, Some(server.name.clone()), text, evidence)
}

/// A finding.
pub(super) fn about(
    kind: FindingKind,
    server: Option<ServerName>,
    text: String,
    evidence: Vec<String>,
) -> Finding {
    Finding { kind, server, text, evidence }
}

fn evidence(fresh: &[(&WatcherName, &View)]) -> Vec<String> {
    let line = |(watcher, view): &(&WatcherName, &View)| {
        format!(
            "watcher {watcher}, {} ms ago: {} ({} in a row)",
            view.age.as_millis(),
            view.sight,
            view.times
        )
    };
    fresh.iter().map(line).collect()
}
