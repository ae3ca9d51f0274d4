//! The way to a server's agent.

use super::Told;
use super::frames::{End, FORMAT, Head, Incoming, Next, StreamError};
use crate::config::secret::Secret;
use crate::config::{ClusterConfig, Security};
use crate::decision::topology::ServerName;
use crate::runtime::backup::BackupError;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::{Certificate, Method, RequestBuilder, Response, StatusCode};
use std::time::Duration;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long an agent may take to say what it is: it asks its server.
const ANSWER: Duration = Duration::from_secs(45);
/// An agent that has sent nothing, not even a sign of life, for so long is gone.
const SILENCE: Duration = Duration::from_secs(20);
/// The longest answer beside a copy.
const MOST_TEXT: usize = 64 << 10;

/// The way to a server's agent.
#[derive(Clone, Debug)]
pub struct Link {
    server: ServerName,
    base: String,
    token: Secret,
    http: reqwest::Client,
}

/// A copy on its way.
pub(in crate::runtime::backup) struct Pulled {
    server: ServerName,
    incoming: Incoming<BoxStream<'static, Result<Bytes, reqwest::Error>>>,
    end: Option<End>,
}

impl Link {
    /// The way to that server's agent, as declared.
    pub fn to(
        security: Option<&Security>,
        cluster: &ClusterConfig,
        server: &ServerName,
    ) -> Result<Link, BackupError> {
        let Some(agent) = cluster.agents.get(server) else {
            let text = format!(
                "{server} has no agent, and a physical backup needs one: declare it (agent: {{ address: \
                 HOST:7402, ... }}) and run 'regent agent --server {server}' on its host, or take a \
                 logical backup (--method logical)"
            );
            return Err(BackupError::Unknown(text));
        };
        let failed = |what: String| BackupError::Agent { server: server.to_string(), what };
        // Fails when one is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        let mut scheme = "http";
        if let Some(Security::Files(files)) = security {
            let wrong =
                |what: String| failed(format!("security.ca {}: {what}", files.ca.display()));
            let bytes = std::fs::read(&files.ca).map_err(|error| wrong(error.to_string()))?;
            let authorities =
                Certificate::from_pem_bundle(&bytes).map_err(|error| wrong(error.to_string()))?;
            if authorities.is_empty() {
                return Err(wrong("it holds no certificate (PEM)".to_owned()));
            }
            http = http.tls_certs_only(authorities);
            scheme = "https";
        }
        let http = http.build().map_err(|error| failed(error.to_string()))?;
        let base = format!("{scheme}://{}", agent.address);
        Ok(Link { server: server.clone(), base, token: agent.token.clone(), http })
    }

    /// What the agent says of itself.
    pub(in crate::runtime::backup) async fn ask(&self) -> Result<Told, BackupError> {
        let request = self.request(Method::GET, "/v1/agent").timeout(ANSWER);
        let text = text_of(self.answer(request).await?).await;
        let told: Told = serde_json::from_slice(&text)
            .map_err(|_| self.failed("it does not answer as an agent does"))?;
        if told.format > FORMAT {
            let what = format!("it is of version {}; use the same here", told.regent);
            return Err(self.failed(what));
        }
        if told.server != self.server.as_str() {
            let what = format!("at {} stands the agent of {}", self.base, told.server);
            return Err(self.failed(what));
        }
        Ok(told)
    }

    /// Begins to take a copy; it ends at the agent too when this is dropped.
    pub(in crate::runtime::backup) async fn pull(&self) -> Result<(Head, Pulled), BackupError> {
        let response = self.answer(self.request(Method::POST, "/v1/copy")).await?;
        let begun = Incoming::begin(response.bytes_stream().boxed(), SILENCE).await;
        let (head, incoming) = begun.map_err(|error| self.failed(error))?;
        Ok((head, Pulled { server: self.server.clone(), incoming, end: None }))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        request.bearer_auth(self.token.reveal())
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Response, BackupError> {
        let sent = tokio::time::timeout(ANSWER, request.send()).await;
        let silent = |_| self.failed(format!("no answer from {}", self.base));
        let sent = sent.map_err(silent)?.map_err(|error| {
            let what = match (error.is_connect(), error.is_timeout()) {
                (_, true) => "no answer from",
                (true, _) => "nobody can be reached at",
                _ => "no good answer from",
            };
            self.failed(format!("{what} {} ({})", self.base, cause(&error)))
        })?;
        match sent.status() {
            StatusCode::OK => Ok(sent),
            StatusCode::UNAUTHORIZED => Err(self.failed("it refuses the token")),
            status => {
                let said = text_of(sent).await;
                let said = String::from_utf8_lossy(&said);
                let said: String = said.trim().chars().take(500).collect();
                let said = if said.is_empty() { status.to_string() } else { said };
                Err(self.failed(said))
            }
        }
    }

    fn failed(&self, what: impl ToString) -> BackupError {
        BackupError::Agent { server: self.server.to_string(), what: what.to_string() }
    }
}

impl Pulled {
    /// The next data; nothing when all of it came, whole.
    pub(in crate::runtime::backup) async fn next(&mut self) -> Result<Option<Bytes>, BackupError> {
        match self.incoming.next().await {
            Ok(Next::Data(bytes)) => Ok(Some(bytes)),
            Ok(Next::End(end)) => {
                self.end = Some(end);
                Ok(None)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// What stood behind the data.
    pub(in crate::runtime::backup) fn end(self) -> Result<End, BackupError> {
        let left = StreamError::Strange("no end".to_owned());
        let server = self.server.to_string();
        self.end.ok_or(BackupError::Agent { server, what: left.to_string() })
    }

    fn failed(&self, error: StreamError) -> BackupError {
        BackupError::Agent { server: self.server.to_string(), what: error.to_string() }
    }
}

/// What the answer says, as far as it is short.
async fn text_of(mut response: Response) -> Vec<u8> {
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if text.len() + chunk.len() > MOST_TEXT {
            break;
        }
        text.extend_from_slice(&chunk);
    }
    text
}

/// The innermost reason, which says most.
fn cause(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
