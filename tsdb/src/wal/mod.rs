//! The write-ahead log: what was acknowledged is here, fsynced, until its blocks are committed.
//!
//! Writers hand in encoded records ([`record`]); one thread writes and fsyncs whatever has gathered since its
//! last fsync (group commit), so the cost of an fsync is shared by all requests that wait for it. Segments
//! are numbered files; a flush cuts the log, and when the blocks are committed the segments before the cut
//! are removed whole. [`replay`] reads what is left after a restart.

mod definitions;
pub mod record;
pub mod replay;
mod values;

use std::fs::{File, OpenOptions};
use std::io::{IoSlice, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

/// First bytes of a segment; the digit is the format's version.
pub const MAGIC: &[u8; 8] = b"HTHLOG1\n";

/// Magic, session and number of the segment, and their CRC-32.
pub const HEADER_BYTES: usize = 8 + 8 + 8 + 4;

/// A segment longer than this is followed by another: bounds what one read of a replay holds.
const SEGMENT_BYTES: u64 = 128 << 20;

/// The path of a segment.
pub fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.log"))
}

/// Numbers of the segments in a folder, ascending.
pub fn segments(dir: &Path) -> std::io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        if let Some(n) = name.to_str().and_then(|n| n.strip_suffix(".log")).and_then(|n| n.parse().ok()) {
            numbers.push(n);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// When a write counts as acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSync {
    /// After the fsync of the group it is in.
    Always,
    /// After the write to the operating system; fsync follows at this interval. Power loss may cost that
    /// much.
    Every(Duration),
}

/// What the log has done, for metrics.
#[derive(Debug, Default)]
pub struct LogCounts {
    pub bytes: AtomicU64,
    pub fsyncs: AtomicU64,
    pub fsync_micros: AtomicU64,
    pub failures: AtomicU64,
}

/// The open log of a data folder. Dropped, it writes and fsyncs what was handed in.
pub struct Log {
    shared: Arc<Shared>,
    first_segment: u64,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    mark: AtomicU64,
    counts: LogCounts,
}

struct Queue {
    /// How many requests were handed in, refused ones included.
    handed_in: u64,
    /// What each request handed in, as it is: nothing is copied while others wait for the lock.
    records: Vec<Vec<u8>>,
    group: Group,
    cut: Option<watch::Sender<Option<Result<u64, LogError>>>>,
    closing: bool,
    closed: bool,
}

/// The requests that share one fsync.
#[derive(Clone)]
struct Group(watch::Sender<Option<Result<(), LogError>>>);

impl Group {
    fn new() -> Self {
        Group(watch::Sender::new(None))
    }
}

/// Why something is not in the log. Told to every request of the group.
#[derive(Debug, thiserror::Error, Clone)]
pub enum LogError {
    #[error(
        "cannot write the log {}: {cause}. Nothing of this request was taken; free space or fix the folder, and it goes on by itself",
        segment.display()
    )]
    Disk {
        segment: PathBuf,
        #[source]
        cause: Arc<std::io::Error>,
    },
    #[error("the log is closed: the server is stopping")]
    Closed,
    #[error("the log's thread has stopped")]
    Stopped,
}

/// Waits for the fsync of what was handed in.
pub struct Pending {
    number: u64,
    done: watch::Receiver<Option<Result<(), LogError>>>,
}

impl Pending {
    /// Its place in the log: what has a higher number comes later there. They are given out from 1 without a
    /// gap, also to what then fails.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns when it is durable, or says why it is not.
    pub async fn durable(mut self) -> Result<(), LogError> {
        match self.done.wait_for(Option::is_some).await {
            Ok(result) => result.clone().expect("waited for it"),
            Err(_) => Err(LogError::Stopped),
        }
    }
}

/// What was encoded relied on series definitions that are not in the log any more: encode again.
#[derive(Debug)]
pub struct Stale;

impl Log {
    /// Starts a new segment in `dir` with this number. `session` tells this process's records from an earlier
    /// one's.
    pub fn create(dir: &Path, number: u64, session: u64, sync: LogSync) -> std::io::Result<Log> {
        Log::create_noting(dir, number, session, sync, |_| ())
    }

    /// The same; `begun` hears the number of each further segment that is begun because the one before was
    /// full or could not be written, before anything is written into it. It may block.
    pub fn create_noting(
        dir: &Path,
        number: u64,
        session: u64,
        sync: LogSync,
        begun: impl Fn(u64) + Send + 'static,
    ) -> std::io::Result<Log> {
        let file = SegmentFile::create(dir, number, session)?;
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                handed_in: 0,
                records: Vec::new(),
                group: Group::new(),
                cut: None,
                closing: false,
                closed: false,
            }),
            wake: Condvar::new(),
            mark: AtomicU64::new(1),
            counts: LogCounts::default(),
        });
        let committer = Committer {
            shared: shared.clone(),
            dir: dir.to_path_buf(),
            session,
            sync,
            file,
            begun: Box::new(begun),
            broken: false,
        };
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || committer.run())?;
        Ok(Log { shared, first_segment: number, thread: Mutex::new(Some(thread)) })
    }

    /// The segment it began with.
    pub fn first_segment(&self) -> u64 {
        self.first_segment
    }

    pub fn counts(&self) -> &LogCounts {
        &self.shared.counts
    }

    /// Changes whenever series have to be written down again before they are referred to: at a cut, and after
    /// a failed write.
    pub fn mark(&self) -> u64 {
        self.shared.mark.load(Ordering::Acquire)
    }

    /// Hands in whole records that were encoded under `mark`.
    pub fn append(&self, mark: u64, records: Vec<u8>) -> Result<Pending, Stale> {
        let mut queue = self.shared.queue.lock();
        if self.mark() != mark {
            return Err(Stale);
        }
        queue.handed_in += 1;
        let pending = Pending { number: queue.handed_in, done: queue.group.0.subscribe() };
        if queue.closed {
            queue.group.0.send_replace(Some(Err(LogError::Closed)));
            return Ok(pending);
        }
        queue.records.push(records);
        drop(queue);
        self.shared.wake.notify_one();
        Ok(pending)
    }

    /// Ends the current segment and begins the next; returns the next one's number. Records handed in before
    /// are in earlier segments.
    pub async fn cut(&self) -> Result<u64, LogError> {
        let mut receiver = {
            let mut queue = self.shared.queue.lock();
            if queue.closed {
                return Err(LogError::Closed);
            }
            let sender = watch::Sender::new(None);
            let receiver = sender.subscribe();
            queue.cut = Some(sender);
            receiver
        };
        self.shared.wake.notify_one();
        match receiver.wait_for(Option::is_some).await {
            Ok(result) => result.clone().expect("waited for it"),
            Err(_) => Err(LogError::Stopped),
        }
    }

    /// Writes and fsyncs what was handed in, then stops taking more.
    pub fn close(&self) {
        self.shared.queue.lock().closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the log's thread had panicked");
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

struct SegmentFile {
    file: File,
    number: u64,
    /// Bytes that are whole records; beyond may be the rest of a failed write.
    good_bytes: u64,
}

impl SegmentFile {
    fn create(dir: &Path, number: u64, session: u64) -> std::io::Result<Self> {
        let path = segment_path(dir, number);
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&session.to_le_bytes());
        header.extend_from_slice(&number.to_le_bytes());
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        file.write_all(&header)?;
        file.sync_all()?;
        // The file's name must be durable too.
        File::open(dir)?.sync_all()?;
        Ok(SegmentFile { file, number, good_bytes: HEADER_BYTES as u64 })
    }
}

struct Committer {
    shared: Arc<Shared>,
    dir: PathBuf,
    session: u64,
    sync: LogSync,
    file: SegmentFile,
    begun: Box<dyn Fn(u64) + Send>,
    /// The segment could not be brought back to whole records: the next write needs a new one.
    broken: bool,
}

impl Committer {
    fn run(mut self) {
        let mut unsynced_since: Option<Instant> = None;
        loop {
            let (records, group, cut, closing) = {
                let mut queue = self.shared.queue.lock();
                while queue.records.is_empty() && queue.cut.is_none() && !queue.closing {
                    match (self.sync, unsynced_since) {
                        (LogSync::Every(interval), Some(since)) => {
                            let left = interval.saturating_sub(since.elapsed());
                            if left.is_zero() || self.shared.wake.wait_for(&mut queue, left).timed_out() {
                                break;
                            }
                        }
                        _ => self.shared.wake.wait(&mut queue),
                    }
                }
                if queue.closing {
                    queue.closed = true;
                }
                let group = std::mem::replace(&mut queue.group, Group::new());
                (std::mem::take(&mut queue.records), group, queue.cut.take(), queue.closing)
            };
            if !records.is_empty() {
                let at_once = self.sync == LogSync::Always || closing || cut.is_some();
                match self.commit(&records, at_once) {
                    Ok(()) => {
                        group.0.send_replace(Some(Ok(())));
                        unsynced_since = if at_once { None } else { unsynced_since.or(Some(Instant::now())) };
                    }
                    Err(why) => self.fail(group, why),
                }
            } else if closing || cut.is_some() {
                let _ = self.sync_now();
                unsynced_since = None;
            }
            if let LogSync::Every(interval) = self.sync
                && unsynced_since.is_some_and(|since| since.elapsed() >= interval)
            {
                if let Err(e) = self.sync_now() {
                    // These were acknowledged: that is what the relaxed setting gives up.
                    tracing::error!(
                        "fsync of the log failed, samples of the last {interval:?} may not be durable: {e}"
                    );
                    self.broken = true;
                }
                unsynced_since = None;
            }
            if let Some(cut) = cut {
                let next = self.next_segment().map(|()| self.file.number);
                cut.send_replace(Some(next.map_err(|e| self.explain(e))));
            }
            if closing {
                return;
            }
        }
    }

    fn commit(&mut self, records: &[Vec<u8>], sync: bool) -> Result<(), LogError> {
        if self.broken || self.file.good_bytes > SEGMENT_BYTES {
            self.next_segment().map_err(|e| self.explain(e))?;
            (self.begun)(self.file.number);
        }
        let mut write = || {
            write_all_vectored(&mut self.file.file, records)?;
            if sync { self.sync_now() } else { Ok(()) }
        };
        match write() {
            Ok(()) => {
                let bytes: u64 = records.iter().map(|r| r.len() as u64).sum();
                self.file.good_bytes += bytes;
                self.shared.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(e) => {
                let back = self.file.file.set_len(self.file.good_bytes);
                let back =
                    back.and_then(|()| self.file.file.seek(SeekFrom::Start(self.file.good_bytes)).map(drop));
                self.broken = back.and_then(|()| self.file.file.sync_data()).is_err();
                Err(self.explain(e))
            }
        }
    }

    fn sync_now(&self) -> std::io::Result<()> {
        let started = Instant::now();
        self.file.file.sync_data()?;
        let counts = &self.shared.counts;
        counts.fsyncs.fetch_add(1, Ordering::Relaxed);
        counts.fsync_micros.fetch_add(started.elapsed().as_micros() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn next_segment(&mut self) -> std::io::Result<()> {
        self.file = SegmentFile::create(&self.dir, self.file.number + 1, self.session)?;
        self.broken = false;
        Ok(())
    }

    /// Tells this group, and all that came since, that nothing of theirs is in the log.
    fn fail(&self, group: Group, why: LogError) {
        tracing::error!("{why}");
        self.shared.counts.failures.fetch_add(1, Ordering::Relaxed);
        let mut queue = self.shared.queue.lock();
        // Series that the lost records defined must be written down again before anyone refers to them.
        self.shared.mark.fetch_add(1, Ordering::AcqRel);
        queue.records.clear();
        let since = std::mem::replace(&mut queue.group, Group::new());
        drop(queue);
        group.0.send_replace(Some(Err(why.clone())));
        since.0.send_replace(Some(Err(why)));
    }

    fn explain(&self, cause: std::io::Error) -> LogError {
        LogError::Disk { segment: segment_path(&self.dir, self.file.number), cause: Arc::new(cause) }
    }
}

/// Writes all of some buffers one behind the other, many with one call.
fn write_all_vectored(file: &mut File, buffers: &[Vec<u8>]) -> std::io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = buffers.iter().map(|bytes| IoSlice::new(bytes)).collect();
    let mut left = &mut slices[..];
    // What is empty needs no call, and a call that wrote nothing means that nothing can be written.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

impl Log {
    /// Makes every series be written down again before it is referred to; called at a cut, while no writer is
    /// in between.
    pub fn advance_mark(&self) {
        self.shared.mark.fetch_add(1, Ordering::AcqRel);
    }
}

/// How long a write may wait for its fsync before it is answered as unavailable.
pub const PATIENCE: Duration = Duration::from_secs(30);
