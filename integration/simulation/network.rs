//! Who can reach whom, and how long that takes.

use crate::random::Random;
use std::collections::BTreeMap;

/// A participant with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    Watcher(usize),
    Server(usize),
    Proxy(usize),
}

/// One end of a broken way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Node(Node),
    Place(usize),
    Anybody,
}

/// Nothing passes from one side to the other.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub id: u64,
    pub from: Side,
    pub to: Side,
}

/// The network of a run.
#[derive(Debug, Default)]
pub struct Network {
    places: BTreeMap<Node, usize>,
    cuts: Vec<Cut>,
    last: BTreeMap<(Node, Node), u64>,
    /// In a thousand.
    pub loss: u64,
    pub doubled: u64,
    /// Added to some messages, in microseconds.
    pub slowness: u64,
}

impl Network {
    pub fn place(&mut self, node: Node, place: usize) {
        self.places.insert(node, place);
    }

    pub fn cut(&mut self, cut: Cut) {
        self.cuts.push(cut);
    }

    pub fn mend(&mut self, id: u64) {
        self.cuts.retain(|cut| cut.id != id);
    }

    pub fn heal(&mut self) {
        self.cuts.clear();
        (self.loss, self.doubled, self.slowness) = (0, 0, 0);
    }

    /// Whether something sent now from one to the other arrives.
    pub fn reaches(&self, from: Node, to: Node) -> bool {
        !self.cuts.iter().any(|cut| self.is(from, cut.from) && self.is(to, cut.to))
    }

    /// Whether two can hold a conversation.
    pub fn connects(&self, a: Node, b: Node) -> bool {
        self.cuts.is_empty() || (self.reaches(a, b) && self.reaches(b, a))
    }

    fn is(&self, node: Node, side: Side) -> bool {
        match side {
            Side::Node(one) => one == node,
            Side::Place(place) => self.places[&node] == place,
            Side::Anybody => true,
        }
    }

    /// Microseconds from one to the other for one message.
    pub fn delay(&self, random: &mut Random, from: Node, to: Node) -> u64 {
        let near = self.places[&from] == self.places[&to];
        let base = if near { random.range(100, 700) } else { random.range(2_000, 9_000) };
        let slow = self.slowness > 0 && random.permille(150);
        base + if slow { random.range(0, self.slowness) } else { 0 }
    }

    /// The same for one message of a stream, which never overtakes an earlier one.
    pub fn in_order(&mut self, random: &mut Random, from: Node, to: Node, now: u64) -> u64 {
        let at = now + self.delay(random, from, to);
        let last = self.last.entry((from, to)).or_default();
        *last = at.max(*last);
        *last
    }
}
