//! A file of the queries at work: what a process that crashed was at is in it, for the next to tell.
//!
//! It is what Prometheus has as `queries.active`: one line of fixed length for each query that runs, blank
//! when it has ended. Lines are written into the file's place without waiting for the disk: that the process
//! dies takes nothing of it, only that the machine does.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Bytes of a line, its end included.
const LINE_BYTES: usize = 1024;

/// Lines there may be; queries beyond are not noted.
const MAX_LINES: usize = 256;

/// Of a query's text; in JSON it becomes up to six times as long.
const MAX_TEXT_BYTES: usize = 700;

/// A query as the file has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActiveQuery {
    pub tenant: String,
    pub endpoint: String,
    /// When it came, in milliseconds.
    pub started_ms: i64,
    /// First and last time that it is evaluated at, and the step, in milliseconds.
    pub start_ms: i64,
    pub end_ms: i64,
    pub step_ms: i64,
    /// Cut where it is long.
    pub query: String,
}

/// The open file. Clones write to the same.
#[derive(Clone)]
pub struct ActiveQueries(Arc<Inner>);

struct Inner {
    file: File,
    /// Lines that are blank below `lines`.
    free: Mutex<Lines>,
    unfinished: Vec<ActiveQuery>,
}

#[derive(Default)]
struct Lines {
    free: Vec<usize>,
    lines: usize,
}

impl ActiveQueries {
    /// Opens the file, reads what a process that crashed has left in it, and empties it.
    pub fn open(path: &Path) -> io::Result<ActiveQueries> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut left = vec![0; LINE_BYTES * MAX_LINES];
        let read = read_most(&file, &mut left)?;
        let lines = left[..read].split(|b| *b == b'\n');
        // A line that is not whole was being written when the machine went down.
        let unfinished = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
        file.set_len(0)?;
        Ok(ActiveQueries(Arc::new(Inner { file, free: Mutex::default(), unfinished })))
    }

    /// What the process before was at when it ended without ending them.
    pub fn unfinished(&self) -> &[ActiveQuery] {
        &self.0.unfinished
    }

    /// Notes a query until what this gives is dropped; `None` where there is no more room.
    pub(in crate::api) fn note(&self, mut query: ActiveQuery) -> Option<Noted> {
        let mut most = MAX_TEXT_BYTES;
        let mut line = loop {
            query.query.truncate(query.query.floor_char_boundary(most));
            let line = serde_json::to_vec(&query).ok()?;
            if line.len() < LINE_BYTES {
                break line;
            }
            most = most.checked_sub(100)?;
        };
        line.resize(LINE_BYTES - 1, b' ');
        line.push(b'\n');
        let at = {
            let mut lines = self.0.free.lock();
            match lines.free.pop() {
                Some(at) => at,
                None if lines.lines < MAX_LINES => {
                    lines.lines += 1;
                    lines.lines - 1
                }
                None => return None,
            }
        };
        let noted = Noted { file: self.0.clone(), at };
        // A disk that is full must not stop queries.
        let _ = self.0.file.write_all_at(&line, (at * LINE_BYTES) as u64);
        Some(noted)
    }
}

fn read_most(file: &File, into: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < into.len() {
        match file.read_at(&mut into[read..], read as u64) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(read)
}

/// A query that is noted.
pub(in crate::api) struct Noted {
    file: Arc<Inner>,
    at: usize,
}

impl Drop for Noted {
    fn drop(&mut self) {
        let mut blank = [b' '; LINE_BYTES];
        blank[LINE_BYTES - 1] = b'\n';
        let _ = self.file.file.write_all_at(&blank, (self.at * LINE_BYTES) as u64);
        self.file.free.lock().free.push(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> ActiveQuery {
        ActiveQuery {
            tenant: "a".into(),
            endpoint: "query".into(),
            started_ms: 1,
            start_ms: 2,
            end_ms: 3,
            step_ms: 4,
            query: text.into(),
        }
    }

    #[test]
    fn active_queries_that_did_not_end_are_found_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queries.active");
        let file = ActiveQueries::open(&path).unwrap();
        assert!(file.unfinished().is_empty());
        let [ended, left, quoted] = ["up", "sum(rate(x[5m]))", "{a=\"b\\n\"}\n"].map(|q| file.note(query(q)));
        drop(ended);
        let again = file.note(query("down"));
        // As a crash leaves it: nobody drops anything.
        std::mem::forget((left, quoted, again));
        let next = ActiveQueries::open(&path).unwrap();
        let mut texts: Vec<_> = next.unfinished().iter().map(|q| q.query.as_str()).collect();
        texts.sort_unstable();
        assert_eq!(texts, ["down", "sum(rate(x[5m]))", "{a=\"b\\n\"}\n"]);
        assert!(ActiveQueries::open(&path).unwrap().unfinished().is_empty(), "they are told once");
    }

    #[test]
    fn active_queries_take_bounded_room_whatever_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queries.active");
        let file = ActiveQueries::open(&path).unwrap();
        let noted: Vec<_> = (0..MAX_LINES + 5).map(|_| file.note(query(&"\u{1}ü".repeat(5_000)))).collect();
        assert_eq!(noted.iter().flatten().count(), MAX_LINES);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), (LINE_BYTES * MAX_LINES) as u64);
        std::fs::write(&path, [b"no json\n".as_slice(), b"{\"tenant\": 5}\n", &[0xff; 3]].concat()).unwrap();
        assert!(ActiveQueries::open(&path).unwrap().unfinished().is_empty());
        drop(noted);
    }
}
