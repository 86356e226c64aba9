//! Extents and runs put together as the rows of one result.

use std::sync::Arc;

use hashbrown::HashMap;
use model::labels::Labels;
use model::source::{Budget, Mark, ResolutionPart};

use crate::column::Column;
use crate::eval::evaluator::{column_bytes, label_bytes};
use crate::results_cache::extents::{EXTENT_STEPS, Grid, StepRange};
use crate::results_cache::runs::Run;
use crate::results_cache::store::Extent;
use crate::value::{QueryError, StepSeries};

/// A part of a result.
pub enum Piece {
    Kept { index: i64, extent: Arc<Extent> },
    Computed { range: StepRange, run: Arc<Run> },
}

impl Piece {
    pub fn kept(index: i64, extent: Arc<Extent>) -> Piece {
        Piece::Kept { index, extent }
    }

    pub fn computed(range: StepRange, run: Arc<Run>) -> Piece {
        Piece::Computed { range, run }
    }

    /// The steps that its columns have slots for.
    pub fn range(&self, grid: &Grid) -> StepRange {
        match self {
            Piece::Kept { index, .. } => grid.extent(*index),
            Piece::Computed { range, .. } => *range,
        }
    }

    /// Whether it was computed, and nothing is said beside it.
    pub fn may_be_kept(&self) -> bool {
        matches!(self, Piece::Computed { run, .. } if run.annotations.is_empty())
    }

    /// Label sets, and columns by their place among these.
    pub fn rows(&self) -> (Arc<Vec<Labels>>, Vec<(u32, &Column)>) {
        match self {
            Piece::Kept { extent, .. } => {
                (extent.labels.clone(), extent.columns.iter().map(|(row, column)| (*row, column)).collect())
            }
            Piece::Computed { run, .. } => {
                (run.labels.clone(), run.columns.iter().enumerate().map(|(i, c)| (i as u32, c)).collect())
            }
        }
    }

    /// Cuts an extent out of a piece that holds it whole.
    pub fn cut(&self, grid: &Grid, index: i64, mark: Mark) -> Extent {
        let from = (grid.extent(index).first - self.range(grid).first) as usize;
        let (labels, rows) = self.rows();
        let parts = rows.into_iter().map(|(row, column)| (row, column.part(from, EXTENT_STEPS)));
        let columns = parts.filter(|(_, part)| !part.is_empty()).collect();
        Extent::new(mark, labels, columns, self.resolutions().to_vec())
    }

    pub fn resolutions(&self) -> &[ResolutionPart] {
        match self {
            Piece::Kept { extent, .. } => &extent.resolutions,
            Piece::Computed { run, .. } => &run.resolutions,
        }
    }
}

/// The rows of a result, ascending by labels, none without points; and what answered them.
pub struct Assembled {
    pub series: Vec<StepSeries>,
    pub resolutions: Vec<ResolutionPart>,
}

impl Assembled {
    /// The pieces cover all steps; where they overlap they are equal. What the rows take is reserved.
    pub fn of(grid: &Grid, pieces: Vec<Piece>, budget: &Budget) -> Result<Assembled, QueryError> {
        let whole = grid.whole();
        let mut rows: HashMap<Labels, usize> = HashMap::new();
        let mut series: Vec<StepSeries> = Vec::new();
        let mut resolutions = Vec::new();
        // Rows of the piece before, by place: extents of one run share their labels.
        let mut last: (Option<Arc<Vec<Labels>>>, HashMap<u32, usize>) = Default::default();
        for piece in &pieces {
            budget.check()?;
            resolutions.extend_from_slice(piece.resolutions());
            let range = piece.range(grid);
            let (first, end) = (range.first.max(whole.first), range.last.min(whole.last));
            let (from, to) = ((first - range.first) as usize, (first - whole.first) as usize);
            let count = (end - first + 1) as usize;
            let (labels, columns) = piece.rows();
            if !last.0.as_ref().is_some_and(|before| Arc::ptr_eq(before, &labels)) {
                last = (Some(labels.clone()), HashMap::new());
            }
            for (place, column) in columns {
                let known = last.1.get(&place).copied();
                let row = match known.or_else(|| rows.get(&labels[place as usize]).copied()) {
                    Some(row) => row,
                    None => {
                        let labels = labels[place as usize].clone();
                        budget.reserve(column_bytes(whole.count()) + label_bytes(&labels))?;
                        rows.insert(labels.clone(), series.len());
                        series.push(StepSeries { labels, column: Column::new(whole.count()) });
                        series.len() - 1
                    }
                };
                last.1.insert(place, row);
                series[row].column.copy_part(to, column, from, count);
            }
        }
        series.retain(|s| !s.column.is_empty());
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(Assembled { series, resolutions })
    }
}
