//! Thanos' penalty rule, sample by sample as its querier applies it (semantics of `pkg/dedup/iter.go`), known
//! faults included.
//!
//! Two replicas at a time, the result with the third, and so on. Of both next samples the earlier one is
//! taken, and the replica that lost may next speak only after twice the last step (5 s where there was none
//! yet). Under a counter function, whatever lies below the last value when replicas change is lifted to it,
//! and so is all that follows in that replica.

use super::{Picks, SeriesColumns, within};
use crate::labels::Labels;

/// Held against the loser where no step is known yet.
const FIRST_PENALTY_MS: i64 = 5_000;

pub fn merge(
    labels: Labels,
    copies: Vec<SeriesColumns>,
    keep: (i64, i64),
    counter: bool,
) -> Option<SeriesColumns> {
    let mut walks = copies.iter().enumerate().map(|(copy, series)| {
        let range = within(&series.ts_ms, keep);
        Walk::One(One { copy, series, next: range.start, end: range.end, lift: 0.0, begun: false })
    });
    let first = walks.next()?;
    let mut walk = walks.fold(first, |a, b| Walk::Two(Box::new(Two::new(a, b))));
    let mut picks = Picks::default();
    let mut lifted: Vec<(usize, f64)> = Vec::new();
    while walk.next() {
        let (copy, i, lift) = walk.at();
        if counter && lift != 0.0 {
            lifted.push((picks.len, lift));
        }
        picks.push(copy, i..i + 1);
    }
    let mut merged = picks.gather(labels, &copies)?;
    for (i, lift) in lifted {
        merged.values[i] += lift;
    }
    Some(merged)
}

enum Walk<'a> {
    One(One<'a>),
    Two(Box<Two<'a>>),
}

/// A replica and where in it we are.
struct One<'a> {
    copy: usize,
    series: &'a SeriesColumns,
    next: usize,
    end: usize,
    lift: f64,
    begun: bool,
}

/// Two walks as one.
struct Two<'a> {
    a: Walk<'a>,
    b: Walk<'a>,
    a_there: bool,
    b_there: bool,
    a_penalty_ms: i64,
    b_penalty_ms: i64,
    last_t_ms: Option<i64>,
    use_a: bool,
    /// Which of both the last sample came from: unlike `use_a` it stays when all is over.
    last_is_a: bool,
}

impl Walk<'_> {
    /// To the next sample; whether there is one.
    fn next(&mut self) -> bool {
        match self {
            Walk::One(one) => {
                one.next += usize::from(std::mem::replace(&mut one.begun, true));
                one.there()
            }
            Walk::Two(two) => two.next(),
        }
    }

    /// To the first sample from `t` on, possibly the present one.
    fn seek(&mut self, t_ms: i64) -> bool {
        match self {
            Walk::One(one) => {
                one.begun = true;
                while one.there() && one.series.ts_ms[one.next] < t_ms {
                    one.next += 1;
                }
                one.there()
            }
            Walk::Two(two) => {
                while two.t_ms() < t_ms {
                    if !two.next() {
                        return false;
                    }
                }
                true
            }
        }
    }

    fn t_ms(&self) -> i64 {
        match self {
            Walk::One(one) if one.there() => one.series.ts_ms[one.next],
            Walk::One(_) => i64::MAX,
            Walk::Two(two) => two.t_ms(),
        }
    }

    /// Copy, index and lift of the present sample.
    fn at(&self) -> (usize, usize, f64) {
        match self {
            Walk::One(one) => (one.copy, one.next, one.lift),
            Walk::Two(two) if two.last_is_a => two.a.at(),
            Walk::Two(two) => two.b.at(),
        }
    }

    /// The present value where it is a float.
    fn float(&self) -> Option<f64> {
        match self {
            Walk::One(one) => {
                let histogram = one.series.histograms.as_ref().is_some_and(|h| h[one.next].is_some());
                (!histogram).then(|| one.series.values[one.next] + one.lift)
            }
            Walk::Two(two) if two.last_is_a => two.a.float(),
            Walk::Two(two) => two.b.float(),
        }
    }

    /// A counter cannot have fallen: lifts what lies below `last`.
    fn lift_to(&mut self, last: f64) {
        match self {
            Walk::One(one) if one.there() => {
                let now = one.series.values[one.next] + one.lift;
                if last > now {
                    one.lift += last - now;
                }
            }
            Walk::One(_) => {}
            Walk::Two(two) => two.lift_to(last),
        }
    }
}

impl One<'_> {
    fn there(&self) -> bool {
        self.next < self.end
    }
}

impl<'a> Two<'a> {
    fn new(mut a: Walk<'a>, mut b: Walk<'a>) -> Self {
        let (a_there, b_there) = (a.next(), b.next());
        Two {
            a,
            b,
            a_there,
            b_there,
            a_penalty_ms: 0,
            b_penalty_ms: 0,
            last_t_ms: None,
            use_a: true,
            last_is_a: true,
        }
    }

    fn t_ms(&self) -> i64 {
        match (self.last_t_ms, self.use_a) {
            (None, _) => i64::MIN,
            (_, true) => self.a.t_ms(),
            (_, false) => self.b.t_ms(),
        }
    }

    fn lift_to(&mut self, last: f64) {
        if self.a_there && self.a.float().is_some() {
            self.a.lift_to(last);
        }
        if self.b_there && self.b.float().is_some() {
            self.b.lift_to(last);
        }
    }

    fn next(&mut self) -> bool {
        let last_float = match (self.last_t_ms, self.last_is_a) {
            (None, _) => None,
            (_, true) => self.a.float(),
            (_, false) => self.b.float(),
        };
        let used_a = self.use_a;
        let there = self.choose();
        if self.use_a != used_a
            && let Some(last) = last_float
        {
            self.lift_to(last);
        }
        there
    }

    fn choose(&mut self) -> bool {
        let from = |penalty: i64| self.last_t_ms.map_or(i64::MIN, |t| (t + 1).saturating_add(penalty));
        let (a_from, b_from) = (from(self.a_penalty_ms), from(self.b_penalty_ms));
        self.a_there = self.a_there && self.a.seek(a_from);
        self.b_there = self.b_there && self.b.seek(b_from);
        if !self.a_there && !self.b_there {
            self.use_a = false;
            return false;
        }
        let (a_t, b_t) = (self.a.t_ms(), self.b.t_ms());
        self.use_a = self.a_there && (!self.b_there || a_t <= b_t);
        self.last_is_a = self.use_a;
        let t = if self.use_a { a_t } else { b_t };
        if self.a_there && self.b_there {
            let penalty =
                self.last_t_ms.map_or(FIRST_PENALTY_MS, |last| t.saturating_sub(last).saturating_mul(2));
            (self.a_penalty_ms, self.b_penalty_ms) = if self.use_a { (0, penalty) } else { (penalty, 0) };
        } else if self.use_a {
            self.a_penalty_ms = 0;
        } else {
            self.b_penalty_ms = 0;
        }
        self.last_t_ms = Some(t);
        true
    }
}
