//! What each series of a block costs: its samples, and its share of the block's bytes as they lie in the
//! store.
//!
//! Exact as a whole: the shares of all series are the bytes of the three files. How a page's bytes fall to
//! its rows is by samples; what all share (timelines, footers) falls to all by samples, the series table by
//! series. Reads footers and four small columns.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;

use crate::block::encode::Encoding;
use crate::block::read::file::BlockFile;
use crate::block::read::scan::{self, Scan};
use crate::block::read::store::BlockStore;
use crate::block::schema::{FIRST_HISTOGRAM_COLUMN, SAMPLE_COLUMNS, SMALL_COLUMNS};
use crate::block::window_schema::{self, ListColumn, Role};
use crate::block_meta::BlockMeta;
use model::source::SourceError;
use model::tenant::TenantId;

/// By number of the series, as `super::BlockReader::next_labels` counts them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    pub samples: Vec<u64>,
    pub bytes: Vec<f64>,
}

/// A row of `samples.parquet`, as far as its weight goes.
struct Row {
    series: u32,
    n: u32,
    holds: Holds,
}

/// Which lists a row has.
enum Holds {
    Samples {
        enc: Encoding,
        exceptions: u32,
    },
    /// Windows: a bit for each list that is there.
    Windows {
        lists: u32,
    },
    /// Histograms of windows.
    WindowHistograms,
}

impl Row {
    /// How many values the row has in a column.
    fn values(&self, column: usize) -> u32 {
        let all_if = |holds: bool| if holds { self.n } else { 0 };
        match self.holds {
            Holds::Samples { .. } if column < SMALL_COLUMNS => 1,
            Holds::Samples { enc, exceptions } => match SAMPLE_COLUMNS.get(column).copied().unwrap_or("") {
                "vx_pos" | "vx" => exceptions,
                name @ ("vi" | "vb" | "vf" | "vp") => all_if(enc.as_str() == name),
                _ if column >= FIRST_HISTOGRAM_COLUMN => all_if(enc == Encoding::Hist),
                _ => self.n,
            },
            _ if window_schema::small_columns(window_schema::COLUMNS.len()).contains(&column) => 1,
            Holds::Windows { lists } => {
                all_if(ListColumn::at(column).is_some_and(|list| lists & list.bit() != 0))
            }
            Holds::WindowHistograms => all_if(window_schema::HISTOGRAM_COLUMNS.contains(&column)),
        }
    }
}

/// Samples and bytes of each series of a block. Blocks the thread.
pub fn weigh(store: &Arc<BlockStore>, tenant: &TenantId, meta: &BlockMeta) -> Result<Weights, SourceError> {
    let [_, _, samples] = BlockFile::open(store, tenant, meta, true)?;
    let count = usize::try_from(meta.stats.series).unwrap_or(usize::MAX);
    let mut out = Weights { samples: vec![0; count], bytes: vec![0.0; count] };
    for group in 0..samples.index.row_starts.len() - 1 {
        let rows = rows_of(store, &samples, group, meta.resolution_ms != 0)?;
        for row in &rows {
            let of = out.samples.get_mut(row.series as usize);
            let of = of.ok_or_else(|| samples.damaged("a row is of a series that does not exist"))?;
            // Histograms of windows belong to windows that have a row already.
            *of += if matches!(row.holds, Holds::WindowHistograms) { 0 } else { u64::from(row.n) };
        }
        share_group(&samples, group, &rows, &mut out.bytes);
    }
    let per_series = meta.files.series.bytes as f64 / count.max(1) as f64;
    let shared = meta.files.bytes() as f64 - meta.files.series.bytes as f64 - out.bytes.iter().sum::<f64>();
    let per_sample = shared / out.samples.iter().sum::<u64>().max(1) as f64;
    for (bytes, n) in out.bytes.iter_mut().zip(&out.samples) {
        *bytes += per_series + per_sample * *n as f64;
    }
    Ok(out)
}

fn rows_of(
    store: &BlockStore,
    file: &BlockFile,
    group: usize,
    of_windows: bool,
) -> Result<Vec<Row>, SourceError> {
    // Which series, how many, of what kind, and one more that kind goes by.
    let (names, all): (_, &[&str]) = match of_windows {
        false => (["series_id", "n", "enc", "nx"], &SAMPLE_COLUMNS),
        true => (["series_id", "n", "role", "lists"], &window_schema::COLUMNS),
    };
    let place = |name: &str| all.iter().position(|c| *c == name).expect("one of the schema's own");
    let scans = vec![Scan::new(file, group, &names.map(place), None)?];
    let batches = scan::run(store, scans)?.pop().unwrap_or_default();
    let mut rows = Vec::new();
    for batch in &batches {
        let c = batch.columns();
        let wrong = || file.damaged("its small columns are not those of a block");
        let ints = |i: usize| c.get(i).and_then(|a| a.as_primitive_opt::<UInt32Type>()).ok_or_else(wrong);
        let (series, n, more) = (ints(0)?.values(), ints(1)?.values(), ints(3)?.values());
        let kinds = c.get(2).and_then(|a| a.as_string_opt::<i32>()).ok_or_else(wrong)?;
        for i in 0..batch.num_rows() {
            let kind = kinds.value(i);
            let holds = match of_windows {
                true if kind == Role::Windows.as_str() => Holds::Windows { lists: more[i] },
                true => Holds::WindowHistograms,
                false => {
                    Holds::Samples { enc: Encoding::from_name(kind).ok_or_else(wrong)?, exceptions: more[i] }
                }
            };
            rows.push(Row { series: series[i], n: n[i], holds });
        }
    }
    Ok(rows)
}

/// Deals out the pages of a row group among its rows.
fn share_group(file: &BlockFile, group: usize, rows: &[Row], bytes: &mut [f64]) {
    let metadata = file.index.arrow.metadata();
    let pages = metadata.page_index_for_row_group(group);
    let schema = metadata.file_metadata().schema_descr();
    for (leaf, chunk) in metadata.row_group(group).columns().iter().enumerate() {
        let column = schema.get_column_root_idx(leaf);
        let mut deal = |rows: &[Row], size: f64| {
            let whole: u64 = rows.iter().map(|r| u64::from(r.values(column))).sum();
            for row in rows {
                let share = match whole {
                    // Nulls cost something too.
                    0 => 1.0 / rows.len() as f64,
                    whole => f64::from(row.values(column)) / whole as f64,
                };
                bytes[row.series as usize] += size * share;
            }
        };
        let mut left = chunk.compressed_size() as f64;
        let locations = pages.offset_index(leaf).map_or(&[][..], |o| o.page_locations());
        for (i, page) in locations.iter().enumerate() {
            let from = usize::try_from(page.first_row_index).unwrap_or(0).min(rows.len());
            let to = locations.get(i + 1).map_or(rows.len(), |next| {
                usize::try_from(next.first_row_index).unwrap_or(rows.len()).clamp(from, rows.len())
            });
            let size = f64::from(page.compressed_page_size);
            deal(&rows[from..to], size);
            left -= size;
        }
        // Dictionaries, and columns without an index.
        deal(rows, left.max(0.0));
    }
}
