//! Requests that write the same at the same time, and a restart: both must answer by the order of the log.

use std::sync::Arc;

use model::histogram::Histogram;
use model::tenant::TenantId;
use object_store::memory::InMemory;
use tsdb::db::Db;

use crate::faulty_store::scattered;
use crate::held;

/// Some samples of few series at few times, so that what is written at once meets.
async fn write(db: Arc<Db>, n: u64) {
    let mut appender = db.appender(&TenantId::single()).await.unwrap();
    for i in 0..20 {
        let number = scattered(n, i);
        let name = format!("series_{}", number % 4);
        let series = appender.series(&[("__name__", &name)]);
        let (ts_ms, value) = (held::T0 + (number / 4 % 3) as i64, number as f64);
        match number / 16 % 3 {
            0 => {
                let histogram = Histogram { sum: value, count: 1.0, ..Histogram::default() };
                appender.histogram(series, ts_ms, Arc::new(histogram), 0);
            }
            kind => appender.float(series, ts_ms, value, if kind == 1 { 0 } else { held::T0 - 1 }),
        }
    }
    appender.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_that_meet_are_answered_alike_before_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options = held::options(dir.path(), Arc::new(InMemory::new()));
    let mut db = held::open(options.clone()).await;
    for round in 0..20 {
        let writes: Vec<_> = (0..40).map(|n| tokio::spawn(write(db.clone(), round * 40 + n))).collect();
        for write in writes {
            write.await.unwrap();
        }
        let before = held::read(&db, &TenantId::single()).await;
        drop(db);
        db = held::open(options.clone()).await;
        let after = held::read(&db, &TenantId::single()).await;
        assert_eq!(before, after, "round {round}: {}", before.against(&after));
    }
}
