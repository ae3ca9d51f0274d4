//! Commands that only read or write files.

use super::Failed;
use super::args::Cli;
use super::output::Output;
use crate::config::{Config, starter};
use clap::CommandFactory;
use std::path::Path;

/// `regent init`.
pub fn init(dir: &Path, out: &mut Output) -> Result<(), Failed> {
    let written = starter::write(dir).map_err(|error| Failed::Refused(error.to_string()))?;
    for path in &written {
        out.text(&format!("wrote {}\n", path.display()))?;
    }
    let config = dir.join("regent.yaml");
    let text = format!("\nEdit {0}, then: regent validate {0}\n", config.display());
    Ok(out.text(&text)?)
}

/// `regent validate`.
pub fn validate(file: &Path, out: &mut Output) -> Result<(), Failed> {
    let loaded = Config::load(file).map_err(|errors| Failed::Refused(errors.to_string()))?;
    for warning in &loaded.warnings {
        out.text(&format!("warning: {warning}\n"))?;
    }
    let servers: usize = loaded.config.clusters.iter().map(|one| one.spec.servers.len()).sum();
    let text = format!(
        "{} is right: {} watcher(s), {} cluster(s), {servers} server(s)\n",
        file.display(),
        loaded.config.watchers.len(),
        loaded.config.clusters.len(),
    );
    Ok(out.text(&text)?)
}

/// `regent completion`.
pub fn completion(shell: clap_complete::Shell, out: &mut Output) -> Result<(), Failed> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "regent", &mut script);
    Ok(out.raw(script.trim_ascii_end())?)
}
