//! How far the backup of a run is, as the watcher that makes it tells: for people, and for nobody's
//! decisions.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Characters told of what a target does not do.
const MOST_TROUBLE: usize = 200;

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reached {
    /// Bytes stored at the target.
    pub stored: u64,
    /// Bytes that were read, as the server's data is before it is compressed.
    pub read: u64,
    /// About how many there will be, where that can be told.
    pub expected: Option<u64>,
    /// Bytes read a second, from the beginning on.
    pub rate: u64,
    /// Bytes that wait in the spool for the target.
    pub spooled: u64,
    /// What the target does not do now, if so.
    pub trouble: String,
}

impl Reached {
    /// The same with a text of a size that can be sent around.
    pub fn troubled_by(self, what: &str) -> Reached {
        Reached { trouble: what.chars().take(MOST_TROUBLE).collect(), ..self }
    }

    /// About how long it goes on, where that can be told.
    pub fn left(&self) -> Option<Duration> {
        let left = self.expected?.checked_sub(self.read).filter(|left| *left > 0)?;
        (self.rate > 0).then(|| Duration::from_secs(left.div_ceil(self.rate)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_told_where_it_can_be() {
        let left = |read, expected, rate| {
            let reached = Reached { read, expected, rate, ..Reached::default() };
            reached.left().map(|left| left.as_secs())
        };
        assert_eq!(left(40, Some(100), 20), Some(3));
        assert_eq!(left(40, Some(100), 50), Some(2), "it is not over before it is");
        for (read, expected, rate) in [(40, None, 20), (40, Some(100), 0), (100, Some(90), 20)] {
            assert_eq!(left(read, expected, rate), None, "{read} of {expected:?} at {rate}");
        }
    }

    #[test]
    fn what_a_newer_or_older_watcher_tells_is_read() {
        let read: Reached = serde_json::from_str(r#"{"stored": 7, "colour": "red"}"#).unwrap();
        assert_eq!(read, Reached { stored: 7, ..Reached::default() });
        let long = Reached::default().troubled_by(&"x".repeat(1000));
        assert_eq!(long.trouble.len(), MOST_TROUBLE);
    }
}
