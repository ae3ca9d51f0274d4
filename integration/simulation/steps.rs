//! What a step does on a model server, statement by statement, as `runtime/mysql/steps` does it.

use crate::network::Node;
use crate::servers::Following;
use crate::setting;
use crate::world::{Event, MILLI, World};
use regent::decision::plan::{Facts, Outcome, Step};
use regent::decision::report::Writable;
use regent::watcher::{Input, StepOrder};

/// An attempt under way.
#[derive(Debug)]
pub struct Task {
    pub(crate) watcher: usize,
    life: u32,
    term: u64,
    pub(crate) order: StepOrder,
    pub(crate) server: usize,
    /// Since its turn came: the server's life then, and when the attempt has lasted too long.
    turn_came: Option<(u32, u64)>,
    /// Statements sent so far.
    pub(crate) turn: u32,
    /// Its answer will not arrive.
    answer_lost: bool,
    /// It lets commits end unacknowledged until the applier is done.
    let_go: bool,
}

/// So soon an attempt looks again whether the one before it on the same server has ended.
const QUEUED: u64 = 2 * MILLI;

const WITHDRAWN: &str = "withdrawn, as its procedure was given up";

/// Whether a step that waits for something gives up when it is withdrawn.
fn waits(step: &Step) -> bool {
    !matches!(step, Step::Rebuilt { .. } | Step::Exported { .. })
}

impl World {
    pub fn begin_step(&mut self, watcher: usize, life: u32, term: u64, order: StepOrder) {
        if self.watchers[watcher].life != life {
            return;
        }
        let server = setting::server_number(order.step.server());
        let (fails, lost) = match self.troubled() {
            true => (self.random.permille(30), self.random.permille(30)),
            false => (false, false),
        };
        let task = Task {
            watcher,
            life,
            term,
            order,
            server,
            turn_came: None,
            turn: 0,
            answer_lost: lost,
            let_go: false,
        };
        if fails {
            self.tally.count("fault", "step fails");
            return self.end_step(task, Outcome::Retry("injected".to_owned()));
        }
        if task.order.step.is_external() {
            let outcome = self.fence(&task);
            return self.end_step(task, outcome);
        }
        let id = self.id();
        self.tasks.insert(id, task);
        self.go_on(id);
    }

    /// Whether an earlier attempt of the same process is still at it on the same server: they take
    /// turns there, as `runtime/orders.rs` has them do, whatever procedure they belong to.
    fn queues(&self, id: u64, task: &Task) -> bool {
        self.tasks.range(..id).any(|(_, other)| {
            (other.watcher, other.life, other.server) == (task.watcher, task.life, task.server)
        })
    }

    fn is_withdrawn(&self, task: &Task) -> bool {
        self.watchers[task.watcher].withdrawn >= task.order.id.procedure
    }

    /// What the server's life is when an attempt's turn comes, and when its time will be over.
    fn turn_comes(&mut self, task: &mut Task) -> (u32, u64) {
        let deadline = self.when_passed(task.watcher, task.order.step.limit());
        *task.turn_came.get_or_insert((self.servers[task.server].life, deadline))
    }

    /// The next statement of an attempt.
    pub fn go_on(&mut self, id: u64) {
        let Some(mut task) = self.tasks.remove(&id) else {
            return;
        };
        if self.watchers[task.watcher].life != task.life {
            return;
        }
        if self.is_withdrawn(&task) && (task.turn_came.is_none() || waits(&task.order.step)) {
            return self.end_step(task, Outcome::Retry(WITHDRAWN.to_owned()));
        }
        if waits(&task.order.step) && self.gave_up(task.watcher, task.order.id.procedure) {
            let text = format!("{} goes on, though it was given up", task.order.step);
            return self.broken(text);
        }
        if self.queues(id, &task) {
            self.tasks.insert(id, task);
            return self.after(QUEUED, Event::StepGoesOn { task: id });
        }
        let (server_life, deadline) = self.turn_comes(&mut task);
        if self.now >= deadline {
            return self.end_step(task, Outcome::Retry("not there in time".to_owned()));
        }
        if self.connected(&task) {
            if !self.servers[task.server].up && task.turn == 0 {
                return self.end_step(task, Outcome::Retry("connection refused".to_owned()));
            }
            if self.servers[task.server].life != server_life {
                return self.end_step(task, Outcome::Retry("connection lost".to_owned()));
            }
            if self.servers[task.server].full {
                return self.end_step(task, Outcome::Retry("too many connections".to_owned()));
            }
            if self.servers[task.server].answers(self.now) && !self.servers[task.server].stalled {
                let outcome = self.turn(&mut task);
                task.turn += 1;
                if let Some(outcome) = outcome {
                    return self.end_step(task, outcome);
                }
            }
        }
        let wait = self.random.range(5 * MILLI, 25 * MILLI).min(deadline - self.now);
        self.tasks.insert(id, task);
        self.after(wait.max(1), Event::StepGoesOn { task: id });
    }

    fn connected(&self, task: &Task) -> bool {
        self.network.connects(Node::Watcher(task.watcher), Node::Server(task.server))
    }

    fn end_step(&mut self, task: Task, outcome: Outcome) {
        self.hold_again(&task);
        let Task { watcher, life, order, server, .. } = task;
        let outcome = if task.answer_lost && matches!(outcome, Outcome::Done(_)) {
            self.tally.count("fault", "answer lost");
            Outcome::Retry("answer lost".to_owned())
        } else {
            outcome
        };
        let outcome = crate::flaws::bend(self.setting.flaw, &order.step, outcome);
        let word = match &outcome {
            Outcome::Done(_) => "step done",
            Outcome::Retry(_) => "step to retry",
            Outcome::Failed(_) => "step failed",
        };
        self.tally.count(word, order.step.kind());
        self.say(|| {
            let text = match &outcome {
                Outcome::Done(facts) => match &facts.received {
                    Some(received) => format!("holds {received:?}"),
                    None => String::new(),
                },
                Outcome::Retry(text) | Outcome::Failed(text) => text.clone(),
            };
            format!("{word} on db{}: {}: {text}", server + 1, order.step)
        });
        let way =
            self.network.delay(&mut self.random, Node::Server(server), Node::Watcher(watcher));
        let input = Input::StepDone { order: order.id, outcome };
        self.after(way, Event::Input { watcher, life, input });
    }

    /// One round trip; an outcome when the attempt is over.
    fn turn(&mut self, task: &mut Task) -> Option<Outcome> {
        let step = task.order.step.clone();
        match step {
            Step::ReadOnly { .. } => match self.close_server(task) {
                Ok(()) => Some(self.done(task)),
                Err(outcome) => Some(outcome),
            },
            Step::ReceiverStopped { .. } => {
                if self.servers[task.server].following.as_ref().is_some_and(|one| one.receiver) {
                    if let Err(outcome) = self.permitted(task) {
                        return Some(outcome);
                    }
                    if let Some(one) = &mut self.servers[task.server].following {
                        one.stop_receiver();
                    }
                }
                Some(self.done(task))
            }
            Step::CaughtUp { to, .. } => {
                let executed = self.servers[task.server].executed.gtids();
                if executed.contains(&to) {
                    return Some(self.done(task));
                }
                let server = &self.servers[task.server];
                let idle = server.following.as_ref().is_none_or(|one| !one.receiver);
                if idle && !server.received().gtids().contains(&to) {
                    let text = "it never received all it must hold".to_owned();
                    return Some(Outcome::Failed(text));
                }
                self.drain(task).err()
            }
            Step::CommitsWait { acks, .. } => self.commits_wait(task, acks),
            Step::Acknowledges { on, .. } => self.acknowledges(task, on),
            Step::Writable { acks, .. } => self.writable(task, acks),
            Step::Fenced { .. } => Some(self.fence(task)),
            Step::Following { source, .. } => self.follow(task, setting::server_number(&source)),
            Step::Detached { .. } => Some(self.detach(task)),
            Step::Exported { source, known, .. } => {
                self.export(task, setting::server_number(&source), known)
            }
            Step::Rebuilt { donor, since, .. } => {
                self.rebuild(task, setting::server_number(&donor), since)
            }
        }
    }

    /// A command switches the server off; some time later somebody switches it on again.
    fn fence(&mut self, task: &Task) -> Outcome {
        if let Err(outcome) = self.permitted(task) {
            return outcome;
        }
        self.fail_server(task.server);
        Outcome::Done(Facts::default())
    }

    fn done(&self, task: &Task) -> Outcome {
        Outcome::Done(self.servers[task.server].facts())
    }

    /// Asked before each changing statement.
    pub(crate) fn permitted(&mut self, task: &Task) -> Result<(), Outcome> {
        if self.reading(task.watcher) > task.order.permit {
            return Err(Outcome::Retry("permit ran out".to_owned()));
        }
        if self.is_withdrawn(task) {
            return Err(Outcome::Retry(WITHDRAWN.to_owned()));
        }
        self.statement(task.term, task.watcher, task.order.id.procedure);
        Ok(())
    }

    fn close_server(&mut self, task: &Task) -> Result<(), Outcome> {
        let server = &self.servers[task.server];
        if server.writable != Writable::Closed {
            self.permitted(task)?;
            let server = &mut self.servers[task.server];
            server.end_sessions();
            server.writable = Writable::Closed;
            server.closed_at_restart = true;
            self.sessions_end(task.server);
        }
        Ok(())
    }

    /// A closed server's applier would wait for acknowledgements too, and nobody gives them.
    fn let_go(&mut self, task: &mut Task) -> Result<(), Outcome> {
        let server = &self.servers[task.server];
        if server.source_on && server.writable == Writable::Closed {
            self.permitted(task)?;
            self.servers[task.server].source_on = false;
            task.let_go = true;
            self.complete_commits(task.server);
        }
        Ok(())
    }

    /// Undoes that, unless the server restarted, or nobody is connected to it any more.
    fn hold_again(&mut self, task: &Task) {
        let same_life = |(life, _): (u32, u64)| life == self.servers[task.server].life;
        if task.let_go && task.turn_came.is_some_and(same_life) && self.connected(task) {
            self.servers[task.server].source_on = true;
        }
    }

    /// Lets the server apply all that it has received.
    fn drain(&mut self, task: &mut Task) -> Result<(), Outcome> {
        self.let_go(task)?;
        self.start_applier(task)
    }

    fn start_applier(&mut self, task: &Task) -> Result<(), Outcome> {
        let Some(one) = &self.servers[task.server].following else {
            return Ok(());
        };
        if let Some(code) = one.error {
            return Err(Outcome::Failed(format!("its applier stopped, error {code}")));
        }
        if !one.applier {
            self.permitted(task)?;
            if let Some(one) = &mut self.servers[task.server].following {
                one.applier = true;
            }
        }
        Ok(())
    }

    fn commits_wait(&mut self, task: &mut Task, acks: u32) -> Option<Outcome> {
        let server = &self.servers[task.server];
        if acks > 0 && !server.executed.contains(&server.received()) {
            return self.drain(task).err();
        }
        if let Err(outcome) = self.permitted(task) {
            return Some(outcome);
        }
        let server = &mut self.servers[task.server];
        server.source_on = acks > 0;
        server.closed_at_restart |= acks > 0;
        server.acks = acks.max(1);
        task.let_go = false;
        self.complete_commits(task.server);
        Some(self.done(task))
    }

    fn acknowledges(&mut self, task: &mut Task, on: bool) -> Option<Outcome> {
        let server = &self.servers[task.server];
        let following = server.following.as_ref();
        let effective = following.is_none_or(|one| !one.connected || one.semi == on);
        if task.turn == 0 && (server.replica_on != on || !effective) {
            if let Err(outcome) = self.permitted(task) {
                return Some(outcome);
            }
            let now = self.now;
            let server = &mut self.servers[task.server];
            server.replica_on = on;
            if let Some(one) = server.following.as_mut().filter(|one| one.receiver) {
                one.connected = false;
                one.retry_at = now;
            }
        }
        let server = &self.servers[task.server];
        let back = server.following.as_ref().is_none_or(|one| !one.receiver || one.connected);
        (back || task.turn > 40).then(|| {
            let mut acknowledged = server.received();
            acknowledged.forget(server.number);
            let received = Some(acknowledged.gtids());
            Outcome::Done(Facts { executed: Some(server.executed.gtids()), received, fork: None })
        })
    }

    fn writable(&mut self, task: &mut Task, acks: u32) -> Option<Outcome> {
        let server = &mut self.servers[task.server];
        if server.writable == Writable::Open && server.following.is_none() {
            server.wait_for(acks);
            self.server_opened(task.server, task.order.epoch);
            return Some(self.done(task));
        }
        if let Err(outcome) = self.permitted(task) {
            return Some(outcome);
        }
        if let Some(one) = &mut self.servers[task.server].following {
            one.stop_receiver();
        }
        let server = &self.servers[task.server];
        if server.writable != Writable::Open && !server.executed.contains(&server.received()) {
            return self.drain(task).err();
        }
        // The statements that end following and those that open are apart.
        if task.turn < 2 {
            return None;
        }
        let server = &mut self.servers[task.server];
        server.following = None;
        server.relay.clear();
        server.closed_at_restart = true;
        server.source_on |= std::mem::take(&mut task.let_go);
        server.wait_for(acks);
        server.writable = Writable::Open;
        self.server_opened(task.server, task.order.epoch);
        Some(self.done(task))
    }

    fn follow(&mut self, task: &mut Task, source: usize) -> Option<Outcome> {
        if let Err(outcome) = self.close_server(task) {
            return Some(outcome);
        }
        if self.servers[task.server].source_on {
            if let Err(outcome) = self.permitted(task) {
                return Some(outcome);
            }
            self.servers[task.server].source_on = false;
            self.complete_commits(task.server);
        }
        let now = self.now;
        let server = &self.servers[task.server];
        let same = server.following.as_ref().is_some_and(|one| one.source == source);
        if same {
            let one = server.following.as_ref()?;
            if one.connected && one.applier {
                return Some(self.done(task));
            }
            if let Some(code) = one.error {
                return Some(Outcome::Failed(format!("its applier stopped, error {code}")));
            }
            if !one.receiver || !one.applier {
                if let Err(outcome) = self.permitted(task) {
                    return Some(outcome);
                }
                if let Some(one) = &mut self.servers[task.server].following {
                    one.start(now);
                }
            }
            let patience = task.turn > 150;
            return patience.then(|| Outcome::Retry("not connected to its source".to_owned()));
        }
        if let Err(outcome) = self.permitted(task) {
            return Some(outcome);
        }
        if let Some(one) = &mut self.servers[task.server].following {
            one.stop_receiver();
        }
        let server = &self.servers[task.server];
        if !server.executed.contains(&server.received()) {
            return self.start_applier(task).err();
        }
        let server = &mut self.servers[task.server];
        server.relay.clear();
        server.following = Some(Following::begin(source));
        None
    }
}
