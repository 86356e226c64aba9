//! The samples of one series in one generation: a row of closed chunks, one that grows, and what came late.

use super::timelines::Timelines;
use crate::head::chunk::{Chunk, Columns, OpenChunk};
use model::sample::Value;

/// Late samples after which their buffer becomes a chunk: a buffered one takes 32 bytes, a packed one 1 to 9. With one sample in ten late, longer
/// buffers were most of the head. They grow by an eighth of this: every series that is late once has one.
const LATE_BUFFER: usize = 32;

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    InOrder,
    OutOfOrder,
    /// The same value was there at the same time.
    Duplicate,
}

/// See the module. Written rule for a timestamp written twice with different values: the last written wins.
#[derive(Debug, Default)]
pub struct Samples {
    open: Option<OpenChunk>,
    rest: Option<Box<Rest>>,
}

/// What a series has that has been written for long or late: most have one chunk that grows, and the head holds every series.
#[derive(Clone, Debug, Default)]
struct Rest {
    closed: Vec<Chunk>,
    /// Heap bytes of the closed chunks' contents.
    closed_bytes: u32,
    late: Late,
}

/// Samples that were older than the newest when they came; every one was written after the in-order one of its time.
#[derive(Clone, Debug, Default)]
struct Late {
    /// Ascending, each timestamp once.
    buffer: Vec<(i64, Value, i64)>,
    /// Full buffers, in the order they were written: at equal timestamps the later chunk wins.
    closed: Vec<Chunk>,
    /// Heap bytes of their contents.
    closed_bytes: u32,
}

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
    pub fn put(&mut self, t: i64, value: Value, start: i64, timelines: &Timelines) -> Put {
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
                    // The usual series closes a few before its generation ends: room for four at once would be a tenth of the head.
                    rest.closed.reserve_exact(1);
                }
                rest.closed.push(chunk);
                *open = OpenChunk::begin(t, &value, start);
            }
            return Put::InOrder;
        }
        let repeats_newest = t == newest && open.last_is(&value) && self.late().is_none();
        if repeats_newest || self.holds(t, &value) {
            return Put::Duplicate;
        }
        self.rest.get_or_insert_default().late.put(t, value, start);
        Put::OutOfOrder
    }

    /// Whether a query would answer exactly this value at this time.
    fn holds(&self, t: i64, value: &Value) -> bool {
        let mut found = Columns::default();
        self.view(t, t).decode(t, t, &mut found);
        match (found.is_empty(), value) {
            (true, _) => false,
            (false, Value::Float(v)) => {
                found.histograms.first().is_none_or(Option::is_none)
                    && found.values[0].to_bits() == v.to_bits()
            }
            (false, Value::Histogram(h)) => found
                .histograms
                .first()
                .and_then(Option::as_ref)
                .is_some_and(|f| crate::head::chunk::histogram::same(f, h)),
        }
    }

    /// What lies within `min_t..=max_t` (whole chunks, so a little more).
    pub fn view(&self, min_t: i64, max_t: i64) -> SamplesView {
        let touches = |c: &&Chunk| c.max_t_ms >= min_t && c.min_t_ms <= max_t;
        let mut view = SamplesView::default();
        // In-order chunks ascend: begin at the first that reaches the range.
        let closed = self.closed();
        let from = closed.partition_point(|c| c.max_t_ms < min_t);
        view.in_order.extend(closed[from..].iter().take_while(|c| c.min_t_ms <= max_t).cloned());
        if let Some(o) = &self.open
            && o.last_t_ms() >= min_t
            && o.first_t_ms() <= max_t
        {
            view.in_order.push(o.snapshot());
        }
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
        match self.buffer.binary_search_by_key(&t, |x| x.0) {
            Ok(at) => self.buffer[at] = (t, value, start),
            Err(at) => self.buffer.insert(at, (t, value, start)),
        }
        if self.buffer.len() >= LATE_BUFFER {
            pack(&std::mem::take(&mut self.buffer), &mut self.closed);
            self.closed_bytes = self.closed.iter().map(chunk_bytes).sum();
        }
    }

    fn heap_bytes(&self) -> usize {
        self.closed.capacity() * std::mem::size_of::<Chunk>()
            + self.closed_bytes as usize
            + self.buffer.capacity() * std::mem::size_of::<(i64, Value, i64)>()
    }
}

/// Heap bytes of a chunk's contents.
fn chunk_bytes(chunk: &Chunk) -> u32 {
    chunk.bytes.len() as u32
}

/// Packs sorted samples into chunks.
fn pack(sorted: &[(i64, Value, i64)], into: &mut Vec<Chunk>) {
    let mut open: Option<OpenChunk> = None;
    for (t, v, start) in sorted {
        if let Some(o) = &mut open
            && !o.push(*t, v, *start)
        {
            into.push(o.snapshot().kept());
            open = None;
        }
        if open.is_none() {
            open = Some(OpenChunk::begin(*t, v, *start));
        }
    }
    into.extend(open.map(|o| o.snapshot().kept()));
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

    /// How many samples lie in each stretch of time that `stretch` names, late ones that replace others counted as well.
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

    /// Appends the samples within the range, ascending, each timestamp once.
    pub fn decode(&self, min_t: i64, max_t: i64, out: &mut Columns) {
        let begin = out.len();
        for c in &self.in_order {
            c.decode(min_t, max_t, out);
        }
        if self.late.is_empty() && self.buffer.is_empty() {
            return;
        }
        let mut merged = Columns::default();
        let mut rows = Columns::default();
        for i in begin..out.len() {
            rows.push_row_of(out, i);
        }
        for c in &self.late {
            let mut next = Columns::default();
            c.decode(min_t, max_t, &mut next);
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

/// Both sides' rows by time; where both have one, the newer side's.
pub fn union(older: &Columns, newer: &Columns, out: &mut Columns) {
    out.clear();
    let (mut i, mut j) = (0, 0);
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
            i += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Any order of arrival reads back as a map in which the last write of a timestamp wins.
        #[test]
        fn any_order_reads_as_a_map(writes in proptest::collection::vec((0i64..400, 0u8..4, any::<bool>()), 1..600), min_t in -10i64..410, len in 0i64..410) {
            let mut samples = Samples::default();
            let timelines = Timelines::default();
            let mut model: BTreeMap<i64, f64> = BTreeMap::new();
            let mut clock = 0;
            for (t, v, in_order) in writes {
                let t = if in_order { clock += 1; clock * 3 } else { t };
                let v = v as f64;
                let put = samples.put(t, Value::Float(v), 0, &timelines);
                let before = model.insert(t, v);
                prop_assert_eq!(put == Put::Duplicate, before == Some(v), "{} at {}", v, t);
            }
            let max_t = min_t + len;
            let mut got = Columns::default();
            samples.view(min_t, max_t).decode(min_t, max_t, &mut got);
            let got: Vec<_> = got.ts_ms.iter().copied().zip(got.values.iter().copied()).collect();
            let want: Vec<_> = model.range(min_t..=max_t).map(|(t, v)| (*t, *v)).collect();
            prop_assert_eq!(got, want);
            let walked = |chunks: &[Chunk]| chunks.iter().map(|c| c.bytes.len() as u32).sum::<u32>();
            if let Some(rest) = &samples.rest {
                prop_assert!(rest.closed_bytes >= walked(&rest.closed));
                prop_assert_eq!(rest.late.closed_bytes, walked(&rest.late.closed));
            }
            let range = samples.range_ms().unwrap();
            prop_assert_eq!(range, (*model.first_key_value().unwrap().0, *model.last_key_value().unwrap().0));
        }
    }
}
