//! Work that must not slow down what watches over clusters: on threads of its own, after all others.

use std::future::Future;
use std::io;
use tokio::runtime::Handle;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// By how much less than others it is in a hurry.
const NICE: i32 = 10;

/// As much as a program's first thread has. Unoptimised, what archives needs more than the 2 MiB of others.
const STACK: usize = 8 << 20;

/// From now on this thread, and the threads and programs that it starts, come after all others.
pub fn step_back() {
    // Whoever may not ask for less keeps what it has.
    let _ = rustix::process::nice(NICE);
}

/// Does the work on a thread of that name, which counts among its owner's tasks until it ends.
pub(super) fn aside(
    name: String,
    token: TaskTrackerToken,
    work: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let runtime = Handle::current();
    // Not on the thread's stack.
    let work = Box::pin(work);
    let doing = move || {
        let _token = token;
        step_back();
        runtime.block_on(work);
    };
    std::thread::Builder::new().name(name).stack_size(STACK).spawn(doing).map(drop)
}
