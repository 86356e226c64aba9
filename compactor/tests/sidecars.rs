//! Files of exemplars and of metadata beside the blocks: checked, found missing or damaged, and written anew
//! with the series they are of.

mod bucket;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bucket::{catalog, settings};
use compactor::inspect::check::{Report, Severity, check_attachments, check_catalog};
use compactor::inspect::listing::{SidecarTotals, listing};
use compactor::job::rewrite::{Rewrite, exemplars_left, rewrite_exemplars};
use compactor::job::{JobError, JobRunner};
use model::clock::SystemClock;
use model::exemplar::SeriesExemplars;
use model::matcher::Matcher;
use model::sample::Metadata;
use model::tenant::TenantId;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tsdb::bucket::maintenance::{BucketMaintenance, Patience};
use tsdb::db::{Db, DbOptions};
use tsdb::sidecar::Kind;

/// A store with one file of exemplars (three of `kept`, two of `dropped`) and one of metadata.
async fn fill() -> Arc<dyn ObjectStore> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let dir = tempfile::tempdir().unwrap();
    let options = DbOptions { flush_when_due: false, ..DbOptions::new(dir.path(), store.clone()) };
    let db = Db::open(options).await.unwrap();
    let now_ms = model::clock::Clock::now_ms(&SystemClock);
    let mut appender = db.appender(&TenantId::single()).await.unwrap();
    for (name, zone, count) in [("kept", "x", 2), ("kept", "y", 1), ("dropped", "x", 2)] {
        let s = appender.series(&[("__name__", name), ("zone", zone)]);
        for i in 0..count {
            let trace = format!("{name}-{zone}-{i}");
            appender.exemplar(s, now_ms + i, i as f64, &[("trace_id", &trace)]).unwrap();
        }
    }
    let kind = "counter".to_string();
    appender.metadata("kept", Metadata { kind, help: "Help.".into(), unit: "".into() });
    appender.commit().await.unwrap();
    db.flush().await.unwrap();
    store
}

fn maintenance(store: &Arc<dyn ObjectStore>) -> BucketMaintenance {
    let patience = Patience { attempts: 2, pause: std::time::Duration::from_micros(100) };
    BucketMaintenance::new(store.clone(), Arc::new(SystemClock), patience)
}

async fn check(store: &Arc<dyn ObjectStore>) -> Report {
    let (maintenance, catalog) = (maintenance(store), catalog(store, "checker").await);
    let mut report = Report::default();
    let snapshot = check_catalog(&maintenance, &catalog, &mut report).await.unwrap();
    check_attachments(&maintenance, &catalog, &snapshot, &[], &mut report).await.unwrap();
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecar_that_is_missing_changed_or_no_parquet_is_damage() {
    let store = fill().await;
    let tenant = TenantId::single();
    let snapshot = catalog(&store, "reader").await.snapshot();
    let listed = listing(&tenant, &snapshot);
    let counts = |of: SidecarTotals| (of.files, of.rows);
    assert_eq!((counts(listed.exemplars), counts(listed.metadata)), ((1, 5), (1, 1)));
    let whole = check(&store).await;
    assert_eq!((whole.sidecars, whole.exemplars, whole.metadata), (2, 5, 1));
    assert_eq!(whole.findings, []);

    for (kind, file) in snapshot.sidecars() {
        let path = kind.path(&tenant, file.ulid);
        let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
        let mut flipped = bytes.to_vec();
        flipped[9] ^= 1;
        for (damage, text) in
            [(Some(flipped), "its checksum is"), (Some(b"PAR1".to_vec()), "4 bytes"), (None, "not there")]
        {
            match damage {
                Some(damage) => drop(store.put(&path, damage.into()).await.unwrap()),
                None => store.delete(&path).await.unwrap(),
            }
            let report = check(&store).await;
            assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
            let found = &report.findings[0];
            assert_eq!(found.severity, Severity::Damage);
            assert!(found.what.contains(path.as_ref()) && found.what.contains(text), "{found:?}");
        }
        store.put(&path, bytes.into()).await.unwrap();
    }
    // Its bytes are what the catalog says, and are something else than it says.
    let (kind, file) = snapshot.sidecars().next().unwrap();
    let mut lying = file.clone();
    lying.rows += 1;
    let told = maintenance(&store).verify_sidecar(&tenant, kind, &lying).await.unwrap_err().to_string();
    assert!(told.contains("5 rows from") && told.contains("the catalog says 6"), "{told}");
    let wrong =
        maintenance(&store).verify_sidecar(&tenant, Kind::Metadata, file).await.unwrap_err().to_string();
    assert!(wrong.contains("not there"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exemplars_of_series_that_are_left_out_go_too() {
    let store = fill().await;
    let (tenant, scratch) = (TenantId::single(), tempfile::tempdir().unwrap());
    let maintenance = maintenance(&store);
    let place = JobRunner {
        maintenance: maintenance.clone(),
        store: maintenance.blocks(1 << 20),
        settings: Arc::new(settings(scratch.path())),
        writer: "test".to_string(),
        scratch: scratch.path().to_owned(),
        stop: Arc::new(AtomicBool::new(false)),
    };
    let catalog = catalog(&store, "rewriter").await;
    let file = catalog.snapshot().exemplars[0].clone();
    let drop = |name: &str| vec![vec![Matcher::equal("__name__", name)]];
    let untouched = Rewrite { drop_series: drop("other"), drop_labels: vec!["nothing".into()] };
    assert_eq!(exemplars_left(&place, &tenant, &file, &untouched).await.unwrap(), None);

    // Two series become one without the label, and their exemplars stand beside one another.
    let what = Rewrite { drop_series: drop("dropped"), drop_labels: vec!["zone".into()] };
    let left = exemplars_left(&place, &tenant, &file, &what).await.unwrap().unwrap();
    let new = rewrite_exemplars(&place, &catalog, &file, left).await.unwrap().unwrap();
    let names = |all: Vec<SeriesExemplars>| {
        let one = |s: SeriesExemplars| (s.labels.to_string(), s.exemplars.len());
        all.into_iter().map(one).collect::<Vec<_>>()
    };
    let read = names(maintenance.read_exemplars(&tenant, &new).await.unwrap());
    assert_eq!(read.len(), 1, "{read:?}");
    assert!(read[0].0.contains("kept") && read[0].1 == 3, "{read:?}");
    assert_eq!(catalog.snapshot().exemplars.iter().map(|f| f.ulid).collect::<Vec<_>>(), [new.ulid]);
    assert_eq!(check(&store).await.exemplars, 3);

    // Another was faster; then nothing is left at all.
    let lost = rewrite_exemplars(&place, &catalog, &file, Vec::new()).await;
    assert!(matches!(lost, Err(JobError::Lost(_))), "{lost:?}");
    let all = Rewrite { drop_series: drop("kept"), drop_labels: Vec::new() };
    let left = exemplars_left(&place, &tenant, &new, &all).await.unwrap().unwrap();
    assert_eq!(rewrite_exemplars(&place, &catalog, &new, left).await.unwrap(), None);
    assert_eq!(catalog.snapshot().exemplars.len(), 0);
}
