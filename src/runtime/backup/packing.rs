//! Compressing and encrypting a stream, and the way back.

use crate::config::secret::Secret;
use age::x25519::{Identity, Recipient};
use age::{Decryptor, Encryptor};
use async_compression::Level;
use async_compression::tokio::bufread::ZstdDecoder;
use async_compression::tokio::write::ZstdEncoder;
use async_compression::zstd::CParameter;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;
use tokio::io::{
    AsyncBufRead, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter, DuplexStream,
};
use tokio_util::compat::{
    FuturesAsyncReadCompatExt, FuturesAsyncWriteCompatExt, TokioAsyncReadCompatExt,
    TokioAsyncWriteCompatExt,
};

/// More bytes are no file of keys.
const MOST_IDENTITY: u64 = 64 << 10;

/// Bytes read at a time.
const READ: usize = 64 << 10;

/// Threads that compress one stream. More would take a busy host's cores from others.
const WORKERS: u32 = 2;
/// What one of them compresses at a time. A few such are in memory; by itself `zstd` takes four times as much.
const JOB: u32 = 2 << 20;

/// What is passed on at once. The compressor gives 8 KiB at a time, and whoever takes them would be woken for each.
const PASSED_ON: usize = 256 << 10;

/// What comes after a longer pause than this does not keep back what came before.
const IDLE: Duration = Duration::from_millis(500);

/// A stream that takes what is to be packed.
pub(super) type Packing = Box<dyn AsyncWrite + Send + Unpin>;
/// A stream that gives what was packed.
pub(super) type Unpacking = Box<dyn AsyncRead + Send + Unpin>;

/// Why a backup cannot be decrypted, or encrypted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Nobody said with what.
    #[error("it is encrypted to {0}; give the file with one of their secret keys with --identity")]
    Needed(String),
    /// The configuration does not say with what.
    #[error(
        "it is encrypted, and backups.verify.identity names no file with a secret key on this watcher's machine"
    )]
    Unconfigured,
    /// The file cannot be read.
    #[error("cannot read the identity file {file}: {what}")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        what: String,
    },
    /// The file holds no key.
    #[error("{0} holds no age secret key; `age-keygen` writes such files")]
    NoKey(String),
    /// None of the keys fits.
    #[error("no key of the identity file fits, or the data is damaged: {0}")]
    Unfit(String),
    /// A public key that is none.
    #[error("{0:?} is no age public key")]
    Recipient(String),
}

/// Secret keys.
#[derive(Clone, Default)]
pub struct Identities(Vec<Identity>);

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}

impl Identities {
    /// Reads a file as `age-keygen` writes it: a key a line, comments begin with `#`.
    pub fn read(path: &Path) -> Result<Identities, IdentityError> {
        let file = path.display().to_string();
        let mut text = String::new();
        let read = File::open(path).and_then(|it| it.take(MOST_IDENTITY).read_to_string(&mut text));
        let text = Secret::new(text);
        read.map_err(|error| IdentityError::Unreadable {
            file: file.clone(),
            what: error.kind().to_string(),
        })?;
        let lines = text.reveal().lines().map(str::trim);
        let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        // What is wrong with a line is not told: it would be part of a key.
        let found: Vec<Identity> = keys.filter_map(|line| line.parse().ok()).collect();
        if found.is_empty() { Err(IdentityError::NoKey(file)) } else { Ok(Identities(found)) }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Compresses what is written, encrypts it to these public keys if there are any, and passes it on.
pub(super) async fn packing(
    into: DuplexStream,
    recipients: &[String],
    level: i32,
) -> io::Result<Packing> {
    let into = BufWriter::with_capacity(PASSED_ON, into);
    let level = Level::Precise(level);
    let with = [
        // So that `zstd` itself finds out about damage, wherever it happened.
        CParameter::checksum_flag(true),
        // In threads of its own, so that reading and storing go on meanwhile.
        CParameter::nb_workers(WORKERS),
        CParameter::job_size(JOB),
    ];
    if recipients.is_empty() {
        return Ok(Box::new(ZstdEncoder::with_quality_and_params(into, level, &with)));
    }
    let encryptor = encryptor(recipients).map_err(io::Error::other)?;
    let sealed = encryptor.wrap_async_output(into.compat_write()).await?;
    Ok(Box::new(ZstdEncoder::with_quality_and_params(sealed.compat_write(), level, &with)))
}

/// Waits for what is packed next. When that takes a while, what was packed before goes on its way meanwhile:
/// the compressor holds back some.
pub(super) async fn waiting<T>(
    packed: &mut Packing,
    next: impl Future<Output = T>,
) -> io::Result<T> {
    tokio::pin!(next);
    tokio::select! {
        biased;
        came = &mut next => return Ok(came),
        () = tokio::time::sleep(IDLE) => {}
    }
    packed.flush().await?;
    Ok(next.await)
}

fn encryptor(recipients: &[String]) -> Result<Encryptor, IdentityError> {
    let mut keys = Vec::new();
    for text in recipients {
        let key: Result<Recipient, _> = text.parse();
        keys.push(key.map_err(|_| IdentityError::Recipient(text.clone()))?);
    }
    Encryptor::with_recipients(keys.iter().map(|key| key as &dyn age::Recipient))
        .map_err(|error| IdentityError::Recipient(error.to_string()))
}

/// Decrypts with one of these keys if it is encrypted, decompresses and gives what was packed.
pub(super) async fn unpacking(
    from: DuplexStream,
    encrypted: bool,
    identities: &Identities,
) -> Result<Unpacking, IdentityError> {
    if !encrypted {
        return Ok(whole(BufReader::with_capacity(READ, from)));
    }
    let unfit = |error: age::DecryptError| IdentityError::Unfit(error.to_string());
    let decryptor = Decryptor::new_async(from.compat()).await.map_err(unfit)?;
    let keys = identities.0.iter().map(|key| key as &dyn age::Identity);
    let opened = decryptor.decrypt_async(keys).map_err(unfit)?;
    Ok(whole(BufReader::with_capacity(READ, opened.compat())))
}

/// Decompresses up to the very end of what is read, so that nothing can stand behind it unseen.
fn whole(from: impl AsyncBufRead + Send + Unpin + 'static) -> Unpacking {
    let mut decoder = ZstdDecoder::new(from);
    decoder.multiple_members(true);
    Box::new(decoder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn identities(key: &Identity) -> (tempfile::TempDir, std::path::PathBuf) {
        use age::secrecy::ExposeSecret;
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("key.txt");
        let text = format!("# created: today\n{}\n", key.to_string().expose_secret());
        std::fs::write(&path, text).unwrap();
        (place, path)
    }

    async fn there_and_back(
        recipients: Vec<String>,
        with: Identities,
    ) -> Result<Vec<u8>, IdentityError> {
        let plain: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let (into, from) = tokio::io::duplex(16 << 10);
        let encrypted = !recipients.is_empty();
        let written = plain.clone();
        let writing = tokio::spawn(async move {
            let mut packed = packing(into, &recipients, 3).await.unwrap();
            // The reader may give up.
            let _ = packed.write_all(&written).await;
            let _ = packed.shutdown().await;
        });
        let mut back = Vec::new();
        unpacking(from, encrypted, &with).await?.read_to_end(&mut back).await.unwrap();
        writing.await.unwrap();
        assert_eq!(back, plain);
        Ok(back)
    }

    #[tokio::test]
    async fn what_is_packed_comes_back_for_those_who_have_the_key() {
        assert!(there_and_back(Vec::new(), Identities::default()).await.is_ok());
        let (key, other) = (Identity::generate(), Identity::generate());
        let (_kept, path) = identities(&key);
        let to = vec![other.to_public().to_string(), key.to_public().to_string()];
        assert!(there_and_back(to.clone(), Identities::read(&path).unwrap()).await.is_ok());
        let stranger = Identities(vec![Identity::generate()]);
        assert!(matches!(there_and_back(to, stranger).await, Err(IdentityError::Unfit(_))));
    }

    #[tokio::test]
    async fn what_was_packed_does_not_wait_for_what_comes() {
        let (into, mut from) = tokio::io::duplex(16 << 10);
        let mut packed = packing(into, &[], 3).await.unwrap();
        packed.write_all(b"shop").await.unwrap();
        let mut first = [0];
        let came = waiting(&mut packed, from.read_exact(&mut first)).await.unwrap();
        assert_eq!(came.unwrap(), 1, "the compressor kept it");
    }

    #[test]
    fn a_file_without_a_key_is_named_and_not_shown() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("key.txt");
        std::fs::write(&path, "AGE-SECRET-KEY-1BROKEN\n").unwrap();
        let text = Identities::read(&path).unwrap_err().to_string();
        assert!(text.contains("key.txt") && !text.contains("BROKEN"), "{text}");
        assert!(Identities::read(&place.path().join("none")).is_err());
    }
}
