//! The `samples.parquet` of a downsampled block: plain numbers per aggregate, a row per series and slice of
//! time.
//!
//! A row with the role `windows` tells the windows of one series in one slice. Window i ends at the next
//! multiple of the block's resolution at or after item i of the timeline `tsref`, which is the time of its
//! last sample; item i of `first_tsref` is that of its first. Items of its lists:
//!
//! - `count`: samples, histograms included, staleness markers not. 0: nothing but markers.
//! - `last`, `first`, `sum`, `min`, `max`: of the floats. `reset_sum`: the floats right before a smaller one,
//!   added up, so that a counter grew by `last - first + reset_sum` within the window. NaN where the window
//!   has no floats, or its first or last sample is none.
//! - `resets`, `changes`: neighbours of which the second is smaller, or differs.
//! - `stale_pos`: windows (ascending, from 0) that end in a staleness marker; `stale_last_ts` beside it: the
//!   time of the last sample that is none, or the marker's own where there is no other.
//! - `h_samples`: how many are histograms; `h_flags`: see [`model::rollup::HistogramFlags`]; `h_coarsest`:
//!   their coarsest schema.
//!
//! A list that would say what another says is null: `last` where there are no floats at all; `first` means
//! `last`, `min` means `first`, `max` means `last`; `sum` means `count * last`; `reset_sum`, `resets`,
//! `changes`, `h_samples`, `stale_pos` mean 0 or nothing throughout. So a constant costs two lists and a
//! counter that never fell costs four. `lists` has a bit for each list that is there, in the order of the
//! columns from `count` on.
//!
//! Histograms are in rows of their own whose role is `last`, `first`, `sum` or `reset_sum`: item i of the
//! `h_…` lists belongs to the window whose last sample has the time of item i of `tsref`; windows without
//! such a histogram are left out. `last` is then the last that is no marker.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::basic::Encoding;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::block::error::BlockError;
use crate::block::options::WriteOptions;
use crate::block::schema::{self, SERIES_ID, histogram_field, list, list_path};
use model::rollup::Aggregates;

/// Names of the columns, in order; the first [`SMALL_COLUMNS`] are the small ones that readers keep in
/// memory.
pub const COLUMNS: [&str; 33] = [
    SERIES_ID,
    "min_t",
    "max_t",
    "tsref",
    "n",
    "role",
    "first_tsref",
    "lists", // small
    "count",
    "last",
    "first",
    "sum",
    "min",
    "max",
    "reset_sum",
    "resets",
    "changes",
    "stale_pos",
    "stale_last_ts",
    "h_samples",
    "h_flags",
    "h_coarsest", // numbers
    "h_schema",
    "h_hint",
    "h_zero_threshold",
    "h_zero_count",
    "h_count",
    "h_sum",
    "h_pos_spans",
    "h_neg_spans",
    "h_pos_buckets",
    "h_neg_buckets",
    "h_custom_values",
];
pub const SMALL_COLUMNS: usize = 8;
/// Position of the first histogram column.
pub const FIRST_HISTOGRAM_COLUMN: usize = 22;
const FIRST_LIST: usize = SMALL_COLUMNS;

/// The list columns of a row of windows, as bits of its column `lists`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ListColumn {
    Count,
    Last,
    First,
    Sum,
    Min,
    Max,
    ResetSum,
    Resets,
    Changes,
    StalePos,
    StaleLastTs,
    HSamples,
    HFlags,
    HCoarsest,
}

impl ListColumn {
    pub const ALL: [ListColumn; 14] = {
        use ListColumn::*;
        [
            Count,
            Last,
            First,
            Sum,
            Min,
            Max,
            ResetSum,
            Resets,
            Changes,
            StalePos,
            StaleLastTs,
            HSamples,
            HFlags,
            HCoarsest,
        ]
    };

    /// Its bit in `lists`.
    pub fn bit(self) -> u32 {
        1 << self as u8
    }

    /// Its place among the columns.
    pub fn column(self) -> usize {
        FIRST_LIST + self as usize
    }

    pub fn name(self) -> &'static str {
        COLUMNS[self.column()]
    }
}

/// What a row tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Windows,
    Last,
    First,
    Sum,
    ResetSum,
}

impl Role {
    const ALL: [Role; 5] = [Role::Windows, Role::Last, Role::First, Role::Sum, Role::ResetSum];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Windows => "windows",
            Role::Last => "last",
            Role::First => "first",
            Role::Sum => "sum",
            Role::ResetSum => "reset_sum",
        }
    }

    pub fn from_name(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|r| r.as_str() == name)
    }

    /// Whether a reader of these aggregates needs such rows.
    pub fn is_for(self, aggregates: Aggregates) -> bool {
        match self {
            Role::Windows | Role::Last => true,
            Role::First => aggregates.has(Aggregates::FIRST),
            Role::Sum => aggregates.has(Aggregates::SUM),
            Role::ResetSum => aggregates.has(Aggregates::RESET_SUM),
        }
    }
}

/// The columns.
pub static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let field = |name: &&str| {
        let (kind, nullable) = match *name {
            SERIES_ID | "tsref" | "n" | "first_tsref" | "lists" => (DataType::UInt32, false),
            "min_t" | "max_t" => (DataType::Int64, false),
            "role" => (DataType::Utf8, false),
            "count" | "resets" | "changes" | "stale_pos" | "h_samples" | "h_flags" | "h_coarsest" => {
                (list(DataType::Int32), true)
            }
            "stale_last_ts" => (list(DataType::Int64), true),
            "last" | "first" | "sum" | "min" | "max" | "reset_sum" => (list(DataType::Float64), true),
            histogram => return histogram_field(histogram),
        };
        Field::new(*name, kind, nullable)
    };
    Arc::new(Schema::new(COLUMNS.iter().map(field).collect::<Vec<_>>()))
});

pub(crate) fn properties(options: &WriteOptions) -> Result<WriterProperties, BlockError> {
    let mut p = schema::properties(options)?;
    for name in [SERIES_ID, "min_t", "max_t", "tsref", "n", "first_tsref"] {
        p = p.set_column_encoding(ColumnPath::from(name), Encoding::DELTA_BINARY_PACKED);
    }
    for name in [SERIES_ID, "min_t", "max_t"] {
        p = p.set_column_statistics_enabled(ColumnPath::from(name), EnabledStatistics::Page);
    }
    for name in &COLUMNS[..SMALL_COLUMNS] {
        p = p.set_column_data_page_row_count_limit(ColumnPath::from(*name), options.rows_per_page);
    }
    for name in ["role", "lists"] {
        p = p.set_column_dictionary_enabled(ColumnPath::from(name), true);
    }
    // Few distinct numbers: codes of a bit or two, which is too little to cut pages by.
    let rows = (options.values_per_page / 2048).max(1);
    for name in ["count", "resets", "changes", "h_samples", "h_flags", "h_coarsest"] {
        p = p
            .set_column_dictionary_enabled(list_path(name), true)
            .set_column_data_page_row_count_limit(list_path(name), rows);
    }
    for name in ["stale_pos", "stale_last_ts"] {
        p = p.set_column_encoding(list_path(name), Encoding::DELTA_BINARY_PACKED);
    }
    for name in ["last", "first", "sum", "min", "max", "reset_sum"] {
        p = p
            .set_column_encoding(list_path(name), Encoding::BYTE_STREAM_SPLIT)
            .set_column_data_page_size_limit(list_path(name), options.values_per_page * 8);
    }
    Ok(schema::histogram_properties(p, options).build())
}
