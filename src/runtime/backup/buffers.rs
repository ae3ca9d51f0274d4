//! Memory that parts are in, one after the other: so few buffers are there as parts are at the same time,
//! and the allocator cannot scatter what is given back.

use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers that no part is in.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A part's bytes, whose memory goes back when the last one who reads them is done.
#[derive(Debug)]
struct Lent {
    bytes: Vec<u8>,
    home: Buffers,
}

impl Buffers {
    /// A buffer with room for so many bytes. What was in it before is there still: whoever reads into a slice
    /// need not have it filled with zeros each time.
    pub(super) fn take(&self, size: usize) -> Vec<u8> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // Parts only become larger: what is too small now stays so.
        free.retain(|buffer| buffer.capacity() >= size);
        free.pop().unwrap_or_else(|| Vec::with_capacity(size))
    }

    /// What was read into a buffer of this place, to be passed around.
    pub(super) fn lend(&self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { bytes, home: self.clone() })
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.home.free.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_the_last_reader_and_is_used_again() {
        let buffers = Buffers::default();
        let mut first = buffers.take(100);
        first.extend_from_slice(b"shop");
        let place = first.as_ptr();
        let part = buffers.lend(first);
        let reader = part.slice(1..3);
        drop(part);
        let other = buffers.take(100);
        assert_ne!(other.as_ptr(), place, "somebody still reads");
        assert_eq!(&reader[..], b"ho");
        drop(reader);
        let again = buffers.take(50);
        assert_eq!(again.as_ptr(), place);
        drop(buffers.lend(again));
        assert!(buffers.take(101).capacity() > 100, "too small for the next ones");
        assert!(buffers.free.lock().unwrap().is_empty());
    }
}
