//! Carrying out steps: each brings about one state on one server and reads it back.

use super::fence;
use super::mysql::distance::Distance;
use super::withdrawal::Withdrawal;
use crate::clock::{Clock, Moment};
use crate::config::Credentials;
use crate::decision::plan::{Outcome, Progress, Step};
use crate::decision::topology::{ClusterName, Epoch, ServerSpec, Timing, WatcherName};
use std::path::PathBuf;
use tokio::sync::watch;

/// All that a step needs to reach its server.
#[derive(Clone, Debug)]
pub struct Access {
    /// The server as declared.
    pub server: ServerSpec,
    /// Its cluster.
    pub cluster: ClusterName,
    /// The accounts of its cluster.
    pub credentials: Credentials,
    /// How long things may take.
    pub timing: Timing,
    /// The clock the order's permit was read from.
    pub clock: Clock,
    /// Whether the sessions that proxies led to it before this epoch have ended on the clients' side.
    pub clients_cut: bool,
    /// How far away the server is.
    pub distance: Distance,
    /// For how much longer its watcher leads since the order was given.
    pub renewal: Renewal,
    /// Whether the order was withdrawn since.
    pub withdrawal: Withdrawal,
    /// The last step's connection, while it is fresh; clones share it.
    pub link: Link,
    /// Where files for people go.
    pub exports: Exports,
    /// Where client programs are.
    pub programs: Programs,
    /// Who is shown how far the step is.
    pub progress: Option<watch::Sender<Progress>>,
}

impl Access {
    /// Shows how far a long step is.
    pub(in crate::runtime) fn report(&self, text: String, done: u64, total: Option<u64>) {
        if let Some(progress) = &self.progress {
            progress.send_replace(Progress { text, done, total });
        }
    }
}

/// Until when a watcher surely leads, and in which term, as it finds that out.
#[derive(Debug)]
pub struct Leadership(watch::Sender<(u64, Moment)>);

impl Leadership {
    /// Nothing is known yet.
    pub fn unknown() -> Leadership {
        Leadership(watch::Sender::new((0, Moment::ZERO)))
    }

    /// A quorum confirmed that it leads.
    pub fn confirmed(&self, term: u64, until: Moment) {
        self.0.send_if_modified(|known| {
            let news = *known != (term, until);
            *known = (term, until);
            news
        });
    }

    /// Extends the permits of orders given now for as long as the same term lasts.
    pub fn renewal(&self) -> Renewal {
        Renewal(Some((self.0.borrow().0, self.0.subscribe())))
    }
}

/// What extends an order's permit: many round trips over a slow line take longer than a permit, and
/// nobody else can lead meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Renewal(Option<(u64, watch::Receiver<(u64, Moment)>)>);

impl Renewal {
    /// When the permit ends by now.
    pub fn extend(&self, permit: Moment) -> Moment {
        let Some((term, leadership)) = &self.0 else {
            return permit;
        };
        let (present, until) = *leadership.borrow();
        if present == *term { permit.max(until) } else { permit }
    }
}

/// Where a watcher writes down for people what a server alone held.
#[derive(Clone, Debug)]
pub struct Exports {
    /// The watcher.
    pub watcher: WatcherName,
    /// Its directory; each cluster has one of its own below it.
    pub directory: PathBuf,
}

/// Where to look for the database's client programs.
#[derive(Clone, Debug, Default)]
pub struct Programs(pub Vec<PathBuf>);

impl Programs {
    /// The places named by `REGENT_PROGRAMS`, then those of `PATH`.
    pub fn from_environment() -> Programs {
        let places = |name: &str| {
            let value = std::env::var_os(name).unwrap_or_default();
            std::env::split_paths(&value).collect::<Vec<_>>()
        };
        Programs([places("REGENT_PROGRAMS"), places("PATH")].concat())
    }

    /// The program's path; its bare name when it is nowhere.
    pub fn find(&self, name: &str) -> PathBuf {
        let found = self.0.iter().map(|place| place.join(name)).find(|path| path.is_file());
        found.unwrap_or_else(|| PathBuf::from(name))
    }
}

/// A connection kept from one step on a server to its next one.
#[derive(Clone, Debug, Default)]
pub struct Link(pub(in crate::runtime) super::mysql::steps::Kept);

/// What a step may take beside its limit, which is made for servers within a data center: connecting
/// twice is up to 14 round trips, what it does as many.
const ROUND_TRIPS: u32 = 30;

/// Brings about a step's state; ends within the step's limit, to which the line adds.
///
/// After `permit`, and what renews it, no changing statement is sent any more: somebody else may lead
/// by then.
pub async fn perform(step: &Step, epoch: Epoch, access: &Access, permit: Moment) -> Outcome {
    let limit = step.limit() + access.distance.trips(ROUND_TRIPS);
    let deadline = access.clock.now().moment + limit;
    let work = async {
        match (step, &access.server.fence) {
            (Step::Fenced { .. }, _) if access.clock.now().moment > permit => {
                Outcome::Retry("permit ran out".to_owned())
            }
            (Step::Fenced { .. }, Some(fence)) => fence::run(fence, &told(epoch, access)).await,
            (Step::Fenced { .. }, None) => {
                Outcome::Failed("no fence command is declared here".to_owned())
            }
            _ => super::mysql::steps::perform(step, access, permit, deadline).await,
        }
    };
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Retry(format!("not there after {} ms", limit.as_millis())),
    }
}

/// What a fence command reads from its environment.
fn told(epoch: Epoch, access: &Access) -> [(&'static str, String); 5] {
    let server = &access.server;
    [
        ("REGENT_CLUSTER", access.cluster.to_string()),
        ("REGENT_SERVER", server.name.to_string()),
        ("REGENT_ADDRESS", server.address.to_string()),
        ("REGENT_DATA_CENTER", server.data_center.to_string()),
        ("REGENT_EPOCH", epoch.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Leadership, Renewal};
    use crate::clock::Moment;

    #[test]
    fn permits_last_as_long_as_their_term() {
        let leadership = Leadership::unknown();
        leadership.confirmed(4, Moment(100));
        let renewal = leadership.renewal();
        assert_eq!(renewal.extend(Moment(150)), Moment(150));
        leadership.confirmed(4, Moment(300));
        assert_eq!(renewal.extend(Moment(150)), Moment(300));
        leadership.confirmed(5, Moment(900));
        assert_eq!(renewal.extend(Moment(150)), Moment(150));
        assert_eq!(Renewal::default().extend(Moment(150)), Moment(150));
    }
}
