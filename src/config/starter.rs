//! What `regent init DIR` writes: a configuration to start from.

use std::path::{Path, PathBuf};

/// Why nothing, or not everything, was written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StarterError(String);

/// Writes a configuration to start from, and returns the files it wrote.
pub fn write(directory: &Path) -> Result<Vec<PathBuf>, StarterError> {
    Err(StarterError(format!(
        "{} cannot be written by this build",
        directory.display()
    )))
}
