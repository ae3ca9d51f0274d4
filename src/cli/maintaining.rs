//! `regent maintenance`: leaves a server or a cluster alone for a while.

use super::Failed;
use super::acting::wants_to;
use super::args::{Global, Maintenance};
use super::output::Output;
use super::reach::{client, encoded};
use crate::api::client::Read;
use crate::api::types::{DoneBody, EndMaintenanceBody, MaintenanceBody};
use std::io::{self, IsTerminal};

/// `regent maintenance`.
pub async fn maintenance(
    global: &Global,
    order: &Maintenance,
    out: &mut Output,
) -> Result<(), Failed> {
    let path = format!("/v1/clusters/{}/maintenance", encoded(&order.cluster));
    let (server, by) = (order.server.clone(), who());
    let read: Read<DoneBody> = if order.end {
        let body = EndMaintenanceBody { server, by };
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
        client(global)?.post(&path, &MaintenanceBody { server, lasts, reason, by }).await?
    };
    if global.json {
        Ok(out.raw(&read.json)?)
    } else {
        Ok(out.text(&format!("{}\n", read.view.text))?)
    }
}

/// Whoever runs this command, as far as the environment says.
pub(super) fn who() -> Option<String> {
    let of = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    of("SUDO_USER").or_else(|| of("USER")).or_else(|| of("LOGNAME"))
}
