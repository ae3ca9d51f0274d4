//! Fills in what a sketch leaves out, as it would be in a healthy cluster.

use super::SketchError;
use super::form::{
    Mode, OneOf, Product, ReceiverForm, RulesForm, Seen, SemiSyncForm, ServerForm, SettingsForm,
    Sketch, ViewForm, WritableForm,
};
use crate::decision::cluster::{ClusterState, Writer};
use crate::decision::durability::Protection;
use crate::decision::gtid::Gtids;
use crate::decision::maintenance::{Maintenance, Notice};
use crate::decision::planning::{caught_up, must, stage};
use crate::decision::procedure::{Kind, Procedure};
use crate::decision::report::{
    Channel, Receiver, ReplicationError, SemiSync, Settings, Sight, Status, Trouble, Writable,
};
use crate::decision::response::procedure;
use crate::decision::rules::{RuleSet, SHIPPED};
use crate::decision::situation::{Situation, View};
use crate::decision::topology::{
    AcknowledgedIn, ClusterName, ClusterSpec, DataCenter, Durability, Endpoint, Epoch, Fence,
    Flavor, OnQuorumLoss, ServerName, ServerSpec, Timing, Version, WatcherName,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// More servers than one cluster has.
const MOST_SERVERS: usize = 500;

/// More watchers than Raft likes.
const MOST_WATCHERS: usize = 25;

/// What is settled before the servers' states are.
struct Frame<'s> {
    yaml: &'s str,
    sketch: &'s Sketch,
    flavor: Flavor,
    /// The primary, the former one, or the first server that takes writes.
    source: Option<&'s ServerForm>,
    protection: Protection,
    watchers: BTreeMap<WatcherName, DataCenter>,
}

/// The situation that a sketch describes.
pub(super) fn situation(yaml: &str, sketch: &Sketch) -> Result<Situation, SketchError> {
    check_names(yaml, sketch)?;
    let spec = spec(yaml, sketch)?;
    let writer = match (&sketch.primary, &sketch.former) {
        (Some(_), Some(former)) => {
            let what = "write primary, or former when there is none right now; not both";
            return Err(wrong(yaml, "former", former, what.to_owned()));
        }
        (Some(primary), None) => Writer::Open { primary: primary.as_str().into() },
        (None, Some(former)) => Writer::Closed { former: former.as_str().into() },
        (None, None) => Writer::Unassigned,
    };
    let takes_writes = |server: &&ServerForm| matches!(server.writable, Some(WritableForm::Open));
    let named = sketch.primary.as_ref().or(sketch.former.as_ref());
    let source = match named {
        Some(name) => sketch.servers.iter().find(|server| &server.name == name),
        None => sketch.servers.iter().find(takes_writes),
    };
    let watchers = match &sketch.watchers {
        Some(names) => names.iter().map(String::as_str).map(watcher).collect(),
        None => ["paris", "london", "witness"].map(watcher).into(),
    };
    let usual = usual_protection(&spec, &writer);
    let protection = sketch.protection.as_ref().map_or(usual.clone(), |form| form.fill(usual));
    let flavor = flavor(sketch);
    let frame = Frame { yaml, sketch, flavor, source, protection, watchers };
    let mut views = BTreeMap::new();
    for (place, server) in sketch.servers.iter().enumerate() {
        let status = frame.status(place, server, &spec)?;
        views.insert(ServerName(server.name.clone()), frame.views(server, &status));
    }
    let ended = frame.promotion(&spec)?.into_iter().collect();
    let epoch = if writer == Writer::Unassigned { 0 } else { sketch.epoch.unwrap_or(1) };
    let state = ClusterState {
        epoch: Epoch(epoch),
        writer,
        protection: frame.protection,
        maintenance: maintenance(sketch),
        rebuilding: sketch.rebuilding.iter().map(|name| (name.as_str().into(), 0)).collect(),
        ended,
        ..ClusterState::default()
    };
    let spec = Arc::new(spec);
    Ok(Situation {
        spec,
        state,
        timing: Timing::default(),
        watchers: frame.watchers,
        views,
        canary_stalled: sketch.canary_stalled.as_ref().map(|span| span.0),
        canary_refused: sketch.canary_refused,
    })
}

fn maintenance(sketch: &Sketch) -> Maintenance {
    let mut maintenance = Maintenance::default();
    for form in &sketch.maintenance {
        let notice = Notice { reason: form.reason.clone(), ..Notice::default() };
        match &form.server {
            Some(server) => drop(maintenance.servers.insert(server.as_str().into(), notice)),
            None => maintenance.cluster = Some(notice),
        }
    }
    maintenance
}

/// A watcher stands in the data center of its name.
fn watcher(name: &str) -> (WatcherName, DataCenter) {
    (WatcherName::from(name), DataCenter::from(name))
}

fn flavor(sketch: &Sketch) -> Flavor {
    match sketch.flavor {
        None | Some(Product::Mysql) => Flavor::MySql,
        Some(Product::Mariadb) => Flavor::MariaDb,
    }
}

/// Every name used is declared, and declared once.
fn check_names(yaml: &str, sketch: &Sketch) -> Result<(), SketchError> {
    if sketch.servers.is_empty() || sketch.servers.len() > MOST_SERVERS {
        return Err(wrong(yaml, "servers", "", format!("declare 1 to {MOST_SERVERS} servers")));
    }
    let mut servers = BTreeSet::new();
    for server in &sketch.servers {
        if server.name.is_empty() || !servers.insert(server.name.as_str()) {
            let what = "give each server a name of its own".to_owned();
            return Err(wrong(yaml, "name", &server.name, what));
        }
    }
    let mut watchers = BTreeSet::from(["paris", "london", "witness"]);
    if let Some(names) = &sketch.watchers {
        watchers = names.iter().map(String::as_str).collect();
        if names.is_empty() || names.len() > MOST_WATCHERS || watchers.len() < names.len() {
            let what = format!("name 1 to {MOST_WATCHERS} watchers, each once");
            return Err(wrong(yaml, "watchers", "", what));
        }
    }
    let known = |list: &BTreeSet<&str>| list.iter().copied().collect::<Vec<_>>().join(", ");
    let acknowledging = sketch.protection.iter().flat_map(|form| &form.may_acknowledge).flatten();
    let asked = sketch.asked.iter().filter_map(|asked| asked.to.as_ref());
    let followed = sketch.servers.iter().filter_map(|server| server.may_follow.as_ref());
    let used = [
        ("may_follow", followed.collect::<Vec<_>>()),
        ("primary", sketch.primary.iter().collect()),
        ("former", sketch.former.iter().collect()),
        ("without", sketch.without.iter().collect()),
        ("to", asked.collect()),
        ("may_acknowledge", acknowledging.collect()),
        ("server", sketch.maintenance.iter().filter_map(|form| form.server.as_ref()).collect()),
        ("rebuilding", sketch.rebuilding.iter().collect()),
    ];
    for (key, names) in used {
        if let Some(name) = names.into_iter().find(|name| !servers.contains(name.as_str())) {
            let what = format!("there is no server {name:?}; declared are {}", known(&servers));
            return Err(wrong(yaml, key, name, what));
        }
    }
    for watcher in sketch.servers.iter().flat_map(|server| server.seen_by.keys()) {
        if !watchers.contains(watcher.as_str()) {
            let what = format!("there is no watcher {watcher:?}; they are {}", known(&watchers));
            return Err(wrong(yaml, watcher, "", what));
        }
    }
    Ok(())
}

fn spec(yaml: &str, sketch: &Sketch) -> Result<ClusterSpec, SketchError> {
    let server = |form: &ServerForm| ServerSpec {
        promotion: form.promotion,
        follows: form.may_follow.as_deref().map(ServerName::from),
        fence: form.fence.then(|| Fence {
            command: vec!["(as sketched)".to_owned()],
            limit: Duration::from_secs(5),
        }),
        ..ServerSpec::new(
            form.name.as_str().into(),
            address(form),
            form.data_center.as_deref().map_or("paris".into(), DataCenter::from),
        )
    };
    let name = ClusterName(sketch.cluster.clone().unwrap_or_else(|| "shop".to_owned()));
    let mut spec = ClusterSpec {
        name,
        servers: sketch.servers.iter().map(server).collect(),
        durability: Durability::BestEffort { on_quorum_loss: OnQuorumLoss::Fence },
        rules: rules(yaml, sketch)?,
        max_replica_lag: sketch.max_replica_lag.map_or(Duration::from_secs(5), |span| span.0),
    };
    let usual = if spec.spans_data_centers() {
        AcknowledgedIn::OtherDataCenter
    } else {
        AcknowledgedIn::Any
    };
    let (mode, acknowledged_in, on_quorum_loss) = match &sketch.durability {
        None => (Mode::Lossless, None, None),
        Some(OneOf::Word(mode)) => (*mode, None, None),
        Some(OneOf::More(form)) => (form.mode, form.acknowledged_in, form.on_quorum_loss),
    };
    spec.durability = match mode {
        Mode::Lossless => {
            Durability::Lossless { acknowledged_in: acknowledged_in.unwrap_or(usual) }
        }
        Mode::BestEffort => {
            let on_quorum_loss = on_quorum_loss.unwrap_or(OnQuorumLoss::Fence);
            Durability::BestEffort { on_quorum_loss }
        }
    };
    let mut taken = BTreeSet::new();
    if let Some(twice) = spec.servers.iter().find(|server| !taken.insert(&server.address)) {
        let address = twice.address.to_string();
        let what = format!("{address} is taken already; give each server its own address");
        return Err(wrong(yaml, "address", &address, what));
    }
    Ok(spec)
}

fn address(form: &ServerForm) -> Endpoint {
    let usual = || Endpoint { host: form.name.clone(), port: 3306 };
    form.address.clone().unwrap_or_else(usual)
}

/// A shipped set, or own rules with the default ones after them.
fn rules(yaml: &str, sketch: &Sketch) -> Result<RuleSet, SketchError> {
    let shipped = |name: &str| {
        RuleSet::shipped(name).ok_or_else(|| {
            let names: Vec<_> = SHIPPED.iter().map(|(name, _)| *name).collect();
            let what = format!(
                "there is no shipped rule set {name:?}; write {}, or the rules themselves",
                names.join(" or ")
            );
            wrong(yaml, "rules", name, what)
        })
    };
    let mut set = match &sketch.rules {
        None => shipped("default")?,
        Some(RulesForm::Named(name)) => shipped(name)?,
        Some(RulesForm::Own(rules)) => {
            let own = RuleSet::before(rules.clone(), shipped("default")?);
            own.map_err(|mistakes| {
                let lines: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
                wrong(yaml, "rules", "", lines.join("; "))
            })?
        }
    };
    set.candidates = sketch.candidates.unwrap_or(set.candidates);
    Ok(set)
}

/// What protects commits where all is as the durability wants it.
fn usual_protection(spec: &ClusterSpec, writer: &Writer) -> Protection {
    let (Durability::Lossless { acknowledged_in }, Some(name)) = (
        spec.durability,
        match writer {
            Writer::Open { primary } => Some(primary),
            Writer::Closed { former } => Some(former),
            Writer::Unassigned => None,
        },
    ) else {
        return Protection::default();
    };
    let primary = spec.server(name);
    let others: Vec<_> = spec.servers.iter().filter(|server| &server.name != name).collect();
    let far = others
        .iter()
        .filter(|server| primary.is_some_and(|primary| primary.data_center != server.data_center));
    let far: BTreeSet<_> = far.map(|server| server.name.clone()).collect();
    let all = || others.iter().map(|server| server.name.clone()).collect();
    let may_acknowledge = match acknowledged_in {
        AcknowledgedIn::OtherDataCenter if !far.is_empty() => far,
        AcknowledgedIn::OtherDataCenter | AcknowledgedIn::Any => all(),
    };
    Protection {
        in_force: !may_acknowledge.is_empty(),
        may_acknowledge,
        acks: 1,
        ..Protection::default()
    }
}

impl Frame<'_> {
    fn status(
        &self,
        place: usize,
        form: &ServerForm,
        spec: &ClusterSpec,
    ) -> Result<Status, SketchError> {
        let is_source = self.source.is_some_and(|source| source.name == form.name);
        let executed = match (&form.executed, self.source.and_then(|it| it.executed.as_ref())) {
            (Some(own), _) => self.gtids("executed", own)?,
            (None, Some(same)) => self.gtids("executed", same)?,
            (None, None) => match self.flavor {
                Flavor::MySql => self.gtids("executed", "A:1-100")?,
                Flavor::MariaDb => self.gtids("executed", "0-1-100")?,
            },
        };
        let usual = match (is_source, self.sketch.former.is_some()) {
            (true, false) => Writable::Open,
            (true, true) | (false, _) => Writable::Closed,
        };
        let writable = form.writable.map_or(usual, |writable| match writable {
            WritableForm::Open => Writable::Open,
            WritableForm::ReadOnly => Writable::ReadOnly,
            WritableForm::Closed => Writable::Closed,
        });
        let usual_version = match self.flavor {
            Flavor::MySql => Version { major: 8, minor: 4, patch: 6 },
            Flavor::MariaDb => Version { major: 11, minor: 4, patch: 8 },
        };
        let own_id = u32::try_from(place).unwrap_or(u32::MAX - 1) + 1;
        let uuid = match (self.flavor, &form.uuid) {
            (Flavor::MariaDb, _) => None,
            (Flavor::MySql, Some(text)) => Some(whole_uuid(text).unwrap_or_else(|| text.clone())),
            (Flavor::MySql, None) => Some(uuid_at(place)),
        };
        Ok(Status {
            flavor: self.flavor,
            version: form.version.map_or(usual_version, |version| version.0),
            server_id: form.server_id.unwrap_or(own_id),
            uuid,
            writable,
            channels: self.channel(form, spec, &executed)?.into_iter().collect(),
            executed,
            replicated: form
                .replicated
                .as_deref()
                .map(|it| self.gtids("replicated", it))
                .transpose()?,
            semi_sync: self.semi_sync(form, is_source),
            settings: settings(&form.settings),
            crowded: form.crowded,
        })
    }

    fn channel(
        &self,
        form: &ServerForm,
        spec: &ClusterSpec,
        executed: &Gtids,
    ) -> Result<Option<Channel>, SketchError> {
        let usual = self.source.filter(|source| source.name != form.name);
        let source = match (&form.follows, usual) {
            (Some(nobody), _) if nobody == "nobody" => return Ok(None),
            (Some(name), _) => match spec.server(&name.as_str().into()) {
                Some(server) => server.address.clone(),
                None => name.parse().map_err(|_| {
                    let what = format!(
                        "there is no server {name:?}; write a declared server's name, an address \
                         host:port, or nobody"
                    );
                    wrong(self.yaml, "follows", name, what)
                })?,
            },
            (None, Some(source)) => address(source),
            (None, None) => return Ok(None),
        };
        let usual =
            if self.reachable(&source) { Receiver::Connected } else { Receiver::Connecting };
        let receiver = form.receiver.map_or(usual, |receiver| match receiver {
            ReceiverForm::Connected => Receiver::Connected,
            ReceiverForm::Connecting => Receiver::Connecting,
            ReceiverForm::Stopped => Receiver::Stopped,
        });
        let applying = form.applying.unwrap_or(form.error.is_none());
        let received = match &form.received {
            Some(text) => self.gtids("received", text)?,
            None => executed.clone(),
        };
        let error = form.error.map(|code| ReplicationError { code, text: "(as sketched)".into() });
        Ok(Some(Channel {
            name: String::new(),
            source,
            receiver,
            applying,
            received,
            beats: 100,
            lag: form.lag.map(|span| span.0).or(applying.then_some(Duration::ZERO)),
            delay: form.delay.map_or(Duration::ZERO, |span| span.0),
            error,
            by_gtid: true,
            turned_away: form.turned_away,
        }))
    }

    /// Whether anybody sees the server at that address alive; one that is not declared is.
    fn reachable(&self, at: &Endpoint) -> bool {
        let declared = self.sketch.servers.iter().find(|server| &address(server) == at);
        let dies = |server: &ServerForm| self.sketch.without.as_ref() == Some(&server.name);
        declared.is_none_or(|server| {
            let seen = |watcher| {
                let view = view_form(server, watcher);
                view.is_none_or(|view| view.seen == Seen::Alive)
            };
            !dies(server) && self.watchers.keys().any(seen)
        })
    }

    fn semi_sync(&self, form: &ServerForm, is_source: bool) -> SemiSync {
        let SemiSyncForm { available, source, replica, acks, clients, waiting, timeout } =
            &form.semi_sync;
        let Protection { may_acknowledge, acks: usual_acks, in_force, .. } = &self.protection;
        let may = |name: &str| may_acknowledge.contains(&ServerName::from(name));
        let connected = self.sketch.servers.iter().filter(|other| {
            let running = matches!(other.receiver, None | Some(ReceiverForm::Connected));
            let alive = |watcher| view_form(other, watcher).is_none_or(|v| v.seen == Seen::Alive);
            may(&other.name) && running && self.watchers.keys().any(alive)
        });
        let waits = is_source && *in_force;
        SemiSync {
            available: available.unwrap_or(true),
            source: source.unwrap_or(waits),
            replica: replica.unwrap_or(!is_source && *in_force && may(&form.name)),
            acks: acks.unwrap_or(if waits { *usual_acks } else { 0 }),
            timeout: timeout.map_or(Duration::from_secs(1_000_000), |span| span.0),
            clients: clients
                .unwrap_or(u32::try_from(connected.count()).unwrap_or(0) * u32::from(is_source)),
            waiting: waiting.unwrap_or(0),
        }
    }

    fn views(&self, form: &ServerForm, status: &Status) -> BTreeMap<WatcherName, View> {
        let mut views = BTreeMap::new();
        for watcher in self.watchers.keys() {
            let usual = ViewForm { seen: Seen::Alive, age: None, probes: None, falls: 0 };
            let seen = view_form(form, watcher).unwrap_or(usual);
            let Some(sight) = sight(seen.seen, status) else { continue };
            let mut view = View::fresh(sight);
            view.age = seen.age.map_or(view.age, |span| span.0);
            view.times = seen.probes.unwrap_or(view.times);
            view.falls = seen.falls;
            view.following = form.following.map_or(view.following, |span| span.0);
            view.last_alive = Some(view.lasting);
            let connected = status.channel().filter(|it| it.receiver == Receiver::Connected);
            view.heard_source = match (&form.heard, connected) {
                (Some(OneOf::More(span)), _) => Some(span.0.saturating_sub(view.age)),
                (Some(OneOf::Word(_)), _) | (None, None) => None,
                (None, Some(_)) => Some(Duration::ZERO),
            };
            views.insert(watcher.clone(), view);
        }
        views
    }

    /// The failover that made the primary what it is, where the sketch says what it began with.
    fn promotion(&self, spec: &ClusterSpec) -> Result<Option<Procedure>, SketchError> {
        let Some(text) = &self.sketch.promoted_with else {
            return Ok(None);
        };
        let held = self.gtids("promoted_with", text)?;
        let named = self.sketch.primary.as_ref().or(self.sketch.former.as_ref());
        let Some(server) = named.and_then(|name| spec.server(&name.as_str().into())) else {
            let what = "say who was promoted: name primary or former".to_owned();
            return Err(wrong(self.yaml, "promoted_with", text, what));
        };
        let plan = vec![stage("catch up", vec![must(caught_up(server, &held, Duration::ZERO))])];
        let mut past = procedure(Kind::Failover, String::new(), server.name.clone(), plan);
        past.to = Some(server.name.clone());
        Ok(Some(past))
    }

    fn gtids(&self, key: &str, text: &str) -> Result<Gtids, SketchError> {
        let whole = match self.flavor {
            Flavor::MySql => with_whole_uuids(text),
            Flavor::MariaDb => text.to_owned(),
        };
        Gtids::parse(self.flavor, &whole).map_err(|error| {
            let right = match self.flavor {
                Flavor::MySql => "A:1-100,B:7 or whole UUIDs in place of A to F",
                Flavor::MariaDb => "domain-server-sequence such as 0-1-100,0-2-120",
            };
            wrong(self.yaml, key, text, format!("{error}; write {right}"))
        })
    }
}

fn view_form(form: &ServerForm, watcher: &WatcherName) -> Option<ViewForm> {
    let view = form.seen_by.get(watcher.as_str()).or(form.seen.as_ref())?;
    Some(match view {
        OneOf::Word(seen) => ViewForm { seen: *seen, age: None, probes: None, falls: 0 },
        OneOf::More(view) => view.clone(),
    })
}

fn sight(seen: Seen, status: &Status) -> Option<Sight> {
    Some(match seen {
        Seen::Alive => Sight::Alive(Box::new(status.clone())),
        Seen::Refused => Sight::Refused,
        Seen::Unreachable => Sight::Unreachable,
        Seen::Hung => Sight::Hung,
        Seen::TooManyConnections => Sight::Useless(Trouble::TooManyConnections),
        Seen::NoRoom => Sight::Useless(Trouble::NoRoom),
        Seen::NotReady => Sight::Useless(Trouble::NotReady),
        Seen::Denied => Sight::Denied,
        Seen::Nothing => return None,
    })
}

fn settings(form: &SettingsForm) -> Settings {
    let usual = Settings::default();
    Settings {
        binlog: form.binlog.unwrap_or(usual.binlog),
        logs_replica_updates: form.logs_replica_updates.unwrap_or(usual.logs_replica_updates),
        gtids: form.gtids.unwrap_or(usual.gtids),
        relay_log_recovery: form.relay_log_recovery.unwrap_or(usual.relay_log_recovery),
        durable: form.durable.unwrap_or(usual.durable),
        gtid_mode: form.gtid_mode.clone(),
        restarts_open: form.restarts_open.or(usual.restarts_open),
        relay_log_synced: form.relay_log_synced.unwrap_or(usual.relay_log_synced),
    }
}

/// The UUID of the server declared at that place: A for the first, F for the sixth.
fn uuid_at(place: usize) -> String {
    let letter = u8::try_from(place).ok().filter(|place| *place < 6).map(|place| b'A' + place);
    let short = letter.and_then(|letter| whole_uuid(&char::from(letter).to_string()));
    short.unwrap_or_else(|| format!("{place:08x}-0000-0000-0000-000000000000"))
}

fn whole_uuid(letter: &str) -> Option<String> {
    if !matches!(letter, "A" | "B" | "C" | "D" | "E" | "F") {
        return None;
    }
    let group = |length: usize| letter.to_ascii_lowercase().repeat(length);
    Some([8, 4, 4, 4, 12].map(group).join("-"))
}

/// `A:1-100` with A's whole UUID.
fn with_whole_uuids(text: &str) -> String {
    let whole = |part: &str| {
        let part = part.trim();
        match part.split_once(':') {
            Some((letter, rest)) => {
                let uuid = whole_uuid(letter.trim()).unwrap_or_else(|| letter.to_owned());
                format!("{uuid}:{rest}")
            }
            None => part.to_owned(),
        }
    };
    text.split(',').map(whole).collect::<Vec<_>>().join(",")
}

/// A mistake with the place of `key: value`, as far as that can be found again.
fn wrong(yaml: &str, key: &str, value: &str, what: String) -> SketchError {
    let start = format!("{key}:");
    let place = yaml.lines().enumerate().find_map(|(number, line)| {
        let at = line.find(&start)?;
        let rest = at + start.len();
        let found = line[rest..].find(value)?;
        let column = if value.is_empty() { at } else { rest + found };
        Some((number + 1, line[..column].chars().count() + 1))
    });
    match place {
        Some((line, column)) => SketchError(format!("{line}:{column}: {what}")),
        None => SketchError(what),
    }
}
