//! Chunks of floats: the number of samples, and per sample a timestamp (itself, a difference, differences of
//! differences) and a value.

use model::codec::bits::BitWriter;
use model::codec::varint::{put_i64, put_u64};

use super::bits::{Xor, put_bytes, put_timestamp_change};

/// Encodes samples, ascending by time and not more than 65,535; how many they were, and the chunk.
pub fn encode(samples: impl Iterator<Item = (i64, f64)>) -> (usize, Vec<u8>) {
    let mut out = BitWriter::default();
    let mut count = 0u16;
    let (mut last_ts_ms, mut last_step) = (0i64, 0i64);
    let mut value = Xor::after(0.0);
    for (ts_ms, v) in samples {
        let step = ts_ms.wrapping_sub(last_ts_ms);
        let mut bytes = Vec::with_capacity(10);
        match count {
            0 => {
                put_i64(&mut bytes, ts_ms);
                put_bytes(&mut out, &bytes);
                out.bits(v.to_bits(), 64);
                value = Xor::after(v);
            }
            1 => {
                put_u64(&mut bytes, step as u64);
                put_bytes(&mut out, &bytes);
                value.put(&mut out, v);
            }
            _ => {
                put_timestamp_change(&mut out, step.wrapping_sub(last_step));
                value.put(&mut out, v);
            }
        }
        (last_ts_ms, last_step) = (ts_ms, step);
        count += 1;
    }
    let mut data = count.to_be_bytes().to_vec();
    data.extend(out.to_bytes());
    (usize::from(count), data)
}

#[cfg(test)]
mod tests {
    use model::codec::bits::BitReader;
    use model::codec::varint::{take_i64, take_u64};

    use super::*;

    /// Reads a chunk by upstream's description of the format (`tsdb/docs/format/chunks.md`).
    fn decode(data: &[u8]) -> Vec<(i64, u64)> {
        let count = u16::from_be_bytes([data[0], data[1]]);
        let mut reader = BitReader::new(&data[2..]);
        let mut out: Vec<(i64, u64)> = Vec::new();
        let varint = |reader: &mut BitReader<'_>| {
            let mut bytes = Vec::new();
            loop {
                bytes.push(reader.bits(8) as u8);
                if bytes[bytes.len() - 1] < 0x80 {
                    return bytes;
                }
            }
        };
        let (mut step, mut leading, mut trailing) = (0i64, 0u8, 0u8);
        for i in 0..count {
            if i == 0 {
                let ts_ms = take_i64(&mut &varint(&mut reader)[..]).unwrap();
                out.push((ts_ms, reader.bits(64)));
                continue;
            }
            if i == 1 {
                step = take_u64(&mut &varint(&mut reader)[..]).unwrap() as i64;
            } else {
                let bits = [0, 14, 17, 20, 64][(0..4).take_while(|_| reader.bit()).count()];
                let v = reader.bits(bits);
                let negative = bits > 0 && bits < 64 && v > 1 << (bits - 1);
                step = step.wrapping_add(if negative { v as i64 - (1 << bits) } else { v as i64 });
            }
            let (ts_ms, before) = *out.last().unwrap();
            let mut value = before;
            if reader.bit() {
                if reader.bit() {
                    leading = reader.bits(5) as u8;
                    let meaningful = match reader.bits(6) as u8 {
                        0 => 64,
                        n => n,
                    };
                    trailing = 64 - leading - meaningful;
                }
                value ^= reader.bits(64 - leading - trailing) << trailing;
            }
            out.push((ts_ms.wrapping_add(step), value));
        }
        out
    }

    proptest::proptest! {
        #[test]
        fn float_chunks_come_back_bit_for_bit(
            first in proptest::prelude::any::<i64>(),
            samples in proptest::collection::vec((0u32..40, proptest::prelude::any::<u64>(), proptest::prelude::any::<u64>()), 1..121),
        ) {
            let mut ts_ms = first >> 2;
            let samples: Vec<(i64, f64)> = samples
                .into_iter()
                .map(|(shift, step, value)| {
                    ts_ms = ts_ms.saturating_add((step >> (24 + shift)) as i64 + 1);
                    (ts_ms, f64::from_bits(value >> shift << (shift / 2)))
                })
                .collect();
            let (count, data) = encode(samples.iter().copied());
            proptest::prop_assert_eq!(count, samples.len());
            let want: Vec<(i64, u64)> = samples.iter().map(|(t, v)| (*t, v.to_bits())).collect();
            proptest::prop_assert_eq!(decode(&data), want);
        }
    }
}
