//! Passing a request on to the leading watcher, once.

use super::answer::Answer;
use crate::decision::topology::{Endpoint, WatcherName};
use axum::http::{Method, StatusCode};
use bytes::{Bytes, BytesMut};
use std::time::Duration;

/// Marks a request that another watcher passed on; it is never passed on again.
pub const HOP: &str = "x-regent-hop";

/// How long the leader may take, beyond any wait that was asked for.
const LIMIT: Duration = Duration::from_secs(2);
/// How long reaching the leader may take.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);
/// The largest answer passed on.
const MAX_ANSWER: usize = 8 << 20;

/// Everything of a request that the leader needs.
#[derive(Clone, Debug)]
pub struct Passed {
    /// GET or POST.
    pub method: Method,
    /// Path and query, from the slash on.
    pub target: String,
    /// The body; empty for GET.
    pub body: Bytes,
    /// How long the asker wants the leader to wait.
    pub wait: Duration,
}

/// Passes requests on.
#[derive(Clone, Debug)]
pub struct Forwarder {
    client: reqwest::Client,
}

impl Forwarder {
    /// Fails only when the machine lacks what any HTTP client needs.
    pub fn new() -> Result<Forwarder, reqwest::Error> {
        let client = super::client::http(CONNECT_LIMIT)?;
        Ok(Forwarder { client })
    }

    /// Asks the leader and returns its answer as it came.
    pub async fn pass(&self, leader: &WatcherName, address: &Endpoint, passed: Passed) -> Answer {
        let url = format!("http://{address}{}", passed.target);
        let changes = passed.method != Method::GET;
        let request = self
            .client
            .request(passed.method, url)
            .header(HOP, "1")
            .header("content-type", "application/json")
            .timeout(LIMIT + passed.wait)
            .body(passed.body);
        match take(request).await {
            Ok(answer) => answer,
            Err(Lost::TooLarge) => Answer::error(
                StatusCode::BAD_GATEWAY,
                "internal",
                format!("the answer of the leader {leader} exceeds {MAX_ANSWER} bytes"),
            ),
            // Once the leader may have taken an order, nobody may be told that nothing was done.
            Err(Lost::Http(error)) if changes && !error.is_connect() => Answer::error(
                StatusCode::GATEWAY_TIMEOUT,
                "timed_out",
                format!(
                    "watcher {leader} leads and took the request, but its answer did not come; it \
                     may have been carried out: look at the status before you ask again"
                ),
            ),
            Err(Lost::Http(error)) => {
                let why =
                    if error.is_timeout() { "did not answer in time" } else { "cannot be reached" };
                Answer::no_leader(format!(
                    "watcher {leader} leads but {why} at {address}; ask it directly, or wait for \
                     another leader"
                ))
            }
        }
    }
}

enum Lost {
    Http(reqwest::Error),
    TooLarge,
}

impl From<reqwest::Error> for Lost {
    fn from(error: reqwest::Error) -> Lost {
        Lost::Http(error)
    }
}

async fn take(request: reqwest::RequestBuilder) -> Result<Answer, Lost> {
    let mut response = request.send().await?;
    let status = response.status();
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(Lost::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, body: body.freeze() })
}
