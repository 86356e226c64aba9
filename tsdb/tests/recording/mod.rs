//! A recording of real remote-write traffic as series, read by the smallest reader that will do.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use model::labels::Labels;
use model::source::SeriesColumns;

/// The recording beside the project's folder, if it is there.
pub fn path() -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/remote-write.rec.zst");
    path.exists().then_some(path)
}

/// All series of the recording in block order; series scraped together share their timestamps.
pub fn series(path: &PathBuf) -> Vec<SeriesColumns> {
    let mut decoder = zstd::stream::Decoder::new(std::fs::File::open(path).unwrap()).unwrap();
    decoder.window_log_max(27).unwrap();
    let mut frames = Vec::new();
    decoder.read_to_end(&mut frames).unwrap();
    let mut all: BTreeMap<Vec<(String, String)>, BTreeMap<i64, f64>> = BTreeMap::new();
    let mut rest = &frames[..];
    while !rest.is_empty() {
        let size = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        let request = snap::raw::Decoder::new().decompress_vec(&rest[12..12 + size]).unwrap();
        rest = &rest[12 + size..];
        for (field, series) in fields(&request) {
            if field == 1 {
                let (labels, samples) = time_series(series);
                all.entry(labels).or_default().extend(samples);
            }
        }
    }
    let mut timelines: BTreeMap<Vec<i64>, Arc<[i64]>> = BTreeMap::new();
    let mut out: Vec<SeriesColumns> = all
        .into_iter()
        .map(|(labels, samples)| {
            let ts: Vec<i64> = samples.keys().copied().collect();
            let ts_ms = timelines.entry(ts).or_insert_with_key(|ts| ts.as_slice().into()).clone();
            let values = samples.into_values().collect();
            SeriesColumns {
                labels: Labels::from_pairs(labels),
                ts_ms,
                values,
                histograms: None,
                start_ts_ms: None,
                windows: None,
            }
        })
        .collect();
    out.sort_by(|a, b| a.labels.series_cmp(&b.labels));
    out
}

#[allow(clippy::type_complexity)]
fn time_series(bytes: &[u8]) -> (Vec<(String, String)>, Vec<(i64, f64)>) {
    let (mut labels, mut samples) = (Vec::new(), Vec::new());
    for (field, part) in fields(bytes) {
        match field {
            1 => {
                let text = |want| {
                    fields(part)
                        .find(|(f, _)| *f == want)
                        .map_or("", |(_, t)| std::str::from_utf8(t).unwrap())
                };
                labels.push((text(1).to_string(), text(2).to_string()));
            }
            2 => {
                let value = fields(part)
                    .find(|(f, _)| *f == 1)
                    .map_or(0.0, |(_, v)| f64::from_le_bytes(v.try_into().unwrap()));
                let at = fields(part).find(|(f, _)| *f == 2).map_or(0, |(_, mut v)| varint(&mut v) as i64);
                samples.push((at, value));
            }
            _ => {}
        }
    }
    (labels, samples)
}

/// Field numbers and contents (of varints: their bytes) of a protobuf message.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let key = varint(&mut bytes);
        let len = match key & 7 {
            0 => {
                let before = bytes;
                varint(&mut bytes);
                let len = before.len() - bytes.len();
                return Some((key >> 3, &before[..len]));
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (content, rest) = bytes.split_at(len);
        bytes = rest;
        Some((key >> 3, content))
    })
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut n, mut shift) = (0, 0);
    loop {
        let b = bytes[0];
        *bytes = &bytes[1..];
        n |= u64::from(b & 0x7f) << shift;
        shift += 7;
        if b < 0x80 {
            return n;
        }
    }
}
