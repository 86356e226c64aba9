//! Whether a counter started anew between two histograms of a series.

use std::sync::Arc;

use super::arithmetic::{onto_shared, shared_bounds};
use super::bounds::{coarser_index, exponential_bound};
use super::buckets::Indexed;
use super::{CounterResetHint, Histogram};

/// Counts by index, those of one index summed, ascending.
fn rolled_up(terms: impl Iterator<Item = (i32, f64)>) -> Vec<(i32, f64)> {
    let mut out: Vec<(i32, f64)> = Vec::new();
    for (index, count) in terms {
        match out.last_mut() {
            Some(last) if last.0 == index => last.1 += count,
            _ => out.push((index, count)),
        }
    }
    out
}

/// Whether any bucket holds less than it did; a bucket that is gone holds nothing.
fn any_fell(current: &[(i32, f64)], previous: &[(i32, f64)]) -> bool {
    let mut rest = current.iter().peekable();
    previous.iter().any(|(index, before)| {
        while rest.next_if(|c| c.0 < *index).is_some() {}
        match rest.peek() {
            Some((i, now)) if i == index => now < before,
            _ => *before != 0.0,
        }
    })
}

impl Histogram {
    /// Whether the counter was reset between `previous` and this.
    ///
    /// A hint that it was reset decides. Otherwise any count that fell (not the sum), a finer schema or a
    /// smaller zero threshold says so; a coarser schema or a wider zero bucket alone does not, and `previous`
    /// is compared as if it had them.
    ///
    /// A hint that it was *not* reset is not believed: it was said beside another sample than `previous`, if
    /// a late one came between them, one was deleted, or blocks, seals and replicas were put together since.
    /// (Upstream looks for itself when a sample is stored.)
    pub fn detect_reset(&self, previous: &Histogram) -> bool {
        match self.counter_reset_hint {
            CounterResetHint::CounterReset => return true,
            CounterResetHint::NotCounterReset | CounterResetHint::Unknown | CounterResetHint::Gauge => {}
        }
        if self.count < previous.count {
            return true;
        }
        if self.grew_alike(previous) {
            return false;
        }
        if self.uses_custom_buckets() {
            if !previous.uses_custom_buckets() {
                return true;
            }
            if self.custom_bounds() != previous.custom_bounds() {
                return self.fell_on_shared_bounds(previous);
            }
        }
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let (previous_zero_count, threshold, _) = previous.zero_count_for(self.zero_threshold, None);
        if threshold != self.zero_threshold || self.zero_count < previous_zero_count {
            return true;
        }
        let by = previous.schema.abs_diff(self.schema);
        let custom = self.uses_custom_buckets();
        let outside =
            |index: &(i32, f64)| custom || exponential_bound(index.0, self.schema) > self.zero_threshold;
        let side = |buckets: Indexed<'_>, by: u32| -> Vec<(i32, f64)> {
            let terms = buckets.map(|(i, count)| (if by == 0 { i } else { coarser_index(i, by) }, count));
            rolled_up(terms.skip_while(|t| !outside(t)))
        };
        any_fell(&side(self.indexed_positive(), 0), &side(previous.indexed_positive(), by))
            || any_fell(&side(self.indexed_negative(), 0), &side(previous.indexed_negative(), by))
    }

    /// Whether both have the same buckets and none of them fell: the usual case, told without a list of
    /// anything.
    fn grew_alike(&self, previous: &Histogram) -> bool {
        let grew = |now: &[f64], before: &[f64]| {
            now.len() == before.len() && now.iter().zip(before).all(|(n, b)| n >= b)
        };
        self.schema == previous.schema
            && self.zero_threshold == previous.zero_threshold
            && self.zero_count >= previous.zero_count
            && self.positive_spans == previous.positive_spans
            && self.negative_spans == previous.negative_spans
            && self.custom_values == previous.custom_values
            && grew(&self.positive_buckets, &previous.positive_buckets)
            && grew(&self.negative_buckets, &previous.negative_buckets)
    }

    /// Forgets what it says of the histogram before it, for where another stands before it now. A gauge stays
    /// one.
    pub fn beside_another(self: &Arc<Histogram>) -> Arc<Histogram> {
        match self.counter_reset_hint {
            CounterResetHint::Unknown | CounterResetHint::Gauge => self.clone(),
            CounterResetHint::CounterReset | CounterResetHint::NotCounterReset => {
                Arc::new(Histogram { counter_reset_hint: CounterResetHint::Unknown, ..(**self).clone() })
            }
        }
    }

    /// The hint that a reader of upstream's chunks gets for this histogram when `previous` was stored right
    /// before it (nothing but histograms in between): "not reset" where both fit into one chunk, "unknown"
    /// where this one had to start a chunk of its own.
    pub fn stored_hint(&self, previous: Option<&Histogram>) -> CounterResetHint {
        if self.counter_reset_hint == CounterResetHint::Gauge {
            return CounterResetHint::Gauge;
        }
        let Some(previous) = previous else { return CounterResetHint::Unknown };
        let fits = previous.counter_reset_hint != CounterResetHint::Gauge
            && self.counter_reset_hint != CounterResetHint::CounterReset
            && (self.is_stale()
                || !previous.is_stale()
                    && self.schema == previous.schema
                    && self.zero_threshold == previous.zero_threshold
                    && (!self.uses_custom_buckets() || self.custom_bounds() == previous.custom_bounds())
                    && !Histogram { counter_reset_hint: CounterResetHint::Unknown, ..self.clone() }
                        .detect_reset(previous));
        if fits { CounterResetHint::NotCounterReset } else { CounterResetHint::Unknown }
    }

    fn fell_on_shared_bounds(&self, previous: &Histogram) -> bool {
        let shared = shared_bounds(self.custom_bounds(), previous.custom_bounds());
        let mapped = |h: &Histogram| {
            let terms = h.indexed_positive().map(|(i, count)| (i, count, 0.0));
            rolled_up(onto_shared(terms, h.custom_bounds(), &shared).map(|(i, count, _)| (i, count)))
        };
        any_fell(&mapped(self), &mapped(previous))
    }
}
