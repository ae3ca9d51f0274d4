//! Watchers, or everything, killed and started again from what is on disk.

use crate::stage::{Outcome, Stage, check};
use regent::demo::cluster::Cluster;

crate::on_both_flavors!(everything_restarts);

/// First all watchers while the servers run, then each process there is. Either way the primary
/// stays who it was.
async fn everything_restarts(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let before = stage.whole().await?;
    let primary = before.primary().unwrap_or_default().to_owned();
    for id in Cluster::WATCHERS {
        stage.cluster.kill_node(id);
    }
    // Nobody decides now, but what was acknowledged stays safe, so the shop goes on.
    stage.writes_go_on().await?;
    for id in Cluster::WATCHERS {
        stage.cluster.start_node(id)?;
    }
    let after = stage.whole().await?;
    check(after.primary() == Some(&primary) && after.epoch() == before.epoch(), || {
        format!("restarted watchers changed the primary: {:?}", after.view)
    })?;
    stage.writes_go_on().await?;

    for id in Cluster::WATCHERS.iter().chain(&["proxy1"]) {
        stage.cluster.kill_node(id);
    }
    for server in &mut stage.cluster.servers {
        server.kill9();
    }
    // Servers first: watchers that came first would rightly replace a primary slower than the rest.
    let starts = stage.cluster.servers.iter_mut().map(|server| server.restart());
    for started in futures_util::future::join_all(starts).await {
        started?;
    }
    for id in Cluster::WATCHERS.iter().chain(&["proxy1"]) {
        stage.cluster.start_node(id)?;
    }
    let after = stage.whole().await?;
    check(after.primary() == Some(&primary), || {
        format!("the restart of everything changed the primary: {:?}", after.view)
    })?;
    stage.writes_go_on().await?;
    stage.judge().await
}
