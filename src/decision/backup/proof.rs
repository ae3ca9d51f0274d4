//! What is known of a backup's worth since somebody looked: written beside it, once it was read
//! again or restored.

use super::counts::Compared;
use super::names::BackupId;
use super::retention::Worth;
use crate::clock::WallTime;
use crate::decision::cluster::Unknown;
use crate::decision::topology::ClusterName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The newest format that this version writes and reads.
pub const FORMAT: u32 = 1;
/// No proof is larger.
pub const MOST_BYTES: usize = 1 << 20;
/// Characters kept of a reason.
const MOST_WHY: usize = 500;

/// What is known of one backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Which version of this form it has.
    pub format: u32,
    /// The cluster.
    pub cluster: ClusterName,
    /// The backup.
    pub backup: BackupId,
    /// The last time that all of it was fetched, and every sum in it checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Check>,
    /// The last time that it was restored and compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Check>,
    /// What newer versions added.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// How somebody looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// All of it was fetched, and every sum in it checked.
    Read,
    /// It was restored into a server, which was compared with what was counted.
    Restored,
}

/// What came of looking once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// When it was begun.
    pub begun: WallTime,
    /// When it ended.
    pub at: WallTime,
    /// The version of Regent that did it.
    pub by: String,
    /// The product and version it was restored into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Whether it was as it should be.
    pub good: bool,
    /// What was wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What was compared; absent where nothing had been counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Compared>,
    /// How many tables were found consistent, in all their rows and indexes, where files were restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<u64>,
    /// Statements about accounts that the server refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// What newer versions added.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// A backup's worth, and since when that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Verdict {
    /// Nobody has looked since it was made.
    #[default]
    Unproven,
    /// It was read again, and every sum was right.
    Whole {
        /// When.
        at: WallTime,
    },
    /// It was restored, and what was restored is what was backed up.
    Proven {
        /// When.
        at: WallTime,
    },
    /// It is damaged, or does not restore what was backed up.
    Failed {
        /// When that was found.
        at: WallTime,
        /// What was found.
        why: String,
    },
}

/// Why a proof cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It is not even read.
    #[error("it has more than {MOST_BYTES} bytes, which no proof has")]
    TooLarge,
    /// Not the JSON of a proof.
    #[error("it is no proof: {0}")]
    Unreadable(String),
    /// Of a newer version.
    #[error("it has format {0}, and this version of Regent reads format {FORMAT}; use a newer one")]
    Newer(u32),
    /// Of something else.
    #[error("it says it is of {0}")]
    Other(String),
}

#[derive(Deserialize)]
struct Formatted {
    format: u32,
}

impl Proof {
    /// Nothing is known yet.
    pub fn new(cluster: ClusterName, backup: BackupId) -> Proof {
        let (read, restored, unknown) = (None, None, Unknown::new());
        Proof { format: FORMAT, cluster, backup, read, restored, unknown }
    }

    /// Reads the proof of that backup of that cluster.
    pub fn read(cluster: &ClusterName, id: &BackupId, bytes: &[u8]) -> Result<Proof, ProofError> {
        if bytes.len() > MOST_BYTES {
            return Err(ProofError::TooLarge);
        }
        let unreadable = |error: serde_json::Error| ProofError::Unreadable(cut(&error.to_string()));
        let Formatted { format } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if format > FORMAT {
            return Err(ProofError::Newer(format));
        }
        let proof: Proof = serde_json::from_slice(bytes).map_err(unreadable)?;
        if &proof.cluster != cluster || &proof.backup != id {
            return Err(ProofError::Other(format!("{} of {}", proof.backup, proof.cluster)));
        }
        Ok(proof)
    }

    /// How it is written down.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ProofError> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| ProofError::Unreadable(cut(&error.to_string())))?;
        if text.len() > MOST_BYTES { Err(ProofError::TooLarge) } else { Ok(text) }
    }

    /// Takes note of what came of looking; the other way of looking stays as it was found last.
    pub fn note(&mut self, how: How, check: Check) {
        match how {
            How::Read => self.read = Some(check),
            How::Restored => self.restored = Some(check),
        }
    }

    /// What both ways of looking say together. A restore says more than reading, and damage that was
    /// found later outweighs an earlier restore: what is stored may be damaged at any time.
    pub fn verdict(&self) -> Verdict {
        let failed = |check: &Check| Verdict::Failed {
            at: check.at,
            why: check.why.clone().unwrap_or_else(|| "nobody wrote down why".to_owned()),
        };
        match (&self.restored, &self.read) {
            (Some(restored), _) if !restored.good => failed(restored),
            (Some(restored), Some(read)) if !read.good && read.at > restored.at => failed(read),
            (Some(restored), _) => Verdict::Proven { at: restored.at },
            (None, Some(read)) if !read.good => failed(read),
            (None, Some(read)) => Verdict::Whole { at: read.at },
            (None, None) => Verdict::Unproven,
        }
    }
}

impl Check {
    /// All was well, so far.
    pub fn good(begun: WallTime, at: WallTime) -> Check {
        Check {
            begun,
            at,
            by: format!("regent {}", env!("CARGO_PKG_VERSION")),
            server: None,
            good: true,
            why: None,
            compared: None,
            checked: None,
            refused: Vec::new(),
            unknown: Unknown::new(),
        }
    }

    /// Something was wrong.
    pub fn failed(self, why: &str) -> Check {
        let why = Some(why.chars().take(MOST_WHY).collect());
        Check { good: false, why, ..self }
    }
}

impl Verdict {
    /// What retention counts it as.
    pub fn worth(&self) -> Worth {
        match self {
            Verdict::Unproven | Verdict::Whole { .. } => Worth::Good,
            Verdict::Proven { .. } => Worth::Proven,
            Verdict::Failed { .. } => Worth::Broken,
        }
    }

    /// Whether it is known to be worth nothing.
    pub fn is_failed(&self) -> bool {
        matches!(self, Verdict::Failed { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The day is enough in a list.
        let day = |at: &WallTime| at.to_string().chars().take(10).collect::<String>();
        match self {
            Verdict::Unproven => f.write_str("not verified"),
            Verdict::Whole { at } => write!(f, "whole {}, checksums only", day(at)),
            Verdict::Proven { at } => write!(f, "proven {} by restore", day(at)),
            Verdict::Failed { at, .. } => write!(f, "FAILED {}", day(at)),
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::decision::topology::ServerName;
    use proptest::prelude::*;

    pub(in crate::decision::backup) fn check(at: u64, good: bool) -> Check {
        let check = Check::good(WallTime(at - 1), WallTime(at));
        if good { check } else { check.failed("part 2 is damaged") }
    }

    fn id() -> BackupId {
        BackupId::new(WallTime(1_000), &ServerName::from("db2"))
    }

    fn proof(read: Option<(u64, bool)>, restored: Option<(u64, bool)>) -> Proof {
        let mut proof = Proof::new("shop".into(), id());
        for (how, looked) in [(How::Read, read), (How::Restored, restored)] {
            if let Some((at, good)) = looked {
                proof.note(how, check(at, good));
            }
        }
        proof
    }

    #[test]
    fn the_verdict_is_what_both_looks_say() {
        let said = |read, restored| match proof(read, restored).verdict() {
            Verdict::Unproven => "unproven".to_owned(),
            Verdict::Whole { at } => format!("whole {}", at.0),
            Verdict::Proven { at } => format!("proven {}", at.0),
            Verdict::Failed { at, .. } => format!("failed {}", at.0),
        };
        assert_eq!(said(None, None), "unproven");
        assert_eq!(said(Some((5, true)), None), "whole 5");
        assert_eq!(said(Some((5, false)), None), "failed 5");
        assert_eq!(said(None, Some((7, true))), "proven 7");
        assert_eq!(said(Some((9, true)), Some((7, true))), "proven 7");
        assert_eq!(said(Some((9, false)), Some((7, true))), "failed 9", "damaged since");
        assert_eq!(said(Some((5, false)), Some((7, true))), "proven 7", "it was read again");
        assert_eq!(said(Some((9, true)), Some((7, false))), "failed 7", "whole and yet no backup");
    }

    #[test]
    fn retention_counts_by_it() {
        assert_eq!(proof(None, None).verdict().worth(), Worth::Good);
        assert_eq!(proof(Some((5, true)), None).verdict().worth(), Worth::Good);
        assert_eq!(proof(None, Some((5, true))).verdict().worth(), Worth::Proven);
        assert_eq!(proof(None, Some((5, false))).verdict().worth(), Worth::Broken);
    }

    #[test]
    fn what_is_written_is_read_with_what_newer_versions_add() {
        let mut written = proof(Some((5, true)), Some((7, false)));
        written.unknown.insert("moon".to_owned(), "full".into());
        let bytes = written.to_bytes().unwrap();
        assert_eq!(Proof::read(&"shop".into(), &id(), &bytes).unwrap(), written);
        let other = Proof::read(&"other".into(), &id(), &bytes);
        assert!(matches!(other, Err(ProofError::Other(_))));
        written.format = 2;
        let newer = Proof::read(&"shop".into(), &id(), &written.to_bytes().unwrap());
        assert_eq!(newer, Err(ProofError::Newer(2)));
    }

    proptest! {
        #[test]
        fn damaged_ones_get_an_answer(at in 0..400_usize, byte in any::<u8>()) {
            let mut bytes = proof(Some((5, true)), Some((7, false))).to_bytes().unwrap();
            let at = at.min(bytes.len() - 1);
            bytes[at] = byte;
            let _ = Proof::read(&"shop".into(), &id(), &bytes);
        }
    }
}
