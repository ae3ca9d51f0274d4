//! Disks that are full soon.

use std::path::PathBuf;
use std::process::Command;

/// A small file system of its own; none where mounting is not allowed.
pub struct Small(PathBuf);

impl Small {
    pub fn mount(at: PathBuf, size: &str) -> Option<Small> {
        std::fs::create_dir_all(&at).unwrap();
        let options = format!("size={size}");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at);
        let ended = command.output().ok()?;
        if ended.status.success() {
            return Some(Small(at));
        }
        let why = String::from_utf8_lossy(&ended.stderr);
        eprintln!("skipped: no file system can be mounted here: {}", why.trim());
        None
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
