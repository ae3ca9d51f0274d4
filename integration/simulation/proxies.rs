//! Proxies, with the real routes, and their clients, who remember what was acknowledged.

use crate::network::Node;
use crate::setting::{self, Setting};
use crate::world::{Event, LocalClock, MILLI, SECOND, World};
use regent::clock::Moment;
use regent::decision::lease::{FromProxy, ToProxy};
use regent::decision::report::Writable;
use regent::decision::topology::{DataCenter, Epoch, ProxyName, WatcherName};
use regent::proxy::routes::{Decision, Effect, Purpose, Routes, SessionId};
use std::collections::BTreeMap;

/// Clients of one proxy.
const CLIENTS: usize = 2;

/// A client gives up on an answer after that.
const PATIENCE: u64 = 3 * SECOND;

/// One proxy.
pub struct ProxyHost {
    pub name: ProxyName,
    pub clock: LocalClock,
    pub routes: Routes,
    pub clients: Vec<Client>,
    tick_at: u64,
    /// What leases allow, reckoned apart from the routes: until when on its own clock, and whether
    /// the route is kept without.
    pub allowed: BTreeMap<Epoch, (Moment, bool)>,
    pub writes: BTreeMap<u64, Write>,
}

/// One client.
#[derive(Debug, Default)]
pub struct Client {
    pub session: Option<Session>,
    waits: bool,
    /// When it acts next.
    acts_at: u64,
}

/// A client's session on the primary.
#[derive(Clone, Debug)]
pub struct Session {
    pub id: SessionId,
    pub server: usize,
    pub epoch: Epoch,
    /// The server's generation when it connected.
    generation: u64,
    in_flight: Option<u64>,
}

/// A write on its way.
#[derive(Clone, Debug)]
pub struct Write {
    pub proxy: usize,
    pub client: usize,
    pub session: SessionId,
    pub server: usize,
    pub server_life: u32,
    pub epoch: Epoch,
    generation: u64,
}

impl ProxyHost {
    pub fn new(setting: &Setting, number: usize, clock: LocalClock) -> ProxyHost {
        let place = DataCenter::from(setting::PLACES[setting.proxies[number]]);
        ProxyHost {
            name: ProxyName(format!("p{}", number + 1)),
            clock,
            routes: Routes::new(setting.timing, Some(place)),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            tick_at: u64::MAX,
            allowed: BTreeMap::new(),
            writes: BTreeMap::new(),
        }
    }
}

impl World {
    pub fn proxy_now(&self, number: usize) -> Moment {
        self.proxies[number].clock.read(self.now)
    }

    pub fn proxy_tick(&mut self, number: usize) {
        let host = &mut self.proxies[number];
        if host.tick_at != u64::MAX && host.tick_at > self.now {
            return;
        }
        host.tick_at = u64::MAX;
        let now = self.proxy_now(number);
        let effects = self.proxies[number].routes.tick(now);
        self.proxy_does(number, effects);
    }

    pub fn proxy_hears(&mut self, from: usize, number: usize, message: ToProxy) {
        let message = crate::flaws::stretch(&self.setting, message);
        if let ToProxy::Granted { sent, span, routes } = &message
            && let Some(route) = routes.get(&setting::cluster())
        {
            let until = *sent + *span;
            let kept = route.kept_without_quorum;
            let allowed = self.proxies[number].allowed.entry(route.epoch).or_default();
            *allowed = (until.max(allowed.0), kept || allowed.1);
        }
        let now = self.proxy_now(number);
        let watcher = self.watchers[from].name.clone();
        let effects = self.proxies[number].routes.on_message(now, &watcher, message);
        self.proxy_does(number, effects);
    }

    pub fn proxy_link(&mut self, number: usize, watcher: usize, up: bool) {
        let now = self.proxy_now(number);
        let name = self.watchers[watcher].name.clone();
        let effects = self.proxies[number].routes.on_link(now, &name, up);
        self.proxy_does(number, effects);
    }

    /// A session that was cut has ended.
    pub fn close_session(&mut self, number: usize, session: u64) {
        let now = self.proxy_now(number);
        let effects =
            self.proxies[number].routes.close(now, &setting::cluster(), SessionId(session));
        self.proxy_does(number, effects);
    }

    fn proxy_does(&mut self, number: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.proxy_sends(number, to.as_ref(), &message),
                Effect::Cut { session, reason } => {
                    self.tally.count("cut", reason.as_str());
                    for client in &mut self.proxies[number].clients {
                        if client.session.as_ref().is_some_and(|one| one.id == session) {
                            client.session = None;
                        }
                    }
                    let wait = self.random.range(0, 3 * MILLI);
                    self.after(wait, Event::Close { proxy: number, session: session.0 });
                }
                Effect::Opened { .. } => {
                    for client in 0..self.proxies[number].clients.len() {
                        if self.proxies[number].clients[client].waits {
                            self.client_later(number, client, 1);
                        }
                    }
                }
            }
        }
        let host = &mut self.proxies[number];
        let wake = host.clock.when(host.routes.next_deadline()).max(self.now + 1);
        if wake < host.tick_at {
            host.tick_at = wake;
            self.at(wake, Event::ProxyTick { proxy: number });
        }
    }

    fn proxy_sends(&mut self, number: usize, to: Option<&WatcherName>, message: &FromProxy) {
        for watcher in 0..self.watchers.len() {
            if to.is_some_and(|to| *to != self.watchers[watcher].name) {
                continue;
            }
            let (here, there) = (Node::Proxy(number), Node::Watcher(watcher));
            if self.arrives(here, there) {
                let at = self.network.in_order(&mut self.random, here, there, self.now);
                let message = message.clone();
                self.at(at, Event::FromProxy { from: number, to: watcher, message });
            }
        }
    }

    /// The client acts after that time, and not before.
    pub fn client_later(&mut self, number: usize, client: usize, wait: u64) {
        self.proxies[number].clients[client].acts_at = self.now + wait;
        self.after(wait, Event::Client { proxy: number, client });
    }

    /// A client connects, or writes.
    pub fn client_acts(&mut self, number: usize, client: usize) {
        if self.proxies[number].clients[client].acts_at != self.now {
            return;
        }
        match self.proxies[number].clients[client].session.clone() {
            None => self.connect(number, client),
            Some(session) if session.in_flight.is_none() => {
                self.write(number, client, session);
                let wait = self.random.range(15 * MILLI, 60 * MILLI);
                self.client_later(number, client, wait);
            }
            Some(_) => {
                let wait = self.random.range(15 * MILLI, 60 * MILLI);
                self.client_later(number, client, wait);
            }
        }
    }

    fn connect(&mut self, number: usize, client: usize) {
        let now = self.proxy_now(number);
        let cluster = setting::cluster();
        let host = &mut self.proxies[number];
        let mut wait = self.random.range(20 * MILLI, 60 * MILLI);
        match host.routes.open(now, &cluster, Purpose::Write, &[]) {
            Decision::Hold => {
                if !host.clients[client].waits {
                    host.clients[client].waits = true;
                    let effects = host.routes.wait(now, &cluster);
                    self.proxy_does(number, effects);
                }
                wait = 300 * MILLI;
            }
            Decision::Forward(forward) => {
                let host = &mut self.proxies[number];
                if std::mem::take(&mut host.clients[client].waits) {
                    host.routes.stop_waiting(&cluster);
                }
                let server = setting::server_number(&forward.target.server);
                self.forwarded(number, server, forward.epoch);
                let there = Node::Server(server);
                let reached = self.network.connects(Node::Proxy(number), there)
                    && self.servers[server].answers(self.now)
                    && !self.servers[server].full;
                if reached {
                    let session = Session {
                        id: forward.session,
                        server,
                        epoch: forward.epoch,
                        generation: self.servers[server].generation,
                        in_flight: None,
                    };
                    self.proxies[number].clients[client].session = Some(session);
                } else {
                    wait = 100 * MILLI;
                    let effects = self.proxies[number].routes.unreached(now, &cluster);
                    self.proxy_does(number, effects);
                    self.close_session(number, forward.session.0);
                }
            }
        }
        self.client_later(number, client, wait);
    }

    fn write(&mut self, number: usize, client: usize, session: Session) {
        let id = self.id();
        let write = Write {
            proxy: number,
            client,
            session: session.id,
            server: session.server,
            server_life: self.servers[session.server].life,
            epoch: session.epoch,
            generation: session.generation,
        };
        // Every chunk is checked against the lease once more.
        if self.proxies[number].routes.lease_end(&setting::cluster()) <= self.proxy_now(number) {
            return;
        }
        let (here, there) = (Node::Proxy(number), Node::Server(session.server));
        self.proxies[number].writes.insert(id, write);
        if let Some(session) = &mut self.proxies[number].clients[client].session {
            session.in_flight = Some(id);
        }
        if self.network.reaches(here, there) {
            let at = self.network.in_order(&mut self.random, here, there, self.now);
            self.at(at, Event::WriteArrives { write: id });
        }
        self.after(PATIENCE, Event::WriteTimesOut { write: id });
    }

    fn find_write(&self, id: u64) -> Option<Write> {
        self.proxies.iter().find_map(|proxy| proxy.writes.get(&id)).cloned()
    }

    /// A write reaches its server.
    pub fn write_arrives(&mut self, id: u64) {
        let Some(write) = self.find_write(id) else {
            return;
        };
        let server = &mut self.servers[write.server];
        if server.hung || server.stalled {
            server.backlog.push((id, write.generation));
            return;
        }
        let refused = !server.up
            || server.life != write.server_life
            || server.generation != write.generation
            || server.writable != Writable::Open;
        if refused {
            return self.reply(id, None);
        }
        let committed = self.servers[write.server].write(id, self.now);
        self.invariants.written += 1;
        if let Some(seq) = committed {
            self.reply(id, Some((seq, self.now)));
        }
    }

    /// A server answers a write: with its number and the time of its commit, or with an error.
    pub fn reply(&mut self, id: u64, committed: Option<(u64, u64)>) {
        let Some(write) = self.find_write(id) else {
            return;
        };
        let (here, there) = (Node::Server(write.server), Node::Proxy(write.proxy));
        if self.network.reaches(here, there) {
            let at = self.network.in_order(&mut self.random, here, there, self.now);
            self.at(at, Event::WriteReplied { write: id, committed });
        }
    }

    pub fn write_replied(&mut self, id: u64, committed: Option<(u64, u64)>) {
        let Some(write) = self.find_write(id) else {
            return;
        };
        let session = &mut self.proxies[write.proxy].clients[write.client].session;
        let heard = |open: &&mut Session| open.id == write.session && open.in_flight == Some(id);
        let Some(open) = session.as_mut().filter(heard) else {
            return; // It was cut, or given up: nobody hears the answer.
        };
        open.in_flight = None;
        match committed {
            Some((seq, at)) => self.client_told(&write, seq, at),
            None => {
                *session = None;
                self.close_session(write.proxy, write.session.0);
            }
        }
    }

    /// The client gives up: what became of the write is unknown.
    pub fn write_times_out(&mut self, id: u64) {
        let Some(write) = self.find_write(id) else {
            return;
        };
        let session = &mut self.proxies[write.proxy].clients[write.client].session;
        let waits = |open: &Session| open.id == write.session && open.in_flight == Some(id);
        if session.as_ref().is_some_and(waits) {
            *session = None;
            self.close_session(write.proxy, write.session.0);
        }
    }

    /// A server that hung goes on, with all that came meanwhile.
    pub fn server_wakes(&mut self, number: usize) {
        self.servers[number].hung = false;
        if !self.servers[number].stalled {
            self.take_up(number);
        }
    }

    /// Writes that had to wait go on.
    pub fn take_up(&mut self, number: usize) {
        let server = &mut self.servers[number];
        for (write, _) in std::mem::take(&mut server.backlog) {
            self.after(1, Event::WriteArrives { write });
        }
    }

    /// Connections to a server end: whoever waits for an answer gets an error.
    pub fn sessions_end(&mut self, server: usize) {
        let mut waiting = Vec::new();
        for client in self.proxies.iter().flat_map(|proxy| &proxy.clients) {
            if let Some(session) = client.session.as_ref().filter(|one| one.server == server) {
                waiting.extend(session.in_flight);
            }
        }
        for write in waiting {
            self.reply(write, None);
        }
    }
}
