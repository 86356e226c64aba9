//! Questions as JSON, answers as one Arrow IPC stream each.
//!
//! The stream's schema has [`Header`] as JSON in its metadata, under `hearth`, and these columns:
//!
//! | column | type | what |
//! |---|---|---|
//! | kind | uint8 | 0: one name; 1: samples of one series; 2: the end |
//! | name | binary | 0: bytes of a label set ([`model::labels::Labels::encode`]), or a text; 2: [`End`] |
//! | series | uint32 | 1: which of the label sets, from 0 |
//! | timeline | uint32 | 1: a number for its timestamps |
//! | ts_ms | list of int64 | 1: the timestamps, where their number is new in the stream |
//! | values | list of float64 | 1: one for each timestamp; of a histogram its sum |
//! | start_ts_ms | list of int64 | 1: start timestamps, where any is known |
//! | histograms | list of binary | 1: null where a sample is a float; see [`histogram`] |
//!
//! All names come first, ascending; then samples, ascending by series, of one series perhaps in several rows;
//! then the end. A stream without its end was cut off. What arrives is checked against all of that, because a
//! wrong number must not come of another's fault.

pub mod decode;
pub mod encode;
pub mod histogram;
pub mod json;
pub mod request;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Schema};
use serde::{Deserialize, Serialize};

/// The key of the header in the schema's metadata.
pub const HEADER_KEY: &str = "hearth";

/// The media type of Arrow IPC streams.
pub const CONTENT_TYPE: &str = "application/vnd.apache.arrow.stream";

/// The status of an answer, and of what is in the bucket by now.
pub const OK: u16 = 200;
pub const COMMITTED: u16 = 410;

/// Kinds of rows.
pub const NAME: u8 = 0;
pub const SAMPLES: u8 = 1;
pub const END: u8 = 2;

/// Timelines that a reader remembers, the last that were new.
pub const TIMELINES: usize = 64;

/// Samples in one row at most: a longer series has several.
pub const ROW_SAMPLES: usize = 256 << 10;

/// About how many bytes one batch has, and how many a reader takes at most: rows are whole.
pub const BATCH_BYTES: usize = 1 << 20;
pub const MAX_BATCH_BYTES: usize = 64 << 20;

/// What an answer says of itself before anything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub version: u32,
    /// Who answers.
    pub writer: String,
    /// Whose data this is, and above which segment of the writer's log, as it was asked.
    pub tenant: String,
    pub floor: u64,
    /// The newest snapshot of the tenant's catalog that the writer knows.
    pub snapshot: u64,
    /// Where samples lie in which the question's matchers are interested, where it wants to know; ranges with
    /// both ends included.
    pub unsettled_ms: Vec<(i64, i64)>,
    /// How many names will come.
    pub names: u64,
}

/// The last row: how many rows of samples and samples there were, or why there are no more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub rows: u64,
    pub samples: u64,
    pub failed: Option<Failure>,
}

/// Why a question could not be answered whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    Canceled,
    TimedOut,
    /// The query asks for more than it may use.
    Limit(String),
    Storage(String),
}

fn list(name: &str, of: DataType) -> Field {
    Field::new(name, DataType::List(Arc::new(Field::new("item", of, true))), true)
}

/// The columns of every answer.
pub static FIELDS: LazyLock<Vec<Field>> = LazyLock::new(|| {
    vec![
        Field::new("kind", DataType::UInt8, false),
        Field::new("name", DataType::Binary, true),
        Field::new("series", DataType::UInt32, true),
        Field::new("timeline", DataType::UInt32, true),
        list("ts_ms", DataType::Int64),
        list("values", DataType::Float64),
        list("start_ts_ms", DataType::Int64),
        list("histograms", DataType::Binary),
    ]
});

/// The schema of an answer with a header.
pub fn schema(header: &Header) -> Schema {
    let text = serde_json::to_string(header).expect("numbers and texts always serialize");
    Schema::new_with_metadata(FIELDS.clone(), HashMap::from([(HEADER_KEY.to_owned(), text)]))
}
