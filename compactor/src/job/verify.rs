//! A digest of series, taken when a block is written and again when it is read back from the store: equal
//! digests, equal samples.

use model::source::{SeriesColumns, SeriesCursor, SourceError};
use tsdb::block::BlockReader;
use xxhash_rust::xxh3::Xxh3Default;

/// Sums series in their order: labels, timestamps, values bit by bit, histograms, start timestamps.
#[derive(Default)]
pub(crate) struct Digest {
    hash: Xxh3Default,
    bytes: Vec<u8>,
    samples: u64,
}

impl Digest {
    pub fn add(&mut self, series: &SeriesColumns) {
        let bytes = &mut self.bytes;
        bytes.clear();
        let labels = &series.labels.encode();
        bytes.extend_from_slice(&(labels.len() as u64).to_le_bytes());
        bytes.extend_from_slice(labels);
        bytes.extend_from_slice(&(series.ts_ms.len() as u64).to_le_bytes());
        for (t, v) in series.ts_ms.iter().zip(&series.values) {
            bytes.extend_from_slice(&t.to_le_bytes());
            bytes.extend_from_slice(&v.to_bits().to_le_bytes());
        }
        for (i, start) in series.start_ts_ms.iter().flatten().enumerate().filter(|(_, s)| **s != 0) {
            bytes.extend_from_slice(&(i as u64).to_le_bytes());
            bytes.extend_from_slice(&start.to_le_bytes());
        }
        for (i, h) in series.histograms.iter().flatten().enumerate() {
            let Some(h) = h else { continue };
            bytes.extend_from_slice(&(i as u64).to_le_bytes());
            bytes.extend_from_slice(&h.schema.to_le_bytes());
            bytes.push(h.counter_reset_hint as u8);
            for v in [h.zero_threshold, h.zero_count, h.count, h.sum] {
                bytes.extend_from_slice(&v.to_bits().to_le_bytes());
            }
            let lists =
                [&h.positive_buckets[..], &h.negative_buckets[..], h.custom_values.as_deref().unwrap_or(&[])];
            for list in lists {
                bytes.extend_from_slice(&(list.len() as u64).to_le_bytes());
                list.iter().for_each(|v| bytes.extend_from_slice(&v.to_bits().to_le_bytes()));
            }
            for s in h.positive_spans.iter().chain(&h.negative_spans) {
                bytes.extend_from_slice(&s.offset.to_le_bytes());
                bytes.extend_from_slice(&s.length.to_le_bytes());
            }
        }
        self.hash.update(bytes);
        self.samples += series.ts_ms.len() as u64;
    }

    /// Samples, and the sum.
    pub fn finish(self) -> (u64, u64) {
        (self.samples, self.hash.digest())
    }
}

/// The digest of all that a reader gives.
pub(crate) fn read_back(mut reader: BlockReader) -> Result<(u64, u64), SourceError> {
    let mut digest = Digest::default();
    while let Some(batch) = reader.next_batch()? {
        batch.iter().for_each(|s| digest.add(s));
    }
    Ok(digest.finish())
}
