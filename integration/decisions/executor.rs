//! A tiny executor: applies procedures to the replicated state and plays the servers.

use regent::clock::WallTime;
use regent::decision::cluster::{ClusterState, Command, FORMAT, Proposal, State, Unknown, Writer};
use regent::decision::diagnosis::diagnose;
use regent::decision::plan::{Facts, Outcome, Step};
use regent::decision::planning;
use regent::decision::procedure::{Ending, Guard, Next, Procedure, Standing};
use regent::decision::rejoin;
use regent::decision::response::{Act, respond};
use regent::decision::situation::Situation;
use regent::decision::sketch;
use regent::decision::topology::{ClusterName, ServerName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One cluster with its replicated state and the roles that steps gave to its servers.
#[derive(Clone)]
pub struct World {
    pub state: State,
    pub situation: Situation,
    pub roles: BTreeMap<ServerName, String>,
    pub journal: Vec<Command>,
    /// Steps of these kinds fail for good.
    pub failing: BTreeSet<&'static str>,
    /// Every step is performed twice.
    pub twice: bool,
}

impl World {
    pub fn new(sketch: &str) -> World {
        let situation = sketch::read(sketch).unwrap().situation;
        let cluster = situation.spec.name.clone();
        let clusters = BTreeMap::from([(cluster, situation.state.clone())]);
        World {
            state: State { clusters, ..State::default() },
            situation,
            roles: BTreeMap::new(),
            journal: Vec::new(),
            failing: BTreeSet::new(),
            twice: false,
        }
    }

    pub fn cluster(&self) -> ClusterName {
        self.situation.spec.name.clone()
    }

    pub fn now(&self) -> &ClusterState {
        &self.state.clusters[&self.situation.spec.name]
    }

    pub fn open(&self) -> Option<&Procedure> {
        self.now().procedure.as_ref()
    }

    pub fn primary(&self) -> Option<&ServerName> {
        self.now().writer.primary()
    }

    /// Applies one command and says whether it had an effect.
    pub fn apply(&mut self, command: Command) -> bool {
        let before = self.state.clone();
        let proposal = Proposal {
            format: FORMAT,
            at: WallTime(1),
            commands: vec![command.clone()],
            unknown: Unknown::new(),
        };
        self.state.apply(&proposal);
        self.journal.push(command);
        self.situation.state = self.now().clone();
        self.state != before
    }

    /// Opens what the findings call for.
    pub fn respond(&mut self) {
        let findings = diagnose(&self.situation);
        let long = |_: &_| Duration::from_secs(60);
        let response = respond(&self.situation, &findings, &long, &[]);
        let Act::Open(procedure) = response.act else { panic!("{:?}", response.reasons) };
        self.begin(*procedure);
    }

    pub fn begin(&mut self, procedure: Procedure) {
        let seen = self.now().epoch;
        let command =
            Command::Open { cluster: self.cluster(), seen, procedure: Box::new(procedure) };
        assert!(self.apply(command));
    }

    /// Lets a leader of that term go on until the procedure ends, or so many commands are made.
    pub fn run(&mut self, term: u64, most: usize) {
        let end = self.journal.len() + most;
        let standing = Standing {
            term,
            guards: BTreeSet::from([Guard::FormerPrimaryFenced]),
            graced: (0..10).collect(),
            pausing: BTreeSet::new(),
        };
        for _ in 0..1_000 {
            let Some(open) = self.open().cloned() else { return };
            for command in self.next(&open, &standing) {
                if self.journal.len() >= end {
                    return;
                }
                self.apply(command.clone());
                if let Command::Begin { procedure, stage, step, attempt, .. } = command {
                    let outcome = self.perform(&open.plan[stage].steps[step].step);
                    if self.journal.len() >= end {
                        return; // The leader dies before it can journal the result.
                    }
                    let cluster = self.cluster();
                    let finish =
                        Command::Finish { cluster, procedure, stage, step, attempt, outcome };
                    self.apply(finish);
                }
            }
        }
        panic!("it never ends: {:?}", self.open());
    }

    fn next(&self, open: &Procedure, standing: &Standing) -> Vec<Command> {
        let cluster = self.cluster();
        let close =
            |ending| vec![Command::Close { cluster: cluster.clone(), procedure: open.id, ending }];
        match open.next(standing) {
            Next::Perform(attempts) => {
                let begin = |(stage, step, attempt)| Command::Begin {
                    cluster: cluster.clone(),
                    procedure: open.id,
                    stage,
                    step,
                    attempt,
                    term: standing.term,
                };
                attempts.into_iter().map(begin).collect()
            }
            Next::Wait(why) => panic!("it waits for {why:?}"),
            Next::Decide => match planning::decide(&self.situation, open).outcome(&cluster, open) {
                Ok(extend) => vec![extend],
                Err(ending) => close(ending),
            },
            Next::Failed { stage } => {
                let text = open.failures(stage).join("; ");
                close(if open.past_return() {
                    Ending::Stuck { text }
                } else {
                    Ending::Abandoned { text }
                })
            }
            Next::Finished => close(Ending::Done { text: String::new() }),
        }
    }

    /// Brings a step's state about; again when everything is to be done twice.
    fn perform(&mut self, step: &Step) -> Outcome {
        let server = step.server().clone();
        let alive = self.situation.status(&server).cloned();
        let Some(status) = alive.filter(|_| !self.failing.contains(step.kind())) else {
            return Outcome::Failed("it does not answer".to_owned());
        };
        for _ in 0..=usize::from(self.twice) {
            let role = match step {
                Step::Writable { .. } => "takes writes".to_owned(),
                Step::ReadOnly { .. } => "takes no writes".to_owned(),
                Step::Fenced { .. } => "is out of service".to_owned(),
                Step::Following { source, .. } => format!("follows {source}"),
                Step::ReceiverStopped { .. }
                | Step::CaughtUp { .. }
                | Step::CommitsWait { .. }
                | Step::Acknowledges { .. }
                | Step::Detached { .. }
                | Step::Exported { .. }
                | Step::Rebuilt { .. } => continue,
            };
            self.roles.insert(server.clone(), role);
        }
        let received = Some(status.received());
        let facts = rejoin::foreseen(&self.situation, step);
        Outcome::Done(Facts { executed: Some(status.executed), received, ..facts })
    }
}

/// Whether a cluster has no primary right now.
pub fn is_closed(state: &ClusterState) -> bool {
    matches!(state.writer, Writer::Closed { .. })
}
