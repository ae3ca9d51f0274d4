//! Child processes that cannot outlive this one.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A running child in a process group of its own; killed, with its group, when dropped.
#[derive(Debug)]
pub struct Process {
    running: Arc<Mutex<Running>>,
    log: PathBuf,
}

/// A child and how to start it again.
#[derive(Debug)]
struct Running {
    child: Child,
    launch: Launch,
}

/// With this exit code a database server asks its supervisor for a restart.
const RESTART: i32 = 16;

/// Between two looks of a supervisor.
const LOOK: Duration = Duration::from_millis(50);

/// Where something runs: an address of its own, and the network that has this address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// What it listens on and is known by.
    pub address: Ipv4Addr,
    /// A file that stands for a network namespace; absent when it is this process's own.
    pub network: Option<PathBuf>,
}

impl Host {
    /// This machine, reached by nobody else.
    pub fn loopback() -> Host {
        Host { address: Ipv4Addr::LOCALHOST, network: None }
    }
}

/// What to run, where, and where its output goes.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// The program's path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// A file that standard output and error are appended to.
    pub log: PathBuf,
    /// A file to read as standard input; nothing when absent.
    pub input: Option<PathBuf>,
    /// The network namespace to run in, as in [`Host`].
    pub network: Option<PathBuf>,
    /// What it finds in its environment beside this process's own.
    pub environment: Vec<(&'static str, OsString)>,
    /// Whether it is started again when it asks for that, as a system's supervisor would.
    pub supervised: bool,
}

impl Launch {
    /// Starts the program; the kernel kills it should this process die first (where `setpriv` exists).
    fn spawn(&self) -> io::Result<Child> {
        let launch = self;
        let log = OpenOptions::new().create(true).append(true).open(&launch.log)?;
        let mut words: Vec<OsString> = Vec::new();
        if let Some(setpriv) = setpriv() {
            words.push(setpriv.into());
            words.extend(["--pdeathsig", "KILL", "--"].map(OsString::from));
        }
        if let Some(network) = &launch.network {
            let mut within = OsString::from("--net=");
            within.push(network);
            words.extend(["nsenter".into(), within, "--".into()]);
        }
        words.push(launch.program.clone().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let input = match &launch.input {
            Some(path) => Stdio::from(File::open(path)?),
            None => Stdio::null(),
        };
        command
            .args(&launch.arguments)
            .envs(launch.environment.iter().map(|(name, value)| (name, value)))
            .stdin(input)
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        spawn_from_lasting_thread(command)
    }
}

impl Running {
    /// Whether it runs, or runs again because it asked for that.
    fn goes_on(&mut self) -> bool {
        match self.child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) if self.launch.supervised && status.code() == Some(RESTART) => {
                self.launch.spawn().map(|child| self.child = child).is_ok()
            }
            Ok(Some(_)) | Err(_) => false,
        }
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }
}

impl Process {
    /// Starts the program.
    pub fn start(launch: Launch) -> io::Result<Process> {
        let (log, supervised) = (launch.log.clone(), launch.supervised);
        let running = Arc::new(Mutex::new(Running { child: launch.spawn()?, launch }));
        if supervised {
            let watched = Arc::downgrade(&running);
            let supervise = move || {
                while let Some(running) = watched.upgrade() {
                    if !locked(&running).goes_on() {
                        return;
                    }
                    drop(running);
                    std::thread::sleep(LOOK);
                }
            };
            std::thread::Builder::new().name("supervisor".to_owned()).spawn(supervise)?;
        }
        Ok(Process { running, log })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        locked(&self.running).child.id()
    }

    /// The file that collects its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it has not ended yet; a stopped process counts as running.
    pub fn is_running(&mut self) -> bool {
        locked(&self.running).goes_on()
    }

    /// Sends a signal to this one process; nothing happens when it has ended.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        let mut running = locked(&self.running);
        if !running.goes_on() {
            return Ok(());
        }
        match running.pid() {
            Some(pid) => kill_process(pid, signal).map_err(io::Error::from),
            None => Ok(()),
        }
    }

    /// Kills it at once and waits until it is gone.
    pub fn kill(&mut self) {
        let mut running = locked(&self.running);
        running.launch.supervised = false;
        if running.goes_on()
            && let Some(pid) = running.pid()
        {
            // A group that is already gone is what was wanted.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = running.child.wait();
    }

    /// Asks it to end, and kills it when it has not within the limit.
    pub async fn terminate(&mut self, limit: Duration) {
        if self.signal(Signal::TERM).is_ok() {
            let _ = self.ended(limit).await;
        }
        self.kill();
    }

    /// Waits until it ends; `None` when it is still running after the limit.
    pub async fn ended(&mut self, limit: Duration) -> Option<ExitStatus> {
        let wait = async {
            loop {
                if let Ok(Some(status)) = locked(&self.running).child.try_wait() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(limit, wait).await.ok()
    }
}

fn locked(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Kills a process left over from an earlier run, if its command line still names `mark`.
pub fn kill_leftover(pid_file: &Path, mark: &Path) {
    let Some(pid) = std::fs::read_to_string(pid_file)
        .ok()
        .and_then(|text| text.trim().parse::<i32>().ok())
        .and_then(Pid::from_raw)
    else {
        return;
    };
    let command =
        std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    if String::from_utf8_lossy(&command).contains(&*mark.to_string_lossy()) {
        let _ = kill_process(pid, Signal::KILL);
    }
    let _ = std::fs::remove_file(pid_file);
}

/// The end of a file, for error messages.
pub fn tail(path: &Path, lines: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text =
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(16 * 1024)..]).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn setpriv() -> Option<&'static Path> {
    ["/usr/bin/setpriv", "/bin/setpriv"].iter().map(Path::new).find(|path| path.exists())
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// The kernel ties the death signal to the thread that forked, not to the process; so all children come
/// from one thread that lives as long as the process, never from a runtime's short-lived ones.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    static ORDERS: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Order>();
        let run = move || {
            for (mut command, reply) in receiver {
                let _ = reply.send(command.spawn());
            }
        };
        // Without the thread the receiver is dropped, and each order below fails with an error.
        let _ = std::thread::Builder::new().name("spawner".to_owned()).spawn(run);
        sender
    });
    let lost = || io::Error::other("the thread that starts processes is gone");
    let (reply, answer) = mpsc::channel();
    orders.send((command, reply)).map_err(|_| lost())?;
    answer.recv().map_err(|_| lost())?
}
