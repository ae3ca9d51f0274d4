//! What is wrong with a rule file, and where.

use super::{DurabilityKind, Respond, Rule, RuleSet};
use crate::decision::diagnosis::{ALL_KINDS, FindingKind};
use std::time::Duration;

/// A mistake in a rule file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}{place}: {mistake}")]
pub struct RuleError {
    /// The file.
    pub name: String,
    /// `:line:column` where that is known.
    pub place: String,
    /// What is wrong.
    pub mistake: Mistake,
}

/// Why a rule file cannot be used; rules are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// It is not YAML of the right form.
    #[error("{0}")]
    Form(String),
    /// A rule cannot ever decide about a finding.
    #[error("rule {number} for {finding} never decides: {earlier} first")]
    Shadowed {
        /// Its place.
        number: usize,
        /// The finding.
        finding: FindingKind,
        /// Which rules come first, in words.
        earlier: String,
    },
    /// A rule cannot ever decide.
    #[error("rule {0} never decides: it lists no finding")]
    Empty(usize),
    /// A finding is named again.
    #[error("rule {number} lists {finding} twice")]
    Twice {
        /// The rule's place.
        number: usize,
        /// The finding.
        finding: FindingKind,
    },
    /// A field that changes nothing, or that lets the rule do nothing.
    #[error("rule {number}: {field} {why}")]
    Meaningless {
        /// The rule's place.
        number: usize,
        /// The field.
        field: &'static str,
        /// Why, and what would be right.
        why: &'static str,
    },
    /// A response that makes no sense for the finding.
    #[error("rule {number} answers {finding} with {respond}; right would be {right}")]
    Senseless {
        /// The rule's place.
        number: usize,
        /// The finding.
        finding: FindingKind,
        /// What it asks for.
        respond: Respond,
        /// What could be asked for.
        right: &'static str,
    },
    /// A finding is left without any rule.
    #[error("no rule for {0}; add one, `respond: nothing` if that is meant")]
    Missing(FindingKind),
}

/// Every mistake beyond the form.
pub(super) fn all(set: &RuleSet, text: &str) -> Vec<RuleError> {
    let mut found = of_rules(set, text);
    let durabilities = [DurabilityKind::Lossless, DurabilityKind::BestEffort];
    let missing = |kind: &&FindingKind| {
        durabilities.iter().any(|durability| set.decide(**kind, *durability).is_none())
    };
    found.extend(ALL_KINDS.iter().filter(missing).map(|kind| RuleError {
        name: set.name.clone(),
        place: String::new(),
        mistake: Mistake::Missing(*kind),
    }));
    found
}

/// Mistakes of single rules.
pub(super) fn of_rules(set: &RuleSet, text: &str) -> Vec<RuleError> {
    let spans = spans(text);
    let mut found = Vec::new();
    for (index, rule) in set.rules.iter().enumerate() {
        let span = spans.get(index).map_or(&[][..], Vec::as_slice);
        let mut add = |word: &str, nth: usize, mistake: Mistake| {
            let place = place(span, word, nth);
            found.push(RuleError { name: set.name.clone(), place, mistake });
        };
        if rule.findings.is_empty() {
            add("", 0, Mistake::Empty(index + 1));
        }
        for (at, &finding) in rule.findings.iter().enumerate() {
            let word = finding.to_string();
            if rule.findings[..at].contains(&finding) {
                add(&word, 1, Mistake::Twice { number: index + 1, finding });
            } else if let Some(mistake) = about(set, index, rule, finding) {
                add(&word, 0, mistake);
            }
        }
        for (field, why) in meaningless(rule) {
            add(field, 0, Mistake::Meaningless { number: index + 1, field, why });
        }
    }
    found
}

fn about(set: &RuleSet, index: usize, rule: &Rule, finding: FindingKind) -> Option<Mistake> {
    let number = index + 1;
    if let Some(earlier) = hidden_by(&set.rules[..index], rule, finding) {
        return Some(Mistake::Shadowed { number, finding, earlier });
    }
    let right = finding.senseless(rule.respond)?;
    Some(Mistake::Senseless { number, finding, respond: rule.respond, right })
}

/// The earlier rules that leave nothing of a finding to this one.
fn hidden_by(earlier: &[Rule], rule: &Rule, finding: FindingKind) -> Option<String> {
    let durabilities = match rule.durability {
        Some(only) => vec![only],
        None => vec![DurabilityKind::Lossless, DurabilityKind::BestEffort],
    };
    let first = |durability: &DurabilityKind| {
        earlier.iter().position(|rule| {
            rule.findings.contains(&finding)
                && rule.durability.is_none_or(|kind| kind == *durability)
        })
    };
    let mut numbers: Vec<_> =
        durabilities.iter().map(first).collect::<Option<Vec<_>>>()?.into_iter().collect();
    numbers.sort_unstable();
    numbers.dedup();
    match numbers.as_slice() {
        [one] => Some(format!("rule {} comes", one + 1)),
        [one, other, ..] => Some(format!("rules {} and {} come", one + 1, other + 1)),
        [] => None,
    }
}

fn meaningless(rule: &Rule) -> Vec<(&'static str, &'static str)> {
    let acts = !matches!(rule.respond, Respond::Alert | Respond::Nothing);
    let needless = "has a meaning only where the response is an act; remove it";
    [
        ("confirm", !acts && rule.confirm > Duration::ZERO, needless),
        ("cooldown", !acts && rule.cooldown > Duration::ZERO, needless),
        ("per_hour", !acts && rule.per_hour.is_some(), needless),
        (
            "per_hour",
            acts && rule.per_hour == Some(0),
            "allows nothing ever; write respond: alert instead",
        ),
        (
            "accept_loss",
            rule.accept_loss && !matches!(rule.respond, Respond::FailOver | Respond::Rejoin),
            "has a meaning with respond: fail_over or rejoin only; remove it",
        ),
        (
            "rebuild",
            rule.rebuild && rule.respond != Respond::Rejoin,
            "has a meaning with respond: rejoin only; remove it",
        ),
    ]
    .into_iter()
    .filter_map(|(field, wrong, why)| wrong.then_some((field, why)))
    .collect()
}

/// One line of a rule with its number.
type Line<'t> = (usize, &'t str);

/// The lines of each rule, as far as they can be told from the text without reading it as YAML.
fn spans(text: &str) -> Vec<Vec<Line<'_>>> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    let mut spans: Vec<Vec<Line<'_>>> = Vec::new();
    let mut indent = None;
    for (number, line) in lines.skip_while(|(_, line)| !line.starts_with("rules:")).skip(1) {
        let bare = line.trim_start();
        let depth = line.len() - bare.len();
        if bare.starts_with('-') && indent.is_none_or(|indent| indent == depth) {
            indent = Some(depth);
            spans.push(vec![(number, line)]);
        } else if let Some(span) = spans.last_mut() {
            span.push((number, line));
        }
    }
    spans
}

/// `:line:column` of a word's nth occurrence in a rule; of the rule itself where it has none.
fn place(span: &[Line<'_>], word: &str, nth: usize) -> String {
    let Some((first, line)) = span.first() else {
        return String::new();
    };
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let occurrences = span.iter().flat_map(|(number, line)| {
        let code = line.find(" #").map_or(*line, |end| &line[..end]);
        let code = if code.trim_start().starts_with('#') { "" } else { code };
        let whole = move |(at, _): &(usize, &str)| {
            !code[..*at].ends_with(part) && !code[at + word.len()..].starts_with(part)
        };
        code.match_indices(word).filter(whole).map(move |(at, _)| (*number, at))
    });
    let start = (*first, line.len() - line.trim_start().len());
    let found = if word.is_empty() { None } else { occurrences.into_iter().nth(nth) };
    let (number, at) = found.unwrap_or(start);
    format!(":{number}:{}", at + 1)
}
