//! What has left the head and is not in the object store yet: small blocks of some minutes on the local disk,
//! named by manifests.
//!
//! A *sealed generation* is one generation of the head, all tenants of it. Its local blocks and sidecars lie
//! in a local store under the same paths as in the object store; it exists once its manifest does,
//! `seals/<last segment>.json`, and from then on the segments of the log it was made of are not needed. A
//! flush makes one block of a tenant's local blocks, and the commit's watermark, which is such a segment's
//! number, says which of them are in the object store: a sealed generation at or below it is nothing but
//! files to be removed.

pub(crate) mod sealing;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path as FilePath;
use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use crate::block::{BlockError, BlockMeta, FileMeta};
use crate::sidecar::{Kind, Sidecar};
use crate::{layout, small_object};
use model::tenant::TenantId;

/// The version of manifests that this code writes and reads.
const VERSION: u32 = 1;

/// Files that are removed, and tenants that are looked at, at the same time.
const REMOVED_AT_ONCE: usize = 16;

/// Longest manifest that is believed.
const MAX_MANIFEST_BYTES: u64 = 256 << 20;

/// A tenant's samples of a sealed generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalBlock {
    /// Not cut at any window's end, unlike the blocks of the object store.
    #[serde(with = "shared")]
    pub meta: Arc<BlockMeta>,
    /// Samples per window of the head, keyed by the window's end, see [`crate::db::plan::plan`].
    pub windows: BTreeMap<i64, u64>,
}

/// What left the head at one time: a local block and sidecars for each tenant, as the manifest names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedGeneration {
    version: u32,
    /// The segments of the log that it is made of, both included.
    pub first_segment: u64,
    pub last_segment: u64,
    /// First and newest in-order timestamp, `None` where nothing came in order.
    pub span_ms: Option<(i64, i64)>,
    /// When its generation began, by the wall clock.
    pub began_ms: i64,
    blocks: BTreeMap<String, LocalBlock>,
    exemplars: BTreeMap<String, Sidecar>,
    metadata: BTreeMap<String, Sidecar>,
}

impl SealedGeneration {
    /// One with nothing in it yet.
    pub fn new(segments: (u64, u64), span_ms: Option<(i64, i64)>, began_ms: i64) -> SealedGeneration {
        SealedGeneration {
            version: VERSION,
            first_segment: segments.0,
            last_segment: segments.1,
            span_ms,
            began_ms,
            blocks: BTreeMap::new(),
            exemplars: BTreeMap::new(),
            metadata: BTreeMap::new(),
        }
    }

    /// Names a tenant's block.
    pub fn add_block(&mut self, tenant: &TenantId, block: LocalBlock) {
        self.blocks.insert(tenant.to_string(), block);
    }

    /// Names a tenant's sidecar.
    pub fn add_sidecar(&mut self, kind: Kind, tenant: &TenantId, file: Sidecar) {
        self.sidecars_mut(kind).insert(tenant.to_string(), file);
    }

    fn sidecars_mut(&mut self, kind: Kind) -> &mut BTreeMap<String, Sidecar> {
        match kind {
            Kind::Exemplars => &mut self.exemplars,
            Kind::Metadata => &mut self.metadata,
        }
    }

    fn tenants_with_anything(&self) -> Vec<TenantId> {
        let names = self.blocks.keys().chain(self.exemplars.keys()).chain(self.metadata.keys());
        names.collect::<BTreeSet<_>>().into_iter().filter_map(|name| TenantId::new(name).ok()).collect()
    }

    /// The same without a tenant's block.
    #[must_use]
    pub fn without_block(&self, tenant: &TenantId) -> SealedGeneration {
        let mut left = self.clone();
        left.blocks.remove(tenant.as_str());
        left
    }

    pub fn block(&self, tenant: &TenantId) -> Option<&LocalBlock> {
        self.blocks.get(tenant.as_str())
    }

    /// Tenants with samples or exemplars in it.
    pub fn tenants(&self) -> impl Iterator<Item = TenantId> + '_ {
        let names: HashSet<&String> = self.blocks.keys().chain(self.exemplars.keys()).collect();
        names.into_iter().filter_map(|name| TenantId::new(name).ok())
    }

    pub fn blocks(&self) -> impl Iterator<Item = &LocalBlock> {
        self.blocks.values()
    }

    /// Files of a kind, by tenant.
    pub fn sidecars(&self, kind: Kind) -> impl Iterator<Item = (TenantId, &Sidecar)> {
        let files = match kind {
            Kind::Exemplars => &self.exemplars,
            Kind::Metadata => &self.metadata,
        };
        files.iter().filter_map(|(tenant, file)| Some((TenantId::new(tenant).ok()?, file)))
    }

    pub fn samples(&self) -> u64 {
        self.blocks().map(|b| b.meta.stats.samples).sum()
    }

    /// Every file it names, its manifest first.
    fn paths(&self) -> Vec<Path> {
        let mut paths = vec![layout::local_manifest(self.last_segment)];
        for (tenant, block) in &self.blocks {
            let Ok(tenant) = TenantId::new(tenant) else { continue };
            paths.push(layout::block_file(&tenant, block.meta.ulid, layout::META));
            paths.extend(data_files(&tenant, &block.meta).map(|(path, _)| path));
        }
        for kind in Kind::ALL {
            paths.extend(self.sidecars(kind).map(|(tenant, file)| kind.path(&tenant, file.ulid)));
        }
        paths
    }

    /// A checksum in eight hexadecimal digits, a line's end, and all of it as JSON.
    fn to_text(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("numbers and strings always serialize");
        let mut text = format!("{:08x}\n", crc32fast::hash(&json)).into_bytes();
        text.extend_from_slice(&json);
        text
    }

    fn from_text(text: &[u8]) -> Result<SealedGeneration, String> {
        let (crc, json) = text.split_at_checked(9).ok_or("it is too short")?;
        let found = format!("{:08x}\n", crc32fast::hash(json));
        if crc != found.as_bytes() {
            return Err(format!(
                "its checksum is {}, it says {:?}",
                found.trim_end(),
                String::from_utf8_lossy(crc)
            ));
        }
        let generation: SealedGeneration = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        if generation.version != VERSION {
            return Err(format!(
                "it is of version {}, this Hearth reads {VERSION}: upgrade it",
                generation.version
            ));
        }
        Ok(generation)
    }
}

mod shared {
    use super::{Arc, BlockMeta, Deserialize, Serialize};

    pub fn serialize<S: serde::Serializer>(meta: &Arc<BlockMeta>, s: S) -> Result<S::Ok, S::Error> {
        meta.as_ref().serialize(s)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Arc<BlockMeta>, D::Error> {
        BlockMeta::deserialize(d).map(Arc::new)
    }
}

/// Writes the manifest, which makes a sealed generation exist: its files are there already.
pub async fn commit(store: &dyn ObjectStore, generation: &SealedGeneration) -> Result<(), BlockError> {
    let path = layout::local_manifest(generation.last_segment);
    let put = store.put(&path, PutPayload::from(generation.to_text())).await;
    put.map(drop).map_err(|e| BlockError::of_store(&path, e))
}

/// Removes a sealed generation's files, its manifest first. What cannot be removed is left for [`sweep`].
pub async fn remove(store: &dyn ObjectStore, generation: &SealedGeneration) {
    let delete = |path: Path| async move {
        match store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => true,
            Err(e) => {
                tracing::warn!(file = %path, error = %e, "a local file whose samples are in the object store could not be removed, the next start tries again");
                false
            }
        }
    };
    let mut paths = generation.paths().into_iter();
    if let Some(manifest) = paths.next()
        && delete(manifest).await
    {
        let deletes: Vec<_> = paths.map(|path| delete(path).boxed()).collect();
        futures::stream::iter(deletes).buffer_unordered(REMOVED_AT_ONCE).for_each(|_| async {}).await;
    }
}

/// What a look at the local store found.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Oldest first, without what is damaged.
    pub sealed: Vec<SealedGeneration>,
    /// What is damaged, in words.
    pub damaged: Vec<String>,
    /// The number of the last manifest, damaged or not; 0 without any.
    pub last_segment: u64,
    /// Tenants of a sealed generation something of which is damaged, and its segments of the log, both
    /// included.
    pub partial: Vec<(TenantId, (u64, u64))>,
    /// All that the manifests name, damaged or not.
    pub named: HashSet<String>,
    /// Whether every manifest could be read: only then is what they do not name left over.
    pub knows_all: bool,
}

/// Reads all manifests and looks whether their files are there in their length. A damaged manifest is left
/// where it is, and a file that is damaged is left out of its generation: whatever happened to a disk, the
/// rest is there. What cannot be read for the moment is an error, because what is left out is lost once a
/// flush has gone by.
pub async fn load(store: &dyn ObjectStore) -> Result<Loaded, BlockError> {
    let failed = |e: object_store::Error| BlockError::of_store(&layout::local_manifests(), e);
    let mut loaded = Loaded { knows_all: true, ..Loaded::default() };
    let mut listed = store.list(Some(&layout::local_manifests()));
    let mut manifests = Vec::new();
    while let Some(object) = listed.next().await {
        let object = object.map_err(failed)?;
        if let Some(number) = layout::local_manifest_number(&object.location) {
            manifests.push((number, object));
        }
    }
    manifests.sort_unstable_by_key(|(number, _)| *number);
    loaded.last_segment = manifests.last().map_or(0, |(number, _)| *number);
    for (number, object) in manifests {
        let understand = |text: &bytes::Bytes| {
            let generation = SealedGeneration::from_text(text)?;
            let right = generation.last_segment == number && generation.first_segment <= number;
            right
                .then_some(generation)
                .ok_or_else(|| "it is of other segments than its name says".to_string())
        };
        let generation = match object.size <= MAX_MANIFEST_BYTES {
            true => match small_object::read(store, &object.location, understand).await.map_err(failed)? {
                Some(generation) => generation,
                // Removed since it was listed.
                None => continue,
            },
            false => Err(format!("it has {} bytes", object.size)),
        };
        let mut generation = match generation {
            Ok(generation) => generation,
            Err(why) => {
                loaded.damaged.push(format!("{}: {why}", object.location));
                loaded.knows_all = false;
                continue;
            }
        };
        loaded.named.extend(generation.paths().iter().map(Path::to_string));
        for tenant in generation.tenants_with_anything() {
            let damaged = take_out_damaged(store, &mut generation, &tenant).await.map_err(failed)?;
            if !damaged.is_empty() {
                loaded.damaged.extend(damaged);
                loaded.partial.push((tenant, (generation.first_segment, generation.last_segment)));
            }
        }
        loaded.sealed.push(generation);
    }
    Ok(loaded)
}

/// Takes what is damaged of a tenant out of a sealed generation, and says what it is.
async fn take_out_damaged(
    store: &dyn ObjectStore,
    generation: &mut SealedGeneration,
    tenant: &TenantId,
) -> object_store::Result<Vec<String>> {
    let mut damaged = Vec::new();
    if let Some(meta) = generation.block(tenant).map(|block| block.meta.clone()) {
        for (path, file) in data_files(tenant, &meta) {
            damaged.extend(is_whole(store, &path, file.bytes).await?.err());
        }
        if !damaged.is_empty() {
            generation.blocks.remove(tenant.as_str());
        }
    }
    for kind in Kind::ALL {
        let files = generation.sidecars_mut(kind);
        if let Some(file) = files.get(tenant.as_str())
            && let Err(why) = is_whole(store, &kind.path(tenant, file.ulid), file.bytes).await?
        {
            damaged.push(why);
            files.remove(tenant.as_str());
        }
    }
    Ok(damaged)
}

/// Whether a file is there in its length; if not, what is wrong with it.
async fn is_whole(
    store: &dyn ObjectStore,
    path: &Path,
    bytes: u64,
) -> object_store::Result<Result<(), String>> {
    match store.head(path).await {
        Ok(found) if found.size == bytes => Ok(Ok(())),
        Ok(found) => Ok(Err(format!("{path} has {} bytes instead of {bytes}", found.size))),
        Err(object_store::Error::NotFound { .. }) => Ok(Err(format!("{path} is missing"))),
        Err(e) => Err(e),
    }
}

fn data_files<'a>(tenant: &TenantId, meta: &'a BlockMeta) -> [(Path, &'a FileMeta); 3] {
    let files = &meta.files;
    [
        (layout::SERIES, &files.series),
        (layout::TIMELINES, &files.timelines),
        (layout::SAMPLES, &files.samples),
    ]
    .map(|(name, file)| (layout::block_file(tenant, meta.ulid, name), file))
}

/// Reads a block's files whole. `Err`: one is gone or has other bytes than were written. One that cannot be
/// read at all is not known to be damaged.
pub async fn check(store: &dyn ObjectStore, tenant: &TenantId, meta: &BlockMeta) -> Result<(), String> {
    for (path, file) in data_files(tenant, meta) {
        let got = match store.get(&path).await {
            Ok(got) => got,
            Err(e @ object_store::Error::NotFound { .. }) => return Err(e.to_string()),
            Err(_) => continue,
        };
        let length = got.meta.size;
        let mut bytes = got.into_stream();
        let mut sum = Xxh3Default::new();
        let mut arrived = 0;
        while let Some(Ok(part)) = bytes.next().await {
            arrived += part.len() as u64;
            sum.update(&part);
        }
        let found = format!("{:016x}", sum.digest());
        if arrived == length && found != file.xxh3 {
            return Err(format!("{path} has the checksum {found}, it was written with {}", file.xxh3));
        }
    }
    Ok(())
}

/// Removes the files below the folder of the local store that are not named: what a crash left half written,
/// or half removed. Manifests stay, whatever is in them. With `aside`, a folder on the same disk, they are
/// moved there and nothing is lost. Blocks the thread.
pub fn sweep(folder: &FilePath, named: &HashSet<String>, aside: Option<&FilePath>) -> std::io::Result<()> {
    sweep_below(folder, "", named, aside).map(drop)
}

/// Whether nothing is left.
fn sweep_below(
    folder: &FilePath,
    prefix: &str,
    named: &HashSet<String>,
    aside: Option<&FilePath>,
) -> std::io::Result<bool> {
    let mut empty = true;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let path = match prefix {
            "" => name.to_string_lossy().into_owned(),
            _ => format!("{prefix}/{}", name.to_string_lossy()),
        };
        if entry.file_type()?.is_dir() {
            if sweep_below(&entry.path(), &path, named, aside)? {
                std::fs::remove_dir(entry.path())?;
            } else {
                empty = false;
            }
        } else if named.contains(&path) || layout::local_manifest_number(&Path::from(path.as_str())).is_some()
        {
            empty = false;
        } else if let Some(aside) = aside {
            let to = aside.join(&path);
            tracing::error!("{path} is named by no manifest: it is kept as {}", to.display());
            std::fs::create_dir_all(to.parent().unwrap_or(aside))?;
            std::fs::rename(entry.path(), to)?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(empty)
}

#[cfg(test)]
mod tests {
    use object_store::local::LocalFileSystem;

    use super::*;

    #[tokio::test]
    async fn manifests_come_back_damaged_ones_are_told_and_strays_go() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalFileSystem::new_with_prefix(dir.path()).unwrap();
        let tenant = TenantId::single();
        let about = Sidecar {
            ulid: ulid::Ulid::new(),
            min_t_ms: 1,
            max_t_ms: 2,
            rows: 3,
            bytes: 3,
            xxh3: String::new(),
        };
        let mut sealed: Vec<SealedGeneration> =
            [(1, 2), (3, 3), (4, 9)].map(|s| SealedGeneration::new(s, Some((5, 6)), 7)).into_iter().collect();
        sealed[1].add_sidecar(Kind::Exemplars, &tenant, about.clone());
        store.put(&layout::exemplars(&tenant, about.ulid), PutPayload::from("abc")).await.unwrap();
        store
            .put(&layout::block_file(&tenant, about.ulid, layout::META), PutPayload::from("x"))
            .await
            .unwrap();
        for generation in &sealed {
            commit(&store, generation).await.unwrap();
        }
        let loaded = load(&store).await.unwrap();
        assert_eq!((&loaded.sealed, loaded.damaged.len()), (&sealed, 0));
        sweep(dir.path(), &loaded.named, None).unwrap();
        assert!(store.get(&layout::exemplars(&tenant, about.ulid)).await.is_ok());
        assert!(!dir.path().join("tenants").join(tenant.as_str()).join("blocks").exists());
        // A manifest that is damaged is told, and stays for whoever wants to look at it.
        let path = dir.path().join(layout::local_manifest(3).to_string());
        let mut text = std::fs::read(&path).unwrap();
        for bit in (0..text.len() * 8).step_by(37) {
            text[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &text).unwrap();
            let loaded = load(&store).await.unwrap();
            assert_eq!((loaded.sealed.len(), loaded.damaged.len()), (2, 1), "bit {bit}");
            text[bit / 8] ^= 1 << (bit % 8);
        }
        sweep(dir.path(), &HashSet::new(), None).unwrap();
        assert!(path.exists() && !dir.path().join("tenants").exists());
        remove(&store, &sealed[0]).await;
        assert!(!dir.path().join(layout::local_manifest(2).to_string()).exists());
    }
}
