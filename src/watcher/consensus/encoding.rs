//! How hard state, entries and snapshots look on disk: a version, a checksum, then raft-rs' encoding.
//!
//! What an entry or a snapshot says is the owner's affair and stays opaque here.

use protobuf::Message;

/// The version this build writes; the only one it reads.
const VERSION: u8 = 1;

const HEADER: usize = 5;

/// Frames an encoded message: `[version][crc32, big-endian][payload]`.
pub(super) fn seal<M: Message>(message: &M) -> Result<Vec<u8>, FormatError> {
    let payload =
        message.write_to_bytes().map_err(|error| FormatError::Undecodable(error.to_string()))?;
    let mut sealed = Vec::with_capacity(HEADER + payload.len());
    sealed.push(VERSION);
    sealed.extend_from_slice(&crc32fast::hash(&payload).to_be_bytes());
    sealed.extend_from_slice(&payload);
    Ok(sealed)
}

/// Checks and decodes what [`seal`] wrote.
pub(super) fn unseal<M: Message>(sealed: &[u8]) -> Result<M, FormatError> {
    let Some((&version, rest)) = sealed.split_first() else {
        return Err(FormatError::TooShort);
    };
    if version != VERSION {
        return Err(FormatError::Version(version));
    }
    let Some((checksum, payload)) = rest.split_first_chunk::<4>() else {
        return Err(FormatError::TooShort);
    };
    if u32::from_be_bytes(*checksum) != crc32fast::hash(payload) {
        return Err(FormatError::Checksum);
    }
    M::parse_from_bytes(payload).map_err(|error| FormatError::Undecodable(error.to_string()))
}

/// Why stored bytes are not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Shorter than its own header.
    #[error("it is cut off")]
    TooShort,
    /// Written by a version that this one does not know.
    #[error("it is of format {0}, this version reads format {VERSION} only")]
    Version(u8),
    /// Changed since it was written.
    #[error("its checksum does not match")]
    Checksum,
    /// The checksum matches and the encoding does not.
    #[error("it cannot be decoded: {0}")]
    Undecodable(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::eraftpb::Entry;

    #[test]
    fn every_changed_byte_is_noticed() {
        let entry = Entry { index: 7, data: vec![1, 2, 3].into(), ..Entry::default() };
        let sealed = seal(&entry).unwrap();
        assert_eq!(unseal::<Entry>(&sealed), Ok(entry));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 0x10;
            assert!(unseal::<Entry>(&changed).is_err(), "byte {at}");
            assert!(unseal::<Entry>(&sealed[..at]).is_err(), "cut at {at}");
        }
    }
}
