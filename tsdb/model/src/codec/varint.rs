//! Variable-length integers, seven bits a byte, low bits first (protobuf's "varint"), for chunks and the log.

/// Appends an unsigned integer in 1 to 10 bytes.
#[inline]
pub fn put_u64(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Appends a signed integer, small magnitudes short (zigzag).
#[inline]
pub fn put_i64(out: &mut Vec<u8>, v: i64) {
    put_u64(out, ((v << 1) ^ (v >> 63)) as u64);
}

/// Appends a length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes an unsigned integer off the front; `None` where it is cut off or longer than ten bytes.
#[inline]
pub fn take_u64(from: &mut &[u8]) -> Option<u64> {
    let mut v = 0u64;
    for (i, &b) in from.iter().take(10).enumerate() {
        v |= ((b & 0x7f) as u64) << (7 * i);
        if b < 0x80 {
            *from = &from[i + 1..];
            return Some(v);
        }
    }
    None
}

/// Takes what [`put_i64`] wrote.
#[inline]
pub fn take_i64(from: &mut &[u8]) -> Option<i64> {
    take_u64(from).map(|z| (z >> 1) as i64 ^ -((z & 1) as i64))
}

/// Takes what [`put_bytes`] wrote.
pub fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_u64(from)?).ok()?;
    let (bytes, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(bytes)
}

/// Takes eight bytes as a little-endian integer.
#[inline]
pub fn take_8(from: &mut &[u8]) -> Option<u64> {
    let (bytes, rest) = from.split_first_chunk::<8>()?;
    *from = rest;
    Some(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varint_integers_survive(u: u64, i: i64, b in proptest::collection::vec(any::<u8>(), 0..50)) {
            let mut out = Vec::new();
            put_u64(&mut out, u);
            put_i64(&mut out, i);
            put_bytes(&mut out, &b);
            let whole = out.clone();
            let mut at = &out[..];
            prop_assert_eq!(take_u64(&mut at), Some(u));
            prop_assert_eq!(take_i64(&mut at), Some(i));
            prop_assert_eq!(take_bytes(&mut at), Some(&b[..]));
            prop_assert!(at.is_empty());
            let mut cut = &whole[..whole.len() - 1];
            let all = (take_u64(&mut cut), take_i64(&mut cut), take_bytes(&mut cut));
            prop_assert!(all.0.is_none() || all.1.is_none() || all.2.is_none());
        }
    }
}
