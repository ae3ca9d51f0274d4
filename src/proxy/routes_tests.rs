//! What the routes must never do, by example and by random runs.

use super::*;
use proptest::prelude::*;

const SPAN: Duration = Duration::from_secs(2);

fn at(millis: u64) -> Moment {
    Moment(millis * 1000)
}

fn shop() -> ClusterName {
    "shop".into()
}

fn target(server: &str) -> Target {
    let place = if server.starts_with('p') { "paris" } else { "london" };
    Target {
        server: server.into(),
        address: format!("{server}:3306").parse().unwrap(),
        data_center: place.into(),
    }
}

fn route(epoch: u64, write: Option<&str>, reads: &[&str], kept: bool) -> Route {
    Route {
        epoch: Epoch(epoch),
        write: write.map(target),
        reads: reads.iter().map(|server| target(server)).collect(),
        kept_without_quorum: kept,
    }
}

fn grant(sent: Moment, route: Route) -> ToProxy {
    ToProxy::Granted { sent, span: SPAN, routes: BTreeMap::from([(shop(), route)]) }
}

fn fresh() -> Routes {
    let mut routes = Routes::new(Timing::default(), Some("london".into()));
    routes.tick(at(1000));
    routes
}

fn tell(routes: &mut Routes, now: u64, message: ToProxy) -> Vec<Effect> {
    routes.on_message(at(now), &"w1".into(), message)
}

fn opened(routes: &mut Routes, now: u64, purpose: Purpose) -> Option<Forward> {
    match routes.open(at(now), &shop(), purpose, &[]) {
        Decision::Forward(forward) => Some(forward),
        Decision::Hold => None,
    }
}

fn cuts(effects: &[Effect]) -> Vec<(SessionId, CutReason)> {
    let cut = |effect: &Effect| match effect {
        Effect::Cut { session, reason } => Some((*session, *reason)),
        Effect::Send { .. } | Effect::Opened { .. } => None,
    };
    effects.iter().filter_map(cut).collect()
}

fn reported(effects: &[Effect]) -> Option<Epoch> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Send { message: FromProxy::Renew { seen, .. }, .. } => seen.get(&shop()).copied(),
        Effect::Cut { .. } | Effect::Opened { .. } => None,
    })
}

/// What the renewals among them say of clusters that could not be reached.
fn unreached(effects: &[Effect]) -> Vec<bool> {
    let said = |effect: &Effect| match effect {
        Effect::Send { message: FromProxy::Renew { unreached, .. }, .. } => {
            Some(unreached.contains(&shop()))
        }
        Effect::Cut { .. } | Effect::Opened { .. } => None,
    };
    effects.iter().filter_map(said).collect()
}

#[test]
fn a_server_that_cannot_be_reached_is_told_at_once_and_once() {
    let mut routes = fresh();
    tell(&mut routes, 1001, grant(at(1000), route(1, Some("p1"), &[], false)));
    assert_eq!(unreached(&routes.tick(at(1100))), [false; 0], "nothing is due");
    assert_eq!(unreached(&routes.unreached(at(1100), &shop())), [true]);
    // Many clients that come back at the same time make one renewal.
    assert_eq!(unreached(&routes.unreached(at(1101), &shop())), [false; 0]);
    assert_eq!(unreached(&routes.unreached(at(1102), &shop())), [false; 0]);
    assert_eq!(unreached(&routes.tick(at(1119))), [false; 0]);
    assert_eq!(unreached(&routes.tick(at(1120))), [true]);
    assert_eq!(unreached(&routes.tick(at(3000))), [false]);
    assert_eq!(
        unreached(&routes.unreached(at(3001), &"other".into())),
        [false; 0],
        "it has no route"
    );
}

#[test]
fn a_lease_counts_from_the_request_and_ends_by_itself() {
    let mut routes = fresh();
    assert_eq!(opened(&mut routes, 1000, Purpose::Write), None);
    tell(&mut routes, 1900, grant(at(1000), route(1, Some("p1"), &[], false)));
    let forward = opened(&mut routes, 2999, Purpose::Write).unwrap();
    assert_eq!((forward.target.server.as_str(), forward.until), ("p1", at(3000)));
    assert_eq!(opened(&mut routes, 3000, Purpose::Write), None);
    let effects = routes.tick(at(3000));
    assert_eq!(cuts(&effects), [(forward.session, CutReason::LeaseRanOut)]);
    assert_eq!(cuts(&routes.tick(at(3001))), [], "each is cut once");
}

#[test]
fn only_answers_to_own_requests_extend() {
    for wrong in [at(999), at(1001), at(9_000_000), Moment::ZERO, Moment(u64::MAX)] {
        let mut routes = fresh();
        tell(&mut routes, 1002, grant(wrong, route(1, Some("p1"), &[], false)));
        assert_eq!(opened(&mut routes, 1002, Purpose::Write), None, "{wrong:?}");
    }
}

#[test]
fn an_older_epoch_and_a_second_primary_are_not_believed() {
    let mut routes = fresh();
    tell(&mut routes, 1000, grant(at(1000), route(2, Some("p1"), &[], false)));
    for contradiction in [route(1, Some("p2"), &[], true), route(2, Some("p2"), &[], false)] {
        tell(&mut routes, 1001, grant(at(1000), contradiction));
        let forward = opened(&mut routes, 1001, Purpose::Write).unwrap();
        assert_eq!((forward.target.server.as_str(), forward.epoch), ("p1", Epoch(2)));
    }
}

#[test]
fn a_newer_epoch_cuts_and_is_reported_when_the_cut_is_done() {
    let mut routes = fresh();
    tell(&mut routes, 1000, grant(at(1000), route(1, Some("p1"), &["l1"], true)));
    let write = opened(&mut routes, 1001, Purpose::Write).unwrap();
    let read = opened(&mut routes, 1001, Purpose::Read).unwrap();
    assert!(write.writable && !read.writable);
    let changed = ToProxy::Changed { cluster: shop(), epoch: Epoch(2), leader: None };
    let effects = tell(&mut routes, 1002, changed);
    assert_eq!(cuts(&effects), [(write.session, CutReason::Superseded)]);
    assert_eq!(reported(&effects), Some(Epoch(1)), "the session may still forward");
    assert_eq!(opened(&mut routes, 1002, Purpose::Write), None, "kept, but superseded");
    let effects = routes.close(at(1003), &shop(), write.session);
    assert_eq!(reported(&effects), Some(Epoch(2)));

    let effects = tell(&mut routes, 1010, grant(at(1003), route(2, Some("l1"), &["p1"], true)));
    assert_eq!(cuts(&effects), [(read.session, CutReason::Promoted)]);
    assert!(effects.contains(&Effect::Opened { cluster: shop() }));
}

#[test]
fn any_watcher_may_tell_of_a_new_epoch_and_names_who_leads() {
    let mut routes = fresh();
    tell(&mut routes, 1000, grant(at(1000), route(1, Some("p1"), &[], false)));
    let write = opened(&mut routes, 1001, Purpose::Write).unwrap();
    let changed = |leader: &str| ToProxy::Changed {
        cluster: shop(),
        epoch: Epoch(2),
        leader: Some(leader.into()),
    };
    let effects = routes.on_message(at(1002), &"w3".into(), changed("w2"));
    assert_eq!(cuts(&effects), [(write.session, CutReason::Superseded)]);
    let asked = effects.iter().find_map(|effect| match effect {
        Effect::Send { to, .. } => Some(to.clone()),
        Effect::Cut { .. } | Effect::Opened { .. } => None,
    });
    assert_eq!(asked, Some(Some("w2".into())), "not the one that told");
}

#[test]
fn a_kept_route_outlives_its_lease() {
    let mut routes = fresh();
    tell(&mut routes, 1000, grant(at(1000), route(1, Some("p1"), &[], true)));
    let first = opened(&mut routes, 1000, Purpose::Write).unwrap();
    assert_eq!(cuts(&routes.tick(at(500_000))), []);
    assert!(opened(&mut routes, 500_000, Purpose::Write).is_some());
    let changed = ToProxy::Changed { cluster: shop(), epoch: Epoch(2), leader: None };
    assert!(cuts(&tell(&mut routes, 500_001, changed)).iter().any(|cut| cut.0 == first.session));
}

#[test]
fn reads_stay_near_spread_and_fall_back() {
    let mut routes = fresh();
    let reads = ["p2", "l1", "l2", "p1"];
    tell(&mut routes, 1000, grant(at(1000), route(1, Some("p1"), &reads, false)));
    let mut picks: Vec<String> = Vec::new();
    for _ in 0..4 {
        let forward = opened(&mut routes, 1001, Purpose::Read).unwrap();
        picks.push(forward.target.server.0);
    }
    assert_eq!(picks, ["l1", "l2", "l1", "l2"]);
    let failed: Vec<ServerName> = vec!["l1".into(), "l2".into()];
    let next = |routes: &mut Routes, failed: &[ServerName]| {
        let Decision::Forward(forward) = routes.open(at(1001), &shop(), Purpose::Read, failed)
        else {
            panic!("held");
        };
        (forward.target.server.0, forward.writable)
    };
    assert_eq!(next(&mut routes, &failed), ("p2".to_owned(), false));
    let all: Vec<ServerName> = ["l1", "l2", "p2"].map(ServerName::from).to_vec();
    assert_eq!(next(&mut routes, &all), ("p1".to_owned(), true));
}

#[test]
fn renewals_go_to_the_leader_and_to_all_when_it_falls_silent() {
    let mut routes = fresh();
    tell(&mut routes, 1000, grant(at(1000), route(1, Some("p1"), &[], false)));
    let to = |effects: Vec<Effect>| match effects.first() {
        Some(Effect::Send { to, .. }) => Some(to.clone()),
        _ => None,
    };
    let mut asked = Vec::new();
    for now in 1001..2700 {
        asked.extend(to(routes.tick(at(now))).map(|to| (now, to)));
    }
    assert_eq!(asked[0], (1500, Some("w1".into())));
    let searching = asked.iter().find(|(_, to)| to.is_none()).unwrap().0;
    assert!(searching <= 2500, "asked all at {searching}");
    assert!(asked.len() < 20);
}

#[derive(Clone, Debug)]
enum Act {
    Pass(u64),
    Grant { back: usize, epoch: u64, server: u8, kept: bool },
    Bogus { sent: u64, epoch: u64 },
    Changed(u64),
    Open(bool),
    Close(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0u64..900).prop_map(Act::Pass),
        4 => (0usize..6, 1u64..6, 0u8..4, prop::bool::weighted(0.2))
            .prop_map(|(back, epoch, server, kept)| Act::Grant { back, epoch, server, kept }),
        1 => (any::<u64>(), 1u64..6).prop_map(|(sent, epoch)| Act::Bogus { sent, epoch }),
        1 => (1u64..7).prop_map(Act::Changed),
        4 => any::<bool>().prop_map(Act::Open),
        2 => any::<prop::sample::Index>().prop_map(|index| Act::Close(index.index(64))),
    ]
}

/// What an observer knows, in the simplest terms.
#[derive(Default)]
struct Shadow {
    newest: u64,
    sent: Vec<Moment>,
    /// Epoch, server, end and whether kept, of every honest grant.
    grants: Vec<(u64, String, Moment, bool)>,
    open: BTreeMap<SessionId, (u64, String, bool)>,
}

impl Shadow {
    fn note(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Send { message: FromProxy::Renew { sent, seen, .. }, .. } => {
                    self.sent.push(*sent);
                    let seen = seen.get(&shop()).map_or(0, |epoch| epoch.0);
                    let older =
                        self.open.values().any(|(epoch, _, writes)| *writes && *epoch < seen);
                    // A cut session is still in `open` here until it is closed below.
                    assert!(!older, "reported {seen} with an older session open");
                }
                Effect::Cut { session, .. } => assert!(self.open.contains_key(session)),
                Effect::Opened { .. } => {}
            }
        }
    }

    fn may_write(&self, now: Moment, epoch: u64, server: &str) -> bool {
        epoch == self.newest
            && self.grants.iter().any(|(granted, to, end, kept)| {
                *granted == epoch && to == server && (*kept || now < *end)
            })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]
    #[test]
    fn nothing_is_forwarded_to_a_primary_without_a_living_lease(
        acts in prop::collection::vec(act(), 1..80),
    ) {
        let mut routes = Routes::new(Timing::default(), None);
        let mut shadow = Shadow::default();
        let mut now = at(1000);
        let mut cut: Vec<SessionId> = Vec::new();
        for act in acts {
            let mut effects = routes.tick(now);
            shadow.note(&effects);
            let more = match act {
                Act::Pass(millis) => { now = now + Duration::from_millis(millis); routes.tick(now) }
                Act::Grant { back, epoch, server, kept } => {
                    let Some(sent) = shadow.sent.iter().rev().nth(back).copied() else { continue };
                    shadow.newest = shadow.newest.max(epoch);
                    // Server 3 stands for none.
                    let name = format!("p{}", (u64::from(server) + epoch) % 3);
                    let write = (server < 3).then_some(name.as_str());
                    if server < 3 {
                        shadow.grants.push((epoch, name.clone(), sent + SPAN, kept));
                    }
                    let reads = ["p0", "p1", "l1"];
                    routes.on_message(now, &"w1".into(), grant(sent, route(epoch, write, &reads, kept)))
                }
                Act::Bogus { sent, epoch } => {
                    let sent = Moment(sent);
                    if shadow.sent.contains(&sent) { continue }
                    shadow.newest = shadow.newest.max(epoch);
                    routes.on_message(now, &"w2".into(), grant(sent, route(epoch, Some("l9"), &[], true)))
                }
                Act::Changed(epoch) => {
                    shadow.newest = shadow.newest.max(epoch);
                    let changed = ToProxy::Changed { cluster: shop(), epoch: Epoch(epoch), leader: None };
                    routes.on_message(now, &"w1".into(), changed)
                }
                Act::Open(write) => {
                    let purpose = if write { Purpose::Write } else { Purpose::Read };
                    if let Decision::Forward(forward) = routes.open(now, &shop(), purpose, &[]) {
                        let server = forward.target.server.0.clone();
                        prop_assert!(forward.writable || !write);
                        if forward.writable {
                            prop_assert!(shadow.may_write(now, forward.epoch.0, &server));
                        }
                        shadow.open.insert(forward.session, (forward.epoch.0, server, forward.writable));
                    }
                    Vec::new()
                }
                Act::Close(index) => {
                    let Some(id) = shadow.open.keys().nth(index).copied() else { continue };
                    shadow.open.remove(&id);
                    routes.close(now, &shop(), id)
                }
            };
            shadow.note(&more);
            effects.extend(more);
            cut.extend(cuts(&effects).iter().map(|(id, _)| *id));
            for (id, (epoch, server, writable)) in &shadow.open {
                if *writable && !cut.contains(id) {
                    prop_assert!(shadow.may_write(now, *epoch, server), "{id:?} goes on");
                }
            }
        }
    }
}
