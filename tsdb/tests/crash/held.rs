//! What a store must hold, and the folder it lies in, as values that can be compared and put back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::exemplar::Accepted;
use model::histogram::{BucketSpan, Histogram};
use model::labels::Labels;
use model::sample::Metadata;
use model::source::{Budget, Hints, Selection, SeriesColumns};
use model::tenant::TenantId;
use object_store::ObjectStore;
use tsdb::catalog::Commits;
use tsdb::db::{Appended, Db, DbOptions};

/// The time of request 0; a request's samples are a second after those of the one before.
pub const T0: i64 = 1_700_000_000_000;

pub fn options(dir: &Path, store: Arc<dyn ObjectStore>) -> DbOptions {
    DbOptions { flush_when_due: false, commits: Commits::Unasked, ..DbOptions::new(dir, store) }
}

/// Opens a store that must open. One that was dropped just now may hold its folder for a moment, until its
/// own tasks have let go of it.
pub async fn open(options: DbOptions) -> Arc<Db> {
    for _ in 0..200 {
        match Db::open(options.clone()).await {
            Err(e) if e.to_string().contains("in use by another") => {
                tokio::time::sleep(Duration::from_millis(10)).await
            }
            opened => return opened.unwrap_or_else(|e| panic!("refused to start: {e}")),
        }
    }
    panic!("the folder {} stays in use", options.dir.display())
}

/// All of one tenant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// Series → time → value and start timestamp, bit for bit.
    samples: BTreeMap<Labels, BTreeMap<i64, String>>,
    /// Series → time, value, trace.
    exemplars: BTreeMap<Labels, Vec<(i64, u64, String)>>,
    metadata: BTreeMap<String, Vec<Metadata>>,
}

impl Contents {
    pub fn samples(&self) -> u64 {
        self.samples.values().map(|s| s.len() as u64).sum()
    }

    pub fn exemplars(&self) -> u64 {
        self.exemplars.values().map(|e| e.len() as u64).sum()
    }

    /// Metrics and the times of their samples.
    pub fn times(&self) -> Vec<(String, Vec<i64>)> {
        let one = |(labels, samples): (&Labels, &BTreeMap<i64, String>)| {
            (labels.metric_name().unwrap_or_default().to_string(), samples.keys().copied().collect())
        };
        self.samples.iter().map(one).collect()
    }

    /// Adds what another holds.
    pub fn add(&mut self, more: &Contents) {
        for (labels, samples) in &more.samples {
            self.samples.entry(labels.clone()).or_default().extend(samples.clone());
        }
        for (labels, exemplars) in &more.exemplars {
            self.exemplars.entry(labels.clone()).or_default().extend(exemplars.iter().cloned());
        }
        self.metadata.extend(more.metadata.clone());
    }

    /// Takes out what another holds.
    pub fn remove(&mut self, part: &Contents) {
        self.samples.retain(|labels, samples| {
            samples.retain(|t, _| !part.samples.get(labels).is_some_and(|gone| gone.contains_key(t)));
            !samples.is_empty()
        });
        self.exemplars.retain(|labels, all| {
            all.retain(|e| !part.exemplars.get(labels).is_some_and(|gone| gone.contains(e)));
            !all.is_empty()
        });
        self.metadata.retain(|metric, _| !part.metadata.contains_key(metric));
    }

    /// Whether all samples of a part are here as they should be, or none; `None` for some.
    pub fn has(&self, part: &Contents) -> Option<bool> {
        let there = part.samples.iter().map(|(labels, samples)| {
            let mine = self.samples.get(labels);
            samples.iter().filter(|(t, v)| mine.and_then(|m| m.get(t)) == Some(v)).count() as u64
        });
        match there.sum::<u64>() {
            there if there == part.samples() => Some(true),
            0 => Some(false),
            _ => None,
        }
    }

    /// What another holds less or more, shortly.
    pub fn against(&self, read: &Contents) -> String {
        let mut out = Vec::new();
        for labels in self.samples.keys().chain(read.samples.keys()) {
            let (must, has) = (self.samples.get(labels), read.samples.get(labels));
            if must != has {
                let times = |of: Option<&BTreeMap<i64, String>>| {
                    of.into_iter()
                        .flatten()
                        .map(|(t, v)| format!("{}: {v}", (t - T0) / 1000))
                        .collect::<Vec<_>>()
                };
                out.push(format!("{labels} is {:?} and should be {:?}", times(has), times(must)));
            }
        }
        if self.exemplars != read.exemplars {
            out.push(format!("exemplars are {:?} and should be {:?}", read.exemplars, self.exemplars));
        }
        if self.metadata != read.metadata {
            let names = |of: &Contents| of.metadata.keys().cloned().collect::<Vec<_>>();
            out.push(format!("metadata is of {:?} and should be of {:?}", names(read), names(self)));
        }
        out.join("; ")
    }

    fn put(&mut self, labels: Labels, ts_ms: i64, value: String, start_ts_ms: i64) {
        self.samples.entry(labels).or_default().insert(ts_ms, format!("{value} since {start_ts_ms}"));
    }
}

/// What a request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brings {
    Floats,
    Histograms,
    Exemplars,
    Metadata,
}

pub const ALL: [Brings; 4] = [Brings::Floats, Brings::Histograms, Brings::Exemplars, Brings::Metadata];

fn labels(name: &str, n: i64) -> Labels {
    Labels::from_pairs([("__name__", name.to_string()), ("n", n.to_string())])
}

fn bits(value: f64) -> String {
    format!("{:x}", value.to_bits())
}

fn of_histogram(h: &Histogram) -> String {
    format!("{:?} {} {}", h.positive_buckets, h.count, h.sum)
}

/// Writes request number `n`, which no other repeats, and adds it to what is held. Three series and one new
/// one of floats, one of histograms.
pub async fn write(
    db: &Arc<Db>,
    tenant: &TenantId,
    held: &mut Contents,
    n: i64,
    brings: &[Brings],
) -> Appended {
    let mut appender = db.appender(tenant).await.unwrap();
    let ts_ms = T0 + n * 1000;
    for brings in brings {
        match brings {
            Brings::Floats => {
                for of in [0, 1, 2, 100 + n] {
                    let labels = labels("floats", of);
                    let series = appender.series(&labels.iter().collect::<Vec<_>>());
                    let (value, start_ts_ms) = (n as f64 / 8.0 + of as f64, if of == 1 { T0 - 1 } else { 0 });
                    appender.float(series, ts_ms, value, start_ts_ms);
                    held.put(labels, ts_ms, bits(value), start_ts_ms);
                }
            }
            Brings::Histograms => {
                let labels = labels("histograms", 0);
                let series = appender.series(&labels.iter().collect::<Vec<_>>());
                let histogram = Histogram {
                    count: 3.0 + n as f64,
                    sum: n as f64 / 4.0,
                    positive_spans: vec![BucketSpan { offset: 1, length: 2 }],
                    positive_buckets: vec![1.0 + n as f64, 2.0],
                    ..Histogram::default()
                };
                held.put(labels, ts_ms, of_histogram(&histogram), T0 - 2);
                appender.histogram(series, ts_ms, Arc::new(histogram), T0 - 2);
            }
            Brings::Exemplars => {
                let labels = labels("floats", 0);
                let series = appender.series(&labels.iter().collect::<Vec<_>>());
                let trace = format!("trace {n}");
                let stores = appender.exemplar(series, ts_ms, 0.5, &[("trace_id", &trace)]);
                assert_eq!(stores, Ok(Accepted::New));
                held.exemplars.entry(labels).or_default().push((ts_ms, 0.5f64.to_bits(), trace));
            }
            Brings::Metadata => {
                let about = Metadata { kind: "counter".into(), help: format!("Help {n}."), unit: "".into() };
                appender.metadata(&format!("metric_{n}"), about.clone());
                held.metadata.insert(format!("metric_{n}"), vec![about]);
            }
        }
    }
    appender.commit().await.unwrap()
}

/// All that a tenant's readers see.
pub async fn read(db: &Arc<Db>, tenant: &TenantId) -> Contents {
    let (db, tenant) = (db.clone(), tenant.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let mut held = Contents::default();
        let selection = Selection {
            matchers: vec![],
            min_t_ms: i64::MIN,
            max_t_ms: i64::MAX,
            hints: Hints::default(),
            budget: Budget::unlimited(),
        };
        let source = db.source(&tenant);
        let mut cursor = source.select(&selection).unwrap();
        while let Some(batch) = cursor.next_batch().unwrap() {
            batch.into_iter().for_each(|s| take(&mut held, s));
        }
        for s in db.exemplars(&tenant, &[vec![]], i64::MIN, i64::MAX, &Budget::unlimited()).unwrap() {
            let one = |e: &model::exemplar::Exemplar| {
                (e.ts_ms, e.value.to_bits(), e.labels.value("trace_id").to_string())
            };
            held.exemplars.insert(s.labels, s.exemplars.iter().map(one).collect());
        }
        held.metadata = db.metadata(&tenant, None, &Budget::unlimited()).unwrap();
        held
    });
    reading.await.unwrap()
}

fn take(held: &mut Contents, s: SeriesColumns) {
    assert!(s.ts_ms.is_sorted_by(|a, b| a < b), "{:?} of {}", s.ts_ms, s.labels);
    assert!(!held.samples.contains_key(&s.labels), "{} comes twice", s.labels);
    for (i, &ts_ms) in s.ts_ms.iter().enumerate() {
        let histogram = s.histograms.as_ref().and_then(|all| all[i].as_deref());
        let value = histogram.map_or_else(|| bits(s.values[i]), of_histogram);
        held.put(s.labels.clone(), ts_ms, value, s.start_ts_ms.as_ref().map_or(0, |all| all[i]));
    }
}

/// The files of a folder, by their path in it; the lock is nobody's after a crash.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

pub fn files(folder: &Path) -> Files {
    fn walk(folder: &Path, below: &Path, out: &mut Files) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let below = below.join(path.file_name().unwrap());
            if path.is_dir() {
                walk(&path, &below, out);
            } else if below != Path::new("lock") {
                out.insert(below, std::fs::read(path).unwrap());
            }
        }
    }
    let mut out = Files::new();
    walk(folder, Path::new(""), &mut out);
    out
}

/// A folder of these files.
pub fn folder(files: &Files) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    folder
}
