//! Raft for one watcher: raft-rs behind time, messages and tickets that are passed in.
//!
//! Membership is the configured set of watchers and never changes here. Disk writes are an output
//! ([`Drained::persist`]) and their completion an input ([`Consensus::persisted`]); messages that
//! depend on a write stay inside until then. raft-rs hands an entry out as committed only when a
//! quorum has it *and* this watcher's own copy is on disk, on the leader too, so whoever applies
//! entries never runs ahead of what a restart would find.

mod encoding;
mod errors;
mod guard;
mod log;
mod timers;

pub use encoding::FormatError;
pub use errors::{ConsensusError, Refused};
pub use guard::Ignored;

use crate::clock::Moment;
use crate::decision::topology::{Timing, WatcherName};
use crate::watcher::{Record, Stored, StoredSnapshot};
use encoding::seal;
use guard::Members;
use log::Log;
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};
use raft::{RawNode, ReadOnlyOption, SnapshotStatus, StateRole};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use timers::Timers;

/// The largest proposal, in bytes; with its surroundings it fits any frame between watchers.
pub const PROPOSAL_LIMIT: usize = 4 * 1024 * 1024;

/// The largest state that fits a snapshot message, in bytes.
pub const SNAPSHOT_LIMIT: usize = 24 * 1024 * 1024;

const APPEND_BYTES: u64 = 1024 * 1024;
const APPENDS_IN_FLIGHT: usize = 64;
const UNCOMMITTED_BYTES: u64 = 16 * 1024 * 1024;
const READS_IN_FLIGHT: usize = 256;

/// One watcher's part in Raft.
pub struct Consensus {
    node: RawNode<Log>,
    members: Members,
    timers: Timers,
    unsynced: VecDeque<Unsynced>,
    next_ticket: u64,
    outbox: Vec<(WatcherName, Vec<u8>)>,
    rounds: BTreeMap<u64, Round>,
    next_round: u64,
    confirmed: Option<Moment>,
    told: RoleChange,
    /// The term in which this watcher leads.
    leads: Option<u64>,
    snapshots_sent: BTreeMap<u64, Moment>,
    compacted: Vec<(u64, Record)>,
}

/// A record on its way to disk, and what waits for it.
#[derive(Debug, Default)]
struct Unsynced {
    ticket: u64,
    /// raft-rs' own number for it; 0 for a compaction, of which it knows nothing.
    number: u64,
    messages: Vec<Message>,
    snapshot: Option<u64>,
}

/// A quorum round under way.
#[derive(Debug)]
struct Round {
    context: u64,
    asked: Moment,
}

/// What a watcher found on its disk, for the owner to start from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The owner's state as of `applied`; `None` when it starts from nothing.
    pub snapshot: Option<Vec<u8>>,
    /// Committed entries after this index will be handed out again.
    pub applied: u64,
}

/// What Raft wants done; all of it, in this order: persist, replace, apply, send.
#[derive(Debug, Default, PartialEq)]
pub struct Drained {
    /// To other watchers; may be lost.
    pub messages: Vec<(WatcherName, Vec<u8>)>,
    /// To be written and synced in order, then reported by [`Consensus::persisted`].
    pub persist: Vec<(u64, Record)>,
    /// A leader's snapshot: the index it covers, and the state that replaces the owner's own.
    pub snapshot: Option<(u64, Vec<u8>)>,
    /// Newly committed entries in order, each handed out once per start.
    pub committed: Vec<Committed>,
    /// Quorum rounds that completed.
    pub reads: Vec<ReadReady>,
    /// The leader as this watcher sees it, when that changed.
    pub role: Option<RoleChange>,
}

/// One committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the log.
    pub index: u64,
    /// The term of the leader that proposed it.
    pub term: u64,
    /// What was proposed; empty for the entry by which a new leader begins its term.
    pub data: Vec<u8>,
}

/// Where a proposal stands in the log, if it is ever committed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proposed {
    /// The proposing leader's term; another term at this index means that the proposal is lost.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

/// A quorum round is complete: this watcher led when the round was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadReady {
    /// What the owner gave to [`Consensus::read_index`].
    pub context: u64,
    /// Once this index is applied, the state is as new as the round.
    pub index: u64,
    /// When the round was asked for; no message of it left earlier.
    pub asked: Moment,
}

/// Who leads, in which term.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleChange {
    /// Whether this watcher leads.
    pub leads: bool,
    /// The leader it knows of.
    pub leader: Option<WatcherName>,
    /// The term.
    pub term: u64,
}

impl Consensus {
    /// Starts from what was stored; nothing stored means a first start.
    ///
    /// `seed` spreads elections and decides nothing else.
    pub fn start(
        own: &WatcherName,
        all: &[WatcherName],
        timing: Timing,
        seed: u64,
        stored: &Stored,
        now: Moment,
    ) -> Result<(Consensus, Recovered), ConsensusError> {
        let members = Members::new(own, all)?;
        let restarted = stored.hard_state.is_some();
        let log = Log::load(members.ids(), stored)?;
        let snapshot = log.snapshot_ref();
        let applied = snapshot.get_metadata().index;
        let state = (applied > 0).then(|| snapshot.data.to_vec());
        let timers = Timers::new(timing, seed ^ members.own(), all.len(), now, restarted);
        let election = timers.election_ticks();
        let config = raft::Config {
            id: members.own(),
            election_tick: election,
            heartbeat_tick: (timing.raft_heartbeat_ticks as usize).max(1),
            max_election_tick: timers.longest_election_ticks() + 1,
            applied,
            max_size_per_msg: APPEND_BYTES,
            max_inflight_msgs: APPENDS_IN_FLIGHT,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            max_uncommitted_size: UNCOMMITTED_BYTES,
            ..raft::Config::default()
        };
        config.validate().map_err(|error| ConsensusError::Timing(error.to_string()))?;
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, log, &logger)
            .map_err(|error| ConsensusError::Raft(error.to_string()))?;
        let mut consensus = Consensus {
            node,
            members,
            timers,
            unsynced: VecDeque::new(),
            next_ticket: 1,
            outbox: Vec::new(),
            rounds: BTreeMap::new(),
            next_round: 1,
            confirmed: None,
            told: RoleChange::default(),
            leads: None,
            snapshots_sent: BTreeMap::new(),
            compacted: Vec::new(),
        };
        consensus.settle_election_timeout();
        Ok((consensus, Recovered { snapshot: state, applied }))
    }

    /// Lets the time pass that has passed; call it for any input, and at [`Consensus::next_tick`].
    pub fn tick(&mut self, now: Moment) {
        for _ in 0..self.timers.due(now) {
            // raft-rs cannot campaign while a snapshot is not on disk yet: it would look for
            // entries that the snapshot replaced, and panic. Time stands still until then.
            if self.installs_snapshot() {
                break;
            }
            self.node.tick();
            self.settle_election_timeout();
        }
        self.retry_snapshots(now);
        self.note_step_down();
    }

    /// When to call [`Consensus::tick`] next.
    pub fn next_tick(&self) -> Moment {
        self.timers.next()
    }

    /// Takes a message from another watcher.
    ///
    /// An error means that this watcher's log contradicts what the others know it had
    /// acknowledged; it must not go on. What is merely wrong, late or unwelcome is ignored.
    pub fn step(
        &mut self,
        now: Moment,
        from: &WatcherName,
        bytes: &[u8],
    ) -> Result<Option<Ignored>, ConsensusError> {
        // Time first: ticks of the time before this message must not count as silence after it.
        self.tick(now);
        let message = match self.members.decode(from, bytes) {
            Ok(message) => message,
            Err(ignored) => return Ok(Some(ignored)),
        };
        if guard::is_vote_request(&message) && now < self.votes_withheld_until() {
            return Ok(Some(Ignored::VoteWithheld));
        }
        if let Some(ignored) = guard::check(from, &message, &self.node)? {
            return Ok(Some(ignored));
        }
        let stepped = self.node.step(message);
        self.settle_election_timeout();
        self.note_step_down();
        Ok(stepped.err().map(|error| Ignored::Refused(error.to_string())))
    }

    /// Appends to the log, on the leader; it is decided when it comes back as committed.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<Proposed, Refused> {
        if data.is_empty() || data.len() > PROPOSAL_LIMIT {
            return Err(Refused::Size { bytes: data.len(), limit: PROPOSAL_LIMIT });
        }
        self.must_lead()?;
        // raft-rs would forward a follower's proposal; asked only of leaders, it never does.
        self.node.propose(Vec::new(), data).map_err(|_| Refused::Busy)?;
        Ok(Proposed { term: self.term(), index: self.last_index() })
    }

    /// Asks the others, as leader, whether they still follow; answered by [`Drained::reads`]
    /// unless this watcher stops leading first.
    pub fn read_index(&mut self, now: Moment, context: u64) -> Result<(), Refused> {
        self.must_lead()?;
        if !self.node.raft.commit_to_current_term() {
            return Err(Refused::TooEarly);
        }
        if self.rounds.len() >= READS_IN_FLIGHT {
            return Err(Refused::Busy);
        }
        let round = self.next_round;
        self.next_round += 1;
        self.rounds.insert(round, Round { context, asked: now });
        self.node.read_index(round.to_be_bytes().to_vec());
        Ok(())
    }

    /// The record of this ticket, and all before it, are safely on disk.
    pub fn persisted(&mut self, ticket: u64) {
        let mut number = 0;
        let mut snapshot = None;
        while self.unsynced.front().is_some_and(|first| first.ticket <= ticket) {
            let Some(done) = self.unsynced.pop_front() else {
                break;
            };
            number = number.max(done.number);
            snapshot = done.snapshot.or(snapshot);
            for message in done.messages {
                self.post(message);
            }
        }
        if number > 0 {
            self.node.on_persist_ready(number);
        }
        if let Some(index) = snapshot {
            self.node.advance_apply_to(index);
        }
    }

    /// The connection to another watcher is down; what was under way to it may be lost.
    pub fn report_unreachable(&mut self, peer: &WatcherName) {
        let Some(id) = self.members.id(peer) else {
            return;
        };
        self.node.report_unreachable(id);
        if self.snapshots_sent.remove(&id).is_some() {
            self.node.report_snapshot(id, SnapshotStatus::Failure);
        }
    }

    /// Replaces the log up to `index`, which the owner has applied, by the owner's `state`.
    ///
    /// The record comes with the next [`Consensus::drain`]. False when there is nothing to do:
    /// the index is not in the log, or the state is larger than [`SNAPSHOT_LIMIT`].
    pub fn compact(&mut self, index: u64, state: Vec<u8>) -> Result<bool, ConsensusError> {
        let applied = self.node.raft.raft_log.applied;
        if index > applied || state.len() > SNAPSHOT_LIMIT || self.installs_snapshot() {
            return Ok(false);
        }
        let Some(snapshot) = self.node.mut_store().compact(index, state) else {
            return Ok(false);
        };
        let encoded = seal(snapshot).map_err(ConsensusError::Encoding)?;
        let record = Record {
            hard_state: Some(self.sealed_hard_state()?),
            snapshot: Some(StoredSnapshot { index, encoded }),
            compact_to: Some(index),
            ..Record::default()
        };
        let ticket = self.take_ticket();
        self.unsynced.push_back(Unsynced { ticket, ..Unsynced::default() });
        self.compacted.push((ticket, record));
        Ok(true)
    }

    /// Everything that is to be done by now; call it after each input.
    pub fn drain(&mut self, now: Moment) -> Result<Drained, ConsensusError> {
        let mut drained =
            Drained { persist: std::mem::take(&mut self.compacted), ..Drained::default() };
        while self.node.has_ready() {
            self.take_ready(now, &mut drained)?;
        }
        drained.messages = std::mem::take(&mut self.outbox);
        self.note_step_down();
        let role = RoleChange {
            leads: self.is_leader(),
            leader: self.leader().cloned(),
            term: self.term(),
        };
        if role != self.told {
            self.told = role.clone();
            drained.role = Some(role);
        }
        Ok(drained)
    }

    /// Whether this watcher leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// The leader, as far as this watcher knows.
    pub fn leader(&self) -> Option<&WatcherName> {
        self.members.name(self.node.raft.leader_id)
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// The last entry known to be committed; it may not have been handed out yet.
    pub fn commit_index(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// The last entry of the log.
    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// How many entries lie between the snapshot and what was handed out last.
    pub fn entries_since_snapshot(&self) -> u64 {
        let covered = self.node.store().snapshot_ref().get_metadata().index;
        self.node.raft.raft_log.applied.saturating_sub(covered)
    }

    /// When the latest completed quorum round was asked for, while this watcher leads.
    pub fn quorum_confirmed_at(&self) -> Option<Moment> {
        self.confirmed.filter(|_| self.is_leader())
    }

    /// Until then no other watcher can have been elected.
    ///
    /// A follower refuses votes for `raft_election_ticks` ticks after it heard from its leader,
    /// the first of which may pass at once; a tenth is left for clocks of different rates.
    pub fn surely_leads_until(&self) -> Option<Moment> {
        self.quorum_confirmed_at().map(|confirmed| self.timers.lease_end(confirmed))
    }

    /// Before that, this watcher must not help to elect anybody.
    pub fn votes_withheld_until(&self) -> Moment {
        self.timers.votes_from()
    }

    fn take_ready(&mut self, now: Moment, drained: &mut Drained) -> Result<(), ConsensusError> {
        let mut ready = self.node.ready();
        for message in ready.take_messages() {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.snapshots_sent.insert(message.to, now);
            }
            self.post(message);
        }
        let mut record = Record::default();
        let mut installed = None;
        if !ready.snapshot().is_empty() {
            let snapshot = ready.snapshot().clone();
            let index = snapshot.get_metadata().index;
            let encoded = seal(&snapshot).map_err(ConsensusError::Encoding)?;
            record.snapshot = Some(StoredSnapshot { index, encoded });
            // None of the log before it may survive, not even what lies after the snapshot's index.
            record.compact_to = Some(u64::MAX);
            installed = Some(index);
            drained.committed.clear();
            drained.snapshot = Some((index, snapshot.data.to_vec()));
            self.node.mut_store().replace(snapshot);
        }
        for entry in ready.entries() {
            record.entries.push((entry.index, seal(entry).map_err(ConsensusError::Encoding)?));
        }
        let store = self.node.mut_store();
        store.append(ready.entries());
        if let Some(hard_state) = ready.hs() {
            store.set_hard_state(hard_state.clone());
        }
        for state in ready.take_read_states() {
            drained.reads.extend(self.finish_rounds(&state));
        }
        let applied = self.hand_out(ready.take_committed_entries(), drained);
        let (must_sync, number) = (ready.must_sync(), ready.number());
        let messages = ready.take_persisted_messages();
        self.node.advance_append_async(ready);
        if let Some(applied) = applied {
            self.node.advance_apply_to(applied);
        }
        if must_sync {
            record.hard_state = Some(self.sealed_hard_state()?);
            let ticket = self.take_ticket();
            self.unsynced.push_back(Unsynced { ticket, number, messages, snapshot: installed });
            drained.persist.push((ticket, record));
        } else {
            self.join_unsynced(number, messages);
        }
        Ok(())
    }

    /// A change that needs no sync of its own, such as a newer commit index, which the next record
    /// carries along: its messages only wait for what was to be written before.
    fn join_unsynced(&mut self, number: u64, messages: Vec<Message>) {
        match self.unsynced.back_mut() {
            Some(last) => {
                last.number = number;
                last.messages.extend(messages);
            }
            None => {
                self.node.on_persist_ready(number);
                for message in messages {
                    self.post(message);
                }
            }
        }
    }

    fn hand_out(&self, entries: Vec<raft::eraftpb::Entry>, drained: &mut Drained) -> Option<u64> {
        let last = entries.last().map(|entry| entry.index);
        drained.committed.extend(entries.into_iter().map(|entry| Committed {
            index: entry.index,
            term: entry.term,
            data: entry.data.to_vec(),
        }));
        last
    }

    fn finish_rounds(&mut self, state: &raft::ReadState) -> Option<ReadReady> {
        let key: [u8; 8] = state.request_ctx.as_slice().try_into().ok()?;
        let round = self.rounds.remove(&u64::from_be_bytes(key))?;
        self.confirmed = self.confirmed.max(Some(round.asked));
        Some(ReadReady { context: round.context, index: state.index, asked: round.asked })
    }

    fn post(&mut self, message: Message) {
        let Some(to) = self.members.name(message.to) else {
            return;
        };
        // Encoding into memory fails only on a message beyond the codec's own size limit, and all
        // that goes into messages is bounded far below that; losing one is allowed in any case.
        if let Ok(bytes) = message.write_to_bytes() {
            self.outbox.push((to.clone(), bytes));
        }
    }

    /// raft-rs draws a new election timeout from the thread's random numbers at each reset; ours
    /// replaces it after every call that may have done so, so that equal seeds make equal runs.
    fn settle_election_timeout(&mut self) {
        let raft = &mut self.node.raft;
        let ticks = self.timers.election_timeout(raft.term, raft.state as u8, raft.leader_id);
        raft.set_randomized_election_timeout(ticks);
    }

    /// A leader that steps down may have promised to lead until its lease ends, and it counted
    /// itself among those who vote for nobody else until then.
    fn note_step_down(&mut self) {
        let leads = self.is_leader().then(|| self.term());
        if leads == self.leads {
            return;
        }
        self.leads = leads;
        if let Some(confirmed) = self.confirmed.take() {
            self.timers.withhold_votes_until(self.timers.lease_end(confirmed));
        }
        self.rounds.clear();
        self.snapshots_sent.clear();
    }

    /// raft-rs sends nothing more to a watcher until it hears what became of its snapshot.
    fn retry_snapshots(&mut self, now: Moment) {
        let patience = self.timers.snapshot_patience();
        let node = &mut self.node;
        self.snapshots_sent.retain(|id, sent| {
            let waiting = now.since(*sent) < patience;
            if !waiting {
                node.report_snapshot(*id, SnapshotStatus::Failure);
            }
            waiting
        });
    }

    fn installs_snapshot(&self) -> bool {
        let unstable = self.node.snap().is_some();
        unstable || self.unsynced.iter().any(|record| record.snapshot.is_some())
    }

    fn must_lead(&self) -> Result<(), Refused> {
        if self.is_leader() {
            return Ok(());
        }
        Err(Refused::NotLeader { leader: self.leader().cloned() })
    }

    fn sealed_hard_state(&self) -> Result<Vec<u8>, ConsensusError> {
        seal(self.node.store().hard_state()).map_err(ConsensusError::Encoding)
    }

    fn take_ticket(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        ticket
    }
}

impl fmt::Debug for Consensus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consensus")
            .field("term", &self.term())
            .field("leader", &self.leader())
            .field("commit", &self.commit_index())
            .field("last", &self.last_index())
            .finish_non_exhaustive()
    }
}
