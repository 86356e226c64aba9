//! Snappy's block format: what a body says it will become, and what it becomes.

/// Longest preamble: a length of 32 bits as a varint.
pub const PREAMBLE_BYTES: usize = 5;

/// Why a body is not a snappy block.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("body is not snappy block format: {0}")]
pub struct NotSnappy(pub String);

/// The decoded length that the first bytes of a block declare. `None` while there are too few of them to
/// tell.
pub fn declared_len(start: &[u8]) -> Result<Option<usize>, NotSnappy> {
    let mut len = 0u64;
    for (i, &byte) in start.iter().take(PREAMBLE_BYTES).enumerate() {
        len |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return match u32::try_from(len) {
                Ok(len) => Ok(Some(len as usize)),
                Err(_) => Err(NotSnappy("it declares a length of more than 32 bits".into())),
            };
        }
    }
    if start.len() < PREAMBLE_BYTES {
        return Ok(None);
    }
    Err(NotSnappy("it does not start with a length".into()))
}

/// Decodes a block. The caller has checked the declared length: that much is allocated here.
pub fn decode(block: &[u8]) -> Result<Vec<u8>, NotSnappy> {
    if block.is_empty() {
        return Err(NotSnappy("it is empty".into()));
    }
    snap::raw::Decoder::new().decompress_vec(block).map_err(|e| NotSnappy(e.to_string()))
}
