//! What the tests ask the watchers, over HTTP and with the command.

use crate::stage::Outcome;
use serde_json::Value;
use std::time::Duration;

/// Asks the watchers; any of them may answer.
pub struct Watchers {
    client: reqwest::Client,
    urls: Vec<String>,
}

impl Watchers {
    pub fn new(urls: &[String]) -> Outcome<Watchers> {
        let limit = Duration::from_secs(2);
        let client = reqwest::Client::builder().no_proxy().timeout(limit).build()?;
        Ok(Watchers { client, urls: urls.to_vec() })
    }

    /// The answer of the first watcher that gives one.
    pub async fn get(&self, path: &str) -> Option<Value> {
        for at in 0..self.urls.len() {
            if let Some(value) = self.get_from(at, path).await {
                return Some(value);
            }
        }
        None
    }

    /// The answer of one watcher, by its place.
    pub async fn get_from(&self, at: usize, path: &str) -> Option<Value> {
        let response = self.client.get(format!("{}{path}", self.urls[at])).send().await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        response.json().await.ok()
    }

    /// The status of the cluster, with the leader's name.
    pub async fn shop(&self) -> Option<Shop> {
        let status = self.get("/v1/status").await?;
        let leader = status["leader"].as_str().map(str::to_owned);
        let cluster = status["clusters"].as_array()?.iter().find(|it| it["name"] == "shop")?;
        Some(Shop { leader, view: cluster.clone() })
    }

    /// The cluster's events so far, oldest first, as (number, kind, text).
    pub async fn events(&self) -> Vec<(u64, String, String)> {
        let mut all = Vec::new();
        loop {
            let after = all.last().map_or(0, |(seq, _, _)| *seq);
            let answer = self.get(&format!("/v1/events?after={after}&limit=1000")).await;
            let list = listed(answer.unwrap_or_default());
            if list.is_empty() {
                return all;
            }
            all.extend(list);
        }
    }

    /// The number of the latest event.
    pub async fn latest_event(&self) -> u64 {
        self.events().await.last().map_or(0, |(seq, _, _)| *seq)
    }
}

/// Events of an answer.
pub fn listed(answer: Value) -> Vec<(u64, String, String)> {
    let list = answer.get("events").unwrap_or(&answer).as_array().cloned().unwrap_or_default();
    let read = |event: &Value| {
        let text = |key: &str| event[key].as_str().map(str::to_owned);
        Some((event["seq"].as_u64()?, text("kind")?, text("text")?))
    };
    list.iter().filter_map(read).collect()
}

/// One cluster's status.
#[derive(Clone, Debug)]
pub struct Shop {
    pub leader: Option<String>,
    pub view: Value,
}

impl Shop {
    pub fn state(&self) -> &str {
        self.view["state"].as_str().unwrap_or("")
    }

    pub fn primary(&self) -> Option<&str> {
        self.view["primary"].as_str()
    }

    pub fn epoch(&self) -> u64 {
        self.view["epoch"].as_u64().unwrap_or(0)
    }

    pub fn acks(&self) -> u64 {
        self.view["acks"].as_u64().unwrap_or(0)
    }

    /// Whether a procedure is open.
    pub fn busy(&self) -> bool {
        self.view["procedure"]["state"] == "running"
    }

    pub fn server(&self, name: &str) -> &Value {
        let servers = self.view["servers"].as_array();
        let found = servers.and_then(|list| list.iter().find(|it| it["name"] == name));
        found.unwrap_or(&Value::Null)
    }

    pub fn health(&self, name: &str) -> &str {
        self.server(name)["health"].as_str().unwrap_or("")
    }

    /// The text of a finding, with its evidence.
    pub fn finding(&self, kind: &str) -> Option<String> {
        let findings = self.view["findings"].as_array()?;
        findings.iter().find(|it| it["kind"] == kind).map(Value::to_string)
    }

    /// Whether everything serves in its role and nothing is under way.
    pub fn is_whole(&self) -> bool {
        let all = self.view["servers"].as_array();
        self.leader.is_some()
            && self.state() == "healthy"
            && self.primary().is_some()
            && !self.busy()
            && all.is_some_and(|list| list.iter().all(|it| it["health"] == "healthy"))
    }
}

/// What one run of the command did.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Everything it printed.
    pub fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    pub fn json(&self) -> Outcome<Value> {
        Ok(serde_json::from_str(&self.out)?)
    }
}

/// Runs the command to its end, within a minute.
pub async fn run(arguments: &[&str], api: &str) -> Outcome<Said> {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_regent"));
    command.args(arguments).env("REGENT_API", api).env("NO_COLOR", "1").env_remove("RUST_LOG");
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output())
        .await
        .map_err(|_| format!("regent {arguments:?} did not end within a minute"))??;
    Ok(Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
