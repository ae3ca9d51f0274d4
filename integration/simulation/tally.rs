//! What a sweep has come across.

use crate::faults::{OTHERS, WEIGHTS};
use regent::decision::diagnosis::ALL_KINDS;
use regent::decision::plan::Step;
use regent::decision::view::Response;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How often each thing happened, by kind.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<(String, String), u64>);

impl Tally {
    pub fn count(&mut self, kind: &str, word: &str) {
        self.add(kind, word, 1);
    }

    pub fn add(&mut self, kind: &str, word: &str, times: u64) {
        *self.0.entry((kind.to_owned(), word.to_owned())).or_default() += times;
    }

    pub fn merge(&mut self, other: &Tally) {
        for ((kind, word), times) in &other.0 {
            self.add(kind, word, *times);
        }
    }

    pub fn has(&self, kind: &str, word: &str) -> bool {
        self.0.contains_key(&(kind.to_owned(), word.to_owned()))
    }

    /// Faults, steps and findings that did not come up.
    pub fn unreached(&self) -> Vec<String> {
        let drawn = WEIGHTS.iter().map(|(fault, _)| *fault).chain(OTHERS);
        let traps = ["BeforeEntry", "AfterEntry", "Candidate"];
        let steps = Step::KINDS;
        let wanted = drawn.map(|word| ("fault", word.to_owned()));
        let wanted = wanted.chain(traps.map(|word| ("trap", word.to_owned())));
        let wanted = wanted.chain(steps.iter().map(|word| ("step done", (*word).to_owned())));
        let wanted = wanted.chain(ALL_KINDS.iter().map(|kind| ("finding", kind.to_string())));
        let missing =
            wanted.filter(|(kind, word)| !self.0.contains_key(&((*kind).to_owned(), word.clone())));
        missing.map(|(kind, word)| format!("{kind} {word}")).collect()
    }

    /// One line per kind.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut last = "";
        for ((kind, word), times) in &self.0 {
            if kind != last {
                let _ = write!(text, "\n  {kind:<14}");
                last = kind;
            }
            let _ = write!(text, " {word} {times};");
        }
        text
    }
}

/// An answer as one word.
pub fn word(response: &Response) -> &'static str {
    match response {
        Response::Status(_) => "status",
        Response::Explanation(_) => "explanation",
        Response::Events(_) => "events",
        Response::Procedure(_) => "procedure",
        Response::Done { .. } => "done",
        Response::Opened { .. } => "opened",
        Response::Refused(_) => "refused",
    }
}
