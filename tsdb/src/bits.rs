//! A growing string of bits, most significant first, and its reader.

/// Writes bits behind one another. The last of them wait in a word beside the vector, so that a write only stores to the heap and never loads
/// from it: between two samples of a series those of all others go by, and the load would wait for memory each time.
#[derive(Clone, Debug, Default)]
pub struct BitWriter {
    /// As long as there is room: a slice is eight bytes smaller than a vector, and the head has one for each series.
    bytes: Box<[u8]>,
    /// How many of them are written.
    used: u32,
    /// Bits that are not in `bytes` yet, 0 to 63.
    waiting: u8,
    /// They themselves, the first one topmost.
    word: u64,
}

/// The room after this much: sizes that allocators hand out without rounding up (32, then in steps of 16, from 128 on four for each doubling).
/// Twice as much each time would leave a quarter of the head's memory unused.
fn next_room(bytes: usize) -> usize {
    match bytes {
        0 => 32,
        1..128 => bytes + 16,
        _ => bytes + (1 << bytes.ilog2()) / 4,
    }
}

impl BitWriter {
    /// All that was written, filled up with zeros to a whole byte.
    pub fn to_bytes(&self) -> Vec<u8> {
        let waiting = usize::from(self.waiting.div_ceil(8));
        let written = &self.bytes[..self.used as usize];
        let mut all = Vec::with_capacity(written.len() + waiting);
        all.extend_from_slice(written);
        all.extend_from_slice(&self.word.to_be_bytes()[..waiting]);
        all
    }

    /// The first 64 bits, once there are so many.
    pub fn first_word(&self) -> Option<u64> {
        let (first, _) = self.bytes[..self.used as usize].split_first_chunk()?;
        Some(u64::from_be_bytes(*first))
    }

    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    pub fn bit(&mut self, bit: bool) {
        self.bits(bit as u64, 1);
    }

    /// The `n` low bits of `value`, 0 to 64 of them.
    #[inline]
    pub fn bits(&mut self, value: u64, n: u8) {
        if n == 0 {
            return;
        }
        let value = value & (u64::MAX >> (64 - n));
        let free = 64 - self.waiting;
        if n < free {
            self.word |= value << (free - n);
            self.waiting += n;
            return;
        }
        let over = n - free;
        self.flush(self.word | value >> over);
        self.word = if over == 0 { 0 } else { value << (64 - over) };
        self.waiting = over;
    }

    #[inline]
    fn flush(&mut self, word: u64) {
        let at = self.used as usize;
        if self.bytes.len() - at < 8 {
            self.grow();
        }
        self.bytes[at..at + 8].copy_from_slice(&word.to_be_bytes());
        self.used += 8;
    }

    #[cold]
    fn grow(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes).into_vec();
        bytes.reserve_exact(next_room(bytes.len()) - bytes.len());
        // What is reserved and nothing more, so that it becomes a slice where it is.
        bytes.resize(bytes.capacity(), 0);
        self.bytes = bytes.into_boxed_slice();
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
            let bytes = writer.to_bytes();
            prop_assert_eq!(bytes.len() as u64, written.div_ceil(8));
            prop_assert!(writer.capacity() <= (bytes.len() + 8).max(26) * 5 / 4);
            let first = bytes.first_chunk().map(|eight| u64::from_be_bytes(*eight));
            prop_assert_eq!(writer.first_word(), first.filter(|_| written >= 64));
            let (mut plain, mut checked) = (BitReader::new(&bytes), BitReader::new(&bytes));
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
