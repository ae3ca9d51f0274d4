//! Situations sketched in YAML by people, to try a rule before they trust it.
//!
//! A sketch says only what matters; the rest is filled in as it would be in a healthy cluster.
//! What comes out is an ordinary [`Situation`], and the very code that decides explains it.
//! The form is described in `docs/situations.md`.

mod fill;
mod form;

use super::adoption;
use super::diagnosis::Finding;
use super::explain::{explain, explain_procedure, outline};
use super::procedure::Kind;
use super::response::{Past, procedure};
use super::situation::Situation;
use super::topology::ServerName;
use super::view::ExplanationView;
use super::{objection, planning};
use form::{AskedForm, AskedKind, PastForm, Sketch};
use std::time::Duration;

/// No sketch of a cluster comes near it.
const MOST_BYTES: usize = 256 * 1024;

/// More procedures than any budget allows within an hour.
const MOST_PAST: u32 = 1_000;

/// Why a sketch cannot be explained, with `line:column` in front where that is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SketchError(String);

/// What a sketch describes.
#[derive(Debug)]
pub struct Sketched {
    /// The situation.
    pub situation: Situation,
    /// For how long every finding has been there.
    pub lasting: Duration,
    /// Procedures that ended.
    pub past: Vec<Past>,
    asked: Option<AskedForm>,
}

/// Explains a situation sketched in YAML.
pub fn explain_text(yaml: &str) -> Result<ExplanationView, SketchError> {
    Ok(read(yaml)?.explain())
}

/// Reads a sketch and fills in what it leaves out.
pub fn read(yaml: &str) -> Result<Sketched, SketchError> {
    if yaml.len() > MOST_BYTES {
        return Err(SketchError("it is larger than 256 KiB; sketch one cluster".to_owned()));
    }
    let sketch: Sketch = serde_yaml::from_str(yaml).map_err(|error| parser_words(&error))?;
    let mut situation = fill::situation(yaml, &sketch)?;
    if let Some(server) = &sketch.without {
        situation = situation.without(&ServerName::from(server.as_str()));
    }
    let lasting = sketch.lasting.map_or(Duration::from_secs(10), |span| span.0);
    let past = sketch.past.iter().flat_map(past_of).collect();
    Ok(Sketched { situation, lasting, past, asked: sketch.asked })
}

impl Sketched {
    /// What would happen.
    pub fn explain(&self) -> ExplanationView {
        let lasting = |_: &Finding| self.lasting;
        match &self.asked {
            None => explain(&self.situation, &lasting, &self.past),
            Some(asked) => answer(&self.situation, asked),
        }
    }
}

/// What an operator's order would do, or why it is refused.
fn answer(situation: &Situation, asked: &AskedForm) -> ExplanationView {
    let to = asked.to.as_deref().map(ServerName::from);
    let refused = |why: String| {
        let mut view = outline(situation);
        view.response = "refused".to_owned();
        view.reasons.push(why);
        view
    };
    let Some(from) = situation.primary().map(|server| server.name.clone()) else {
        return match (asked.procedure, to) {
            (AskedKind::Adopt, Some(to)) => match adoption::objection(situation, &to) {
                Some(why) => refused(why),
                None => {
                    let mut view = outline(situation);
                    view.response = "adopt".to_owned();
                    view.reasons.push(format!("an operator says that {to} is the primary"));
                    view
                }
            },
            _ => refused("the cluster is not adopted yet".to_owned()),
        };
    };
    let (kind, why, plan) = match asked.procedure {
        AskedKind::Adopt => {
            return refused(format!("it is adopted already, with primary {from}"));
        }
        AskedKind::Switchover => {
            let why = objection::switchover_objection(situation, to.as_ref());
            (Kind::Switchover, why, planning::pause(&from))
        }
        AskedKind::Failover => {
            let why = planning::hopeless(situation, asked.accept_loss);
            (Kind::Failover, why, planning::isolate(situation, &from, asked.accept_loss))
        }
    };
    if let Some(why) = why {
        return refused(why);
    }
    let mut order = procedure(kind, format!("an operator asks for a {kind}"), from, plan);
    order.to = to;
    order.accept_loss = asked.accept_loss;
    explain_procedure(situation, &order)
}

fn past_of(form: &PastForm) -> Vec<Past> {
    let past = Past { finding: form.finding.to_string(), ago: form.ago.0 };
    let times = form.times.unwrap_or(1).min(MOST_PAST);
    std::iter::repeat_n(past, usize::try_from(times).unwrap_or(1)).collect()
}

/// The parser's words with the place in front.
fn parser_words(error: &serde_yaml::Error) -> SketchError {
    let text = error.to_string();
    let Some(at) = error.location() else {
        return SketchError(text);
    };
    let place = format!(" at line {} column {}", at.line(), at.column());
    let text = text.replace(&place, "");
    SketchError(format!("{}:{}: {text}", at.line(), at.column()))
}
