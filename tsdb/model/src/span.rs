//! Aligned spans of time, left-open: the one convention by which flushes cut, compaction merges and
//! downsampling makes windows.
//!
//! A span of length `l` is `(k*l, (k+1)*l]` for some integer `k`, counted from the Unix epoch: a sample
//! exactly at a boundary belongs to the span that *ends* there. That is PromQL's own rule for ranges, so the
//! windows of 5 minutes and 1 hour that a span holds are exactly the windows labelled (by their ends) with a
//! timestamp in the span, and `increase(x[1h])` at a full hour needs one window and no neighbour.
//!
//! Block metadata speaks of first and last timestamps, both included: a raw block of the span `(a, b]` has
//! `a < min_t_ms` and `max_t_ms <= b`. A downsampled block of it has the timestamps of its windows' last
//! samples in the same bounds, and its windows' labels too.
//!
//! Compaction's outputs never cross a boundary of their level's length. Other blocks (imports, flushes of
//! older versions) may.

/// A left-open span `(start_ms, end_ms]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// Excluded.
    pub start_ms: i64,
    /// Included.
    pub end_ms: i64,
}

impl Span {
    /// The aligned span of a length (milliseconds, positive) that a timestamp belongs to.
    pub fn containing(t_ms: i64, length_ms: i64) -> Span {
        debug_assert!(length_ms > 0);
        let end_ms = span_end(t_ms, length_ms);
        Span { start_ms: end_ms.saturating_sub(length_ms), end_ms }
    }

    /// The first and the last timestamp inside, both included, as block metadata and selections have them.
    pub fn bounds(&self) -> (i64, i64) {
        (self.start_ms.saturating_add(1), self.end_ms)
    }

    pub fn holds(&self, t_ms: i64) -> bool {
        self.start_ms < t_ms && t_ms <= self.end_ms
    }

    /// Whether a range (ends included) lies wholly inside.
    pub fn holds_all(&self, min_t_ms: i64, max_t_ms: i64) -> bool {
        self.holds(min_t_ms) && self.holds(max_t_ms)
    }

    /// Whether a range (ends included) has any timestamp in common with it.
    pub fn meets(&self, min_t_ms: i64, max_t_ms: i64) -> bool {
        min_t_ms <= max_t_ms && min_t_ms <= self.end_ms && max_t_ms > self.start_ms
    }

    /// The aligned span after this one, of the same length.
    pub fn next(&self) -> Span {
        let length = self.end_ms.saturating_sub(self.start_ms);
        Span { start_ms: self.end_ms, end_ms: self.end_ms.saturating_add(length) }
    }
}

/// The end (included) of the aligned span that a timestamp belongs to; of a downsampling window this is its
/// label.
pub fn span_end(t_ms: i64, length_ms: i64) -> i64 {
    // One below, so that a timestamp on a boundary stays with what ends there.
    t_ms.saturating_sub(1).div_euclid(length_ms).saturating_add(1).saturating_mul(length_ms)
}

/// Whether a range (ends included) lies in one aligned span of a length.
pub fn in_one_span(min_t_ms: i64, max_t_ms: i64, length_ms: i64) -> bool {
    span_end(min_t_ms, length_ms) == span_end(max_t_ms, length_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn boundary_belongs_to_the_span_that_ends_there() {
        assert_eq!(Span::containing(0, 10), Span { start_ms: -10, end_ms: 0 });
        assert_eq!(Span::containing(1, 10), Span { start_ms: 0, end_ms: 10 });
        assert_eq!(Span::containing(10, 10), Span { start_ms: 0, end_ms: 10 });
        assert_eq!(Span::containing(10, 10).bounds(), (1, 10));
        assert!(in_one_span(1, 10, 10) && !in_one_span(10, 11, 10));
        let s = Span::containing(5, 10);
        assert!(!s.meets(-5, 0) && s.meets(-5, 1) && s.meets(10, 12) && !s.meets(11, 12));
        assert_eq!(Span::containing(i64::MAX, 10).end_ms, i64::MAX, "no overflow");
    }

    proptest! {
        #[test]
        fn span_of_every_timestamp_is_one_and_windows_nest(
            t in -1_000_000i64..1_000_000, length in 1i64..1000, factor in 1i64..20,
        ) {
            let s = Span::containing(t, length);
            prop_assert!(s.holds(t) && !s.next().holds(t) && s.end_ms.rem_euclid(length) == 0);
            prop_assert_eq!(Span::containing(s.next().bounds().0, length), s.next());
            let outer = Span::containing(t, length * factor);
            prop_assert!(outer.start_ms <= s.start_ms && s.end_ms <= outer.end_ms);
        }
    }
}
