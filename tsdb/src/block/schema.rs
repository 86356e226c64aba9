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

use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{
    DeltaBinaryPackedEncoderOptions, EnabledStatistics, WriterProperties, WriterPropertiesBuilder,
};
use parquet::schema::types::ColumnPath;

use crate::block::columns::{self, Coding, Column, Kind, Pages, list};
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

/// The columns of `samples.parquet`, in order; the first [`SMALL_COLUMNS`] are the small ones that readers
/// keep in memory.
const COLUMNS: [Column; 28] = {
    use Coding::{Delta, Dictionary, Plain, Split};
    use Kind::{F64, I32, I64, ListOfF64, ListOfI32, ListOfI64, Text, U32};
    use Pages::HalfBytes;
    columns::with_histograms(&[
        Column::small(SERIES_ID, U32, Delta).with_ranges(),
        Column::small("min_t", I64, Delta).with_ranges(),
        Column::small("max_t", I64, Delta).with_ranges(),
        Column::small("tsref", U32, Delta),
        Column::small("n", U32, Delta),
        Column::small("enc", Text, Dictionary),
        Column::small("exp", I32, Delta).nullable(),
        Column::small("const", F64, Dictionary).nullable(),
        Column::small("nx", U32, Delta),
        Column::small("start_t", I64, Delta).nullable(),
        // Pages are cut by bytes; packed mantissas take one to two each.
        Column::large("vi", ListOfI64, Delta, HalfBytes(3)),
        Column::large("vb", ListOfI64, Split, HalfBytes(16)),
        Column::large("vf", ListOfF64, Split, HalfBytes(16)),
        Column::large("vp", ListOfF64, Plain, HalfBytes(16)),
        Column::large("vx_pos", ListOfI32, Delta, HalfBytes(3)),
        Column::large("vx", ListOfF64, Plain, HalfBytes(16)),
        Column::large("start_ts", ListOfI64, Delta, HalfBytes(3)),
    ])
};

/// Their names.
pub const SAMPLE_COLUMNS: [&str; 28] = columns::names(&COLUMNS);
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

/// `timelines.parquet`.
pub static TIMELINES: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("tsref", DataType::UInt32, false),
        Field::new("ts", list(DataType::Int64), false),
    ]))
});

/// `samples.parquet`.
pub static SAMPLES: LazyLock<SchemaRef> = LazyLock::new(|| columns::schema(&COLUMNS));

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

pub(crate) fn timelines_properties(options: &WriteOptions) -> Result<WriterProperties, BlockError> {
    let ts = ColumnPath::from(["ts", "list", "element"].map(str::to_string).to_vec());
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
    Ok(columns::set_properties(properties(options)?, &COLUMNS, options).build())
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
