//! Hearth's rule for replicas: chosen on an absolute grid of time, so that no answer depends on where a query
//! begins or ends.
//!
//! Time is cut into cells of 5 min. In each cell the replicas have an order: the finer scrape interval first,
//! those within half of one another alike, and among those as they were given. A replica's interval in a cell
//! is what lies between its samples there and in the two cells beside it.
//!
//! 1. A replica *covers* a time that lies between two of its samples at most one and a half intervals apart,
//!    or less than half an interval from one of them. A sample is taken unless a replica before its own in
//!    the order covers its time. So one replica speaks as long as it scrapes, and what it misses, be it one
//!    scrape or a day of them, comes from the next: as many samples as were missed, none nearer than half an
//!    interval to those around.
//! 2. Replicas see one counter at slightly different times, up to [`LAG_MS`] apart. Where one fills in for
//!    another, a sample that is *behind* what was said before it or *ahead* of what comes after it would make
//!    a reset that neither saw: it is left out. Which of two is the later moment is told by where the one
//!    value has its place in what the other replica shows around there, resets included. Series that fall
//!    often are gauges, and their samples are all as good as any.
//! 3. A staleness marker stands where no other replica has a living value.
//! 4. The order may be another in the next cell (an interval changed, a replica misses most scrapes). The
//!    last samples of the old first one then give way to the first of the new.
//! 5. After the last sample of a replica its next one is awaited for one and a half intervals before another
//!    is heard, unless others show that time went on. So the freshest samples of a query do not come and go.
//!
//! 6. At a wall, a multiple of 12 h, who spoke before it is not known, only what was said. A sample after it
//!    that is behind the last of that, or behind a fall shortly before, as its replica shows within the lag,
//!    is left out, unless the replica keeps the beat: where its first samples come whole intervals after that
//!    one, to a fiftieth, it spoke before.
//!
//! What is decided in a cell depends on that cell and two on either side, less what lies beyond a wall: there
//! a replica is taken to have been scraping already if it does within one and a half intervals. And it
//! depends on the result of the last two lags before the wall, where that is no longer ago. That is what
//! makes a compacted span final whatever follows it, and what is before it may be compacted already.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::{Picks, SeriesColumns, cut, within};
use crate::histogram::{CounterResetHint, Histogram};
use crate::labels::Labels;
use crate::sample::is_stale;
use crate::span::Span;

/// Length of a cell of the grid.
pub const CELL_MS: i64 = 300_000;
/// No decision looks across a multiple of this, but for rule 6; a multiple of [`CELL_MS`].
pub const WALL_MS: i64 = 12 * 3_600_000;
/// How far apart in time two replicas may show the same moment of a counter: phase of the scrape, clocks,
/// proxies.
pub const LAG_MS: i64 = 60_000;
/// From so many falls on, and with a fourth of all steps falling, a series is not taken for a counter.
const GAUGE_FALLS: usize = 3;

/// What has to be read for the range `keep` (first and last timestamp, both included): what is outside
/// changes nothing inside. That is between 10 and 15 minutes more on either side, and nothing beyond a
/// multiple of [`WALL_MS`]; up to 16 where it begins near one.
pub fn reach(keep: (i64, i64)) -> (i64, i64) {
    let begin = begin_ms(keep);
    let (first, last) = (Span::containing(begin, CELL_MS), Span::containing(keep.1, CELL_MS));
    let (left, right) = (Span::containing(begin, WALL_MS), Span::containing(keep.1, WALL_MS));
    let min = first.start_ms.saturating_sub(2 * CELL_MS).max(left.start_ms).saturating_add(1);
    let max = last.end_ms.saturating_add(2 * CELL_MS).min(right.end_ms);
    (min.min(keep.0), max.max(keep.1))
}

/// Where the result has to begin for a range: at what was said before a wall, where the range begins so near
/// to one that this matters.
fn begin_ms(keep: (i64, i64)) -> i64 {
    let wall_ms = Span::containing(keep.0.saturating_add(2 * LAG_MS), WALL_MS).start_ms;
    if keep.0 <= wall_ms.saturating_add(LAG_MS) { before_wall(wall_ms).0.min(keep.0) } else { keep.0 }
}

/// The range (ends included) before a wall of which the result may matter after it.
pub fn before_wall(wall_ms: i64) -> (i64, i64) {
    (wall_ms.saturating_sub(2 * LAG_MS).saturating_add(1), wall_ms)
}

/// `said`: what was said before the first wall of the range, where that is not among the copies.
pub fn merge(
    labels: Labels,
    mut copies: Vec<SeriesColumns>,
    said: Option<&SeriesColumns>,
    keep: (i64, i64),
) -> Option<SeriesColumns> {
    if first_covers_all(&copies, keep) && climbs_over_walls(&copies[0], said, keep) {
        let mut first = copies.swap_remove(0);
        first.labels = labels;
        return cut(first, keep);
    }
    by_cell(labels, &copies, said, keep)
}

/// Whether rule 6 has nothing to do where one replica of floats speaks alone: nothing falls from shortly
/// before a wall to right after it.
pub fn climbs_over_walls(only: &SeriesColumns, said: Option<&SeriesColumns>, keep: (i64, i64)) -> bool {
    let climbs = |values: &[f64]| !values.windows(2).any(|w| w[1] < w[0]);
    let over = |wall_ms: i64| {
        let near = |s: &SeriesColumns, range| s.values[within(&s.ts_ms, range)].to_vec();
        let mut around = near(only, before_wall(wall_ms));
        if around.is_empty() && wall_ms < keep.0 {
            around.extend(said.iter().flat_map(|s| near(s, before_wall(wall_ms))));
        }
        around.extend(near(only, (wall_ms.saturating_add(1), wall_ms.saturating_add(LAG_MS))));
        climbs(&around) && !around.iter().any(|v| is_stale(*v))
    };
    let kept = within(&only.ts_ms, keep);
    let (Some(from), Some(to)) = (only.ts_ms[kept.clone()].first(), only.ts_ms[kept].last()) else {
        return true;
    };
    let first = Span::containing(*from, WALL_MS).start_ms;
    (0..).map(|i: i64| first.saturating_add(i.saturating_mul(WALL_MS))).take_while(|w| w < to).all(over)
}

/// Whether a gap is one that a steady scrape has.
fn steady(gap_ms: i64, interval_ms: i64) -> bool {
    gap_ms.saturating_mul(2) <= interval_ms.saturating_mul(3)
}

/// The usual case, told without cells: the first replica scrapes steadily all the time and no other is finer,
/// so that rule 1 takes all of its samples and no others. `false` where that is not certain.
fn first_covers_all(copies: &[SeriesColumns], keep: (i64, i64)) -> bool {
    let plain = |c: &SeriesColumns| c.histograms.is_none() && !c.values.iter().any(|v| is_stale(*v));
    if !copies.iter().all(plain) {
        return false;
    }
    let reach = reach(keep);
    let seen = |c: &'_ SeriesColumns| {
        let range = within(&c.ts_ms, reach);
        let ts = &c.ts_ms[range];
        let gaps = ts.windows(2).map(|w| w[1] - w[0]);
        let (least, most) = gaps.fold((i64::MAX, 0), |(least, most), gap| (gap.min(least), gap.max(most)));
        Some((*ts.first()?, *ts.last()?, least, most))
    };
    let Some((first, last, least, most)) = seen(&copies[0]) else { return false };
    if most == 0 || most > CELL_MS || !steady(most, least) {
        return false;
    }
    let wall = |t: i64| Span::containing(t, WALL_MS);
    copies[1..].iter().all(|other| {
        let Some((from, to, finest, _)) = seen(other) else { return true };
        // Such that the order is this one in every cell, however the cells cut.
        let ordered = from > first - 3 * least && to < last + 3 * least && steady(most, finest);
        let kept = within(&other.ts_ms, keep);
        let (Some(kept_from), Some(kept_to)) = (other.ts_ms[kept.clone()].first(), other.ts_ms[kept].last())
        else {
            return ordered;
        };
        let begins = *kept_from >= first
            || wall(*kept_from) == wall(first)
                && (2 * (first - kept_from) < least || steady(first - wall(first).start_ms, least));
        let waits = steady(to - last, least);
        let ends = *kept_to <= last
            || wall(to) == wall(last)
                && (2 * (kept_to - last) < least || waits || steady(wall(last).end_ms - last, least));
        ordered && begins && ends
    })
}

/// A replica, its living samples apart from its staleness markers.
struct Replica<'a> {
    series: &'a SeriesColumns,
    ts_ms: Cow<'a, [i64]>,
    /// Where the living samples are in the columns; `None`: all are living.
    at: Option<Vec<u32>>,
    /// Timestamp and place of staleness markers.
    stale: Vec<(i64, usize)>,
}

impl<'a> Replica<'a> {
    fn new(series: &'a SeriesColumns) -> Replica<'a> {
        if !series.values.iter().any(|v| is_stale(*v)) {
            return Replica { series, ts_ms: Cow::Borrowed(&series.ts_ms), at: None, stale: Vec::new() };
        }
        let living = |i: &usize| !is_stale(series.values[*i]);
        let (at, gone): (Vec<usize>, Vec<usize>) = (0..series.values.len()).partition(living);
        Replica {
            series,
            ts_ms: at.iter().map(|i| series.ts_ms[*i]).collect(),
            at: Some(at.into_iter().map(|i| i as u32).collect()),
            stale: gone.into_iter().map(|i| (series.ts_ms[i], i)).collect(),
        }
    }

    /// The living samples of a left-open span.
    fn of(&self, span: Span) -> Range<usize> {
        within(&self.ts_ms, span.bounds())
    }

    fn place(&self, i: usize) -> usize {
        self.at.as_ref().map_or(i, |at| at[i] as usize)
    }

    fn value(&self, i: usize) -> f64 {
        self.series.values[self.place(i)]
    }

    fn histogram(&self, i: usize) -> Option<&Arc<Histogram>> {
        self.series.histograms.as_ref()?[self.place(i)].as_ref()
    }

    /// Whether the counter fell from the living sample before to this one, as this replica saw it.
    fn fell(&self, i: usize) -> bool {
        match (self.histogram(i - 1), self.histogram(i)) {
            (None, None) => self.value(i) < self.value(i - 1),
            (Some(a), Some(b)) => !is_gauge(a) && !is_gauge(b) && b.detect_reset(a),
            _ => false,
        }
    }
}

fn is_gauge(h: &Histogram) -> bool {
    h.counter_reset_hint == CounterResetHint::Gauge
}

/// Whether a counter would fall from one replica's sample to another's.
fn falls((a, i): (&Replica<'_>, usize), (b, j): (&Replica<'_>, usize)) -> bool {
    match (a.histogram(i), b.histogram(j)) {
        (None, None) => b.value(j) < a.value(i),
        (Some(before), Some(after)) if !is_gauge(before) && !is_gauge(after) => {
            let after = Histogram { counter_reset_hint: CounterResetHint::Unknown, ..(**after).clone() };
            after.detect_reset(before)
        }
        _ => false,
    }
}

/// The replicas' order and intervals in one cell.
struct Cell {
    span: Span,
    wall: Span,
    /// By replica.
    rank: Vec<usize>,
    interval_ms: Vec<i64>,
}

impl Cell {
    fn new(replicas: &[Replica<'_>], span: Span) -> Cell {
        let wall = Span::containing(span.end_ms, WALL_MS);
        let near = Span {
            start_ms: span.start_ms.saturating_sub(CELL_MS).max(wall.start_ms),
            end_ms: span.end_ms.saturating_add(CELL_MS).min(wall.end_ms),
        };
        let seen: Vec<(usize, Option<i64>)> = replicas
            .iter()
            .map(|replica| {
                let ts = &replica.ts_ms[replica.of(near)];
                (ts.len(), interval(ts))
            })
            .collect();
        let most = seen.iter().map(|(samples, _)| *samples).max().unwrap_or(0);
        // Two samples say little beside sixty: such a replica has no say in the order.
        let known = |(samples, _): &(usize, Option<i64>)| *samples > 0 && 4 * samples + 1 >= most;
        let least = seen.iter().filter(|s| known(s)).filter_map(|(_, interval)| *interval).min();
        // Where nobody has two samples near, they come that seldom.
        let least = least.unwrap_or(2 * CELL_MS);
        let intervals: Vec<Option<i64>> =
            seen.iter().map(|s| known(s).then_some(s.1.unwrap_or(least))).collect();
        Cell {
            span,
            wall,
            rank: ranks(&intervals),
            interval_ms: intervals.iter().map(|i| i.unwrap_or(least)).collect(),
        }
    }

    fn outranks(&self, replica: usize, other: usize) -> bool {
        self.rank[replica] < self.rank[other]
    }
}

/// What usually lies between timestamps, `None` for fewer than two: the least where that is nearly the most,
/// else the median, which a few missed scrapes do not move.
fn interval(ts_ms: &[i64]) -> Option<i64> {
    let mut gaps: Vec<i64> = ts_ms.windows(2).map(|w| w[1] - w[0]).collect();
    let least = *gaps.iter().min()?;
    let usual = if gaps.iter().all(|gap| steady(*gap, least)) {
        least
    } else {
        let middle = (gaps.len() - 1) / 2;
        *gaps.select_nth_unstable(middle).1
    };
    Some(usual.min(2 * CELL_MS))
}

/// The place of each replica: finest first, those within half of the finest that is left in their own order;
/// unknown ones last.
fn ranks(intervals: &[Option<i64>]) -> Vec<usize> {
    let mut rank = vec![usize::MAX; intervals.len()];
    let mut next = 0;
    loop {
        let left = |replica: &usize| rank[*replica] == usize::MAX;
        let replicas: Vec<usize> = (0..intervals.len()).filter(left).collect();
        let Some(least) = replicas.iter().filter_map(|l| intervals[*l]).min() else {
            for replica in replicas {
                rank[replica] = next;
                next += 1;
            }
            return rank;
        };
        for replica in replicas.into_iter().filter(|l| intervals[*l].is_some_and(|i| steady(i, least))) {
            rank[replica] = next;
            next += 1;
        }
    }
}

/// One cell with what may be looked at from it.
struct View<'a> {
    replicas: &'a [Replica<'a>],
    cell: &'a Cell,
    /// The cells beside it, unless a wall is between.
    before: Option<&'a Cell>,
    after: Option<&'a Cell>,
    horizon: Span,
    /// Of each replica, the living samples within the horizon.
    seen: Vec<Range<usize>>,
}

/// A sample or a marker of a cell.
#[derive(Clone, Copy)]
struct Candidate {
    t_ms: i64,
    replica: usize,
    /// Among the living samples; of a marker, its place in the columns.
    at: usize,
    stale: bool,
}

/// A replica's sample around a time, as seen from a sample of another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Near {
    /// It is in the result as far as the order goes.
    At(usize),
    /// It is in a cell in which the other replica goes first.
    Outranked(usize),
    None,
}

impl View<'_> {
    /// The living samples of `replica` around a time, the first at it or before, the second after, as seen
    /// from `other`.
    fn around(&self, replica: usize, other: usize, t_ms: i64) -> (Near, Near) {
        let seen = &self.seen[replica];
        let ts = &self.replicas[replica].ts_ms;
        let after = seen.start + ts[seen.clone()].partition_point(|t| *t <= t_ms);
        let near = |i: usize| {
            let mut beside = [self.before, self.after].into_iter().flatten();
            let there = beside.find(|c| c.span.holds(ts[i]));
            if there.is_some_and(|c| !c.outranks(replica, other)) { Near::Outranked(i) } else { Near::At(i) }
        };
        (
            if after > seen.start { near(after - 1) } else { Near::None },
            if after < seen.end { near(after) } else { Near::None },
        )
    }

    /// Rule 1 (and 5): whether `replica`, which goes before another, speaks for a time.
    fn covers(&self, replica: usize, around: (Near, Near), t_ms: i64) -> bool {
        let ts = &self.replicas[replica].ts_ms;
        let interval_ms = self.cell.interval_ms[replica];
        let close = |n: Near| matches!(n, Near::At(i) if 2 * (ts[i] - t_ms).abs() < interval_ms);
        if close(around.0) || close(around.1) {
            return true;
        }
        match around {
            (Near::At(u), Near::At(v)) => steady(ts[v] - ts[u], interval_ms),
            (Near::None, Near::At(v)) => {
                self.walled_left() && steady(ts[v] - self.cell.wall.start_ms, interval_ms)
            }
            (Near::At(u), Near::None) => {
                self.walled_right() && steady(self.cell.wall.end_ms - ts[u], interval_ms)
                    || steady(t_ms - ts[u], interval_ms) && !self.went_on(ts[u], interval_ms)
            }
            _ => false,
        }
    }

    /// Whether anything falls shortly before a wall or from there to right after it: if not, there is nothing
    /// for rule 6.
    fn falls_over_wall(&self, said: &Replica<'_>) -> bool {
        let last = said.ts_ms.len() - 1;
        last_fall(said).is_some()
            || self.replicas.iter().zip(&self.seen).any(|(replica, seen)| {
                let mut near = seen.clone().take_while(|i| replica.ts_ms[*i] <= said.ts_ms[last] + LAG_MS);
                near.any(|i| falls((said, last), (replica, i)))
            })
    }

    /// Rule 6: whether a living sample after a wall shows an earlier moment of a counter than what was said
    /// before it.
    fn is_behind_wall(&self, c: Candidate, said: &Replica<'_>, counter: &mut Option<bool>) -> bool {
        let (last, replica) = (said.ts_ms.len() - 1, &self.replicas[c.replica]);
        let lower = falls((said, last), (replica, c.at));
        // Where it is lower it climbs to where the other was already, where it is not it has a fall before it
        // that the other had: both within the lag.
        let since_ms = if lower { Some(said.ts_ms[last]) } else { last_fall(said).map(|k| said.ts_ms[k]) };
        let Some(until_ms) = since_ms.map(|t| t + LAG_MS).filter(|until| c.t_ms <= *until) else {
            return false;
        };
        if self.keeps_the_beat(c.replica, said.ts_ms[last])
            || !*counter.get_or_insert_with(|| self.looks_like_a_counter())
        {
            return false;
        }
        let end = self.seen[c.replica].end;
        let mut next = (c.at + 1..end).take_while(|j| replica.ts_ms[j - 1] <= until_ms);
        // Where it ends before nobody knows what would have come next.
        next.any(|j| replica.fell(j) || lower && !falls((said, last), (replica, j)))
            || lower && replica.ts_ms[end - 1] <= until_ms
    }

    /// Whether the first samples of a replica after a wall come whole intervals after one before it.
    fn keeps_the_beat(&self, replica: usize, last_ms: i64) -> bool {
        let interval_ms = self.cell.interval_ms[replica].max(1);
        let first = &self.replicas[replica].ts_ms[self.seen[replica].clone()];
        first.iter().take(3).all(|t| {
            let beats = (t - last_ms + interval_ms / 2) / interval_ms;
            beats > 0 && 50 * (t - last_ms - beats * interval_ms).abs() <= interval_ms
        })
    }

    fn walled_left(&self) -> bool {
        self.horizon.start_ms == self.cell.wall.start_ms
    }

    fn walled_right(&self) -> bool {
        self.horizon.end_ms == self.cell.wall.end_ms
    }

    /// Whether any replica has a sample so long after a time that another one was due by then.
    fn went_on(&self, since_ms: i64, interval_ms: i64) -> bool {
        self.replicas.iter().zip(&self.seen).any(|(replica, seen)| {
            replica.ts_ms[seen.clone()].last().is_some_and(|t| !steady(t - since_ms, interval_ms))
        })
    }

    /// Rules 1, 2 and 4 for a living sample.
    fn takes(&self, c: Candidate, counter: &mut Option<bool>) -> bool {
        let (r, t) = (c.replica, c.t_ms);
        let mut is_counter = || *counter.get_or_insert_with(|| self.looks_like_a_counter());
        for x in (0..self.replicas.len()).filter(|x| *x != r) {
            let replica = &self.replicas[x];
            if self.cell.outranks(x, r) {
                let around = self.around(x, r, t);
                if self.covers(x, around, t) {
                    return false;
                }
                if let Near::At(u) = around.0
                    && t - replica.ts_ms[u] <= LAG_MS
                    && is_counter()
                    && self.is_behind(r, c.at, x, u)
                {
                    return false;
                }
                // Where each goes before the other in the other one's cell, the earlier gives way.
                let seam = matches!(around.1, Near::Outranked(v) if 2 * (replica.ts_ms[v] - t) < self.cell.interval_ms[x]);
                if let Near::At(v) | Near::Outranked(v) = around.1
                    && (seam
                        || replica.ts_ms[v] - t <= LAG_MS && is_counter() && self.is_ahead(r, c.at, x, v))
                {
                    return false;
                }
            } else if let Some(next) = self.after.filter(|next| next.outranks(x, r)) {
                let v = replica.of(next.span).start;
                let Some(v_ms) = replica.ts_ms.get(v).filter(|t| next.span.holds(**t)) else { continue };
                if 2 * (v_ms - t) < next.interval_ms[x]
                    || v_ms - t <= LAG_MS && is_counter() && self.is_ahead(r, c.at, x, v)
                {
                    return false;
                }
            }
        }
        true
    }

    /// Rule 3 for a staleness marker.
    fn takes_marker(&self, c: Candidate) -> bool {
        (0..self.replicas.len()).filter(|x| *x != c.replica).all(|x| {
            let replica = &self.replicas[x];
            let markers = replica.stale.partition_point(|(t, _)| *t <= c.t_ms);
            let last_marker =
                replica.stale[..markers].last().map(|(t, _)| *t).filter(|t| self.horizon.holds(*t));
            if last_marker == Some(c.t_ms) {
                // Of two at the same time the first replica's stands.
                return c.replica < x;
            }
            let seen = &self.seen[x];
            let after = seen.start + replica.ts_ms[seen.clone()].partition_point(|t| *t <= c.t_ms);
            let interval_ms = self.cell.interval_ms[x];
            let living = if after > seen.start {
                let u = replica.ts_ms[after - 1];
                last_marker.is_none_or(|m| m < u) && steady(c.t_ms - u, interval_ms)
            } else {
                last_marker.is_none()
                    && after < seen.end
                    && self.walled_left()
                    && steady(replica.ts_ms[after] - self.cell.wall.start_ms, interval_ms)
            };
            !living
        })
    }

    /// Whether sample `u` of `x` may show a moment between two consecutive samples of `r` (`None`: before the
    /// first, after the last that is known): before any fall there is between them, and after it.
    fn fits(&self, (x, u): (usize, usize), r: usize, from: Option<usize>, to: Option<usize>) -> (bool, bool) {
        let (u, r) = ((&self.replicas[x], u), &self.replicas[r]);
        let above = from.is_none_or(|i| !falls((r, i), u));
        let below = to.is_none_or(|i| !falls(u, (r, i)));
        match (from, to) {
            (Some(_), Some(to)) if r.fell(to) => (above, below),
            _ => (above && below, above && below),
        }
    }

    /// Whether sample `i` of `r` shows an earlier moment of a counter than sample `u` of `x`, which is not
    /// after it: whether that one finds its place among what `r` shows from `i` on, within the lag.
    fn is_behind(&self, r: usize, i: usize, x: usize, u: usize) -> bool {
        let (ts, u_ms) = (&self.replicas[r].ts_ms, self.replicas[x].ts_ms[u]);
        let lower = falls((&self.replicas[x], u), (&self.replicas[r], i));
        let mut fell = false;
        for j in (i..self.seen[r].end).take_while(|j| ts[*j] <= u_ms + LAG_MS) {
            if j + 1 == self.seen[r].end {
                // Nobody knows what comes next, a fall that the other one saw perhaps, unless it fits before.
                let next = self.fits((x, u), r, Some(j), None).0 && (fell || lower);
                return (next || self.fell_within(x, u_ms - LAG_MS, u_ms))
                    && !(self.seen[r].start + 1..=i)
                        .rev()
                        .take_while(|k| ts[*k] >= u_ms - LAG_MS)
                        .any(|k| self.fits_at_all((x, u), r, k));
            }
            let (before_fall, after_fall) = self.fits((x, u), r, Some(j), Some(j + 1));
            if before_fall && (fell || lower) {
                return true;
            }
            fell |= self.replicas[r].fell(j + 1);
            if after_fall && (fell || lower) {
                return true;
            }
        }
        false
    }

    /// Whether sample `i` of `r` shows a later moment of a counter than sample `v` of `x`, which is after it:
    /// whether that one finds its place among what `r` showed up to `i`, within the lag.
    fn is_ahead(&self, r: usize, i: usize, x: usize, v: usize) -> bool {
        let (ts, v_ms) = (&self.replicas[r].ts_ms, self.replicas[x].ts_ms[v]);
        let higher = falls((&self.replicas[r], i), (&self.replicas[x], v));
        let mut fell = false;
        for j in (self.seen[r].start..=i).rev().take_while(|j| ts[*j] >= v_ms - LAG_MS) {
            if j == self.seen[r].start {
                let before = self.fits((x, v), r, None, Some(j)).0 && (fell || higher);
                return (before || self.fell_within(x, v_ms, v_ms + LAG_MS))
                    && !(i + 1..self.seen[r].end)
                        .take_while(|k| ts[k - 1] <= v_ms + LAG_MS)
                        .any(|k| self.fits_at_all((x, v), r, k));
            }
            let (before_fall, after_fall) = self.fits((x, v), r, Some(j - 1), Some(j));
            if after_fall && (fell || higher) {
                return true;
            }
            fell |= self.replicas[r].fell(j);
            if before_fall && (fell || higher) {
                return true;
            }
        }
        false
    }

    /// Whether a replica saw the counter fall in a left-open range of time.
    fn fell_within(&self, x: usize, after_ms: i64, until_ms: i64) -> bool {
        let range = self.replicas[x].of(Span { start_ms: after_ms, end_ms: until_ms });
        (range.start.max(self.seen[x].start + 1)..range.end.min(self.seen[x].end))
            .any(|i| self.replicas[x].fell(i))
    }

    /// Whether a sample of `x` may show a moment between sample `k` of `r` and the one before.
    fn fits_at_all(&self, sample: (usize, usize), r: usize, k: usize) -> bool {
        let (before_fall, after_fall) = self.fits(sample, r, Some(k - 1), Some(k));
        before_fall || after_fall
    }

    fn looks_like_a_counter(&self) -> bool {
        self.replicas.iter().zip(&self.seen).all(|(replica, seen)| {
            let steps = seen.len().saturating_sub(1);
            let fell = (seen.start + 1..seen.end.max(seen.start + 1)).filter(|i| replica.fell(*i)).count();
            let negative = seen.clone().any(|i| replica.histogram(i).is_none() && replica.value(i) < 0.0);
            !negative && (fell < GAUGE_FALLS || 4 * fell <= steps)
        })
    }

    /// Whether what a histogram says of the one before it is still so in the result.
    fn follows_its_own(&self, replica: usize, i: usize) -> bool {
        let ts = &self.replicas[replica].ts_ms;
        if self.cell.rank[replica] != 0 {
            return false;
        }
        let interval_ms = self.cell.interval_ms[replica];
        if i == self.seen[replica].start {
            return self.walled_left() && steady(ts[i] - self.cell.wall.start_ms, interval_ms);
        }
        let there = self.cell.span.holds(ts[i - 1])
            || self.before.is_some_and(|b| b.span.holds(ts[i - 1]) && b.rank[replica] == 0);
        there && steady(ts[i] - ts[i - 1], interval_ms)
    }

    /// The one replica whose samples are all of the cell's, where that is easy to see.
    fn only_speaker(&self) -> Option<(usize, Range<usize>)> {
        let replica = self.cell.rank.iter().position(|rank| *rank == 0)?;
        let first_too = |cell: Option<&Cell>| cell.is_none_or(|c| c.rank[replica] == 0);
        let inside = self.replicas[replica].of(self.cell.span);
        let (from, to) = (inside.start.checked_sub(1)?, inside.end + 1);
        if !(first_too(self.before) && first_too(self.after))
            || from < self.seen[replica].start
            || to > self.seen[replica].end
            || self.replicas.iter().any(|l| {
                let i = l.stale.partition_point(|(t, _)| *t <= self.cell.span.start_ms);
                l.stale.get(i).is_some_and(|(t, _)| self.cell.span.holds(*t))
            })
        {
            return None;
        }
        let interval_ms = self.cell.interval_ms[replica];
        let ts = &self.replicas[replica].ts_ms[from..to];
        ts.windows(2).all(|w| steady(w[1] - w[0], interval_ms)).then_some((replica, inside))
    }
}

/// The rules, cell by cell.
pub fn by_cell(
    labels: Labels,
    copies: &[SeriesColumns],
    said: Option<&SeriesColumns>,
    keep: (i64, i64),
) -> Option<SeriesColumns> {
    let replicas: Vec<Replica<'_>> = copies.iter().map(Replica::new).collect();
    let mut chosen = Chosen::default();
    let mut kept: Vec<Cell> = Vec::new();
    let begin = begin_ms(keep);
    let mut from_ms = begin;
    while let Some(first) = next_timestamp(&replicas, from_ms).filter(|t| *t <= keep.1) {
        let span = Span::containing(first, CELL_MS);
        let wall = Span::containing(first, WALL_MS);
        let view = View::of_cell(&replicas, &mut kept, span, wall);
        let (min, max) = span.bounds();
        let bounds = (min.max(begin), max.min(keep.1));
        let told = match span.start_ms == wall.start_ms {
            true => told_before(wall.start_ms, &chosen.picks, copies, said),
            false => None,
        };
        let told = told.as_ref().map(Replica::new).filter(|said| view.falls_over_wall(said));
        match view.only_speaker().filter(|_| told.is_none()) {
            Some((replica, range)) => chosen.take_all(&view, replica, range, bounds),
            None => chosen.choose(&view, told.as_ref(), bounds),
        }
        match span.end_ms.checked_add(1) {
            Some(next) => from_ms = next,
            None => break,
        }
    }
    cut(chosen.gather(labels, copies)?, keep)
}

impl<'a> View<'a> {
    /// A cell with its neighbours on this side of the wall. `kept` has the cells that were looked at last.
    fn of_cell(replicas: &'a [Replica<'a>], kept: &'a mut Vec<Cell>, span: Span, wall: Span) -> View<'a> {
        let beside = |end_ms: i64| {
            let span = Span::containing(end_ms, CELL_MS);
            wall.holds(end_ms).then_some(span)
        };
        let [before, after] = [beside(span.start_ms), beside(span.end_ms.saturating_add(CELL_MS))];
        kept.retain(|c| [before, Some(span), after].contains(&Some(c.span)));
        for span in [before, Some(span), after].into_iter().flatten() {
            if !kept.iter().any(|c| c.span == span) {
                kept.push(Cell::new(replicas, span));
            }
        }
        let kept: &'a [Cell] = kept;
        let cell_of = |span: Option<Span>| span.and_then(|s| kept.iter().find(|c| c.span == s));
        let horizon = Span {
            start_ms: span.start_ms.saturating_sub(2 * CELL_MS).max(wall.start_ms),
            end_ms: span.end_ms.saturating_add(2 * CELL_MS).min(wall.end_ms),
        };
        View {
            replicas,
            cell: cell_of(Some(span)).expect("just made"),
            before: cell_of(before),
            after: cell_of(after),
            horizon,
            seen: replicas.iter().map(|l| l.of(horizon)).collect(),
        }
    }

    /// Samples and markers of all replicas in a range of time (both ends included), in order.
    fn candidates(&self, bounds: (i64, i64), candidates: &mut Vec<Candidate>) {
        candidates.clear();
        for (replica, l) in self.replicas.iter().enumerate() {
            candidates.extend(within(&l.ts_ms, bounds).map(|at| Candidate {
                t_ms: l.ts_ms[at],
                replica,
                at,
                stale: false,
            }));
            let from = l.stale.partition_point(|(t, _)| *t < bounds.0);
            let markers = l.stale[from..].iter().take_while(|(t, _)| *t <= bounds.1);
            candidates.extend(markers.map(|(t_ms, at)| Candidate {
                t_ms: *t_ms,
                replica,
                at: *at,
                stale: true,
            }));
        }
        candidates.sort_unstable_by_key(|c| (c.t_ms, c.replica));
    }
}

/// What becomes of the replicas, as far as it is decided.
#[derive(Default)]
struct Chosen {
    picks: Picks,
    /// Where in the result a histogram is not preceded by what it was compared with.
    strangers: Vec<usize>,
    /// Of the present cell; kept for its memory.
    candidates: Vec<Candidate>,
}

impl Chosen {
    /// All samples of the one replica that speaks in a cell, as far as they lie in `bounds`.
    fn take_all(&mut self, view: &View<'_>, replica: usize, range: Range<usize>, bounds: (i64, i64)) {
        let speaker = &view.replicas[replica];
        let inside = within(&speaker.ts_ms[range.clone()], bounds);
        let inside = range.start + inside.start..range.start + inside.end;
        match speaker.at {
            None => self.picks.push(replica, inside),
            Some(_) => {
                inside.map(|i| speaker.place(i)).for_each(|i| self.picks.push(replica, i..i + 1));
            }
        }
    }

    /// The samples of a cell one by one. `told` was said before the wall that the cell begins at.
    fn choose(&mut self, view: &View<'_>, told: Option<&Replica<'_>>, bounds: (i64, i64)) {
        view.candidates(bounds, &mut self.candidates);
        let mut counter = None;
        for c in &self.candidates {
            if c.stale {
                if view.takes_marker(*c) {
                    self.picks.push(c.replica, c.at..c.at + 1);
                }
            } else if view.takes(*c, &mut counter)
                && !told.is_some_and(|said| view.is_behind_wall(*c, said, &mut counter))
            {
                let replica = &view.replicas[c.replica];
                if replica.histogram(c.at).is_some() && !view.follows_its_own(c.replica, c.at) {
                    self.strangers.push(self.picks.len);
                }
                let place = replica.place(c.at);
                self.picks.push(c.replica, place..place + 1);
            }
        }
    }

    fn gather(self, labels: Labels, copies: &[SeriesColumns]) -> Option<SeriesColumns> {
        let mut merged = self.picks.gather(labels, copies)?;
        if let Some(histograms) = &mut merged.histograms {
            for i in self.strangers {
                if let Some(h) = &mut histograms[i]
                    && !matches!(h.counter_reset_hint, CounterResetHint::Gauge | CounterResetHint::Unknown)
                {
                    Arc::make_mut(h).counter_reset_hint = CounterResetHint::Unknown;
                }
            }
        }
        Some(merged)
    }
}

/// The last sample of what was said that is below the one before it.
fn last_fall(said: &Replica<'_>) -> Option<usize> {
    (1..said.ts_ms.len()).rev().find(|k| falls((said, k - 1), (said, *k)))
}

/// What was said shortly before a wall: by the result so far, or else by what is known of what is before it.
/// `None` where its last living sample is longer ago than the lag.
fn told_before(
    wall_ms: i64,
    picks: &Picks,
    copies: &[SeriesColumns],
    said: Option<&SeriesColumns>,
) -> Option<SeriesColumns> {
    let range = before_wall(wall_ms);
    let recent = picks.since(range.0, copies);
    let told = recent.or_else(|| said.and_then(|s| cut(s.clone(), range)))?;
    let living: Vec<usize> = (0..told.values.len()).filter(|i| !is_stale(told.values[*i])).collect();
    let last = told.ts_ms[*living.last()?];
    (last > wall_ms.saturating_sub(LAG_MS)).then(|| told.pick(&living))
}

/// The first sample or marker at a time or after it.
fn next_timestamp(replicas: &[Replica<'_>], from_ms: i64) -> Option<i64> {
    let next = |l: &Replica<'_>| {
        let i = l.series.ts_ms.partition_point(|t| *t < from_ms);
        l.series.ts_ms.get(i).copied()
    };
    replicas.iter().filter_map(next).min()
}
