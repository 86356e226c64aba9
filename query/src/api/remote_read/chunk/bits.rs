//! Numbers of few bits, as Prometheus' chunks have them.

use model::codec::bits::BitWriter;

/// Whether a number fits into so many bits, where the range is one longer above than below.
fn fits(v: i64, bits: u8) -> bool {
    let half = 1i64 << (bits - 1);
    (1 - half..=half).contains(&v)
}

/// The classes of signed and unsigned numbers: a prefix of ones, a zero, and so many bits.
const CLASSES: [u8; 7] = [3, 6, 9, 12, 18, 25, 56];

fn put_class(out: &mut BitWriter, class: usize, v: u64) {
    // One more one than classes before, then the zero that ends the prefix.
    let ones = class as u8 + 1;
    match CLASSES.get(class) {
        Some(bits) => {
            out.bits(((1 << ones) - 1) << 1, ones + 1);
            out.bits(v, *bits);
        }
        None => {
            out.bits(0xff, 8);
            out.bits(v, 64);
        }
    }
}

/// A signed number in 1 to 72 bits.
pub fn put_signed(out: &mut BitWriter, v: i64) {
    if v == 0 {
        return out.bit(false);
    }
    let class = CLASSES.iter().position(|bits| fits(v, *bits)).unwrap_or(CLASSES.len());
    put_class(out, class, v as u64);
}

/// An unsigned one.
pub fn put_unsigned(out: &mut BitWriter, v: u64) {
    if v == 0 {
        return out.bit(false);
    }
    let class = CLASSES.iter().position(|bits| v < 1 << bits).unwrap_or(CLASSES.len());
    put_class(out, class, v);
}

/// Bytes wherever the last bit ended.
pub fn put_bytes(out: &mut BitWriter, bytes: &[u8]) {
    bytes.iter().for_each(|b| out.bits(u64::from(*b), 8));
}

/// The difference of differences of timestamps in a chunk of floats: 1, 16, 20, 24 or 68 bits.
pub fn put_timestamp_change(out: &mut BitWriter, change: i64) {
    match change {
        0 => out.bit(false),
        c if fits(c, 14) => {
            out.bits(0b10, 2);
            out.bits(c as u64, 14);
        }
        c if fits(c, 17) => {
            out.bits(0b110, 3);
            out.bits(c as u64, 17);
        }
        c if fits(c, 20) => {
            out.bits(0b1110, 4);
            out.bits(c as u64, 20);
        }
        c => {
            out.bits(0b1111, 4);
            out.bits(c as u64, 64);
        }
    }
}

/// A row of floats, each written as what it differs from the one before by.
#[derive(Clone, Copy, Debug)]
pub struct Xor {
    last: u64,
    /// Leading and trailing zeros of the window last written out; `None` before the first.
    window: Option<(u8, u8)>,
}

impl Xor {
    /// After a first value, which stands in full.
    pub fn after(first: f64) -> Xor {
        Xor { last: first.to_bits(), window: None }
    }

    pub fn put(&mut self, out: &mut BitWriter, v: f64) {
        let change = std::mem::replace(&mut self.last, v.to_bits()) ^ v.to_bits();
        if change == 0 {
            return out.bit(false);
        }
        // Five bits for the leading zeros.
        let leading = (change.leading_zeros() as u8).min(31);
        let trailing = change.trailing_zeros() as u8;
        match self.window {
            Some((l, t)) if leading >= l && trailing >= t => {
                out.bits(0b10, 2);
                out.bits(change >> t, 64 - l - t);
            }
            _ => {
                let meaningful = 64 - leading - trailing;
                out.bits(0b11, 2);
                out.bits(u64::from(leading), 5);
                // 64 does not fit and is written as 0, which is never meant.
                out.bits(u64::from(meaningful) & 63, 6);
                out.bits(change >> trailing, meaningful);
                self.window = Some((leading, trailing));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use model::codec::bits::BitReader;

    use super::*;

    fn read(reader: &mut BitReader<'_>, signed: bool) -> i64 {
        let ones = (0..8).take_while(|_| reader.bit()).count();
        if ones == 0 {
            return 0;
        }
        let bits = CLASSES.get(ones - 1).copied().unwrap_or(64);
        let v = reader.bits(bits);
        // Upstream's range is asymmetric: what is above half is negative.
        match signed && bits < 64 && v > 1 << (bits - 1) {
            true => v as i64 - (1i64 << bits),
            false => v as i64,
        }
    }

    proptest::proptest! {
        #[test]
        fn numbers_of_few_bits_come_back(v in proptest::prelude::any::<i64>(), shift in 0u32..64) {
            let v = v >> shift;
            for v in [v, 1i64 << (shift % 62), -(1i64 << (shift % 62)), 1 - (1i64 << (shift % 62))] {
                let mut out = BitWriter::default();
                put_signed(&mut out, v);
                put_unsigned(&mut out, v as u64);
                let bytes = out.to_bytes();
                let mut reader = BitReader::new(&bytes);
                proptest::prop_assert_eq!(read(&mut reader, true), v);
                proptest::prop_assert_eq!(read(&mut reader, false), v);
            }
        }
    }
}
