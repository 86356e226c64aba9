//! One series in memory: its name in the log, and its samples of the active and of the frozen generation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::label_sets::LabelSet;
use super::samples::{Newest, Samples, SamplesView};
use super::tenant::TenantHead;

/// One series of one tenant. There are millions: with the counts of its `Arc` it fills two lines of the cache
/// and a size that the allocator does not round up, so that one byte more would cost 32.
pub struct Series {
    pub tenant: Arc<TenantHead>,
    /// Its number in this process's log and postings; given out again after the series is gone.
    pub id: u32,
    pub(super) hash: u32,
    pub(super) labels: LabelSet,
    /// See [`Series::is_logged`].
    pub(super) logged: AtomicU32,
    /// Generation of the active samples, or [`GONE`]; read and written while `state` is locked.
    pub(super) generation: AtomicU32,
    pub(super) state: Mutex<SeriesState>,
}

const _: () = assert!(size_of::<Series>() + 2 * size_of::<usize>() <= 128);

#[derive(Default)]
pub(super) struct SeriesState {
    pub(super) active: Samples,
    /// The generation before, until its blocks are committed.
    pub(super) frozen: Option<Box<(u64, Samples)>>,
}

/// The generation of a series that was taken out of the head; whoever still holds it must look it up again.
pub(super) const GONE: u32 = u32::MAX;

/// Heap bytes of a series itself: its labels, its places in tables and its samples are counted where they
/// are.
pub(super) const SERIES_BYTES: i64 = (size_of::<Series>() + 2 * size_of::<usize>()) as i64;

impl Series {
    /// Whether it was written down under this mark of the log, see [`crate::wal::Log::mark`]. Only the low
    /// half of the mark is kept: it counts the log's cuts and failures.
    pub fn is_logged(&self, mark: u64) -> bool {
        self.logged.load(Ordering::Acquire) == mark as u32
    }

    pub fn set_logged(&self, mark: u64) {
        self.logged.store(mark as u32, Ordering::Release);
    }

    /// Generation of the active samples.
    pub(super) fn generation(&self, _locked: &MutexGuard<'_, SeriesState>) -> u64 {
        self.generation.load(Ordering::Relaxed).into()
    }

    /// Makes the active samples those of this generation. `false`: the series has left the head.
    #[inline]
    pub(super) fn advance(&self, state: &mut MutexGuard<'_, SeriesState>, generation: u64) -> bool {
        let (before, now) = (self.generation.load(Ordering::Relaxed), generation as u32);
        if before == now || before == GONE {
            return before != GONE;
        }
        if !state.active.is_empty() {
            // The slot is free: a generation is cut only after the one before it was forgotten or kept as it
            // is.
            state.frozen = Some(Box::new((before.into(), std::mem::take(&mut state.active))));
        }
        self.generation.store(now, Ordering::Relaxed);
        true
    }

    /// A moment's view of the samples of generations `from..=to` within the range: the older generation, then
    /// the newer.
    pub fn view(
        &self,
        generations: std::ops::RangeInclusive<u64>,
        min_t: i64,
        max_t: i64,
    ) -> [SamplesView; 2] {
        let state = self.state.lock();
        let mut views = [SamplesView::default(), SamplesView::default()];
        if let Some((g, s)) = state.frozen.as_deref()
            && generations.contains(g)
        {
            views[0] = s.view(min_t, max_t);
        }
        if generations.contains(&self.generation(&state)) {
            views[1] = state.active.view(min_t, max_t);
        }
        views
    }

    /// The newest sample of generations within the range, where it is at hand.
    pub(super) fn newest(
        &self,
        generations: std::ops::RangeInclusive<u64>,
        min_t: i64,
        max_t: i64,
    ) -> Newest {
        let state = self.state.lock();
        let frozen = state.frozen.as_deref().filter(|(g, _)| generations.contains(g));
        let frozen = frozen.map_or(Newest::Nothing, |(_, s)| s.newest(min_t, max_t));
        if !generations.contains(&self.generation(&state)) {
            return frozen;
        }
        match (frozen, state.active.newest(min_t, max_t)) {
            (Newest::NotAtHand, _) | (_, Newest::NotAtHand) => Newest::NotAtHand,
            (older, Newest::Nothing) => older,
            // What was written later stands where both are of one time.
            (Newest::Float(older), Newest::Float(newer)) if older.t_ms > newer.t_ms => Newest::Float(older),
            (_, newer) => newer,
        }
    }

    /// First and last timestamp of what it holds in these generations.
    pub fn range_ms(&self, generations: std::ops::RangeInclusive<u64>) -> Option<(i64, i64)> {
        let state = self.state.lock();
        let frozen = state.frozen.as_deref().filter(|(g, _)| generations.contains(g));
        let frozen = frozen.and_then(|(_, s)| s.range_ms());
        let is_asked = generations.contains(&self.generation(&state));
        let active = is_asked.then(|| state.active.range_ms()).flatten();
        match (frozen, active) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        }
    }

    /// Chunks held.
    pub fn chunks(&self) -> usize {
        let state = self.state.lock();
        state.active.chunks() + state.frozen.as_ref().map_or(0, |f| f.1.chunks())
    }
}
