//! A whole cluster on this machine, to try things on and to test with.

use crate::decision::topology::Flavor;

/// How the demo is to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The database product.
    pub flavor: Flavor,
    /// Whether to tear everything down at the end.
    pub once: bool,
    /// Whether to keep the working directory.
    pub keep: bool,
}

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DemoError(String);

/// Runs the demo until it is over or told to stop.
pub async fn run(options: Options) -> Result<(), DemoError> {
    Err(DemoError(format!("this build has no demo ({options:?})")))
}
