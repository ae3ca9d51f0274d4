//! Reads `agent`: who stands beside a server and hands out copies of its files.

use super::credentials::secret;
use super::fields::AGENT;
use super::reader::{Reading, Section};
use super::secret::Secret;
use super::watchers::is_loopback;
use crate::decision::topology::{Endpoint, ServerName};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Whoever tries to guess a shorter token may succeed.
const SHORTEST_TOKEN: usize = 16;

/// The agents of a cluster's servers.
pub type Agents = BTreeMap<ServerName, Agent>;

/// Who stands beside a server and hands out copies of its files.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Where others reach it.
    pub address: Endpoint,
    /// Where it listens.
    pub listen: Endpoint,
    /// Whoever has it may take a copy of all data.
    pub token: Secret,
    /// A directory for what a copy needs in passing, which the server can write to.
    pub scratch: PathBuf,
}

/// Reads a server's agent, if it has one.
pub(super) fn agent(
    reading: &mut Reading<'_>,
    server: &Section<'_>,
    secured: bool,
) -> Option<Agent> {
    let field = reading.optional(server, "agent")?;
    let section = reading.section(&field, AGENT)?;
    let address = reading.need(&section, "address", "10.1.0.11:7402").and_then(|field| {
        let address = reading.endpoint(&field)?;
        reading.claim("address", &address.to_string(), &field);
        Some((address, field))
    });
    let listen = match reading.optional(&section, "listen") {
        Some(field) => reading.endpoint(&field).map(|listen| (listen, field)),
        None => address.clone(),
    };
    if let Some((listen, field)) = &listen
        && !secured
        && !is_loopback(listen)
    {
        let what = format!(
            "{} can be reached from outside and there is no security section; add one, or write \
             127.0.0.1:{}",
            field.shown(),
            listen.port
        );
        reading.wrong(field, what);
    }
    let token = secret(reading, &section, ["token", "token_file"]);
    // Where no secrets are needed, it may be missing.
    let short = |token: &Secret| (1..SHORTEST_TOKEN).contains(&token.reveal().len());
    if token.as_ref().is_some_and(short) {
        let what = format!("the token is shorter than {SHORTEST_TOKEN} bytes; use a random one");
        reading.error(section.at, &section.path, what);
    }
    let scratch = reading.need(&section, "scratch", "/var/lib/mysql-regent").and_then(|field| {
        let path = PathBuf::from(reading.text(&field)?);
        if !path.is_absolute() {
            let what = format!(
                "{} is not absolute; the server must find it too: write /var/lib/mysql-regent",
                field.shown()
            );
            reading.wrong(&field, what);
        }
        Some(path)
    });
    let ((address, _), (listen, _)) = (address?, listen?);
    Some(Agent { address, listen, token: token?, scratch: scratch? })
}
