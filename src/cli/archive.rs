//! `regent backup archive`, and what its archive lets `list` say.

use super::Failed;
use super::args::Global;
use super::backup::{amount, configured, json_of, open, stopped};
use super::output::Output;
use super::reach::{client, encoded};
use crate::api::client::{CallError, Read};
use crate::clock::Clock;
use crate::config::{ClusterConfig, Config};
use crate::decision::backup::archive::history::Recoverable;
use crate::decision::backup::catalog::{Catalog, Unusable};
use crate::runtime::backup::Target;
use crate::runtime::backup::archive::{self, Archiving, Order};
use serde::Serialize;
use serde_json::Value;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;
use tokio::sync::watch;

/// Archives a cluster's binary log until somebody stops it.
pub(super) async fn archive(
    global: &Global,
    config: &Config,
    (cluster, target): (&str, Option<&str>),
    out: &mut Output,
) -> Result<(), Failed> {
    let (cluster, backups) = configured(config, cluster)?;
    let target = open(backups, target)?;
    left_to_us(global, cluster, &target.name).await?;
    let clock = Clock::start();
    let order = Order { cluster, backups, target: &target, timing: config.timing, clock };
    let progress = watch::Sender::new(Archiving::default());
    let wanted = io::stderr().is_terminal() && !global.json;
    let screen = wanted.then(|| tokio::spawn(repeat(progress.subscribe())));
    let ended = archive::archive(&order, &progress, stopped()?).await;
    if let Some(screen) = screen {
        screen.abort();
        let _ = screen.await;
        // Nothing can be done when even standard error is closed.
        let _ = write!(io::stderr(), "\r\u{1b}[K");
    }
    let done = ended?;
    if global.json {
        return json_of(&done, out);
    }
    let text = format!(
        "archived {} transaction(s) of {} at {} in {} segment(s), {}\n",
        done.transactions,
        cluster.spec.name,
        target.name,
        done.segments,
        amount(done.bytes)
    );
    Ok(out.text(&text)?)
}

/// Two at once would only be in each other's way. Where no watcher answers none archives.
async fn left_to_us(global: &Global, cluster: &ClusterConfig, target: &str) -> Result<(), Failed> {
    let cluster = &cluster.spec.name;
    let path = format!("/v1/clusters/{}", encoded(cluster.as_str()));
    let asked: Result<Read<Value>, CallError> = client(global)?.get(&path, Duration::ZERO).await;
    let read = match asked {
        Ok(read) => read,
        Err(CallError::Unreachable { .. } | CallError::Silent { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if read.view["archive"]["target"] != target {
        return Ok(());
    }
    Err(Failed::Refused(format!(
        "the watchers archive the binary log of {cluster} at {target} already, as archive_to says in \
         backups.binlogs; regent status {cluster} shows how far they are"
    )))
}

async fn repeat(mut seen: watch::Receiver<Archiving>) {
    loop {
        let line = line_of(&seen.borrow_and_update());
        let _ = write!(io::stderr(), "\r\u{1b}[K{line}");
        if seen.changed().await.is_err() {
            return;
        }
    }
}

fn line_of(now: &Archiving) -> String {
    let source = match (&now.source, &now.trouble) {
        (_, Some(trouble)) => format!("! {}", trouble.chars().take(60).collect::<String>()),
        (Some(source), None) => format!("from {source}"),
        (None, None) => "looking for a source".to_owned(),
    };
    let last = now.last_commit.map_or_else(String::new, |at| format!(", up to {at}"));
    format!(
        "{source}: {} transaction(s) in {} segment(s), {}, {} waiting{last}",
        now.transactions,
        now.segments,
        amount(now.bytes),
        now.waiting
    )
}

/// What a target holds of a cluster, and what can be restored from it.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    #[serde(flatten)]
    pub(super) catalog: Catalog,
    recovery: Recoverable,
}

/// Looks what can be restored with a catalog's backups.
pub(super) async fn with_recovery(target: &Target, mut catalog: Catalog) -> Result<Listed, Failed> {
    let archived = archive::archived(target, &catalog.cluster).await?;
    let recovery = archive::recoverable(target, &archived, &catalog).await?;
    let unusable: Vec<Unusable> = archived.unusable;
    catalog.unusable.extend(unusable);
    Ok(Listed { catalog, recovery })
}

impl Listed {
    /// Lines for people; none where nothing is archived.
    pub(super) fn described(&self) -> String {
        if self.recovery.segments == 0 {
            return String::new();
        }
        let mut text = String::new();
        if self.recovery.windows.is_empty() {
            text.push_str("binary log archived, but no backup comes before it: back up now\n");
        }
        for window in &self.recovery.windows {
            let (from, to, backup) = (window.from, window.to, &window.backup);
            text.push_str(&format!("any moment from {from} to {to}, first backup {backup}\n"));
        }
        for hole in &self.recovery.holes {
            let (after, until, cause) = (hole.after, hole.until, hole.cause);
            text.push_str(&format!("! no moment between {after} and {until}: {cause}\n"));
        }
        for fork in &self.recovery.forks {
            text.push_str(&format!("! a failover lost transactions before {fork}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_one_line() {
        let now = Archiving {
            source: Some("db2".into()),
            segments: 3,
            transactions: 120,
            bytes: 4_500_000,
            waiting: 2,
            ..Archiving::default()
        };
        let expected = "from db2: 120 transaction(s) in 3 segment(s), 4.5 MB, 2 waiting";
        assert_eq!(line_of(&now), expected);
        let lost = Archiving { trouble: Some("db2 is gone".to_owned()), ..now };
        assert!(line_of(&lost).starts_with("! db2 is gone: 120"));
    }
}
