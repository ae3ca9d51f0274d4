//! Following a procedure until it closes.

use super::Failed;
use super::output::{Output, wrapped};
use super::reach::encoded;
use crate::api::client::{CallError, Client, Read};
use crate::api::types::{ProcedureView, ProgressView, StepView};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// So many looks may fail one after the other, as while another watcher takes over the lead.
const MOST_FAILED_LOOKS: u32 = 300;

/// Prints each stage and step as it ends, and how the procedure ended.
pub async fn follow(
    client: &Client,
    cluster: &str,
    id: u64,
    json: bool,
    out: &mut Output,
) -> Result<(), Failed> {
    let (mut printed, width) = (Printed::default(), out.width);
    let show = |view: &ProcedureView| match json {
        true => Ok(()),
        false => Ok(out.text(&printed.news(view, width))?),
    };
    let read = until_closed(client, cluster, id, show).await?;
    if json {
        out.raw(&read.json)?;
    }
    ending(cluster, &read.view)
}

/// Waits until a procedure is closed; `seen` is given each look at it. How it closed is up to the caller.
async fn until_closed(
    client: &Client,
    cluster: &str,
    id: u64,
    mut seen: impl FnMut(&ProcedureView) -> Result<(), Failed>,
) -> Result<Read<ProcedureView>, Failed> {
    let path = format!("/v1/clusters/{}/procedures/{id}", encoded(cluster));
    let mut failed_looks = 0;
    loop {
        let read: Read<ProcedureView> = match client.get(&path, Duration::ZERO).await {
            Ok(read) => read,
            Err(error) if passing(&error) && failed_looks < MOST_FAILED_LOOKS => {
                failed_looks += 1;
                tokio::time::sleep(LOOK).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        failed_looks = 0;
        seen(&read.view)?;
        if read.view.state != "running" {
            return Ok(read);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until a procedure is closed and shows nothing of it: its closing words, if it is done.
pub async fn closed(client: &Client, cluster: &str, id: u64) -> Result<String, Failed> {
    let read = until_closed(client, cluster, id, |_| Ok(())).await?;
    ending(cluster, &read.view).map(|()| read.view.text)
}

/// What has been shown of a procedure.
#[derive(Debug, Default)]
struct Printed {
    head: bool,
    stages: usize,
    steps: BTreeSet<(usize, usize)>,
    /// What was last told of each long step.
    progress: BTreeMap<(usize, usize), (String, u64)>,
    end: bool,
}

impl Printed {
    /// What is to be shown now and was not shown before.
    fn news(&mut self, view: &ProcedureView, width: u16) -> String {
        let mut text = String::new();
        if !self.head {
            self.head = true;
            let line = format!("{} {}: {}", view.kind, view.id, view.cause);
            text.push_str(&format!("{}\n", wrapped(&line, 2, width)));
        }
        for (at, stage) in view.stages.iter().enumerate() {
            if at >= self.stages && stage.state != "waiting" {
                self.stages = at + 1;
                text.push_str(&format!("  {}\n", stage.name));
            }
            for (place, step) in stage.steps.iter().enumerate() {
                let ended = !matches!(step.state.as_str(), "waiting" | "running");
                if let Some(progress) = &step.progress {
                    text.push_str(&self.progress((at, place), progress));
                }
                if ended && self.steps.insert((at, place)) {
                    text.push_str(&format!("    {}\n", wrapped(&line_of(step), 6, width)));
                }
            }
        }
        if view.state != "running" && !self.end {
            self.end = true;
            text.push_str(&format!(
                "{}\n",
                wrapped(&format!("{}: {}", view.state, view.text), 2, width)
            ));
            let took = view.closed.map(|closed| closed.0.saturating_sub(view.opened.0));
            if let Some(took) = took {
                text.push_str(&format!("took {took} ms\n"));
            }
        }
        text
    }
}

impl Printed {
    /// A line whenever a long step does something else, or is another tenth further.
    fn progress(&mut self, place: (usize, usize), progress: &ProgressView) -> String {
        let tenth = progress.percent.unwrap_or_default() / 10;
        let news = (progress.text.clone(), tenth);
        if self.progress.insert(place, news.clone()).as_ref() == Some(&news) {
            return String::new();
        }
        let megabytes = |bytes: u64| bytes / 1_000_000;
        let of = progress.total.map_or(String::new(), |total| format!(" of {}", megabytes(total)));
        let percent = progress.percent.map_or(String::new(), |it| format!(", {it} %"));
        format!("      {}: {}{of} MB{percent}\n", progress.text, megabytes(progress.bytes))
    }
}

fn line_of(step: &StepView) -> String {
    let mut line = format!("{}: {}", step.state, step.text);
    if let Some(took) = step.took_ms {
        line.push_str(&format!(" ({took} ms)"));
    }
    if step.attempts > 1 {
        line.push_str(&format!(", {} attempts", step.attempts));
    }
    if !step.answer.is_empty() {
        line.push_str(&format!(" - {}", step.answer));
    }
    line
}

/// Whether asking again may help.
pub(super) fn passing(error: &CallError) -> bool {
    match error {
        CallError::Unreachable { .. } | CallError::Silent { .. } => true,
        CallError::Refused(body) => {
            matches!(body.code.as_str(), "no_leader" | "busy" | "timed_out")
        }
        CallError::BadInput(_) | CallError::Strange { .. } => false,
    }
}

fn ending(cluster: &str, view: &ProcedureView) -> Result<(), Failed> {
    match view.state.as_str() {
        "done" => Ok(()),
        state => Err(Failed::Refused(format!(
            "the {} of {cluster} is {state}: {}; see regent status {cluster}, regent events \
             --cluster {cluster}",
            view.kind, view.text
        ))),
    }
}
