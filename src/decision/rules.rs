//! Rules: which response a finding gets, and within what limits.
//!
//! A rule file is an ordered list; the first rule that matches a finding decides. Conditions are
//! flat and responses are a closed list, so that a rule can be read aloud and checked by machine.

mod mistakes;

pub use mistakes::{Mistake, RuleError};

use super::diagnosis::FindingKind;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The rules that come with the program, under the names a configuration uses.
pub const SHIPPED: &[(&str, &str)] = &[
    ("default", include_str!("../../failover-rules/default.yaml")),
    ("cautious", include_str!("../../failover-rules/cautious.yaml")),
    ("cross-data-center", include_str!("../../failover-rules/cross-data-center.yaml")),
];

/// An ordered list of rules; the first that matches a finding decides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleSet {
    /// The name it was loaded under.
    pub name: String,
    /// In order.
    pub rules: Vec<Rule>,
    /// What makes one candidate better than another of equal position.
    pub candidates: Preference,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The kinds of finding it is for.
    pub findings: Vec<FindingKind>,
    /// The cluster's durability it is for; any when absent.
    #[serde(default)]
    pub durability: Option<DurabilityKind>,
    /// What to do.
    pub respond: Respond,
    /// For how long the finding must have lasted.
    #[serde(default, deserialize_with = "spans::required")]
    pub confirm: Duration,
    /// How soon after the end of the last procedure for the same finding.
    #[serde(default, deserialize_with = "spans::required")]
    pub cooldown: Duration,
    /// How many procedures for the same finding within an hour; unlimited when absent.
    #[serde(default)]
    pub per_hour: Option<u32>,
    /// Whether to go on although acknowledged transactions may be lost; of a rejoin, although the
    /// server's own transactions cannot be written down.
    #[serde(default)]
    pub accept_loss: bool,
    /// Of a rejoin: whether the server's data may be replaced.
    #[serde(default)]
    pub rebuild: bool,
}

/// A durability as rules name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DurabilityKind {
    /// Semi-sync without fall-back.
    Lossless,
    /// Asynchronous allowed.
    BestEffort,
}

/// What a rule can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Respond {
    /// Replace the primary.
    FailOver,
    /// Bring the server to its declared role.
    Repair,
    /// Let commits go on without acknowledgements until a replica is back.
    Degrade,
    /// Write down what the server alone holds, and let it follow again.
    Rejoin,
    /// Tell people.
    Alert,
    /// Show it, no more.
    Nothing,
}

impl fmt::Display for Respond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Respond::FailOver => "fail_over",
            Respond::Repair => "repair",
            Respond::Degrade => "degrade",
            Respond::Rejoin => "rejoin",
            Respond::Alert => "alert",
            Respond::Nothing => "nothing",
        })
    }
}

/// What makes one candidate better than another of equal position and promotion wish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preference {
    /// One in the former primary's data center first.
    #[default]
    SameDataCenter,
    /// One in another data center first.
    OtherDataCenter,
    /// No difference.
    AnyDataCenter,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    candidates: Preference,
    rules: Vec<Rule>,
}

impl RuleSet {
    /// The shipped set of that name.
    pub fn shipped(name: &str) -> Option<RuleSet> {
        let (name, text) = SHIPPED.iter().find(|(shipped, _)| *shipped == name)?;
        RuleSet::parse(name, text).ok()
    }

    /// Reads a rule file; every mistake beyond its form is listed.
    pub fn parse(name: &str, text: &str) -> Result<RuleSet, Vec<RuleError>> {
        let file: File = serde_yaml::from_str(text).map_err(|error| {
            let place = error
                .location()
                .map_or(String::new(), |at| format!(":{}:{}", at.line(), at.column()));
            let mistake = Mistake::Form(error.to_string());
            vec![RuleError { name: name.to_owned(), place, mistake }]
        })?;
        let set = RuleSet { name: name.to_owned(), rules: file.rules, candidates: file.candidates };
        let mistakes = mistakes::all(&set, text);
        if mistakes.is_empty() { Ok(set) } else { Err(mistakes) }
    }

    /// Own rules with those of another set after them, for findings that they say nothing about.
    pub fn before(rules: Vec<Rule>, rest: RuleSet) -> Result<RuleSet, Vec<RuleError>> {
        let candidates = rest.candidates;
        let mut set = RuleSet { name: "own".to_owned(), rules, candidates };
        let mistakes = mistakes::of_rules(&set, "");
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        set.rules.extend(rest.rules);
        Ok(set)
    }

    /// The rule that decides about a finding, with its place from 1.
    pub fn decide(
        &self,
        finding: FindingKind,
        durability: DurabilityKind,
    ) -> Option<(usize, &Rule)> {
        let matches = |rule: &&Rule| {
            rule.findings.contains(&finding)
                && rule.durability.is_none_or(|kind| kind == durability)
        };
        let place = self.rules.iter().position(|rule| matches(&rule))?;
        Some((place + 1, &self.rules[place]))
    }
}

/// Spans of time as people write them: `300ms`, `2s`, `5m`, `1h`.
pub mod spans {
    use serde::{Deserialize, Deserializer};
    use std::time::Duration;

    /// For a field that has a span.
    pub fn required<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        let wrong =
            || serde::de::Error::custom(format!("{text:?} is no span; write 300ms, 2s or 5m"));
        parse(&text).ok_or_else(wrong)
    }

    /// Reads one span.
    pub fn parse(text: &str) -> Option<Duration> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = text[..digits].parse().ok()?;
        let unit = match text[digits..].trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        Some(Duration::from_millis(number.checked_mul(unit)?))
    }

    /// Prints one span so that `parse` reads it back (to the millisecond).
    pub fn print(span: Duration) -> String {
        let millis = span.as_millis();
        if millis >= 1_000 && millis.is_multiple_of(1_000) {
            format!("{}s", millis / 1_000)
        } else {
            format!("{millis}ms")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::ALL_KINDS;
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let mistakes = RuleSet::parse("mine.yaml", text).unwrap_err();
        let missing = |mistake: &&RuleError| !matches!(mistake.mistake, Mistake::Missing(_));
        mistakes.iter().filter(missing).map(ToString::to_string).collect()
    }

    #[test]
    fn shipped_sets_are_right() {
        for (name, text) in SHIPPED {
            RuleSet::parse(name, text).unwrap();
        }
    }

    #[test]
    fn a_rule_that_never_decides_is_refused_with_its_place() {
        let extra = "  - { findings: [primary_dead], respond: alert }\n";
        let text = format!("{}{extra}", SHIPPED[0].1);
        let line = text.lines().count();
        let mistakes = told(&text);
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        let start = format!("mine.yaml:{line}:18: ");
        assert!(mistakes[0].starts_with(&start), "{mistakes:?}");
        assert!(mistakes[0].ends_with("for primary_dead never decides: rule 1 comes first"));
    }

    #[test]
    fn two_rules_may_hide_a_third_together() {
        let text = "rules:\n\
            # primary_dead twice\n\
            - findings: [primary_dead]\n  durability: lossless\n  respond: alert\n\
            - findings: [primary_dead]\n  durability: best_effort\n  respond: alert\n\
            - findings:\n    - primary_hung\n    - primary_dead\n  respond: alert\n";
        let mistakes = told(text);
        assert_eq!(
            mistakes,
            ["mine.yaml:11:7: rule 3 for primary_dead never decides: rules 1 and 2 come first"]
        );
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        let rule = |rest: &str| format!("rules:\n  - {{ findings: [primary_dead], {rest} }}\n");
        for (rest, word) in [
            ("respond: alert, accept_loss: true", "accept_loss"),
            ("respond: nothing, confirm: 3s", "confirm"),
            ("respond: alert, cooldown: 3s", "cooldown"),
            ("respond: alert, per_hour: 3", "per_hour"),
            ("respond: fail_over, per_hour: 0", "per_hour"),
            ("respond: repair", "no repair"),
        ] {
            let mistakes = told(&rule(rest));
            assert!(mistakes.len() == 1 && mistakes[0].contains(word), "{rest}: {mistakes:?}");
            assert!(mistakes[0].starts_with("mine.yaml:2:"), "{mistakes:?}");
        }
        let empty = told("rules:\n  - { findings: [], respond: alert }\n");
        assert_eq!(empty, ["mine.yaml:2:3: rule 1 never decides: it lists no finding"]);
        let twice =
            told("rules:\n  - { findings: [primary_dead, primary_dead], respond: alert }\n");
        assert_eq!(twice, ["mine.yaml:2:32: rule 1 lists primary_dead twice"]);
    }

    #[test]
    fn mistakes_of_form_name_their_place() {
        let text = "rules:\n  - { findings: [primary_ded], respond: alert }\n";
        let mistakes = RuleSet::parse("mine.yaml", text).unwrap_err();
        let text = mistakes[0].to_string();
        assert!(text.starts_with("mine.yaml:2:") && text.contains("primary_ded"), "{text}");
        let missing = RuleSet::parse("mine.yaml", "rules: []\n").unwrap_err();
        assert_eq!(missing.len(), ALL_KINDS.len());
    }
}
