//! Bytes of blocks on a local disk, so that what was fetched once is not fetched again, not even after a
//! restart.
//!
//! A file of the bucket is cut into parts of 16 MiB, each a sparse file here: a page that says which of its
//! 4,096-byte blocks are there, then the blocks in their places. What lies behind the last page (page
//! indexes and footer) is a part of its own. Nothing here is trusted: who reads checks what it gets against
//! the checksums of the bucket's file, and has what is wrong dropped. So nothing is ever synced, and a crash
//! costs no more than a few blocks. Formats: `docs/formats/disk-cache.md`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use ulid::Ulid;

use super::cache::FileKind;
use crate::block::checksums::CRC_BLOCK_BYTES;

/// Blocks of a part.
const PART_BLOCKS: u64 = 4096;
const MAP_WORDS: usize = PART_BLOCKS as usize / 64;
/// The page before the blocks: these bytes, then from `MAP_FROM` on a bit for each block.
const MAGIC: &[u8; 20] = b"hearth disk cache 1\n";
const MAP_FROM: usize = 64;
const PAGE_BYTES: u64 = 4096;
/// Answers that wait to be written; more are not kept, as the disk is slower than the bucket then.
const MOST_WAITING: usize = 256;
/// Where there is no room, so much of it is made at once.
const ROOM_PART: u64 = 20;
/// Nothing is written for so long after a write has failed.
const PAUSE: Duration = Duration::from_secs(10);

type FileId = (Ulid, FileKind);

/// A part of a file of the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PartId {
    file: FileId,
    /// `None`: what lies behind the last page.
    number: Option<u32>,
}

impl PartId {
    fn of_block(file: FileId, block: u64) -> PartId {
        PartId { file, number: Some((block / PART_BLOCKS) as u32) }
    }

    fn name(&self) -> String {
        let (ulid, kind) = self.file;
        match self.number {
            Some(number) => format!("{ulid}.{}.{number}", kind.name()),
            None => format!("{ulid}.{}.tail", kind.name()),
        }
    }

    fn parse(name: &str) -> Option<PartId> {
        let mut words = name.split('.');
        let ulid = Ulid::from_string(words.next()?).ok()?;
        let kind = words.next()?;
        let kind = FileKind::ALL.into_iter().find(|k| k.name() == kind)?;
        let number = match words.next()? {
            "tail" => None,
            number => Some(number.parse().ok()?),
        };
        let part = PartId { file: (ulid, kind), number };
        (part.name() == name).then_some(part)
    }
}

/// A part that is there.
struct Part {
    /// Which blocks; empty for what lies behind the last page.
    map: Vec<u64>,
    bytes: u64,
    /// When it was used last, as a number that grows.
    used: u64,
}

impl Part {
    fn has(&self, at: u64) -> bool {
        self.map.get(at as usize / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }
}

#[derive(Default)]
struct Parts {
    all: HashMap<PartId, Part>,
    bytes: u64,
    uses: u64,
    /// No longer there, but their files are.
    gone: Vec<PartId>,
}

impl Parts {
    fn touch(&mut self, id: &PartId) -> Option<&Part> {
        self.uses += 1;
        let part = self.all.get_mut(id)?;
        part.used = self.uses;
        Some(part)
    }

    fn put(&mut self, id: PartId, map: Vec<u64>, bytes: u64) {
        self.uses += 1;
        self.bytes += bytes;
        self.gone.retain(|gone| *gone != id);
        if let Some(old) = self.all.insert(id, Part { map, bytes, used: self.uses }) {
            self.bytes -= old.bytes;
        }
    }

    fn remove(&mut self, id: &PartId) {
        if let Some(part) = self.all.remove(id) {
            self.bytes -= part.bytes;
            self.gone.push(*id);
        }
    }
}

/// How the cache on disk does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCacheStats {
    pub bytes: u64,
    pub max_bytes: u64,
    /// Bytes that were read here in place of the bucket, and that had to be fetched.
    pub hit_bytes: u64,
    pub missed_bytes: u64,
    pub written_bytes: u64,
    /// Parts with anything that was not as its checksum says.
    pub damaged: u64,
    /// Answers that were not kept because too many waited to be written.
    pub skipped: u64,
    /// Writes that failed.
    pub failed_writes: u64,
}

#[derive(Default)]
struct Counts {
    hit_bytes: AtomicU64,
    missed_bytes: AtomicU64,
    written_bytes: AtomicU64,
    damaged: AtomicU64,
    skipped: AtomicU64,
    failed_writes: AtomicU64,
}

struct Shared {
    folder: PathBuf,
    max_bytes: u64,
    parts: Mutex<Parts>,
    counts: Counts,
}

/// What the thread that writes is told.
enum Told {
    /// Consecutive blocks from one on.
    Blocks(FileId, u64, Bytes),
    Tail(FileId, Bytes),
    /// Some parts are gone.
    Look,
    /// To be told when all before is done.
    Reached(SyncSender<()>),
}

/// See the module. Share it behind an `Arc`.
pub struct DiskCache {
    shared: Arc<Shared>,
    told: SyncSender<Told>,
    /// Held as long as the folder is ours.
    _lock: File,
}

impl DiskCache {
    /// Opens a folder, which is made where there is none, and looks in the background what it has. Another
    /// process that uses it is an error.
    pub fn open(folder: &Path, max_bytes: u64) -> io::Result<Arc<DiskCache>> {
        std::fs::create_dir_all(folder)?;
        let lock = File::create(folder.join("lock"))?;
        lock.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => io::Error::other("another process uses it"),
            TryLockError::Error(e) => e,
        })?;
        let shared = Arc::new(Shared {
            folder: folder.to_path_buf(),
            max_bytes,
            parts: Mutex::default(),
            counts: Counts::default(),
        });
        let (told, orders) = sync_channel(MOST_WAITING);
        let writer = Writer { shared: shared.clone(), failed: None };
        std::thread::Builder::new().name("disk-cache".into()).spawn(move || writer.run(orders))?;
        Ok(Arc::new(DiskCache { shared, told, _lock: lock }))
    }

    pub fn stats(&self) -> DiskCacheStats {
        let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let c = &self.shared.counts;
        DiskCacheStats {
            bytes: self.shared.parts.lock().bytes,
            max_bytes: self.shared.max_bytes,
            hit_bytes: of(&c.hit_bytes),
            missed_bytes: of(&c.missed_bytes),
            written_bytes: of(&c.written_bytes),
            damaged: of(&c.damaged),
            skipped: of(&c.skipped),
            failed_writes: of(&c.failed_writes),
        }
    }

    /// Waits until all that was put so far has been written or given up, and what was there at the start is
    /// known.
    pub fn settle(&self) {
        let (reached, wait) = sync_channel(1);
        if self.told.send(Told::Reached(reached)).is_ok() {
            let _ = wait.recv();
        }
    }

    /// Lets go of all that is kept of a block.
    pub(crate) fn forget(&self, ulid: Ulid) {
        let mut parts = self.shared.parts.lock();
        let of_block: Vec<PartId> = parts.all.keys().filter(|id| id.file.0 == ulid).copied().collect();
        of_block.iter().for_each(|id| parts.remove(id));
        drop(parts);
        // Where it cannot be told the thread is at work, and looks anyway.
        let _ = self.told.try_send(Told::Look);
    }

    /// Lets go of a part in which something was wrong.
    pub(crate) fn drop_damaged(&self, file: FileId, block: Option<u64>) {
        let id = block.map_or(PartId { file, number: None }, |block| PartId::of_block(file, block));
        self.shared.counts.damaged.fetch_add(1, Ordering::Relaxed);
        self.shared.parts.lock().remove(&id);
        let _ = self.told.try_send(Told::Look);
    }

    pub(crate) fn has(&self, file: FileId, block: u64) -> bool {
        let parts = self.shared.parts.lock();
        parts.all.get(&PartId::of_block(file, block)).is_some_and(|part| part.has(block % PART_BLOCKS))
    }

    /// Those of some blocks of a file that are there. `head_bytes`: where the file's blocks end. A part of
    /// which one is not `right` is dropped whole.
    pub(crate) fn blocks(
        &self,
        file: FileId,
        blocks: &BTreeSet<u64>,
        head_bytes: u64,
        right: impl Fn(u64, &[u8]) -> bool,
    ) -> Vec<(u64, Bytes)> {
        let mut by_part: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        {
            let mut parts = self.shared.parts.lock();
            for block in blocks {
                let id = PartId::of_block(file, *block);
                if parts.touch(&id).is_some_and(|part| part.has(block % PART_BLOCKS)) {
                    by_part.entry(block / PART_BLOCKS).or_default().push(*block);
                }
            }
        }
        let mut found = Vec::new();
        for (part, blocks) in by_part {
            let id = PartId { file, number: Some(part as u32) };
            // It may have gone since.
            let Ok(stored) = File::open(self.shared.folder.join(id.name())) else { continue };
            let mut of_part = Vec::with_capacity(blocks.len());
            for run in blocks.chunk_by(|a, b| a + 1 == *b) {
                let from = run[0] * CRC_BLOCK_BYTES;
                let to = ((run[run.len() - 1] + 1) * CRC_BLOCK_BYTES).min(head_bytes);
                let mut bytes = vec![0; to.saturating_sub(from) as usize];
                if stored.read_exact_at(&mut bytes, place_of(run[0])).is_err() {
                    continue;
                }
                let bytes = Bytes::from(bytes);
                let cut = |at: usize| {
                    let from = at * CRC_BLOCK_BYTES as usize;
                    bytes.slice(from..bytes.len().min(from + CRC_BLOCK_BYTES as usize))
                };
                of_part.extend(run.iter().enumerate().map(|(at, block)| (*block, cut(at))));
            }
            match of_part.iter().all(|(number, block)| right(*number, block)) {
                true => found.append(&mut of_part),
                false => self.drop_damaged(file, Some(blocks[0])),
            }
        }
        found
    }

    /// What lies behind a file's last page, if it is there, unchecked.
    pub(crate) fn tail(&self, file: FileId) -> Option<Bytes> {
        let id = PartId { file, number: None };
        self.shared.parts.lock().touch(&id)?;
        std::fs::read(self.shared.folder.join(id.name())).ok().map(Bytes::from)
    }

    /// Counts what was found here, and what had to be fetched.
    pub(crate) fn count(&self, hit_bytes: u64, missed_bytes: u64) {
        self.shared.counts.hit_bytes.fetch_add(hit_bytes, Ordering::Relaxed);
        self.shared.counts.missed_bytes.fetch_add(missed_bytes, Ordering::Relaxed);
    }

    /// Keeps consecutive blocks of a file, from one on. Does not wait.
    pub(crate) fn put_blocks(&self, file: FileId, first: u64, bytes: Bytes) {
        self.tell(Told::Blocks(file, first, bytes));
    }

    /// Keeps what lies behind a file's last page. Does not wait.
    pub(crate) fn put_tail(&self, file: FileId, bytes: Bytes) {
        self.tell(Told::Tail(file, bytes));
    }

    fn tell(&self, told: Told) {
        if self.told.try_send(told).is_err() {
            self.shared.counts.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Where a block lies in the file of its part.
fn place_of(block: u64) -> u64 {
    PAGE_BYTES + block % PART_BLOCKS * CRC_BLOCK_BYTES
}

fn page_of(map: &[u64]) -> Vec<u8> {
    let mut page = vec![0; PAGE_BYTES as usize];
    page[..MAGIC.len()].copy_from_slice(MAGIC);
    for (to, word) in page[MAP_FROM..].chunks_exact_mut(8).zip(map) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    page
}

/// The thread that writes and removes files.
struct Writer {
    shared: Arc<Shared>,
    failed: Option<Instant>,
}

impl Writer {
    fn run(mut self, orders: Receiver<Told>) {
        if let Err(e) = self.load() {
            tracing::warn!("the cache of blocks in {} begins empty: {e}", self.shared.folder.display());
        }
        while let Ok(told) = orders.recv() {
            self.remove_gone();
            let done = match told {
                Told::Blocks(file, first, bytes) => self.put_blocks(file, first, &bytes),
                Told::Tail(file, bytes) => self.put_tail(file, &bytes),
                Told::Look => Ok(()),
                Told::Reached(reached) => {
                    let _ = reached.send(());
                    Ok(())
                }
            };
            if let Err(e) = done {
                self.shared.counts.failed_writes.fetch_add(1, Ordering::Relaxed);
                if self.failed.replace(Instant::now()).is_none() {
                    let folder = self.shared.folder.display();
                    tracing::warn!("blocks cannot be cached in {folder}, they are read from the bucket: {e}");
                }
            }
        }
    }

    /// Finds what an earlier process left, least recently written first.
    fn load(&self) -> io::Result<()> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.shared.folder)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(PartId::parse) else { continue };
            let about = entry.metadata()?;
            match id.number {
                None => found.push((about.modified()?, id, Vec::new(), about.len())),
                Some(_) => match read_map(&entry.path()) {
                    Ok(Some(map)) => {
                        let blocks: u64 = map.iter().map(|word| u64::from(word.count_ones())).sum();
                        found.push((about.modified()?, id, map, PAGE_BYTES + blocks * CRC_BLOCK_BYTES));
                    }
                    _ => std::fs::remove_file(entry.path())?,
                },
            }
        }
        found.sort_by_key(|(modified, ..)| *modified);
        let mut parts = self.shared.parts.lock();
        found.into_iter().for_each(|(_, id, map, bytes)| parts.put(id, map, bytes));
        Ok(())
    }

    fn remove_gone(&self) {
        let gone = std::mem::take(&mut self.shared.parts.lock().gone);
        for id in gone {
            // What cannot be removed is found by the next process.
            let _ = std::fs::remove_file(self.shared.folder.join(id.name()));
        }
    }

    /// Lets the least recently used parts go until so many bytes fit, and some more; whether they do.
    fn make_room(&self, bytes: u64) -> bool {
        let max_bytes = self.shared.max_bytes;
        if bytes > max_bytes || self.failed.is_some_and(|at| at.elapsed() < PAUSE) {
            return false;
        }
        let mut parts = self.shared.parts.lock();
        if parts.bytes + bytes > max_bytes {
            let target = (max_bytes - max_bytes / ROOM_PART).min(max_bytes - bytes);
            let mut by_use: Vec<(u64, PartId)> = parts.all.iter().map(|(id, p)| (p.used, *id)).collect();
            by_use.sort_unstable_by_key(|(used, _)| *used);
            for (_, id) in by_use {
                if parts.bytes <= target {
                    break;
                }
                parts.remove(&id);
            }
            drop(parts);
            self.remove_gone();
        }
        true
    }

    fn put_tail(&self, file: FileId, bytes: &Bytes) -> io::Result<()> {
        let id = PartId { file, number: None };
        if !self.make_room(bytes.len() as u64) {
            return Ok(());
        }
        let path = self.shared.folder.join(id.name());
        std::fs::write(&path, bytes).inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        self.shared.parts.lock().put(id, Vec::new(), bytes.len() as u64);
        self.shared.counts.written_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn put_blocks(&mut self, file: FileId, first: u64, bytes: &Bytes) -> io::Result<()> {
        let mut first = first;
        let mut bytes = bytes.clone();
        while !bytes.is_empty() {
            let of_part = (PART_BLOCKS - first % PART_BLOCKS) * CRC_BLOCK_BYTES;
            let own = bytes.split_to(bytes.len().min(of_part as usize));
            self.put_in_part(PartId::of_block(file, first), first, &own)?;
            first += of_part / CRC_BLOCK_BYTES;
        }
        Ok(())
    }

    fn put_in_part(&mut self, id: PartId, first: u64, bytes: &Bytes) -> io::Result<()> {
        let count = (bytes.len() as u64).div_ceil(CRC_BLOCK_BYTES);
        if !self.make_room(PAGE_BYTES + count * CRC_BLOCK_BYTES) {
            return Ok(());
        }
        let known = self.shared.parts.lock().all.get(&id).map(|part| part.map.clone());
        let fresh = known.is_none();
        let mut map = known.unwrap_or_else(|| vec![0; MAP_WORDS]);
        for at in first..first + count {
            map[(at % PART_BLOCKS) as usize / 64] |= 1 << (at % 64);
        }
        let path = self.shared.folder.join(id.name());
        let write = || {
            let to = OpenOptions::new().write(true).create(true).truncate(fresh).open(&path)?;
            to.write_all_at(bytes, place_of(first))?;
            // After the blocks, so that it tells of none that is not there.
            to.write_all_at(&page_of(&map), 0)
        };
        let written = write();
        let mut parts = self.shared.parts.lock();
        if written.is_err() || (!fresh && !parts.all.contains_key(&id)) {
            // It broke off, or was dropped meanwhile.
            parts.remove(&id);
            drop(parts);
            let _ = std::fs::remove_file(&path);
            return written;
        }
        let blocks: u64 = map.iter().map(|word| u64::from(word.count_ones())).sum();
        parts.put(id, map, PAGE_BYTES + blocks * CRC_BLOCK_BYTES);
        drop(parts);
        self.failed = None;
        self.shared.counts.written_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// Which blocks a part has, as its page says; `None` where it has no such page.
fn read_map(path: &Path) -> io::Result<Option<Vec<u64>>> {
    let mut page = vec![0; PAGE_BYTES as usize];
    match File::open(path)?.read_exact_at(&mut page, 0) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let words = page[MAP_FROM..MAP_FROM + MAP_WORDS * 8].as_chunks::<8>().0;
    let map = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    Ok(page.starts_with(MAGIC).then_some(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: u128) -> FileId {
        (Ulid(number), FileKind::Samples)
    }

    /// So many blocks that say which they are.
    fn bytes(first: u64, count: u64) -> Bytes {
        (first..first + count).flat_map(|b| [(b % 251) as u8; CRC_BLOCK_BYTES as usize]).collect()
    }

    fn found(cache: &DiskCache, file: FileId, blocks: std::ops::Range<u64>) -> Vec<u64> {
        let blocks = cache.blocks(file, &blocks.collect(), u64::MAX, |_, _| true);
        blocks
            .into_iter()
            .map(|(block, read)| {
                assert_eq!(read, bytes(block, 1), "block {block}");
                block
            })
            .collect()
    }

    #[test]
    fn disk_cache_has_what_was_put_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..3 {
            let cache = DiskCache::open(dir.path(), 1 << 30).unwrap();
            cache.settle();
            match round {
                0 => assert_eq!(found(&cache, file(1), 0..10), [] as [u64; 0]),
                _ => {
                    assert_eq!(found(&cache, file(1), 0..10), [2, 3, 4]);
                    assert_eq!(found(&cache, file(1), 4090..4100), [4094, 4095, 4096, 4097]);
                    assert_eq!(found(&cache, file(2), 0..10), [] as [u64; 0]);
                    assert_eq!(cache.tail(file(1)).unwrap(), "end");
                    assert_eq!(cache.stats().bytes, 2 * 4096 + 7 * 4096 + 3);
                }
            }
            cache.put_blocks(file(1), 2, bytes(2, 3));
            // Over the end of a part.
            cache.put_blocks(file(1), 4094, bytes(4094, 4));
            cache.put_tail(file(1), Bytes::from_static(b"end"));
            cache.settle();
            assert_eq!(found(&cache, file(1), 0..10), [2, 3, 4]);
            assert!(DiskCache::open(dir.path(), 1 << 30).is_err(), "it is in use");
        }
        let cache = DiskCache::open(dir.path(), 1 << 30).unwrap();
        cache.settle();
        cache.forget(Ulid(1));
        cache.settle();
        assert_eq!(cache.stats().bytes, 0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the lock is left");
    }

    #[test]
    fn disk_cache_lets_the_least_recently_used_go_and_stays_within_its_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(dir.path(), 100 * 4096).unwrap();
        for number in 0..60 {
            cache.put_blocks(file(number), 0, bytes(0, 3));
            cache.settle();
            assert_eq!(found(&cache, file(0), 0..3).len(), 3, "it is used all the time");
            assert!(cache.stats().bytes <= 100 * 4096);
        }
        assert_eq!(found(&cache, file(59), 0..3).len(), 3);
        assert_eq!(found(&cache, file(1), 0..3).len(), 0);
        let on_disk: u64 = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(on_disk <= 100 * 4096, "{on_disk}");
        // What does not fit at all is not kept.
        cache.put_blocks(file(99), 0, bytes(0, 200));
        cache.settle();
        assert_eq!(found(&cache, file(99), 0..200).len(), 0);
        assert_eq!(found(&cache, file(0), 0..3).len(), 3);
    }

    #[test]
    fn disk_cache_drops_what_is_damaged_and_goes_on_beside_what_is_not_its_own() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("notes.txt"), "mine").unwrap();
        let name = PartId::of_block(file(7), 0).name();
        std::fs::write(dir.path().join(&name), "no page").unwrap();
        let cache = DiskCache::open(dir.path(), 1 << 20).unwrap();
        cache.settle();
        assert!(!dir.path().join(&name).exists());
        cache.put_blocks(file(7), 0, bytes(0, 2));
        cache.settle();
        cache.drop_damaged(file(7), Some(1));
        assert_eq!(found(&cache, file(7), 0..2).len(), 0);
        cache.put_blocks(file(7), 1, bytes(1, 1));
        cache.settle();
        assert_eq!(found(&cache, file(7), 0..2), [1]);
        assert_eq!(cache.stats().damaged, 1);
        assert!(dir.path().join("notes.txt").exists());
    }

    #[test]
    fn disk_cache_that_cannot_write_says_so_and_keeps_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(dir.path(), 1 << 20).unwrap();
        cache.settle();
        // A folder where the part should be.
        std::fs::create_dir(dir.path().join(PartId::of_block(file(1), 0).name())).unwrap();
        cache.put_blocks(file(1), 0, bytes(0, 1));
        cache.settle();
        assert_eq!(cache.stats().failed_writes, 1);
        cache.put_blocks(file(2), 0, bytes(0, 1));
        cache.settle();
        assert_eq!((cache.stats().failed_writes, cache.stats().bytes), (1, 0), "it waits a while");
    }
}
