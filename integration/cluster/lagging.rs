//! Replicas that have received more than they applied when the primary dies.

use crate::stage::{Outcome, Stage};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::time::Duration;

crate::on_both_flavors!(what_was_received_is_applied_before_promotion);

/// First all replicas lag, then only one.
async fn what_was_received_is_applied_before_promotion(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    for lagging in [2, 1] {
        let killed = stage.primary().await?;
        let mut sessions = Vec::new();
        for name in stage.others(&killed).iter().take(lagging) {
            sessions.push(stop_applying(stage, name).await?);
        }
        stage.writes_go_on().await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        stage.server(&killed).kill9();
        // The failover is under way and waits for the appliers by now.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for session in sessions {
            session.disconnect().await?;
        }
        stage.failed_over(&killed).await?;
        stage.bring_back(&killed).await?;
    }
    stage.judge().await
}

/// The applier waits for this session; the receiver goes on and acknowledges.
async fn stop_applying(stage: &Stage, server: &str) -> Outcome<Conn> {
    let mut session = stage.peek(server).connect().await?;
    session.query_drop("LOCK TABLES shop.orders READ").await?;
    Ok(session)
}
