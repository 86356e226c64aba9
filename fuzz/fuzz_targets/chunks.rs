//! Any bytes as chunks of the head and as parts of the log: they decode to as many samples as they say, or to
//! fewer, and never panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tsdb::head::chunk::{Columns, float, histogram, packed};

fuzz_target!(|bytes: &[u8]| {
    let [a, b, cut, bytes @ ..] = bytes else { return };
    let count = u16::from_le_bytes([*a, *b]) % 2048;
    let (first, second) = bytes.split_at(bytes.len().min(usize::from(*cut)));
    for has_start in [false, true] {
        let mut out = Columns::default();
        float::decode(bytes, count, 0, has_start, (i64::MIN, i64::MAX), &mut out);
        assert!(out.len() <= usize::from(count));
    }
    let mut out = Columns::default();
    histogram::decode(bytes, count, i64::MIN, i64::MAX, &mut out);
    assert!(out.len() <= usize::from(count));
    let mut out = Columns::default();
    packed::decode(first, second, count, i64::MIN, i64::MAX, &mut out);
    assert!(out.len() <= usize::from(count));
    let mut rest = bytes;
    if let Some(h) = histogram::take(&mut rest, None) {
        let mut again = Vec::new();
        histogram::put(&mut again, &h, None);
        let read = histogram::take(&mut &again[..], None).expect("what was written can be read");
        assert!(histogram::same(&h, &read), "{h} and {read}");
    }
});
