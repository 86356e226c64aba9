//! A growing string of bits, most significant first, and its reader.

/// Writes bits behind one another. The last of them wait in a word beside the rest, so that a write only
/// stores to the heap and never loads from it: between two samples of a series those of all others go by, and
/// the load would wait for memory each time.
///
/// What is written lies in pieces of one size, each with the one before it. A buffer that grew would be moved
/// from one size of the allocator's to the next, and leave behind places that only the last buffers of the
/// old size use: at a million series in eight minutes that was as much memory as the chunks.
#[derive(Debug, Default)]
pub struct BitWriter {
    last: Option<Box<Piece>>,
    /// Bits that are in no piece yet, the first one topmost.
    word: u64,
    pieces: u32,
    /// Words written to the last piece.
    used: u8,
    /// Bits in `word`, 0 to 63.
    waiting: u8,
}

/// Words of a piece: with the pointer 48 bytes, which allocators give without rounding up. Half a piece is
/// unused on average, a pointer a piece is the price of smaller ones; at 16 to 80 samples of a node exporter
/// this and eight bytes more or less come out within a twentieth.
const PIECE_WORDS: usize = 5;

#[derive(Debug)]
struct Piece {
    words: [u64; PIECE_WORDS],
    before: Option<Box<Piece>>,
}

impl Drop for BitWriter {
    fn drop(&mut self) {
        // Left to themselves they would be dropped one within the other.
        let mut last = self.last.take();
        while let Some(mut piece) = last {
            last = piece.before.take();
        }
    }
}

impl BitWriter {
    /// All that was written, filled up with zeros to a whole byte.
    pub fn to_bytes(&self) -> Vec<u8> {
        let whole = (self.pieces as usize * PIECE_WORDS).saturating_sub(PIECE_WORDS) + usize::from(self.used);
        let mut all = vec![0; whole * 8 + usize::from(self.waiting.div_ceil(8))];
        let (mut rest, waiting) = all.split_at_mut(whole * 8);
        waiting.copy_from_slice(&self.word.to_be_bytes()[..waiting.len()]);
        let (mut piece, mut used) = (&self.last, usize::from(self.used));
        while let Some(Piece { words, before }) = piece.as_deref() {
            let (others, mine) = rest.split_at_mut(rest.len() - used * 8);
            mine.chunks_exact_mut(8)
                .zip(words)
                .for_each(|(out, word)| out.copy_from_slice(&word.to_be_bytes()));
            (rest, piece, used) = (others, before, PIECE_WORDS);
        }
        all
    }

    /// Heap bytes it holds.
    pub fn heap_bytes(&self) -> usize {
        self.pieces as usize * size_of::<Piece>()
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
        let used = usize::from(self.used);
        if used < PIECE_WORDS
            && let Some(last) = &mut self.last
        {
            last.words[used] = word;
            self.used += 1;
            return;
        }
        let mut words = [0; PIECE_WORDS];
        words[0] = word;
        self.last = Some(Box::new(Piece { words, before: self.last.take() }));
        self.pieces += 1;
        self.used = 1;
    }
}

/// Reads bits, most significant first: what a [`BitWriter`] wrote, and the chunks of others. Past the end
/// [`BitReader::bits`] reads zeros, so damaged input cannot make it panic; [`BitReader::checked_bits`] says
/// that there is no more.
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

/// Reads bits, most significant first, several of them between two looks at whether there are enough: what
/// decodes fastest where the branches in between are foreseen. Past the end there are zeros.
#[derive(Clone, Debug)]
pub struct BitCursor<'a> {
    bytes: &'a [u8],
    /// Next byte to load; of what was loaded more than `have` bits, that is loaded again.
    at: usize,
    /// The next bit topmost.
    window: u64,
    have: u8,
}

impl<'a> BitCursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        BitCursor { bytes, at: 0, window: 0, have: 0 }
    }

    /// Has at least [`BitCursor::READY`] bits at hand.
    #[inline]
    pub fn ready(&mut self) {
        match self.bytes.get(self.at..).and_then(<[u8]>::first_chunk) {
            Some(eight) => {
                self.window |= u64::from_be_bytes(*eight) >> self.have;
                self.at += usize::from((63 - self.have) / 8);
                self.have |= 56;
            }
            None => self.ready_at_the_end(),
        }
    }

    /// Bits at hand after [`BitCursor::ready`].
    pub const READY: u8 = 56;

    #[cold]
    fn ready_at_the_end(&mut self) {
        while self.have < Self::READY {
            let byte = self.bytes.get(self.at).copied().unwrap_or_default();
            self.window |= u64::from(byte) << (56 - self.have);
            self.at += 1;
            self.have += 8;
        }
    }

    /// The bits at hand, the next one topmost, and what is below them of no meaning.
    #[inline]
    pub fn peek(&self) -> u64 {
        self.window
    }

    /// Goes on by so many of the bits at hand, below 64.
    #[inline]
    pub fn skip(&mut self, bits: u8) {
        self.window <<= bits;
        self.have -= bits;
    }

    /// The next `n` of the bits at hand, 1 to [`BitCursor::READY`].
    #[inline]
    pub fn at_hand(&mut self, n: u8) -> u64 {
        let bits = self.window >> (64 - n);
        self.skip(n);
        bits
    }

    /// The next `n` bits, 0 to 64.
    #[inline]
    pub fn take(&mut self, n: u8) -> u64 {
        if n == 0 {
            return 0;
        }
        if n > Self::READY {
            let high = self.take(n - 32);
            return high << 32 | self.take(32);
        }
        if self.have < n {
            self.ready();
        }
        self.at_hand(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bit_readers_read_what_was_written_and_tell_the_end_apart(
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
            prop_assert_eq!(writer.heap_bytes(), (written as usize / 64).div_ceil(PIECE_WORDS) * 48);
            let mut cursor = BitCursor::new(&bytes);
            let (mut plain, mut checked) = (BitReader::new(&bytes), BitReader::new(&bytes));
            prop_assert_eq!(checked.left(), written.div_ceil(8) * 8);
            for (v, n) in &numbers {
                prop_assert_eq!(plain.bits(*n), low(*v, *n));
                if v % 3 == 0 && (1..=BitCursor::READY).contains(n) {
                    cursor.ready();
                    prop_assert_eq!(cursor.at_hand(*n), low(*v, *n));
                } else {
                    prop_assert_eq!(cursor.take(*n), low(*v, *n));
                }
                prop_assert_eq!(checked.checked_bits(*n), Some(low(*v, *n)));
            }
            let rest = checked.left();
            prop_assert!(rest < 8);
            prop_assert_eq!(checked.checked_bits(rest as u8), Some(0));
            prop_assert_eq!(checked.checked_bits(beyond), None);
            prop_assert_eq!(cursor.take(rest as u8), 0);
            for _ in 0..4 {
                prop_assert_eq!((plain.bits(beyond), cursor.take(beyond)), (0, 0));
            }
            prop_assert!(!plain.bit());
        }
    }
}
