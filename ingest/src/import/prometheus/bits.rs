//! Reads the bit strings that Prometheus' chunks are, and says where they end.

use model::codec::bits::BitReader;

/// Why a chunk could not be decoded.
pub(in crate::import) type Wrong = String;

/// What is left of a chunk. Everything answers an error at the end, so a chunk that was cut short is never
/// read as zeros.
pub(in crate::import) struct Bits<'a>(BitReader<'a>);

fn ended() -> Wrong {
    "it ends in the middle of a sample".to_string()
}

impl<'a> Bits<'a> {
    pub fn new(bytes: &'a [u8]) -> Bits<'a> {
        Bits(BitReader::new(bytes))
    }

    /// Bits not read yet.
    pub fn left(&self) -> u64 {
        self.0.left()
    }

    #[inline]
    pub fn bit(&mut self) -> Result<bool, Wrong> {
        self.bits(1).map(|b| b == 1)
    }

    /// The next `n` bits, 0 to 64.
    #[inline]
    pub fn bits(&mut self, n: u32) -> Result<u64, Wrong> {
        self.0.checked_bits(n as u8).ok_or_else(ended)
    }

    /// How many ones come before the next zero, `most` of them at most (then no zero follows).
    #[inline]
    pub fn ones(&mut self, most: u32) -> Result<u32, Wrong> {
        for ones in 0..most {
            if !self.bit()? {
                return Ok(ones);
            }
        }
        Ok(most)
    }

    pub fn float(&mut self) -> Result<f64, Wrong> {
        self.bits(64).map(f64::from_bits)
    }

    /// Seven bits a byte, low bits first (Go's `binary.Uvarint`).
    pub fn uvarint(&mut self) -> Result<u64, Wrong> {
        let mut v = 0u64;
        for i in 0..10 {
            let byte = self.bits(8)?;
            v |= (byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                return Ok(v);
            }
        }
        Err("a number in it is longer than ten bytes".to_string())
    }

    pub fn varint(&mut self) -> Result<i64, Wrong> {
        self.uvarint().map(|z| (z >> 1) as i64 ^ -((z & 1) as i64))
    }

    /// A whole number of `n` bits in which the sign bit's own pattern stands for the positive end:
    /// `-(2^(n-1) - 1) ..= 2^(n-1)`.
    pub fn signed(&mut self, n: u32) -> Result<i64, Wrong> {
        let v = self.bits(n)? as i64;
        Ok(if n < 64 && v > 1 << (n - 1) { v - (1 << n) } else { v })
    }

    /// Widths that the prefixes of `varbit` numbers stand for, by the number of ones.
    const VARBIT: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];

    /// A signed number in 1 to 72 bits (upstream's `varbit.go`).
    #[inline]
    pub fn varbit(&mut self) -> Result<i64, Wrong> {
        match self.ones(8)? {
            0 => Ok(0),
            n => self.signed(Self::VARBIT[n as usize]),
        }
    }

    /// An unsigned number of the same widths.
    pub fn varbit_unsigned(&mut self) -> Result<u64, Wrong> {
        let n = self.ones(8)?;
        self.bits(Self::VARBIT[n as usize])
    }
}

/// A float that is written as what its bits have in difference to the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::import) struct Xor {
    pub value: f64,
    leading: u32,
    trailing: u32,
}

impl Xor {
    pub fn new(value: f64) -> Xor {
        Xor { value, leading: 0, trailing: 0 }
    }

    /// The next value: `0` the same, `10` bits in the window of the last difference, `11` a new window.
    #[inline]
    pub fn next(&mut self, bits: &mut Bits<'_>) -> Result<f64, Wrong> {
        if bits.bit()? {
            if bits.bit()? { self.new_window(bits)? } else { self.same_window(bits)? }
        }
        Ok(self.value)
    }

    #[inline]
    pub fn same_window(&mut self, bits: &mut Bits<'_>) -> Result<(), Wrong> {
        let difference = bits.bits(64 - self.leading - self.trailing)?;
        self.value = f64::from_bits(self.value.to_bits() ^ difference << self.trailing);
        Ok(())
    }

    #[inline]
    pub fn new_window(&mut self, bits: &mut Bits<'_>) -> Result<(), Wrong> {
        let both = bits.bits(11)? as u32;
        let leading = both >> 6;
        // 64 does not fit into six bits, and zero is not needed.
        let used = if both & 63 == 0 { 64 } else { both & 63 };
        if leading + used > 64 {
            return Err(format!("a value in it has {leading} + {used} bits"));
        }
        (self.leading, self.trailing) = (leading, 64 - leading - used);
        self.same_window(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_the_end() {
        let mut bits = Bits::new(&[0b1010_0110, 0xff, 0x80, 0x01]);
        assert_eq!(bits.left(), 32);
        assert_eq!(bits.varbit(), Ok(4), "10 and three bits 100: the sign bit's own pattern is positive");
        assert_eq!(bits.bits(3), Ok(0b110));
        assert_eq!(bits.ones(8), Ok(8));
        assert_eq!(bits.uvarint(), Ok(128));
        assert!(bits.bit().is_err());
        assert!(Bits::new(&[0xff; 8]).uvarint().is_err());
        assert!(Bits::new(&[0xff; 11]).uvarint().unwrap_err().contains("ten bytes"));
        let mut same = Xor::new(1.5);
        assert_eq!(same.next(&mut Bits::new(&[0])), Ok(1.5));
        assert!(same.next(&mut Bits::new(&[0b1111_1111, 0xff])).is_err());
    }
}
