//! Taking a server out of service with a command of its operators.

use crate::decision::plan::{Facts, Outcome};
use crate::decision::topology::Fence;
use rustix::process::{Pid, Signal, kill_process_group};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// What the command is told of the watcher's own environment; passwords may stand in the rest.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// Runs the command and waits for its end within its limit; status 0 means that the server can take
/// no writes. The command and all that it started are killed when the limit has passed.
pub async fn run(fence: &Fence, told: &[(&str, String)]) -> Outcome {
    let Some((program, arguments)) = fence.command.split_first() else {
        return Outcome::Failed("the fence command is empty".to_owned());
    };
    let inherited = INHERITED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let spawned = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(inherited)
        .envs(told.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            return Outcome::Failed(format!("the fence command cannot be run: {}", error.kind()));
        }
    };
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    // A little earlier than the step's own limit, so that its end is told as what it is.
    let limit = fence.limit.saturating_sub(Duration::from_millis(50));
    match tokio::time::timeout(limit, child.wait()).await {
        Ok(Ok(status)) if status.success() => {
            group.0 = None;
            Outcome::Done(Facts::default())
        }
        Ok(Ok(status)) => Outcome::Retry(format!("the fence command ended with {status}")),
        Ok(Err(error)) => Outcome::Retry(format!("the fence command: {}", error.kind())),
        Err(_) => Outcome::Retry(format!(
            "the fence command was killed after {} ms",
            fence.limit.as_millis()
        )),
    }
}

/// The command's process group, which is killed with whoever waits for it, unless it ended well.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Nobody may be left of it.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::run;
    use crate::clock::Clock;
    use crate::decision::plan::Outcome;
    use crate::decision::topology::Fence;
    use std::time::Duration;

    async fn ends(command: &[&str], limit: Duration) -> Outcome {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        run(&Fence { command, limit }, &[("REGENT_SERVER", "db1".to_owned())]).await
    }

    #[tokio::test]
    async fn its_status_and_its_environment_tell() {
        let limit = Duration::from_secs(10);
        assert!(matches!(ends(&["true"], limit).await, Outcome::Done(_)));
        assert!(matches!(ends(&["false"], limit).await, Outcome::Retry(_)));
        assert!(matches!(ends(&["/no/such/program"], limit).await, Outcome::Failed(_)));
        // Cargo's own variables stand for what else a watcher's environment holds.
        let script =
            r#"test "$REGENT_SERVER" = db1 && test -n "$PATH" && test -z "$CARGO_PKG_NAME""#;
        assert!(matches!(ends(&["sh", "-c", script], limit).await, Outcome::Done(_)));
    }

    #[tokio::test]
    async fn what_hangs_is_killed_with_all_that_it_started() {
        let place = tempfile::tempdir().unwrap();
        let alive = place.path().join("alive");
        let script = format!("(sleep 1; touch {}) & sleep 100", alive.display());
        let clock = Clock::start();
        let begun = clock.now().moment;
        let ended = ends(&["sh", "-c", &script], Duration::from_millis(300)).await;
        assert!(matches!(&ended, Outcome::Retry(why) if why.contains("killed")), "{ended:?}");
        let took = clock.now().moment.since(begun);
        assert!(took < Duration::from_secs(1), "{took:?}");
        tokio::time::sleep(Duration::from_millis(1300)).await;
        assert!(!alive.exists(), "what it started lives on");
    }
}
