//! Any bytes as the chunks, or as the strings, series and postings, of a Prometheus block whose checksums are
//! right.

#![no_main]

use std::path::Path;

use ingest::import::Progress;
use ingest::import::block::{SourceBlock, Filter};
use libfuzzer_sys::fuzz_target;

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> [u8; 4] {
    let mut sum = !0u32;
    for b in bytes {
        sum ^= u32::from(*b);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
        }
    }
    (!sum).to_be_bytes()
}

/// A length, what it is the length of, and the checksum.
fn section(out: &mut Vec<u8>, content: &[u8]) -> u64 {
    let at = out.len() as u64;
    out.extend((content.len() as u32).to_be_bytes());
    out.extend(content);
    out.extend(crc32c(content));
    at
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// An index of one series with these parts.
fn index(strings: &[u8], series: &[u8], postings: &[u8]) -> Vec<u8> {
    let mut out = vec![0xba, 0xaa, 0xd7, 0x00, 2];
    let symbols = section(&mut out, strings);
    out.resize(out.len().next_multiple_of(16), 0);
    let place = out.len() as u32 / 16;
    varint(&mut out, series.len() as u64);
    out.extend(series);
    out.extend(crc32c(series));
    let list = if postings.is_empty() {
        [1u32.to_be_bytes(), place.to_be_bytes()].concat()
    } else {
        postings.to_vec()
    };
    let list = section(&mut out, &list);
    let mut table = 1u32.to_be_bytes().to_vec();
    table.extend([2, 0, 0]);
    varint(&mut table, list);
    let table = section(&mut out, &table);
    let contents: Vec<u8> = [symbols, 0, 0, 0, 0, table].iter().flat_map(|n| n.to_be_bytes()).collect();
    out.extend(&contents);
    out.extend(crc32c(&contents));
    out
}

fn write(folder: &Path, index: &[u8], chunks: &[u8], tombstones: &[u8]) {
    let meta = r#"{"ulid":"01HQ0000000000000000000000","minTime":0,"maxTime":7200000,"version":1,"stats":{},"compaction":{"level":1,"sources":[]}}"#;
    std::fs::create_dir(folder.join("chunks")).expect("a folder");
    for (name, bytes) in [
        ("meta.json", meta.as_bytes()),
        ("index", index),
        ("chunks/000001", chunks),
        ("tombstones", tombstones),
    ] {
        std::fs::write(folder.join(name), bytes).expect("a file");
    }
}

struct Silent;

impl Progress for Silent {
    fn read(&mut self, _: u64, _: u64) {}
    fn should_stop(&self) -> bool {
        false
    }
}

/// `a`, `b` and the empty string; series {a="b"} with chunks one behind the other.
const STRINGS: &[u8] = &[0, 0, 0, 3, 0, 1, b'a', 1, b'b'];

fuzz_target!(|bytes: &[u8]| {
    let Some((&mode, bytes)) = bytes.split_first() else { return };
    let mut chunks = vec![0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0];
    let mut tombstones = vec![0x01, 0x30, 0xba, 0x30, 1];
    let index = if mode % 2 == 0 {
        // Up to three chunks of their own encoding, each with its length before it.
        let (mut series, mut count, mut last, mut places) = (Vec::new(), 0u8, 0i64, Vec::new());
        let mut rest = bytes;
        while count < 3 {
            let [encoding, length, tail @ ..] = rest else { break };
            let (data, tail) = tail.split_at(tail.len().min(usize::from(*length)));
            let at = chunks.len() as i64;
            varint(&mut chunks, data.len() as u64);
            let chunk = [&[*encoding], data].concat();
            chunks.extend(&chunk);
            chunks.extend(crc32c(&chunk));
            if count == 0 {
                varint(&mut places, 0);
                varint(&mut places, 7_200_000);
                varint(&mut places, at as u64);
            } else {
                varint(&mut places, 0);
                varint(&mut places, 7_200_000);
                let apart = at - last;
                varint(&mut places, ((apart << 1) ^ (apart >> 63)) as u64);
            }
            (last, rest, count) = (at, tail, count + 1);
        }
        varint(&mut series, 1);
        series.extend([1, 2]);
        varint(&mut series, u64::from(count));
        series.extend(places);
        index(STRINGS, &series, &[])
    } else {
        let [a, b, c, bytes @ ..] = bytes else { return };
        let mut rest = bytes;
        let mut part = |length: u8| {
            let (part, tail) = rest.split_at(rest.len().min(usize::from(length)));
            rest = tail;
            part
        };
        let (strings, series, postings) = (part(*a), part(*b), part(*c));
        tombstones.extend(rest);
        index(if strings.is_empty() { STRINGS } else { strings }, series, postings)
    };
    let sum = crc32c(&tombstones[5..]);
    tombstones.extend(sum);
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), &index, &chunks, &tombstones);
    let Ok(mut block) = SourceBlock::open(folder.path(), Filter::default()) else { return };
    let _ = block.read((i64::MIN, i64::MAX), &mut Silent, &mut |series| {
        assert_eq!(series.ts_ms.len(), series.values.len());
        assert!(series.ts_ms.windows(2).all(|w| w[0] < w[1]), "{:?}", series.ts_ms);
        Ok(())
    });
});
