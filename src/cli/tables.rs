//! Clusters, servers and events as text.

use super::output::{plain, table, wrapped};
use super::{chores, schedules};
use crate::api::types::{
    ClusterView, EventView, FindingView, MaintenanceView, ServerView, StatusView,
};
use std::collections::BTreeSet;

/// More clusters than this are shown one line each.
const MOST_IN_FULL: usize = 5;

/// `regent status`.
pub fn status(view: &StatusView, width: u16) -> String {
    let watchers: Vec<String> = view
        .watchers
        .iter()
        .map(|one| match (one.reachable, Some(&one.id) == view.leader.as_ref()) {
            (true, true) => format!("{} leads", one.id),
            (true, false) => one.id.to_string(),
            (false, _) => format!("{} unreachable", one.id),
        })
        .collect();
    let proxies: Vec<String> =
        view.proxies.iter().map(|one| format!("{} ({} sessions)", one.id, one.sessions)).collect();
    let mut text = format!("watchers  {}\n", wrapped(&or_none(&watchers), 10, width));
    text.push_str(&format!("proxies   {}\n", wrapped(&or_none(&proxies), 10, width)));
    if view.clusters.is_empty() {
        text.push_str("\nno clusters are declared\n");
    } else if view.clusters.len() > MOST_IN_FULL {
        text.push('\n');
        text.push_str(&summary(&view.clusters, width));
    } else {
        for cluster in &view.clusters {
            text.push('\n');
            text.push_str(&cluster_in_full(cluster, width));
        }
    }
    text
}

/// `regent topology`: who follows whom, as a tree.
pub fn topology(cluster: &ClusterView, width: u16) -> String {
    let mut text = headline(cluster, width);
    let mut shown = BTreeSet::new();
    for root in cluster.servers.iter().filter(|one| is_root(cluster, one)) {
        branch(cluster, root, "", "", &mut shown, &mut text);
    }
    let rest: Vec<&ServerView> =
        cluster.servers.iter().filter(|one| !shown.contains(one.name.as_str())).collect();
    for server in rest {
        // Whoever follows in a circle hangs below nobody.
        branch(cluster, server, "", "", &mut shown, &mut text);
    }
    text.push_str(&findings(&cluster.findings, false, width));
    text
}

/// One line per event.
pub fn event(event: &EventView, width: u16) -> String {
    let place = event.cluster.as_ref().map_or("-", |cluster| cluster.as_str());
    let line = format!("{} {} {place} {}: {}", event.seq, event.at, event.kind, event.text);
    format!("{}\n", wrapped(&line, 2, width))
}

/// Findings, with who said what if asked for.
pub fn findings(findings: &[FindingView], evidence: bool, width: u16) -> String {
    let mut text = String::new();
    for finding in findings {
        let line = format!("{}: {}", finding.kind, finding.text);
        text.push_str(&format!("! {}\n", wrapped(&line, 2, width)));
        for said in finding.evidence.iter().filter(|_| evidence) {
            text.push_str(&format!("    {}\n", wrapped(said, 6, width)));
        }
    }
    text
}

fn cluster_in_full(cluster: &ClusterView, width: u16) -> String {
    let mut text = headline(cluster, width);
    let mut rows =
        table(&["SERVER", "ROLE", "HEALTH", "LAG", "DATA CENTER", "ADDRESS", "VERSION"], width);
    for server in &cluster.servers {
        rows.add_row([
            server.name.to_string(),
            server.role.clone(),
            server.health.clone(),
            lag(server),
            server.data_center.to_string(),
            server.address.clone(),
            server.version.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    text.push_str(&plain(&rows));
    text.push_str(&findings(&cluster.findings, false, width));
    if !cluster.waiting.is_empty() {
        text.push_str(&format!(
            "  {}\n",
            wrapped(&format!("waits: {}", cluster.waiting), 4, width)
        ));
    }
    text.push_str(&schedules::lines(&cluster.backups, width));
    text.push_str(&chores::lines(cluster, width));
    if let Some(procedure) = &cluster.procedure {
        let line =
            format!("{} {} {}: {}", procedure.kind, procedure.id, procedure.state, procedure.text);
        text.push_str(&format!("> {}\n", wrapped(&line, 2, width)));
    }
    text
}

fn headline(cluster: &ClusterView, width: u16) -> String {
    let primary = cluster.primary.as_ref().map_or("none", |primary| primary.as_str());
    let line = format!(
        "{}: {}, primary {primary}, epoch {}, {} with {} acknowledgement(s)",
        cluster.name, cluster.state, cluster.epoch, cluster.durability, cluster.acks
    );
    let mut text = format!("{}\n", wrapped(&line, 2, width));
    if !cluster.reason.is_empty() {
        text.push_str(&format!("  {}\n", wrapped(&cluster.reason, 2, width)));
    }
    text.push_str(&maintenance(&cluster.maintenance, width));
    text
}

/// What is in maintenance, one line each.
pub fn maintenance(notices: &[MaintenanceView], width: u16) -> String {
    let mut text = String::new();
    for notice in notices {
        let subject = notice.server.as_ref().map_or("the cluster", |server| server.as_str());
        let by = if notice.by.is_empty() { String::new() } else { format!(" ({})", notice.by) };
        let line =
            format!("{subject} is in maintenance until {}: {}{by}", notice.until, notice.reason);
        text.push_str(&format!("  {}\n", wrapped(&line, 4, width)));
    }
    text
}

fn summary(clusters: &[ClusterView], width: u16) -> String {
    let mut rows =
        table(&["CLUSTER", "STATE", "PRIMARY", "EPOCH", "SERVERS", "WORST LAG", "FINDINGS"], width);
    for cluster in clusters {
        let worst = cluster.servers.iter().filter_map(|one| one.lag_seconds).reduce(f64::max);
        rows.add_row([
            cluster.name.to_string(),
            cluster.state.clone(),
            cluster.primary.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            cluster.epoch.to_string(),
            cluster.servers.len().to_string(),
            worst.map_or_else(|| "-".to_owned(), |lag| format!("{lag:.1} s")),
            cluster.findings.len().to_string(),
        ]);
    }
    plain(&rows)
}

fn is_root(cluster: &ClusterView, server: &ServerView) -> bool {
    let Some(source) = &server.follows else {
        return true;
    };
    !cluster.servers.iter().any(|other| other.name.as_str() == source)
}

fn branch(
    cluster: &ClusterView,
    server: &ServerView,
    lead: &str,
    below: &str,
    shown: &mut BTreeSet<String>,
    text: &mut String,
) {
    if !shown.insert(server.name.0.clone()) {
        return;
    }
    text.push_str(&format!("{lead}{}\n", node(cluster, server)));
    let children: Vec<&ServerView> = cluster
        .servers
        .iter()
        .filter(|other| other.follows.as_deref() == Some(server.name.as_str()))
        .collect();
    for (at, child) in children.iter().enumerate() {
        let last = at + 1 == children.len();
        let (turn, further) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let (lead, below) = (format!("{below}{turn}"), format!("{below}{further}"));
        branch(cluster, child, &lead, &below, shown, text);
    }
}

fn node(cluster: &ClusterView, server: &ServerView) -> String {
    let mut parts = vec![server.name.to_string(), server.role.clone(), server.health.clone()];
    parts.push(server.data_center.to_string());
    if server.role != "primary" {
        parts.push(format!("lag {}", lag(server)));
    }
    if server.writable == Some(true) {
        parts.push("writable".to_owned());
    }
    if let Some(behind) = server.behind.filter(|behind| *behind > 0) {
        parts.push(format!("{behind} behind"));
    }
    if server.acknowledges == Some(true) {
        parts.push("acknowledges".to_owned());
    }
    let source = server.follows.as_ref().filter(|_| is_root(cluster, server));
    if let Some(source) = source {
        parts.push(format!("follows {source}, which is not declared"));
    }
    parts.join("  ")
}

fn lag(server: &ServerView) -> String {
    server.lag_seconds.map_or_else(|| "?".to_owned(), |lag| format!("{lag:.1} s"))
}

fn or_none(parts: &[String]) -> String {
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}
