//! A head with a small limit under far more than it can hold: it flushes early, pushes back, stays within its
//! limit and loses nothing.

use std::sync::Arc;
use std::time::Duration;

use model::source::{Budget, Hints, Selection};
use model::tenant::TenantId;
use object_store::memory::InMemory;
use tsdb::db::{Db, DbOptions, WriteError};

const LIMIT_BYTES: u64 = 2 << 20;
const SERIES: usize = 2_000;

/// One request: a sample for every series of a kind, values that do not compress.
async fn write(db: &Arc<Db>, kind: &str, t: i64) -> Result<u64, WriteError> {
    let mut appender = db.appender(&TenantId::single()).await?;
    for i in 0..SERIES {
        let instance = format!("host-{i}");
        let series = appender.series(&[("__name__", "noise"), ("instance", &instance), ("kind", kind)]);
        let noise = (t as u64 ^ (i as u64) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        appender.float(series, t, (noise >> 11) as f64 / 1e7, 0);
    }
    appender.commit().await.map(|a| a.samples)
}

async fn count(db: &Arc<Db>) -> u64 {
    let source = db.source(&TenantId::single());
    let all = Selection {
        matchers: vec![],
        min_t_ms: 0,
        max_t_ms: i64::MAX,
        hints: Hints::default(),
        budget: Budget::unlimited(),
    };
    let counted = tokio::task::spawn_blocking(move || {
        let mut cursor = source.select(&all).unwrap();
        let mut samples = 0;
        while let Some(batch) = cursor.next_batch().unwrap() {
            samples += batch.iter().map(|s| s.ts_ms.len() as u64).sum::<u64>();
        }
        samples
    });
    counted.await.unwrap()
}

fn options(dir: &std::path::Path) -> DbOptions {
    DbOptions { max_head_bytes: Some(LIMIT_BYTES), ..DbOptions::new(dir, Arc::new(InMemory::new())) }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_what_fits_is_taken_in_the_end_and_never_more_held_than_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(options(dir.path())).await.unwrap();
    // About 9 bytes a sample: 800 requests of 2,000 samples are ten times what fits beside the series.
    let (mut written, mut refused, mut most) = (0, 0, 0);
    for t in 0..800 {
        loop {
            match write(&db, "a", 1_795_000_000_000 + t * 100).await {
                Ok(samples) => {
                    written += samples;
                    break;
                }
                Err(WriteError::Overloaded(why)) => {
                    assert!(why.contains("head.max_memory_bytes"), "{why}");
                    refused += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(e) => panic!("{e}"),
            }
        }
        most = most.max(db.counts().head_bytes.total());
    }
    let counts = db.counts();
    assert!(counts.early_flushes > 0 && refused > 0 && counts.refused_writes >= refused);
    // One request that was let in just below the limit may lead a little over it.
    assert!(most < LIMIT_BYTES + (1 << 20), "{most} bytes held");
    assert_eq!(written, 800 * SERIES as u64);
    assert_eq!(count(&db).await, written);
}

#[tokio::test(flavor = "multi_thread")]
async fn head_full_of_series_that_fell_silent_takes_writes_again() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(options(dir.path())).await.unwrap();
    // Every request brings series of its own: labels fill the head, not samples.
    let (mut written, mut refused) = (0, 0);
    for n in 0..20 {
        let kind = format!("kind-{n}");
        loop {
            match write(&db, &kind, 1_795_000_000_000 + n).await {
                Ok(samples) => {
                    written += samples;
                    break;
                }
                Err(WriteError::Overloaded(_)) => {
                    refused += 1;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(e) => panic!("{e}"),
            }
        }
    }
    assert!(refused > 0, "the limit was never reached: {:?}", db.counts().head_bytes);
    assert_eq!(count(&db).await, written);
}

#[tokio::test]
async fn head_bytes_that_are_counted_along_are_those_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let options = DbOptions { flush_when_due: false, ..options(dir.path()) };
    let db = Db::open(DbOptions { max_head_bytes: None, ..options }).await.unwrap();
    let empty = db.counts().head_bytes;
    assert_eq!(empty.series + empty.postings + empty.chunks + empty.out_of_order, 0);
    for t in [500, 600, 700, 550, 650] {
        write(&db, "a", 1_795_000_000_000 + t).await.unwrap();
    }
    let held = db.counts().head_bytes;
    assert!(
        held.series > 150 * SERIES as u64
            && held.series < 220 * SERIES as u64
            && held.symbols > 10 * SERIES as u64,
        "{held:?}"
    );
    assert!(held.chunks > 30 * SERIES as u64 && held.out_of_order > 80 * SERIES as u64, "{held:?}");
    // Twice: the series are idle only after a generation in which they had nothing.
    db.flush().await.unwrap();
    let flushed = db.counts().head_bytes;
    assert_eq!((flushed.chunks, flushed.out_of_order, flushed.frozen), (0, 0, 0));
    assert_eq!(flushed.series, held.series);
}
