//! Assembles the parts into a running watcher or proxy.

use std::path::Path;

/// Why a node could not run.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NodeError(String);

/// Runs the watcher `id` until it is told to stop.
pub async fn watch(config: &Path, id: &str, data_dir: &Path) -> Result<(), NodeError> {
    let (config, data_dir) = (config.display(), data_dir.display());
    Err(NodeError(format!("this build has no watcher ({id}, {config}, {data_dir})")))
}

/// Runs the proxy `id` until it is told to stop.
pub async fn proxy(
    config: &Path,
    id: &str,
    data_center: Option<&str>,
    metrics: Option<&str>,
) -> Result<(), NodeError> {
    let _ = (data_center, metrics);
    Err(NodeError(format!("this build has no proxy ({id}, {})", config.display())))
}
