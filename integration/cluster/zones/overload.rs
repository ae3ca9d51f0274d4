//! A primary that is busy or crowded is not dead.

use crate::stage::{Outcome, Stage, check};
use mysql_async::prelude::Queryable;
use std::time::Duration;

super::in_zones!(
    #[ignore = "scripts/test --all"]
    all_cores_are_busy,
    #[ignore = "scripts/test --all"]
    no_connection_is_left,
);

/// For a minute, by more sessions than there are cores.
async fn all_cores_are_busy(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let before = stage.whole().await?;
    let primary = stage.primary().await?;
    let mut busy = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let mut session = stage.peek(&primary).connect().await?;
        busy.spawn(async move {
            let count = "SELECT BENCHMARK(2000000000, SHA2('busy', 512))";
            let _ = session.query_drop(count).await;
        });
    }
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        stage.writes_go_on().await?;
    }
    busy.shutdown().await;
    end_sessions(stage, &primary, "root").await?;
    let after = stage.whole().await?;
    check(after.epoch() == before.epoch(), || format!("replaced for nothing: {:?}", after.view))?;
    stage.judge().await
}

/// Whoever is connected goes on; nobody else gets in, watchers included.
async fn no_connection_is_left(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let before = stage.whole().await?;
    let primary = stage.primary().await?;
    stage.peek(&primary).execute("SET GLOBAL max_connections=40").await?;
    let mut held = Vec::new();
    while let Ok(session) = stage.peek(&primary).connect().await {
        held.push(session);
        check(held.len() < 100, || "connections are never refused".to_owned())?;
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    stage.writes_go_on().await?;
    for session in held {
        session.disconnect().await?;
    }
    let after = stage.whole().await?;
    check(after.epoch() == before.epoch(), || format!("replaced for nothing: {:?}", after.view))?;
    stage.judge().await
}

/// Ends all other sessions of an account.
async fn end_sessions(stage: &Stage, server: &str, account: &str) -> Outcome {
    let mut session = stage.peek(server).connect().await?;
    let ids = format!(
        "SELECT id FROM information_schema.processlist WHERE user = '{account}' AND id <> CONNECTION_ID()"
    );
    let ids: Vec<u64> = session.query(ids).await?;
    for id in ids {
        // One that ended by itself is gone as well.
        let _ = session.query_drop(format!("KILL {id}")).await;
    }
    Ok(session.disconnect().await?)
}
