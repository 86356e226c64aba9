//! The small columns of a row group: what tells which rows a selection needs, without their values.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt32Type};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, RecordBatch};

use super::file::BlockFile;
use crate::block::encode::Encoding;
use crate::block::schema::SMALL_COLUMNS;
use crate::block::window_schema::{self, Role, small_columns};
use model::source::SourceError;

/// The small columns of one row group.
#[derive(Default)]
pub(crate) struct SmallRows {
    pub series_id: Vec<u32>,
    pub min_t: Vec<i64>,
    pub max_t: Vec<i64>,
    pub tsref: Vec<u32>,
    pub n: Vec<u32>,
    // Of windows only.
    pub role: Vec<Role>,
    pub first_tsref: Vec<u32>,
    pub lists: Vec<u32>,
    /// 0 throughout where the file is older than mantissas.
    pub relative: Vec<u32>,
    // Of samples only.
    pub enc: Vec<Encoding>,
    // Of both.
    pub exp: Vec<i32>,
    // Of samples only.
    pub constant: Vec<f64>,
    pub nx: Vec<u32>,
    pub start_t: Vec<i64>,
    /// Whether the row's start timestamps are in a list of their own.
    pub starts_listed: Vec<bool>,
}

impl SmallRows {
    /// Whether a row's values are floats of which some stand in a list.
    pub fn lists_floats(&self, at: usize) -> bool {
        match self.enc[at] {
            Encoding::Hist => false,
            Encoding::Const => self.nx[at] > 0 || self.starts_listed[at],
            _ => true,
        }
    }

    /// Whether a row's samples are read from lists: what is worth to be kept once it is decoded.
    pub fn lists_samples(&self, at: usize) -> bool {
        self.enc[at] == Encoding::Hist || self.lists_floats(at)
    }

    /// Decodes the batches of a row group's small columns.
    pub fn decode(
        file: &BlockFile,
        batches: &[RecordBatch],
        of_windows: bool,
    ) -> Result<SmallRows, SourceError> {
        let mut out = SmallRows::default();
        for batch in batches {
            out.push(batch, of_windows)
                .ok_or_else(|| file.damaged("its small columns are not those of a block"))?;
        }
        if out.series_id.windows(2).any(|w| w[0] > w[1]) {
            return Err(file.damaged("its rows are not sorted by series"));
        }
        Ok(out)
    }

    fn push(&mut self, batch: &RecordBatch, of_windows: bool) -> Option<()> {
        fn plain<T: ArrowPrimitiveType>(array: &ArrayRef, to: &mut Vec<T::Native>) -> Option<()> {
            to.extend_from_slice(array.as_primitive_opt::<T>()?.values());
            Some(())
        }
        let c = batch.columns();
        let fits = match of_windows {
            true => [window_schema::COLUMNS.len(), 0].iter().any(|n| small_columns(*n).len() == c.len()),
            false => c.len() == SMALL_COLUMNS,
        };
        if !fits {
            return None;
        }
        plain::<UInt32Type>(&c[0], &mut self.series_id)?;
        plain::<Int64Type>(&c[1], &mut self.min_t)?;
        plain::<Int64Type>(&c[2], &mut self.max_t)?;
        plain::<UInt32Type>(&c[3], &mut self.tsref)?;
        plain::<UInt32Type>(&c[4], &mut self.n)?;
        if of_windows {
            let roles = c[5].as_string_opt::<i32>()?;
            for i in 0..roles.len() {
                self.role.push(Role::from_name(roles.value(i))?);
            }
            plain::<UInt32Type>(&c[6], &mut self.first_tsref)?;
            plain::<UInt32Type>(&c[7], &mut self.lists)?;
            let (Some(exp), Some(relative)) = (c.get(8), c.get(9)) else {
                self.exp.resize(self.lists.len(), 0);
                self.relative.resize(self.lists.len(), 0);
                return Some(());
            };
            let exp = exp.as_primitive_opt::<UInt32Type>()?.values();
            // An exponent that is no power of ten is refused where it is used.
            self.exp.extend(exp.iter().map(|e| i32::try_from(*e).unwrap_or(i32::MAX)));
            return plain::<UInt32Type>(relative, &mut self.relative);
        }
        let enc = c[5].as_string_opt::<i32>()?;
        for i in 0..enc.len() {
            self.enc.push(Encoding::from_name(enc.value(i))?);
        }
        plain::<Int32Type>(&c[6], &mut self.exp)?;
        plain::<Float64Type>(&c[7], &mut self.constant)?;
        plain::<UInt32Type>(&c[8], &mut self.nx)?;
        plain::<Int64Type>(&c[9], &mut self.start_t)?;
        self.starts_listed.extend((0..batch.num_rows()).map(|i| c[9].is_null(i)));
        Some(())
    }
}
