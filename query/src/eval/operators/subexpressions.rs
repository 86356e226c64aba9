//! Common subexpressions: the value of what stands more than once is computed at the first place and used
//! again at the others.
//!
//! Statistics count it at every place, as upstream does, which computes it anew. A warning names its place in
//! the text, so what has something to say is computed anew too.

use model::source::Reservation;

use crate::annotations::Annotations;
use crate::eval::evaluator::{Evaluator, value_reservation};
use crate::eval::frame::Val;
use crate::eval::reuse::{MAX_KEPT_PART, SharedValue};
use crate::plan::{PlanExpr, Shared};
use crate::value::QueryError;

impl Evaluator<'_> {
    /// The value of an expression that stands more than once.
    pub(in crate::eval) fn shared_node(
        &mut self,
        expr: &PlanExpr,
        shared: Shared,
    ) -> Result<Val, QueryError> {
        let key = (shared.number, self.steps.start_ms, self.steps.step_ms, self.steps.count);
        if let Some(mut kept) = self.shared.remove(&key) {
            self.sample_stats.and(&kept.sample_stats);
            if let Some(trace) = &self.trace {
                trace.note(expr.id, |f| f.reused = true);
            }
            kept.uses -= 1;
            if kept.uses == 0 {
                self.budget.release(kept.reserved);
                return Ok(kept.val);
            }
            let val = kept.val.clone();
            self.shared.insert(key, kept);
            return Ok(val);
        }
        let part = self.sample_stats.for_part(self.steps.count);
        let outer_stats = std::mem::replace(&mut self.sample_stats, part);
        let outer_notes = std::mem::replace(&mut self.notes, Annotations::new());
        let val = self.node(expr);
        let sample_stats = std::mem::replace(&mut self.sample_stats, outer_stats);
        self.sample_stats.and(&sample_stats);
        let notes = std::mem::replace(&mut self.notes, outer_notes);
        let val = val?;
        let reservation = value_reservation(&val);
        if notes.is_empty() && self.may_keep(reservation) && self.budget.reserve(reservation).is_ok() {
            let kept =
                SharedValue { val: val.clone(), sample_stats, reserved: reservation, uses: shared.uses - 1 };
            self.shared.insert(key, kept);
        }
        self.notes.merge(notes);
        Ok(val)
    }

    /// Whether so much may be kept for a second use.
    pub(super) fn may_keep(&self, reservation: Reservation) -> bool {
        reservation.bytes <= self.options.max_memory_bytes / MAX_KEPT_PART
            && reservation.samples <= self.options.max_samples / MAX_KEPT_PART
    }
}
