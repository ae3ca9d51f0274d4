//! Watchers that cannot start and say why.

use crate::asking::{Said, run};
use crate::stage::{Outcome, check};
use regent::demo::ports::free_ports;
use regent::demo::process::{Launch, Process};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[tokio::test]
async fn mistakes_in_the_configuration_are_all_named() {
    let place = tempfile::tempdir().expect("a directory");
    mistakes(place.path()).await.expect("mistakes are named");
}

#[tokio::test]
async fn a_data_directory_serves_one_watcher() {
    let place = tempfile::tempdir().expect("a directory");
    one_watcher(place.path()).await.expect("the second is refused");
}

#[tokio::test]
async fn a_damaged_store_is_named() {
    let place = tempfile::tempdir().expect("a directory");
    damaged(place.path()).await.expect("it is refused");
}

async fn mistakes(place: &Path) -> Outcome {
    let file = configuration(place)?;
    let text = std::fs::read_to_string(&file)?;
    let broken = text.replace("durability: lossless", "durability: lossles\n    colour: blue");
    std::fs::write(&file, broken.replace("name: db2", "name: db1"))?;
    let said = watch(&file, "w1", &place.join("w1")).await?;
    let all = ["lossles", "colour", "db1"].iter().all(|it| said.err.contains(it));
    check(said.code != 0 && all, || format!("it said {said:?}"))?;
    std::fs::write(&file, text)?;
    let said = watch(&file, "w9", &place.join("w9")).await?;
    let named = said.err.contains("w9") && said.err.contains("w3");
    check(said.code != 0 && named, || format!("for an unknown watcher it said {said:?}"))
}

async fn one_watcher(place: &Path) -> Outcome {
    let file = configuration(place)?;
    let data = place.join("w1");
    let first = start(&file, &data)?;
    let said = watch(&file, "w1", &data).await?;
    let named = said.err.contains(&*data.to_string_lossy());
    check(said.code != 0 && named, || format!("a second watcher said {said:?}"))?;
    drop(first);
    // Another watcher's memory is not this one's.
    let said = watch(&file, "w2", &data).await?;
    check(said.code != 0 && said.err.contains("w1"), || format!("w2 on it said {said:?}"))
}

async fn damaged(place: &Path) -> Outcome {
    let file = configuration(place)?;
    let data = place.join("w1");
    drop(start(&file, &data)?);
    let mut damaged = 0;
    for path in files_below(&data)? {
        let bytes = std::fs::read(&path)?;
        if bytes.len() > 64 {
            // What was written is not what is read: each eighth byte is another one.
            let other =
                bytes.iter().enumerate().map(|(at, it)| if at % 8 == 0 { !it } else { *it });
            std::fs::write(&path, other.collect::<Vec<u8>>())?;
            damaged += 1;
        }
    }
    check(damaged > 0, || "there is nothing to damage".to_owned())?;
    let said = watch(&file, "w1", &data).await?;
    let named = said.err.contains(&*data.to_string_lossy());
    check(said.code != 0 && named, || format!("on a damaged store it said {said:?}"))
}

/// Starts the first watcher and waits until it serves.
fn start(file: &Path, data: &Path) -> Outcome<Process> {
    let log = data.with_extension("log");
    let arguments = ["watch", "--id", "w1", "--config"].map(Into::into);
    let mut arguments = arguments.to_vec();
    arguments.extend([file.into(), "--data-dir".into(), data.into()]);
    let program = env!("CARGO_BIN_EXE_regent").into();
    let process =
        Process::start(Launch { program, arguments, log: log.clone(), ..Launch::default() })?;
    for _ in 0..200 {
        std::thread::sleep(Duration::from_millis(50));
        if std::fs::read_to_string(&log)?.contains("watcher w1 runs") {
            return Ok(process);
        }
    }
    Err(format!("it did not start: {}", std::fs::read_to_string(&log)?).into())
}

async fn watch(file: &Path, id: &str, data: &Path) -> Outcome<Said> {
    let (file, data) = (file.to_string_lossy(), data.to_string_lossy());
    run(&["watch", "--config", &file, "--id", id, "--data-dir", &data], "").await
}

fn configuration(place: &Path) -> Outcome<PathBuf> {
    let ports = free_ports(9);
    let mut text = "watchers:\n".to_owned();
    for (at, id) in ["w1", "w2", "w3"].iter().enumerate() {
        let (peer, api) = (ports[2 * at], ports[2 * at + 1]);
        text += &format!(
            "  - {{ id: {id}, data_center: paris, peer: 127.0.0.1:{peer}, api: 127.0.0.1:{api} }}\n"
        );
    }
    text += "clusters:\n  - name: shop\n    servers:\n";
    for (name, port) in ["db1", "db2", "db3"].iter().zip(&ports[6..]) {
        text +=
            &format!("      - {{ name: {name}, address: 127.0.0.1:{port}, data_center: paris }}\n");
    }
    text += "    credentials:\n      monitor: { user: regent, password: m }\n";
    text += "      replication: { user: repl, password: r }\n    durability: lossless\n";
    let path = place.join("regent.yaml");
    std::fs::write(&path, text)?;
    Ok(path)
}

fn files_below(directory: &Path) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}
