//! What travels on a watcher's peer port: frames, and the greeting with which each link begins.
//!
//! A frame is `[u32 length][u8 kind][u32 crc32][payload]`, numbers big-endian; the length counts the
//! payload, the checksum covers kind and payload. Every link begins with a [`Hello`] from the one
//! who connects, answered by a [`Hello`] or a [`Refusal`]. What comes after is for the two ends.
//! The length is checked against the link's limit before a byte of the payload is kept.

use crate::decision::topology::WatcherName;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::codec::{Decoder, Encoder, FramedRead};

/// The protocol versions this build speaks.
pub const SPOKEN: Versions = Versions { oldest: 1, newest: 1 };

const HEADER: usize = 9;

/// How much room is made at once for a payload that has only been promised.
const RESERVE_STEP: usize = 64 * 1024;

/// The largest greeting; it comes before anything is known about the other end.
const HELLO_LIMIT: usize = 4 * 1024;

/// What a frame carries; links ignore kinds they do not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind(pub u8);

impl Kind {
    /// A [`Hello`], as JSON.
    pub const HELLO: Kind = Kind(1);
    /// A [`Refusal`], as JSON; the link ends after it.
    pub const REFUSAL: Kind = Kind(2);
    /// A `FromProxy` or `ToProxy`, as JSON.
    pub const PROXY: Kind = Kind(3);
    /// A message between watchers, as JSON.
    pub const PEER: Kind = Kind(4);
    /// A Raft message, encoded by raft-rs.
    pub const RAFT: Kind = Kind(5);
    /// What watchers tell each other about a chore, as JSON.
    pub const CHORE: Kind = Kind(6);
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: Kind,
    /// Checked against its checksum, otherwise untouched.
    pub payload: Bytes,
}

impl Frame {
    /// A frame that carries a value as JSON.
    pub fn json<T: Serialize>(kind: Kind, value: &T) -> Result<Frame, WireError> {
        let payload = serde_json::to_vec(value).map_err(|e| WireError::Json(e.to_string()))?;
        Ok(Frame { kind, payload: payload.into() })
    }

    /// Reads the payload as JSON.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, WireError> {
        serde_json::from_slice(&self.payload).map_err(|e| WireError::Json(e.to_string()))
    }
}

/// Who is at one end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A watcher.
    Watcher,
    /// A proxy.
    Proxy,
}

impl Role {
    /// The largest payload, in bytes, on a link that one of this role opened.
    pub fn limit(self) -> usize {
        match self {
            Role::Watcher => 32 * 1024 * 1024,
            Role::Proxy => 1024 * 1024,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Watcher => "watcher",
            Role::Proxy => "proxy",
        })
    }
}

/// Encodes and decodes frames up to a limit.
#[derive(Clone, Debug)]
pub struct FrameCodec {
    limit: usize,
}

impl FrameCodec {
    /// For payloads of up to `limit` bytes.
    pub fn new(limit: usize) -> FrameCodec {
        FrameCodec { limit }
    }

    /// From now on, payloads of up to `limit` bytes.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = WireError;

    fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Frame>, WireError> {
        let Some(mut header) = from.get(..HEADER) else {
            from.reserve(HEADER);
            return Ok(None);
        };
        let length = header.get_u32() as usize;
        let kind = Kind(header.get_u8());
        let checksum = header.get_u32();
        if length > self.limit {
            return Err(WireError::TooLong { length, limit: self.limit });
        }
        let missing = (HEADER + length).saturating_sub(from.len());
        if missing > 0 {
            // A promise alone must not cost memory: room grows with what really arrives.
            from.reserve(missing.min(RESERVE_STEP));
            return Ok(None);
        }
        from.advance(HEADER);
        let payload = from.split_to(length).freeze();
        if checksum_of(kind, &payload) != checksum {
            return Err(WireError::Corrupt { kind });
        }
        Ok(Some(Frame { kind, payload }))
    }

    fn decode_eof(&mut self, from: &mut BytesMut) -> Result<Option<Frame>, WireError> {
        match self.decode(from)? {
            Some(frame) => Ok(Some(frame)),
            None if from.is_empty() => Ok(None),
            None => Err(WireError::Truncated),
        }
    }
}

impl Encoder<&Frame> for FrameCodec {
    type Error = WireError;

    fn encode(&mut self, frame: &Frame, into: &mut BytesMut) -> Result<(), WireError> {
        let length = frame.payload.len();
        let fits = u32::try_from(length).ok().filter(|_| length <= self.limit);
        let Some(announced) = fits else {
            return Err(WireError::TooLong { length, limit: self.limit });
        };
        into.reserve(HEADER + length);
        into.put_u32(announced);
        into.put_u8(frame.kind.0);
        into.put_u32(checksum_of(frame.kind, &frame.payload));
        into.put_slice(&frame.payload);
        Ok(())
    }
}

fn checksum_of(kind: Kind, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind.0]);
    hasher.update(payload);
    hasher.finalize()
}

/// The reading end of a link.
#[derive(Debug)]
pub struct FrameReader<R> {
    frames: FramedRead<R, FrameCodec>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Starts out with the limit of a greeting; [`greet`] and [`be_greeted`] raise it.
    pub fn new(from: R) -> FrameReader<R> {
        FrameReader { frames: FramedRead::new(from, FrameCodec::new(HELLO_LIMIT)) }
    }

    /// The next frame; `None` once the other end has closed between two frames.
    ///
    /// May be dropped while it waits without losing a byte.
    pub async fn next(&mut self) -> Result<Option<Frame>, WireError> {
        self.frames.next().await.transpose()
    }

    /// From now on, payloads of up to `limit` bytes.
    pub fn set_limit(&mut self, limit: usize) {
        self.frames.decoder_mut().set_limit(limit);
    }
}

/// The writing end of a link.
#[derive(Debug)]
pub struct FrameWriter<W> {
    into: W,
    codec: FrameCodec,
    buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// For payloads of up to `limit` bytes, which is the limit of the role that opened the link.
    pub fn new(into: W, limit: usize) -> FrameWriter<W> {
        FrameWriter { into, codec: FrameCodec::new(limit), buffer: BytesMut::new() }
    }

    /// Adds a frame to what the next `flush` writes; one flush for many frames saves packets.
    pub fn add(&mut self, frame: &Frame) -> Result<(), WireError> {
        self.codec.encode(frame, &mut self.buffer)
    }

    /// Bytes added and not written yet.
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Writes all that was added. Dropped half-way, the link is unusable: close it.
    pub async fn flush(&mut self) -> Result<(), WireError> {
        self.into.write_all_buf(&mut self.buffer).await?;
        self.into.flush().await?;
        Ok(())
    }

    /// Adds one frame and writes it.
    pub async fn send(&mut self, frame: &Frame) -> Result<(), WireError> {
        self.add(frame)?;
        self.flush().await
    }

    /// Adds one value as JSON and writes it.
    pub async fn send_json<T: Serialize>(
        &mut self,
        kind: Kind,
        value: &T,
    ) -> Result<(), WireError> {
        self.send(&Frame::json(kind, value)?).await
    }
}

/// A range of protocol versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The oldest one understood.
    pub oldest: u16,
    /// The newest one understood.
    pub newest: u16,
}

impl Versions {
    /// The newest version both understand.
    pub fn common(self, other: Versions) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.oldest, self.newest)
    }
}

/// The first frame in each direction: who is there. Unknown fields are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol versions it understands.
    pub protocol: Versions,
    /// What it is.
    pub role: Role,
    /// Its name among its kind.
    pub name: String,
    /// Which set of watchers it belongs to, by [`fingerprint`].
    pub fleet: u32,
    /// Its product version, for people.
    pub product: String,
}

impl Hello {
    /// This build's greeting.
    pub fn new(role: Role, name: &str, fleet: u32) -> Hello {
        let product = env!("CARGO_PKG_VERSION").to_owned();
        Hello { protocol: SPOKEN, role, name: name.to_owned(), fleet, product }
    }

    /// Checks what any link needs: a common protocol version and the same set of watchers.
    pub fn check(&self, other: &Hello) -> Result<u16, Refusal> {
        if self.fleet != other.fleet {
            return Err(Refusal::OtherFleet { ours: self.fleet });
        }
        let common = self.protocol.common(other.protocol);
        common.ok_or(Refusal::WrongVersion { ours: self.protocol })
    }
}

/// Why a greeting was turned down, in the words of the one who did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// No protocol version in common.
    #[error("it speaks protocol {ours} only")]
    WrongVersion {
        /// What the refusing end speaks.
        ours: Versions,
    },
    /// It belongs to another set of watchers.
    #[error("it belongs to another set of watchers ({ours:08x})")]
    OtherFleet {
        /// The refusing end's set.
        ours: u32,
    },
    /// No watcher of that name is declared.
    #[error("it does not know the {role} {name:?}")]
    UnknownName {
        /// The role claimed.
        role: Role,
        /// The name claimed.
        name: String,
    },
    /// One more link than it carries.
    #[error("it carries too many links")]
    TooMany,
    /// A reason that this version does not know.
    #[serde(other)]
    #[error("it gave a reason this version does not know")]
    Other,
}

/// Which set of watchers a configuration means; the order does not matter.
pub fn fingerprint<'a>(watchers: impl IntoIterator<Item = &'a WatcherName>) -> u32 {
    let mut names: Vec<&str> = watchers.into_iter().map(WatcherName::as_str).collect();
    names.sort_unstable();
    crc32fast::hash(names.join("\n").as_bytes())
}

/// Greets over a link just opened and returns the other end's greeting. Bound it in time.
///
/// Afterwards both directions carry payloads up to the limit of `ours.role`.
pub async fn greet<R, W>(
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
    ours: &Hello,
) -> Result<Hello, WireError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    writer.send_json(Kind::HELLO, ours).await?;
    let theirs = read_hello(reader).await?;
    ours.check(&theirs).map_err(WireError::NotOurs)?;
    reader.set_limit(ours.role.limit());
    Ok(theirs)
}

/// Awaits the greeting on a link just accepted, and answers it. Bound it in time.
///
/// `known` decides whether one of that role and name is welcome. Afterwards the link carries
/// payloads up to the limit of the returned greeting's role; the writer's own limit may be higher.
pub async fn be_greeted<R, W>(
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
    ours: &Hello,
    known: impl FnOnce(&Hello) -> bool,
) -> Result<Hello, WireError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let theirs = read_hello(reader).await?;
    let unknown = || Refusal::UnknownName { role: theirs.role, name: theirs.name.clone() };
    let verdict =
        ours.check(&theirs).and_then(|_| known(&theirs).then_some(()).ok_or_else(unknown));
    if let Err(refusal) = verdict {
        writer.send_json(Kind::REFUSAL, &refusal).await?;
        return Err(WireError::NotOurs(refusal));
    }
    writer.send_json(Kind::HELLO, ours).await?;
    reader.set_limit(theirs.role.limit());
    Ok(theirs)
}

async fn read_hello<R: AsyncRead + Unpin>(reader: &mut FrameReader<R>) -> Result<Hello, WireError> {
    let frame = reader.next().await?.ok_or(WireError::Truncated)?;
    match frame.kind {
        Kind::HELLO => frame.parse(),
        Kind::REFUSAL => Err(WireError::Refused(frame.parse()?)),
        kind => Err(WireError::NoHello { kind }),
    }
}

/// What can go wrong on a link; none of them leaves it usable.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A frame longer than the link allows.
    #[error("a frame of {length} bytes is over this link's limit of {limit}")]
    TooLong {
        /// What was announced.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The checksum does not match.
    #[error("a frame of kind {} arrived damaged", kind.0)]
    Corrupt {
        /// The frame's kind, as read.
        kind: Kind,
    },
    /// The link ended inside a frame, or before a greeting.
    #[error("the link ended inside a frame")]
    Truncated,
    /// A payload is not the JSON it should be.
    #[error("a payload could not be understood: {0}")]
    Json(String),
    /// The first frame is no greeting.
    #[error("the first frame is of kind {} and no greeting", kind.0)]
    NoHello {
        /// What came.
        kind: Kind,
    },
    /// The other end turned our greeting down.
    #[error("the other end refused: {0}")]
    Refused(Refusal),
    /// We turned the other end down.
    #[error("its greeting was refused: {0}")]
    NotOurs(Refusal),
    /// The network failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(frame: &Frame) -> BytesMut {
        let mut out = BytesMut::new();
        FrameCodec::new(1 << 20).encode(frame, &mut out).unwrap();
        out
    }

    fn sample() -> Frame {
        Frame { kind: Kind::PEER, payload: Bytes::from_static(b"twelve bytes") }
    }

    #[test]
    fn frames_survive_any_cutting() {
        let mut wire = encoded(&sample());
        wire.extend_from_slice(&encoded(&Frame { kind: Kind(200), payload: Bytes::new() }));
        for step in 1..wire.len() {
            let (mut codec, mut buffer, mut got) =
                (FrameCodec::new(12), BytesMut::new(), Vec::new());
            for chunk in wire.chunks(step) {
                buffer.extend_from_slice(chunk);
                while let Some(frame) = codec.decode(&mut buffer).unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got.len(), 2, "in chunks of {step}");
            assert_eq!(got[0], sample());
            assert_eq!(got[1].kind, Kind(200));
        }
    }

    #[test]
    fn a_promise_of_too_much_is_refused_from_the_header_alone() {
        let mut wire = BytesMut::new();
        wire.put_u32(u32::MAX);
        wire.put_bytes(0, HEADER - 4);
        let refused = FrameCodec::new(Role::Watcher.limit()).decode(&mut wire);
        assert!(matches!(refused, Err(WireError::TooLong { .. })), "{refused:?}");

        let large = Frame { kind: Kind::RAFT, payload: vec![0; 13].into() };
        let refused = FrameCodec::new(12).encode(&large, &mut BytesMut::new());
        assert!(matches!(refused, Err(WireError::TooLong { length: 13, limit: 12 })));
    }

    #[test]
    fn a_promise_within_the_limit_reserves_little() {
        let mut wire = BytesMut::new();
        wire.put_u32(32 * 1024 * 1024);
        wire.put_bytes(0, HEADER - 4);
        assert!(FrameCodec::new(Role::Watcher.limit()).decode(&mut wire).unwrap().is_none());
        assert!(wire.capacity() <= 4 * RESERVE_STEP, "{} bytes reserved", wire.capacity());
    }

    #[test]
    fn every_flipped_bit_of_kind_checksum_and_payload_is_noticed() {
        let whole = encoded(&sample());
        for bit in 32..whole.len() * 8 {
            let mut wire = whole.clone();
            wire[bit / 8] ^= 1 << (bit % 8);
            let read = FrameCodec::new(1 << 20).decode(&mut wire);
            assert!(matches!(read, Err(WireError::Corrupt { .. })), "bit {bit}: {read:?}");
        }
    }

    #[test]
    fn an_end_inside_a_frame_is_an_error_and_between_frames_is_none() {
        let whole = encoded(&sample());
        for length in 1..whole.len() {
            let mut wire = BytesMut::from(&whole[..length]);
            let read = FrameCodec::new(1 << 20).decode_eof(&mut wire);
            assert!(matches!(read, Err(WireError::Truncated)), "{length}: {read:?}");
        }
        assert!(FrameCodec::new(1).decode_eof(&mut BytesMut::new()).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let mut wire = BytesMut::from(&bytes[..]);
            let mut codec = FrameCodec::new(64);
            while let Ok(Some(frame)) = codec.decode_eof(&mut wire) {
                let _ = frame.parse::<Hello>();
            }
        }
    }

    /// Runs both sides of a greeting and returns what each made of it.
    async fn meet(
        client: Hello,
        server: Hello,
        known: bool,
    ) -> (Result<Hello, WireError>, Result<Hello, WireError>) {
        let (near, far) = tokio::io::duplex(1024);
        let ((near_read, near_write), (far_read, far_write)) =
            (tokio::io::split(near), tokio::io::split(far));
        let limit = Role::Proxy.limit();
        let asking = async {
            let mut reader = FrameReader::new(near_read);
            greet(&mut reader, &mut FrameWriter::new(near_write, limit), &client).await
        };
        let answering = async {
            let mut reader = FrameReader::new(far_read);
            let mut writer = FrameWriter::new(far_write, limit);
            be_greeted(&mut reader, &mut writer, &server, |_| known).await
        };
        tokio::join!(asking, answering)
    }

    #[tokio::test]
    async fn greetings_are_exchanged_or_refused_with_the_reason() {
        let fleet = fingerprint(&["paris".into(), "london".into()]);
        assert_eq!(fleet, fingerprint(&["london".into(), "paris".into()]));
        let proxy = Hello::new(Role::Proxy, "p1", fleet);
        let watcher = Hello::new(Role::Watcher, "paris", fleet);

        let (asked, answered) = meet(proxy.clone(), watcher.clone(), true).await;
        assert_eq!((asked.unwrap(), answered.unwrap()), (watcher.clone(), proxy.clone()));

        let (asked, _) = meet(proxy.clone(), watcher.clone(), false).await;
        let unknown = Refusal::UnknownName { role: Role::Proxy, name: "p1".into() };
        assert!(matches!(asked, Err(WireError::Refused(why)) if why == unknown));

        let newer = Hello { protocol: Versions { oldest: 2, newest: 9 }, ..proxy.clone() };
        let (asked, _) = meet(newer, watcher.clone(), true).await;
        let version = Refusal::WrongVersion { ours: SPOKEN };
        assert!(matches!(asked, Err(WireError::Refused(why)) if why == version));

        let stranger = Hello { fleet: 1, ..proxy };
        let (asked, _) = meet(stranger, watcher, true).await;
        assert!(matches!(asked, Err(WireError::Refused(Refusal::OtherFleet { .. }))));
    }

    #[test]
    fn a_refusal_from_the_future_is_still_one() {
        for text in [r#""too_tired""#, r#""too_many""#] {
            assert!(serde_json::from_str::<Refusal>(text).is_ok(), "{text}");
        }
    }
}
