//! The times at which an expression is evaluated.

/// The times at which an expression is evaluated: `start_ms + i * step_ms` for `i` below `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    pub start_ms: i64,
    /// At least 1, also where there is one step only.
    pub step_ms: i64,
    /// At least 1, save in a subquery without any step.
    pub count: usize,
}

impl Steps {
    pub fn at(&self, step: usize) -> i64 {
        self.start_ms.saturating_add((step as i64).saturating_mul(self.step_ms))
    }

    pub fn end_ms(&self) -> i64 {
        self.at(self.count.saturating_sub(1))
    }

    /// One step only: results then keep the order of evaluation.
    pub fn is_instant(&self) -> bool {
        self.count == 1
    }
}
