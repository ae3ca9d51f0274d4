//! What the demonstration asks the watchers' HTTP interface.

use crate::clock::WallTime;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

/// Asks whichever watcher answers; any of them may.
#[derive(Debug)]
pub(super) struct Api {
    client: reqwest::Client,
    urls: Vec<String>,
}

/// The part of `GET /v1/status` that is documented and kept.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Status {
    pub(super) leader: Option<String>,
    #[serde(default)]
    pub(super) clusters: Vec<ClusterStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct ClusterStatus {
    pub(super) name: String,
    #[serde(default)]
    pub(super) state: String,
    pub(super) primary: Option<String>,
    pub(super) epoch: u64,
    #[serde(default)]
    pub(super) servers: Vec<ServerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct ServerStatus {
    pub(super) name: String,
    #[serde(default)]
    pub(super) role: String,
    #[serde(default)]
    pub(super) health: String,
    pub(super) lag_seconds: Option<f64>,
    #[serde(default)]
    pub(super) data_center: String,
}

/// One line of the cluster's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) at: WallTime,
    pub(super) text: String,
}

impl Api {
    pub(super) fn new(urls: Vec<String>) -> Result<Api, reqwest::Error> {
        // Refused only when it is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client =
            reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
        Ok(Api { client, urls })
    }

    pub(super) fn first_url(&self) -> &str {
        self.urls.first().map_or("", String::as_str)
    }

    pub(super) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The status, when any watcher gives one.
    pub(super) async fn status(&self) -> Option<Status> {
        serde_json::from_value(self.get("/v1/status").await?).ok()
    }

    /// The cluster's events since a time, oldest first; empty when nobody answers.
    pub(super) async fn events(&self, cluster: &str, since: WallTime) -> Vec<Event> {
        let answer = self.get("/v1/events").await.unwrap_or_default();
        let list = answer.get("events").unwrap_or(&answer).as_array().cloned().unwrap_or_default();
        let mut events: Vec<Event> =
            list.iter().filter(|event| concerns(event, cluster)).filter_map(event).collect();
        events.retain(|event| event.at >= since);
        events.sort_by_key(|event| event.at);
        events
    }

    async fn get(&self, path: &str) -> Option<Value> {
        for url in &self.urls {
            if let Ok(response) = self.client.get(format!("{url}{path}")).send().await
                && response.status().is_success()
                && let Ok(value) = response.json().await
            {
                return Some(value);
            }
        }
        None
    }
}

impl Status {
    pub(super) fn cluster(&self, name: &str) -> Option<&ClusterStatus> {
        self.clusters.iter().find(|cluster| cluster.name == name)
    }

    /// Whether somebody leads, and every server of the cluster serves in its role.
    pub(super) fn is_whole(&self, name: &str) -> bool {
        self.leader.is_some()
            && self.cluster(name).is_some_and(|cluster| {
                cluster.primary.is_some()
                    && cluster.servers.iter().all(|server| server.health == "healthy")
            })
    }
}

fn concerns(event: &Value, cluster: &str) -> bool {
    event.get("cluster").and_then(Value::as_str).is_none_or(|name| name == cluster)
}

/// Times come as milliseconds since the epoch or in RFC 3339.
fn event(value: &Value) -> Option<Event> {
    let text = value.get("text")?.as_str()?.to_owned();
    let at = match value.get("at")? {
        Value::Number(millis) => millis.as_u64()?,
        Value::String(stamp) => {
            let stamp: jiff::Timestamp = stamp.parse().ok()?;
            u64::try_from(stamp.as_millisecond()).ok()?
        }
        _ => return None,
    };
    Some(Event { at: WallTime(at), text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_forms_of_time_are_read() {
        let read =
            |at: Value| event(&json!({ "seq": 1, "at": at, "cluster": "shop", "text": "hello" }));
        let wanted = Some(Event { at: WallTime(1_500), text: "hello".to_owned() });
        assert_eq!(read(json!(1500)), wanted);
        assert_eq!(read(json!("1970-01-01T00:00:01.5Z")), wanted);
        assert_eq!(read(json!("yesterday")), None);
    }

    #[test]
    fn a_cluster_is_whole_only_with_leader_primary_and_healthy_servers() {
        let with = |leader: Value, primary: Value, health: &str| -> Status {
            serde_json::from_value(json!({ "leader": leader, "clusters": [{ "name": "shop", "epoch": 1,
                "state": "steady", "primary": primary, "servers": [{ "name": "db1", "role": "primary",
                "health": health, "lag_seconds": null, "data_center": "paris" }] }] }))
            .unwrap()
        };
        assert!(with(json!("w1"), json!("db1"), "healthy").is_whole("shop"));
        assert!(!with(json!("w1"), json!("db1"), "healthy").is_whole("other"));
        assert!(!with(Value::Null, json!("db1"), "healthy").is_whole("shop"));
        assert!(!with(json!("w1"), Value::Null, "healthy").is_whole("shop"));
        assert!(!with(json!("w1"), json!("db1"), "dead").is_whole("shop"));
    }
}
