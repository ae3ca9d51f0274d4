//! Schedules of backups as text.

use super::backup::amount;
use super::output::wrapped;
use crate::api::types::{CandidateView, EndedView, RunView, ScheduleView};

/// What each schedule did, does and will do, a line each; with the servers it could read from where
/// these are told.
pub fn lines(schedules: &[ScheduleView], width: u16) -> String {
    let mut text = String::new();
    for schedule in schedules {
        let mut parts = Vec::new();
        parts.extend(schedule.run.as_ref().map(running));
        match (&schedule.last, &schedule.last_success) {
            (None, _) => parts.push("no run has ended yet".to_owned()),
            (Some(last), success) => {
                parts.push(ended(last));
                let earlier = success.as_ref().filter(|_| last.backup.is_none());
                parts.extend(earlier.map(|success| format!("before that {}", ended(success))));
            }
        }
        if !schedule.missed.is_empty() {
            parts.push(format!("{} slot(s) got no run", schedule.missed.len()));
        }
        parts.push(match schedule.next {
            Some(next) => format!("next {next}"),
            None => "it never comes".to_owned(),
        });
        let line = format!("backup {} ({}): {}", schedule.name, schedule.says, parts.join("; "));
        text.push_str(&format!("  {}\n", wrapped(&line, 4, width)));
        if !schedule.waiting.is_empty() {
            let line = format!("waits: {}", schedule.waiting);
            text.push_str(&format!("    {}\n", wrapped(&line, 6, width)));
        }
        for source in &schedule.sources {
            text.push_str(&format!("    {}\n", wrapped(&chance(source), 6, width)));
        }
    }
    text
}

fn running(run: &RunView) -> String {
    let (slot, attempt) = (run.slot, run.attempt);
    match (&run.watcher, &run.server) {
        (Some(watcher), Some(server)) => {
            let so_far = so_far(run);
            format!("{watcher} makes that of {slot} from {server}, attempt {attempt}, {so_far}")
        }
        _ => format!("that of {slot} waits after attempt {attempt}: {}", run.why),
    }
}

/// How far a run is, and when it ends if that can be told.
fn so_far(run: &RunView) -> String {
    let mut text = format!("{} stored", amount(run.bytes));
    if run.read_bytes > 0 {
        let of = run.expected_bytes.map(|all| format!(" of about {}", amount(all)));
        let (read, rate) = (amount(run.read_bytes), amount(run.bytes_per_second));
        text.push_str(&format!(", {read}{} read, {rate}/s", of.unwrap_or_default()));
    }
    if let Some(left) = run.left_seconds {
        text.push_str(&format!(", about {}:{:02} left", left / 60, left % 60));
    }
    if run.spooled_bytes > 0 {
        text.push_str(&format!(", {} in the spool", amount(run.spooled_bytes)));
    }
    if !run.trouble.is_empty() {
        text.push_str(&format!("; target {}", run.trouble));
    }
    text
}

fn ended(ended: &EndedView) -> String {
    match &ended.backup {
        Some(backup) => {
            let text = format!("that of {} made {backup}, {}", ended.slot, amount(ended.bytes));
            match ended.lacking.as_slice() {
                [] => text,
                lacking => format!("{text}, which is not at {}", lacking.join("; ")),
            }
        }
        None => format!("that of {} failed: {}", ended.slot, ended.why),
    }
}

fn chance(source: &CandidateView) -> String {
    let standing = if source.eligible { "may be read" } else { "not read" };
    format!("{} {standing}: {}", source.server, source.reasons.join("; "))
}
