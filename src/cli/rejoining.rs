//! `regent rejoin --from-backup`: the last rung of the ladder, where no other server can give its data.
//!
//! The watchers write down what the server alone holds, and leave it alone from then on; this command
//! brings the backup back; then they care for it again. Wherever that breaks off, the server stays in
//! maintenance and the same command goes on.

use super::acting::wants_to;
use super::args::{Global, Rejoin};
use super::backup::{
    Shown, account, amount, configuration, configured, identities, json_of, open, stopped,
};
use super::maintaining::{until_relieved, who};
use super::output::Output;
use super::reach::{client, encoded};
use super::{Failed, procedure, resuming};
use crate::api::client::{CallError, Client, Read};
use crate::api::types::{DoneBody, EndMaintenanceBody, MaintenanceBody, OpenedBody, RejoinBody};
use crate::decision::backup::manifest::Manifest;
use crate::decision::topology::ClusterName;
use crate::runtime::backup::{self, Destination, Identities, Membership, Restored, Target, Wish};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// By these words the next attempt knows that the watchers did their part.
const REASON: &str = "its data comes from a backup (regent rejoin --from-backup)";
/// How long the watchers leave the server alone when nobody asks them for more.
const LASTS: &str = "6h";
/// How often they are asked for more.
const RENEWED: Duration = Duration::from_secs(3600);
/// How often the watchers are asked for what they refuse while they do something else.
const ASKED: u32 = 60;
const BETWEEN: Duration = Duration::from_secs(1);

/// What is to be done.
struct Plan {
    /// What the server alone holds, where that is not written down yet.
    beyond: Option<String>,
    says: Vec<String>,
}

/// `regent rejoin --rebuild --from-backup`.
pub(super) async fn from_backup(
    global: &Global,
    order: &Rejoin,
    out: &mut Output,
) -> Result<(), Failed> {
    let config = configuration(global)?;
    let (cluster, backups) = configured(&config, &order.cluster)?;
    let declared = cluster.spec.servers.iter();
    let names: Vec<&str> = declared.clone().map(|server| server.name.as_str()).collect();
    let Some(server) = declared.clone().find(|server| server.name.as_str() == order.server) else {
        let (name, known) = (&order.server, names.join(", "));
        return Err(Failed::Refused(format!("there is no server {name:?}; there is {known}")));
    };
    let asked = &order.backup;
    let (Some(named), Some(user), Some(file)) =
        (&asked.from_backup, &asked.user, &asked.password_file)
    else {
        return Err(Failed::Usage("name an account with --user and --password-file".to_owned()));
    };
    let tools = &backups.tools;
    let destination =
        Destination { address: server.address.clone(), account: account(user, file)?, tools };
    let identities = identities(asked.identity.as_deref())?;
    let watchers = Watchers { client: client(global)?, order };
    let contained = watchers.look().await?;
    let target = open(backups, asked.target.as_deref())?;
    let manifest = chosen(&target, &cluster.spec.name, (named, &destination)).await?;
    let membership = Membership { cluster, timing: config.timing };
    let restoring = Restoring {
        from: (&target, &manifest),
        identities: &identities,
        destination: &destination,
        membership,
    };
    let plan = restoring.plan(order, contained).await?;
    if order.dry_run {
        return told(global, order, (&manifest, &plan.says, &[], false), out);
    }
    let each: String = plan.says.iter().map(|step| format!("- {step}\n")).collect();
    if !order.yes {
        if !io::stdin().is_terminal() {
            let text = "--from-backup replaces all data of the server and nobody can be asked here; add \
                        --yes, or look first with --dry-run";
            return Err(Failed::Usage(text.to_owned()));
        }
        wants_to(&format!("rejoin of {} by backup {}\n{each}", order.server, manifest.id))?;
    }
    if let Some(beyond) = &plan.beyond {
        watchers.write_down(global, beyond, out).await?;
    }
    watchers.leave_alone(false).await?;
    until_relieved(&watchers.client, &order.cluster, &order.server).await;
    watchers.leave_alone(true).await?;
    let shown = Shown::begin(global, "fetched");
    let done = restoring.run(&watchers, &shown).await;
    shown.end().await;
    let name = &order.server;
    let stays = |error: Failed| match error {
        Failed::Refused(text) => Failed::Refused(format!("{name} stays in maintenance: {text}")),
        other => other,
    };
    let Restored { refused, .. } = done.map_err(stays)?;
    let shown = io::stderr().is_terminal() && !global.json;
    restoring.given_back(&watchers, shown).await.map_err(|error| {
        let text = format!(
            "{name} holds the backup and follows, but stays in maintenance: {error}; once it has caught up with \
             the primary, end that with regent maintenance {} {name} --end --new-data",
            order.cluster
        );
        Failed::Refused(text)
    })?;
    told(global, order, (&manifest, &plan.says, &refused, true), out)
}

/// The backup that is meant: the one that was begun with, or the newest that can be loaded.
async fn chosen(
    target: &Target,
    cluster: &ClusterName,
    (named, destination): (&str, &Destination<'_>),
) -> Result<Manifest, Failed> {
    let named = resuming::meant((named, true), Some(destination)).await?;
    let mut id = named.clone();
    if named == "latest" {
        let catalog = backup::catalog(target, cluster).await?;
        let fits = catalog
            .backups
            .iter()
            .find(|entry| !entry.method.is_physical() && !entry.proof.is_failed());
        // Without one, asking for the newest says why.
        id = fits.map_or(named, |entry| entry.id.to_string());
    }
    Ok(backup::manifest(target, cluster, &id).await?)
}

/// The restore with all it needs.
struct Restoring<'a> {
    from: (&'a Target, &'a Manifest),
    identities: &'a Identities,
    destination: &'a Destination<'a>,
    membership: Membership<'a>,
}

impl Restoring<'_> {
    fn wish(&self, dry_run: bool) -> Wish<'_> {
        let membership = Some(self.membership);
        Wish { follow: membership, overwrite: membership, resume: true, dry_run }
    }

    /// Finds out whatever speaks against it before anything is done.
    async fn plan(&self, order: &Rejoin, contained: bool) -> Result<Plan, Failed> {
        let Rejoin { server, .. } = order;
        let (wish, progress) = (self.wish(true), tokio::sync::watch::Sender::default());
        let (by, into) = (self.identities, self.destination);
        let planned = backup::into_server(self.from, by, into, &wish, &progress).await?;
        let mut beyond = None;
        if !contained {
            beyond = backup::beyond(&self.membership, self.destination).await?;
        }
        let written =
            beyond.as_ref().map(|it| format!("write down what {server} alone holds ({it})"));
        let mut says: Vec<String> = written.into_iter().collect();
        says.push(format!("put {server} into maintenance, where what it holds counts for nothing"));
        says.extend(planned.says);
        says.push(format!(
            "wait until it has caught up, and end its maintenance, so that the watchers look after {server} again"
        ));
        Ok(Plan { beyond, says })
    }

    /// Gives the server back to the watchers, once it holds all that the primary held when its data was there.
    async fn given_back(&self, watchers: &Watchers<'_>, shown: bool) -> Result<(), Failed> {
        let say = |line: String| {
            if shown {
                // Nothing can be done when even standard error is closed.
                let _ = write!(io::stderr(), "\r\u{1b}[K{line}");
            }
        };
        let name = &watchers.order.server;
        let lacks = |count: u64| say(format!("{name} catches up: {count} transaction(s) behind"));
        let caught_up = backup::caught_up(&self.membership, self.destination, lacks);
        let ended = tokio::select! {
            ended = watchers.meanwhile(caught_up) => ended.map_err(Failed::from),
            () = stopped()? => Err(Failed::Refused("stopped on request".to_owned())),
        };
        say(String::new());
        ended?;
        watchers.care_again().await
    }

    /// Restores, and keeps the watchers from it as long as that takes.
    async fn run(&self, watchers: &Watchers<'_>, shown: &Shown) -> Result<Restored, Failed> {
        let again = again();
        let (wish, into) = (self.wish(false), self.destination);
        let server = (into, &wish);
        let work = resuming::into_server(
            self.from,
            self.identities,
            server,
            &shown.progress,
            Some(&again),
        );
        watchers.meanwhile(work).await
    }
}

/// What goes on with it.
fn again() -> String {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    resuming::joined(words)
}

/// The watchers, and what is asked of them.
struct Watchers<'a> {
    client: Client,
    order: &'a Rejoin,
}

impl Watchers<'_> {
    fn path(&self, what: &str) -> String {
        format!("/v1/clusters/{}{what}", encoded(&self.order.cluster))
    }

    /// Whether they did their part before, in an earlier attempt or a copy that broke off; an error where the server is not to be touched.
    async fn look(&self) -> Result<bool, Failed> {
        let Rejoin { cluster, server, .. } = self.order;
        let read: Result<Read<Value>, CallError> =
            self.client.get(&self.path(""), Duration::ZERO).await;
        let read = read.map_err(|error| {
            let failed = Failed::from(error);
            let hint =
                "where no watcher runs any more, regent backup restore --overwrite brings it back";
            match failed {
                Failed::CannotReach(text) => Failed::CannotReach(format!("{text}; {hint}")),
                other => other,
            }
        })?;
        let refused = |why: &str| Err(Failed::Refused(format!("{server} {why}")));
        if read.view["primary"] == server.as_str() {
            return refused("is the primary");
        }
        let servers = read.view["servers"].as_array().cloned().unwrap_or_default();
        let own = servers.iter().find(|it| it["name"] == server.as_str());
        // What it holds is a part of another server's data, and was written down before that came.
        let incomplete = own.is_some_and(|own| own["health"] == "replica_incomplete");
        let notices = read.view["maintenance"].as_array().cloned().unwrap_or_default();
        let own = notices.iter().find(|notice| notice["server"] == server.as_str());
        match own.map(|notice| notice["reason"].as_str().unwrap_or_default()) {
            None => Ok(incomplete),
            Some(REASON) => Ok(true),
            Some(reason) => Err(Failed::Refused(format!(
                "{server} is in maintenance ({reason}), so the watchers cannot write down what it alone \
                 holds; first run regent maintenance {cluster} {server} --end"
            ))),
        }
    }

    /// Has them write down what the server alone holds.
    async fn write_down(
        &self,
        global: &Global,
        beyond: &str,
        out: &mut Output,
    ) -> Result<(), Failed> {
        let body = RejoinBody {
            server: self.order.server.clone(),
            rebuild: false,
            from: None,
            accept_loss: self.order.accept_loss,
            dry_run: false,
        };
        let opened: Result<Read<OpenedBody>, Failed> = self.ask("/rejoin", &body).await;
        let written = match opened {
            Err(error) => Err(error),
            Ok(opened) if global.json => {
                let id = opened.view.procedure;
                procedure::closed(&self.client, &self.order.cluster, id).await.map(drop)
            }
            Ok(opened) => {
                let id = opened.view.procedure;
                procedure::follow(&self.client, &self.order.cluster, id, false, out).await
            }
        };
        match written {
            Err(Failed::Refused(_)) if self.order.accept_loss => Ok(()),
            Err(Failed::Refused(text)) => Err(Failed::Refused(format!(
                "what {} alone holds ({beyond}) is not written down: {text}; nothing was replaced; to give \
                 it up, add --accept-loss",
                self.order.server
            ))),
            other => other,
        }
    }

    /// Keeps them from the server as long as something is done to it.
    async fn meanwhile<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(RENEWED) => {
                    // While none answers none disturbs, and the next time is an hour later.
                    let _ = self.leave_alone(true).await;
                }
            }
        }
    }

    async fn leave_alone(&self, new_data: bool) -> Result<(), Failed> {
        let body = MaintenanceBody {
            server: Some(self.order.server.clone()),
            lasts: LASTS.to_owned(),
            reason: REASON.to_owned(),
            by: who(),
            new_data,
        };
        self.ask::<DoneBody>("/maintenance", &body).await.map(drop)
    }

    async fn care_again(&self) -> Result<(), Failed> {
        let body = EndMaintenanceBody {
            server: Some(self.order.server.clone()),
            by: who(),
            new_data: true,
        };
        self.ask::<DoneBody>("/maintenance/end", &body).await.map(drop)
    }

    /// Asks, and again while they do something else or none leads.
    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        what: &str,
        body: &impl Serialize,
    ) -> Result<Read<T>, Failed> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.client.post(&self.path(what), body).await {
                Ok(read) => return Ok(read),
                Err(error) if tries < ASKED && procedure::passing(&error) => {
                    tokio::time::sleep(BETWEEN).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn told(
    global: &Global,
    order: &Rejoin,
    (manifest, says, refused, done): (&Manifest, &[String], &[String], bool),
    out: &mut Output,
) -> Result<(), Failed> {
    let Rejoin { cluster, server, .. } = order;
    if global.json {
        let said = json!({
            "cluster": cluster, "server": server, "id": manifest.id, "done": done, "steps": says,
            "refused": refused,
        });
        return json_of(&said, out);
    }
    if !done {
        let can = format!("{server} can be brought back from backup {}; it would\n", manifest.id);
        return Ok(out.text(&says.iter().fold(can, |text, step| format!("{text}- {step}\n")))?);
    }
    let mut text = format!(
        "{server} got the data of backup {} ({} of SQL) and follows the primary\n",
        manifest.id,
        amount(manifest.plain_bytes)
    );
    for statement in refused {
        text.push_str(&format!("! refused there, mend it by hand: {statement}\n"));
    }
    Ok(out.text(&text)?)
}
