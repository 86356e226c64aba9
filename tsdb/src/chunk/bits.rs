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
    pub fn bits(&mut self, value: u64, mut n: u8) {
        if self.bytes.capacity() - self.bytes.len() < 9 {
            // Grow by little: doubling would leave up to half of the head's memory unused.
            self.bytes.reserve_exact((self.bytes.len() / 4).max(16));
        }
        while n > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let take = n.min(self.free);
            let part = (value >> (n - take)) as u8 & (0xffu16 >> (8 - take)) as u8;
            let last = self.bytes.len() - 1;
            self.bytes[last] |= part << (self.free - take);
            self.free -= take;
            n -= take;
        }
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
