//! Sums and means of a group's native histograms.

use model::histogram::{Histogram, IncompatibleSchemas};

use crate::parse::AggregateOp;

/// A group's histograms at one step.
#[derive(Default)]
pub(super) struct HistogramState {
    /// `None`: floats came first, so that there will be no result.
    pub sum: Option<Histogram>,
    mean: Option<Histogram>,
    compensation: Option<Histogram>,
    pub incompatible: bool,
    pub reset: bool,
    pub not_reset: bool,
}

impl HistogramState {
    /// True where custom bounds had to be reconciled.
    pub fn add(&mut self, h: &Histogram) -> Result<bool, IncompatibleSchemas> {
        match &mut self.sum {
            Some(sum) => Ok(sum.kahan_add(h, &mut self.compensation)?.bounds_reconciled),
            None => Ok(false),
        }
    }

    pub fn add_to_mean(&mut self, h: &Histogram, count: f64) -> Result<bool, IncompatibleSchemas> {
        let Some(sum) = &self.sum else { return Ok(false) };
        let mut reconciled = false;
        if self.mean.is_none() {
            let (mut next, mut c) = (sum.clone(), self.compensation.clone());
            reconciled |= next.kahan_add(h, &mut c)?.bounds_reconciled;
            if !next.has_overflow() {
                (self.sum, self.compensation) = (Some(next), c);
                return Ok(reconciled);
            }
            let mut mean = sum.clone();
            mean.div(count - 1.0);
            self.mean = Some(mean);
            if let Some(c) = &mut self.compensation {
                c.div(count - 1.0);
            }
        }
        let Some(mean) = &mut self.mean else { return Ok(reconciled) };
        let q = (count - 1.0) / count;
        if let Some(c) = &mut self.compensation {
            c.mul(q);
        }
        let mut part = h.clone();
        part.div(count);
        mean.mul(q);
        reconciled |= mean.kahan_add(&part, &mut self.compensation)?.bounds_reconciled;
        Ok(reconciled)
    }

    pub fn finish(self, op: AggregateOp, count: f64) -> Option<Histogram> {
        let mut compensation = self.compensation;
        let mut result = match self.mean {
            Some(mean) => mean,
            None => {
                let mut sum = self.sum?;
                if op == AggregateOp::Avg {
                    sum.div(count);
                    if let Some(c) = &mut compensation {
                        c.div(count);
                    }
                }
                sum
            }
        };
        if let Some(c) = compensation {
            // Both have one layout, so this cannot be refused.
            let _ = result.add(&c);
        }
        result.compact(0);
        Some(result)
    }
}
