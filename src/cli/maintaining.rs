//! `regent maintenance`: leaves a server or a cluster alone for a while.

use super::Failed;
use super::acting::wants_to;
use super::args::{Global, Maintenance};
use super::output::Output;
use super::reach::{client, encoded};
use crate::api::client::{CallError, Client, Read};
use crate::api::types::{DoneBody, EndMaintenanceBody, MaintenanceBody};
use serde_json::Value;
use std::io::{self, IsTerminal};
use std::time::Duration;

/// How often it is looked whether commits still wait for a server, with a pause in between.
const RELIEVED: u32 = 60;
const BETWEEN: Duration = Duration::from_millis(250);

/// `regent maintenance`.
pub async fn maintenance(
    global: &Global,
    order: &Maintenance,
    out: &mut Output,
) -> Result<(), Failed> {
    let path = format!("/v1/clusters/{}/maintenance", encoded(&order.cluster));
    let (server, by, new_data) = (order.server.clone(), who(), order.new_data);
    let read: Read<DoneBody> = if order.end {
        let body = EndMaintenanceBody { server, by, new_data };
        client(global)?.post(&format!("{path}/end"), &body).await?
    } else {
        if server.is_none() && !order.yes && io::stdin().is_terminal() {
            wants_to(&format!(
                "No failover or repair will happen by itself in {} meanwhile.",
                order.cluster
            ))?;
        }
        let lasts = order.lasts.clone().unwrap_or_default();
        let reason = order.reason.clone().unwrap_or_default();
        let client = client(global)?;
        let body = MaintenanceBody { server, lasts, reason, by, new_data: false };
        let begun = client.post(&path, &body).await?;
        match &body.server {
            Some(server) if new_data => {
                until_relieved(&client, &order.cluster, server).await;
                client.post(&path, &MaintenanceBody { new_data, ..body }).await?
            }
            _ => begun,
        }
    };
    if global.json {
        Ok(out.raw(&read.json)?)
    } else {
        Ok(out.text(&format!("{}\n", read.view.text))?)
    }
}

/// Waits until commits no longer wait for a server in maintenance, as its word, once its data is gone, proves
/// nothing. It may be the last that can acknowledge, so this is not for ever.
pub(super) async fn until_relieved(client: &Client, cluster: &str, server: &str) {
    let path = format!("/v1/clusters/{}", encoded(cluster));
    for _ in 0..RELIEVED {
        let read: Result<Read<Value>, CallError> = client.get(&path, Duration::ZERO).await;
        let servers = read.map(|read| read.view["servers"].clone()).unwrap_or_default();
        let own = servers.as_array().into_iter().flatten().find(|it| it["name"] == server);
        if own.is_some_and(|own| own["acknowledges"] != true) {
            return;
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

/// Whoever runs this command, as far as the environment says.
pub(super) fn who() -> Option<String> {
    let of = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    of("SUDO_USER").or_else(|| of("USER")).or_else(|| of("LOGNAME"))
}
