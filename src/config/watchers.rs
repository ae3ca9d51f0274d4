//! Reads `watchers` and `security`.

use super::fields::{SECURITY, WATCHER};
use super::reader::{Field, Reading, Section};
use super::tree::Kind;
use super::{Security, SecurityFiles, WatcherSpec};
use crate::decision::topology::{DataCenter, Endpoint, WatcherName};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

/// The data centers that watchers stand in, as far as they could be read.
#[derive(Default)]
pub struct Watched {
    /// Their names.
    pub data_centers: BTreeSet<DataCenter>,
    /// Every watcher said where it stands.
    pub complete: bool,
    /// There is a `security` section.
    pub secured: bool,
}

/// Reads all watchers and checks their number.
pub fn watchers(reading: &mut Reading<'_>, file: &Section<'_>) -> (Vec<WatcherSpec>, Watched) {
    let example = "a list of an odd number of watchers, best one in each of three data centers";
    let mut watched = Watched { secured: file.has("security"), ..Watched::default() };
    let Some(field) = reading.need(file, "watchers", example) else {
        return (Vec::new(), watched);
    };
    let items = reading.list(&field);
    let is_list = !items.is_empty() || matches!(field.node.kind, Kind::List(_));
    match items.len() {
        0 if is_list => reading.wrong(&field, format!("is empty; write {example}")),
        1 => reading.warn(
            field.node.at,
            &field.path,
            "one watcher alone cannot outlive its own machine; declare three".to_owned(),
        ),
        count if count > 0 && count % 2 == 0 => reading.wrong(
            &field,
            format!(
                "{count} watchers survive no more losses than {}; declare {} or {}",
                count - 1,
                count - 1,
                count + 1
            ),
        ),
        _ => {}
    }
    watched.complete = !items.is_empty();
    let mut found = Vec::new();
    for item in &items {
        found.extend(watcher(reading, item, &mut watched));
    }
    (found, watched)
}

fn watcher(
    reading: &mut Reading<'_>,
    item: &Field<'_>,
    watched: &mut Watched,
) -> Option<WatcherSpec> {
    let section = reading.section(item, WATCHER);
    watched.complete &= section.is_some();
    let section = section?;
    let id = reading.need(&section, "id", "paris").and_then(|field| {
        let id = reading.name(&field)?;
        reading.claim("watcher id", &id, &field);
        Some(id)
    });
    let data_center = reading
        .need(&section, "data_center", "paris")
        .and_then(|field| reading.name(&field))
        .map(DataCenter);
    watched.complete &= data_center.is_some();
    watched.data_centers.extend(data_center.clone());
    let peer = reading
        .need(&section, "peer", "10.1.0.5:7401")
        .and_then(|field| listener(reading, &field, watched.secured));
    let api = reading
        .need(&section, "api", "10.1.0.5:7400")
        .and_then(|field| listener(reading, &field, watched.secured));
    Some(WatcherSpec { id: WatcherName(id?), data_center: data_center?, peer: peer?, api: api? })
}

fn listener(reading: &mut Reading<'_>, field: &Field<'_>, secured: bool) -> Option<Endpoint> {
    let endpoint = reading.endpoint(field)?;
    reading.claim("address", &endpoint.to_string(), field);
    if !secured && !is_loopback(&endpoint) {
        let what = format!(
            "{} can be reached from outside and there is no security section; add one, or write \
             127.0.0.1:{}",
            field.shown(),
            endpoint.port
        );
        reading.wrong(field, what);
    }
    Some(endpoint)
}

/// Whether only this machine can connect to it.
pub fn is_loopback(endpoint: &Endpoint) -> bool {
    endpoint.host.eq_ignore_ascii_case("localhost")
        || endpoint.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Reads the paths of certificates and tokens, or that there shall be none.
pub fn security(reading: &mut Reading<'_>, file: &Section<'_>) -> Option<Security> {
    let field = reading.optional(file, "security")?;
    let section = reading.section(&field, SECURITY)?;
    if section.has("insecure") {
        return insecure(reading, &field, &section);
    }
    let mut path = |name: &str| -> Option<PathBuf> {
        let field = reading.need(&section, name, &format!("security/{name}.pem"))?;
        let text = reading.text(&field)?;
        let path = reading.base.join(text);
        let spared = name == "tokens" && reading.secrets_elsewhere;
        if let Err(error) = std::fs::File::open(&path)
            && !spared
        {
            let shown = field.shown();
            reading.wrong(&field, format!("cannot read {shown}: {error}; name a readable file"));
        }
        Some(path)
    };
    let (ca, certificate, key, tokens) =
        (path("ca"), path("certificate"), path("key"), path("tokens"));
    reading.warn(
        field.node.at,
        &field.path,
        "is checked but not yet in use: connections between watchers are neither encrypted nor \
         authenticated; keep them in a network you trust"
            .to_owned(),
    );
    let files = SecurityFiles { ca: ca?, certificate: certificate?, key: key?, tokens: tokens? };
    Some(Security::Files(files))
}

fn insecure(
    reading: &mut Reading<'_>,
    whole: &Field<'_>,
    section: &Section<'_>,
) -> Option<Security> {
    let field = reading.optional(section, "insecure")?;
    if !matches!(field.node.kind, Kind::Bool(true)) {
        let what = format!("{} is not true; write insecure: true, or remove it", field.shown());
        reading.wrong(&field, what);
        return None;
    }
    for name in SECURITY.fields.iter().filter(|name| **name != "insecure" && section.has(name)) {
        let what = format!("{name} has no use beside insecure: true; keep one of them");
        reading.error(section.at(name), &section.path_of(name), what);
    }
    reading.warn(
        whole.node.at,
        &whole.path,
        "insecure: nothing is encrypted and nobody is asked who they are; whoever reaches the addresses of \
         watchers can command every server; use it only in a network that nobody else can enter"
            .to_owned(),
    );
    Some(Security::Insecure)
}
