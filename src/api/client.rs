//! Asking the API of whichever watcher can be reached.

use super::types::ErrorBody;
use crate::config::Config;
use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// How long reaching one watcher may take before the next one is tried.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// How long an answer may take, beyond any wait that was asked for.
const LIMIT: Duration = Duration::from_secs(12);
/// The largest answer taken.
const MAX_ANSWER: usize = 32 << 20;

/// An HTTP client with the process's only TLS stack, for plain addresses as well.
pub fn http(connect_limit: Duration) -> Result<reqwest::Client, reqwest::Error> {
    // Fails when one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .connect_timeout(connect_limit)
        .pool_idle_timeout(Duration::from_secs(20))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
}

/// Asks watchers, in the order given, until one answers.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    bases: Vec<String>,
}

/// An answer and the JSON it came as.
#[derive(Clone, Debug)]
pub struct Read<T> {
    /// What it says.
    pub view: T,
    /// The bytes, unchanged.
    pub json: Bytes,
}

/// Why nothing came of a call.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No watcher answered; each line names one and says why.
    #[error(
        "no watcher can be reached:\n  {}\ncheck that one runs (regent watch), or name another \
         with --api URL, REGENT_API or --config FILE",
        .tried.join("\n  ")
    )]
    Unreachable {
        /// One line per watcher tried.
        tried: Vec<String>,
    },
    /// A watcher answered, and said no.
    #[error("{}", .0.text)]
    Refused(ErrorBody),
    /// The request itself is wrong.
    #[error("{}", .0.text)]
    BadInput(ErrorBody),
    /// A watcher took the request and then fell silent, so what came of it is unknown.
    #[error(
        "{url} took the request but did not answer: {why}; look at regent status before repeating it"
    )]
    Silent {
        /// Who.
        url: String,
        /// What happened.
        why: String,
    },
    /// The answer is not one a watcher gives.
    #[error("{url} gave an answer that is not understood: {why}; is that a watcher's API?")]
    Strange {
        /// Who.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}

impl CallError {
    /// The code for programs, when a watcher gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            CallError::Refused(body) | CallError::BadInput(body) => Some(&body.code),
            CallError::Unreachable { .. }
            | CallError::Silent { .. }
            | CallError::Strange { .. } => None,
        }
    }
}

impl Client {
    /// A client for these base URLs; a missing scheme means `http://`.
    pub fn new(urls: &[String]) -> Result<Client, reqwest::Error> {
        let bases = urls.iter().map(|url| base_of(url)).collect();
        Ok(Client { http: http(CONNECT_LIMIT)?, bases })
    }

    /// The base URLs of all watchers of a configuration.
    pub fn urls_of(config: &Config) -> Vec<String> {
        config.watchers.iter().map(|watcher| format!("http://{}", watcher.api)).collect()
    }

    /// Reads `path`, with any query in it; `wait` is the wait the query asks for.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        wait: Duration,
    ) -> Result<Read<T>, CallError> {
        self.call(path, &Body::Nothing, LIMIT + wait).await
    }

    /// Sends `body` to `path`.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Read<T>, CallError> {
        let json = serde_json::to_vec(body)
            .map_err(|error| CallError::Strange { url: path.to_owned(), why: error.to_string() })?;
        self.call(path, &Body::Json(json.into()), LIMIT).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Body,
        limit: Duration,
    ) -> Result<Read<T>, CallError> {
        let mut tried = Vec::new();
        let mut leaderless = None;
        for base in &self.bases {
            let url = format!("{base}{path}");
            match self.one(&url, body, limit).await {
                Ok((status, json)) if status.is_success() => return read(base, json),
                Ok((status, json)) => match refusal(base, status, &json) {
                    // A watcher that is cut off knows no leader; the next one may.
                    CallError::Refused(body) if body.code == "no_leader" => leaderless = Some(body),
                    error => return Err(error),
                },
                Err(error) if error.is_connect() || matches!(body, Body::Nothing) => {
                    tried.push(format!("{base}: {}", reason(&error)));
                }
                Err(error) => {
                    let url = base.clone();
                    return Err(CallError::Silent { url, why: reason(&error) });
                }
            }
        }
        match leaderless {
            Some(body) => Err(CallError::Refused(body)),
            None => Err(CallError::Unreachable { tried }),
        }
    }

    async fn one(
        &self,
        url: &str,
        body: &Body,
        limit: Duration,
    ) -> Result<(reqwest::StatusCode, Bytes), reqwest::Error> {
        let request = match body {
            Body::Nothing => self.http.get(url),
            Body::Json(json) => {
                self.http.post(url).header("content-type", "application/json").body(json.clone())
            }
        };
        let mut response = request.timeout(limit).send().await?;
        let status = response.status();
        let mut all = BytesMut::new();
        while let Some(chunk) = response.chunk().await? {
            // What lies beyond is not JSON any more, and is reported as such.
            if all.len() + chunk.len() > MAX_ANSWER {
                break;
            }
            all.extend_from_slice(&chunk);
        }
        Ok((status, all.freeze()))
    }
}

enum Body {
    Nothing,
    Json(Bytes),
}

fn base_of(url: &str) -> String {
    let url = url.trim().trim_end_matches('/');
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

fn read<T: DeserializeOwned>(base: &str, json: Bytes) -> Result<Read<T>, CallError> {
    match serde_json::from_slice(&json) {
        Ok(view) => Ok(Read { view, json }),
        Err(error) => Err(CallError::Strange { url: base.to_owned(), why: error.to_string() }),
    }
}

fn refusal(base: &str, status: reqwest::StatusCode, json: &[u8]) -> CallError {
    match serde_json::from_slice::<ErrorBody>(json) {
        Ok(body) if body.code == "bad_input" => CallError::BadInput(body),
        Ok(body) if body.code == "internal" => {
            CallError::Strange { url: base.to_owned(), why: body.text }
        }
        Ok(body) => CallError::Refused(body),
        Err(_) => CallError::Strange { url: base.to_owned(), why: format!("HTTP status {status}") },
    }
}

/// The innermost cause, which is what people can do something about.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
