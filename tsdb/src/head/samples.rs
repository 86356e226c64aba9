//! The samples of one series in one generation: a row of closed chunks, one that grows, and what came late.

use super::timelines::Timelines;
use crate::head::chunk::{Chunk, Columns, DecodedTimes, OpenChunk};
use model::sample::Value;

/// Late samples after which their buffer becomes a chunk: a buffered one takes 32 bytes, a packed one 1 to 9.
/// With one sample in ten late, longer buffers were most of the head. They grow by an eighth of this: every
/// series that is late once has one.
const LATE_BUFFER: usize = 32;

/// Late samples of one request from which on they are merged at once.
const MANY_LATE: usize = 2 * LATE_BUFFER;

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    InOrder,
    OutOfOrder,
    /// The same value was there at the same time.
    Duplicate,
}

/// Whether a request that is later in the log writes the same series at this time. What is there already may
/// be its sample, which must stay: a restart would let it stand as well.
pub type Overruled<'a> = &'a dyn Fn(i64) -> bool;

/// Samples of one series in one generation. Written rule for a timestamp written twice with different values
/// or start timestamps: the last written wins.
#[derive(Debug, Default)]
pub struct Samples {
    open: Option<OpenChunk>,
    rest: Option<Box<Rest>>,
}

/// What a series has that has been written for long or late: most have one chunk that grows, and the head
/// holds every series.
#[derive(Clone, Debug, Default)]
struct Rest {
    closed: Vec<Chunk>,
    /// Heap bytes of the closed chunks' contents.
    closed_bytes: u32,
    late: Late,
}

/// Samples that were older than the newest when they came; every one was written after the in-order one of
/// its time.
///
/// They may come in any order and by the hundred thousand, so what is closed lies in *runs* of ascending
/// chunks, each more than twice as long as the next: a new one is merged with those before it as long as they
/// are not. So a sample is looked for in a few runs, and written a few times.
#[derive(Clone, Debug, Default)]
struct Late {
    /// Ascending, each timestamp once.
    buffer: Vec<(i64, Value, i64)>,
    /// Heap bytes of histograms in it.
    buffer_bytes: u32,
    /// Chunks of full buffers, run by run: at equal timestamps the later run wins.
    closed: Vec<Chunk>,
    runs: Vec<LateRun>,
    /// Heap bytes of their contents.
    closed_bytes: u32,
}

/// Chunks of late samples that ascend.
#[derive(Clone, Copy, Debug)]
struct LateRun {
    chunks: usize,
    samples: usize,
}

/// A float with its time and start timestamp (0: unknown), both in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct FloatSample {
    pub t_ms: i64,
    pub value: f64,
    pub start_ms: i64,
}

/// What can be told without decoding of the newest sample within a range.
#[derive(Clone, Copy, Debug)]
pub enum Newest {
    /// There is no sample in it.
    Nothing,
    Float(FloatSample),
    /// It has to be looked for.
    NotAtHand,
}

/// What the bytes of a chunk that was copied take beside themselves.
const COPIED_CHUNK_BYTES: usize = 48;

/// A moment's view of [`Samples`], free of locks.
#[derive(Clone, Debug, Default)]
pub struct SamplesView {
    in_order: Vec<Chunk>,
    late: Vec<Chunk>,
    buffer: Vec<(i64, Value, i64)>,
}

impl Samples {
    pub fn is_empty(&self) -> bool {
        self.open.is_none()
    }

    /// The newest timestamp that came in order.
    pub fn newest_t_ms(&self) -> Option<i64> {
        self.open.as_ref().map(|o| o.last_t_ms())
    }

    /// The newest sample within `min_t..=max_t`, where it is the last that was written.
    pub fn newest(&self, min_t: i64, max_t: i64) -> Newest {
        let Some(open) = &self.open else { return Newest::Nothing };
        if self.late().is_some() {
            return Newest::NotAtHand;
        }
        let t_ms = open.last_t_ms();
        if t_ms < min_t {
            return Newest::Nothing;
        }
        let (value, start_ms) = match open {
            _ if t_ms > max_t => return Newest::NotAtHand,
            OpenChunk::Histogram(_) => return Newest::NotAtHand,
            OpenChunk::Float(e) => (e.last_value(), 0),
            OpenChunk::FloatWithStart(e) => (e.floats.last_value(), e.last_start_ms()),
        };
        Newest::Float(FloatSample { t_ms, value, start_ms })
    }

    fn closed(&self) -> &[Chunk] {
        self.rest.as_ref().map_or(&[], |r| &r.closed)
    }

    fn late(&self) -> Option<&Late> {
        self.rest.as_ref().map(|r| &r.late).filter(|late| !late.is_empty())
    }

    /// First and last timestamp held.
    pub fn range_ms(&self) -> Option<(i64, i64)> {
        let mut range: Option<(i64, i64)> = None;
        let mut widen = |a: i64, b: i64| range = Some(range.map_or((a, b), |(x, y)| (x.min(a), y.max(b))));
        if let Some(c) = self.closed().first() {
            widen(c.min_t_ms, c.max_t_ms);
        }
        if let Some(o) = &self.open {
            widen(o.first_t_ms(), o.last_t_ms());
        }
        if let Some(late) = self.late() {
            for c in &late.closed {
                widen(c.min_t_ms, c.max_t_ms);
            }
            if let (Some(a), Some(b)) = (late.buffer.first(), late.buffer.last()) {
                widen(a.0, b.0);
            }
        }
        range
    }

    /// `timelines` holds the timestamps of chunks that are full.
    pub fn put(
        &mut self,
        t: i64,
        value: Value,
        start: i64,
        timelines: &Timelines,
        overruled: Overruled<'_>,
    ) -> Put {
        let Some(open) = &mut self.open else {
            self.open = Some(OpenChunk::begin(t, &value, start));
            return Put::InOrder;
        };
        let newest = open.last_t_ms();
        if t > newest {
            if !open.push(t, &value, start) {
                // A timeline is counted where it was seen first; whoever shares it holds a pointer.
                let mut times = 0;
                let chunk = open.close(|bytes| {
                    let (shared, new) = timelines.share(bytes);
                    times = if new { shared.len() as u32 + 16 } else { 0 };
                    shared
                });
                let rest = self.rest.get_or_insert_default();
                rest.closed_bytes += chunk_bytes(&chunk) + times;
                if rest.closed.len() < 4 {
                    // The usual series closes a few before its generation ends: room for four at once would
                    // be a tenth of the head.
                    rest.closed.reserve_exact(1);
                }
                rest.closed.push(chunk);
                *open = OpenChunk::begin(t, &value, start);
            }
            return Put::InOrder;
        }
        if t == newest && open.last_is(&value, start) && self.late().is_none() {
            return Put::Duplicate;
        }
        if let Some((known, known_start)) = self.value_at(t) {
            if known_start == start && is_same(&known, &value) {
                return Put::Duplicate;
            }
            if overruled(t) {
                return Put::OutOfOrder;
            }
        }
        let value = without_hint(value);
        self.rest.get_or_insert_default().late.put(t, value, start);
        Put::OutOfOrder
    }

    /// The same as [`Samples::put`] for one after the other, each told to `each`. Late ones are sorted and
    /// merged at once: looking for each of them among what is there would cost a request that is late
    /// altogether a hundred times as much.
    pub fn put_all(
        &mut self,
        rows: impl Iterator<Item = (i64, Value, i64)>,
        timelines: &Timelines,
        overruled: Overruled<'_>,
        mut each: impl FnMut(i64, Put),
    ) {
        let mut late: Vec<(i64, Value, i64)> = Vec::new();
        for (t, value, start) in rows {
            if self.newest_t_ms().is_some_and(|newest| t <= newest) {
                // What is in order and comes after it is newer than all that was there, so that it may go
                // before.
                late.push((t, value, start));
            } else {
                each(t, self.put(t, value, start, timelines, overruled));
            }
        }
        if late.len() < MANY_LATE {
            for (t, value, start) in late {
                each(t, self.put(t, value, start, timelines, overruled));
            }
        } else {
            self.put_late(late, overruled, each);
        }
    }

    /// Writes many late samples at once.
    fn put_late(
        &mut self,
        rows: Vec<(i64, Value, i64)>,
        overruled: Overruled<'_>,
        mut each: impl FnMut(i64, Put),
    ) {
        // By time, and of one time as they came.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|i| rows[*i].0);
        let (min_t, max_t) = (rows[order[0]].0, rows[order[rows.len() - 1]].0);
        let view = self.view(min_t, max_t);
        let there = view.in_order.iter().chain(&view.late).map(|c| usize::from(c.count)).sum::<usize>();
        // All that is there at once, unless it is so much more than what comes that looking for each is less.
        let mut known = Columns::default();
        let at_once = there / 256 <= rows.len();
        if at_once {
            view.decode(&DecodedTimes::default(), min_t, max_t, &mut known);
        }
        drop(view);
        let (mut at, mut new) = (0, Vec::with_capacity(rows.len()));
        for same_time in order.chunk_by(|a, b| rows[*a].0 == rows[*b].0) {
            let t = rows[same_time[0]].0;
            at += known.ts_ms[at..].partition_point(|known| *known < t);
            let mut current = match at_once {
                true => (known.ts_ms.get(at) == Some(&t)).then(|| (known.value(at), known.start(at))),
                false => self.value_at(t),
            };
            let stays = current.is_some() && overruled(t);
            let mut written = false;
            for i in same_time {
                let (_, value, start) = &rows[*i];
                if current.as_ref().is_some_and(|(known, s)| s == start && is_same(known, value)) {
                    each(t, Put::Duplicate);
                    continue;
                }
                each(t, Put::OutOfOrder);
                if !stays {
                    (current, written) = (Some((value.clone(), *start)), true);
                }
            }
            if let Some((value, start)) = current.filter(|_| written) {
                new.push((t, without_hint(value), start));
            }
        }
        self.rest.get_or_insert_default().late.put_sorted(new);
    }

    /// What a query would answer at this time, the last that was written, and its start timestamp.
    fn value_at(&self, t: i64) -> Option<(Value, i64)> {
        if let Some(found) = self.late().and_then(|late| late.value_at(t)) {
            return Some(found);
        }
        if let Some(open) = self.open.as_ref().filter(|o| (o.first_t_ms()..=o.last_t_ms()).contains(&t)) {
            return value_in(&open.snapshot(), t);
        }
        value_among(self.closed(), t)
    }

    /// What lies within `min_t..=max_t` (whole chunks, so a little more).
    pub fn view(&self, min_t: i64, max_t: i64) -> SamplesView {
        let touches = |c: &&Chunk| c.max_t_ms >= min_t && c.min_t_ms <= max_t;
        let mut view = SamplesView::default();
        // In-order chunks ascend: begin at the first that reaches the range.
        let closed = self.closed();
        let from = closed.partition_point(|c| c.max_t_ms < min_t);
        let closed = &closed[from..][..closed[from..].partition_point(|c| c.min_t_ms <= max_t)];
        let open = self.open.as_ref().filter(|o| o.last_t_ms() >= min_t && o.first_t_ms() <= max_t);
        // A query holds as many views as it has series: no more room than is needed.
        view.in_order.reserve_exact(closed.len() + usize::from(open.is_some()));
        view.in_order.extend_from_slice(closed);
        view.in_order.extend(open.map(OpenChunk::snapshot));
        if let Some(late) = self.late() {
            view.late.extend(late.closed.iter().filter(touches).cloned());
            let (a, b) =
                (late.buffer.partition_point(|x| x.0 < min_t), late.buffer.partition_point(|x| x.0 <= max_t));
            view.buffer.extend_from_slice(&late.buffer[a..b.max(a)]);
        }
        view
    }

    pub fn chunks(&self) -> usize {
        self.open.is_some() as usize
            + self.rest.as_ref().map_or(0, |rest| rest.closed.len() + rest.late.closed.len())
    }

    /// Heap bytes of in-order chunks and of late samples; what a late histogram holds itself is not counted.
    #[inline]
    pub fn heap_bytes(&self) -> (usize, usize) {
        let open = self.open.as_ref().map_or(0, OpenChunk::heap_bytes);
        let Some(rest) = &self.rest else { return (open, 0) };
        let closed = rest.closed.capacity() * std::mem::size_of::<Chunk>() + rest.closed_bytes as usize;
        (open + closed + std::mem::size_of::<Rest>(), rest.late.heap_bytes())
    }
}

impl Late {
    fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.closed.is_empty()
    }

    fn put(&mut self, t: i64, value: Value, start: i64) {
        if self.buffer.len() == self.buffer.capacity() {
            self.buffer.reserve_exact(LATE_BUFFER / 8);
        }
        self.buffer_bytes += value_bytes(&value);
        match self.buffer.binary_search_by_key(&t, |x| x.0) {
            Ok(at) => {
                self.buffer_bytes -= value_bytes(&self.buffer[at].1);
                self.buffer[at] = (t, value, start);
            }
            Err(at) => self.buffer.insert(at, (t, value, start)),
        }
        if self.buffer.len() >= LATE_BUFFER {
            self.close_buffer();
        }
    }

    /// Takes samples in ascending order of time, each time once.
    fn put_sorted(&mut self, rows: Vec<(i64, Value, i64)>) {
        if rows.len() < LATE_BUFFER {
            rows.into_iter().for_each(|(t, value, start)| self.put(t, value, start));
            return;
        }
        // What is in the buffer was written before.
        self.close_buffer();
        let mut columns = Columns::default();
        rows.into_iter().for_each(|(t, value, start)| columns.push(t, value, start));
        self.push_run(&columns);
    }

    fn close_buffer(&mut self) {
        self.buffer_bytes = 0;
        let mut columns = Columns::default();
        let buffer = std::mem::take(&mut self.buffer);
        buffer.into_iter().for_each(|(t, value, start)| columns.push(t, value, start));
        self.push_run(&columns);
    }

    /// Adds a run, merged with those before it that are not more than twice as long.
    fn push_run(&mut self, newest: &Columns) {
        if newest.is_empty() {
            return;
        }
        let (mut rows, mut merged) = (Columns::default(), Columns::default());
        let mut newest = newest;
        while let Some(before) = self.runs.pop_if(|run| run.samples <= 2 * newest.len()) {
            let mut older = Columns::default();
            for chunk in self.closed.drain(self.closed.len() - before.chunks..) {
                self.closed_bytes -= chunk_bytes(&chunk);
                chunk.decode(i64::MIN, i64::MAX, &mut older);
            }
            union(&older, newest, &mut merged);
            std::mem::swap(&mut rows, &mut merged);
            newest = &rows;
        }
        let from = self.closed.len();
        pack(newest, &mut self.closed);
        self.closed_bytes += self.closed[from..].iter().map(chunk_bytes).sum::<u32>();
        self.runs.push(LateRun { chunks: self.closed.len() - from, samples: newest.len() });
    }

    fn value_at(&self, t: i64) -> Option<(Value, i64)> {
        if let Ok(at) = self.buffer.binary_search_by_key(&t, |x| x.0) {
            let (_, value, start) = &self.buffer[at];
            return Some((value.clone(), *start));
        }
        let mut end = self.closed.len();
        self.runs.iter().rev().find_map(|run| {
            let chunks = &self.closed[end - run.chunks..end];
            end -= run.chunks;
            value_among(chunks, t)
        })
    }

    fn heap_bytes(&self) -> usize {
        self.closed.capacity() * std::mem::size_of::<Chunk>()
            + self.closed_bytes as usize
            + self.runs.capacity() * std::mem::size_of::<LateRun>()
            + self.buffer.capacity() * std::mem::size_of::<(i64, Value, i64)>()
            + self.buffer_bytes as usize
    }
}

/// Heap bytes of a value besides its place in a buffer.
fn value_bytes(value: &Value) -> u32 {
    match value {
        Value::Float(_) => 0,
        Value::Histogram(h) => h.size_bytes() as u32,
    }
}

fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::Histogram(a), Value::Histogram(b)) => crate::head::chunk::histogram::same(a, b),
        _ => false,
    }
}

/// A late sample. Where it is a histogram, nobody knows which one it says something of: the one before it in
/// time may have come from somebody else.
fn without_hint(value: Value) -> Value {
    match value {
        Value::Histogram(h) => Value::Histogram(h.beside_another()),
        float => float,
    }
}

/// The value at a time in one of ascending chunks, and its start timestamp.
fn value_among(chunks: &[Chunk], t: i64) -> Option<(Value, i64)> {
    let chunk = chunks.get(chunks.partition_point(|c| c.max_t_ms < t))?;
    value_in(chunk, t)
}

fn value_in(chunk: &Chunk, t: i64) -> Option<(Value, i64)> {
    let mut found = Columns::default();
    chunk.decode(t, t, &mut found);
    (!found.is_empty()).then(|| (found.value(0), found.start(0)))
}

/// Heap bytes of a chunk's contents.
fn chunk_bytes(chunk: &Chunk) -> u32 {
    chunk.bytes.len() as u32
}

/// Packs ascending samples into chunks, each with bytes of its own: it may be merged into another soon.
fn pack(sorted: &Columns, into: &mut Vec<Chunk>) {
    let mut open: Option<OpenChunk> = None;
    for i in 0..sorted.len() {
        let (t, value, start) = (sorted.ts_ms[i], sorted.value(i), sorted.start(i));
        if let Some(o) = &mut open
            && !o.push(t, &value, start)
        {
            into.push(o.snapshot());
            open = None;
        }
        if open.is_none() {
            open = Some(OpenChunk::begin(t, &value, start));
        }
    }
    into.extend(open.map(|o| o.snapshot()));
}

impl SamplesView {
    /// Where its samples lie, chunk by chunk.
    pub fn spans_ms(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        let chunks = self.in_order.iter().chain(&self.late).map(|c| (c.min_t_ms, c.max_t_ms));
        chunks.chain(self.buffer.iter().map(|b| (b.0, b.0)))
    }

    pub fn is_empty(&self) -> bool {
        self.in_order.is_empty() && self.late.is_empty() && self.buffer.is_empty()
    }

    /// About how many bytes it holds that the head does not: the open chunk is a copy.
    pub fn own_bytes(&self) -> u64 {
        let copied = self.in_order.last().map_or(0, |open| open.bytes.len() + COPIED_CHUNK_BYTES);
        let chunks = self.in_order.capacity() + self.late.capacity();
        let late = self.buffer.capacity() * size_of::<(i64, Value, i64)>();
        (copied + chunks * size_of::<Chunk>() + late) as u64
    }

    /// How many samples lie in each stretch of time that `stretch` names, late ones that replace others
    /// counted as well.
    pub fn count_by(
        &self,
        stretch: impl Fn(i64) -> i64,
        scratch: &mut Columns,
        mut add: impl FnMut(i64, u64),
    ) {
        for c in self.in_order.iter().chain(&self.late) {
            if stretch(c.min_t_ms) == stretch(c.max_t_ms) {
                add(stretch(c.min_t_ms), u64::from(c.count));
                continue;
            }
            scratch.clear();
            c.decode(i64::MIN, i64::MAX, scratch);
            for run in scratch.ts_ms.chunk_by(|a, b| stretch(*a) == stretch(*b)) {
                add(stretch(run[0]), run.len() as u64);
            }
        }
        for (t, _, _) in &self.buffer {
            add(stretch(*t), 1);
        }
    }

    /// Appends the samples within the range, ascending, each timestamp once. `times` knows the timestamps
    /// that other series have too.
    pub fn decode(&self, times: &DecodedTimes, min_t: i64, max_t: i64, out: &mut Columns) {
        let begin = out.len();
        for c in &self.in_order {
            c.decode_beside(Some(times), min_t, max_t, out);
        }
        if self.late.is_empty() && self.buffer.is_empty() {
            return;
        }
        let mut merged = Columns::default();
        let mut rows = Columns::default();
        for i in begin..out.len() {
            rows.push_row_of(out, i);
        }
        for run in self.late.chunk_by(|a, b| a.max_t_ms < b.min_t_ms) {
            let mut next = Columns::default();
            run.iter().for_each(|c| c.decode(min_t, max_t, &mut next));
            union(&rows, &next, &mut merged);
            std::mem::swap(&mut rows, &mut merged);
        }
        let mut next = Columns::default();
        for (t, v, start) in &self.buffer {
            if (min_t..=max_t).contains(t) {
                next.push(*t, v.clone(), *start);
            }
        }
        union(&rows, &next, &mut merged);
        out.ts_ms.truncate(begin);
        out.values.truncate(begin);
        out.histograms.truncate(begin);
        out.start_ts_ms.truncate(begin);
        for i in 0..merged.len() {
            out.push_row_of(&merged, i);
        }
    }
}

/// Both sides' rows by time; where both have one, the newer side's. What a histogram says of the one before
/// it (whether the counter was reset) was not said of a sample that was written after it.
pub fn union(older: &Columns, newer: &Columns, out: &mut Columns) {
    out.clear();
    let (mut i, mut j) = (0, 0);
    let mut follows_newer = false;
    while i < older.len() || j < newer.len() {
        let take_newer = match (older.ts_ms.get(i), newer.ts_ms.get(j)) {
            (Some(a), Some(b)) => {
                i += (a == b) as usize;
                b <= a
            }
            (None, _) => true,
            (_, None) => false,
        };
        if take_newer {
            out.push_row_of(newer, j);
            j += 1;
        } else {
            out.push_row_of(older, i);
            if follows_newer && let Some(Some(h)) = out.histograms.last_mut() {
                *h = h.beside_another();
            }
            i += 1;
        }
        follows_newer = take_newer;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::histogram::{CounterResetHint, Histogram};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    proptest! {
        /// Many at once are what they are one after the other.
        #[test]
        fn samples_put_at_once_are_those_put_one_by_one(batches in proptest::collection::vec(proptest::collection::vec((0i64..2000, 0u8..4, any::<bool>()), 1..400), 1..6)) {
            let (mut at_once, mut singly) = (Samples::default(), Samples::default());
            let timelines = Timelines::default();
            for rows in batches {
                let rows: Vec<_> = rows.into_iter().map(|(t, v, is_float)| {
                    let counter_reset_hint = if v % 2 == 0 { CounterResetHint::CounterReset } else { CounterResetHint::Unknown };
                    let histogram = || Value::Histogram(Arc::new(Histogram { sum: v.into(), counter_reset_hint, ..Default::default() }));
                    (t, if is_float { Value::Float(v.into()) } else { histogram() }, i64::from(v / 3))
                }).collect();
                let (mut puts, mut want) = (Vec::new(), Vec::new());
                at_once.put_all(rows.iter().cloned(), &timelines, &|_| false, |t, put| puts.push((t, put as u8)));
                for (t, value, start) in rows {
                    want.push((t, singly.put(t, value, start, &timelines, &|_| false) as u8));
                }
                puts.sort_unstable();
                want.sort_unstable();
                prop_assert_eq!(puts, want);
                let read = |samples: &Samples| {
                    let mut all = Columns::default();
                    samples.view(i64::MIN, i64::MAX).decode(&DecodedTimes::default(), i64::MIN, i64::MAX, &mut all);
                    (0..all.len()).map(|i| format!("{} {:?} {}", all.ts_ms[i], all.value(i), all.start(i))).collect::<Vec<_>>()
                };
                prop_assert_eq!(read(&at_once), read(&singly));
            }
        }

        /// Any order of arrival reads back as a map in which the last write of a timestamp wins.
        #[test]
        fn samples_in_any_order_read_as_a_map(writes in proptest::collection::vec((0i64..400, 0u8..4, any::<bool>()), 1..600), min_t in -10i64..410, len in 0i64..410) {
            let mut samples = Samples::default();
            let timelines = Timelines::default();
            let mut model: BTreeMap<i64, f64> = BTreeMap::new();
            let mut clock = 0;
            for (t, v, in_order) in writes {
                let t = if in_order { clock += 1; clock * 3 } else { t };
                let v = v as f64;
                let put = samples.put(t, Value::Float(v), 0, &timelines, &|_| false);
                let before = model.insert(t, v);
                prop_assert_eq!(put == Put::Duplicate, before == Some(v), "{} at {}", v, t);
            }
            let max_t = min_t + len;
            let mut got = Columns::default();
            samples.view(min_t, max_t).decode(&DecodedTimes::default(), min_t, max_t, &mut got);
            let got: Vec<_> = got.ts_ms.iter().copied().zip(got.values.iter().copied()).collect();
            let want: Vec<_> = model.range(min_t..=max_t).map(|(t, v)| (*t, *v)).collect();
            prop_assert_eq!(got, want);
            let walked = |chunks: &[Chunk]| chunks.iter().map(|c| c.bytes.len() as u32).sum::<u32>();
            if let Some(rest) = &samples.rest {
                prop_assert!(rest.closed_bytes >= walked(&rest.closed));
                prop_assert_eq!(rest.late.closed_bytes, walked(&rest.late.closed));
                prop_assert_eq!(rest.late.runs.iter().map(|r| r.chunks).sum::<usize>(), rest.late.closed.len());
                prop_assert!(rest.late.runs.windows(2).all(|r| r[0].samples > 2 * r[1].samples));
            }
            let range = samples.range_ms().unwrap();
            prop_assert_eq!(range, (*model.first_key_value().unwrap().0, *model.last_key_value().unwrap().0));
        }
    }

    /// A sample of which a later one says that the counter was reset since: at `t`, with count `n`.
    fn reset(t: i64, n: f64) -> (i64, Value, i64) {
        let counter_reset_hint = CounterResetHint::CounterReset;
        let histogram = Histogram { counter_reset_hint, count: n, sum: n, ..Histogram::default() };
        (t, Value::Histogram(Arc::new(histogram)), 0)
    }

    fn hints(samples: &Samples) -> Vec<(i64, CounterResetHint)> {
        let mut all = Columns::default();
        samples.view(i64::MIN, i64::MAX).decode(&DecodedTimes::default(), i64::MIN, i64::MAX, &mut all);
        let hints = all.histograms.iter().flatten().map(|h| h.counter_reset_hint);
        all.ts_ms.iter().copied().zip(hints).collect()
    }

    #[test]
    fn reset_hint_is_not_believed_beside_a_sample_that_was_written_after_it() {
        use CounterResetHint::{CounterReset, Unknown};
        let timelines = Timelines::default();
        let mut samples = Samples::default();
        let put =
            |samples: &mut Samples, (t, value, start)| samples.put(t, value, start, &timelines, &|_| false);
        for row in [reset(10, 100.0), reset(20, 5.0), reset(30, 9.0)] {
            put(&mut samples, row);
        }
        assert_eq!(hints(&samples), [(10, CounterReset), (20, CounterReset), (30, CounterReset)]);
        // What is late says nothing of the sample before it, and the one after it does not speak of it.
        put(&mut samples, reset(15, 3.0));
        assert_eq!(hints(&samples)[1..], [(15, Unknown), (20, Unknown), (30, CounterReset)]);
        put(&mut samples, reset(30, 4.0));
        put(&mut samples, reset(40, 1.0));
        assert_eq!(hints(&samples)[3..], [(30, Unknown), (40, Unknown)], "the one before it is another");
        // The same sample again is none, whatever it says.
        assert_eq!(put(&mut samples, reset(15, 3.0)), Put::Duplicate);
        // Of many at once.
        let late = (0..200).rev().map(|t| reset(100 + t, 1.0));
        put(&mut samples, reset(1000, 7.0));
        samples.put_all(late, &timelines, &|_| false, |_, _| ());
        let hints = hints(&samples);
        assert!(hints.iter().filter(|(t, _)| (101..300).contains(t)).all(|(_, hint)| *hint == Unknown));
        assert_eq!(hints.last(), Some(&(1000, Unknown)));
    }

    #[test]
    fn late_samples_in_random_order_lie_in_few_runs_however_many_they_are() {
        let mut samples = Samples::default();
        let timelines = Timelines::default();
        let n = 20_000i64;
        samples.put(2 * n, Value::Float(0.0), 0, &timelines, &|_| false);
        for i in 0..n {
            let put = samples.put(i * 7919 % n, Value::Float(i as f64), 0, &timelines, &|_| false);
            assert_eq!(put, Put::OutOfOrder);
        }
        let late = &samples.rest.as_ref().unwrap().late;
        assert!(late.runs.len() <= 10, "{} runs", late.runs.len());
        assert!(late.closed.len() < n as usize / 64, "{} chunks", late.closed.len());
    }
}
