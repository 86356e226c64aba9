//! Work that is done at once or not at all. A small query runs on the thread that its request came in on,
//! which serves other connections too: handing it to another thread and back costs more than it takes. So it
//! may neither wait for the object store nor read much. Whoever would, asks here first; what is refused is
//! done again elsewhere, from the beginning.

use std::cell::Cell;

use super::SourceError;

/// Samples that one selector may read of a block.
const MOST_SAMPLES: u64 = 1 << 16;

thread_local! {
    /// What the work of this thread may read; `None` where it may take its time.
    static LIMIT: Cell<Option<usize>> = const { Cell::new(None) };
    static REFUSED: Cell<Option<Refused>> = const { Cell::new(None) };
}

/// Why work was not done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It had to wait for something, which may be there the next time.
    Waits,
    /// It is more than a little.
    Large,
}

/// Runs work that gives up with an error where it would wait, or where a selector has more than `most_series`
/// series; and says whether it was told to.
pub fn at_once<T>(most_series: usize, work: impl FnOnce() -> T) -> (T, Option<Refused>) {
    /// Also when the work panics.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            LIMIT.set(None);
        }
    }
    REFUSED.set(None);
    LIMIT.set(Some(most_series));
    let _reset = Reset;
    let done = work();
    (done, REFUSED.take())
}

/// Whether this thread has other things to do.
pub fn is_at_once() -> bool {
    LIMIT.get().is_some()
}

/// To be asked before a thread waits: for the object store, for other threads, for a lock that is held long.
pub fn may_wait() -> Result<(), SourceError> {
    if is_at_once() { Err(refuse(Refused::Waits)) } else { Ok(()) }
}

/// To be asked before so many series are read.
pub fn may_read_series(series: usize) -> Result<(), SourceError> {
    match LIMIT.get() {
        Some(most) if series > most => Err(refuse(Refused::Large)),
        _ => Ok(()),
    }
}

/// To be asked before so many samples of a block are read.
pub fn may_read_samples(samples: u64) -> Result<(), SourceError> {
    if is_at_once() && samples > MOST_SAMPLES { Err(refuse(Refused::Large)) } else { Ok(()) }
}

fn refuse(why: Refused) -> SourceError {
    REFUSED.set(Some(why));
    SourceError::Limit("this takes longer than what is done at once may take".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_once_refuses_what_waits_or_is_large_and_nothing_afterwards() {
        assert_eq!(at_once(2, || may_read_series(2).is_ok() && is_at_once()), (true, None));
        assert_eq!(at_once(2, || may_read_series(3).is_ok()), (false, Some(Refused::Large)));
        assert_eq!(at_once(2, || may_read_samples(MOST_SAMPLES + 1).is_ok()), (false, Some(Refused::Large)));
        assert_eq!(at_once(2, || may_wait().is_ok()), (false, Some(Refused::Waits)));
        assert!(std::panic::catch_unwind(|| at_once(2, || panic!("as a bug would"))).is_err());
        assert!(may_wait().is_ok() && may_read_series(1 << 30).is_ok() && may_read_samples(u64::MAX).is_ok());
    }
}
