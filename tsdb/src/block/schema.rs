//! The columns of the three files.
//!
//! A row of `samples.parquet` holds the samples of one series in one time slice, floats and histograms in
//! rows of their own. Its value column is named by `enc`: value i of the row is
//!
//! - `const`: `const`;
//! - `vi`, `vb`: `list[i] / 10^exp` in double precision (a division, which is exact where a product would not
//!   be);
//! - `vf`, `vp`: `list[i]`;
//! - `hist`: the histogram made of item i of all the `h_…` lists.
//!
//! where `vx_pos` (ascending, from 0) does not name i, and else the `vx` beside it. The timestamps are those
//! of the timeline `tsref`, as many as `n`. The start timestamp is `start_t` for all samples, 0 meaning
//! unknown, or where that is null item i of `start_ts`.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{
    DeltaBinaryPackedEncoderOptions, EnabledStatistics, WriterProperties, WriterPropertiesBuilder,
};
use parquet::schema::types::ColumnPath;

use crate::block::error::BlockError;
use crate::block::options::WriteOptions;
use model::histogram::CounterResetHint;

/// Key of the Parquet footer under which the checksums of a file's head lie, see
/// `crate::block::write::file`.
pub const CRC_KEY: &str = "hearth.crc32";
/// Key of the Parquet footer that says what wrote the file.
pub const FORMAT_KEY: &str = "hearth.format";

pub const SERIES_ID: &str = "series_id";
pub const OTHER_LABELS: &str = "other_labels";

/// Names of the columns of `samples.parquet`, in order; the first [`SMALL_COLUMNS`] are the small ones that
/// readers keep in memory.
pub const SAMPLE_COLUMNS: [&str; 28] = [
    SERIES_ID,
    "min_t",
    "max_t",
    "tsref",
    "n",
    "enc",
    "exp",
    "const",
    "nx",
    "start_t", // small
    "vi",
    "vb",
    "vf",
    "vp",
    "vx_pos",
    "vx",
    "start_ts", // floats
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
pub const SMALL_COLUMNS: usize = 10;
/// Positions of the columns of lists of floats and of start timestamps.
pub const VI: usize = SMALL_COLUMNS;
pub const VB: usize = 11;
pub const VF: usize = 12;
pub const VP: usize = 13;
pub const VX_POS: usize = 14;
pub const VX: usize = 15;
pub const START_TS: usize = 16;
/// Position of the first histogram column.
pub const FIRST_HISTOGRAM_COLUMN: usize = 17;

/// Rows per page of `series.parquet`: what is decoded of each label for a metric of few series.
pub(crate) const SERIES_PER_PAGE: usize = 16 * 1024;

/// A list whose items are never null: one level less to write and to read. (Lists of lists: `h_custom_values`
/// has null items.)
pub(crate) fn list(item: DataType) -> DataType {
    DataType::List(element(item))
}

/// The item of a list as the schema names it.
pub(crate) fn element(item: DataType) -> Arc<Field> {
    let nullable = matches!(item, DataType::List(_));
    Arc::new(Field::new("element", item, nullable))
}

/// `timelines.parquet`.
pub static TIMELINES: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("tsref", DataType::UInt32, false),
        Field::new("ts", list(DataType::Int64), false),
    ]))
});

/// `samples.parquet`.
pub static SAMPLES: LazyLock<SchemaRef> = LazyLock::new(|| {
    let kind = |name: &str| match name {
        SERIES_ID | "tsref" | "n" | "nx" => (DataType::UInt32, false),
        "min_t" | "max_t" => (DataType::Int64, false),
        "enc" => (DataType::Utf8, false),
        "exp" => (DataType::Int32, true),
        "const" => (DataType::Float64, true),
        "start_t" => (DataType::Int64, true),
        "vi" | "vb" | "start_ts" => (list(DataType::Int64), true),
        "vx_pos" => (list(DataType::Int32), true),
        "vf" | "vp" | "vx" => (list(DataType::Float64), true),
        other => unreachable!("no type for column {other}"),
    };
    let field = |name: &&str| {
        if name.starts_with("h_") {
            return histogram_field(name);
        }
        let (kind, nullable) = kind(name);
        Field::new(*name, kind, nullable)
    };
    Arc::new(Schema::new(SAMPLE_COLUMNS.iter().map(field).collect::<Vec<_>>()))
});

/// A column that holds a part of histograms.
pub(crate) fn histogram_field(name: &str) -> Field {
    let kind = match name {
        "h_schema" | "h_hint" => list(DataType::Int32),
        "h_pos_spans" | "h_neg_spans" => list(list(DataType::Int32)),
        "h_pos_buckets" | "h_neg_buckets" | "h_custom_values" => list(list(DataType::Float64)),
        _ => list(DataType::Float64),
    };
    Field::new(name, kind, true)
}

/// `series.parquet` for these label columns.
pub fn series(label_columns: &[String]) -> SchemaRef {
    let mut fields = vec![Field::new(SERIES_ID, DataType::UInt32, false)];
    fields.extend(label_columns.iter().map(|name| Field::new(name, DataType::Utf8, true)));
    let entry = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, true),
    ]);
    let entries = Field::new("key_value", DataType::Struct(entry), false);
    fields.push(Field::new(OTHER_LABELS, DataType::Map(Arc::new(entries), false), true));
    Arc::new(Schema::new(fields))
}

/// What the columns of all files start from.
pub(crate) fn properties(options: &WriteOptions) -> Result<WriterPropertiesBuilder, BlockError> {
    let level = ZstdLevel::try_new(options.zstd_level).map_err(|e| BlockError::Encode(e.to_string()))?;
    let miniblocks =
        DeltaBinaryPackedEncoderOptions::try_new(128, 4).map_err(|e| BlockError::Encode(e.to_string()))?;
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_delta_binary_packed_encoder_options(miniblocks)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        // Row groups end where we say.
        .set_max_row_group_row_count(None)
        .set_data_page_row_count_limit(usize::MAX)
        .set_created_by(concat!("hearth ", env!("CARGO_PKG_VERSION")).to_string()))
}

pub(crate) fn list_path(name: &str) -> ColumnPath {
    ColumnPath::from(vec![name.to_string(), "list".to_string(), "element".to_string()])
}

fn nested_path(name: &str) -> ColumnPath {
    let parts = [name, "list", "element", "list", "element"];
    ColumnPath::from(parts.map(str::to_string).to_vec())
}

pub(crate) fn timelines_properties(options: &WriteOptions) -> Result<WriterProperties, BlockError> {
    let ts = list_path("ts");
    Ok(properties(options)?
        .set_column_encoding(ColumnPath::from("tsref"), Encoding::DELTA_BINARY_PACKED)
        .set_column_statistics_enabled(ColumnPath::from("tsref"), EnabledStatistics::Page)
        .set_column_encoding(ts.clone(), Encoding::DELTA_BINARY_PACKED)
        // One or two bytes a timestamp where scrapes jitter, near none where they do not.
        .set_column_data_page_size_limit(ts, options.values_per_page * 3 / 2)
        .build())
}

pub(crate) fn series_properties(
    options: &WriteOptions,
    label_columns: &[String],
) -> Result<WriterProperties, BlockError> {
    let mut p = properties(options)?
        .set_data_page_row_count_limit(SERIES_PER_PAGE)
        .set_column_encoding(ColumnPath::from(SERIES_ID), Encoding::DELTA_BINARY_PACKED)
        .set_column_statistics_enabled(ColumnPath::from(SERIES_ID), EnabledStatistics::Page);
    for name in label_columns {
        p = p.set_column_dictionary_enabled(ColumnPath::from(vec![name.clone()]), true);
    }
    for part in ["key", "value"] {
        let path = ColumnPath::from([OTHER_LABELS, "key_value", part].map(str::to_string).to_vec());
        p = p.set_column_dictionary_enabled(path, true);
    }
    Ok(p.build())
}

pub(crate) fn samples_properties(options: &WriteOptions) -> Result<WriterProperties, BlockError> {
    let mut p = properties(options)?;
    for name in [SERIES_ID, "min_t", "max_t", "tsref", "n", "exp", "nx", "start_t"] {
        p = p.set_column_encoding(ColumnPath::from(name), Encoding::DELTA_BINARY_PACKED);
    }
    for name in [SERIES_ID, "min_t", "max_t"] {
        p = p.set_column_statistics_enabled(ColumnPath::from(name), EnabledStatistics::Page);
    }
    for name in &SAMPLE_COLUMNS[..SMALL_COLUMNS] {
        p = p.set_column_data_page_row_count_limit(ColumnPath::from(*name), options.rows_per_page);
    }
    for name in ["enc", "const"] {
        p = p.set_column_dictionary_enabled(ColumnPath::from(name), true);
    }
    for name in ["vi", "vx_pos", "start_ts"] {
        // Pages are cut by bytes; packed mantissas take one to two each.
        p = p
            .set_column_encoding(list_path(name), Encoding::DELTA_BINARY_PACKED)
            .set_column_data_page_size_limit(list_path(name), options.values_per_page * 3 / 2);
    }
    for name in ["vb", "vf"] {
        p = p
            .set_column_encoding(list_path(name), Encoding::BYTE_STREAM_SPLIT)
            .set_column_data_page_size_limit(list_path(name), options.values_per_page * 8);
    }
    for name in ["vp", "vx"] {
        p = p.set_column_data_page_size_limit(list_path(name), options.values_per_page * 8);
    }
    Ok(histogram_properties(p, options).build())
}

/// How the parts of histograms are encoded.
pub(crate) fn histogram_properties(
    mut p: WriterPropertiesBuilder,
    options: &WriteOptions,
) -> WriterPropertiesBuilder {
    for name in ["h_zero_count", "h_count", "h_sum"] {
        p = p
            .set_column_encoding(list_path(name), Encoding::BYTE_STREAM_SPLIT)
            .set_column_data_page_size_limit(list_path(name), options.values_per_page * 8);
    }
    for name in ["h_schema", "h_hint", "h_zero_threshold"] {
        p = p.set_column_dictionary_enabled(list_path(name), true);
    }
    for name in ["h_pos_spans", "h_neg_spans", "h_custom_values"] {
        p = p.set_column_dictionary_enabled(nested_path(name), true);
    }
    for name in ["h_pos_buckets", "h_neg_buckets"] {
        p = p
            .set_column_encoding(nested_path(name), Encoding::BYTE_STREAM_SPLIT)
            .set_column_data_page_size_limit(nested_path(name), options.values_per_page * 8);
    }
    p
}

/// The number that stands for a hint in the column `h_hint`.
pub(crate) fn hint_number(hint: CounterResetHint) -> i32 {
    match hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::CounterReset => 1,
        CounterResetHint::NotCounterReset => 2,
        CounterResetHint::Gauge => 3,
    }
}

/// Undoes [`hint_number`].
pub(crate) fn hint_of(number: i32) -> Option<CounterResetHint> {
    Some(match number {
        0 => CounterResetHint::Unknown,
        1 => CounterResetHint::CounterReset,
        2 => CounterResetHint::NotCounterReset,
        3 => CounterResetHint::Gauge,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_where_they_are_looked_for() {
        let names = [VI, VB, VF, VP, VX_POS, VX, START_TS].map(|c| SAMPLE_COLUMNS[c]);
        assert_eq!(names, ["vi", "vb", "vf", "vp", "vx_pos", "vx", "start_ts"]);
        assert_eq!(SAMPLE_COLUMNS[FIRST_HISTOGRAM_COLUMN], "h_schema");
    }
}
