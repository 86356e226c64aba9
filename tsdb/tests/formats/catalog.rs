//! The catalog: `catalog.md`, and the paths that `layout.md` lists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::clock::ManualClock;
use model::matcher::MatchOp;
use model::tenant::TenantId;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tsdb::catalog::lease::Leases;
use tsdb::catalog::{Catalog, CatalogOptions, Commits, Register, RegisterError, arrange};
use tsdb::layout;
use tsdb::sidecar;
use ulid::Ulid;

use super::page::{compact, example, page, table};
use crate::faulty_store::FaultyStore;

async fn text_of(store: &dyn ObjectStore, path: &Path) -> String {
    let found = store.get(path).await.unwrap_or_else(|e| panic!("{path}: {e}"));
    String::from_utf8(found.bytes().await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn snapshot_is_as_documented() {
    let text = compact(&example("catalog.md", "json snapshot"));
    let tenant = TenantId::single();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    store.put(&layout::snapshot(&tenant, 17), PutPayload::from(text.clone())).await.unwrap();
    let opened = Catalog::open(store.clone(), tenant, "reader", CatalogOptions::default()).await;
    let snapshot = opened.expect("the page's snapshot is whole").snapshot();
    assert_eq!((snapshot.version, snapshot.number, snapshot.commits.len()), (2, 17, 2));
    assert_eq!(snapshot.watermark("01KDVA0000BBBBBBBBBBBBBBBB"), Some(41));
    let block = &snapshot.blocks[0];
    assert_eq!((block.stats.samples, block.order()), (960, block.ulid));
    let deletion = &snapshot.tombstones[0];
    assert_eq!((deletion.matchers[0].op, deletion.matchers[1].op), (MatchOp::Equal, MatchOp::NotRegex));
    assert!(deletion.concerns(block));
    assert_eq!(snapshot.quarantined[&block.ulid].found_by, "compactor-1");
    assert_eq!(snapshot.exemplars[0].rows, 2);
    assert_eq!(snapshot.metadata.as_ref().map(|m| m.rows), Some(3));
    // What was read, written again.
    let again = serde_json::to_string(&*snapshot).unwrap();
    let crc = crc32fast::hash(again.as_bytes());
    let whole = format!("{},\"crc32\":\"{crc:08x}\"}}", again.strip_suffix('}').unwrap());
    assert_eq!(whole, text);
}

#[tokio::test]
async fn changes_are_as_documented() {
    let text = compact(&example("catalog.md", "json changes"));
    let tenant = TenantId::single();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let whole = compact(&example("catalog.md", "json snapshot"));
    store.put(&layout::snapshot(&tenant, 17), PutPayload::from(whole.clone())).await.unwrap();
    let options = CatalogOptions { changes_from_bytes: 1, ..CatalogOptions::default() };
    let opened = Catalog::open(store.clone(), tenant.clone(), "01KDVA0000BBBBBBBBBBBBBBBB", options.clone());
    let catalog = opened.await.unwrap();
    let before = catalog.snapshot();
    // What the page's example says, as an edit.
    let gone = before.blocks[0].ulid;
    let edit = tsdb::catalog::Edit {
        remove: vec![gone],
        watermarks: BTreeMap::from([("01KDVA0000BBBBBBBBBBBBBBBB".to_string(), 42)]),
        ..Default::default()
    };
    let after = catalog.commit(&edit).await.unwrap();
    let written = text_of(&*store, &layout::snapshot(&tenant, 18)).await;
    // The commit's name is new each time, and with it the checksum.
    let ours = after.commit().unwrap().to_string();
    let documented: serde_json::Value = serde_json::from_str(&text).unwrap();
    let theirs = documented["commits"][0].as_str().unwrap();
    let plain = |text: &str| text.split(",\"crc32\"").next().unwrap().to_string();
    assert_eq!(plain(&written).replace(&ours, theirs), plain(&text), "{written}");
    let crc = crc32fast::hash(format!("{}}}", plain(&text)).as_bytes());
    assert_eq!(documented["crc32"].as_str(), Some(&*format!("{crc:08x}")));
    // And the example itself is read.
    let page: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    page.put(&layout::snapshot(&tenant, 17), PutPayload::from(whole)).await.unwrap();
    page.put(&layout::snapshot(&tenant, 18), PutPayload::from(text)).await.unwrap();
    let read = Catalog::open(page, tenant, "reader", options).await.unwrap().snapshot();
    assert_eq!((read.number, read.blocks.len(), read.version), (18, 0, 2));
    assert!(read.quarantined.is_empty() && read.tombstones.is_empty() && read.clean.is_empty());
    assert_eq!(
        (&read.exemplars, &read.metadata, read.commits.len()),
        (&before.exemplars, &before.metadata, 3)
    );
}

/// What `meta.json` holds of three blocks, one with a share, one with less: the versions that the page names.
#[tokio::test]
async fn snapshot_has_the_lowest_version_that_says_all() {
    let blocks = super::page::examples("block.md", "json meta");
    let [plain, share] = &blocks[..] else { panic!("two examples of meta.json") };
    let read = |text: &str| tsdb::block::BlockMeta::from_json("page", text.as_bytes()).unwrap();
    for (add, deletes, version) in [(plain, false, 1), (plain, true, 2), (share, false, 3)] {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let catalog = Catalog::open(store, TenantId::single(), "writer", CatalogOptions::default()).await;
        let catalog = catalog.unwrap();
        let mut edit = tsdb::catalog::Edit { add: vec![read(add)], ..Default::default() };
        if deletes {
            let matchers = vec![model::matcher::Matcher::equal("__name__", "up")];
            edit.bury.push(tsdb::deletion::Tombstone::new(matchers, i64::MIN, i64::MAX, 0));
        }
        assert_eq!(catalog.commit(&edit).await.unwrap().version, version);
    }
}

#[tokio::test]
async fn lease_is_as_documented() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let clock = Arc::new(ManualClock::at(1_767_225_600_000));
    let leases = Leases::new(store.clone(), clock, TenantId::single(), "compactor-1");
    leases.take("slot-07", Duration::from_secs(60)).await.unwrap().expect("free");
    let path = layout::lease(&TenantId::single(), "slot-07", 1);
    assert_eq!(text_of(&*store, &path).await, example("catalog.md", "json lease"));
}

/// A coordinator in memory.
#[derive(Debug, Default)]
struct Memory(Mutex<BTreeMap<String, String>>);

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("memory://test")
    }
}

#[async_trait::async_trait]
impl Register for Memory {
    async fn create(&self, name: &str, text: &str) -> Result<String, RegisterError> {
        Ok(self.0.lock().unwrap().entry(name.to_string()).or_insert_with(|| text.to_string()).clone())
    }

    async fn read(&self, name: &str) -> Result<Option<String>, RegisterError> {
        Ok(self.0.lock().unwrap().get(name).cloned())
    }

    async fn remove(&self, name: &str, text: &str) -> Result<(), RegisterError> {
        self.0.lock().unwrap().retain(|n, t| n != name || t != text);
        Ok(())
    }
}

fn careless() -> Arc<dyn ObjectStore> {
    Arc::new(FaultyStore { lies: true, ..FaultyStore::default() })
}

#[tokio::test]
async fn register_and_its_claims_are_as_documented() {
    let identity = "01KDVQ5Q00KKKKKKKKKKKKKKKK";
    let known = format!("{{\"identity\":\"{identity}\",\"bucket\":\"memory\"}}");
    let register = Arc::new(Memory(Mutex::new([("identity".to_string(), known)].into())));
    let store = careless();
    let commits = Commits::Register { register: register.clone(), bucket: "memory".to_string() };
    let arranged = arrange(store.clone(), &commits, "writer").await.unwrap();
    assert_eq!(text_of(&*store, &layout::register()).await, example("catalog.md", "json register"));
    // A claim whose winner died: a reader that misses the object carries it out.
    let (ulid, path) = (Ulid::new(), layout::snapshot(&TenantId::single(), 1));
    store.put(&layout::staged(ulid), PutPayload::from("staged")).await.unwrap();
    let claim = format!("claims-{identity}/{}", path.as_ref().replace('/', "~"));
    register.create(&claim, &ulid.to_string()).await.unwrap();
    let found = arranged.store.get(&path).await.unwrap().bytes().await.unwrap();
    assert_eq!(&found[..], b"staged");
    assert!(register.read(&claim).await.unwrap().is_none(), "the claim has served");
    assert!(store.get(&layout::staged(ulid)).await.is_err(), "and so have its bytes");
}

#[tokio::test]
async fn owner_is_as_documented() {
    let documented = example("catalog.md", "json owner");
    let store = careless();
    store.put(&layout::owner(), PutPayload::from(documented.clone())).await.unwrap();
    let beat = Duration::from_millis(20);
    // It says that the right was given back, so another takes it at once; were it not understood, this would
    // fail.
    let arranged = arrange(store.clone(), &Commits::SingleWriter { beat }, "another").await.unwrap();
    let keys = |text: &str| {
        let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
        fields.keys().cloned().collect::<Vec<_>>()
    };
    let taken = text_of(&*store, &layout::owner()).await;
    assert_eq!(keys(&taken), keys(&documented));
    assert!(taken.contains("\"writer\":\"another\"") && taken.contains("\"released\":false"), "{taken}");
    arranged.owner.expect("an owner").release().await;
    assert!(text_of(&*store, &layout::owner()).await.contains("\"released\":true"));
}

#[test]
fn paths_are_those_of_the_page() {
    let tenant = TenantId::new("TENANT").unwrap();
    let ulid = Ulid::new();
    let block = |name| layout::block_file(&tenant, ulid, name);
    let of_store = [
        layout::snapshot(&tenant, 42),
        block(layout::META),
        block(layout::SERIES),
        block(layout::TIMELINES),
        block(layout::SAMPLES),
        sidecar::Kind::Exemplars.path(&tenant, ulid),
        sidecar::Kind::Metadata.path(&tenant, ulid),
        layout::lease(&tenant, "NAME", 42),
        layout::import_begun(&tenant, "KEY", ulid),
        layout::import_done(&tenant, "KEY"),
        layout::rule_group(&tenant, "SPACE", "GROUP"),
        layout::seen(&tenant),
        layout::rule_table(42),
        layout::rule_state("WRITER"),
        layout::writer_epoch("WRITER", 42),
        layout::member("NAME"),
        layout::register(),
        layout::owner(),
        layout::staged(ulid),
        layout::probe(ulid, "NAME"),
    ];
    let ulid = ulid.to_string();
    let parts = [
        ("TENANT", "<tenant>"),
        ("00000000000000000042", "<number>"),
        (&*ulid, "<ulid>"),
        ("WRITER", "<writer>"),
        ("NAME", "<name>"),
        ("KEY", "<key>"),
        ("SPACE", "<namespace>"),
        ("GROUP", "<group>"),
    ];
    let documented: BTreeSet<String> = table("layout.md", "## Object store")
        .iter()
        .map(|row| row[0].trim_matches('`').to_string())
        .collect();
    let used = of_store
        .iter()
        .map(|path| parts.iter().fold(path.to_string(), |path, (value, word)| path.replace(value, word)));
    assert_eq!(used.collect::<BTreeSet<_>>(), documented);
    assert_eq!(layout::local_manifest(42).as_ref(), "seals/00000000000000000042.json");
    assert!(page("layout.md").contains("`sealed/seals/<number>.json`"));
    let starred = layout::blocks(&TenantId::new("a*(b)!'._-").unwrap());
    assert_eq!(starred.as_ref(), "tenants/a%2A(b)!'._-/blocks", "the only character that is encoded");
}
