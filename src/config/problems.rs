//! What is wrong with a configuration, and where.

use super::tree::Position;
use std::fmt;

/// One mistake or one doubtful choice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where in the file.
    pub at: Position,
    /// The field, for example `clusters[0].servers[1].address`; empty for the file itself.
    pub path: String,
    /// What is wrong with which value, and what would be right. Never holds a secret.
    pub what: String,
    /// The name of the file.
    pub file: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.at.line, self.at.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)
    }
}

/// All mistakes of one configuration, in the order of the file; at most [`ConfigErrors::MOST`]
/// are kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
    left_out: usize,
}

impl ConfigErrors {
    /// More would not be read.
    pub const MOST: usize = 100;

    pub(super) fn new(mut problems: Vec<Problem>) -> ConfigErrors {
        problems.sort();
        problems.dedup();
        let left_out = problems.len().saturating_sub(ConfigErrors::MOST);
        problems.truncate(ConfigErrors::MOST);
        ConfigErrors { problems, left_out }
    }

    /// The mistakes, first in the file first.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        if self.left_out > 0 {
            write!(f, "\nand {} more", self.left_out)?;
        }
        Ok(())
    }
}
