//! Asking a failing target again: with growing pauses, for a limited time, and not in silence.

use super::progress::{Report, Trouble};
use super::target::TargetError;
use crate::clock::{Clock, Now};
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Somebody may be waiting for it at a terminal.
const CLEANING: Duration = Duration::from_secs(8);
/// What is asked for can be asked for again.
const ASKING: Duration = Duration::from_secs(180);

/// What is done, which says how long it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// Nothing is lost by giving up.
    Asking,
    /// A backup begins.
    Beginning,
    /// A backup is under way, and all of it would be lost.
    Working,
    /// What a failed backup left is removed.
    Cleaning,
}

/// How a target is asked again.
#[derive(Clone, Debug)]
pub(super) struct Retry {
    clock: Clock,
    give_up_after: Duration,
    report: Option<Report>,
}

impl Retry {
    pub(super) fn new(clock: Clock, give_up_after: Duration) -> Retry {
        Retry { clock, give_up_after, report: None }
    }

    /// As before, and tells what goes wrong.
    pub(super) fn told(self, report: Report) -> Retry {
        Retry { report: Some(report), ..self }
    }

    /// Does it until it succeeds, or until trying again makes no sense or took too long.
    pub(super) async fn again<T, F, Work>(&self, doing: Doing, work: F) -> Result<T, TargetError>
    where
        F: Fn() -> Work,
        Work: Future<Output = Result<T, TargetError>>,
    {
        let mut pause = FIRST_PAUSE;
        let mut first: Option<Now> = None;
        loop {
            let error = match work().await {
                Ok(done) => {
                    if first.is_some() {
                        self.report(None);
                    }
                    return Ok(done);
                }
                Err(error) => error,
            };
            let now = self.clock.now();
            // Credentials that have expired are read anew; at first, newer ones should be there.
            let helps = error.may_pass()
                || error.has_expired() && (first.is_none() || doing == Doing::Working);
            let since = *first.get_or_insert(now);
            let tried = now.moment.since(since.moment);
            if !helps {
                return Err(error);
            }
            if tried + pause > self.limit(doing) {
                return Err(error.given_up(tried));
            }
            self.report(Some(Trouble { since: since.wall, what: error.to_string() }));
            if pause < LONGEST_PAUSE {
                tracing::warn!(%error, "trying again in {} ms", pause.as_millis());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn limit(&self, doing: Doing) -> Duration {
        match doing {
            Doing::Asking => ASKING.min(self.give_up_after),
            Doing::Beginning | Doing::Working => self.give_up_after,
            Doing::Cleaning => CLEANING,
        }
    }

    fn report(&self, trouble: Option<Trouble>) {
        if let Some(report) = &self.report {
            report.trouble(trouble);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn passing() -> TargetError {
        TargetError::Passing { object: "x".to_owned(), what: "busy".to_owned() }
    }

    async fn tried(doing: Doing, error: TargetError, times: u32) -> (Result<(), TargetError>, u32) {
        let retry = Retry::new(Clock::start(), Duration::from_secs(1));
        let tries = AtomicU32::new(0);
        let work = || async {
            match tries.fetch_add(1, Ordering::Relaxed) < times {
                true => Err(error.clone()),
                false => Ok(()),
            }
        };
        let ended = retry.again(doing, work).await;
        (ended, tries.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_again_and_nothing_else() {
        assert_eq!(tried(Doing::Working, passing(), 1).await, (Ok(()), 2));
        let refused = TargetError::Refused { object: "x".to_owned(), what: "no".to_owned() };
        assert_eq!(tried(Doing::Working, refused.clone(), 1).await, (Err(refused), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn expired_credentials_are_renewed_once_before_work_and_awaited_during_it() {
        let expired = TargetError::Expired { object: "x".to_owned(), what: "old".to_owned() };
        assert_eq!(tried(Doing::Beginning, expired.clone(), 1).await, (Ok(()), 2));
        assert_eq!(tried(Doing::Beginning, expired.clone(), 2).await, (Err(expired.clone()), 2));
        assert_eq!(tried(Doing::Working, expired, 1).await, (Ok(()), 2));
    }
}
