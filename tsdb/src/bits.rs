//! A growing string of bits, most significant first, and its reader.

/// Writes bits behind one another.
#[derive(Clone, Debug, Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    /// Free bits in the last byte.
    free: u8,
}

impl BitWriter {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    #[inline]
    pub fn bit(&mut self, bit: bool) {
        self.bits(bit as u64, 1);
    }

    /// The `n` low bits of `value`, 0 to 64 of them.
    #[inline]
    pub fn bits(&mut self, value: u64, n: u8) {
        if n > 56 {
            // With what is left of the last byte it would not fit into one word.
            self.bits(value >> 32, n - 32);
            self.bits(value, 32);
            return;
        }
        if n == 0 {
            return;
        }
        if self.bytes.capacity() - self.bytes.len() < 9 {
            // Grow by little: doubling would leave up to half of the head's memory unused.
            self.bytes.reserve_exact((self.bytes.len() / 4).max(16));
        }
        let (last, used) = match self.free {
            0 => (0, 0),
            free => (self.bytes.pop().unwrap_or(0), 8 - free),
        };
        // The last byte and the new bits behind it, topmost first, in one word; all of it is written at once.
        let word = u64::from(last) << 56 | (value & (u64::MAX >> (64 - n))) << (64 - used - n);
        let whole = (used + n).div_ceil(8);
        self.bytes.extend_from_slice(&word.to_be_bytes()[..whole as usize]);
        self.free = whole * 8 - (used + n);
    }
}

/// Reads bits, most significant first: what a [`BitWriter`] wrote, and the chunks of others. Past the end [`BitReader::bits`] reads zeros, so damaged
/// input cannot make it panic; [`BitReader::checked_bits`] says that there is no more.
#[derive(Clone, Debug)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    /// Next byte to load.
    at: usize,
    /// Bits loaded, the next one topmost; below them zeros.
    window: u64,
    have: u8,
}

impl<'a> BitReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        BitReader { bytes, at: 0, window: 0, have: 0 }
    }

    /// Bits not read yet; of no meaning once zeros were read past the end.
    pub fn left(&self) -> u64 {
        u64::from(self.have) + 8 * (self.bytes.len() - self.at) as u64
    }

    #[inline]
    fn refill(&mut self) {
        if let Some(eight) = self.bytes.get(self.at..self.at + 8) {
            let next = u64::from_be_bytes(eight.try_into().expect("eight bytes"));
            let bytes = (64 - self.have) / 8;
            if bytes == 8 {
                self.window = next;
            } else {
                self.window |= (next >> (64 - 8 * bytes)) << (64 - self.have - 8 * bytes);
            }
            self.at += bytes as usize;
            self.have += 8 * bytes;
            return;
        }
        while self.have <= 56 && self.at < self.bytes.len() {
            self.window |= u64::from(self.bytes[self.at]) << (56 - self.have);
            self.at += 1;
            self.have += 8;
        }
    }

    #[inline]
    fn take(&mut self, n: u8) -> u64 {
        let v = self.window >> (64 - n);
        self.window <<= n;
        self.have -= n;
        v
    }

    #[inline]
    pub fn bit(&mut self) -> bool {
        self.bits(1) == 1
    }

    /// The next `n` bits, 0 to 64; zeros past the end.
    #[inline]
    pub fn bits(&mut self, n: u8) -> u64 {
        if n == 0 {
            return 0;
        }
        if n > 56 {
            let high = self.bits(n - 32);
            return high << 32 | self.bits(32);
        }
        if self.have < n {
            self.refill();
            if self.have < n {
                self.have = 64;
            }
        }
        self.take(n)
    }

    /// The next `n` bits, 0 to 64; `None` where there are fewer.
    #[inline]
    pub fn checked_bits(&mut self, n: u8) -> Option<u64> {
        if n == 0 {
            return Some(0);
        }
        if n > 56 {
            let high = self.checked_bits(n - 32)?;
            return Some(high << 32 | self.checked_bits(32)?);
        }
        if self.have < n {
            self.refill();
            if self.have < n {
                return None;
            }
        }
        Some(self.take(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_ways_read_what_was_written_and_tell_the_end_apart(
            numbers in proptest::collection::vec((any::<u64>(), 0u8..=64), 0..60),
            beyond in 1u8..=64,
        ) {
            let mut writer = BitWriter::default();
            let low = |v: u64, n: u8| if n == 0 { 0 } else { v & (u64::MAX >> (64 - n)) };
            for (v, n) in &numbers {
                writer.bits(*v, *n);
            }
            let written: u64 = numbers.iter().map(|(_, n)| u64::from(*n)).sum();
            let (mut plain, mut checked) = (BitReader::new(writer.bytes()), BitReader::new(writer.bytes()));
            prop_assert_eq!(checked.left(), written.div_ceil(8) * 8);
            for (v, n) in &numbers {
                prop_assert_eq!(plain.bits(*n), low(*v, *n));
                prop_assert_eq!(checked.checked_bits(*n), Some(low(*v, *n)));
            }
            let rest = checked.left();
            prop_assert!(rest < 8);
            prop_assert_eq!(checked.checked_bits(rest as u8), Some(0));
            prop_assert_eq!(checked.checked_bits(beyond), None);
            for _ in 0..4 {
                prop_assert_eq!(plain.bits(beyond), 0);
            }
            prop_assert!(!plain.bit());
        }
    }
}
