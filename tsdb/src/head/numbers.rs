//! The numbers that series have in the log and in postings: who has which, and when one is given out again.

use std::sync::Arc;

use hashbrown::HashTable;

use super::label_sets::LabelSets;
use super::series::Series;
use super::tenant::TenantHead;

/// Series by number.
#[derive(Default)]
pub(super) struct ById {
    pub(super) series: Vec<Option<Arc<Series>>>,
    free: Vec<u32>,
    /// Free from the next cut of the log on: within a generation a number means one series, so that of a log
    /// that lost a definition it is known which numbers may be trusted.
    free_after_cut: Vec<u32>,
}

impl ById {
    /// A number for a new series.
    pub fn give(&mut self) -> u32 {
        if let Some(id) = self.free.pop() {
            return id;
        }
        if self.series.len() == self.series.capacity() {
            // By little: a table that doubled would be half empty.
            self.series.reserve_exact((self.series.len() / 8).max(64));
        }
        self.series.push(None);
        self.series.len() as u32 - 1
    }

    pub fn take_back(&mut self, id: u32) {
        self.series[id as usize] = None;
        self.free_after_cut.push(id);
    }

    /// The log was cut: what was freed before may be given out again.
    pub fn release(&mut self) {
        self.free.append(&mut self.free_after_cut);
        if self.free.len() == self.series.len() {
            *self = ById::default();
        }
    }

    pub fn len(&self) -> usize {
        self.series.len() - self.free.len() - self.free_after_cut.len()
    }

    /// What a shard needs to know of a number in it.
    pub fn hash(&self, id: u32) -> u64 {
        spread(self.series[id as usize].as_ref().map_or(0, |s| s.hash))
    }

    /// The series of these labels, if this shard has it.
    pub fn find(
        &self,
        shard: &HashTable<u32>,
        hash: u32,
        tenant: &Arc<TenantHead>,
        labels: &[(&str, &str)],
        sets: &LabelSets,
    ) -> Option<&Arc<Series>> {
        let series = |id: &u32| self.series.get(*id as usize)?.as_ref();
        let is = |s: &Arc<Series>| {
            s.hash == hash
                && Arc::ptr_eq(&s.tenant, tenant)
                && sets.pairs(s.labels).eq(labels.iter().copied())
        };
        shard.find(spread(hash), |id| series(id).is_some_and(is)).and_then(series)
    }

    pub fn heap_bytes(&self) -> usize {
        self.series.capacity() * size_of::<Option<Arc<Series>>>()
            + (self.free.capacity() + self.free_after_cut.capacity()) * size_of::<u32>()
    }
}

/// All 64 bits of a hash of 32, whose low ones are the same for all of a shard.
pub(super) fn spread(hash: u32) -> u64 {
    let spread = u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    spread ^ spread >> 32
}
