//! Network namespaces that nobody has to remove: each ends with the process that holds it.

use super::LabError;
use crate::demo::process::{Launch, Process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// A network namespace. It has no name that could collide or be left behind.
#[derive(Debug)]
pub(super) struct Namespace {
    path: PathBuf,
    _holder: Process,
}

impl Namespace {
    /// Makes an empty one.
    pub(super) fn new() -> Result<Namespace, LabError> {
        let holder = Process::start(Launch {
            program: "unshare".into(),
            arguments: ["--net", "sleep", "infinity"].map(Into::into).to_vec(),
            log: "/dev/null".into(),
            ..Launch::default()
        })?;
        let path = PathBuf::from(format!("/proc/{}/ns/net", holder.id()));
        let own = std::fs::read_link("/proc/self/ns/net")?;
        for _ in 0..500 {
            if std::fs::read_link(&path).is_ok_and(|found| found != own) {
                return Ok(Namespace { path, _holder: holder });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(LabError::Impossible("unshare made no network namespace".to_owned()))
    }

    /// The file that stands for it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs orders of `ip`, one on each line.
    pub(super) fn ip(&self, orders: &str) -> Result<(), LabError> {
        self.run("ip", &["-batch", "-"], orders)
    }

    /// Runs a shell script.
    pub(super) fn sh(&self, script: &str) -> Result<(), LabError> {
        self.run("sh", &["-e"], script)
    }

    /// Runs a program inside; fails with what it said when it fails.
    pub(super) fn run(
        &self,
        program: &str,
        arguments: &[&str],
        input: &str,
    ) -> Result<(), LabError> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path.display())).arg("--").arg(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(LabError::Refused { program: program.to_owned(), said })
    }

    /// A runtime whose threads are inside.
    pub(super) fn runtime(&self, threads: usize) -> io::Result<Runtime> {
        runtime_in(&self.path, threads)
    }
}

/// Does work on a thread that is inside a network, with a runtime whose threads are as well. A panic of
/// the work is the caller's.
pub fn inside<T: Send>(network: &Path, work: impl FnOnce(&Runtime) -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            enter(network)?;
            let runtime = runtime_in(network, 2)?;
            Ok(work(&runtime))
        });
        working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Moves the calling thread into a network, for good.
pub(super) fn enter(network: &Path) -> io::Result<()> {
    let file = File::open(network)?;
    Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn runtime_in(network: &Path, threads: usize) -> io::Result<Runtime> {
    let network = network.to_owned();
    let start = move || enter(&network).expect("whoever made a namespace may enter it");
    Builder::new_multi_thread().worker_threads(threads).enable_all().on_thread_start(start).build()
}
