//! Chores: standing work that one watcher at a time does. Whatever dies, is cut off or is forgotten, nobody
//! begins one while another watcher is still at it, and in the end somebody does it.

use crate::setting::{self, Setting};
use crate::world::{Event, MILLI, World};
use regent::decision::backup::chore::{Chore, Chores, Work};
use regent::watcher::{ChoreDoing, ChoreNews, ChoreOrder, ChoreSaid, Input};
use std::collections::{BTreeMap, BTreeSet};

/// Who is at work, and who cannot be.
#[derive(Debug, Default)]
pub struct AtWork {
    /// Watchers, each with which of its lives that is.
    working: BTreeSet<(usize, u32)>,
    /// Watchers that said they cannot do it, and are asked again in an hour. One is always left that can.
    unable: BTreeSet<usize>,
}

impl Setting {
    /// One chore.
    pub fn chores(&self) -> Chores {
        match self.backups {
            true => BTreeMap::from([(setting::cluster(), BTreeSet::from([Chore::Prove]))]),
            false => Chores::new(),
        }
    }
}

impl World {
    /// A watcher orders something about a chore.
    pub fn order_chore(&mut self, watcher: usize, life: u32, order: &ChoreOrder) {
        self.say(|| format!("w{} orders {order:?}", watcher + 1));
        match order.what {
            ChoreDoing::Begin => self.begin_chore(watcher, life),
            ChoreDoing::Look => self.tally.count("chore", "stirred"),
            ChoreDoing::BreakOff => {
                if self.chores.working.remove(&(watcher, life)) {
                    self.tally.count("chore", "broken off");
                }
            }
        }
    }

    fn begin_chore(&mut self, watcher: usize, life: u32) {
        let alive = |(other, life): &&(usize, u32)| self.watchers[*other].life == *life;
        if let Some((other, _)) = self.chores.working.iter().find(alive) {
            return self.broken(format!("w{} has a chore, w{} begins it", other + 1, watcher + 1));
        }
        self.tally.count("chore", "begun");
        self.chores.working.insert((watcher, life));
        let unable = &self.chores.unable;
        let another = unable.len() + usize::from(!unable.contains(&watcher)) < self.watchers.len();
        if self.troubled() && self.random.permille(200) && another {
            self.tally.count("chore", "given up");
            self.chores.unable.insert(watcher);
            self.chores.working.remove(&(watcher, life));
            return self.tell_chore(watcher, life, ChoreSaid::Ended { why: "no room".to_owned() });
        }
        let work = Work { doing: "restores".to_owned(), ..Work::default() };
        self.tell_chore(watcher, life, ChoreSaid::Goes(Box::new(work)));
    }

    fn tell_chore(&mut self, watcher: usize, life: u32, said: ChoreSaid) {
        let news = ChoreNews { cluster: setting::cluster(), chore: Chore::Prove, said };
        self.after(10 * MILLI, Event::Input { watcher, life, input: Input::Chore(news) });
    }

    /// Whether nobody does what is to be done; `None` while somebody does.
    pub fn chores_unwell(&self) -> Option<String> {
        let alive = |(other, life): &(usize, u32)| self.watchers[*other].life == *life;
        let done = !self.setting.backups || self.chores.working.iter().any(alive);
        (!done).then(|| "nobody does the chore".to_owned())
    }
}
