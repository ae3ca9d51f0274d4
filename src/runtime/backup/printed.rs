//! What a program prints, read by a thread of its own.
//!
//! Programs print a few kilobytes at a time. A task that waits for them is woken for each through the runtime's poll
//! and queues, on the cores that the program and the compressor need; a thread is where they are at once.

use super::buffers::Buffers;
use super::tool::widen;
use bytes::Bytes;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use tokio::process::ChildStdout;
use tokio::sync::mpsc;

/// What a pipe from a program holds, where the system lets it. More would not stay in the processor's cache.
const PIPE: usize = 256 << 10;

/// Pieces that wait to be taken.
const WAITING: usize = 2;

/// The output of a program, piece by piece.
#[derive(Debug)]
pub(super) struct Printed(mpsc::Receiver<io::Result<Bytes>>);

/// Who reads the output.
struct Reader {
    output: File,
    /// The most bytes of a piece.
    size: usize,
    buffers: Buffers,
}

impl Printed {
    /// Begins to read, so many bytes at most at a time.
    pub(super) fn begin(output: ChildStdout, size: usize) -> io::Result<Printed> {
        let output = output.into_owned_fd()?;
        rustix::io::ioctl_fionbio(&output, false)?;
        widen(&output, PIPE);
        let (into, pieces) = mpsc::channel(WAITING);
        let (output, buffers) = (File::from(output), Buffers::default());
        let mut reader = Reader { output, size, buffers };
        let reading = move || reader.read_all(&into);
        std::thread::Builder::new().name("printed".to_owned()).spawn(reading)?;
        Ok(Printed(pieces))
    }

    /// The next piece, with what came until now; nothing at the end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let broken_off = || Err(io::Error::from(ErrorKind::BrokenPipe));
        let piece = self.0.recv().await.unwrap_or_else(broken_off)?;
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }
}

impl Reader {
    /// Reads to the end, of which an empty piece tells, or as long as somebody takes the pieces.
    fn read_all(&mut self, into: &mpsc::Sender<io::Result<Bytes>>) {
        loop {
            let piece = self.piece();
            let goes_on = piece.as_ref().is_ok_and(|piece| !piece.is_empty());
            if into.blocking_send(piece).is_err() || !goes_on {
                return;
            }
        }
    }

    /// A full piece, or what there is now; empty at the end.
    fn piece(&mut self) -> io::Result<Bytes> {
        let mut buffer = self.buffers.take(self.size);
        buffer.resize(self.size, 0);
        let mut filled = 0;
        while let Some(left) = buffer.get_mut(filled..).filter(|left| !left.is_empty()) {
            match self.output.read(left) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if rustix::io::ioctl_fionread(&self.output)? == 0 {
                break;
            }
        }
        Ok(self.buffers.lend(buffer).slice(..filled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;
    use std::time::Duration;
    use tokio::process::{Child, Command};

    fn printed(script: &str) -> (Child, Printed) {
        let mut command = Command::new("bash");
        command.args(["-c", script]).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let printed = Printed::begin(child.stdout.take().unwrap(), 1000).unwrap();
        (child, printed)
    }

    #[tokio::test]
    async fn all_of_it_comes_in_pieces() {
        let (_child, mut printed) = printed("for n in {1..500}; do printf '%09d\n' $n; done");
        let mut all = Vec::new();
        let mut pieces = 0;
        while let Some(piece) = printed.next().await.unwrap() {
            assert!(piece.len() <= 1000, "{piece:?}");
            all.extend_from_slice(&piece);
            pieces += 1;
        }
        let expected: String = (1..=500).map(|n| format!("{n:09}\n")).collect();
        assert_eq!(String::from_utf8(all).unwrap(), expected);
        assert!(pieces >= 5, "{pieces}");
        assert!(printed.next().await.is_err(), "there is one end only");
    }

    #[tokio::test]
    async fn what_came_does_not_wait_for_what_comes() {
        let (_child, mut printed) = printed("printf shop; exec sleep 60");
        let first = tokio::time::timeout(Duration::from_secs(20), printed.next()).await;
        assert_eq!(first.unwrap().unwrap().unwrap(), &b"shop"[..]);
    }
}
