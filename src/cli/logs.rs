//! Logs and panics, to standard error.

use super::args::{Global, LogFormat};
use std::io;
use tracing_subscriber::EnvFilter;

/// Starts logging. `RUST_LOG` decides what is written; otherwise `usual` and each `-v` adds.
pub fn start(global: &Global, usual: &str) {
    let level = match (global.verbose, usual) {
        (0, usual) => usual,
        (1, _) => "regent=debug,info",
        (_, _) => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // Fails when logging has been started already, as in tests.
    let _ = match global.log_format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}

/// Lets a panic leave a log line, with its place, before the usual report.
pub fn log_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("a panic without a text");
        tracing::error!(place, "panicked: {text}");
        usual(panic);
    }));
}
