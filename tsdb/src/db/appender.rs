//! One request's writes: looked up, logged, made durable, then visible.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedRwLockReadGuard;

use super::turns::{Instants, Turn};
use super::{Appended, Db, WriteError};
use crate::head::samples::Put;
use crate::head::{LabelPairs, MAX_ENTRY_BYTES, Series, SeriesLimits, TenantHead, TooManySeries};
use crate::sidecar::metadata::{MAX_PER_METRIC, entry_bytes};
use crate::wal::record::{
    FloatRow, HistogramRow, TooLong, put_exemplars, put_floats, put_histograms, put_metadata, put_series,
};
use crate::wal::{PATIENCE, Pending, Stale};
use model::exemplar::{Accepted, Exemplar, Refused};
use model::histogram::Histogram;
use model::labels::Labels;
use model::sample::{Metadata, Value};
use model::tenant::TenantId;

/// Samples that a request may write into the head on a thread that serves others as well: some milliseconds
/// of work.
const APPLIED_INLINE: usize = 5_000;

/// A series within one [`Appender`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeriesRef(pub u32);

/// An exemplar on its way.
struct Waiting {
    series: u32,
    labels: Labels,
    exemplar: Exemplar,
}

/// Collects the writes of one request. Dropped without [`Appender::commit`], it leaves nothing but perhaps a
/// few empty series.
pub struct Appender {
    db: Arc<Db>,
    tenant: Arc<TenantHead>,
    rows: Rows,
    /// The series, by number, of the last batch's histograms.
    with_histograms: HashSet<u32>,
    /// Each entry once, and about what they take.
    metadata: BTreeMap<String, Vec<Metadata>>,
    metadata_bytes: u64,
    exemplars: Vec<Waiting>,
    /// The latest of each series among them.
    latest_exemplar: HashMap<Labels, usize>,
    exemplar_bytes: u64,
    gate: OwnedRwLockReadGuard<()>,
}

/// A request's samples.
#[derive(Default)]
struct Rows {
    series: Vec<Arc<Series>>,
    /// `series` of a row is an index into the list above until the row is logged.
    floats: Vec<FloatRow>,
    histograms: Vec<HistogramRow>,
    /// Where floats and histograms go on with a further batch: of one series the log and the head take the
    /// floats of a batch before its histograms.
    batches: Vec<(usize, usize)>,
}

impl Rows {
    fn series(&self, at: u32) -> &Series {
        &self.series[at as usize]
    }

    fn times_ms(&self) -> impl Iterator<Item = i64> {
        self.floats.iter().map(|r| r.ts_ms).chain(self.histograms.iter().map(|r| r.ts_ms))
    }

    /// Floats and histograms, batch by batch.
    fn batches(&self) -> impl Iterator<Item = (&[FloatRow], &[HistogramRow])> {
        let end = (self.floats.len(), self.histograms.len());
        let mut from = (0, 0);
        self.batches.iter().copied().chain([end]).map(move |to| {
            let (floats, histograms) = (&self.floats[from.0..to.0], &self.histograms[from.1..to.1]);
            from = to;
            (floats, histograms)
        })
    }
}

impl Instants for Rows {
    fn all(&self) -> Vec<(u32, i64)> {
        let floats = self.floats.iter().map(|r| (self.series(r.series).id, r.ts_ms));
        floats.chain(self.histograms.iter().map(|r| (self.series(r.series).id, r.ts_ms))).collect()
    }
}

impl Appender {
    pub(super) fn new(db: Arc<Db>, tenant: Arc<TenantHead>, gate: OwnedRwLockReadGuard<()>) -> Self {
        Appender {
            db,
            tenant,
            rows: Rows::default(),
            with_histograms: HashSet::new(),
            metadata: BTreeMap::new(),
            metadata_bytes: 0,
            exemplars: Vec::new(),
            latest_exemplar: HashMap::new(),
            exemplar_bytes: 0,
            gate,
        }
    }

    /// The series of these labels, made where it is new. `labels` must be ascending by name, unique, without
    /// empty values.
    pub fn series(&mut self, labels: &[(&str, &str)]) -> SeriesRef {
        self.rows.series.push(self.db.head.series(&self.tenant, labels));
        SeriesRef(self.rows.series.len() as u32 - 1)
    }

    /// The same, where a new one is made only within the tenant's limits.
    pub fn series_within(
        &mut self,
        labels: &[(&str, &str)],
        limits: &SeriesLimits,
    ) -> Result<SeriesRef, TooManySeries> {
        self.rows.series.push(self.db.head.series_within(&self.tenant, labels, limits)?);
        Ok(SeriesRef(self.rows.series.len() as u32 - 1))
    }

    /// The number by which [`Appender::lookup`] finds a series again, in this process and as long as it is in
    /// the head.
    pub fn number(&self, series: SeriesRef) -> u32 {
        self.rows.series(series.0).id
    }

    /// Series by the numbers they had: one entry for each of `numbers`, `None` where it is gone or `same`
    /// says that it is another. `same` must compare all labels, because a number is given out again.
    pub fn lookup(
        &mut self,
        numbers: &[Option<u32>],
        same: impl FnMut(usize, LabelPairs<'_>) -> bool,
        found: &mut Vec<Option<SeriesRef>>,
    ) {
        found.clear();
        found.resize(numbers.len(), None);
        let mine = &mut self.rows.series;
        self.db.head.lookup(&self.tenant, numbers, same, |at, series| {
            mine.push(series.clone());
            found[at] = Some(SeriesRef(mine.len() as u32 - 1));
        });
    }

    /// When the newest sample of the tenant is, as far as this process wrote it.
    pub fn newest_ms(&self) -> Option<i64> {
        self.tenant.newest_ms()
    }

    /// When the newest sample of a series in the head is.
    pub fn newest_of(&self, series: SeriesRef) -> Option<i64> {
        self.rows.series(series.0).range_ms(0..=u64::MAX).map(|(_, newest)| newest)
    }

    pub fn tenant(&self) -> &TenantId {
        &self.tenant.id
    }

    /// Series in the head of all tenants.
    pub fn series_in_head(&self) -> u64 {
        self.db.head.series_count()
    }

    /// `start_ts_ms` 0 means unknown.
    pub fn float(&mut self, series: SeriesRef, ts_ms: i64, value: f64, start_ts_ms: i64) {
        if !self.with_histograms.is_empty() && self.with_histograms.contains(&self.number(series)) {
            // A float after a histogram of its series: where both have one time, the later stands, after a
            // restart as well.
            self.rows.batches.push((self.rows.floats.len(), self.rows.histograms.len()));
            self.with_histograms.clear();
        }
        self.rows.floats.push(FloatRow { series: series.0, ts_ms, value, start_ts_ms });
    }

    /// `start_ts_ms` 0 means unknown.
    pub fn histogram(&mut self, series: SeriesRef, ts_ms: i64, value: Arc<Histogram>, start_ts_ms: i64) {
        self.with_histograms.insert(self.number(series));
        self.rows.histograms.push(HistogramRow { series: series.0, ts_ms, value, start_ts_ms });
    }

    /// What a metric is; kept once however often it is told, and only as long as there is room: it says what
    /// samples are, and must not push them out.
    pub fn metadata(&mut self, metric: &str, metadata: Metadata) {
        if self.tenant.knows(metric, &metadata, self.db.options.clock.now_ms())
            || self
                .metadata
                .get(metric)
                .is_some_and(|all| all.contains(&metadata) || all.len() >= MAX_PER_METRIC)
        {
            return;
        }
        let bytes = entry_bytes(metric, &metadata);
        if bytes > MAX_ENTRY_BYTES || !self.tenant.has_room_for(self.metadata_bytes + bytes) {
            self.db.counts.refused_metadata.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.metadata_bytes += bytes;
        self.metadata.entry(metric.to_string()).or_default().push(metadata);
    }

    /// An exemplar of a series; `labels` ascending by name, unique, without empty values. A duplicate of the
    /// newest is no fault and is not kept twice.
    pub fn exemplar(
        &mut self,
        series: SeriesRef,
        ts_ms: i64,
        value: f64,
        labels: &[(&str, &str)],
    ) -> Result<Accepted, Refused> {
        Exemplar::check_length(labels)?;
        let exemplar = Exemplar { ts_ms, value, labels: Labels::from_sorted(labels.iter().copied()) };
        let of_series = self.db.head.labels_of(self.rows.series(series.0));
        if let Some(before) = self.latest_exemplar.get(&of_series)
            && exemplar.check_after(&self.exemplars[*before].exemplar)? == Accepted::Duplicate
        {
            return Ok(Accepted::Duplicate);
        }
        let place = self.db.exemplars.check(&self.tenant.id, &of_series, &exemplar, self.exemplar_bytes)?;
        if place == Accepted::New {
            self.exemplar_bytes += exemplar.bytes();
            self.latest_exemplar.insert(of_series.clone(), self.exemplars.len());
            self.exemplars.push(Waiting { series: series.0, labels: of_series, exemplar });
        }
        Ok(place)
    }

    /// Returns when all of it is durable and visible. Goes on to the end even if the caller loses interest,
    /// so that what is in the log and what queries see are the same.
    pub async fn commit(self) -> Result<Appended, WriteError> {
        let samples = self.rows.floats.len() + self.rows.histograms.len();
        if samples == 0 && self.metadata.is_empty() && self.exemplars.is_empty() {
            return Ok(Appended::default());
        }
        match tokio::spawn(self.log_and_apply()).await {
            Ok(result) => result,
            Err(e) => Err(WriteError::Unavailable(format!("the write did not finish: {e}"))),
        }
    }

    async fn log_and_apply(self) -> Result<Appended, WriteError> {
        if self.db.owed.is_promised()
            && let Some(oldest_ms) = self.rows.times_ms().min()
        {
            self.db.owed.allow(oldest_ms).await?;
        }
        let (pending, turn) = self.log()?;
        match tokio::time::timeout(PATIENCE, pending.durable()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(WriteError::Unavailable(e.to_string())),
            Err(_) => {
                let why = format!("the log's disk did not answer within {} s", PATIENCE.as_secs());
                return Err(WriteError::Unavailable(why));
            }
        }
        if !self.exemplars.is_empty() {
            // Which of them are kept depends on those before.
            turn.earlier_ended().await;
        }
        if self.rows.floats.len() + 16 * self.rows.histograms.len() <= APPLIED_INLINE {
            return Ok(self.apply(turn));
        }
        // The threads that serve everybody must not be held by one request, whatever is in it.
        let applied = tokio::task::spawn_blocking(move || self.apply(turn)).await;
        applied.map_err(|e| WriteError::Unavailable(format!("the write did not finish: {e}")))
    }

    fn log(&self) -> Result<(Pending, Turn), WriteError> {
        let log = &self.db.log;
        loop {
            let mark = log.mark();
            let (records, defined) = self.encode(mark).map_err(|e| WriteError::TooLarge(e.to_string()))?;
            match log.append(mark, records) {
                Ok(pending) => {
                    let turn = self.db.turns.turn(pending.number());
                    for at in defined {
                        self.rows.series[at].set_logged(mark);
                    }
                    return Ok((pending, turn));
                }
                Err(Stale) => continue,
            }
        }
    }

    /// The records of this request, and which series they define: each once, however often the request names
    /// it.
    fn encode(&self, mark: u64) -> Result<(Vec<u8>, Vec<usize>), TooLong> {
        let rows = &self.rows;
        let mut out = Vec::with_capacity(64 + rows.floats.len() * 6);
        let mut seen = HashSet::new();
        let undefined = |at: &usize| !rows.series[*at].is_logged(mark) && seen.insert(rows.series[*at].id);
        let defined: Vec<usize> = (0..rows.series.len()).filter(undefined).collect();
        if !defined.is_empty() {
            let tenant = self.tenant.id.as_str();
            self.db.head.with_labels_of(defined.iter().map(|&at| &*rows.series[at]), |all| {
                put_series(&mut out, all.into_iter().map(|(id, labels)| (id, tenant, labels)))
            })?;
        }
        for (floats, histograms) in rows.batches() {
            if !floats.is_empty() {
                let row = |r: &FloatRow| FloatRow { series: rows.series(r.series).id, ..*r };
                put_floats(&mut out, floats.iter().map(row))?;
            }
            if !histograms.is_empty() {
                let row = |r: &HistogramRow| HistogramRow { series: rows.series(r.series).id, ..r.clone() };
                put_histograms(&mut out, &histograms.iter().map(row).collect::<Vec<_>>())?;
            }
        }
        if !self.exemplars.is_empty() {
            let row = |w: &'_ Waiting| rows.series(w.series).id;
            put_exemplars(&mut out, self.exemplars.iter().map(|w| (row(w), &w.exemplar)))?;
        }
        for (metric, metadata) in self.metadata.iter().flat_map(|(m, all)| all.iter().map(move |e| (m, e))) {
            put_metadata(&mut out, self.tenant.id.as_str(), metric, metadata)?;
        }
        Ok((out, defined))
    }

    fn apply(self, turn: Turn) -> Appended {
        let rows = Arc::new(self.rows);
        turn.begin(rows.clone());
        let overruled = |series, ts_ms| turn.is_overruled(series, ts_ms);
        // The gate is held: no generation is frozen until this is done.
        let mut head = self.db.head.writing_unless(&overruled);
        let mut appended = Appended::default();
        let mut count = |put: Put| match put {
            Put::InOrder => appended.samples += 1,
            Put::OutOfOrder => {
                appended.samples += 1;
                appended.out_of_order += 1;
            }
            Put::Duplicate => appended.duplicates += 1,
        };
        // Series leave the head only while no appender holds the gate.
        let here = |put: Option<()>| put.expect("a series left the head while a writer held it");
        let of = |series: u32| rows.series(series);
        for (floats, histograms) in rows.batches() {
            for run in floats.chunk_by(|a, b| of(a.series).id == of(b.series).id) {
                let series = of(run[0].series);
                match run {
                    [r] => {
                        here(head.put(series, r.ts_ms, Value::Float(r.value), r.start_ts_ms).map(&mut count))
                    }
                    run => {
                        let rows = run.iter().map(|r| (r.ts_ms, Value::Float(r.value), r.start_ts_ms));
                        here(head.put_all(series, rows, &mut count));
                    }
                }
            }
            for run in histograms.chunk_by(|a, b| of(a.series).id == of(b.series).id) {
                let rows = run.iter().map(|r| (r.ts_ms, Value::Histogram(r.value.clone()), r.start_ts_ms));
                here(head.put_all(of(run[0].series), rows, &mut count));
            }
        }
        head.finish();
        if let Some(newest_ms) = rows.times_ms().max() {
            self.tenant.wrote_until(newest_ms);
        }
        // After they are in the head, and before the write is acknowledged.
        self.db.changes.of(&self.tenant.id).wrote(rows.times_ms(), self.db.head.generation());
        let now_ms = self.db.options.clock.now_ms();
        for (metric, metadata) in &self.metadata {
            metadata.iter().for_each(|entry| self.tenant.learn(metric, entry, now_ms));
        }
        for w in self.exemplars {
            // Another request may have brought a later one meanwhile; then this one is left out, as upstream
            // does.
            let _ = self.db.exemplars.put(&self.tenant.id, &w.labels, w.exemplar);
        }
        // What is cut off with this generation has all had its turn.
        drop(turn);
        drop(self.gate);
        appended
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::catalog::Commits;
    use crate::db::DbOptions;
    use model::source::{Budget, Hints, Selection};

    async fn open(dir: &std::path::Path) -> Arc<Db> {
        let options = DbOptions::new(dir, Arc::new(InMemory::new()));
        let options = DbOptions { flush_when_due: false, commits: Commits::Unasked, ..options };
        loop {
            match Db::open(options.clone()).await {
                // The process before, in this test, may be letting go of the folder yet.
                Err(e) if e.passes() => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                opened => return opened.unwrap(),
            }
        }
    }

    async fn read(db: &Arc<Db>) -> String {
        let db = db.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let (tenant, budget) = (TenantId::single(), Budget::unlimited());
            let all = (i64::MIN, i64::MAX);
            let exemplars = db.exemplars(&tenant, &[vec![]], all.0, all.1, &budget).unwrap();
            let hints = Hints::default();
            let selection = Selection { matchers: vec![], min_t_ms: all.0, max_t_ms: all.1, hints, budget };
            let source = db.source(&tenant);
            let mut cursor = source.select(&selection).unwrap();
            let mut text = format!("{exemplars:?}\n");
            while let Some(batch) = cursor.next_batch().unwrap() {
                for s in batch {
                    text += &format!("{} {:?} {:?} {:?}\n", s.labels, s.ts_ms, s.values, s.start_ts_ms);
                    text += &format!("{:?}\n", s.histograms);
                }
            }
            text
        });
        reading.await.unwrap()
    }

    /// Writes one instant of three series, another value each time: a float, a histogram or both, one that
    /// differs in its start timestamp alone, and many late ones at once.
    async fn request(db: &Arc<Db>, n: u32) -> Appender {
        let mut appender = db.appender(&TenantId::single()).await.unwrap();
        let series = |appender: &mut Appender, name| appender.series(&[("__name__", name)]);
        let histogram = Arc::new(Histogram { sum: n.into(), count: 1.0, ..Histogram::default() });
        let of = series(&mut appender, "value");
        match n % 3 {
            0 => appender.float(of, 1000, n.into(), 0),
            1 => appender.histogram(of, 1000, histogram, 0),
            _ => {
                appender.histogram(of, 1000, histogram, 0);
                appender.float(of, 1000, n.into(), 0);
            }
        }
        let of = series(&mut appender, "start");
        appender.float(of, 1000, 1.0, n.into());
        let of = series(&mut appender, "late");
        appender.float(of, 10_000 + i64::from(n), 1.0, 0);
        (0..100).for_each(|t| appender.float(of, t * (1 + i64::from(n % 2)), n.into(), 0));
        let trace = format!("trace {n}");
        let exemplar = appender.exemplar(of, 1000 + i64::from(n), 0.5, &[("trace_id", &trace)]);
        assert_eq!(exemplar, Ok(Accepted::New));
        appender
    }

    /// Every order in which requests can reach the head that are in the log one after the other.
    #[tokio::test(flavor = "multi_thread")]
    async fn appender_that_is_applied_out_of_turn_leaves_what_a_restart_leaves() {
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        for (first, order) in (1..4).flat_map(|first| orders.map(|order| (first, order))) {
            let dir = tempfile::tempdir().unwrap();
            let db = open(dir.path()).await;
            let mut logged = Vec::new();
            for n in first..first + 3 {
                let request = request(&db, n).await;
                let (pending, turn) = request.log().unwrap();
                pending.durable().await.unwrap();
                logged.push(Some((request, turn)));
            }
            for at in order {
                let (mut request, turn) = logged[at].take().unwrap();
                // What waits for its turn is not part of this.
                request.exemplars.clear();
                request.apply(turn);
            }
            let before = read(&db).await;
            drop(db);
            let after = read(&open(dir.path()).await).await;
            let samples = |text: &str| text.split_once('\n').unwrap().1.to_string();
            assert_eq!(samples(&before), samples(&after), "applied in the order {order:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn exemplars_that_come_at_once_are_those_of_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path()).await;
        let mut writes = Vec::new();
        for n in 0..64 {
            writes.push(request(&db, n).await);
        }
        let writes: Vec<_> = writes.into_iter().map(|w| tokio::spawn(w.commit())).collect();
        for write in writes {
            write.await.unwrap().unwrap();
        }
        let before = read(&db).await;
        drop(db);
        assert_eq!(read(&open(dir.path()).await).await, before);
    }
}
