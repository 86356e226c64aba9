//! What a real Prometheus sent, request by request.
//!
//! The recording lies outside of the repository (`../shared/data/remote-write.rec.zst`); where it is absent,
//! one of the same form is made here. A frame is the time of receipt (u64, milliseconds), a length (u32),
//! both little-endian, and the body of one remote-write 1.0 request.

use std::path::{Path, PathBuf};

use super::Rng;
use super::remote_write::{self, Series, series};

/// The quiet NaN that ends a series (Prometheus' `value.StaleNaN`).
pub const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Where it is, if it is anywhere.
pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/remote-write.rec.zst")
}

/// The bodies of its requests, or of those that are made up.
pub fn requests() -> Vec<Vec<u8>> {
    let recording = path();
    if recording.is_file() { frames(&recording) } else { made_up() }
}

fn frames(recording: &Path) -> Vec<Vec<u8>> {
    let file = std::fs::File::open(recording).expect("the recording can be opened");
    let mut decoder = zstd::Decoder::new(file).expect("the recording is zstd");
    decoder.window_log_max(27).expect("a window of 128 MiB is allowed");
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut decoder, &mut all).expect("the recording is whole");
    let mut rest = all.as_slice();
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(12);
        let length = u32::from_le_bytes(head[8..].try_into().expect("four bytes")) as usize;
        out.push(tail[..length].to_vec());
        rest = &tail[length..];
    }
    out
}

/// What a Prometheus might send in half an hour: counters, gauges and constants of 40 targets, with a few
/// staleness markers.
fn made_up() -> Vec<Vec<u8>> {
    let mut rng = Rng(2026);
    let from = super::now_ms() - 2_400_000;
    let mut counters = vec![0.0; 400];
    let scrape = |t: i64| {
        let mut all: Vec<Series> = Vec::new();
        for n in 0..400 {
            counters[n] += rng.below(50) as f64;
            let (instance, metric) =
                (format!("host-{}", n % 40), ["requests_total", "load", "info", "ratio"][n % 4]);
            let value = match n % 4 {
                0 => counters[n],
                1 => (rng.below(1_000) as f64) / 100.0,
                2 => 1.0,
                _ if t % 7 == 0 => f64::from_bits(STALE_BITS),
                _ => rng.roll() as f64 / u64::MAX as f64,
            };
            let labels =
                [("__name__", metric), ("cluster", "lab"), ("instance", &instance), ("n", &n.to_string())];
            all.push(series(&labels, &[(t + (n % 40) as i64 * 13, value)]));
        }
        remote_write::snappy(&remote_write::write_request(&all))
    };
    (0..120).map(|i| from + i * 15_000).map(scrape).collect()
}
