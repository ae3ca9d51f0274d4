//! Finds a rule set by its name.

use crate::decision::rules::{RuleSet, SHIPPED};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The largest rule file that is read.
const MOST_BYTES: u64 = 256 * 1024;

/// The rule set of that name: a shipped one, or a YAML file named relative to `directory`, where
/// the configuration file lies. Each error says what would be right.
pub fn rules_named(name: &str, directory: &Path) -> Result<RuleSet, Vec<String>> {
    if let Some(shipped) = RuleSet::shipped(name) {
        return Ok(shipped);
    }
    if !name.ends_with(".yaml") && !name.ends_with(".yml") {
        let names: Vec<_> = SHIPPED.iter().map(|(name, _)| *name).collect();
        return Err(vec![format!(
            "{name:?}: no rule set has that name; write {} or the path of a .yaml file",
            names.join(", ")
        )]);
    }
    let path = directory.join(name);
    let mut text = String::new();
    File::open(&path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| vec![format!("{name:?}: cannot read {}: {error}", path.display())])?;
    if text.len() as u64 > MOST_BYTES {
        return Err(vec![format!("{name:?}: {} is larger than 256 KiB", path.display())]);
    }
    RuleSet::parse(name, &text)
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}
