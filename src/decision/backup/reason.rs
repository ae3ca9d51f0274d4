//! Why something failed, in words that a program or a server chose: people see them, and nobody must be able to
//! fill the replicated state with them.

/// Characters kept of a reason.
const MOST: usize = 200;

/// As much of a reason as is kept.
pub fn shortened(text: &str) -> String {
    text.chars().take(MOST).collect()
}
