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
//! counter that never fell costs four. `lists` has a bit for each list that is there, in the order of
//! [`ListColumn`].
//!
//! Since version 4 the six lists from `last` to `reset_sum` are mantissas of decimals where the bits come
//! back, in `last_m` to `reset_sum_m` and not in the lists of doubles: see [`super::aggregates`].
//!
//! Histograms are in rows of their own whose role is `last`, `first`, `sum` or `reset_sum`: item i of the
//! `h_…` lists belongs to the window whose last sample has the time of item i of `tsref`; windows without
//! such a histogram are left out. `last` is then the last that is no marker.

use std::sync::LazyLock;

use arrow_schema::SchemaRef;
use parquet::file::properties::WriterProperties;

use crate::block::columns::{self, Coding, Column, Kind, Pages};
use crate::block::error::BlockError;
use crate::block::options::WriteOptions;
use crate::block::schema::{self, SERIES_ID};
use model::rollup::Aggregates;

/// The columns that all versions have, in order; the first [`FIRST_LIST`] are small ones that readers keep in
/// memory.
const SINCE_VERSION_2: [Column; 33] = {
    use Coding::{Delta, Dictionary, Split};
    use Kind::{I64, ListOfF64, ListOfI32, ListOfI64, Text, U32};
    use Pages::{HalfBytes, Slices, Whole};
    columns::with_histograms(&[
        Column::small(SERIES_ID, U32, Delta).with_ranges(),
        Column::small("min_t", I64, Delta).with_ranges(),
        Column::small("max_t", I64, Delta).with_ranges(),
        Column::small("tsref", U32, Delta),
        Column::small("n", U32, Delta),
        Column::small("role", Text, Dictionary),
        Column::small("first_tsref", U32, Delta),
        Column::small("lists", U32, Dictionary),
        // Few distinct numbers: codes of a bit or two, which is too little to cut pages by.
        Column::large("count", ListOfI32, Dictionary, Slices),
        Column::large("last", ListOfF64, Split, HalfBytes(16)),
        Column::large("first", ListOfF64, Split, HalfBytes(16)),
        Column::large("sum", ListOfF64, Split, HalfBytes(16)),
        Column::large("min", ListOfF64, Split, HalfBytes(16)),
        Column::large("max", ListOfF64, Split, HalfBytes(16)),
        Column::large("reset_sum", ListOfF64, Split, HalfBytes(16)),
        Column::large("resets", ListOfI32, Dictionary, Slices),
        Column::large("changes", ListOfI32, Dictionary, Slices),
        Column::large("stale_pos", ListOfI32, Delta, Whole),
        Column::large("stale_last_ts", ListOfI64, Delta, Whole),
        Column::large("h_samples", ListOfI32, Dictionary, Slices),
        Column::large("h_flags", ListOfI32, Dictionary, Slices),
        Column::large("h_coarsest", ListOfI32, Dictionary, Slices),
    ])
};

/// All columns. Those of version 4 stand behind the others, so that a column has one place in all versions.
const TABLE: [Column; 43] = {
    use Coding::{Delta, Dictionary, Plain};
    use Kind::{ListOfF64, ListOfI32, ListOfI64, U32};
    use Pages::{HalfBytes, Whole};
    columns::joined(
        &SINCE_VERSION_2,
        &[
            Column::small("exp", U32, Dictionary),
            Column::small("relative", U32, Dictionary),
            Column::large("last_m", ListOfI64, Delta, HalfBytes(4)),
            Column::large("first_m", ListOfI64, Delta, HalfBytes(4)),
            Column::large("sum_m", ListOfI64, Delta, HalfBytes(4)),
            Column::large("min_m", ListOfI64, Delta, HalfBytes(4)),
            Column::large("max_m", ListOfI64, Delta, HalfBytes(4)),
            Column::large("reset_sum_m", ListOfI64, Delta, HalfBytes(4)),
            Column::large("x_pos", ListOfI32, Delta, Whole),
            Column::large("x", ListOfF64, Plain, Whole),
        ],
    )
};

/// Their names.
pub const COLUMNS: [&str; 43] = columns::names(&TABLE);
/// Where the lists begin.
const FIRST_LIST: usize = 8;
/// Positions of the histogram columns.
pub const HISTOGRAM_COLUMNS: std::ops::Range<usize> = 22..33;
/// Where the lists of version 4 begin, behind its two small columns.
const FIRST_LIST_OF_VERSION_4: usize = 35;
/// Lists that version 2 has too.
const LISTS_OF_VERSION_2: usize = 14;

/// Positions of the small columns, which readers keep in memory, in a file of so many columns.
pub fn small_columns(columns: usize) -> &'static [usize] {
    const ALL: [usize; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 33, 34];
    if columns == COLUMNS.len() { &ALL } else { &ALL[..FIRST_LIST] }
}

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
    LastM,
    FirstM,
    SumM,
    MinM,
    MaxM,
    ResetSumM,
    XPos,
    X,
}

impl ListColumn {
    pub const ALL: [ListColumn; 22] = {
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
            LastM,
            FirstM,
            SumM,
            MinM,
            MaxM,
            ResetSumM,
            XPos,
            X,
        ]
    };

    /// Its bit in `lists`.
    pub fn bit(self) -> u32 {
        1 << self as u8
    }

    /// Its place among the columns.
    pub fn column(self) -> usize {
        match (self as usize).checked_sub(LISTS_OF_VERSION_2) {
            None => FIRST_LIST + self as usize,
            Some(at) => FIRST_LIST_OF_VERSION_4 + at,
        }
    }

    /// The list that a column has, if it is one.
    pub fn at(column: usize) -> Option<ListColumn> {
        ListColumn::ALL.into_iter().find(|list| list.column() == column)
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

/// The schema of the file.
pub static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| columns::schema(&TABLE));

pub(crate) fn properties(options: &WriteOptions) -> Result<WriterProperties, BlockError> {
    Ok(columns::set_properties(schema::properties(options)?, &TABLE, options).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_where_they_are_looked_for() {
        let names = ListColumn::ALL.map(|list| (list, list.name()));
        assert_eq!(names[0], (ListColumn::Count, "count"));
        assert_eq!(names[13], (ListColumn::HCoarsest, "h_coarsest"));
        assert_eq!(names[14], (ListColumn::LastM, "last_m"));
        assert_eq!(names[21], (ListColumn::X, "x"));
        assert!(ListColumn::ALL.iter().all(|list| ListColumn::at(list.column()) == Some(*list)));
        assert!(HISTOGRAM_COLUMNS.chain([7, 33, 34]).all(|column| ListColumn::at(column).is_none()));
        assert!(COLUMNS[HISTOGRAM_COLUMNS].iter().all(|column| column.starts_with("h_")));
        let small = |columns| small_columns(columns).iter().map(|at| COLUMNS[*at]).collect::<Vec<_>>();
        assert_eq!(small(33)[5..], ["role", "first_tsref", "lists"]);
        assert_eq!(small(43)[7..], ["lists", "exp", "relative"]);
    }
}
