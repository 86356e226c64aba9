//! The manifest of local blocks: `local-block.md`.

use model::tenant::TenantId;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};
use tsdb::db::local;
use tsdb::layout;
use tsdb::sidecar::Kind;

use super::page::{compact, example};

#[tokio::test]
async fn manifest_is_as_documented() {
    let shown = example("local-block.md", "json manifest");
    let (crc, json) = shown.split_once('\n').unwrap();
    let text = format!("{crc}\n{}", compact(json));
    let tenant = TenantId::single();
    let store = InMemory::new();
    store.put(&layout::local_manifest(5), PutPayload::from(text.clone())).await.unwrap();
    // The files it names, in the lengths it says.
    let ulid = "01KDVQ5Q00AAAAAAAAAAAAAAAA".parse().unwrap();
    for (name, bytes) in [(layout::SERIES, 12), (layout::TIMELINES, 13), (layout::SAMPLES, 14)] {
        let path = layout::block_file(&tenant, ulid, name);
        store.put(&path, PutPayload::from(vec![0; bytes])).await.unwrap();
    }
    let exemplars = Kind::Exemplars.path(&tenant, "01KDVQ5Q00EEEEEEEEEEEEEEEE".parse().unwrap());
    store.put(&exemplars, PutPayload::from(vec![0; 15])).await.unwrap();

    let loaded = local::load(&store).await.unwrap();
    assert_eq!(loaded.damaged, Vec::<String>::new());
    let [sealed] = &loaded.sealed[..] else { panic!("one manifest") };
    assert_eq!((sealed.first_segment, sealed.last_segment), (4, 5));
    assert_eq!(sealed.span_ms, Some((1_767_225_600_001, 1_767_226_200_000)));
    let block = sealed.block(&tenant).expect("the tenant's block");
    assert_eq!((block.meta.stats.samples, block.windows[&1_767_232_800_000]), (80, 80));
    assert_eq!(sealed.sidecars(Kind::Exemplars).count(), 1);

    let again = InMemory::new();
    local::commit(&again, sealed).await.unwrap();
    let written = again.get(&layout::local_manifest(5)).await.unwrap().bytes().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&written), text);
}
