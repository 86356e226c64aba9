//! What is known of metrics beside their samples, when it was last heard, and the file it is kept in.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::block::BlockError;
use crate::block::read::cache::Key;
use crate::block::read::store::BlockStore;
use crate::layout;
use crate::sidecar::{self, Sidecar};
use model::sample::Metadata;
use model::source::SourceError;
use model::tenant::TenantId;

/// Metrics of a tenant whose metadata is kept, and different entries for one; what comes beyond is passed
/// over.
pub const MAX_METRICS: usize = 200_000;
pub const MAX_PER_METRIC: usize = 16;
/// What the entries of a tenant that are kept in the object store may take in memory, see [`entry_bytes`].
const MAX_STORED_BYTES: u64 = 64 << 20;

/// What an entry takes in memory beside its texts.
const ENTRY_BYTES: u64 = 200;

/// About what an entry takes in memory.
pub fn entry_bytes(metric: &str, metadata: &Metadata) -> u64 {
    let texts = metric.len() + metadata.kind.len() + metadata.help.len() + metadata.unit.len();
    texts as u64 + ENTRY_BYTES
}

/// About what all entries take in memory.
pub fn heap_bytes(known: &MetricMetadata) -> u64 {
    known.iter().flat_map(|(metric, all)| all.keys().map(move |entry| entry_bytes(metric, entry))).sum()
}

/// About what a file becomes in memory, as far as can be told without reading it: texts compress well.
pub fn expected_bytes(file: &Sidecar) -> u64 {
    file.rows.saturating_mul(ENTRY_BYTES).saturating_add(file.bytes.saturating_mul(16))
}

/// A file, from the cache of blocks or read and decoded. Of several that ask for one file the others find it
/// decoded: `decoding` is held meanwhile, so that what decoding needs beside the result is needed once.
pub(crate) fn load(
    blocks: &BlockStore,
    tenant: &TenantId,
    file: &Sidecar,
    decoding: &Mutex<()>,
) -> Result<Arc<MetricMetadata>, SourceError> {
    let (cache, key) = (&blocks.cache, Key::Metadata(file.ulid));
    if let Some(known) = cache.get(&key) {
        return Ok(known);
    }
    let path = layout::metadata(tenant, file.ulid);
    let bytes = sidecar::read_all(blocks, vec![(path.clone(), file.clone())])?.remove(0);
    let _alone = decoding.lock();
    if let Some(known) = cache.get(&key) {
        return Ok(known);
    }
    let known = Arc::new(decode(path.as_ref(), bytes).map_err(SourceError::storage)?);
    cache.put(key, known.clone(), heap_bytes(&known) as usize);
    Ok(known)
}

/// Metric → what was said of it → when that was last heard, in milliseconds.
pub type MetricMetadata = BTreeMap<String, BTreeMap<Metadata, i64>>;

/// How much later an entry must have been heard for that alone to be written down again.
const HEARD_AGAIN_MS: i64 = 24 * 3600 * 1000;

/// Adds what another knows, within the bounds; the later hearing stands.
pub fn join(into: &mut MetricMetadata, more: &MetricMetadata) {
    for (metric, entries) in more {
        if !into.contains_key(metric) {
            if into.len() >= MAX_METRICS {
                continue;
            }
            into.insert(metric.clone(), BTreeMap::new());
        }
        let all = into.get_mut(metric).expect("just inserted");
        for (entry, heard_ms) in entries {
            if let Some(known) = all.get_mut(entry) {
                *known = (*known).max(*heard_ms);
            } else if all.len() < MAX_PER_METRIC {
                all.insert(entry.clone(), *heard_ms);
            }
        }
    }
}

/// Forgets entries that nobody has sent for `keep_ms` (`None`: none).
pub fn forget(known: &mut MetricMetadata, keep_ms: Option<i64>, now_ms: i64) {
    if let Some(keep_ms) = keep_ms {
        known.retain(|_, entries| {
            entries.retain(|_, heard_ms| *heard_ms >= now_ms.saturating_sub(keep_ms));
            !entries.is_empty()
        });
    }
}

/// What is to be stored now, given what is stored and what this process has heard; `None` where that is not
/// worth a new file.
///
/// Entries that nobody has sent for `keep_ms` are left out (`None` keeps them for ever).
pub fn next(
    stored: &MetricMetadata,
    heard: &MetricMetadata,
    keep_ms: Option<i64>,
    now_ms: i64,
) -> Option<MetricMetadata> {
    let mut next = stored.clone();
    join(&mut next, heard);
    forget(&mut next, keep_ms, now_ms);
    let mut bytes = 0u64;
    next.retain(|metric, entries| {
        bytes += entries.keys().map(|entry| entry_bytes(metric, entry)).sum::<u64>();
        bytes <= MAX_STORED_BYTES
    });
    let as_before = |(metric, entries): (&String, &BTreeMap<Metadata, i64>)| {
        stored.get(metric).is_some_and(|before| {
            before.len() == entries.len()
                && before.iter().zip(entries).all(|(a, b)| a.0 == b.0 && b.1 - a.1 < HEARD_AGAIN_MS)
        })
    };
    let same = next.len() == stored.len() && next.iter().all(as_before);
    (!same).then_some(next)
}

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let heard = Field::new("last_heard", DataType::Int64, false);
    Arc::new(Schema::new(vec![text("metric"), text("type"), text("unit"), text("help"), heard]))
}

/// One Parquet file of all entries, a row each.
pub fn encode(known: &MetricMetadata) -> Result<(Sidecar, Bytes), BlockError> {
    let rows = || known.iter().flat_map(|(m, all)| all.iter().map(move |(e, heard)| (m.as_str(), e, *heard)));
    let text = |of: &dyn for<'a> Fn(&(&'a str, &'a Metadata, i64)) -> &'a str| -> ArrayRef {
        let all: Vec<_> = rows().collect();
        Arc::new(StringArray::from_iter_values(all.iter().map(of)))
    };
    let columns: Vec<ArrayRef> = vec![
        text(&|r| r.0),
        text(&|r| &r.1.kind),
        text(&|r| &r.1.unit),
        text(&|r| &r.1.help),
        Arc::new(Int64Array::from_iter_values(rows().map(|r| r.2))),
    ];
    let heard = || rows().map(|r| r.2);
    let span = (heard().min().unwrap_or(0), heard().max().unwrap_or(0));
    sidecar::encode(schema(), &[sidecar::batch(schema(), columns)?], span)
}

/// Reads a file back; `object` is its path, for errors. What is beyond the bounds of a tenant, which other
/// versions may have drawn wider, is passed over.
pub fn decode(object: &str, bytes: Bytes) -> Result<MetricMetadata, BlockError> {
    let mut known = MetricMetadata::new();
    let mut known_bytes = 0;
    for batch in sidecar::decode(object, bytes)? {
        let columns = || {
            let text = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>();
            let heard = batch.column_by_name("last_heard")?.as_primitive_opt::<Int64Type>()?;
            Some((text("metric")?, text("type")?, text("unit")?, text("help")?, heard))
        };
        let (metric, kind, unit, help, heard) = columns().ok_or_else(|| BlockError::Corrupt {
            object: object.to_string(),
            what: "it does not have the columns of a file of metadata".to_string(),
        })?;
        for i in 0..batch.num_rows() {
            let entry = Metadata {
                kind: kind.value(i).into(),
                help: help.value(i).into(),
                unit: unit.value(i).into(),
            };
            known_bytes += entry_bytes(metric.value(i), &entry);
            if known_bytes > MAX_STORED_BYTES {
                return Ok(known);
            }
            known.entry(metric.value(i).to_string()).or_default().insert(entry, heard.value(i));
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(help: &str) -> Metadata {
        Metadata { kind: "gauge".into(), help: help.into(), unit: "s".into() }
    }

    fn known(all: &[(&str, &str, i64)]) -> MetricMetadata {
        let mut known = MetricMetadata::new();
        for (metric, help, heard) in all {
            known.entry(metric.to_string()).or_default().insert(entry(help), *heard);
        }
        known
    }

    #[test]
    fn metadata_is_written_where_it_is_new_gone_or_heard_again_after_a_day() {
        let stored = known(&[("a", "x", 0), ("b", "y", 0)]);
        assert_eq!(next(&stored, &known(&[("a", "x", 1000)]), None, 1000), None);
        let day = HEARD_AGAIN_MS;
        assert_eq!(next(&stored, &known(&[("a", "x", day)]), None, day).unwrap()["a"][&entry("x")], day);
        let more = next(&stored, &known(&[("a", "z", 7)]), None, 7).unwrap();
        assert_eq!(more["a"].len(), 2);
        let left = next(&stored, &known(&[("a", "x", 90)]), Some(50), 100).unwrap();
        assert_eq!(left, known(&[("a", "x", 90)]), "nobody has spoken of b for too long");
    }

    #[test]
    fn metadata_has_an_end_to_what_is_known() {
        let many = |n: usize| {
            let all: Vec<_> = (0..n).map(|i| format!("h{i}")).collect();
            let all: Vec<_> = all.iter().map(|h| ("m", h.as_str(), 0)).collect();
            known(&all)
        };
        let mut all = many(10);
        join(&mut all, &many(100));
        assert_eq!(all["m"].len(), MAX_PER_METRIC);
        let long = "x".repeat(40 << 20);
        let heard = known(&[("a", &long, 0), ("b", &long, 0), ("c", "short", 0)]);
        let kept = next(&MetricMetadata::new(), &heard, None, 0).unwrap();
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["a"]);
        let (_, bytes) = encode(&heard).unwrap();
        assert_eq!(decode("x", bytes).unwrap(), kept, "a file of others may hold more");
    }

    #[test]
    fn metadata_without_texts_takes_room_as_well() {
        let heard: MetricMetadata = (0..MAX_METRICS / 5)
            .map(|n| {
                let entries = (0..MAX_PER_METRIC).map(|i| (entry(&i.to_string()), 0));
                (format!("{n}"), entries.collect())
            })
            .collect();
        let kept = next(&MetricMetadata::new(), &heard, None, 0).unwrap();
        assert!(heap_bytes(&kept) <= MAX_STORED_BYTES && heap_bytes(&heard) > 3 * MAX_STORED_BYTES / 2);
    }

    #[test]
    fn metadata_file_comes_back_as_written() {
        let all = known(&[("a", "x \"ü\"", 1), ("a", "", -5), ("b", "y", i64::MAX)]);
        let (about, bytes) = encode(&all).unwrap();
        assert_eq!((about.rows, about.min_t_ms, about.max_t_ms), (3, -5, i64::MAX));
        about.check("x", &bytes).unwrap();
        assert_eq!(decode("x", bytes).unwrap(), all);
        let (_, bytes) = encode(&MetricMetadata::new()).unwrap();
        assert_eq!(decode("x", bytes).unwrap(), MetricMetadata::new());
    }
}
