//! Whose turn it is: a dump stands still while its cluster cannot be written to, for whatever opens it again
//! needs the same servers and the same machines. It has its snapshot and holds no lock by then; a copy of files
//! may hold one, and goes on.

use std::time::Duration;
use tokio::sync::watch;

/// How long a dump stands still in a row. Servers end sessions whose answer nobody takes for a minute.
const MOST: Duration = Duration::from_secs(20);

/// Whether something goes before the backups of a cluster.
#[derive(Debug)]
pub struct Priority(watch::Sender<bool>);

/// What a backup goes by.
#[derive(Clone, Debug)]
pub struct Turn {
    others: watch::Receiver<bool>,
    /// Whether it stood still for too long already, and what it stood still for has not ended.
    over: bool,
}

impl Priority {
    /// Nothing goes before them yet.
    pub fn new() -> Priority {
        Priority(watch::Sender::new(false))
    }

    /// From now on something goes before them, or nothing does any more.
    pub fn set(&self, others: bool) {
        self.0.send_replace(others);
    }

    /// What a backup is to go by.
    pub fn turn(&self) -> Turn {
        Turn { others: self.0.subscribe(), over: false }
    }
}

impl Default for Priority {
    fn default() -> Priority {
        Priority::new()
    }
}

impl Turn {
    /// Returns when nothing goes before it, though 20 s after it first had to wait at the latest.
    pub(super) async fn come(&mut self) {
        let others = *self.others.borrow();
        self.over = match (others, self.over) {
            (false, _) => false,
            (true, true) => true,
            (true, false) => {
                let ended = self.others.wait_for(|others| !others);
                tokio::time::timeout(MOST, ended).await.is_err()
            }
        };
    }

    /// Returns when something goes before it for which it did not stand still yet.
    pub(super) async fn lost(&mut self) {
        let told = match self.over {
            true => self.others.wait_for(|others| !others).await.is_ok(),
            false => true,
        };
        self.over = false;
        // Whoever is gone ends nothing any more, so there is nothing to stand still for.
        let lost = told && self.others.wait_for(|others| *others).await.is_ok();
        if !lost || self.others.has_changed().is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn it_waits_until_nothing_goes_before_it() {
        let priority = Priority::new();
        let mut turn = priority.turn();
        turn.come().await;
        assert!(timeout(SOON, turn.lost()).await.is_err(), "nothing goes before it");
        priority.set(true);
        turn.lost().await;
        assert!(timeout(SOON, turn.come()).await.is_err(), "it is not its turn");
        priority.set(false);
        turn.come().await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_once_for_the_same_and_not_for_ever() {
        let priority = Priority::new();
        let mut turn = priority.turn();
        priority.set(true);
        assert!(timeout(MOST - SOON, turn.come()).await.is_err(), "it goes on too early");
        turn.come().await;
        assert!(timeout(SOON, turn.come()).await.is_ok(), "it waits again for the same");
        assert!(timeout(SOON, turn.lost()).await.is_err(), "it has waited for that");
        priority.set(false);
        turn.come().await;
        priority.set(true);
        turn.lost().await;
        drop(priority);
        turn.come().await;
        assert!(timeout(SOON, turn.lost()).await.is_err(), "nobody tells it anything any more");
    }
}
