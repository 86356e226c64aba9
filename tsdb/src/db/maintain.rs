//! What a store does by itself: it seals, flushes and follows the catalog, and tries again after failures.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::plan::Pressure;
use super::{Db, FlushError, FlushReport};

/// How often the head is looked at.
const TICK: Duration = Duration::from_secs(1);

/// Least time between two generations that are sealed because memory asks for it: more often would make more
/// small blocks than room.
const RELIEF_TICKS: u64 = 5;

/// How often other writers' commits are looked for.
const REFRESH_TICKS: u64 = 60;

/// How often it is looked whether what was kept for readers of older snapshots may go.
const FORGET_TICKS: u64 = 10;

/// How often it is looked whether data files are gone.
const LOOK_EVERY: Duration = Duration::from_secs(6 * 3600);

/// Looks for data files that are gone, at the start and every few hours, beside all else: the first answer
/// must not wait for it.
pub(super) async fn look_for_missing(db: Weak<Db>) {
    while let Some(db) = db.upgrade() {
        if let Err(e) = db.look_for_missing().await {
            tracing::warn!("whether all data files are in the object store could not be seen: {e}");
        }
        drop(db);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Seals and flushes when due, tries again after failures with growing pauses, and follows the catalog; ends
/// with the store. A flush runs beside it: an object store that is slow or away must not keep samples in
/// memory.
pub(super) async fn maintain(db: Weak<Db>) {
    let (mut tick, mut relieved) = (0u64, 0u64);
    let (mut flush_pause, mut seal_pause) = (Pause::default(), Pause::default());
    let mut flush: Option<tokio::task::JoinHandle<Result<FlushReport, FlushError>>> = None;
    loop {
        tokio::time::sleep(TICK).await;
        let Some(db) = db.upgrade() else { return };
        if db.closing.load(Ordering::Acquire) {
            return;
        }
        tick += 1;
        if tick % REFRESH_TICKS == 0
            && let Err(e) = db.refresh().await
        {
            tracing::warn!("the catalog could not be read again, answers go on with what is known: {e}");
        }
        if tick % FORGET_TICKS == 0 {
            db.forget_committed().await;
        }
        if !db.options.flush_when_due {
            continue;
        }
        if let Some(done) = flush.take_if(|f| f.is_finished()) {
            match done.await {
                Ok(Ok(_)) => flush_pause = Pause::default(),
                // Nothing is lost meanwhile: samples stay in memory, in the log and on the local disk.
                Ok(Err(e)) => flush_pause.failed(tick, "flush", &e),
                Err(e) => flush_pause.failed(tick, "flush", &e),
            }
        }
        if flush.is_none() && tick >= flush_pause.until && db.flush_is_due() {
            let db = db.clone();
            flush = Some(tokio::spawn(async move { db.flush().await }));
            continue;
        }
        let pressed = tick >= relieved && db.pressure() != Pressure::None;
        if tick < seal_pause.until || !(pressed || db.seal_is_due()) {
            continue;
        }
        if pressed {
            relieved = tick + RELIEF_TICKS;
            db.counts.early.fetch_add(1, Ordering::Relaxed);
            let bytes = db.head.bytes();
            tracing::info!(
                bytes = bytes.total(),
                chunks = bytes.chunks,
                series = bytes.series,
                "moving samples to the local disk early: the head nears head.max_memory_bytes"
            );
        }
        match db.seal().await {
            Ok(()) => seal_pause = Pause::default(),
            Err(e) => seal_pause.failed(tick, "moving samples to the local disk", &e),
        }
    }
}

/// Ticks to wait after failures.
#[derive(Default)]
struct Pause {
    until: u64,
    ticks: u64,
}

impl Pause {
    fn failed(&mut self, tick: u64, what: &str, e: &dyn std::fmt::Display) {
        self.ticks = (self.ticks * 2).clamp(5, 60);
        self.until = tick + self.ticks;
        tracing::error!("{what} failed and will be tried again in {} s: {e}", self.ticks);
    }
}
