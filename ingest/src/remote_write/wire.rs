//! Protobuf's wire format, read without copying: varints, fixed words and byte runs out of one slice.
//!
//! Follows the [encoding guide](https://protobuf.dev/programming-guides/encoding/). Groups are refused: no
//! remote-write message has ever had one, and skipping them needs a depth limit that nothing else here needs.

use crate::memory::NoMemory;

/// What a field's key said about its value.
pub(crate) const VARINT: u32 = 0;
pub(crate) const FIXED64: u32 = 1;
pub(crate) const BYTES: u32 = 2;
pub(crate) const FIXED32: u32 = 5;

/// What ends the reading of a request. Boxed so that `Result<u64, Fault>` travels in two registers.
#[derive(Debug)]
pub(crate) struct Fault(Box<FaultKind>);

#[derive(Debug)]
enum FaultKind {
    /// The message is not what it claims to be.
    Malformed {
        /// Address of the byte in question: turned into an offset at the outermost message, so that readers
        /// need not carry it.
        address: usize,
        what: String,
    },
    NoMemory(NoMemory),
}

/// What was wrong with a body that could not be parsed, and at which of its bytes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("malformed protobuf at byte {at}: {what}")]
pub struct Malformed {
    pub at: usize,
    pub what: String,
}

/// Why nothing of a body is stored.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// What it unfolds to is more than there is memory for.
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
}

impl From<NoMemory> for Fault {
    fn from(e: NoMemory) -> Fault {
        Fault(Box::new(FaultKind::NoMemory(e)))
    }
}

impl Fault {
    #[cold]
    pub(crate) fn new(at: &[u8], what: impl Into<String>) -> Fault {
        Fault(Box::new(FaultKind::Malformed { address: at.as_ptr() as usize, what: what.into() }))
    }

    /// `body` is the outermost message that the fault lies in.
    pub(crate) fn within(self, body: &[u8]) -> DecodeError {
        match *self.0 {
            FaultKind::Malformed { address, what } => {
                let at = address.saturating_sub(body.as_ptr() as usize).min(body.len());
                DecodeError::Malformed(Malformed { at, what })
            }
            FaultKind::NoMemory(e) => DecodeError::NoMemory(e),
        }
    }
}

/// What is left of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Reader { rest: message }
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Where it stands, for a fault.
    pub(crate) fn here(&self) -> &'a [u8] {
        self.rest
    }

    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<u64, Fault> {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    /// Two bytes and more. Timestamps have six, so the eight bytes that follow are looked at as one word.
    #[inline]
    fn long_varint(&mut self) -> Result<u64, Fault> {
        if let Some(head) = self.rest.first_chunk::<8>() {
            let word = u64::from_le_bytes(*head);
            let ends = !word & 0x8080_8080_8080_8080;
            if ends != 0 {
                let bytes = ends.trailing_zeros() / 8 + 1;
                let word = word & (u64::MAX >> (64 - 8 * bytes)) & 0x7f7f_7f7f_7f7f_7f7f;
                // Sevens to fourteens to twenty-eights to fifty-six: the bits move together in three steps.
                let word = (word & 0x007f_007f_007f_007f) | ((word & 0x7f00_7f00_7f00_7f00) >> 1);
                let word = (word & 0x0000_3fff_0000_3fff) | ((word & 0x3fff_0000_3fff_0000) >> 2);
                let word = (word & 0x0fff_ffff) | ((word & 0x0fff_ffff_0000_0000) >> 4);
                self.rest = &self.rest[bytes as usize..];
                return Ok(word);
            }
        }
        self.slow_varint()
    }

    #[cold]
    fn slow_varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0u64;
        for (i, &byte) in self.rest.iter().take(10).enumerate() {
            if i == 9 && byte > 1 {
                return Err(Fault::new(self.rest, "a varint of more than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        let what = if self.rest.len() < 10 {
            "the message ends inside a varint"
        } else {
            "a varint of more than 10 bytes"
        };
        Err(Fault::new(self.rest, what))
    }

    #[inline(always)]
    pub(crate) fn double(&mut self) -> Result<f64, Fault> {
        match self.rest.split_first_chunk::<8>() {
            Some((word, rest)) => {
                self.rest = rest;
                Ok(f64::from_le_bytes(*word))
            }
            None => Err(Fault::new(self.rest, "the message ends inside a double")),
        }
    }

    #[inline(always)]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let start = self.rest;
        let len = self.varint()?;
        match usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len)) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => {
                Err(Fault::new(start, format!("a length of {len} where {} bytes are left", self.rest.len())))
            }
        }
    }

    #[inline(always)]
    pub(crate) fn message(&mut self) -> Result<Reader<'a>, Fault> {
        Ok(Reader { rest: self.bytes()? })
    }

    /// The key of the next field: number and kind in one, as on the wire.
    #[inline(always)]
    pub(crate) fn key(&mut self) -> Result<u32, Fault> {
        let start = self.rest;
        let key = self.varint()?;
        match u32::try_from(key) {
            Ok(key) if key >= 8 => Ok(key),
            _ => Err(Fault::new(start, format!("{key} is not the key of a field"))),
        }
    }

    /// Steps over a field whose key was just read and means nothing to the caller. `known` are the numbers
    /// that do mean something: one of these with another kind of value is refused, as upstream refuses it,
    /// because what follows cannot be trusted.
    #[cold]
    pub(crate) fn skip(&mut self, key: u32, known: &[u32]) -> Result<(), Fault> {
        let (number, kind) = (key >> 3, key & 7);
        if known.contains(&number) {
            return Err(Fault::new(self.rest, format!("field {number} does not come with wire type {kind}")));
        }
        let fixed = |n: usize| move |r: &[u8]| r.len() >= n;
        match kind {
            VARINT => self.varint().map(drop),
            BYTES => self.bytes().map(drop),
            FIXED64 if fixed(8)(self.rest) => {
                self.rest = &self.rest[8..];
                Ok(())
            }
            FIXED32 if fixed(4)(self.rest) => {
                self.rest = &self.rest[4..];
                Ok(())
            }
            FIXED64 | FIXED32 => Err(Fault::new(self.rest, "the message ends inside a fixed word")),
            3 | 4 => Err(Fault::new(
                self.rest,
                format!("field {number} is a group, which no remote-write message has"),
            )),
            _ => Err(Fault::new(
                self.rest,
                format!("field {number} has wire type {kind}, which does not exist"),
            )),
        }
    }
}

/// The key of a field as a constant. A varint for a field of 32 bits is cut to these, as every protobuf
/// library does (`as u32`).
pub(crate) const fn key(number: u32, kind: u32) -> u32 {
    number << 3 | kind
}

/// Undoes the zigzag of `sint32` and `sint64`.
#[inline]
pub(crate) fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn varint(mut n: u64, padding: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        for _ in 0..padding.min(10 - out.len()) {
            *out.last_mut().unwrap() |= 0x80;
            out.push(0);
        }
        out
    }

    proptest! {
        #[test]
        fn varints_of_every_length_come_back(n in any::<u64>(), cut in 0u32..64, padding in 0usize..10, tail in proptest::collection::vec(any::<u8>(), 0..10)) {
            let n = n >> cut;
            let mut bytes = varint(n, padding);
            let used = bytes.len();
            bytes.extend_from_slice(&tail);
            let mut r = Reader::new(&bytes);
            prop_assert_eq!(r.varint().unwrap(), n);
            prop_assert_eq!(r.here().len(), bytes.len() - used);
            for short in 0..used {
                prop_assert!(Reader::new(&bytes[..short]).varint().is_err());
            }
        }

        #[test]
        fn zigzag_comes_back(n in any::<i64>()) {
            prop_assert_eq!(unzigzag((n << 1 ^ n >> 63) as u64), n);
        }
    }

    #[test]
    fn varints_beyond_64_bits_are_refused_and_located() {
        let mut body = vec![0u8; 3];
        body.extend([0xff; 9]);
        body.push(2);
        body.extend([0; 9]);
        let mut r = Reader::new(&body[3..]);
        let fault = r.varint().unwrap_err().within(&body);
        assert_eq!(fault.to_string(), "malformed protobuf at byte 3: a varint of more than 64 bits");
        let body = [0x80u8; 20];
        let fault = Reader::new(&body).varint().unwrap_err().within(&body);
        assert_eq!(fault.to_string(), "malformed protobuf at byte 0: a varint of more than 64 bits");
    }
}
