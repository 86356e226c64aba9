//! What an import costs: decoding a block of Prometheus, and all of the way to a committed block that was
//! read back.
//!
//! `IMPORT_BLOCK=/path/to/block cargo bench -p ingest --bench import`; without it, the small block of the
//! tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use ingest::import::Progress;
use ingest::import::block::{Filter, SourceBlock};
use ingest::import::unit::{Outcome, Unit, import, spans};
use model::tenant::TenantId;
use object_store::memory::InMemory;
use tsdb::bucket::import_journal::ImportJournal;
use tsdb::catalog::Commits;

fn main() {
    divan::main();
}

struct Quiet;

impl Progress for Quiet {
    fn read(&mut self, _: u64, _: u64) {}

    fn should_stop(&self) -> bool {
        false
    }
}

fn open() -> SourceBlock {
    let folder = match std::env::var_os("IMPORT_BLOCK") {
        Some(path) => PathBuf::from(path),
        None => {
            let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/blocks/floats");
            let folders = std::fs::read_dir(case).unwrap().map(|e| e.unwrap().path());
            folders.into_iter().find(|p| p.is_dir()).unwrap()
        }
    };
    SourceBlock::open(&folder, Filter::default()).unwrap()
}

/// Index, checksums and chunks to columns.
#[divan::bench]
fn decode(bencher: Bencher<'_, '_>) {
    let mut block = open();
    let samples = block.meta().stats.num_samples;
    bencher.counter(ItemsCount::new(samples)).bench_local(|| {
        let mut count = 0;
        let all = (i64::MIN, i64::MAX);
        block
            .read(all, &mut Quiet, &mut |series| {
                count += series.ts_ms.len();
                Ok(())
            })
            .unwrap();
        count
    });
}

/// The same, then written, uploaded into memory, read back, compared and committed.
#[divan::bench(sample_count = 10)]
fn whole(bencher: Bencher<'_, '_>) {
    let mut block = open();
    let samples = block.meta().stats.num_samples;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let mut told = false;
    bencher.counter(ItemsCount::new(samples)).bench_local(|| {
        let store = Arc::new(InMemory::new());
        let opening =
            ImportJournal::open(store, TenantId::single(), "bench", scratch.path(), &Commits::Unasked);
        let journal = runtime.block_on(opening).unwrap();
        let mut bytes = 0;
        for range in spans(block.span_ms().unwrap()) {
            let unit = Unit::raw("bench", range);
            let outcome = import(&journal, &unit, |give| block.read(range, &mut Quiet, give)).unwrap();
            if let Outcome::Written { bytes: written, .. } = outcome {
                bytes += written;
            }
        }
        if !std::mem::replace(&mut told, true) {
            eprintln!("{samples} samples, {} bytes of chunks in, {bytes} bytes of blocks out", block.bytes());
        }
    });
}
