//! What a column of `samples.parquet` is: its type, and how its values are written. A block of samples and
//! one of windows are each a table of these.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::basic::Encoding;
use parquet::file::properties::{EnabledStatistics, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::block::options::WriteOptions;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub name: &'static str,
    kind: Kind,
    nullable: bool,
    coding: Coding,
    pages: Pages,
    /// Whether each page says its least and greatest value.
    has_ranges: bool,
}

/// The type of a column's values.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    U32,
    I32,
    I64,
    F64,
    Text,
    ListOfI32,
    ListOfI64,
    ListOfF64,
    ListOfListsOfI32,
    ListOfListsOfF64,
}

/// How values become bytes, before they are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Plain,
    /// Differences, packed.
    Delta,
    /// The bytes of all values, the first of each, then the second, and so on.
    Split,
    Dictionary,
}

/// Where pages end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pages {
    /// By rows, few to a page: a small column, which readers keep in memory.
    Small,
    /// By bytes, at so many halves of a byte for each value that a page is to have.
    HalfBytes(usize),
    /// By rows, as many as have the values that a page is to have where a slice of windows is full.
    Slices,
    /// Where Parquet ends them.
    Whole,
}

impl Column {
    /// A column that every row has and that readers keep in memory.
    pub const fn small(name: &'static str, kind: Kind, coding: Coding) -> Column {
        Column { name, kind, nullable: false, coding, pages: Pages::Small, has_ranges: false }
    }

    /// A column that a row may lack.
    pub const fn large(name: &'static str, kind: Kind, coding: Coding, pages: Pages) -> Column {
        Column { name, kind, nullable: true, coding, pages, has_ranges: false }
    }

    pub const fn nullable(self) -> Column {
        Column { nullable: true, ..self }
    }

    /// With the least and the greatest value of each page, by which readers find rows.
    pub const fn with_ranges(self) -> Column {
        Column { has_ranges: true, ..self }
    }
}

/// The names of columns.
pub(crate) const fn names<const N: usize>(columns: &[Column; N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut at = 0;
    while at < N {
        names[at] = columns[at].name;
        at += 1;
    }
    names
}

/// Columns, and behind them those that hold the parts of histograms.
pub(crate) const fn with_histograms<const N: usize, const ALL: usize>(
    columns: &[Column; N],
) -> [Column; ALL] {
    joined(columns, &HISTOGRAM)
}

/// Columns, and others behind them.
pub(crate) const fn joined<const N: usize, const M: usize, const ALL: usize>(
    columns: &[Column; N],
    others: &[Column; M],
) -> [Column; ALL] {
    assert!(N + M == ALL);
    let mut all = [columns[0]; ALL];
    let mut at = 0;
    while at < ALL {
        all[at] = if at < N { columns[at] } else { others[at - N] };
        at += 1;
    }
    all
}

/// The parts of histograms: a list for each, or a list of lists.
const HISTOGRAM: [Column; 11] = {
    use Coding::{Dictionary, Split};
    use Kind::{ListOfF64, ListOfI32, ListOfListsOfF64, ListOfListsOfI32};
    use Pages::{HalfBytes, Whole};
    [
        Column::large("h_schema", ListOfI32, Dictionary, Whole),
        Column::large("h_hint", ListOfI32, Dictionary, Whole),
        Column::large("h_zero_threshold", ListOfF64, Dictionary, Whole),
        Column::large("h_zero_count", ListOfF64, Split, HalfBytes(16)),
        Column::large("h_count", ListOfF64, Split, HalfBytes(16)),
        Column::large("h_sum", ListOfF64, Split, HalfBytes(16)),
        Column::large("h_pos_spans", ListOfListsOfI32, Dictionary, Whole),
        Column::large("h_neg_spans", ListOfListsOfI32, Dictionary, Whole),
        Column::large("h_pos_buckets", ListOfListsOfF64, Split, HalfBytes(16)),
        Column::large("h_neg_buckets", ListOfListsOfF64, Split, HalfBytes(16)),
        Column::large("h_custom_values", ListOfListsOfF64, Dictionary, Whole),
    ]
};

/// The schema of a file with these columns.
pub(crate) fn schema(columns: &[Column]) -> SchemaRef {
    let field = |c: &Column| Field::new(c.name, c.kind.data_type(), c.nullable);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

/// How a file with these columns is written.
pub(crate) fn set_properties(
    mut properties: WriterPropertiesBuilder,
    columns: &[Column],
    options: &WriteOptions,
) -> WriterPropertiesBuilder {
    for column in columns {
        let path = || column.kind.path(column.name);
        properties = match column.coding {
            Coding::Plain => properties,
            Coding::Delta => properties.set_column_encoding(path(), Encoding::DELTA_BINARY_PACKED),
            Coding::Split => properties.set_column_encoding(path(), Encoding::BYTE_STREAM_SPLIT),
            Coding::Dictionary => properties.set_column_dictionary_enabled(path(), true),
        };
        properties = match column.pages {
            Pages::Small => properties.set_column_data_page_row_count_limit(path(), options.rows_per_page),
            Pages::HalfBytes(halves) => {
                properties.set_column_data_page_size_limit(path(), options.values_per_page * halves / 2)
            }
            Pages::Slices => {
                let rows = (options.values_per_page / 2048).max(1);
                properties.set_column_data_page_row_count_limit(path(), rows)
            }
            Pages::Whole => properties,
        };
        if column.has_ranges {
            properties = properties.set_column_statistics_enabled(path(), EnabledStatistics::Page);
        }
    }
    properties
}

impl Kind {
    fn data_type(self) -> DataType {
        match self {
            Kind::U32 => DataType::UInt32,
            Kind::I32 => DataType::Int32,
            Kind::I64 => DataType::Int64,
            Kind::F64 => DataType::Float64,
            Kind::Text => DataType::Utf8,
            Kind::ListOfI32 => list(DataType::Int32),
            Kind::ListOfI64 => list(DataType::Int64),
            Kind::ListOfF64 => list(DataType::Float64),
            Kind::ListOfListsOfI32 => list(list(DataType::Int32)),
            Kind::ListOfListsOfF64 => list(list(DataType::Float64)),
        }
    }

    /// Where the values themselves are, below the column's name.
    fn path(self, name: &str) -> ColumnPath {
        const ITEM: [&str; 2] = ["list", "element"];
        let depth = match self {
            Kind::U32 | Kind::I32 | Kind::I64 | Kind::F64 | Kind::Text => 0,
            Kind::ListOfI32 | Kind::ListOfI64 | Kind::ListOfF64 => 1,
            Kind::ListOfListsOfI32 | Kind::ListOfListsOfF64 => 2,
        };
        let below = ITEM.iter().cycle().take(depth * ITEM.len());
        ColumnPath::from(std::iter::once(&name).chain(below).map(|part| part.to_string()).collect::<Vec<_>>())
    }
}

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
