//! `regent backup restore --to-time` and its like: a backup, and what follows it up to a moment.

use super::Failed;
use super::args::{BackupRestore, Global, RestoreMoment};
use super::backup::{Shown, amount, configured, destination, identities, json_of, open};
use super::output::Output;
use super::restoring::wish;
use super::resuming;
use crate::config::Config;
use crate::decision::backup::archive::recovery::{Plan, Until};
use crate::decision::backup::manifest::Kind;
use crate::decision::backup::names::BackupId;
use crate::runtime::backup::archive::replay::{Onto, Replay, Replayed};
use crate::runtime::backup::archive::{archived, way};
use crate::runtime::backup::{self, BackupError};
use serde_json::json;

/// The moment that is asked for, if one is.
pub(super) fn until(moment: &RestoreMoment) -> Result<Option<Until>, Failed> {
    let transaction = |text: &String, included: bool| {
        Until::transaction(text, included).map(Some).map_err(Failed::Usage)
    };
    match (&moment.to_time, &moment.to_gtid, &moment.before_gtid) {
        (Some(text), _, _) if text == "latest" => Ok(Some(Until::Latest)),
        (Some(text), _, _) => time(text).map(Some),
        (None, Some(text), _) => transaction(text, true),
        (None, None, Some(text)) => transaction(text, false),
        (None, None, None) => Ok(None),
    }
}

/// Reads `2026-11-22T19:15:00Z`, with an offset or a zone.
fn time(text: &str) -> Result<Until, Failed> {
    let stamp = text.parse::<jiff::Timestamp>();
    let stamp = stamp.or_else(|_| text.parse::<jiff::Zoned>().map(|zoned| zoned.timestamp()));
    let micros = stamp.ok().and_then(|stamp| u64::try_from(stamp.as_microsecond()).ok());
    micros.map(Until::Time).ok_or_else(|| {
        Failed::Usage(format!(
            "{text:?} is no moment; write 2026-11-22T19:15:00Z, 2026-11-22T20:15:00+01:00, \
             2026-11-22T20:15:00[Europe/Berlin], or latest"
        ))
    })
}

/// The backup that is named, if it is not to be looked for.
pub(super) fn named(backup: &str) -> Result<Option<BackupId>, Failed> {
    match backup {
        "latest" => Ok(None),
        id => BackupId::parse(id).map(Some).map_err(|error| Failed::Refused(error.to_string())),
    }
}

/// Restores the backup and carries out what follows it up to the moment.
pub(super) async fn recover(
    global: &Global,
    config: &Config,
    (restore, until): (&BackupRestore, Until),
    out: &mut Output,
) -> Result<(), Failed> {
    let identities = identities(restore.identity.as_deref())?;
    let (cluster, backups) = configured(config, &restore.named.cluster)?;
    let destination = destination(restore, backups)?
        .ok_or_else(|| Failed::Usage("name a server with --into".to_owned()))?;
    let target = open(backups, restore.named.target.as_deref())?;
    let meant = (restore.named.backup.as_str(), restore.moment.resume);
    let named = named(&resuming::meant(meant, Some(&destination)).await?)?;
    let name = &cluster.spec.name;
    let catalog = backup::catalog(&target, name).await?;
    let archive = archived(&target, name).await?;
    let wanted = (named.as_ref(), Kind::Logical, until);
    let plan = way(&target, (&archive, &catalog), wanted).await?;
    let manifest = backup::manifest(&target, name, plan.backup.as_str()).await?;
    let onto = Onto::Running(&destination);
    let replay = Replay { target: &target, plan: &plan, identities: &identities, onto };
    let into = destination.address.to_string();
    let mut refused = Vec::new();
    let noted = || backup::broken_off(&destination);
    if restore.moment.resume && noted().await?.is_none() {
        replay.fits().await?;
    } else {
        let wish = wish(global, restore, (cluster, config.timing)).await?;
        let shown = Shown::begin(global, "fetched");
        let (from, progress) = ((&target, &manifest), &shown.progress);
        let server = (&destination, &wish);
        let loaded = resuming::into_server(from, &identities, server, progress, None).await;
        shown.end().await;
        refused = loaded?.refused;
    }
    if restore.dry_run {
        return planned(global, &plan, &into, out);
    }
    let shown = Shown::begin(global, "fetched");
    let replayed = replay.run(&shown.progress).await;
    shown.end().await;
    let replayed = replayed.map_err(|error| stuck(&error, &plan))?;
    recovered(global, (&plan, &replayed), (&into, &refused), out)
}

/// What was restored stays, and what is missing can follow.
fn stuck(error: &BackupError, plan: &Plan) -> Failed {
    Failed::Refused(format!(
        "{error}; backup {} is there, and perhaps some of what follows; to go on with it: {}",
        plan.backup,
        resuming::command(&plan.backup.to_string())
    ))
}

pub(super) fn planned(
    global: &Global,
    plan: &Plan,
    into: &str,
    out: &mut Output,
) -> Result<(), Failed> {
    if global.json {
        return json_of(&described(plan, into, false), out);
    }
    let text = format!(
        "backup {} can be restored into {into}, and then {} carried out, up to {}\n{}",
        plan.backup,
        segments(plan),
        plan.until,
        forks(plan)
    );
    Ok(out.text(&text)?)
}

fn recovered(
    global: &Global,
    (plan, replayed): (&Plan, &Replayed),
    (into, refused): (&str, &[String]),
    out: &mut Output,
) -> Result<(), Failed> {
    if global.json {
        let mut said = described(plan, into, true);
        said["refused"] = json!(refused);
        said["transactions"] = json!(replayed.transactions);
        said["position"] = json!(replayed.position);
        return json_of(&said, out);
    }
    let mut text = format!(
        "{into} holds backup {} and {} transaction(s) from {}, up to {}; position {}\n{}",
        plan.backup,
        replayed.transactions,
        segments(plan),
        plan.until,
        replayed.position,
        forks(plan)
    );
    for statement in refused {
        text.push_str(&format!("! refused there, mend it by hand: {statement}\n"));
    }
    Ok(out.text(&text)?)
}

pub(super) fn described(plan: &Plan, into: &str, done: bool) -> serde_json::Value {
    let segments: Vec<String> = plan.segments.iter().map(|it| it.name.to_string()).collect();
    json!({
        "id": plan.backup,
        "into": into,
        "done": done,
        "until": plan.until.to_string(),
        "segments": segments,
        "left_out": plan.left_out,
        "ended_by": plan.ended_by,
    })
}

pub(super) fn segments(plan: &Plan) -> String {
    let bytes: u64 = plan.segments.iter().map(|segment| segment.plain_bytes).sum();
    match (plan.segments.first(), plan.segments.last()) {
        (Some(first), Some(last)) => format!(
            "{} segment(s), {} to {}, {}",
            plan.segments.len(),
            first.name.number,
            last.name.number,
            amount(bytes)
        ),
        _ => "no segment".to_owned(),
    }
}

pub(super) fn forks(plan: &Plan) -> String {
    let mut text = String::new();
    for lost in &plan.left_out {
        text.push_str(&format!(
            "! left out: {}, lost by a failover before {}\n",
            lost.gtids, lost.at
        ));
    }
    if let Some(ended_by) = &plan.ended_by {
        let at = ended_by.at;
        text.push_str(&format!(
            "! the failover before {at} lost these; the cluster went on without\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_a_zone() {
        let micros = |text: &str| match time(text) {
            Ok(Until::Time(micros)) => micros,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(micros("2026-11-22T19:15:00.25Z"), micros("2026-11-22T20:15:00.25+01:00"));
        assert!(matches!(time("2026-11-22T19:15:00"), Err(Failed::Usage(_))));
        assert!(matches!(time("yesterday"), Err(Failed::Usage(_))));
    }
}
