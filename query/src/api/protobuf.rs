//! Protobuf's wire format, as much as remote read and federation need: fields written into a buffer, and read
//! out of a slice without copying.

use model::codec::varint::{put_u64, take_8, take_u64};

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// A varint field; not written where it is 0, which is what its absence means.
pub fn varint(out: &mut Vec<u8>, number: u64, value: u64) {
    if value != 0 {
        put_u64(out, number << 3 | VARINT);
        put_u64(out, value);
    }
}

/// `sint32` and `sint64`.
pub fn zigzag(out: &mut Vec<u8>, number: u64, value: i64) {
    varint(out, number, ((value << 1) ^ (value >> 63)) as u64);
}

/// A `double` that is written whatever it is: where it stands in a `oneof` or is optional, a zero says
/// something.
pub fn double(out: &mut Vec<u8>, number: u64, value: f64) {
    put_u64(out, number << 3 | FIXED64);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// Doubles in one run.
pub fn packed_doubles(out: &mut Vec<u8>, number: u64, values: &[f64]) {
    if values.is_empty() {
        return;
    }
    put_u64(out, number << 3 | BYTES);
    put_u64(out, 8 * values.len() as u64);
    values.iter().for_each(|v| out.extend_from_slice(&v.to_bits().to_le_bytes()));
}

/// Text or bytes.
pub fn bytes(out: &mut Vec<u8>, number: u64, value: &[u8]) {
    put_u64(out, number << 3 | BYTES);
    put_u64(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A message within a message: `write` appends its fields, and the length is put before them.
pub fn message(out: &mut Vec<u8>, number: u64, write: impl FnOnce(&mut Vec<u8>)) {
    put_u64(out, number << 3 | BYTES);
    delimited(out, write);
}

/// A message behind its length.
pub fn delimited(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let mut length = Vec::with_capacity(4);
    put_u64(&mut length, (out.len() - start) as u64);
    // The fields move up by the length's few bytes: cheaper than a buffer for each message.
    out.splice(start..start, length);
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Of fixed width: nothing that is read here has any.
    Fixed,
}

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed protobuf: {0}")]
pub struct Malformed(pub &'static str);

/// The fields of a message, one after the other.
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn of(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = take_u64(&mut self.rest)?;
        let value = match key & 7 {
            VARINT => Value::Varint(take_u64(&mut self.rest)?),
            FIXED64 => take_8(&mut self.rest).map(|_| Value::Fixed)?,
            FIXED32 => {
                self.rest = self.rest.get(4..)?;
                Value::Fixed
            }
            BYTES => {
                let length = usize::try_from(take_u64(&mut self.rest)?).ok()?;
                let (bytes, rest) = self.rest.split_at_checked(length)?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            // Groups are of the last century.
            _ => return None,
        };
        (key >> 3 > 0).then_some((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or(Malformed("it ends within a field, or has one of a kind that does not exist")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protobuf_fields_come_back_in_order() {
        let mut out = Vec::new();
        varint(&mut out, 1, 300);
        varint(&mut out, 2, 0);
        zigzag(&mut out, 3, -2);
        double(&mut out, 4, 0.0);
        message(&mut out, 5, |m| bytes(m, 1, &[7; 200]));
        packed_doubles(&mut out, 6, &[1.0, 2.0]);
        packed_doubles(&mut out, 7, &[]);
        let fields: Vec<_> = Fields::of(&out).map(|f| f.unwrap()).collect();
        assert_eq!(fields[..3], [(1, Value::Varint(300)), (3, Value::Varint(3)), (4, Value::Fixed)]);
        let (5, Value::Bytes(inner)) = fields[3] else { panic!("{fields:?}") };
        assert_eq!(Fields::of(inner).next(), Some(Ok((1, Value::Bytes(&[7; 200])))));
        assert!(matches!(fields[4], (6, Value::Bytes(b)) if b.len() == 16), "{fields:?}");
        assert_eq!(fields.len(), 5);
    }

    proptest::proptest! {
        #[test]
        fn protobuf_of_any_bytes_ends(message in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            proptest::prop_assert!(Fields::of(&message).count() <= message.len());
        }
    }
}
