//! Reads `clusters`: servers, durability, rules, proxies.

use super::agents::{Agents, agent};
use super::backups::{Method, backups};
use super::credentials::credentials;
use super::fields::{CLUSTER, DURABILITY, FENCE, PROXY, SERVER};
use super::reader::{Field, Reading, Section};
use super::rules::rules_named;
use super::tree::Kind;
use super::watchers::Watched;
use super::{ClusterConfig, ProxyListen};
use crate::decision::rules::RuleSet;
use crate::decision::topology::{
    AcknowledgedIn, ClusterName, ClusterSpec, DataCenter, Durability, Endpoint, Fence,
    OnQuorumLoss, Promotion, ServerName, ServerSpec,
};
use std::time::Duration;

/// Reads all clusters.
pub fn clusters(
    reading: &mut Reading<'_>,
    file: &Section<'_>,
    watched: &Watched,
) -> Vec<ClusterConfig> {
    let Some(field) = reading.need(file, "clusters", "a list of at least one cluster") else {
        return Vec::new();
    };
    if matches!(&field.node.kind, Kind::List(items) if items.is_empty()) {
        reading.wrong(&field, "is empty; declare at least one cluster".to_owned());
    }
    let items = reading.list(&field);
    items.iter().filter_map(|item| cluster(reading, item, watched)).collect()
}

fn cluster(
    reading: &mut Reading<'_>,
    item: &Field<'_>,
    watched: &Watched,
) -> Option<ClusterConfig> {
    let section = reading.section(item, CLUSTER)?;
    let name = reading.need(&section, "name", "shop").and_then(|field| {
        let name = reading.name(&field)?;
        reading.claim("cluster name", &name, &field);
        Some(name)
    });
    let mut agents = Agents::new();
    let (mut servers, all_read) = servers(reading, &section, watched, &mut agents);
    let fence = fence(reading, &section);
    for server in &mut servers {
        server.fence = server.fence.take().or_else(|| fence.clone());
    }
    let credentials = credentials(reading, &section);
    let durability = durability(reading, &section, &servers, all_read);
    let rules = rules(reading, &section);
    let (proxy, max_replica_lag) = proxy(reading, &section);
    let mut backups = backups(reading, &section, all_read.then_some(servers.as_slice()));
    if let Some(backups) = &mut backups {
        backups.read_through(&agents);
        let field = reading.optional(&section, "backups");
        let nobody = backups.method == Method::Physical && agents.is_empty() && all_read;
        if let Some(field) = field.filter(|_| nobody) {
            let what = "has method physical, and no server of the cluster has an agent; give one of them \
                        agent: { address: HOST:PORT, token_file: FILE, scratch: DIRECTORY }";
            reading.wrong(&field, what.to_owned());
        }
    }
    let spec = ClusterSpec {
        name: ClusterName(name?),
        servers,
        durability: durability?,
        rules: rules?,
        max_replica_lag,
    };
    Some(ClusterConfig { spec, credentials: credentials?, proxy, backups, agents })
}

/// The servers that could be read, and whether these are all.
fn servers(
    reading: &mut Reading<'_>,
    cluster: &Section<'_>,
    watched: &Watched,
    agents: &mut Agents,
) -> (Vec<ServerSpec>, bool) {
    let example = "a list of the primary and its replicas";
    let Some(field) = reading.need(cluster, "servers", example) else {
        return (Vec::new(), false);
    };
    let items = reading.list(&field);
    match &field.node.kind {
        Kind::List(items) if items.is_empty() => {
            reading.wrong(&field, format!("is empty; write {example}"));
        }
        Kind::List(items) if items.len() == 1 => {
            let what = "one server alone has nobody to fail over to; declare its replicas";
            reading.warn(field.node.at, &field.path, what.to_owned());
        }
        _ => {}
    }
    let found: Vec<ServerSpec> =
        items.iter().filter_map(|item| server(reading, item, watched, agents)).collect();
    let all_read = found.len() == items.len() && !found.is_empty();
    if all_read {
        relays(reading, &items, &found);
    }
    (found, all_read)
}

/// Who is followed instead of the primary is declared, and is another server.
fn relays(reading: &mut Reading<'_>, items: &[Field<'_>], found: &[ServerSpec]) {
    for (item, server) in items.iter().zip(found) {
        let Some(relay) = &server.follows else { continue };
        let what = if relay == &server.name {
            "a server cannot follow itself; remove follows".to_owned()
        } else if found.iter().any(|other| &other.name == relay) {
            continue;
        } else {
            let names: Vec<&str> =
                found.iter().take(10).map(|server| server.name.as_str()).collect();
            format!("follows {relay:?}, which is not declared; write one of {}", names.join(", "))
        };
        reading.wrong(item, what);
    }
}

fn server(
    reading: &mut Reading<'_>,
    item: &Field<'_>,
    watched: &Watched,
    agents: &mut Agents,
) -> Option<ServerSpec> {
    let section = reading.section(item, SERVER)?;
    let name = reading.need(&section, "name", "db1").and_then(|field| {
        let name = reading.name(&field)?;
        reading.claim("server name", &name, &field);
        Some(name)
    });
    let address = reading.need(&section, "address", "10.1.0.11:3306").and_then(|field| {
        let address = reading.endpoint(&field)?;
        reading.claim("address", &address.to_string(), &field);
        Some(address)
    });
    let data_center = reading.need(&section, "data_center", "paris").and_then(|field| {
        let name = DataCenter(reading.name(&field)?);
        // A watcher that could not be read may stand just here.
        if watched.complete && !watched.data_centers.contains(&name) {
            let known: Vec<&str> =
                watched.data_centers.iter().map(DataCenter::as_str).take(10).collect();
            let what = format!(
                "no watcher stands in {}; put one there, or write one of {}",
                field.shown(),
                known.join(", ")
            );
            reading.wrong(&field, what);
        }
        Some(name)
    });
    let promotion = match reading.optional(&section, "promotion") {
        Some(field) => reading.choice(
            &field,
            &[
                ("prefer", Promotion::Prefer),
                ("neutral", Promotion::Neutral),
                ("avoid", Promotion::Avoid),
                ("never", Promotion::Never),
            ],
        ),
        None => Some(Promotion::default()),
    };
    let follows = reading
        .optional(&section, "follows")
        .and_then(|field| reading.name(&field))
        .map(ServerName);
    let admin_address = reading.optional(&section, "admin_address").and_then(|field| {
        let address = reading.endpoint(&field)?;
        reading.claim("address", &address.to_string(), &field);
        Some(address)
    });
    let fence = fence(reading, &section);
    let agent = agent(reading, &section, watched.secured);
    let name = ServerName(name?);
    agents.extend(agent.map(|agent| (name.clone(), agent)));
    Some(ServerSpec {
        name,
        address: address?,
        data_center: data_center?,
        promotion: promotion?,
        follows,
        admin_address,
        fence,
    })
}

/// What takes a server out of service from outside.
fn fence(reading: &mut Reading<'_>, parent: &Section<'_>) -> Option<Fence> {
    let field = reading.optional(parent, "fence")?;
    let section = reading.section(&field, FENCE)?;
    let example = "a list of the program and its arguments";
    let mut command = Vec::new();
    if let Some(field) = reading.need(&section, "command", example) {
        let words = reading.list(&field);
        if matches!(&field.node.kind, Kind::List(items) if items.is_empty()) {
            reading.wrong(&field, format!("is empty; write {example}"));
        }
        command = words.iter().filter_map(|word| reading.text(word)).collect();
    }
    let mut limit = Duration::from_secs(5);
    if let Some(field) = reading.optional(&section, "limit") {
        let range = Duration::from_millis(100)..=Duration::from_secs(60);
        limit = reading.duration(&field, range).unwrap_or(limit);
    }
    (!command.is_empty()).then_some(Fence { command, limit })
}

const MODES: [(&str, bool); 2] = [("lossless", true), ("best_effort", false)];

fn durability(
    reading: &mut Reading<'_>,
    cluster: &Section<'_>,
    servers: &[ServerSpec],
    all_read: bool,
) -> Option<Durability> {
    let spans = servers.windows(2).any(|pair| pair[0].data_center != pair[1].data_center);
    let default_acknowledged =
        if spans { AcknowledgedIn::OtherDataCenter } else { AcknowledgedIn::Any };
    let lossless = Durability::Lossless { acknowledged_in: default_acknowledged };
    let best_effort = Durability::BestEffort { on_quorum_loss: OnQuorumLoss::Fence };
    if !cluster.has("durability") {
        return Some(lossless);
    }
    let field = reading.optional(cluster, "durability")?;
    if !matches!(field.node.kind, Kind::Map(_)) {
        let is_lossless = reading.choice(&field, &MODES)?;
        return Some(if is_lossless { lossless } else { best_effort });
    }
    let section = reading.section(&field, DURABILITY)?;
    let mode =
        reading.need(&section, "mode", "lossless").and_then(|field| reading.choice(&field, &MODES));
    let acknowledged_in = reading.optional(&section, "acknowledged_in").and_then(|field| {
        if mode == Some(false) {
            let what = "has a meaning under mode: lossless only; remove it, or change the mode";
            reading.wrong(&field, what.to_owned());
        }
        let choices =
            [("other_data_center", AcknowledgedIn::OtherDataCenter), ("any", AcknowledgedIn::Any)];
        let found = reading.choice(&field, &choices)?;
        if found == AcknowledgedIn::OtherDataCenter && !spans && all_read {
            let what =
                "all servers stand in one data center, so nobody could acknowledge; write any";
            reading.wrong(&field, what.to_owned());
        }
        Some(found)
    });
    let on_quorum_loss = reading.optional(&section, "on_quorum_loss").and_then(|field| {
        if mode == Some(true) {
            let what = "has a meaning under mode: best_effort only; remove it, or change the mode";
            reading.wrong(&field, what.to_owned());
        }
        reading.choice(&field, &[("fence", OnQuorumLoss::Fence), ("keep", OnQuorumLoss::Keep)])
    });
    Some(if mode? {
        let acknowledged_in = acknowledged_in.unwrap_or(default_acknowledged);
        Durability::Lossless { acknowledged_in }
    } else {
        let on_quorum_loss = on_quorum_loss.unwrap_or(OnQuorumLoss::Fence);
        Durability::BestEffort { on_quorum_loss }
    })
}

fn rules(reading: &mut Reading<'_>, cluster: &Section<'_>) -> Option<RuleSet> {
    if !cluster.has("rules") {
        return rules_named("default", reading.base).ok();
    }
    let field = reading.optional(cluster, "rules")?;
    let name = reading.name(&field)?;
    let found = rules_named(&name, reading.base);
    for what in found.as_ref().err().into_iter().flatten() {
        reading.wrong(&field, what.clone());
    }
    found.ok()
}

fn proxy(reading: &mut Reading<'_>, cluster: &Section<'_>) -> (Option<ProxyListen>, Duration) {
    let mut lag = Duration::from_secs(5);
    let Some(field) = reading.optional(cluster, "proxy") else {
        return (None, lag);
    };
    let Some(section) = reading.section(&field, PROXY) else {
        return (None, lag);
    };
    let write =
        reading.need(&section, "write", "0.0.0.0:3306").and_then(|field| listener(reading, &field));
    let read = reading.optional(&section, "read").and_then(|field| listener(reading, &field));
    let seconds = Duration::from_secs;
    if let Some(field) = reading.optional(&section, "max_replica_lag") {
        lag = reading.duration(&field, Duration::from_millis(100)..=seconds(86_400)).unwrap_or(lag);
    }
    let mut hold = seconds(10);
    if let Some(field) = reading.optional(&section, "hold") {
        hold = reading.duration(&field, Duration::ZERO..=seconds(300)).unwrap_or(hold);
    }
    let mut max_connections = 10_000;
    if let Some(field) = reading.optional(&section, "max_connections") {
        max_connections = reading.integer(&field, 1..=1_000_000).unwrap_or(max_connections);
    }
    let max_connections = usize::try_from(max_connections).unwrap_or(usize::MAX);
    (write.map(|write| ProxyListen { write, read, hold, max_connections }), lag)
}

fn listener(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<Endpoint> {
    let endpoint = reading.endpoint(field)?;
    let wildcard = ["0.0.0.0", "::", "*"].contains(&endpoint.host.as_str());
    // 0.0.0.0:3306 and [::]:3306 collide on one machine.
    let value = if wildcard { format!("*:{}", endpoint.port) } else { endpoint.to_string() };
    reading.claim("address", &value, field);
    Some(endpoint)
}
