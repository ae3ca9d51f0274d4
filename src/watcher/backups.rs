//! The leader's care for scheduled backups: it begins runs, has them made, and gives them up.
//!
//! Nothing here hinders a failover: a run waits while one may be near, and makes way when it comes.

use super::leading::Leading;
use super::machine::{Setup, Watcher};
use super::making::{BackupEnd, BackupMessage, BackupWord};
use super::requests::REACHABLE;
use crate::clock::{Moment, Now};
use crate::decision::backup::choice::{choose, must_yield};
use crate::decision::backup::declared::Declared;
use crate::decision::backup::duty::{Duty, Watch, forgotten, outlook};
use crate::decision::backup::maker::{self, Watchers};
use crate::decision::backup::reached::Reached;
use crate::decision::backup::runs::{Attempt, Change, Run, Runs};
use crate::decision::backup::schedule::{Owner, Slot};
use crate::decision::backup::shown::{self, Known, ScheduleView};
use crate::decision::cluster::{Command, State};
use crate::decision::situation::Situation;
use crate::decision::topology::{ClusterName, ScheduleName, WatcherName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often a cluster is looked at while a run goes on or waits.
const PACE: Duration = Duration::from_secs(1);

/// The same while nothing is due; the wall clock may jump meanwhile.
const CALM: Duration = Duration::from_secs(10);

/// How often the account says how many bytes are stored: a later leader begins with that.
const NOTED: Duration = Duration::from_secs(60);

/// The backups of one cluster.
#[derive(Debug)]
pub(super) struct Backups {
    next: Moment,
    /// The last entry proposed about them; nothing is judged before that is applied.
    proposed: u64,
    /// Whether a run went on when they were looked at last.
    open: bool,
    watch: Watch,
    /// How far open runs are, and when the account was told.
    reached: BTreeMap<ScheduleName, (Attempt, Reached)>,
    noted: Moment,
    /// Attempts that ended, until the account says so.
    ended: BTreeMap<ScheduleName, (Attempt, BackupEnd)>,
    /// Why due runs do not begin.
    waiting: BTreeMap<ScheduleName, String>,
    /// The slots that last waited, and why.
    held_up: BTreeMap<ScheduleName, (Slot, String)>,
}

/// What one look at a cluster's backups goes by.
struct Sight<'a> {
    cluster: &'a ClusterName,
    declared: &'a [Declared],
    runs: &'a Runs,
    watchers: Watchers<'a>,
    situation: &'a Situation,
}

impl Backups {
    /// Those of all clusters that have schedules, or had some.
    pub(super) fn of_all(
        now: Moment,
        setup: &Setup,
        state: &State,
    ) -> BTreeMap<ClusterName, Backups> {
        let accounts = state.clusters.iter().filter(|(_, state)| !state.backups.is_empty());
        let known = accounts.map(|(name, _)| name).chain(setup.backups.keys());
        let declared = known.filter(|name| setup.clusters.contains_key(*name));
        let fresh = |name: &ClusterName| {
            let backups = Backups {
                next: now,
                proposed: 0,
                open: false,
                watch: Watch::default(),
                reached: BTreeMap::new(),
                noted: now,
                ended: BTreeMap::new(),
                waiting: BTreeMap::new(),
                held_up: BTreeMap::new(),
            };
            (name.clone(), backups)
        };
        declared.map(fresh).collect()
    }

    pub(super) fn next(&self) -> Moment {
        self.next
    }

    /// An entry about the cluster was applied: what goes on may have to make way.
    pub(super) fn applied(&mut self, now: Moment, index: u64, command: &Command) {
        let concerned = self.open || matches!(command, Command::Backup { .. });
        if concerned && index >= self.proposed {
            self.next = self.next.min(now);
        }
    }

    /// Whether an attempt may go on, of which its watcher says something.
    fn hear(&mut self, now: Moment, runs: &Runs, from: &WatcherName, said: &BackupMessage) -> bool {
        let name = &said.attempt.schedule;
        let run = runs.schedules.get(name).and_then(|account| account.open.as_ref());
        let newest = run.and_then(|run| run.running(name));
        if !newest.is_some_and(|(newest, by, _)| newest == said.attempt && by == from) {
            return false;
        }
        self.watch.heard(now, &said.attempt);
        match &said.word {
            BackupWord::Ready => true,
            BackupWord::Stored(bytes) => {
                let bare = || Reached { stored: *bytes, ..Reached::default() };
                let reached = said.reached.clone().unwrap_or_else(bare);
                self.reached.insert(name.clone(), (said.attempt.clone(), reached));
                true
            }
            BackupWord::Ended(end) => {
                self.ended.insert(name.clone(), (said.attempt.clone(), end.clone()));
                self.next = self.next.min(now);
                false
            }
            BackupWord::GoOn => false,
        }
    }

    /// Looks at all schedules and says what to record.
    fn judge(&mut self, now: Now, sight: &Sight<'_>) -> Vec<Change> {
        self.next = now.moment + CALM;
        self.watch.look(now.moment, sight.runs);
        self.open = sight.runs.schedules.values().any(|account| account.open.is_some());
        self.waiting.clear();
        self.forget(sight.runs);
        let names = sight.declared.iter().map(|declared| &declared.name).collect();
        let mut changes = forgotten(sight.runs, &names);
        for declared in sight.declared {
            changes.extend(self.judge_one(now, sight, declared));
        }
        if now.moment.since(self.noted) >= NOTED {
            self.noted = now.moment;
            let reached = self.reached.values();
            changes.extend(reached.map(|(attempt, reached)| Change::Progress {
                attempt: attempt.clone(),
                bytes: reached.stored,
            }));
        }
        changes
    }

    /// Drops what concerns attempts that are over.
    fn forget(&mut self, runs: &Runs) {
        let running = |attempt: &Attempt| {
            let open = runs.schedules.get(&attempt.schedule).and_then(|it| it.open.as_ref());
            open.and_then(|run| run.running(&attempt.schedule))
                .is_some_and(|(newest, ..)| newest == *attempt)
        };
        self.reached.retain(|_, (attempt, _)| running(attempt));
        self.ended.retain(|_, (attempt, _)| running(attempt));
    }

    fn judge_one(&mut self, now: Now, sight: &Sight<'_>, declared: &Declared) -> Option<Change> {
        let Declared { name, schedule, wish } = declared;
        if let Some((attempt, end)) = self.ended.get(name) {
            return Some(recorded(attempt.clone(), end.clone()));
        }
        let run = sight.runs.schedules.get(name).and_then(|account| account.open.as_ref());
        if run.is_some() {
            self.next = self.next.min(now.moment + PACE);
        }
        if let Some((attempt, _, server)) = run.and_then(|run| run.running(name))
            && let Some(why) = must_yield(sight.situation, wish, server)
        {
            return Some(Change::Yield { attempt, why });
        }
        if let Some(missed) = self.missed(now, sight, declared) {
            return Some(missed);
        }
        let owner = Owner { cluster: sight.cluster, schedule: name };
        match self.watch.duty(owner, schedule, sight.runs, (now.wall, now.moment)) {
            None => {
                self.wait_for_next(now, sight, declared);
                None
            }
            Some(Duty::Declare { says }) => Some(Change::Declare { schedule: name.clone(), says }),
            Some(Duty::Begin { attempt }) => self.begin(now.moment, sight, declared, run, attempt),
            Some(Duty::GiveUp { attempt, why }) => {
                Some(Change::Fail { attempt, why, again: false })
            }
        }
    }

    /// The newest slot that was not begun while that was possible.
    fn missed(&self, now: Now, sight: &Sight<'_>, declared: &Declared) -> Option<Change> {
        let Declared { name, schedule, .. } = declared;
        let account = sight.runs.schedules.get(name).filter(|account| account.open.is_none())?;
        // A pattern that has changed has slots that were none before.
        if account.says != schedule.to_string() {
            return None;
        }
        let owner = Owner { cluster: sight.cluster, schedule: name };
        let slot = *outlook(owner, schedule, account, now.wall).missed.first()?;
        let last = account.ended.back().filter(|last| last.at > slot.0);
        let why = match (self.held_up.get(name), last) {
            (Some((held_up, why)), _) if *held_up == slot => why.clone(),
            (_, Some(last)) => format!("the run of {} went on until {}", last.slot, last.at),
            (_, None) => "nobody could begin it in its time".to_owned(),
        };
        Some(Change::Miss { schedule: name.clone(), slot, why })
    }

    fn begin(
        &mut self,
        now: Moment,
        sight: &Sight<'_>,
        declared: &Declared,
        run: Option<&Run>,
        attempt: Attempt,
    ) -> Option<Change> {
        self.next = self.next.min(now + PACE);
        let (tried, tried_by) = tried(run, &declared.name);
        let choice = choose(sight.situation, &declared.wish, &tried);
        let server = choice.server.as_ref().and_then(|name| sight.situation.spec.server(name));
        let Some(server) = server else {
            let (name, why) = (declared.name.clone(), choice.why_none());
            self.held_up.insert(name.clone(), (attempt.slot, why.clone()));
            self.waiting.insert(name, why);
            return None;
        };
        let watcher = maker::pick(sight.watchers, &server.data_center, &tried_by)?;
        Some(Change::Begin { attempt, watcher, server: server.name.clone() })
    }

    fn wait_for_next(&mut self, now: Now, sight: &Sight<'_>, declared: &Declared) {
        let Some(account) = sight.runs.schedules.get(&declared.name) else { return };
        let owner = Owner { cluster: sight.cluster, schedule: &declared.name };
        if let Some(next) = outlook(owner, &declared.schedule, account, now.wall).next {
            let wait = Duration::from_millis(next.begins.0.saturating_sub(now.wall.0));
            self.next = self.next.min(now.moment + wait.max(Duration::from_millis(10)));
        }
    }
}

/// Servers and watchers that failed in this run, the attempt that fell silent included.
fn tried(
    run: Option<&Run>,
    schedule: &ScheduleName,
) -> (Vec<crate::decision::topology::ServerName>, Vec<WatcherName>) {
    let Some(run) = run else { return (Vec::new(), Vec::new()) };
    let (mut servers, mut watchers) = (run.tried.clone(), run.tried_by.clone());
    if let Some((_, watcher, server)) = run.running(schedule) {
        servers.push(server.clone());
        watchers.push(watcher.clone());
    }
    (servers, watchers)
}

fn recorded(attempt: Attempt, end: BackupEnd) -> Change {
    match end {
        BackupEnd::Made { backup, bytes, lacking } => {
            Change::Finish { attempt, backup, bytes, lacking }
        }
        BackupEnd::Found { backup, bytes } => {
            Change::Finish { attempt, backup, bytes, lacking: Vec::new() }
        }
        BackupEnd::Failed { why } => Change::Fail { attempt, why, again: true },
    }
}

impl Watcher {
    /// Looks at the backups of every cluster where that is due; true when anything was proposed.
    pub(super) fn look_after_backups(&mut self, now: Now, leading: &mut Leading) -> bool {
        let due = leading.backups.iter().filter(|(_, it)| it.next <= now.moment);
        let names: Vec<_> = due.map(|(name, _)| name.clone()).collect();
        let mut proposed = false;
        for name in names {
            let Some(mut backups) = leading.backups.remove(&name) else { continue };
            proposed |= self.look_after_one(now, leading, &name, &mut backups);
            leading.backups.insert(name, backups);
        }
        proposed
    }

    fn look_after_one(
        &mut self,
        now: Now,
        leading: &Leading,
        name: &ClusterName,
        backups: &mut Backups,
    ) -> bool {
        if backups.proposed > self.applied {
            // Applying it wakes this up.
            backups.next = now.moment + PACE;
            return false;
        }
        let Some(situation) = self.situation(now.moment, leading, name) else {
            backups.next = now.moment + CALM;
            return false;
        };
        let none = Runs::default();
        let reachable = self.reachable(now.moment);
        let sight = Sight {
            cluster: name,
            declared: self.setup.backups.get(name).map_or(&[], Vec::as_slice),
            runs: self.state.clusters.get(name).map_or(&none, |state| &state.backups),
            watchers: Watchers {
                declared: &self.setup.watchers,
                reachable: &reachable,
                leader: &self.setup.own,
            },
            situation: &situation,
        };
        let changes = backups.judge(now, &sight);
        if changes.is_empty() {
            return false;
        }
        let command = |change| Command::Backup { cluster: name.clone(), change };
        let Some(index) = self.propose(now, changes.into_iter().map(command).collect()) else {
            backups.next = now.moment + PACE;
            return false;
        };
        backups.proposed = index;
        backups.next = now.moment + PACE;
        true
    }

    /// Watchers that were heard of lately, and this one.
    pub(super) fn reachable(&self, now: Moment) -> BTreeSet<WatcherName> {
        let heard = self.heard.iter().filter(|(_, heard)| now.since(**heard) < REACHABLE);
        heard.map(|(name, _)| name.clone()).chain([self.setup.own.clone()]).collect()
    }

    /// The answer to what a watcher says of its attempt, if there is one.
    pub(super) fn confirm_backup(
        &mut self,
        now: Moment,
        from: &WatcherName,
        said: BackupMessage,
    ) -> Option<BackupMessage> {
        let runs = &self.state.clusters.get(&said.cluster)?.backups;
        let backups = self.leading.as_mut()?.backups.get_mut(&said.cluster)?;
        let goes_on = backups.hear(now, runs, from, &said);
        goes_on.then_some(BackupMessage { word: BackupWord::GoOn, reached: None, ..said })
    }

    /// The schedules of a cluster as people see them.
    pub(super) fn shown_backups(
        &self,
        now: Now,
        leading: &Leading,
        name: &ClusterName,
    ) -> Vec<ScheduleView> {
        let Some(declared) = self.setup.backups.get(name) else {
            return Vec::new();
        };
        let none = Runs::default();
        let runs = self.state.clusters.get(name).map_or(&none, |state| &state.backups);
        let (mut reached, mut waiting) = (BTreeMap::new(), BTreeMap::new());
        if let Some(backups) = leading.backups.get(name) {
            let so_far = backups.reached.iter();
            reached.extend(so_far.map(|(name, (_, reached))| (name.clone(), reached.clone())));
            waiting.clone_from(&backups.waiting);
        }
        let known = Known { reached: &reached, waiting: &waiting };
        shown::schedules(name, declared, runs, known, now.wall)
    }

    /// The same with the servers that each schedule could read from now.
    pub(super) fn explained_backups(
        &self,
        now: Now,
        leading: &Leading,
        situation: &Situation,
    ) -> Vec<ScheduleView> {
        let name = &situation.spec.name;
        let mut views = self.shown_backups(now, leading, name);
        let declared = self.setup.backups.get(name).into_iter().flatten();
        for (view, declared) in views.iter_mut().zip(declared) {
            let state = self.state.clusters.get(name);
            let account = state.and_then(|it| it.backups.schedules.get(&declared.name));
            let run = account.and_then(|account| account.open.as_ref());
            let (tried, _) = tried(run, &declared.name);
            let choice = choose(situation, &declared.wish, &tried);
            view.sources = shown::sources(&choice);
            if view.waiting.is_empty() && choice.server.is_none() {
                view.waiting = choice.why_none();
            }
        }
        views
    }
}
