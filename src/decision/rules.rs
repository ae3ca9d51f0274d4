//! Rules: which response a finding gets.

use serde::{Deserialize, Serialize};

/// An ordered list of rules; the first that matches a finding decides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleSet {
    /// The name it was loaded under.
    pub name: String,
}
