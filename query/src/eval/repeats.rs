//! Values of expressions that stand more than once: computed at the first, handed out at the others.
//!
//! Statistics count them at every place, as upstream does, which computes them anew. A remark names its place in the text, so what has something to
//! remark is computed anew too.

use hashbrown::HashMap;
use model::source::Reservation;

use super::frame::Val;
use super::tally::Tally;
use super::trace::id;
use super::{Evaluator, val_held};
use crate::annotations::Annotations;
use crate::plan::{PlanExpr, Shared};
use crate::value::QueryError;

/// What is kept to be used again takes at most one part in so many of what a query may hold; the rest is read or computed again.
const PART: u64 = 8;

/// By number of the expression, and start, step and count of the steps it was evaluated for.
#[derive(Default)]
pub(super) struct SharedValues(HashMap<(u32, i64, i64, usize), Known>);

struct Known {
    val: Val,
    counted: Tally,
    /// Charged to the budget.
    held: Reservation,
    /// How often it may still be asked for.
    uses: u32,
}

impl Evaluator<'_> {
    /// The value of an expression that stands more than once.
    pub(super) fn shared_node(&mut self, expr: &PlanExpr, shared: Shared) -> Result<Val, QueryError> {
        let key = (shared.number, self.steps.start_ms, self.steps.step_ms, self.steps.count);
        if let Some(mut known) = self.values.0.remove(&key) {
            self.tally.and(&known.counted);
            if let Some(trace) = &self.trace {
                trace.note(id(expr), |f| f.reused = true);
            }
            known.uses -= 1;
            if known.uses == 0 {
                self.budget.release(known.held);
                return Ok(known.val);
            }
            let val = known.val.clone();
            self.values.0.insert(key, known);
            return Ok(val);
        }
        let part = self.tally.for_part(self.steps.count);
        let tally = std::mem::replace(&mut self.tally, part);
        let notes = std::mem::replace(&mut self.notes, Annotations::new());
        let val = self.node(expr);
        let counted = std::mem::replace(&mut self.tally, tally);
        self.tally.and(&counted);
        let remarks = std::mem::replace(&mut self.notes, notes);
        let val = val?;
        let held = val_held(&val);
        if remarks.is_empty() && self.may_keep(held) && self.budget.reserve(held).is_ok() {
            self.values.0.insert(key, Known { val: val.clone(), counted, held, uses: shared.uses - 1 });
        }
        self.notes.merge(remarks);
        Ok(val)
    }

    /// Whether so much may be kept for a second use.
    pub(super) fn may_keep(&self, held: Reservation) -> bool {
        held.bytes <= self.options.max_memory_bytes / PART && held.samples <= self.options.max_samples / PART
    }
}
