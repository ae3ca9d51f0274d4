//! Chores: standing work for a cluster's backups of which one watcher at a time does the whole.
//!
//! What was done lies at the target, so nobody keeps an account of a chore, and it is given like a lease.
//! Its holder begins when its leader has confirmed what it said, and goes on as long as it is confirmed again
//! and again. It trusts a confirmation for [`TRUSTED`] from when it spoke; a leader takes it for dead
//! [`SILENT`] after it confirmed last, and a new leader waits as long from its own beginning. A leader confirms
//! only while nobody else can lead. So a chore has ended before somebody else begins it.

use super::archive::account;
use super::duty::{SILENT, TRUSTED};
use super::proofs::Seen;
use super::proving;
use super::reason::shortened;
use crate::clock::{Moment, WallTime};
use crate::decision::topology::{ClusterName, WatcherName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// One that fell silent gets it again after so long, unless another one does it then.
const SILENCE_PAUSE: Duration = Duration::from_secs(60);

/// Targets that are told of.
const MOST_TARGETS: usize = 32;

/// One that could not archive is given it again so soon: servers purge their logs.
const ARCHIVE_PAUSE: Duration = Duration::from_secs(60);

/// A kind of standing work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chore {
    /// Restore backups into servers that are thrown away, and write down what came of it.
    Prove,
    /// Archive the binary log.
    Archive,
}

/// The chores of all clusters that have any.
pub type Chores = BTreeMap<ClusterName, BTreeSet<Chore>>;

impl Chore {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Chore::Prove => "prove",
            Chore::Archive => "archive",
        }
    }

    /// How long a watcher that could not do it is not given it again.
    pub fn pause(self) -> Duration {
        match self {
            Chore::Prove => proving::PAUSE,
            Chore::Archive => ARCHIVE_PAUSE,
        }
    }
}

impl fmt::Display for Chore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a holder tells of its work. A field that another version lacks is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Work {
    /// What goes on, as a sentence; empty while there is nothing to do.
    pub doing: String,
    /// Since when.
    pub since: Option<WallTime>,
    /// How many bytes of it are done.
    pub bytes: u64,
    /// How many there are, as far as that is known.
    pub total: Option<u64>,
    /// What failed last, until it goes well; empty when nothing did.
    pub trouble: String,
    /// What it saw of proofs, a target each; empty before the first look.
    pub proofs: Vec<Seen>,
    /// How far the archive is; absent while nobody knows.
    pub archive: Option<Box<account::Seen>>,
}

impl Work {
    /// The same with no more than is kept of it.
    #[must_use]
    pub fn bounded(mut self) -> Work {
        for text in [&mut self.doing, &mut self.trouble] {
            *text = shortened(text);
        }
        self.proofs.truncate(MOST_TARGETS);
        self.proofs.iter_mut().for_each(Seen::bound);
        if let Some(archive) = &mut self.archive {
            archive.bound();
        }
        self
    }
}

/// A chore as its holder knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    given: Moment,
    working: bool,
    until: Moment,
}

impl Hold {
    /// The leader gives it; nothing is begun before the leader confirms what is said from now on.
    pub fn given(now: Moment) -> Hold {
        Hold { given: now, working: false, until: now + TRUSTED }
    }

    /// The leader confirms what was said then; true when the work begins with that.
    pub fn confirmed(&mut self, now: Moment, said: Moment) -> bool {
        let trusted = said.min(now) + TRUSTED;
        // What it said when it had it before is no news.
        if said < self.given || self.is_over(now) || now >= trusted {
            return false;
        }
        let begins = !self.working;
        self.until = if begins { trusted } else { self.until.max(trusted) };
        self.working = true;
        begins
    }

    /// Whether the work was begun.
    pub fn is_working(&self) -> bool {
        self.working
    }

    /// Whether it must have ended by now.
    pub fn is_over(&self, now: Moment) -> bool {
        now >= self.until
    }

    /// When it must have ended, if nothing more is confirmed.
    pub fn until(&self) -> Moment {
        self.until
    }
}

/// A chore as its leader knows it; lost with the office.
#[derive(Clone, Debug)]
pub struct Charge {
    /// Nobody is given it before: whoever has it from a former leader may still be at it.
    free: Moment,
    holder: Option<Holder>,
    /// Who is not given it before when, and why.
    failed: BTreeMap<WatcherName, (Moment, String)>,
}

/// Who has a chore.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    watcher: WatcherName,
    working: bool,
    /// When it was given the chore, or last confirmed.
    heard: Moment,
}

impl Charge {
    /// As a leader has it that begins now.
    pub fn begin(now: Moment) -> Charge {
        Charge { free: now + SILENT, holder: None, failed: BTreeMap::new() }
    }

    /// Whether what a watcher says is confirmed. Must be asked only while nobody else can lead.
    pub fn hear(&mut self, now: Moment, from: &WatcherName, working: bool) -> bool {
        // It goes on with what a former leader gave it; nobody begins meanwhile.
        let inherits = now < self.free;
        match &mut self.holder {
            Some(holder) if holder.watcher == *from && (working || !inherits) => {
                holder.heard = now;
                holder.working = working;
                true
            }
            None if working && inherits => {
                self.holder = Some(Holder { watcher: from.clone(), working, heard: now });
                true
            }
            _ => false,
        }
    }

    /// A watcher has ended because it cannot do it; true when it was its.
    pub fn gave_up(&mut self, now: Moment, chore: Chore, from: &WatcherName, why: &str) -> bool {
        let its = self.holder.take_if(|holder| holder.watcher == *from).is_some();
        if its {
            self.failed.insert(from.clone(), (now + chore.pause(), shortened(why)));
        }
        its
    }

    /// Forgets a holder that is silent; what it had is over by itself.
    pub fn look(&mut self, now: Moment) {
        self.failed.retain(|_, (again, _)| *again > now);
        let silent = |holder: &mut Holder| now.since(holder.heard) >= SILENT;
        if let Some(Holder { watcher, .. }) = self.holder.take_if(silent) {
            let why = format!("it was not heard for {} s", SILENT.as_secs());
            self.failed.insert(watcher, (now + SILENCE_PAUSE, why));
        }
    }

    /// Whether somebody may be given it now.
    pub fn is_free(&self, now: Moment) -> bool {
        self.holder.is_none() && now >= self.free
    }

    /// Those who could not do it lately.
    pub fn tried(&self) -> Vec<WatcherName> {
        self.failed.keys().cloned().collect()
    }

    /// Why those could not.
    pub fn reasons(&self) -> String {
        let each = self.failed.iter().map(|(watcher, (_, why))| format!("{watcher}: {why}"));
        each.collect::<Vec<_>>().join("; ")
    }

    /// Gives it to a watcher; only when it is free.
    pub fn give(&mut self, now: Moment, to: &WatcherName) {
        self.holder = Some(Holder { watcher: to.clone(), working: false, heard: now });
    }

    /// Who has it.
    pub fn holder(&self) -> Option<&WatcherName> {
        self.holder.as_ref().map(|holder| &holder.watcher)
    }

    /// Whether its holder says that it works.
    pub fn is_worked_at(&self) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.working)
    }
}

/// A chore as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChoreView {
    /// Which, such as `prove`.
    pub chore: String,
    /// Who has it; absent while nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watcher: Option<WatcherName>,
    /// Whether that watcher has begun.
    pub working: bool,
    /// What it does right now, as a sentence; empty while there is nothing to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub doing: String,
    /// Since when it does that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<WallTime>,
    /// How many bytes of that are done.
    #[serde(default)]
    pub bytes: u64,
    /// How many there are, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// What failed last, until it goes well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
    /// Who could not do it lately, and why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failed: String,
}

impl ChoreView {
    /// What the leader knows of it, and what its holder said last.
    pub fn of(chore: Chore, charge: &Charge, work: &Work) -> ChoreView {
        let working = charge.is_worked_at();
        let Work { doing, since, bytes, total, trouble, .. } =
            if working { work.clone() } else { Work::default() };
        ChoreView {
            chore: chore.word().to_owned(),
            watcher: charge.holder().cloned(),
            working,
            doing,
            since,
            bytes,
            total,
            trouble,
            failed: charge.reasons(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000)
    }

    /// What one line of a story does to a charge, and what is expected then.
    enum Then {
        /// That watcher says that it is ready (false) or works (true); whether that is confirmed.
        Says(&'static str, bool, bool),
        GivesUp(&'static str),
        Give(&'static str),
        /// Whether it is free, and who has it.
        Stands(bool, &'static str),
    }
    use Then::{Give, GivesUp, Says, Stands};

    fn play(name: &str, story: &[(u64, Then)]) {
        let mut charge = Charge::begin(at(0));
        for (second, then) in story {
            let now = at(*second);
            charge.look(now);
            match then {
                Says(who, working, confirmed) => {
                    let found = charge.hear(now, &(*who).into(), *working);
                    assert_eq!(found, *confirmed, "{name}, {second} s: {who}");
                }
                GivesUp(who) => {
                    charge.gave_up(now, Chore::Prove, &(*who).into(), "no key");
                }
                Give(who) => {
                    assert!(charge.is_free(now), "{name}, {second} s");
                    charge.give(now, &(*who).into());
                }
                Stands(free, holder) => {
                    let found = charge.holder().map_or("", WatcherName::as_str);
                    assert_eq!(
                        (charge.is_free(now), found),
                        (*free, *holder),
                        "{name}, {second} s"
                    );
                }
            }
        }
    }

    #[test]
    fn one_has_it_at_a_time() {
        play("nobody had it", &[(14, Stands(false, "")), (15, Stands(true, "")), (15, Give("b"))]);
        play(
            "one had it from a former leader",
            &[
                (1, Says("c", false, false)),
                (2, Says("b", true, true)),
                (3, Says("c", true, false)),
                (14, Says("b", false, false)),
                (14, Says("b", true, true)),
                (16, Says("b", false, true)),
                (30, Stands(false, "b")),
                (31, Stands(true, "")),
            ],
        );
        play("it comes too late", &[(15, Says("b", true, false)), (15, Stands(true, ""))]);
        play(
            "one that never answers is not picked for ever",
            &[(15, Give("b")), (29, Stands(false, "b")), (30, Stands(true, "")), (30, Give("c"))],
        );
        play(
            "one that cannot ends at once",
            &[
                (15, Give("b")),
                (16, Says("b", false, true)),
                (17, GivesUp("c")),
                (17, Stands(false, "b")),
                (18, GivesUp("b")),
                (18, Stands(true, "")),
                (18, Says("b", true, false)),
            ],
        );
    }

    #[test]
    fn those_that_failed_are_named_until_they_may_try_again() {
        let mut charge = Charge::begin(at(0));
        charge.give(at(15), &"b".into());
        charge.gave_up(at(16), Chore::Prove, &"b".into(), "no key");
        charge.give(at(16), &"c".into());
        charge.look(at(31));
        assert_eq!(charge.tried(), ["b", "c"].map(WatcherName::from));
        assert_eq!(charge.reasons(), "b: no key; c: it was not heard for 15 s");
        charge.look(at(91));
        assert_eq!(charge.tried(), ["b"].map(WatcherName::from));
        charge.look(at(16 + 3_600));
        assert!(charge.tried().is_empty());
    }

    #[test]
    fn a_holder_goes_on_as_long_as_it_is_confirmed() {
        for (name, confirmed, begins, over_at) in [
            ("at once", (1, 0), true, 12),
            ("what was said early counts little", (11, 1), true, 13),
            ("too late", (13, 12), false, 12),
            ("what others said is no news", (20, 5), false, 12),
        ] {
            let mut hold = Hold::given(at(0));
            let (now, said) = confirmed;
            assert_eq!(hold.confirmed(at(now), at(said)), begins, "{name}");
            assert_eq!(hold.until(), at(over_at), "{name}");
            assert!(!hold.confirmed(at(now), at(said)), "{name}: it begins once");
        }
    }

    proptest! {
        /// Two leaders, the second from some moment on, three watchers, messages that take any time.
        #[test]
        fn nobody_begins_before_the_former_one_has_ended(
            change in 0_u64..60,
            delays in proptest::collection::vec(0_u64..20, 1..200),
            picks in proptest::collection::vec(0_usize..3, 1..50),
        ) {
            let names: Vec<WatcherName> = ["a", "b", "c"].map(WatcherName::from).to_vec();
            let (mut delays, mut picks) = (delays.iter().cycle(), picks.iter().cycle());
            let mut holds: Vec<Option<Hold>> = vec![None; 3];
            // When it arrives, with whom, and what was said when.
            let mut orders: Vec<(u64, usize)> = Vec::new();
            let mut words: Vec<(u64, usize, bool, u64)> = Vec::new();
            let mut answers: Vec<(u64, usize, u64)> = Vec::new();
            let mut charge = Charge::begin(at(0));
            for second in 0..150 {
                let now = at(second);
                if second == change {
                    charge = Charge::begin(now);
                }
                charge.look(now);
                if charge.is_free(now) {
                    charge.give(now, &names[*picks.next().unwrap()]);
                }
                if let Some(holder) = charge.holder() {
                    let who = names.iter().position(|name| name == holder).unwrap();
                    orders.push((second + delays.next().unwrap(), who));
                }
                for (_, who, working, said) in words.extract_if(.., |word| word.0 <= second) {
                    if charge.hear(now, &names[who], working) {
                        answers.push((second + delays.next().unwrap(), who, said));
                    }
                }
                for (_, who) in orders.extract_if(.., |order| order.0 <= second) {
                    holds[who].get_or_insert(Hold::given(now));
                }
                for (_, who, said) in answers.extract_if(.., |answer| answer.0 <= second) {
                    if let Some(hold) = &mut holds[who] {
                        hold.confirmed(now, at(said));
                    }
                }
                for (who, slot) in holds.iter_mut().enumerate() {
                    *slot = slot.filter(|hold| !hold.is_over(now));
                    if let Some(hold) = slot {
                        words.push((second + delays.next().unwrap(), who, hold.is_working(), second));
                    }
                }
                let working = holds.iter().flatten().filter(|hold| hold.is_working()).count();
                prop_assert!(working <= 1, "{working} at it after {second} s");
            }
        }
    }
}
