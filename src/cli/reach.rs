//! Finding a watcher to ask.

use super::Failed;
use super::args::Global;
use crate::api::client::{CallError, Client};
use crate::config::Config;

/// A client for the watchers that `--api`, `REGENT_API` or `--config` name.
pub fn client(global: &Global) -> Result<Client, Failed> {
    let named: Vec<String> = global.api.iter().filter(|url| !url.is_empty()).cloned().collect();
    let urls = if !named.is_empty() {
        named
    } else if let Some(path) = &global.config {
        let loaded = Config::load(path).map_err(|errors| Failed::Usage(errors.to_string()))?;
        Client::urls_of(&loaded.config)
    } else {
        let text = "no watcher is named; give --api URL, set REGENT_API, or name the \
                    configuration with --config FILE";
        return Err(Failed::Usage(text.to_owned()));
    };
    Client::new(&urls).map_err(|error| Failed::Internal(error.to_string()))
}

/// Text as one segment of a path or one value of a query.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

impl From<CallError> for Failed {
    fn from(error: CallError) -> Failed {
        let text = error.to_string();
        match error {
            CallError::Unreachable { .. } | CallError::Silent { .. } => Failed::CannotReach(text),
            CallError::Refused(_) => Failed::Refused(text),
            CallError::BadInput(_) => Failed::Usage(text),
            CallError::Strange { .. } => Failed::Internal(text),
        }
    }
}
