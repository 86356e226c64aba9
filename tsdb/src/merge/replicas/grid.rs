//! Hearth's rule for replicas: chosen on an absolute grid of time, so that no answer depends on where a query begins or ends.

use crate::span::Span;

/// Length of a cell of the grid.
pub const CELL_MS: i64 = 300_000;
/// No decision looks across a multiple of this; a multiple of [`CELL_MS`].
pub const WALL_MS: i64 = 12 * 3_600_000;

/// What has to be read for the range `keep` (first and last timestamp, both included): what is outside changes nothing inside.
pub fn reach(keep: (i64, i64)) -> (i64, i64) {
    let (first, last) = (Span::containing(keep.0, CELL_MS), Span::containing(keep.1, CELL_MS));
    let (left, right) = (Span::containing(keep.0, WALL_MS), Span::containing(keep.1, WALL_MS));
    let min = first.start_ms.saturating_sub(2 * CELL_MS).max(left.start_ms).saturating_add(1);
    let max = last.end_ms.saturating_add(2 * CELL_MS).min(right.end_ms);
    (min.min(keep.0), max.max(keep.1))
}
