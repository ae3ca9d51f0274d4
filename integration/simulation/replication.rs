//! How transactions move between model servers: receivers, acknowledgements, appliers.

use crate::network::Node;
use crate::servers::Txn;
use crate::world::{Event, MILLI, SECOND, World};

/// A receiver that hears nothing for so long connects again (`replica_net_timeout`).
const NET_TIMEOUT: u64 = 4 * SECOND;

/// Why a receiver did not get through: nobody answers at that address, or all connections are taken.
const NO_WAY: u32 = 2003;
const CROWDED: u32 = 1040;

/// An idle source sends a heartbeat so often.
const HEARTBEAT: u64 = 250 * MILLI;

impl World {
    /// A server's threads do what is to be done by now.
    pub fn server_tick(&mut self, number: usize) {
        let wait = self.random.range(3 * MILLI, 12 * MILLI);
        self.after(wait, Event::ServerTick { server: number });
        if !self.servers[number].answers(self.now) || self.servers[number].stalled {
            return;
        }
        self.receive(number);
        let now = self.now;
        self.servers[number].apply(now);
    }

    fn receive(&mut self, number: usize) {
        let now = self.now;
        let Some(one) = self.servers[number].following.clone().filter(|one| one.receiver) else {
            return;
        };
        let source = &self.servers[one.source];
        let alive = source.answers(now) && one.source != number;
        let (here, there) = (Node::Server(number), Node::Server(one.source));
        if !one.connected {
            let way = self.network.connects(here, there);
            let reached = alive && !source.full && way;
            // A server that hangs lets the attempt wait instead of ending it.
            let ended = !(way && source.hung);
            let code = if way && alive { CROWDED } else { NO_WAY };
            let semi = self.servers[number].replica_on;
            let life = source.life;
            let retry = self.random.range(50 * MILLI, 300 * MILLI);
            if let Some(mine) = &mut self.servers[number].following {
                if reached && now >= one.retry_at {
                    mine.connected = true;
                    (mine.semi, mine.source_life) = (semi, life);
                    (mine.position, mine.heard_at, mine.turned_away) = (0, now, None);
                } else if now >= one.retry_at {
                    mine.retry_at = now + retry;
                    mine.turned_away = if ended { Some(code) } else { mine.turned_away };
                }
            }
            return;
        }
        let reset = !source.up || source.life != one.source_life;
        let heard = alive && self.network.reaches(there, here);
        let gone = reset && self.network.connects(here, there);
        if gone || now > one.heard_at + NET_TIMEOUT {
            if let Some(mine) = &mut self.servers[number].following {
                mine.connected = false;
                mine.retry_at = now + 100 * MILLI;
            }
        } else if heard && !reset {
            self.pull(number, one.source);
        }
    }

    /// Takes over what the source has written since the last time.
    fn pull(&mut self, number: usize, source: usize) {
        let now = self.now;
        let from = self.servers[number].following.as_ref().map_or(0, |one| one.position);
        let log: Vec<Txn> = self.servers[source].log.iter().skip(from).take(200).copied().collect();
        let server = &mut self.servers[number];
        let Some(one) = &mut server.following else {
            return;
        };
        one.position += log.len();
        let mut news = now >= one.heard_at + HEARTBEAT;
        for txn in log {
            if server.executed.of(txn.origin).max(one.received.of(txn.origin)) < txn.seq {
                one.received.raise(txn.origin, txn.seq);
                server.relay.push_back(txn);
                news = true;
            }
        }
        if news {
            one.beats += 1;
            one.heard_at = now;
        }
        let semi = one.semi;
        let seq = server.received().of(source);
        let source_life = self.servers[source].life;
        let waiting = !self.servers[source].waiting.is_empty();
        if semi && waiting && self.network.reaches(Node::Server(number), Node::Server(source)) {
            let (here, there) = (Node::Server(number), Node::Server(source));
            let way = self.network.delay(&mut self.random, here, there);
            let replica = number;
            self.after(way, Event::Acknowledged { source, source_life, replica, seq });
        }
    }

    /// An acknowledgement arrives at a source.
    pub fn acknowledged(&mut self, source: usize, source_life: u32, replica: usize, seq: u64) {
        let server = &mut self.servers[source];
        if server.life != source_life || !server.up {
            return;
        }
        if server.hung {
            let again = Event::Acknowledged { source, source_life, replica, seq };
            return self.after(20 * MILLI, again);
        }
        server.acknowledge(replica, seq);
        self.complete_commits(source);
    }

    /// Commits that waited long enough answer their clients.
    pub fn complete_commits(&mut self, source: usize) {
        for done in self.servers[source].complete() {
            self.reply(done.write, Some((done.seq, self.now)));
        }
    }

    /// How many acknowledging replicas are connected to a source.
    pub fn semi_sync_clients(&self, source: usize) -> u32 {
        let life = self.servers[source].life;
        let mut clients = 0;
        for server in &self.servers {
            let counts = |one: &crate::servers::Following| {
                one.source == source && one.connected && one.semi && one.source_life == life
            };
            clients += u32::from(server.up && server.following.as_ref().is_some_and(counts));
        }
        clients
    }
}
