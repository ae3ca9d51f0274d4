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
    let path = format!("/v1/clusters/{}/procedures/{id}", encoded(cluster));
    let mut printed = Printed::default();
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
        if !json {
            let news = printed.news(&read.view, out.width);
            out.text(&news)?;
        }
        if read.view.state != "running" {
            if json {
                out.raw(&read.json)?;
            }
            return ending(cluster, &read.view);
        }
        tokio::time::sleep(LOOK).await;
    }
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
fn passing(error: &CallError) -> bool {
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
