//! Finding the server to read from, by asking all of them.

use super::Order;
use super::stream::{Reading, Refusal, Source};
use crate::decision::backup::archive::source::{self, Choice, Forked, choose};
use crate::decision::gtid::Gtids;
use crate::decision::report::{Sight, Status};
use crate::decision::topology::ServerName;
use crate::runtime::backup::source::look;
use crate::runtime::backup::{BackupError, catalog};
use std::time::Duration;
use tokio::task::JoinSet;

/// A fork is believed when it is seen twice, with so much time between.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// How archiving can go on.
pub(super) enum Found {
    /// From this server, from that position.
    Reading { reading: Box<Reading>, from: Gtids },
    /// From that position; the cluster goes on without what else is archived.
    Forked { server: ServerName, from: Gtids, lost: Gtids },
    /// From that position; nobody has what comes before it.
    Gap { server: ServerName, from: Gtids, missing: Gtids },
    /// Not at the moment.
    Nobody(String),
}

/// Looks for a server that can go on from that position; without one, for where to begin.
pub(super) async fn find(
    order: &Order<'_>,
    position: Option<&Gtids>,
    number: u32,
) -> Result<Found, BackupError> {
    let seen = look_at_all(order).await;
    let choice = choose(&seen, position);
    if let Some(forked) = &choice.forked {
        return Ok(look_again(order, position, forked).await);
    }
    let mut tries = Tries::default();
    for server in &choice.fit {
        let status = seen.iter().find(|(name, _)| name == server).and_then(|(_, it)| it.status());
        let Some(status) = status else { continue };
        match begin(order, (server, status), position, number).await {
            Ok(found) => return Ok(found),
            Err(refusal) => tries.failed(server, refusal),
        }
    }
    Ok(tries.outcome(&choice, position))
}

/// What became of the attempts to read from servers that seemed fit.
#[derive(Default)]
struct Tries {
    purged: Vec<(ServerName, Gtids, Gtids)>,
    others: bool,
    said: Vec<String>,
}

impl Tries {
    fn failed(&mut self, server: &ServerName, refusal: Refusal) {
        self.said.push(format!("{server}: {refusal}"));
        match refusal {
            Refusal::Purged { before, missing } => {
                self.purged.push((server.clone(), before, missing));
            }
            Refusal::Refused(_) | Refusal::Gone(_) | Refusal::Strange(_) => self.others = true,
        }
    }

    /// There is a gap only when no server that could be asked can send what comes next.
    fn outcome(self, choice: &Choice, position: Option<&Gtids>) -> Found {
        let least = self
            .purged
            .iter()
            .min_by_key(|(_, _, missing)| missing.count_beyond(&Gtids::empty(missing.flavor())));
        if let (Some(position), Some((server, before, missing)), false) =
            (position, least, self.others)
        {
            let (server, from) = (server.clone(), position.union(before));
            return Found::Gap { server, from, missing: missing.clone() };
        }
        let passed_over = choice.to_string();
        let mut said = self.said;
        said.extend((!passed_over.is_empty()).then_some(passed_over));
        Found::Nobody(format!("no server can be read from ({})", said.join("; ")))
    }
}

/// Begins to read from a server.
async fn begin(
    order: &Order<'_>,
    (server, status): (&ServerName, &Status),
    position: Option<&Gtids>,
    number: u32,
) -> Result<Found, Refusal> {
    let unknown = || Refusal::Gone("it is not of this cluster any more".to_owned());
    let source = Source {
        server: order.cluster.spec.server(server).ok_or_else(unknown)?,
        account: &order.cluster.credentials.monitor,
        flavor: status.flavor,
        version: status.version,
        number,
    };
    if position.is_some_and(|position| position.flavor() != status.flavor) {
        return Err(Refusal::Gone(format!("it is {}, and the archive is not", status.flavor)));
    }
    let (conn, before) = source.connect().await?;
    let from = match position {
        Some(position) => position.clone(),
        None => first_position(order, status, &before).await,
    };
    let missing = before.minus(&from);
    if !missing.is_empty() {
        return Err(Refusal::Purged { before, missing });
    }
    let mut reading = source.read(conn, &from).await?;
    // What it refuses it refuses at once.
    reading.first().await?;
    Ok(Found::Reading { reading: Box::new(reading), from })
}

/// Where an archive begins: with the oldest backup that the server still has all that follows of, else with
/// what comes next.
async fn first_position(order: &Order<'_>, status: &Status, before: &Gtids) -> Gtids {
    let catalog = catalog(order.target, &order.cluster.spec.name).await;
    let backups = catalog.map(|catalog| catalog.backups).unwrap_or_default();
    let followed = |position: &&Gtids| {
        position.flavor() == status.flavor
            && position.contains(before)
            && status.executed.contains(position)
    };
    let oldest = backups.iter().rev().map(|entry| &entry.position).find(followed);
    oldest.unwrap_or(&status.executed).clone()
}

/// A primary that is seen to lack what is archived is asked again.
async fn look_again(order: &Order<'_>, position: Option<&Gtids>, forked: &Forked) -> Found {
    tokio::time::sleep(SECOND_LOOK).await;
    let again = choose(&look_at_all(order).await, position);
    match again.forked {
        Some(still) if still.server == forked.server => {
            Found::Forked { server: still.server, from: still.from, lost: still.lost }
        }
        _ => Found::Nobody(format!("{} lacked what is archived a moment ago", forked.server)),
    }
}

/// Whether a server is still one to read from.
pub(super) async fn is_fit(order: &Order<'_>, server: &ServerName) -> Result<(), String> {
    let Some(spec) = order.cluster.spec.server(server) else {
        return Err(format!("{server} is not of this cluster any more"));
    };
    let sight = look(order.cluster, order.timing, spec).await;
    source::is_fit(&sight).map_err(|why| format!("{server} {why}"))
}

/// Whether that is all that the primary has committed.
pub(super) async fn is_all(order: &Order<'_>, position: &Gtids) -> bool {
    let seen = look_at_all(order).await;
    source::primary(&seen).is_some_and(|(_, status)| position.contains(&status.executed))
}

async fn look_at_all(order: &Order<'_>) -> Vec<(ServerName, Sight)> {
    let mut looking = JoinSet::new();
    for (place, server) in order.cluster.spec.servers.iter().enumerate() {
        let (cluster, timing, server) = (order.cluster.clone(), order.timing, server.clone());
        looking.spawn(async move {
            (place, server.name.clone(), look(&cluster, timing, &server).await)
        });
    }
    let mut seen = Vec::new();
    while let Some(looked) = looking.join_next().await {
        // Whoever panicked saw nothing.
        seen.extend(looked);
    }
    seen.sort_by_key(|(place, _, _)| *place);
    seen.into_iter().map(|(_, name, sight)| (name, sight)).collect()
}
