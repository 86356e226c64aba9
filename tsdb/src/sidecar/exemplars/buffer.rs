//! Exemplars in memory until they are in the object store: bounded, and never dropped once they were
//! acknowledged.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;

use model::exemplar::{Accepted, Exemplar, Gathered, Refused, SeriesExemplars};
use model::labels::Labels;
use model::matcher::Matcher;
use model::matcher::matches_all;
use model::tenant::TenantId;

/// Exemplars in memory. One lock: exemplars are a thousandth of what samples are.
pub struct Buffer {
    inner: Mutex<Inner>,
    max_bytes: u64,
}

#[derive(Default)]
struct Inner {
    tenants: HashMap<TenantId, BTreeMap<Labels, Series>>,
    /// What is held in all, and how much of it a flush is turning into files.
    bytes: u64,
    frozen_bytes: u64,
    active: u64,
    frozen: u64,
}

struct Series {
    /// What a further one is compared with; stays for a while after it went to the object store.
    newest: Exemplar,
    active: Vec<Exemplar>,
    frozen: Vec<Exemplar>,
}

impl Series {
    fn bytes(labels: &Labels) -> u64 {
        250 + labels.byte_len() as u64
    }
}

/// How much a buffer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferCounts {
    pub exemplars: u64,
    pub bytes: u64,
}

impl Buffer {
    /// At most `max_bytes` are held; from half of it on a flush is due.
    pub fn new(max_bytes: u64) -> Buffer {
        Buffer { inner: Mutex::default(), max_bytes }
    }

    pub fn counts(&self) -> BufferCounts {
        let inner = self.inner.lock();
        BufferCounts { exemplars: inner.active + inner.frozen, bytes: inner.bytes }
    }

    /// Exemplars that the next freeze takes.
    pub fn active(&self) -> u64 {
        self.inner.lock().active
    }

    /// Whether those that no flush is at work on take so much that one should begin.
    pub fn is_half_full(&self) -> bool {
        let inner = self.inner.lock();
        inner.active > 0 && (inner.bytes - inner.frozen_bytes) >= self.max_bytes / 2
    }

    /// What would become of an exemplar, `waiting_bytes` being what the same writer has yet to put.
    pub fn check(
        &self,
        tenant: &TenantId,
        series: &Labels,
        exemplar: &Exemplar,
        waiting_bytes: u64,
    ) -> Result<Accepted, Refused> {
        let inner = self.inner.lock();
        if let Some(known) = inner.tenants.get(tenant).and_then(|t| t.get(series))
            && exemplar.check_after(&known.newest)? == Accepted::Duplicate
        {
            return Ok(Accepted::Duplicate);
        }
        if inner.bytes + waiting_bytes + exemplar.bytes() > self.max_bytes {
            return Err(Refused::Full(format!(
                "exemplars hold all of the {} bytes of memory they may (exemplars.max_bytes) until they are in the object store",
                self.max_bytes
            )));
        }
        Ok(Accepted::New)
    }

    /// Takes an exemplar that is in the log; one that came in between may make it a duplicate or late, and
    /// then it is left out.
    pub fn put(&self, tenant: &TenantId, series: &Labels, exemplar: Exemplar) -> Result<Accepted, Refused> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        if !inner.tenants.contains_key(tenant) {
            inner.tenants.insert(tenant.clone(), BTreeMap::new());
        }
        let all = inner.tenants.get_mut(tenant).expect("just inserted");
        let bytes = exemplar.bytes();
        match all.get_mut(series) {
            Some(known) => {
                if exemplar.check_after(&known.newest)? == Accepted::Duplicate {
                    return Ok(Accepted::Duplicate);
                }
                known.newest = exemplar.clone();
                known.active.push(exemplar);
            }
            None => {
                inner.bytes += Series::bytes(series);
                let new = Series { newest: exemplar.clone(), active: vec![exemplar], frozen: Vec::new() };
                all.insert(series.clone(), new);
            }
        }
        inner.bytes += bytes;
        inner.active += 1;
        Ok(Accepted::New)
    }

    /// Sets aside all that is there for the flush that begins, beside what a flush that failed has set aside.
    pub fn freeze(&self) {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        for all in inner.tenants.values_mut() {
            all.retain(|labels, s| {
                if s.active.is_empty() && s.frozen.is_empty() {
                    // Nothing since the freeze before.
                    inner.bytes -= Series::bytes(labels);
                    return false;
                }
                let bytes: u64 = s.active.iter().map(Exemplar::bytes).sum();
                inner.frozen_bytes += bytes;
                inner.frozen += s.active.len() as u64;
                s.frozen.append(&mut s.active);
                true
            });
        }
        inner.active = 0;
        inner.tenants.retain(|_, all| !all.is_empty());
    }

    /// What a flush is to write of a tenant.
    pub fn frozen_of(&self, tenant: &TenantId) -> Vec<SeriesExemplars> {
        self.of(tenant, |s| &s.frozen)
    }

    /// What came of a tenant since the last flush began.
    pub fn active_of(&self, tenant: &TenantId) -> Vec<SeriesExemplars> {
        self.of(tenant, |s| &s.active)
    }

    fn of(&self, tenant: &TenantId, part: impl Fn(&Series) -> &Vec<Exemplar>) -> Vec<SeriesExemplars> {
        let inner = self.inner.lock();
        let all = inner.tenants.get(tenant).into_iter().flatten();
        all.filter(|(_, s)| !part(s).is_empty())
            .map(|(labels, s)| SeriesExemplars { labels: labels.clone(), exemplars: part(s).clone() })
            .collect()
    }

    /// Lets go of what was set aside of a tenant: it is in the object store and every query from now on looks
    /// there.
    pub fn forget_frozen(&self, tenant: &TenantId) {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        for s in inner.tenants.get_mut(tenant).into_iter().flat_map(BTreeMap::values_mut) {
            let frozen = std::mem::take(&mut s.frozen);
            let bytes = frozen.iter().map(Exemplar::bytes).sum::<u64>();
            inner.bytes -= bytes;
            inner.frozen_bytes -= bytes;
            inner.frozen -= frozen.len() as u64;
        }
    }

    /// Adds what matches any of the selectors in a range of time, both ends included.
    pub fn select(
        &self,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        min_t_ms: i64,
        max_t_ms: i64,
        to: &mut Gathered,
    ) {
        let inner = self.inner.lock();
        for (labels, s) in inner.tenants.get(tenant).into_iter().flatten() {
            if selectors.iter().any(|m| matches_all(labels, m)) {
                let all = s.frozen.iter().chain(&s.active);
                to.add(labels, all.filter(|e| min_t_ms <= e.ts_ms && e.ts_ms <= max_t_ms).cloned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exemplar(ts_ms: i64) -> Exemplar {
        Exemplar { ts_ms, value: ts_ms as f64, labels: Labels::from_pairs([("trace_id", "abc")]) }
    }

    #[test]
    fn exemplar_buffer_hides_nothing_at_a_freeze_and_leaves_no_bytes_behind() {
        let buffer = Buffer::new(10_000);
        let tenant = TenantId::single();
        let up = Labels::from_pairs([("__name__", "up")]);
        let seen = || {
            let mut all = Gathered::default();
            buffer.select(&tenant, &[vec![]], i64::MIN, i64::MAX, &mut all);
            all.finish().iter().map(|s| s.exemplars.len()).sum::<usize>()
        };
        for t in 0..3 {
            assert_eq!(buffer.put(&tenant, &up, exemplar(t)), Ok(Accepted::New));
        }
        assert_eq!(buffer.put(&tenant, &up, exemplar(2)), Ok(Accepted::Duplicate));
        assert_eq!(buffer.put(&tenant, &up, exemplar(1)), Err(Refused::OutOfOrder));
        buffer.freeze();
        assert_eq!((buffer.active(), seen()), (0, 3));
        buffer.put(&tenant, &up, exemplar(3)).unwrap();
        assert_eq!(seen(), 4);
        assert_eq!(buffer.frozen_of(&tenant)[0].exemplars.len(), 3);
        buffer.forget_frozen(&tenant);
        assert_eq!((seen(), buffer.counts().exemplars), (1, 1));
        buffer.freeze();
        buffer.forget_frozen(&tenant);
        assert_eq!(
            buffer.put(&tenant, &up, exemplar(3)),
            Ok(Accepted::Duplicate),
            "it is in the object store"
        );
        buffer.freeze();
        buffer.freeze();
        assert_eq!(buffer.counts(), BufferCounts::default());
    }

    #[test]
    fn exemplar_buffer_that_is_full_takes_no_more_before_it_is_in_the_log() {
        let buffer = Buffer::new(1000);
        let tenant = TenantId::single();
        let up = Labels::from_pairs([("__name__", "up")]);
        let mut t = 0;
        while buffer.check(&tenant, &up, &exemplar(t), 0).is_ok() {
            buffer.put(&tenant, &up, exemplar(t)).unwrap();
            t += 1;
        }
        assert!(t > 3 && buffer.counts().bytes <= 1000 && buffer.is_half_full());
        let refused = buffer.check(&tenant, &up, &exemplar(t), 0).unwrap_err();
        assert!(refused.to_string().contains("exemplars.max_bytes"), "{refused}");
        assert_eq!(
            buffer.check(&tenant, &up, &exemplar(t - 1), 0),
            Ok(Accepted::Duplicate),
            "what is there costs nothing"
        );
    }
}
