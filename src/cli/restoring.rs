//! What `regent backup restore` may do to a server, and whether its watchers let it.

use super::Failed;
use super::args::{BackupRestore, Global};
use super::reach::{client, encoded};
use crate::api::client::{CallError, Read};
use crate::config::ClusterConfig;
use crate::decision::topology::{ServerSpec, Timing};
use crate::runtime::backup::{Membership, Wish};
use serde_json::Value;
use std::io::{self, Write};
use std::time::Duration;

/// What the flags allow, once it is sure which server they are about.
pub(super) async fn wish<'a>(
    global: &Global,
    restore: &BackupRestore,
    (cluster, timing): (&'a ClusterConfig, Timing),
) -> Result<Wish<'a>, Failed> {
    let Some(into) = &restore.into else { return Ok(Wish::default()) };
    let declared = cluster.spec.servers.iter().find(|server| &server.address.to_string() == into);
    let membership = Membership { cluster, timing };
    if let Some(typed) = &restore.overwrite {
        let name = declared.map(|server| server.name.as_str());
        if typed != into && Some(typed.as_str()) != name {
            let right = name.unwrap_or(into);
            let text = format!(
                "--overwrite names {typed:?}, but --into is {right}; type --overwrite {right} to throw \
                 away all that {right} holds"
            );
            return Err(Failed::Usage(text));
        }
    }
    if let Some(server) = declared.filter(|_| !restore.dry_run) {
        left_alone(global, (cluster, server)).await?;
    }
    Ok(Wish {
        follow: restore.follow.then_some(membership),
        overwrite: restore.overwrite.as_ref().map(|_| membership),
        resume: restore.moment.resume,
        dry_run: restore.dry_run,
    })
}

/// Watchers repair a server of theirs, and would do so in the middle of a restore. Where none answers
/// nobody does.
async fn left_alone(
    global: &Global,
    (cluster, server): (&ClusterConfig, &ServerSpec),
) -> Result<(), Failed> {
    let (cluster, name) = (cluster.spec.name.as_str(), server.name.as_str());
    let path = format!("/v1/clusters/{}", encoded(cluster));
    let asked: Result<Read<Value>, CallError> = client(global)?.get(&path, Duration::ZERO).await;
    let read = match asked {
        Ok(read) => read,
        Err(CallError::Unreachable { .. }) => {
            // Nothing can be done when even standard error is closed.
            let _ = writeln!(io::stderr(), "no watcher answers, so none disturbs this restore");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let notices = read.view["maintenance"].as_array().cloned().unwrap_or_default();
    let covers = |notice: &Value| notice["server"].is_null() || notice["server"] == name;
    if notices.iter().any(covers) {
        return Ok(());
    }
    Err(Failed::Refused(format!(
        "the watchers look after {name}, and would repair it in the middle of this; first run regent \
         maintenance {cluster} {name} --for 4h --reason restore"
    )))
}
