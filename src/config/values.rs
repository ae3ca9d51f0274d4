//! The small notations inside values: durations, `${VAR}`, names.

use std::fmt;
use std::time::Duration;

/// Why a text could not be expanded; names variables, never their values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// The variable is not in the environment.
    #[error(
        "the environment variable {0} is not set; set it before starting, or write $${{ for a plain ${{"
    )]
    Unset(String),
    /// Not of the form `${NAME}`.
    #[error(
        "a ${{ without NAME}} after it; write ${{NAME}} with letters, digits and _, or $${{ for a plain ${{"
    )]
    Malformed,
    /// The result would be unreasonably long.
    #[error("longer than {MOST_TEXT} bytes with its variables filled in; give a shorter value")]
    TooLong,
}

const MOST_TEXT: usize = 64 * 1024;

/// Fills in each `${NAME}` once; `$${` becomes `${`. What a variable holds is never expanded again.
pub fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, ExpandError> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if let Some(before) = rest[..start].strip_suffix('$') {
            result.push_str(before);
            result.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        result.push_str(&rest[..start]);
        let inner = &rest[start + 2..];
        let name = inner.split('}').next().unwrap_or("");
        let first_is_letter = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if name.len() == inner.len() || !first_is_letter || !plain {
            return Err(ExpandError::Malformed);
        }
        result.push_str(&env(name).ok_or_else(|| ExpandError::Unset(name.to_owned()))?);
        if result.len() > MOST_TEXT {
            return Err(ExpandError::TooLong);
        }
        rest = &inner[name.len() + 1..];
    }
    result.push_str(rest);
    Ok(result)
}

/// Whether a text takes part of its value from the environment.
pub fn uses_environment(text: &str) -> bool {
    text.replace("$${", "").contains("${")
}

/// Reads `200ms`, `1s`, `1m 30s`, `2h` or `1d`: whole numbers with units, largest first.
pub fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut total: u64 = 0;
    let mut next_unit = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = UNITS.iter().position(|(name, _)| *name == &rest[..letters])?;
        if unit < next_unit {
            return None;
        }
        next_unit = unit + 1;
        total = total.checked_add(number.checked_mul(UNITS[unit].1)?)?;
        rest = rest[letters..].trim_start();
    }
    Some(Duration::from_millis(total))
}

/// Reads `16MiB` or `1GiB`.
pub fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim_start() {
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// Prints a duration the way [`duration`] reads it.
#[derive(Clone, Copy, Debug)]
pub struct Shown(pub Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.as_millis();
        let (minutes, seconds, millis) = (all / 60_000, all / 1_000 % 60, all % 1_000);
        let mut parts = Vec::new();
        for (number, unit) in [(minutes, "m"), (seconds, "s"), (millis, "ms")] {
            if number > 0 {
                parts.push(format!("{number}{unit}"));
            }
        }
        if parts.is_empty() { f.write_str("0s") } else { f.write_str(&parts.join(" ")) }
    }
}

/// What is wrong with a name, if anything.
pub fn name_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("is empty");
    }
    if name.len() > 64 {
        return Some("is longer than 64 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Some("holds other characters than letters, digits, - _ .");
    }
    let first = name.as_bytes()[0];
    (!first.is_ascii_alphanumeric()).then_some("begins with neither a letter nor a digit")
}

/// The known word that a mistyped one most likely stands for.
pub fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > 64 {
        return None;
    }
    let most = (word.len() / 3).clamp(1, 3);
    known
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment: insertions, deletions, replacements and swapped neighbours.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.to_lowercase().replace('-', "_").chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let change = usize::from(left[i - 1] != right[j - 1]);
            let mut best =
                (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::{ExpandError, Shown, closest, duration, expand, size};
    use std::time::Duration;

    #[test]
    fn durations_need_units_in_order() {
        for (text, millis) in
            [("200ms", 200), ("1s", 1_000), ("1m 30s", 90_000), ("1h1ms", 3_600_001)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "5", "s", "1.5s", "-1s", "1s 1m", "1s 1s", "1 s", "1x", "99999999999999d", "é"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(Shown(Duration::from_millis(90_200)).to_string(), "1m 30s 200ms");
    }

    #[test]
    fn sizes_need_units() {
        assert_eq!(size("16MiB"), Some(16 << 20));
        assert_eq!(size("1 GiB"), Some(1 << 30));
        for text in ["", "16", "16MB", "-1MiB", "1.5MiB", "99999999999999999GiB", "é"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn variables_are_filled_in_once() {
        let env = |name: &str| (name == "A").then(|| "x${A}y".to_owned());
        assert_eq!(expand("1${A}2$${A}$", &env).unwrap(), "1x${A}y2${A}$");
        assert_eq!(expand("${B}", &env), Err(ExpandError::Unset("B".into())));
        for text in ["${", "${}", "${A", "${1A}", "${A B}"] {
            assert_eq!(expand(text, &env), Err(ExpandError::Malformed), "{text}");
        }
    }

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        assert_eq!(closest("adress", &["name", "address"]), Some("address"));
        assert_eq!(closest("data-center", &["data_center"]), Some("data_center"));
        assert_eq!(closest("colour", &["name", "address"]), None);
    }
}
