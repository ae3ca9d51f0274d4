//! Who asks S3: what the surroundings say, renewed while an upload runs.

use crate::bucket::{ACCESS_KEY, SECRET_KEY};
use crate::faulty::Mood;
use crate::stage::{Ended, Mariadb, Mysql, Stage, ended};
use axum::Router;
use axum::routing::{get, put};
use regent::clock::{Clock, WallTime};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::net::TcpListener;

/// The command where nothing around it says who asks.
fn bare(stage: &Stage, arguments: &[&str]) -> Command {
    let mut command = stage.command(arguments);
    let known = std::env::vars().filter(|(name, _)| name.starts_with("AWS_"));
    known.for_each(|(name, _)| _ = command.env_remove(name));
    command.env("HOME", stage.place.path().join("nobody"));
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

async fn run(mut command: Command) -> Ended {
    let run = move || command.output().unwrap();
    ended(&tokio::task::spawn_blocking(run).await.unwrap())
}

/// Serves on a port of this machine.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// The bucket's keys with a token, for so many seconds from now.
fn role(token: &str, seconds: u64) -> String {
    let until = WallTime(Clock::start().now().wall.0 + seconds * 1000).to_string();
    format!(
        "{{ \"Code\": \"Success\", \"AccessKeyId\": \"{ACCESS_KEY}\", \"SecretAccessKey\": \
         \"{SECRET_KEY}\", \"Token\": \"{token}\", \"Expiration\": \"{until}\" }}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_and_the_environment() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    stage.configure_s3("region: eu-west-1", "", &stage.dump());
    run(bare(&stage, &["now", "shop"])).await.refused(1, "nobody is named to ask as");
    let mut command = bare(&stage, &["now", "shop"]);
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    let taken = run(command).await;
    assert_eq!(taken.code, 0, "{}", taken.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_expire_during_an_upload_are_read_anew() {
    let Some(stage) = Stage::set(Mysql).await else { return };
    let file = stage.file("credentials");
    let write = |token: &str| {
        let text = format!(
            "[backups]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n\
             aws_session_token = {token}\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    write("first");
    stage.configure_s3("profile: backups", "", &stage.halved_dump());
    let mut command = bare(&stage, &["now", "shop", "--json"]);
    command.env("AWS_SHARED_CREDENTIALS_FILE", &file);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    stage.bucket.until_a_part_came().await;
    stage.bucket.turn(Mood::Expired("first".to_owned()));
    std::fs::write(stage.file("go"), "").unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    write("second");
    let waited = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let taken = ended(&waited.await.unwrap());
    assert_eq!(taken.code, 0, "{}", taken.stderr);
    assert!(taken.stderr.contains("ExpiredToken"), "it never noticed: {}", taken.stderr);

    // A backup does not begin with what has expired.
    write("first");
    let mut command = bare(&stage, &["now", "shop"]);
    command.env("AWS_SHARED_CREDENTIALS_FILE", &file);
    run(command).await.refused(1, "ExpiredToken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_and_an_instance_say_who_asks() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    stage.configure_s3("region: eu-west-1", "      rate_limit: 2MiB\n", &stage.dump());
    let asked = Arc::new(AtomicU32::new(0));
    let counted = asked.clone();
    // They are renewed a minute before they expire.
    let answer = move || async move {
        counted.fetch_add(1, Ordering::Relaxed);
        role("container", 62)
    };
    let container = serve(Router::new().route("/role", get(answer))).await;
    let mut command = bare(&stage, &["now", "shop"]);
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{container}/role"));
    let taken = run(command).await;
    assert_eq!(taken.code, 0, "{}", taken.stderr);
    assert!(asked.load(Ordering::Relaxed) >= 2, "they were never renewed");

    let ttl = [("x-aws-ec2-metadata-token-ttl-seconds", "21600")];
    let names = "/latest/meta-data/iam/security-credentials/";
    let instance = Router::new()
        .route("/latest/api/token", put(move || async move { (ttl, "of-version-2") }))
        .route(names, get(|| async { "backups" }))
        .route(&format!("{names}backups"), get(|| async { role("instance", 3600) }));
    let mut command = bare(&stage, &["list", "shop", "--target", "s3"]);
    command.env_remove("AWS_EC2_METADATA_DISABLED");
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", serve(instance).await);
    let listed = run(command).await;
    assert_eq!(listed.code, 0, "{}", listed.stderr);
}
