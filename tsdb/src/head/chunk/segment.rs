//! Where the bytes of closed chunks lie: one behind the other in large pieces of memory, each freed with the
//! last chunk in it.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

/// Bytes of one piece. Every thread that closes chunks has one open.
const SEGMENT_BYTES: usize = 256 << 10;

thread_local! {
    static OPEN: RefCell<BytesMut> = RefCell::default();
}

/// A copy of the bytes that takes their length and no more. Chunks that grow and chunks that stay are of like
/// sizes: where both come from the allocator, those that stay hold on to the pages that those that grew have
/// left. All chunks of a generation go at once, so pieces do too.
pub fn keep(bytes: &[u8]) -> Bytes {
    OPEN.with_borrow_mut(|open| {
        if open.capacity() < bytes.len() {
            *open = BytesMut::with_capacity(SEGMENT_BYTES.max(bytes.len()));
        }
        open.extend_from_slice(bytes);
        open.split().freeze()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_keeps_bytes_together_and_as_they_were() {
        let kept: Vec<Bytes> = (0..3000u32).map(|i| keep(&vec![i as u8; i as usize % 700])).collect();
        for (i, bytes) in kept.iter().enumerate() {
            assert_eq!(bytes.len(), i % 700);
            assert!(bytes.iter().all(|b| *b == i as u8));
        }
        let neighbours = kept.windows(2).filter(|w| w[0].as_ptr_range().end == w[1].as_ptr()).count();
        assert!(neighbours > 2900, "{neighbours} of 3000 lie behind the one before");
        let large = vec![7; 3 * SEGMENT_BYTES];
        assert_eq!(keep(&large), large);
        assert_eq!(keep(&[1, 2]), [1u8, 2][..]);
    }
}
