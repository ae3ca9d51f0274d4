//! Copies of a server's files that fail: nothing is listed, nothing is left, and somebody says why.

use crate::beside::{Declared, instead};
use crate::bucket::files_below;
use crate::physical::with_clone;
use crate::stage::{Ended, Mariadb, Mysql, Stage, ended};
use regent::demo::lab::Volume;
use regent::demo::ports::free_ports;
use regent::demo::servers::DatabaseFlavor;
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

both! {
    a_server_that_dies_while_it_is_copied_leaves_no_backup
    a_full_disk_beside_the_server_leaves_no_backup
    a_connection_that_is_cut_leaves_no_backup
}

const NOW: [&str; 4] = ["now", "shop", "--method", "physical"];

fn begin(stage: &Stage) -> Child {
    let mut command = stage.command(&[&NOW[..], &["--all-targets"]].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

async fn end(child: Child) -> Ended {
    let waited = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    ended(&waited.await.unwrap())
}

/// Nothing is listed, and nothing is left: neither at the targets nor beside the server.
async fn nothing_is_left(stage: &Stage, declared: &Declared) {
    for target in ["s3", "local"] {
        assert!(stage.listed(target).await.is_empty(), "{target}");
    }
    assert_eq!(stage.bucket.everything(), Vec::<String>::new());
    assert_eq!(files_below(&stage.file("folder")), Vec::<String>::new());
    declared.nothing_left().await;
}

/// A program between the server and the agent that holds a copy up in the middle until the file `go` is
/// there.
fn halting(stage: &Stage, declared: &mut Declared) -> PathBuf {
    let (name, real) = match stage.flavor {
        Mysql => ("tar", "/bin/tar".to_owned()),
        Mariadb => ("mariadb-backup", stage.program("mariadb-backup").display().to_string()),
    };
    let [half, go] = ["half", "go"].map(|name| stage.file(name).display().to_string());
    let script = format!(
        "[ \"$1\" = --version ] && exec {real} --version\n\
         {real} \"$@\" | (head -c 8000000; echo > {half}; while [ ! -e {go} ]; do sleep 0.05; done; cat)\n\
         exit ${{PIPESTATUS[0]}}"
    );
    let programs = instead(stage, name, &script);
    declared.tools = declared.tools.replace(&real, &programs.join(name).display().to_string());
    programs
}

/// Waits until that is there, looking as often as it can.
async fn until_there(path: &Path) {
    for _ in 0..30_000 {
        if path.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{} never came", path.display());
}

/// What is there as soon as a copy is under way.
fn under_way(stage: &Stage, declared: &Declared) -> PathBuf {
    match stage.flavor {
        Mysql => declared.scratch.join("clone"),
        Mariadb => stage.file("half"),
    }
}

async fn a_server_that_dies_while_it_is_copied_leaves_no_backup(flavor: DatabaseFlavor) {
    let Some(mut stage) = Stage::set(flavor).await else { return };
    let mut declared = Declared::new(&stage);
    let programs = halting(&stage, &mut declared);
    declared.configure(&stage);
    with_clone(&stage).await;
    let agent = declared.start(&stage, Some(&programs)).await;
    let child = begin(&stage);
    until_there(&under_way(&stage, &declared)).await;
    stage.replica.kill9();
    std::fs::write(stage.file("go"), "").unwrap();
    end(child).await.refused(1, "the agent of db2: ");
    nothing_is_left(&stage, &declared).await;

    stage.replica.restart().await.unwrap();
    stage.replica.follow(&stage.primary).await.unwrap();
    let taken = stage.regent(&NOW).await;
    assert_eq!(taken.code, 0, "{}{}", taken.stderr, agent.said());
}

async fn a_full_disk_beside_the_server_leaves_no_backup(flavor: DatabaseFlavor) {
    let Some(mut stage) = Stage::set(flavor).await else { return };
    let mut declared = Declared::new(&stage);
    let place = stage.file("small");
    let Ok(volume) = Volume::mount(&stage.file("small.disk"), &place, 500) else {
        eprintln!("skipped: only root mounts file systems");
        return;
    };
    declared.scratch = place;
    declared.configure(&stage);
    with_clone(&stage).await;
    let agent = declared.start(&stage, None).await;
    let failed = if flavor == Mysql {
        // There is room when the copy begins, and none any more when it goes on.
        let child = begin(&stage);
        until_there(&under_way(&stage, &declared)).await;
        stage.replica.stop_hang().unwrap();
        volume.fill().unwrap();
        stage.replica.resume().unwrap();
        end(child).await
    } else {
        volume.fill().unwrap();
        end(begin(&stage)).await
    };
    failed.refused(1, "the agent of db2: ");
    volume.clear().unwrap();
    nothing_is_left(&stage, &declared).await;
    let taken = stage.regent(&NOW).await;
    assert_eq!(taken.code, 0, "{}{}", taken.stderr, agent.said());
}

async fn a_connection_that_is_cut_leaves_no_backup(flavor: DatabaseFlavor) {
    let Some(stage) = Stage::set(flavor).await else { return };
    let mut declared = Declared::new(&stage);
    declared.configure(&stage);
    with_clone(&stage).await;
    let agent = declared.start(&stage, None).await;
    let (real, between) = (declared.port, free_ports(1)[0]);
    let relay = tokio::spawn(relay(between, real, 9_000_000));
    declared.port = between;
    declared.configure(&stage);
    end(begin(&stage)).await.refused(1, "the agent of db2: the connection broke off after ");
    nothing_is_left(&stage, &declared).await;
    relay.abort();
    declared.port = real;
    declared.configure(&stage);
    let taken = stage.regent(&NOW).await;
    assert_eq!(taken.code, 0, "{}{}", taken.stderr, agent.said());
}

/// Passes connections on, each no further than so many bytes of answers.
async fn relay(from: u16, to: u16, most: u64) {
    use tokio::io::AsyncReadExt;
    let listener = TcpListener::bind(("127.0.0.1", from)).await.unwrap();
    while let Ok((mut near, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let (reading, writing) = far.split();
            let mut short = tokio::io::join(reading.take(most), writing);
            let _ = copy_bidirectional(&mut near, &mut short).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_hangs_is_given_up() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    let mut declared = Declared::new(&stage);
    let programs = halting(&stage, &mut declared);
    declared.configure(&stage);
    let agent = declared.start(&stage, Some(&programs)).await;
    let child = begin(&stage);
    until_there(&under_way(&stage, &declared)).await;
    let process = Pid::from_child(&agent.child);
    kill_process(process, Signal::STOP).unwrap();
    end(child).await.refused(1, "the agent of db2: it sent nothing for ");
    // It goes on, finds nobody, and is ready for the next one.
    kill_process(process, Signal::CONT).unwrap();
    nothing_is_left(&stage, &declared).await;
    std::fs::write(stage.file("go"), "").unwrap();
    let taken = stage.regent(&NOW).await;
    assert_eq!(taken.code, 0, "{}{}", taken.stderr, agent.said());
}
