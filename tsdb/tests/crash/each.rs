//! Every file of a data folder and of its bucket removed in turn: what a user sees. Nothing may be missing
//! from answers without a word.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::tenant::TenantId;
use object_store::local::LocalFileSystem;
use tsdb::catalog::CatalogError;
use tsdb::db::{Db, DbOptions};

use crate::held::{self, ALL, Brings, Contents};

/// How a start without one file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It does not start, and says why.
    Refused,
    /// All is there.
    Nothing,
    /// Something is missing, and a metric counts it.
    Counted,
    /// A query says that it cannot answer, and a metric counts it.
    Failed,
}

/// What the page `docs/formats/layout.md` says of a file; `named` tells of an object's name whether the
/// newest snapshot has it.
fn expected(file: &str, newest_snapshot: &str, named: impl Fn(&str) -> bool) -> Outcome {
    let is = |part: &str| file.contains(part);
    let is_named = || file.split(['/', '.']).any(|part| part.len() == 26 && named(part));
    match file {
        "lock" | "writer" | "progress.json" => Outcome::Nothing,
        "epoch" => Outcome::Refused,
        _ if file == newest_snapshot => Outcome::Refused,
        _ if is("/catalog/") || is("writers/") => Outcome::Nothing,
        _ if file.starts_with("log/") => Outcome::Counted,
        // What was replaced, and waits to be removed.
        _ if file.starts_with("blocks/") && !is_named() => Outcome::Nothing,
        // What a query reads is enough to answer; that its description is gone is counted.
        _ if is("blocks/tenants") && is("meta.json") => Outcome::Counted,
        // Nobody reads that one again.
        _ if file.starts_with("sealed/") && is("meta.json") => Outcome::Nothing,
        _ if file.starts_with("sealed/") => Outcome::Counted,
        _ => Outcome::Failed,
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|e| (e.path(), e.file_name())).unwrap();
        match path.is_dir() {
            true => copy(&path, &to.join(name)),
            false => drop(std::fs::copy(&path, to.join(name)).unwrap()),
        }
    }
}

fn files(below: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut folders = vec![below.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => all.push(path.strip_prefix(below).unwrap().to_string_lossy().into_owned()),
            }
        }
    }
    all.sort();
    all
}

fn options(dir: &Path) -> DbOptions {
    std::fs::create_dir_all(dir.join("blocks")).unwrap();
    held::options(dir, Arc::new(LocalFileSystem::new_with_prefix(dir.join("blocks")).unwrap()))
}

/// A folder with two flushed blocks, a sealed one, and two segments of log, all with exemplars and metadata.
async fn full_folder(dir: &Path) -> Contents {
    let (tenant, mut held) = (TenantId::single(), Contents::default());
    let db = held::open(options(dir)).await;
    for n in 0..2 {
        held::write(&db, &tenant, &mut held, n, &ALL).await;
        db.flush().await.unwrap();
    }
    held::write(&db, &tenant, &mut held, 2, &ALL).await;
    db.seal().await.unwrap();
    held::write(&db, &tenant, &mut held, 3, &[Brings::Floats, Brings::Histograms]).await;
    drop(db);
    let db = held::open(options(dir)).await;
    held::write(&db, &tenant, &mut held, 4, &[Brings::Floats, Brings::Histograms]).await;
    db.close(false).await.unwrap();
    held
}

async fn start(dir: &Path) -> Result<Arc<Db>, String> {
    loop {
        match Db::open(options(dir)).await {
            Err(e) if e.to_string().contains("in use by another") => {
                tokio::time::sleep(Duration::from_millis(5)).await
            }
            opened => return opened.map_err(|e| e.to_string()),
        }
    }
}

/// What a start sees, and whether anything that was held is not answered.
async fn outcome(dir: &Path, held: &Contents) -> (Outcome, bool) {
    let db = match start(dir).await {
        Ok(db) => db,
        Err(why) => {
            assert!(why.len() > 80, "it says what to do: {why}");
            return (Outcome::Refused, false);
        }
    };
    let missing: Result<u64, CatalogError> = db.look_for_missing().await;
    let counts = db.counts();
    assert_eq!(missing.unwrap(), counts.missing_objects);
    let counted = counts.missing_segments + counts.damaged_local_blocks + counts.missing_objects > 0;
    let reading = {
        let db = db.clone();
        tokio::spawn(async move { held::read(&db, &TenantId::single()).await })
    };
    match reading.await {
        // It unwraps what queries answer.
        Err(_) => {
            assert!(counted, "a query fails and no metric says so");
            (Outcome::Failed, true)
        }
        Ok(read) => match counted {
            true => (Outcome::Counted, read != *held),
            false => (Outcome::Nothing, read != *held),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn file_that_is_gone_is_noticed_whichever_it_is() {
    let original = tempfile::tempdir().unwrap();
    let held = full_folder(original.path()).await;
    let all = files(original.path());
    let newest = all.iter().rfind(|f| f.contains("/catalog/")).expect("there are snapshots").clone();
    let snapshot = std::fs::read_to_string(original.path().join(&newest)).unwrap();
    let mut seen = Vec::new();
    for file in &all {
        let dir = tempfile::tempdir().unwrap();
        copy(original.path(), dir.path());
        std::fs::remove_file(dir.path().join(file)).unwrap();
        let (outcome, lacks) = outcome(dir.path(), &held).await;
        let silent = outcome == Outcome::Nothing && lacks;
        assert!(!silent, "without {file} something is missing, and nothing says so");
        let expected = expected(file, &newest, |name| snapshot.contains(name));
        assert_eq!(outcome, expected, "without {file}");
        seen.push(outcome);
    }
    for outcome in [Outcome::Refused, Outcome::Nothing, Outcome::Counted, Outcome::Failed] {
        assert!(seen.contains(&outcome), "{outcome:?} is none of {} outcomes", seen.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_segment_that_lost_its_beginning_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    full_folder(dir.path()).await;
    let log = dir.path().join("log");
    let newest = *tsdb::wal::segments(&log).unwrap().last().unwrap();
    std::fs::write(tsdb::wal::segment_path(&log, newest), b"").unwrap();
    let db = held::open(options(dir.path())).await;
    assert_eq!(db.counts().missing_segments, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_segment_after_a_full_one_is_heard_of() {
    use tsdb::wal::{Log, LogSync};
    let dir = tempfile::tempdir().unwrap();
    let begun = Arc::new(std::sync::Mutex::new(Vec::new()));
    let hears = begun.clone();
    let each = LogSync::Every(Duration::from_secs(60));
    let log = Log::create_noting(dir.path(), 5, 1, each, move |number| hears.lock().unwrap().push(number));
    let log = log.unwrap();
    // Longer than a segment may be: the next begins a new one.
    for bytes in [130 << 20, 1] {
        log.append(log.mark(), vec![0; bytes]).unwrap().durable().await.unwrap();
    }
    assert_eq!(log.cut().await.unwrap(), 7);
    assert_eq!(*begun.lock().unwrap(), [6], "a cut is noted by whoever asked for it");
}
