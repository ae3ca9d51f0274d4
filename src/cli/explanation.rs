//! An explanation as text.

use super::output::wrapped;
use super::{schedules, tables};
use crate::api::types::{ExplanationView, StageView};

/// What would happen, and why, in the order in which it is decided.
pub fn explanation(view: &ExplanationView, width: u16) -> String {
    let mut text = format!("{}\n", view.cluster);
    text.push_str("\nfindings\n");
    match view.findings.as_slice() {
        [] => text.push_str("  none\n"),
        some => text.push_str(&tables::findings(some, true, width)),
    }
    text.push_str(&tables::maintenance(&view.maintenance, width));
    let rule = view.rule.as_ref().map_or(String::new(), |rule| format!(" ({rule})"));
    text.push_str(&format!("\nresponse  {}{rule}\n", view.response));
    for reason in &view.reasons {
        text.push_str(&format!("  - {}\n", wrapped(reason, 4, width)));
    }
    if !view.candidates.is_empty() {
        text.push_str("\ncandidates, best first\n");
    }
    for candidate in &view.candidates {
        let standing = if candidate.eligible { "eligible" } else { "excluded" };
        let reasons = candidate.reasons.join("; ");
        let line = format!("{} {standing}: {reasons}", candidate.server);
        text.push_str(&format!("  {}\n", wrapped(&line, 4, width)));
    }
    text.push_str(&plan(&view.plan, width));
    if !view.backups.is_empty() {
        text.push_str("\nbackups\n");
        text.push_str(&schedules::lines(&view.backups, width));
    }
    for (name, value) in [("loss", &view.loss), ("durability", &view.durability)] {
        if !value.is_empty() {
            text.push_str(&format!("\n{name}  {}\n", wrapped(value, name.len() + 2, width)));
        }
    }
    text
}

/// The stages of a plan, numbered.
pub fn plan(stages: &[StageView], width: u16) -> String {
    let mut text = String::new();
    if !stages.is_empty() {
        text.push_str("\nplan\n");
    }
    for (at, stage) in stages.iter().enumerate() {
        text.push_str(&format!("  {}. {}\n", at + 1, stage.name));
        for step in &stage.steps {
            text.push_str(&format!("     - {}\n", wrapped(&step.text, 7, width)));
        }
    }
    text
}
