//! What keeps the API standing under load and nonsense.

use crate::endpoints::{get, http, post};
use crate::fake::{canned, leading, place, start};
use regent::decision::view::{Request, Response};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::time::sleep;

fn silent(_: &Request) -> Option<Response> {
    None
}

fn no_events(request: &Request) -> Option<Response> {
    match request {
        Request::Events { .. } => Some(Response::Events(Vec::new())),
        other => canned(other),
    }
}

#[tokio::test]
async fn large_bodies_and_headers_are_refused() {
    let fake = leading().await;
    let body = format!("{{\"to\": \"{}\"}}", "x".repeat(65 << 10));
    let (status, answer) = post(&fake, "/v1/clusters/shop/failover", &body).await;
    assert_eq!((status, &answer["code"]), (413, &json!("too_large")));
    let request = http().get(format!("{}/v1/status", fake.base));
    let response = request.header("x-long", "x".repeat(17 << 10)).send().await.unwrap();
    assert_eq!(response.status(), 431);
    assert!(fake.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_poll_of_dashboards_costs_one_question() {
    let fake = leading().await;
    let polls = (0..40).map(|_| get(&fake, "/v1/status"));
    for (status, _) in futures_util::future::join_all(polls).await {
        assert_eq!(status, 200);
    }
    let asked = fake.asked.lock().unwrap().len();
    assert!(asked < 20, "{asked} questions for 40 polls");
}

#[tokio::test]
async fn too_many_requests_at_once_are_turned_away_while_health_is_answered() {
    let fake = start("paris", Some("paris"), place().await, BTreeMap::new(), silent).await;
    let polls = (0..80).map(|_| get(&fake, "/v1/clusters/shop/explain"));
    let polls = futures_util::future::join_all(polls);
    let health = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        http().get(format!("{}/healthz", fake.base)).send().await.unwrap().status()
    };
    let (answers, health) = futures_util::future::join(polls, health).await;
    assert_eq!(health, 200);
    let count = |wanted: u16| answers.iter().filter(|(status, _)| *status == wanted).count();
    assert_eq!((count(429), count(503)), (16, 64));
    let slow = answers.iter().find(|(status, _)| *status == 503).unwrap();
    assert_eq!(slow.1["code"], json!("timed_out"));
}

#[tokio::test]
async fn long_polls_wait_and_are_bounded() {
    let fake = start("paris", Some("paris"), place().await, BTreeMap::new(), no_events).await;
    #[expect(clippy::disallowed_methods, reason = "a test measures real time")]
    let began = Instant::now();
    let polls = (0..20).map(|_| get(&fake, "/v1/events?wait=1"));
    let answers = futures_util::future::join_all(polls).await;
    assert!(began.elapsed() >= Duration::from_secs(1));
    let count = |wanted: u16| answers.iter().filter(|(status, _)| *status == wanted).count();
    assert_eq!((count(200), count(429)), (16, 4));
}

#[tokio::test]
async fn what_is_urgent_is_told_when_it_happens() {
    let fake = leading().await;
    let path = "/v1/clusters/shop/urgent";
    assert_eq!(get(&fake, path).await, (200, json!({ "urgent": false })));
    let tell = async |urgent: bool| {
        sleep(Duration::from_millis(300)).await;
        fake.health.send_modify(|health| match urgent {
            true => drop(health.urgent.insert("shop".into())),
            false => drop(health.urgent.remove(&"shop".into())),
        });
    };
    for urgent in [true, false] {
        #[expect(clippy::disallowed_methods, reason = "a test measures real time")]
        let began = Instant::now();
        let waiting = format!("{path}?wait=30&unless={}", !urgent);
        let (told, ()) = tokio::join!(get(&fake, &waiting), tell(urgent));
        assert_eq!(told, (200, json!({ "urgent": urgent })));
        let took = began.elapsed().as_millis();
        assert!((300..900).contains(&took), "{took} ms");
        // What is known to be otherwise is news.
        assert_eq!(get(&fake, &waiting).await, told);
    }
    let other = "/v1/clusters/other/urgent?wait=1&unless=false";
    assert_eq!(get(&fake, other).await, (200, json!({ "urgent": false })));
}
