//! A growing string of bits, most significant first, and its reader.

#[derive(Clone, Debug, Default)]
pub(super) struct BitWriter {
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

/// Reads what a [`BitWriter`] wrote; past the end it reads zeros, so damaged input cannot make it panic.
#[derive(Clone, Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Next byte to load.
    at: usize,
    /// Bits loaded, the next one topmost.
    window: u64,
    have: u8,
}

impl<'a> BitReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        BitReader { bytes, at: 0, window: 0, have: 0 }
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
        while self.have <= 56 {
            let next = self.bytes.get(self.at).copied().unwrap_or(0);
            self.at += 1;
            self.window |= (next as u64) << (56 - self.have);
            self.have += 8;
        }
    }

    #[inline]
    pub fn bit(&mut self) -> bool {
        if self.have == 0 {
            self.refill();
        }
        let b = self.window >> 63 == 1;
        self.window <<= 1;
        self.have -= 1;
        b
    }

    /// The next `n` bits, 0 to 64.
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
        }
        let v = self.window >> (64 - n);
        self.window <<= n;
        self.have -= n;
        v
    }
}
