//! Adding, subtracting and scaling, across schemas, zero buckets and custom bounds that differ.

use std::iter::Peekable;
use std::sync::Arc;

use super::bounds::{coarser_index, exponential_bound};
use super::buckets::Indexed;
use super::layout::{IncompatibleSchemas, Side};
use super::{BucketSpan, CounterResetHint, Histogram};

/// What happened while two histograms were combined that the reader of a query's result should hear of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Combined {
    /// One said "reset", the other "not reset"; the result's hint is unknown.
    pub counter_reset_collision: bool,
    /// Their custom bounds differed; the result has the bounds both share.
    pub bounds_reconciled: bool,
}

impl std::ops::BitOrAssign for Combined {
    fn bitor_assign(&mut self, other: Combined) {
        self.counter_reset_collision |= other.counter_reset_collision;
        self.bounds_reconciled |= other.bounds_reconciled;
    }
}

/// One step of Neumaier's compensated summation: the new sum and the new compensation, to be added to the sum
/// at the very end.
#[inline]
pub fn compensated_add(inc: f64, sum: f64, compensation: f64) -> (f64, f64) {
    let t = sum + inc;
    let compensation = if t.is_infinite() {
        0.0
    } else if sum.abs() >= inc.abs() {
        compensation + ((sum - t) + inc)
    } else {
        compensation + ((inc - t) + sum)
    };
    (t, compensation)
}

/// A bucket with its compensation.
type Term = (i32, f64, f64);

/// Which sum is wanted: with compensation, or plain.
#[derive(Clone, Copy, PartialEq)]
enum Sums {
    Plain,
    Compensated,
}

impl Sums {
    #[inline]
    fn add(self, inc: f64, sum: f64, compensation: f64) -> (f64, f64) {
        match self {
            Sums::Plain => (sum + inc, compensation),
            Sums::Compensated => compensated_add(inc, sum, compensation),
        }
    }
}

/// Merges two runs of terms by index, then terms of one index, in order of arrival.
struct Merged<A: Iterator<Item = Term>, B: Iterator<Item = Term>> {
    a: Peekable<A>,
    b: Peekable<B>,
}

impl<A: Iterator<Item = Term>, B: Iterator<Item = Term>> Iterator for Merged<A, B> {
    type Item = Term;
    fn next(&mut self) -> Option<Term> {
        match (self.a.peek(), self.b.peek()) {
            (Some(a), Some(b)) if b.0 < a.0 => self.b.next(),
            (None, _) => self.b.next(),
            _ => self.a.next(),
        }
    }
}

/// Terms of one side. `compensations` may be shorter than the counts: the rest is 0.
fn terms<'a>(
    spans: &'a [BucketSpan],
    counts: &'a [f64],
    compensations: &'a [f64],
    coarser_by: u32,
) -> impl Iterator<Item = Term> + 'a {
    let compensations = compensations.iter().copied().chain(std::iter::repeat(0.0));
    Indexed::new(spans, counts).zip(compensations).map(move |((index, count), c)| {
        (if coarser_by == 0 { index } else { coarser_index(index, coarser_by) }, count, c)
    })
}

/// Sums ascending terms, those of one index into one bucket. Returns the side and its compensations.
fn summed(terms: impl Iterator<Item = Term>, sums: Sums, capacity: usize) -> (Side, Vec<f64>) {
    let mut side = Side::with_capacity(capacity);
    let mut compensations: Vec<f64> = Vec::new();
    let mut last = None;
    for (index, count, c) in terms {
        if last == Some(index) {
            let i = side.counts.len() - 1;
            let old_c = compensations.get(i).copied().unwrap_or(0.0);
            let (mut sum, mut comp) = sums.add(count, side.counts[i], old_c);
            if c != 0.0 {
                (sum, comp) = sums.add(c, sum, comp);
            }
            side.counts[i] = sum;
            if sums == Sums::Compensated {
                compensations[i] = comp;
            }
        } else {
            side.push(index, count);
            if sums == Sums::Compensated {
                compensations.push(c);
            }
            last = Some(index);
        }
    }
    (side, compensations)
}

/// Bounds that both lists have.
pub fn shared_bounds(a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut shared = Vec::new();
    let mut rest = b.iter().peekable();
    for bound in a {
        while rest.next_if(|r| **r < *bound).is_some() {}
        if rest.peek() == Some(&bound) {
            shared.push(*bound);
        }
    }
    shared
}

/// Moves custom buckets into those of `shared`, which are all among `bounds`: each goes to the first that
/// ends no earlier.
pub fn onto_shared<'a>(
    buckets: impl Iterator<Item = Term> + 'a,
    bounds: &'a [f64],
    shared: &'a [f64],
) -> impl Iterator<Item = Term> + 'a {
    let mut at = 0;
    buckets.map(move |(index, count, c)| {
        match usize::try_from(index).ok().and_then(|i| bounds.get(i)) {
            Some(bound) => {
                while at < shared.len() && shared[at] < *bound {
                    at += 1
                }
            }
            None => at = shared.len(),
        }
        (at as i32, count, c)
    })
}

impl Histogram {
    /// Adds `other`: counts, sum and buckets. The result takes the coarser schema, the wider zero bucket
    /// (widened on until it ends in no populated bucket of either) or the shared custom bounds. It may hold
    /// empty buckets: see [`Histogram::compact`].
    pub fn add(&mut self, other: &Histogram) -> Result<Combined, IncompatibleSchemas> {
        self.combine(other, false, None)
    }

    /// Subtracts `other`, like [`Histogram::add`]. The `-` operator then makes the result a gauge.
    pub fn sub(&mut self, other: &Histogram) -> Result<Combined, IncompatibleSchemas> {
        self.combine(other, true, None)
    }

    /// [`Histogram::add`] with Neumaier's compensation kept for every number in `compensation` (start with
    /// `None`), which has this histogram's layout at all times. When all is added, add the compensation
    /// itself.
    pub fn kahan_add(
        &mut self,
        other: &Histogram,
        compensation: &mut Option<Histogram>,
    ) -> Result<Combined, IncompatibleSchemas> {
        if self.uses_custom_buckets() != other.uses_custom_buckets() {
            return Err(IncompatibleSchemas);
        }
        let compensation = compensation.get_or_insert_with(|| self.empty_compensation());
        self.combine(other, false, Some(compensation))
    }

    /// Multiplies every count and the sum. A negative factor makes it a gauge.
    pub fn mul(&mut self, factor: f64) -> &mut Self {
        self.scale(|v| v * factor);
        if factor < 0.0 {
            self.counter_reset_hint = CounterResetHint::Gauge;
        }
        self
    }

    /// Divides every count and the sum. Division by 0 leaves no buckets, a negative divisor makes it a gauge.
    pub fn div(&mut self, divisor: f64) -> &mut Self {
        self.scale(|v| v / divisor);
        if divisor == 0.0 {
            self.positive_spans.clear();
            self.positive_buckets.clear();
            self.negative_spans.clear();
            self.negative_buckets.clear();
        } else if divisor < 0.0 {
            self.counter_reset_hint = CounterResetHint::Gauge;
        }
        self
    }

    fn scale(&mut self, f: impl Fn(f64) -> f64) {
        let numbers = [&mut self.zero_count, &mut self.count, &mut self.sum];
        for v in numbers.into_iter().chain(&mut self.positive_buckets).chain(&mut self.negative_buckets) {
            *v = f(*v);
        }
    }

    fn empty_compensation(&self) -> Histogram {
        Histogram {
            zero_count: 0.0,
            count: 0.0,
            sum: 0.0,
            positive_buckets: vec![0.0; self.positive_buckets.len()],
            negative_buckets: vec![0.0; self.negative_buckets.len()],
            ..self.clone()
        }
    }

    fn combine(
        &mut self,
        other: &Histogram,
        negative: bool,
        mut compensation: Option<&mut Histogram>,
    ) -> Result<Combined, IncompatibleSchemas> {
        if self.uses_custom_buckets() != other.uses_custom_buckets() {
            return Err(IncompatibleSchemas);
        }
        let sums = if compensation.is_some() { Sums::Compensated } else { Sums::Plain };
        let sign = if negative { -1.0 } else { 1.0 };
        let mut combined = Combined {
            counter_reset_collision: self.adopt_hint(other.counter_reset_hint),
            bounds_reconciled: false,
        };

        self.add_numbers(other, sign, sums, compensation.as_deref_mut());
        if self.uses_custom_buckets() && self.custom_bounds() != other.custom_bounds() {
            combined.bounds_reconciled = true;
            self.add_with_other_bounds(other, sign, compensation);
            return Ok(combined);
        }
        let schema = self.schema.min(other.schema);
        let adding = Adding {
            sign,
            sums,
            own_by: self.schema.abs_diff(schema),
            other_by: other.schema.abs_diff(schema),
            // Custom buckets have no zero bucket.
            swallowed: (!self.uses_custom_buckets()).then_some((schema, self.zero_threshold)),
        };
        let old_c = compensation.as_deref().map_or(&[][..], |c| &c.positive_buckets);
        let added = adding.side(
            (&mut self.positive_spans, &mut self.positive_buckets),
            (&other.positive_spans, &other.positive_buckets),
            old_c,
        );
        if let Some(c) = compensation.as_deref_mut() {
            c.positive_spans.clone_from(&self.positive_spans);
            c.positive_buckets = added;
        }
        let old_c = compensation.as_deref().map_or(&[][..], |c| &c.negative_buckets);
        let added = adding.side(
            (&mut self.negative_spans, &mut self.negative_buckets),
            (&other.negative_spans, &other.negative_buckets),
            old_c,
        );
        if let Some(c) = compensation.as_deref_mut() {
            c.negative_spans.clone_from(&self.negative_spans);
            c.negative_buckets = added;
        }
        self.schema = schema;
        if let Some(c) = compensation {
            c.schema = schema;
            c.zero_threshold = self.zero_threshold;
        }
        Ok(combined)
    }

    /// The zero bucket, the count and the sum of both together.
    fn add_numbers(
        &mut self,
        other: &Histogram,
        sign: f64,
        sums: Sums,
        mut compensation: Option<&mut Histogram>,
    ) {
        if !self.uses_custom_buckets() {
            let (zero_count, zero_c) = self.reconcile_zero_buckets(other, compensation.as_deref_mut());
            let old_c = compensation.as_deref().map_or(0.0, |c| c.zero_count);
            let (mut sum, mut comp) = sums.add(sign * zero_count, self.zero_count, old_c);
            if sums == Sums::Compensated {
                (sum, comp) = sums.add(sign * zero_c, sum, comp);
            }
            self.zero_count = sum;
            if let Some(c) = compensation.as_deref_mut() {
                c.zero_count = comp;
            }
        }
        let (kept_count, kept_sum) = compensation.as_deref().map_or((0.0, 0.0), |c| (c.count, c.sum));
        let (count, count_c) = sums.add(sign * other.count, self.count, kept_count);
        let (sum, sum_c) = sums.add(sign * other.sum, self.sum, kept_sum);
        (self.count, self.sum) = (count, sum);
        if let Some(c) = compensation {
            (c.count, c.sum) = (count_c, sum_c);
        }
    }

    /// Both onto the bounds they share; buckets that come out empty are left out.
    fn add_with_other_bounds(&mut self, other: &Histogram, sign: f64, compensation: Option<&mut Histogram>) {
        let shared = shared_bounds(self.custom_bounds(), other.custom_bounds());
        let old_c: &[f64] = compensation.as_deref().map_or(&[], |c| &c.positive_buckets);
        let ours = onto_shared(
            terms(&self.positive_spans, &self.positive_buckets, old_c, 0),
            self.custom_bounds(),
            &shared,
        );
        let theirs = onto_shared(
            terms(&other.positive_spans, &other.positive_buckets, &[], 0),
            other.custom_bounds(),
            &shared,
        )
        .map(|(i, count, c)| (i, sign * count, c));
        let merged = Merged { a: ours.peekable(), b: theirs.peekable() };
        let (all, all_c) = summed(merged, Sums::Compensated, shared.len() + 1);
        let mut side = Side::with_capacity(all.counts.len());
        let mut compensations = Vec::with_capacity(all.counts.len());
        for (index, count, c) in terms(&all.spans, &all.counts, &all_c, 0) {
            if count != 0.0 || c != 0.0 {
                side.push(index, count);
                compensations.push(c);
            }
        }
        let shared: Option<Arc<[f64]>> = (!shared.is_empty()).then(|| shared.into());
        if let Some(c) = compensation {
            c.custom_values.clone_from(&shared);
            c.positive_spans.clone_from(&side.spans);
            c.positive_buckets = compensations;
        }
        self.custom_values = shared;
        (self.positive_spans, self.positive_buckets) = (side.spans, side.counts);
    }

    /// The hint of a combination; true where "reset" meets "not reset".
    fn adopt_hint(&mut self, other: CounterResetHint) -> bool {
        use CounterResetHint::{Gauge, Unknown};
        match (self.counter_reset_hint, other) {
            (a, b) if a == b => false,
            (Gauge, _) | (_, Gauge) => {
                self.counter_reset_hint = Gauge;
                false
            }
            (Unknown, _) | (_, Unknown) => {
                self.counter_reset_hint = Unknown;
                false
            }
            _ => {
                self.counter_reset_hint = Unknown;
                true
            }
        }
    }

    /// What the zero bucket would count if it were at least as wide as `threshold`:
    /// `(count, threshold, compensation)`. Where the threshold falls inside a populated bucket it moves to
    /// that bucket's far end, and the bucket's count is included.
    pub fn zero_count_for(&self, threshold: f64, compensation: Option<&Histogram>) -> (f64, f64, f64) {
        let old_c = compensation.map_or(0.0, |c| c.zero_count);
        if threshold <= self.zero_threshold {
            return (self.zero_count, self.zero_threshold, old_c);
        }
        let mut threshold = threshold;
        'widened: loop {
            let (mut count, mut c) = (self.zero_count, old_c);
            let mut take = |b: f64, b_c: f64| {
                (count, c) = compensated_add(b, count, c);
                (count, c) = compensated_add(b_c, count, c);
            };
            let compensations: &[f64] = compensation.map_or(&[], |c| &c.positive_buckets);
            for (i, b) in self.positive().enumerate() {
                if b.lower >= threshold {
                    break;
                }
                take(b.count, compensations.get(i).copied().unwrap_or(0.0));
                if b.upper > threshold {
                    if b.count != 0.0 {
                        threshold = b.upper;
                    }
                    break;
                }
            }
            let compensations: &[f64] = compensation.map_or(&[], |c| &c.negative_buckets);
            for (i, b) in self.negative().enumerate() {
                if b.upper <= -threshold {
                    break;
                }
                take(b.count, compensations.get(i).copied().unwrap_or(0.0));
                if b.lower < -threshold {
                    if b.count != 0.0 {
                        // What was taken on the positive side no longer holds.
                        threshold = -b.lower;
                        continue 'widened;
                    }
                    break;
                }
            }
            return (count, threshold, c);
        }
    }

    /// Widens this zero bucket until it holds both and cuts no populated bucket of either. Returns what the
    /// other's zero bucket then counts.
    fn reconcile_zero_buckets(
        &mut self,
        other: &Histogram,
        mut compensation: Option<&mut Histogram>,
    ) -> (f64, f64) {
        let mut other_count = other.zero_count;
        let mut other_c = 0.0;
        let mut other_threshold = other.zero_threshold;
        // Each turn ends at a further bucket's bound. A NaN threshold is equal to nothing and larger than
        // nothing: it ends the loop too.
        while other_threshold.partial_cmp(&self.zero_threshold).is_some_and(|o| o.is_ne()) {
            if self.zero_threshold > other_threshold {
                (other_count, other_threshold, other_c) = other.zero_count_for(self.zero_threshold, None);
            }
            if other_threshold > self.zero_threshold {
                let (count, threshold, c) = self.zero_count_for(other_threshold, compensation.as_deref());
                (self.zero_count, self.zero_threshold) = (count, threshold);
                if let Some(compensation) = compensation.as_deref_mut() {
                    compensation.zero_count = c;
                }
                self.drop_swallowed(compensation.as_deref_mut());
            }
        }
        (other_count, other_c)
    }

    /// Removes the buckets inside the zero bucket, whose counts it has already, and empty ones with them.
    fn drop_swallowed(&mut self, mut compensation: Option<&mut Histogram>) {
        let threshold = self.zero_threshold;
        for positive in [true, false] {
            let old_c: Vec<f64> = match compensation.as_deref() {
                Some(c) if positive => c.positive_buckets.clone(),
                Some(c) => c.negative_buckets.clone(),
                None => Vec::new(),
            };
            let buckets = if positive { self.positive() } else { self.negative() };
            let outside =
                |lower: f64, upper: f64| if positive { lower >= threshold } else { upper <= -threshold };
            let mut side = Side::default();
            let mut compensations = Vec::new();
            for (i, b) in buckets.enumerate() {
                let c = old_c.get(i).copied().unwrap_or(0.0);
                if outside(b.lower, b.upper) && (b.count != 0.0 || c != 0.0) {
                    side.push(b.index, b.count);
                    compensations.push(c);
                }
            }
            if let Some(c) = compensation.as_deref_mut() {
                let (spans, counts) = if positive {
                    (&mut c.positive_spans, &mut c.positive_buckets)
                } else {
                    (&mut c.negative_spans, &mut c.negative_buckets)
                };
                spans.clone_from(&side.spans);
                *counts = compensations;
            }
            if positive {
                (self.positive_spans, self.positive_buckets) = (side.spans, side.counts);
            } else {
                (self.negative_spans, self.negative_buckets) = (side.spans, side.counts);
            }
        }
    }
}

/// How the buckets of one histogram are added to another's.
struct Adding {
    sign: f64,
    sums: Sums,
    /// How many schemas finer each is than the result.
    own_by: u32,
    other_by: u32,
    /// The result's schema and the threshold of its zero bucket: what of the other lies below it is in the
    /// zero bucket's count already.
    swallowed: Option<(i32, f64)>,
}

impl Adding {
    /// Adds the buckets of one sign, given as spans and counts. `old_c` are the compensations so far, one per
    /// bucket or none; those of the result come back.
    fn side(
        &self,
        (spans, counts): (&mut Vec<BucketSpan>, &mut Vec<f64>),
        (other_spans, other_counts): (&Vec<BucketSpan>, &Vec<f64>),
        old_c: &[f64],
    ) -> Vec<f64> {
        let (sign, sums) = (self.sign, self.sums);
        let swallowed = |index: i32| {
            self.swallowed.is_some_and(|(schema, threshold)| exponential_bound(index, schema) <= threshold)
        };
        let first = other_spans.iter().find(|s| s.length > 0).map(|s| s.offset);
        let same_layout = self.own_by == 0
            && self.other_by == 0
            && spans == other_spans
            && counts.len() == other_counts.len()
            && first.is_none_or(|i| !swallowed(i));
        if same_layout {
            let mut compensations = old_c.to_vec();
            for (i, inc) in other_counts.iter().enumerate() {
                let (sum, comp) = sums.add(sign * inc, counts[i], old_c.get(i).copied().unwrap_or(0.0));
                counts[i] = sum;
                if let Some(c) = compensations.get_mut(i) {
                    *c = comp;
                }
            }
            return compensations;
        }
        let capacity = counts.len() + other_counts.len();
        let ours = terms(spans, counts, old_c, self.own_by);
        let (theirs, theirs_c) =
            summed(terms(other_spans, other_counts, &[], self.other_by), sums, other_counts.len());
        let theirs = terms(&theirs.spans, &theirs.counts, &theirs_c, 0).skip_while(|(i, ..)| swallowed(*i));
        let theirs = theirs.map(|(i, count, c)| (i, sign * count, sign * c));
        // Ours are merged into their coarser buckets first, as one histogram, and then theirs are added.
        let (ours, ours_c) = summed(ours, sums, counts.len());
        let ours = terms(&ours.spans, &ours.counts, &ours_c, 0);
        let merged = Merged { a: ours.peekable(), b: theirs.peekable() };
        let (side, compensations) = summed(merged, sums, capacity);
        (*spans, *counts) = (side.spans, side.counts);
        compensations
    }
}
