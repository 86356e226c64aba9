//! The checksums of a data file's head as its footer holds them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Bytes that one checksum of a file's head covers.
pub const CRC_BLOCK_BYTES: u64 = 4096;

/// RFC 4648 base64, without padding.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}

/// Undoes [`to_base64`]; `None` where the text is not of it.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_comes_back_and_agrees_with_the_rfc() {
        assert_eq!(to_base64(b"foobar"), "Zm9vYmFy");
        assert_eq!(to_base64(b"foob"), "Zm9vYg");
        for n in 0..70usize {
            let bytes: Vec<u8> = (0..n).map(|i| (i * 37 + n) as u8).collect();
            assert_eq!(from_base64(&to_base64(&bytes)).as_deref(), Some(&bytes[..]));
        }
        assert_eq!(from_base64("A"), None);
        assert_eq!(from_base64("A=.."), None);
    }
}
