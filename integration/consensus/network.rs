//! Watchers' Raft in one thread, over a small seeded network with slow disks.

use regent::clock::Moment;
use regent::decision::topology::{Timing, WatcherName};
use regent::watcher::consensus::{Committed, Consensus, ReadReady};
use regent::watcher::{Record, Stored};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Event {
    Message { from: usize, to: usize, bytes: Vec<u8> },
    Written { node: usize, life: u32, ticket: u64, record: Record },
}

pub struct Node {
    pub name: WatcherName,
    pub raft: Option<Consensus>,
    pub disk: Stored,
    pub state: Vec<Committed>,
    pub reads: Vec<ReadReady>,
    pub snapshots: usize,
    life: u32,
    /// Records reach the disk in order, however its speed changes.
    written: Moment,
}

pub struct Cluster {
    pub now: Moment,
    pub nodes: Vec<Node>,
    pub loss_percent: u64,
    pub disk_delay: Duration,
    pub cut: Vec<bool>,
    pub trace: String,
    random: u64,
    events: BTreeMap<(Moment, u64), Event>,
    sequence: u64,
    seed: u64,
}

impl Cluster {
    pub fn new(count: usize, seed: u64) -> Cluster {
        let named = |i| Node {
            name: WatcherName(format!("w{i}")),
            raft: None,
            disk: Stored::default(),
            state: Vec::new(),
            reads: Vec::new(),
            snapshots: 0,
            life: 0,
            written: Moment::ZERO,
        };
        let mut cluster = Cluster {
            now: Moment(1_000_000),
            nodes: (0..count).map(named).collect(),
            loss_percent: 0,
            disk_delay: Duration::from_millis(1),
            cut: vec![false; count],
            trace: String::new(),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            events: BTreeMap::new(),
            sequence: 0,
            seed,
        };
        (0..count).for_each(|node| cluster.start(node));
        cluster
    }

    pub fn start(&mut self, node: usize) {
        let all: Vec<WatcherName> = self.nodes.iter().map(|node| node.name.clone()).collect();
        let found = &mut self.nodes[node];
        found.life += 1;
        found.written = self.now;
        let seed = self.seed ^ u64::from(found.life);
        let (raft, recovered) =
            Consensus::start(&found.name, &all, Timing::default(), seed, &found.disk, self.now)
                .unwrap();
        found.state = recovered.snapshot.map(|bytes| decode(&bytes)).unwrap_or_default();
        found.raft = Some(raft);
    }

    pub fn crash(&mut self, node: usize) {
        self.nodes[node].raft = None;
        writeln!(self.trace, "{:?} w{node} crashes", self.now).unwrap();
    }

    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.turn(end) {}
        self.now = end;
    }

    pub fn run_until(&mut self, most: Duration, done: impl Fn(&Cluster) -> bool) {
        let end = self.now + most;
        while !done(self) {
            assert!(self.turn(end), "not reached within {most:?}:\n{}", self.trace);
        }
    }

    fn turn(&mut self, end: Moment) -> bool {
        let ticks = self.nodes.iter().enumerate();
        let tick = ticks.filter_map(|(i, n)| Some((n.raft.as_ref()?.next_tick(), i))).min();
        let event = self.events.first_key_value().map(|(key, _)| *key);
        let next = [tick.map(|(at, _)| at), event.map(|(at, _)| at)].into_iter().flatten().min();
        let Some(next) = next.filter(|next| *next <= end) else {
            return false;
        };
        self.now = self.now.max(next);
        match (event, tick) {
            (Some(key), _) if key.0 <= next => {
                let event = self.events.remove(&key).unwrap();
                self.happen(event);
            }
            (_, Some((_, node))) => {
                let now = self.now;
                self.nodes[node].raft.as_mut().unwrap().tick(now);
                self.drain(node);
            }
            _ => return false,
        }
        true
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Message { from, to, bytes } => {
                let lost = self.cut[from] || self.cut[to] || self.chance(self.loss_percent);
                let sender = self.nodes[from].name.clone();
                let Some(raft) = self.nodes[to].raft.as_mut().filter(|_| !lost) else {
                    return;
                };
                raft.step(now, &sender, &bytes).unwrap();
                self.drain(to);
            }
            Event::Written { node, life, ticket, record } => {
                let found = &mut self.nodes[node];
                let Some(raft) = found.raft.as_mut().filter(|_| found.life == life) else {
                    return;
                };
                apply(&mut found.disk, record);
                raft.persisted(ticket);
                self.drain(node);
            }
        }
    }

    pub fn drain(&mut self, node: usize) {
        let now = self.now;
        let found = &mut self.nodes[node];
        let Some(raft) = found.raft.as_mut() else {
            return;
        };
        let drained = raft.drain(now).unwrap();
        if let Some((index, bytes)) = drained.snapshot {
            found.state = decode(&bytes);
            found.snapshots += 1;
            writeln!(self.trace, "{now:?} w{node} installs {index}").unwrap();
        }
        for entry in &drained.committed {
            let (index, term, crc) = (entry.index, entry.term, crc32fast::hash(&entry.data));
            writeln!(self.trace, "{now:?} w{node} commits {index}@{term} {crc:08x}").unwrap();
        }
        found.state.extend(drained.committed);
        found.reads.extend(drained.reads);
        if let Some(role) = drained.role {
            writeln!(self.trace, "{now:?} w{node} {role:?}").unwrap();
        }
        let life = found.life;
        for (ticket, record) in drained.persist {
            let at = self.nodes[node].written.max(now + self.disk_delay);
            self.nodes[node].written = at;
            self.post(at, Event::Written { node, life, ticket, record });
        }
        for (to, bytes) in drained.messages {
            let to = self.nodes.iter().position(|node| node.name == to).unwrap();
            let at = now + Duration::from_micros(500 + self.draw() % 9_500);
            self.post(at, Event::Message { from: node, to, bytes });
        }
    }

    pub fn leader(&self) -> Option<usize> {
        let leads = |n: &Node| n.raft.as_ref().filter(|r| r.is_leader()).map(|r| r.term());
        let led = self.nodes.iter().enumerate().filter_map(|(i, n)| Some((leads(n)?, i)));
        led.max().map(|(_, i)| i)
    }

    pub fn raft(&mut self, node: usize) -> &mut Consensus {
        self.nodes[node].raft.as_mut().unwrap()
    }

    pub fn propose(&mut self, node: usize, data: &[u8]) -> bool {
        let taken = self.raft(node).propose(data.to_vec()).is_ok();
        self.drain(node);
        taken
    }

    /// Snapshots what the node has applied.
    pub fn compact(&mut self, node: usize) {
        let state = self.nodes[node].state.clone();
        let index = state.last().unwrap().index;
        assert!(self.raft(node).compact(index, encode(&state)).unwrap());
        self.drain(node);
    }

    /// What was committed is the same everywhere, as far as each has come.
    pub fn assert_agreed(&self) {
        for pair in self.nodes.windows(2) {
            let common = pair[0].state.len().min(pair[1].state.len());
            assert_eq!(pair[0].state[..common], pair[1].state[..common], "{}", self.trace);
        }
        for node in &self.nodes {
            let places = node.state.iter().map(|entry| entry.index);
            assert!(places.eq(1..=node.state.len() as u64), "{} has gaps", node.name);
        }
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.draw() % 100 < percent
    }

    pub fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn post(&mut self, at: Moment, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }
}

/// What the store does with a record.
pub fn apply(disk: &mut Stored, record: Record) {
    if let Some(covered) = record.compact_to {
        disk.entries.retain(|(index, _)| *index > covered);
    }
    if let Some((first, _)) = record.entries.first() {
        disk.entries.retain(|(index, _)| index < first);
    }
    disk.entries.extend(record.entries);
    disk.snapshot = record.snapshot.or(disk.snapshot.take());
    disk.hard_state = record.hard_state.or(disk.hard_state.take());
}

fn encode(state: &[Committed]) -> Vec<u8> {
    let plain: Vec<_> = state.iter().map(|e| (e.index, e.term, &e.data)).collect();
    serde_json::to_vec(&plain).unwrap()
}

fn decode(bytes: &[u8]) -> Vec<Committed> {
    let plain: Vec<(u64, u64, Vec<u8>)> = serde_json::from_slice(bytes).unwrap();
    plain.into_iter().map(|(index, term, data)| Committed { index, term, data }).collect()
}
