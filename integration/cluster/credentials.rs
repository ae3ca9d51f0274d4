//! Passwords that are wrong: everywhere, on one server, on the primary too.

use crate::stage::{Outcome, Stage, check, holds_no_secret};
use regent::demo::cluster::Cluster;
use regent::demo::servers::accounts::MONITOR;
use std::time::Duration;

crate::on_both_flavors!(wrong_credentials_are_named_and_harm_nothing);

const WRONG: &str = "quite-wrong-secret";

async fn wrong_credentials_are_named_and_harm_nothing(stage: &mut Stage) -> Outcome {
    let file = stage.cluster.directory().join("monitor.password");
    std::fs::write(&file, WRONG)?;
    stage.cluster.start_regent()?;
    let named = |text: &str| text.contains("refuses the monitor account");
    let shop = stage
        .until_shop("wrong credentials are named", |shop| {
            shop.finding("not_adopted").is_some_and(|text| named(&text))
        })
        .await?;
    check(shop.primary().is_none(), || "adopted without seeing anything".to_owned())?;
    for id in Cluster::WATCHERS {
        stage.cluster.kill_node(id);
    }
    std::fs::write(&file, MONITOR.password)?;
    for id in Cluster::WATCHERS {
        stage.cluster.start_node(id)?;
    }
    let before = stage.whole().await?;
    stage.start_writer();
    stage.writes_go_on().await?;

    for (count, name) in ["db3", "db2", "db1"].iter().enumerate() {
        change_password(stage, name, WRONG).await?;
        let health = |shop: &crate::asking::Shop| shop.health(name) != "healthy";
        stage.until_shop(&format!("{name} is not healthy"), health).await?;
        // What follows from it may be found before it is confirmed itself.
        let mut explained = stage.regent(&["explain", "shop"]).await?;
        for _ in 0..50 {
            if named(&explained.out) && explained.out.contains(name) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            explained = stage.regent(&["explain", "shop"]).await?;
        }
        let said = named(&explained.out) && explained.out.contains(name);
        check(explained.code == 0 && said, || format!("after {count}: {explained:?}"))?;
        holds_no_secret("explain", &explained.all())?;
        stage.writes_go_on().await?;
    }
    // Long enough for any rule to act.
    tokio::time::sleep(Duration::from_secs(3)).await;
    stage.writes_go_on().await?;
    for name in ["db1", "db2", "db3"] {
        change_password(stage, name, MONITOR.password).await?;
    }
    let after = stage.whole().await?;
    check(after.epoch() == before.epoch(), || format!("credentials caused {:?}", after.view))?;
    for id in Cluster::WATCHERS {
        let log = std::fs::read_to_string(stage.cluster.log_of(id))?;
        check(!log.contains(WRONG), || format!("{id} tells the password that was wrong"))?;
    }
    stage.judge().await
}

async fn change_password(stage: &Stage, server: &str, password: &str) -> Outcome {
    let change = format!("ALTER USER '{}'@'%' IDENTIFIED BY '{password}'", MONITOR.user);
    stage.change_monitor(server, &change).await
}
