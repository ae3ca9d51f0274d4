//! File systems of fixed size, which fill up, and stall when told to.

use super::LabError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

const BALLAST: &str = "ballast";

/// A file system of its own, mounted on a directory. Dropping it lets everything that hangs on it go on,
/// and unmounts it as soon as nobody uses it.
#[derive(Debug)]
pub struct Volume {
    place: PathBuf,
}

impl Volume {
    /// Makes one of this size in the file `image` and mounts it on `place`, both of which are made.
    pub fn mount(image: &Path, place: &Path, megabytes: u64) -> Result<Volume, LabError> {
        fs::create_dir_all(place)?;
        fs::File::create(image)?.set_len(megabytes << 20)?;
        let file = image.as_os_str().to_string_lossy();
        let over = place.as_os_str().to_string_lossy();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &file])?;
        run("mount", &["-o", "loop", &file, &over])?;
        Ok(Volume { place: place.to_owned() })
    }

    /// Lets every write hang; reads go on.
    pub fn stall(&self) -> Result<(), LabError> {
        run("fsfreeze", &["--freeze", &self.place.to_string_lossy()])
    }

    /// Ends a stall.
    pub fn resume(&self) -> Result<(), LabError> {
        run("fsfreeze", &["--unfreeze", &self.place.to_string_lossy()])
    }

    /// Takes all the space that is left.
    pub fn fill(&self) -> Result<(), LabError> {
        let mut ballast = fs::File::create(self.place.join(BALLAST))?;
        // Ever smaller pieces, down to one block.
        for piece in [1 << 20, 64 << 10, 4 << 10] {
            let zeros = vec![0; piece];
            while io::Write::write_all(&mut ballast, &zeros).is_ok() {}
        }
        Ok(())
    }

    /// Gives the space back.
    pub fn clear(&self) -> Result<(), LabError> {
        Ok(fs::remove_file(self.place.join(BALLAST))?)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Refused when it is not stalled, which is as well.
        let _ = self.resume();
        let _ = run("umount", &["--lazy", &self.place.to_string_lossy()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), LabError> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(LabError::Refused { program: program.to_owned(), said })
}
