//! Raft's log in memory: everything since the last snapshot, and the snapshot itself.

use super::ConsensusError;
use super::encoding::unseal;
use crate::watcher::Stored;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// After a compaction so many entries stay in memory, for followers only slightly behind.
const KEPT_BEHIND_SNAPSHOT: u64 = 256;

/// What raft-rs reads; it is ahead of the disk by the records that are still being written.
#[derive(Debug)]
pub(super) struct Log {
    hard_state: HardState,
    voters: ConfState,
    snapshot: Snapshot,
    /// Index and term of the entry before the first one kept.
    before: (u64, u64),
    entries: Vec<Entry>,
}

impl Log {
    /// Rebuilds the log from what was on disk; whatever does not fit together is named.
    pub(super) fn load(voters: Vec<u64>, stored: &Stored) -> Result<Log, ConsensusError> {
        let mut expected = ConfState::default();
        expected.set_voters(voters);
        let snapshot = load_snapshot(&expected, stored)?;
        let meta = snapshot.get_metadata();
        let before = (meta.index, meta.term);
        let entries = load_entries(before, stored)?;
        let last = entries.last().map_or(before, |entry| (entry.index, entry.term));
        let hard_state = load_hard_state(before.0, last, stored)?;
        Ok(Log { hard_state, voters: expected, snapshot, before, entries })
    }

    /// Takes new entries, which replace all from the first one's index on.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let kept = first.index.saturating_sub(self.before.0 + 1);
        self.entries.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        self.entries.extend_from_slice(entries);
    }

    /// Takes a leader's snapshot in place of everything.
    pub(super) fn replace(&mut self, snapshot: Snapshot) {
        let meta = snapshot.get_metadata();
        self.before = (meta.index, meta.term);
        self.hard_state.commit = self.hard_state.commit.max(meta.index);
        self.entries.clear();
        self.snapshot = snapshot;
    }

    /// Makes a snapshot of the owner's `state` as of `index`, and forgets what lies well behind it.
    ///
    /// `None` when the index is not in the log.
    pub(super) fn compact(&mut self, index: u64, state: Vec<u8>) -> Option<&Snapshot> {
        if index <= self.snapshot.get_metadata().index {
            return None;
        }
        let term = self.term(index).ok()?;
        let mut snapshot = Snapshot::default();
        let meta = snapshot.mut_metadata();
        meta.index = index;
        meta.term = term;
        meta.set_conf_state(self.voters.clone());
        snapshot.data = state.into();
        self.snapshot = snapshot;
        let before = index.saturating_sub(KEPT_BEHIND_SNAPSHOT).max(self.before.0);
        if let Ok(term) = self.term(before) {
            let dropped = usize::try_from(before - self.before.0).unwrap_or(usize::MAX);
            self.entries.drain(..dropped.min(self.entries.len()));
            self.before = (before, term);
        }
        Some(&self.snapshot)
    }

    pub(super) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub(super) fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub(super) fn voters(&self) -> &ConfState {
        &self.voters
    }

    pub(super) fn snapshot_ref(&self) -> &Snapshot {
        &self.snapshot
    }

    fn last(&self) -> (u64, u64) {
        self.entries.last().map_or(self.before, |entry| (entry.index, entry.term))
    }

    fn place(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.before.0 + 1)?).ok()
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.voters.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let from = self.place(low).ok_or(StorageError::Compacted)?;
        let to = self.place(high).ok_or(StorageError::Compacted)?;
        let wanted = self.entries.get(from..to).ok_or(StorageError::Unavailable)?;
        let mut entries = wanted.to_vec();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.before.0 {
            return Ok(self.before.1);
        }
        let place = self.place(index).ok_or(StorageError::Compacted)?;
        let entry = self.entries.get(place).ok_or(StorageError::Unavailable)?;
        Ok(entry.term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.before.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().0)
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let index = self.snapshot.get_metadata().index;
        if index == 0 || index < request_index {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        Ok(self.snapshot.clone())
    }
}

fn load_snapshot(expected: &ConfState, stored: &Stored) -> Result<Snapshot, ConsensusError> {
    let Some(found) = &stored.snapshot else {
        return Ok(Snapshot::default());
    };
    let index = found.index;
    let snapshot: Snapshot =
        unseal(&found.encoded).map_err(|source| ConsensusError::BadSnapshot { index, source })?;
    let meta = snapshot.get_metadata();
    if meta.index != index || index == 0 || meta.term == 0 {
        return Err(ConsensusError::SnapshotMislabeled { label: index, index: meta.index });
    }
    check_voters(expected, meta.get_conf_state())?;
    Ok(snapshot)
}

/// Membership never changes in this format: any difference is a store of other watchers.
pub(super) fn check_voters(expected: &ConfState, found: &ConfState) -> Result<(), ConsensusError> {
    let mut theirs = found.get_voters().to_vec();
    theirs.sort_unstable();
    let plain = found.get_learners().is_empty()
        && found.get_voters_outgoing().is_empty()
        && found.get_learners_next().is_empty();
    if plain && theirs == expected.get_voters() {
        return Ok(());
    }
    Err(ConsensusError::OtherVoters { stored: theirs.len(), configured: expected.voters.len() })
}

fn load_entries(before: (u64, u64), stored: &Stored) -> Result<Vec<Entry>, ConsensusError> {
    let mut entries: Vec<Entry> = Vec::with_capacity(stored.entries.len());
    let (mut last, mut term) = before;
    for (index, encoded) in &stored.entries {
        let index = *index;
        if index <= before.0 {
            continue;
        }
        let entry: Entry =
            unseal(encoded).map_err(|source| ConsensusError::BadEntry { index, source })?;
        if entry.index != index {
            return Err(ConsensusError::EntryMislabeled { label: index, index: entry.index });
        }
        if index != last + 1 {
            return Err(ConsensusError::Gap { after: last, found: index });
        }
        if entry.term < term || entry.term == 0 {
            return Err(ConsensusError::TermFalls { index, term: entry.term, before: term });
        }
        if entry.get_entry_type() != EntryType::EntryNormal {
            return Err(ConsensusError::UnknownEntry { index });
        }
        (last, term) = (entry.index, entry.term);
        entries.push(entry);
    }
    Ok(entries)
}

fn load_hard_state(
    snapshot: u64,
    (last, last_term): (u64, u64),
    stored: &Stored,
) -> Result<HardState, ConsensusError> {
    let Some(encoded) = &stored.hard_state else {
        return match last {
            0 => Ok(HardState::default()),
            _ => Err(ConsensusError::NoHardState { last }),
        };
    };
    let mut hard_state: HardState = unseal(encoded).map_err(ConsensusError::BadHardState)?;
    if hard_state.commit > last {
        return Err(ConsensusError::CommitBeyondLog { commit: hard_state.commit, last });
    }
    if hard_state.term < last_term {
        return Err(ConsensusError::TermBehindLog { term: hard_state.term, log: last_term });
    }
    // The commit index is not synced on its own, so it may lag behind a snapshot.
    hard_state.commit = hard_state.commit.max(snapshot);
    Ok(hard_state)
}
