//! Who takes part, and which messages are fit for raft-rs.
//!
//! raft-rs trusts its peers and panics on some messages that contradict its log. They are caught
//! here, before it sees them.

use super::ConsensusError;
use super::log::{Log, check_voters};
use crate::decision::topology::WatcherName;
use protobuf::Message as _;
use raft::eraftpb::{EntryType, Message, MessageType};
use raft::{RawNode, StateRole};
use std::collections::BTreeMap;

/// The watchers by their Raft ids.
#[derive(Debug)]
pub(super) struct Members {
    own: u64,
    names: BTreeMap<u64, WatcherName>,
}

impl Members {
    pub(super) fn new(own: &WatcherName, all: &[WatcherName]) -> Result<Members, ConsensusError> {
        let mut names = BTreeMap::new();
        for name in all {
            if let Some(other) = names.insert(raft_id(name), name.clone()) {
                let problem = match &other == name {
                    true => format!("watcher {name} is declared twice"),
                    false => {
                        format!("watchers {other} and {name} get the same raft id; rename one")
                    }
                };
                return Err(ConsensusError::Members(problem));
            }
        }
        let id = raft_id(own);
        if names.get(&id) != Some(own) {
            return Err(ConsensusError::Members(format!("watcher {own} is not declared")));
        }
        Ok(Members { own: id, names })
    }

    pub(super) fn own(&self) -> u64 {
        self.own
    }

    /// All ids in order.
    pub(super) fn ids(&self) -> Vec<u64> {
        self.names.keys().copied().collect()
    }

    pub(super) fn name(&self, id: u64) -> Option<&WatcherName> {
        self.names.get(&id)
    }

    pub(super) fn id(&self, name: &WatcherName) -> Option<u64> {
        let id = raft_id(name);
        (self.names.get(&id) == Some(name)).then_some(id)
    }

    /// Decodes a message and checks that it is from `from` and for this watcher.
    pub(super) fn decode(&self, from: &WatcherName, bytes: &[u8]) -> Result<Message, Ignored> {
        let sender = self.id(from).filter(|id| *id != self.own).ok_or(Ignored::Stranger)?;
        let message = Message::parse_from_bytes(bytes)
            .map_err(|error| Ignored::Undecodable(error.to_string()))?;
        if message.from != sender {
            return Err(Ignored::WrongSender);
        }
        if message.to != self.own {
            return Err(Ignored::WrongReceiver);
        }
        Ok(message)
    }
}

/// Why a message was not taken; none of these endangers anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// Not from one of the other watchers.
    #[error("it is not from another watcher")]
    Stranger,
    /// It claims another sender than the one who brought it.
    #[error("it claims another sender")]
    WrongSender,
    /// It is meant for somebody else.
    #[error("it is meant for another watcher")]
    WrongReceiver,
    /// Not a Raft message.
    #[error("it cannot be decoded: {0}")]
    Undecodable(String),
    /// Watchers do not send this kind of message to each other.
    #[error("it is of a kind that watchers do not send")]
    Unwelcome,
    /// It contradicts itself or what is possible.
    #[error("it makes no sense: {0}")]
    Senseless(&'static str),
    /// A vote was asked for while a leader may rely on this watcher not voting.
    #[error("a leader may still rely on this watcher not to vote")]
    VoteWithheld,
    /// raft-rs refused it.
    #[error("raft refused it: {0}")]
    Refused(String),
}

pub(super) fn is_vote_request(message: &Message) -> bool {
    use MessageType::{MsgRequestPreVote, MsgRequestVote};
    matches!(message.get_msg_type(), MsgRequestVote | MsgRequestPreVote)
}

/// Lets pass what raft-rs can take; an error when the message proves that this log lost entries.
pub(super) fn check(
    from: &WatcherName,
    message: &Message,
    node: &RawNode<Log>,
) -> Result<Option<Ignored>, ConsensusError> {
    if let Err(ignored) = check_kind(message) {
        return Ok(Some(ignored));
    }
    let raft = &node.raft;
    let last = raft.raft_log.last_index();
    match message.get_msg_type() {
        // A leader caps the commit index it sends with what the receiver acknowledged.
        MessageType::MsgHeartbeat if message.term >= raft.term && message.commit > last => {
            Err(ConsensusError::Forgot { peer: from.clone(), index: message.commit, last })
        }
        MessageType::MsgAppend => Ok(check_entries(message).err()),
        MessageType::MsgAppendResponse
            if raft.state == StateRole::Leader
                && message.term == raft.term
                && !message.reject
                && message.index > last =>
        {
            Ok(Some(Ignored::Senseless("it acknowledges entries that were never sent")))
        }
        MessageType::MsgSnapshot => {
            let meta = message.get_snapshot().get_metadata();
            let voters = check_voters(node.store().voters(), meta.get_conf_state());
            Ok(match voters {
                Err(_) => Some(Ignored::Senseless("its snapshot names other watchers")),
                Ok(()) if meta.index == 0 || meta.term == 0 || meta.term > message.term => {
                    Some(Ignored::Senseless("its snapshot has no possible place in the log"))
                }
                // A second one while the first is being written would overtake it.
                Ok(()) if node.snap().is_some() => Some(Ignored::Unwelcome),
                Ok(()) => None,
            })
        }
        _ => Ok(None),
    }
}

fn check_kind(message: &Message) -> Result<(), Ignored> {
    use MessageType::*;
    // Proposals and reads are never forwarded, and leadership is never handed over: a vote asked
    // for in such a hand-over would break into a lease that the old leader still counts on.
    match message.get_msg_type() {
        MsgAppend
        | MsgAppendResponse
        | MsgRequestVote
        | MsgRequestVoteResponse
        | MsgSnapshot
        | MsgHeartbeat
        | MsgHeartbeatResponse
        | MsgRequestPreVote
        | MsgRequestPreVoteResponse => {}
        _ => return Err(Ignored::Unwelcome),
    }
    if message.term == 0 {
        return Err(Ignored::Senseless("it has no term"));
    }
    if is_vote_request(message) && !message.context.is_empty() {
        return Err(Ignored::Unwelcome);
    }
    Ok(())
}

fn check_entries(message: &Message) -> Result<(), Ignored> {
    let mut index = message.index;
    let mut term = message.log_term;
    for entry in message.get_entries() {
        if entry.index != index + 1 || entry.term < term || entry.term > message.term {
            return Err(Ignored::Senseless("its entries do not follow each other"));
        }
        if entry.get_entry_type() != EntryType::EntryNormal {
            return Err(Ignored::Unwelcome);
        }
        (index, term) = (entry.index, entry.term);
    }
    Ok(())
}

/// FNV-1a of the name: the same on every watcher and in every version. Never 0, which raft-rs
/// takes for "nobody".
fn raft_id(name: &WatcherName) -> u64 {
    let hash = name.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash.max(1)
}
