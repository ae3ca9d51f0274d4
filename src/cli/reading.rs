//! Commands that only look.

use super::args;
use super::output::Output;
use super::reach::{client, encoded};
use super::{Failed, explanation, tables};
use crate::api::client::Read;
use crate::api::types::{ClusterView, EventView, ExplanationView, StatusView};
use std::time::Duration;

/// Events per request.
const PAGE: usize = 1000;
/// How long one request waits for new events.
const WAIT: Duration = Duration::from_secs(20);
/// Between two tries while no watcher answers.
const AGAIN: Duration = Duration::from_secs(1);

/// `regent status`.
pub async fn status(
    global: &args::Global,
    cluster: Option<&str>,
    out: &mut Output,
) -> Result<(), Failed> {
    let query = cluster.map_or(String::new(), |name| format!("?cluster={}", encoded(name)));
    let read: Read<StatusView> =
        client(global)?.get(&format!("/v1/status{query}"), Duration::ZERO).await?;
    let text = tables::status(&read.view, out.width);
    show(global, &read, &text, out)
}

/// `regent topology`.
pub async fn topology(
    global: &args::Global,
    cluster: &str,
    out: &mut Output,
) -> Result<(), Failed> {
    let path = format!("/v1/clusters/{}/topology", encoded(cluster));
    let read: Read<ClusterView> = client(global)?.get(&path, Duration::ZERO).await?;
    let text = tables::topology(&read.view, out.width);
    show(global, &read, &text, out)
}

/// `regent explain` of a running cluster.
pub async fn explain(
    global: &args::Global,
    explain: &args::Explain,
    out: &mut Output,
) -> Result<(), Failed> {
    let cluster = explain.cluster.as_deref().unwrap_or_default();
    let query = explain
        .without
        .as_ref()
        .map_or(String::new(), |name| format!("?without={}", encoded(name)));
    let path = format!("/v1/clusters/{}/explain{query}", encoded(cluster));
    let read: Read<ExplanationView> = client(global)?.get(&path, Duration::ZERO).await?;
    let text = explanation::explanation(&read.view, out.width);
    show(global, &read, &text, out)
}

/// `regent explain --situation`: the explanation has been worked out without any watcher.
pub fn situation(
    global: &args::Global,
    view: &ExplanationView,
    out: &mut Output,
) -> Result<(), Failed> {
    if global.json {
        let json = serde_json::to_vec(view).map_err(|error| Failed::Internal(error.to_string()))?;
        return Ok(out.raw(&json)?);
    }
    Ok(out.text(&explanation::explanation(view, out.width))?)
}

/// `regent events`.
pub async fn events(
    global: &args::Global,
    events: &args::Events,
    out: &mut Output,
) -> Result<(), Failed> {
    let client = client(global)?;
    let only =
        events.cluster.as_ref().map_or(String::new(), |name| format!("&cluster={}", encoded(name)));
    let mut after = events.after;
    let mut wait = Duration::ZERO;
    loop {
        let path = format!("/v1/events?after={after}&limit={PAGE}{only}&wait={}", wait.as_secs());
        let read: Read<Vec<EventView>> = match client.get(&path, wait).await.map_err(Failed::from) {
            Ok(read) => read,
            // Once it follows, it outlasts a change of leader.
            Err(Failed::CannotReach(_) | Failed::Refused(_)) if !wait.is_zero() => {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        if global.json && (!read.view.is_empty() || !events.follow) {
            out.raw(&read.json)?;
        }
        for event in read.view.iter().filter(|_| !global.json) {
            out.text(&tables::event(event, out.width))?;
        }
        after = read.view.last().map_or(after, |event| event.seq);
        let more = read.view.len() == PAGE && !global.json;
        if events.follow && read.view.len() < PAGE {
            wait = WAIT;
        } else if !events.follow && !more {
            return Ok(());
        }
    }
}

fn show<T>(
    global: &args::Global,
    read: &Read<T>,
    text: &str,
    out: &mut Output,
) -> Result<(), Failed> {
    if global.json { Ok(out.raw(&read.json)?) } else { Ok(out.text(text)?) }
}
