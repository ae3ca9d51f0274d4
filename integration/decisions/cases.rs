//! Every `*.case` file: a sketched situation, `---`, and what is decided about it.
//!
//! After a change that is meant, `REGENT_REWRITE_CASES=1 cargo test --test decisions` writes down
//! what is decided now; read the difference before committing it.

use regent::decision::rules::{Rule, RuleSet};
use regent::decision::sketch::explain_text;
use regent::decision::view::{CandidateView, ExplanationView, StageView};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const LINE: &str = "---\n";

#[test]
fn every_case_is_decided_as_written() {
    let rewrite = std::env::var_os("REGENT_REWRITE_CASES").is_some();
    let files = files();
    assert!(files.len() >= 45, "only {} cases found", files.len());
    let failures: Vec<_> = files.iter().filter_map(|file| check(file, rewrite).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A rule of a shipped set that no case shows might as well not be there.
#[test]
fn every_rule_has_a_case() {
    use regent::decision::rules::{Respond, SHIPPED};
    let shown: BTreeSet<String> = files()
        .iter()
        .filter_map(|file| {
            let text = std::fs::read_to_string(file).unwrap();
            explain_text(text.split_once(LINE)?.0).ok()?.rule
        })
        .collect();
    for (name, _) in SHIPPED {
        let rules = RuleSet::shipped(name).unwrap().rules;
        let silent = |rule: &Rule| rule.respond == Respond::Nothing;
        for (place, rule) in rules.iter().enumerate().filter(|(_, rule)| !silent(rule)) {
            let wanted = format!("rule {} of {name}: {}", place + 1, rule.respond);
            assert!(shown.contains(&wanted), "no case shows {wanted}");
        }
    }
}

/// Compares one case with what is decided, or writes that down.
fn check(file: &Path, rewrite: bool) -> Result<(), String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
    let (sketch, expected) = text.split_once(LINE).unwrap_or((&text, ""));
    let decided = match explain_text(sketch) {
        Ok(view) => shown(&view),
        Err(error) => format!("refused: {error}\n"),
    };
    if decided == expected {
        return Ok(());
    }
    if rewrite {
        let whole = format!("{sketch}{LINE}{decided}");
        return std::fs::write(file, whole).map_err(|error| format!("{name}: {error}"));
    }
    let differing = decided.lines().zip(expected.lines()).find(|(now, then)| now != then);
    let (now, then) = differing.unwrap_or(("(another length)", "(another length)"));
    Err(format!("{name}: first difference\n  expected: {then}\n  decided:  {now}\n\n{decided}"))
}

pub fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/decisions/cases");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "case"));
    files.sort();
    files
}

/// An explanation in the lines that a case holds; long UUIDs are shortened to their letter.
fn shown(view: &ExplanationView) -> String {
    let mut text = String::new();
    for finding in &view.findings {
        let server = finding.server.as_ref().map_or(String::new(), |server| format!(" {server}"));
        writeln!(text, "finding {}{server}: {}", finding.kind, finding.text).unwrap();
        for line in &finding.evidence {
            writeln!(text, "    {line}").unwrap();
        }
    }
    let rule = view.rule.as_ref().map_or(String::new(), |rule| format!(" by {rule}"));
    writeln!(text, "response {}{rule}", view.response).unwrap();
    for reason in &view.reasons {
        writeln!(text, "    {reason}").unwrap();
    }
    for candidate in &view.candidates {
        writeln!(text, "candidate {}", candidate_line(candidate)).unwrap();
    }
    for stage in &view.plan {
        writeln!(text, "stage {}", stage_line(stage)).unwrap();
    }
    if !view.loss.is_empty() {
        writeln!(text, "loss {}", view.loss).unwrap();
    }
    shortened(&text)
}

fn candidate_line(candidate: &CandidateView) -> String {
    let out = if candidate.eligible { "" } else { " (excluded)" };
    format!("{}{out}: {}", candidate.server, candidate.reasons.join("; "))
}

fn stage_line(stage: &StageView) -> String {
    let steps: Vec<_> = stage.steps.iter().map(|step| step.text.as_str()).collect();
    format!("{}: {}", stage.name, steps.join("; "))
}

fn shortened(text: &str) -> String {
    ["A", "B", "C", "D", "E", "F"].iter().fold(text.to_owned(), |text, letter| {
        let group = |length: usize| letter.to_lowercase().repeat(length);
        text.replace(&[8, 4, 4, 4, 12].map(group).join("-"), letter)
    })
}
