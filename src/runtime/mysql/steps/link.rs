//! The connection that one step leaves to the next one on its server.

use crate::clock::{Clock, Moment};
use crate::runtime::mysql::dialect::Dialect;
use crate::runtime::mysql::distance::Distance;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a connection nobody needs stays open; the steps of one procedure follow at once.
const FRESH: Duration = Duration::from_secs(10);

/// How long a kept connection may take to show that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_millis(200);

/// At most one connection, with what was learned about its server.
#[derive(Clone, Debug, Default)]
pub(in crate::runtime) struct Kept(Arc<Mutex<Option<Idle>>>);

#[derive(Debug)]
struct Idle {
    conn: Conn,
    dialect: Dialect,
    since: Moment,
}

impl Kept {
    /// The kept connection, if the server still answers on it.
    pub(super) async fn take(&self, distance: &Distance) -> Option<(Conn, Dialect)> {
        let mut idle = self.slot().take()?;
        let limit = SIGN_OF_LIFE + distance.trips(2);
        let answered = tokio::time::timeout(limit, idle.conn.query_drop("DO 0")).await;
        matches!(answered, Ok(Ok(()))).then_some((idle.conn, idle.dialect))
    }

    /// Keeps a connection that is in order; ends it when no step took it in time.
    pub(super) fn put(&self, conn: Conn, dialect: Dialect, clock: Clock) {
        let since = clock.now().moment;
        *self.slot() = Some(Idle { conn, dialect, since });
        let kept = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            tokio::time::sleep(FRESH).await;
            if let Some(kept) = kept.upgrade() {
                let stale = Kept(kept).slot().take_if(|idle| idle.since == since);
                if let Some(idle) = stale {
                    // A failure to say goodbye changes nothing.
                    let _ = idle.conn.disconnect().await;
                }
            }
        });
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Idle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
