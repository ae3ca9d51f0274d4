//! Every route, and what passes between watchers.

use crate::fake::{self, Fake, canned, leading, place, refused, start, status_view};
use regent::api::types::StatusView;
use regent::decision::topology::{Endpoint, WatcherName};
use regent::decision::view::{RefusalCode, Request, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

pub fn http() -> reqwest::Client {
    regent::api::client::http(Duration::from_secs(1)).unwrap()
}

pub async fn get(fake: &Fake, path: &str) -> (u16, Value) {
    let response = http().get(format!("{}{path}", fake.base)).send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

pub async fn post(fake: &Fake, path: &str, body: &str) -> (u16, Value) {
    let request = http().post(format!("{}{path}", fake.base)).body(body.to_owned());
    let response = request.header("content-type", "application/json").send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

#[tokio::test]
async fn reading_routes_answer_what_the_watcher_says() {
    let fake = leading().await;
    let (status, body) = get(&fake, "/v1/status").await;
    assert_eq!(status, 200);
    assert_eq!(serde_json::from_value::<StatusView>(body).unwrap(), status_view());
    for path in ["/v1/clusters/shop", "/v1/clusters/shop/topology"] {
        let (status, body) = get(&fake, path).await;
        assert_eq!((status, &body["primary"]), (200, &json!("db1")), "{path}");
    }
    let (_, body) = get(&fake, "/v1/status?cluster=shop").await;
    assert_eq!(body["clusters"][0]["servers"][2]["lag_seconds"], json!(12.25));
    let (_, body) = get(&fake, "/v1/clusters/shop/explain?without=db1").await;
    assert_eq!(body["candidates"][0]["server"], json!("db2"));
    let (_, body) = get(&fake, "/v1/events?after=1").await;
    assert_eq!(body.as_array().unwrap().len(), 1);
    assert_eq!(body[0]["kind"], json!("route_opened"));
    let (_, body) = get(&fake, "/v1/clusters/shop/procedures/latest").await;
    assert_eq!((&body["id"], &body["state"]), (&json!(3), &json!("done")));
    let (_, body) = get(&fake, "/v1/clusters/shop/procedures/4").await;
    assert_eq!(body["state"], json!("abandoned"));

    let changed = fake.asked.lock().unwrap().iter().any(Request::changes_state);
    assert!(!changed, "a GET asked for a change");
    let without = |request: &Request| matches!(request, Request::Explain { without: Some(one), .. } if one.as_str() == "db1");
    assert!(fake.asked.lock().unwrap().iter().any(without));
}

#[tokio::test]
async fn acting_routes_pass_every_field_on() {
    let fake = leading().await;
    let (status, body) = post(&fake, "/v1/clusters/shop/adopt", r#"{"primary": "db1"}"#).await;
    assert_eq!((status, body), (200, json!({"text": "shop is adopted with primary db1"})));
    let (status, body) = post(&fake, "/v1/clusters/shop/switchover", r#"{"to": "db2"}"#).await;
    assert_eq!((status, body), (202, json!({"cluster": "shop", "procedure": 3})));
    let (status, body) = post(&fake, "/v1/clusters/shop/switchover", r#"{"dry_run": true}"#).await;
    assert_eq!((status, &body["response"]), (200, &json!("alert")));
    let all = r#"{"to": "db3", "accept_loss": true, "dry_run": false}"#;
    let (status, _) = post(&fake, "/v1/clusters/shop/failover", all).await;
    assert_eq!(status, 202);
    let expected = Request::Failover {
        cluster: "shop".into(),
        to: Some("db3".into()),
        accept_loss: true,
        dry_run: false,
    };
    assert_eq!(fake.asked.lock().unwrap().last(), Some(&expected));
    let (status, _) = post(&fake, "/v1/clusters/shop/failover", "").await;
    assert_eq!(status, 202, "an empty body is an empty object");
    let (status, _) = post(&fake, "/v1/clusters/shop/repair", "").await;
    assert_eq!(status, 202);
    let begins = r#"{"server": "db3", "for": "30m", "reason": "new disks", "by": "ann"}"#;
    let (status, _) = post(&fake, "/v1/clusters/shop/maintenance", begins).await;
    assert_eq!(status, 200);
    let expected = Request::Maintain {
        cluster: "shop".into(),
        server: Some("db3".into()),
        lasts: Duration::from_secs(1800),
        reason: "new disks".to_owned(),
        by: "ann".to_owned(),
        new_data: false,
    };
    assert_eq!(fake.asked.lock().unwrap().last(), Some(&expected));
    let end = "/v1/clusters/shop/maintenance/end";
    let (status, _) = post(&fake, end, r#"{"server": "db2", "new_data": true}"#).await;
    assert_eq!(status, 200);
    let (server, by) = (Some("db2".into()), String::new());
    let expected = Request::EndMaintenance { cluster: "shop".into(), server, by, new_data: true };
    assert_eq!(fake.asked.lock().unwrap().last(), Some(&expected));
    let (status, body) = post(&fake, "/v1/clusters/shop/switchover", r#"{"to": "db1"}"#).await;
    assert_eq!((status, &body["code"]), (409, &json!("forbidden")));
}

#[tokio::test]
async fn bad_input_is_named_and_never_reaches_the_watcher() {
    let fake = leading().await;
    let posts = [
        ("/v1/clusters/shop/adopt", "{}", 400, "primary is missing"),
        ("/v1/clusters/shop/adopt", r#"{"primary": 7}"#, 400, "primary is 7"),
        ("/v1/clusters/shop/switchover", r#"{"dry_run": "no"}"#, 400, "dry_run is \"no\""),
        ("/v1/clusters/shop/switchover", r#"{"acept_loss": true}"#, 400, "\"acept_loss\""),
        ("/v1/clusters/shop/failover", "{\"to\":", 400, "not JSON"),
        ("/v1/clusters/shop/maintenance", r#"{"reason": "x"}"#, 400, "for is missing"),
        ("/v1/clusters/shop/maintenance", r#"{"for": "soon"}"#, 400, "for is \"soon\""),
        ("/v1/clusters/shop/maintenance", r#"{"for": "1m", "reason": " "}"#, 400, "reason is"),
    ];
    for (path, sent, expected, text) in posts {
        let (status, body) = post(&fake, path, sent).await;
        assert_eq!((status, &body["code"]), (expected, &json!("bad_input")), "{sent}");
        assert!(body["text"].as_str().unwrap().contains(text), "{body}");
    }
    let gets = [
        ("/v1/events?limit=many", 400, "limit is \"many\""),
        ("/v1/events?wait=31", 400, "wait is \"31\""),
        ("/v1/clusters/shop/urgent?unless=maybe", 400, "unless is \"maybe\""),
        ("/v1/events?since=1", 400, "\"since\" is not known"),
        ("/v1/clusters/shop/procedures/first", 400, "id is \"first\""),
        ("/v1/clusters/shop/switchover", 405, "does not take GET"),
        ("/v2/status", 404, "no route /v2/status"),
    ];
    for (path, expected, text) in gets {
        let (status, body) = get(&fake, path).await;
        assert_eq!(status, expected, "{path}");
        assert!(body["text"].as_str().unwrap().contains(text), "{body}");
    }
    let url = format!("{}/v1/clusters/shop/failover", fake.base);
    let response = http().post(url).header("content-type", "text/plain").body("{}").send();
    assert_eq!(response.await.unwrap().status(), 415, "a browser's form could send that");
    assert_eq!(fake.asked.lock().unwrap().len(), 0);
    let (status, body) = get(&fake, "/v1/clusters/shoe").await;
    assert_eq!((status, &body["code"]), (404, &json!("unknown")));
    assert_eq!(body["text"], json!("there is no cluster shoe; known: shop"));
}

fn not_leader(_: &Request) -> Option<Response> {
    Some(refused(RefusalCode::NotLeader, "this watcher follows", Some("paris")))
}

fn no_leader(_: &Request) -> Option<Response> {
    Some(refused(RefusalCode::NoLeader, "no watcher leads", None))
}

#[tokio::test]
async fn a_follower_passes_requests_on_to_the_leader() {
    let (first, second) = (place().await, place().await);
    let apis: BTreeMap<WatcherName, Endpoint> =
        [("paris".into(), first.endpoint.clone()), ("london".into(), second.endpoint.clone())]
            .into();
    let leader = start("paris", Some("paris"), first, apis.clone(), canned).await;
    let follower = start("london", Some("paris"), second, apis, not_leader).await;
    for path in ["/v1/status", "/v1/clusters/shop", "/v1/events?after=1&wait=1"] {
        assert_eq!(get(&follower, path).await, get(&leader, path).await, "{path}");
    }
    let path = "/v1/clusters/shop/switchover";
    let (status, body) = post(&follower, path, r#"{"to": "db2"}"#).await;
    assert_eq!((status, &body["procedure"]), (202, &json!(3)));
    let expected =
        Request::Switchover { cluster: "shop".into(), to: Some("db2".into()), dry_run: false };
    assert_eq!(leader.asked.lock().unwrap().last(), Some(&expected));
}

#[tokio::test]
async fn requests_are_passed_on_once_only() {
    // Each of the two believes that the other leads.
    let (first, second) = (place().await, place().await);
    let apis: BTreeMap<WatcherName, Endpoint> =
        [("paris".into(), first.endpoint.clone()), ("london".into(), second.endpoint.clone())]
            .into();
    fn other(_: &Request) -> Option<Response> {
        Some(refused(RefusalCode::NotLeader, "this watcher follows", Some("london")))
    }
    let paris = start("paris", Some("london"), first, apis.clone(), other).await;
    let london = start("london", Some("paris"), second, apis, not_leader).await;
    let (status, body) = post(&paris, "/v1/clusters/shop/failover", "{}").await;
    assert_eq!((status, &body["code"]), (503, &json!("no_leader")));
    assert_eq!(london.asked.lock().unwrap().len(), 1);
    assert_eq!(paris.asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn without_a_leader_there_is_a_clear_answer() {
    let fake = start("paris", None, place().await, BTreeMap::new(), no_leader).await;
    for path in ["/v1/status", "/v1/clusters/shop/explain", "/v1/events"] {
        let (status, body) = get(&fake, path).await;
        assert_eq!((status, &body["code"]), (503, &json!("no_leader")), "{path}");
    }
    let (status, body) = get(&fake, "/readyz").await;
    assert_eq!((status, &body["ready"]), (503, &json!(false)));
    let alive = http().get(format!("{}/healthz", fake.base)).send().await.unwrap();
    assert_eq!(alive.status(), 200);

    // The leader that is named cannot be reached.
    let gone = place().await.endpoint;
    let apis = [("paris".into(), gone)].into();
    let alone = start("london", Some("paris"), place().await, apis, not_leader).await;
    let (status, body) = get(&alone, "/v1/status").await;
    assert_eq!((status, &body["code"]), (503, &json!("no_leader")));
    assert!(body["text"].as_str().unwrap().contains("watcher paris leads but cannot be reached"));
}

#[tokio::test]
async fn health_metrics_and_marks() {
    let fake = leading().await;
    let (status, body) = get(&fake, "/readyz").await;
    assert_eq!((status, body), (200, json!({"ready": true, "leader": "paris", "term": 7})));

    fake.metrics.observe_status(&fake::status_view());
    fake.metrics.raft(7, true, 90, 90);
    let read = || async {
        let response = http().get(format!("{}/metrics", fake.base)).send().await.unwrap();
        response.text().await.unwrap()
    };
    let text = read().await;
    for line in [
        r#"regent_epoch{cluster="shop"} 4"#,
        r#"regent_primary{cluster="shop",server="db1"} 1"#,
        r#"regent_replica_lag_seconds{cluster="shop",server="db3"} 12.25"#,
        r#"regent_findings{cluster="shop",kind="replica_lagging"} 1"#,
        r#"regent_proxy_sessions{proxy="proxy-1"} 12"#,
        r#"regent_backup_proven_age_seconds{cluster="shop",target="s3"} 73200"#,
        r#"regent_backup_unproven{cluster="shop",target="s3"} 0"#,
        r#"regent_backup_listed{cluster="shop",target="s3"} 9"#,
        r#"regent_backup_proven{cluster="shop",target="s3"} 4"#,
        r#"regent_backup_archive_reached_timestamp_seconds{cluster="shop",target="s3"} 1794913801"#,
        r#"regent_backup_archive_lag_seconds{cluster="shop",target="s3"} 4"#,
        r#"regent_backup_archive_gaps{cluster="shop",target="s3"} 1"#,
        r#"regent_backup_archive_errors{cluster="shop",target="s3"} 2"#,
        r#"regent_backup_archive_behind{cluster="shop",target="s3"} 0"#,
        "regent_raft_is_leader 1",
        "process_resident_memory_bytes",
    ] {
        assert!(text.contains(line), "{line} is missing from\n{text}");
    }
    let mut gone = fake::status_view();
    gone.clusters.clear();
    fake.metrics.observe_status(&gone);
    assert!(!read().await.contains("shop"), "a vanished cluster is still counted");

    let response = http().get(format!("{}/v1/status", fake.base)).send().await.unwrap();
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    assert_eq!(response.headers()["cache-control"], "no-store");
}
