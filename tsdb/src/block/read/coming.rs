//! Blocks of bytes that a query asked for before it needs them: whoever needs one waits for its answer in
//! place of asking again.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use ulid::Ulid;

use super::cache::FileKind;
use model::source::SourceError;
use model::source::at_once::may_wait;

/// What is under way for one query.
#[derive(Default)]
pub(crate) struct Coming(Mutex<Vec<Run>>);

/// Consecutive blocks of a file that one request asks for.
struct Run {
    file: (Ulid, FileKind),
    blocks: Range<u64>,
    answer: Arc<Answer>,
}

#[derive(Default)]
struct Answer {
    here: Mutex<bool>,
    arrived: Condvar,
}

/// Held by a request; its end, with or without an answer, wakes who waits.
pub(crate) struct UnderWay(Arc<Answer>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.here.lock() = true;
        self.0.arrived.notify_all();
    }
}

impl Coming {
    /// Notes a request for some blocks of a file, which goes on until what is returned is dropped.
    pub fn add(&self, file: (Ulid, FileKind), blocks: Range<u64>) -> UnderWay {
        let answer = Arc::new(Answer::default());
        self.0.lock().push(Run { file, blocks, answer: answer.clone() });
        UnderWay(answer)
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Whether a block is under way.
    pub fn has(&self, file: (Ulid, FileKind), block: u64) -> bool {
        self.0.lock().iter().any(|run| run.file == file && run.blocks.contains(&block))
    }

    /// Waits for all requests that ask for any of these blocks.
    pub fn wait_for(&self, file: (Ulid, FileKind), blocks: &Range<u64>) -> Result<(), SourceError> {
        let mut found = Vec::new();
        self.0.lock().retain(|run| {
            let meets = run.file == file && run.blocks.start < blocks.end && blocks.start < run.blocks.end;
            if meets {
                found.push(run.answer.clone());
            }
            !meets
        });
        for answer in found {
            let mut here = answer.here.lock();
            while !*here {
                may_wait()?;
                answer.arrived.wait(&mut here);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coming_blocks_are_waited_for_by_who_needs_them_and_nobody_else() {
        let coming = Arc::new(Coming::default());
        let file = (Ulid::nil(), FileKind::Samples);
        let under_way = coming.add(file, 3..6);
        assert!(coming.has(file, 3) && !coming.has(file, 6) && !coming.has((file.0, FileKind::Series), 3));
        coming.wait_for(file, &(0..3)).unwrap();
        coming.wait_for(file, &(6..9)).unwrap();
        let waiting = {
            let coming = coming.clone();
            std::thread::spawn(move || coming.wait_for(file, &(5..7)))
        };
        while coming.has(file, 5) {
            std::thread::yield_now();
        }
        assert!(!waiting.is_finished());
        drop(under_way);
        waiting.join().unwrap().unwrap();
    }
}
