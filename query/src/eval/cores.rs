//! Work over series on several cores. Whoever asks works too, and takes what was made in order; threads of
//! the process help where they are free.
//!
//! A helper does one piece for whom it helps, then one for the next who waits: a wide query does not keep it
//! from others, and helpers never wait for a store. Of many who ask at once one works himself and the others
//! wait for what helpers make of theirs, so that there are not more threads at work than cores. (A pool with
//! scopes, as rayon's, has the asker do nothing, and wait until all that he handed out was at least looked
//! at, behind all that others handed out before.)

use std::any::Any;
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hashbrown::HashMap;
use model::source::SeriesColumns;
use parking_lot::{Condvar, Mutex};

/// Something to help with.
trait Task: Send + Sync {
    /// Does a piece, if one is waiting; whether more are. After `false` it has to be offered again.
    fn turn(&self) -> bool;
}

/// The threads that help, and whom: each offer is a place in the row.
struct Helpers {
    threads: usize,
    offers: Mutex<VecDeque<Arc<dyn Task>>>,
    some: Condvar,
}

impl Helpers {
    /// Those of the process: one for each core but that of the asker.
    fn get() -> &'static Helpers {
        static HELPERS: OnceLock<&'static Helpers> = OnceLock::new();
        HELPERS.get_or_init(|| {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let none = Helpers { threads: 0, offers: Mutex::default(), some: Condvar::new() };
            let helpers: &'static Helpers = Box::leak(Box::new(Helpers { threads: cores - 1, ..none }));
            for n in 0..helpers.threads {
                let thread = std::thread::Builder::new().name(format!("query-{n}"));
                // Without it there is less help.
                let _ = thread.spawn(|| helpers.help());
            }
            helpers
        })
    }

    fn help(&self) {
        loop {
            let task = {
                let mut offers = self.offers.lock();
                loop {
                    match offers.pop_front() {
                        Some(task) => break task,
                        None => self.some.wait(&mut offers),
                    }
                }
            };
            if task.turn() {
                self.offers.lock().push_back(task);
            }
        }
    }

    fn offer(&self, task: Arc<dyn Task>) {
        self.offers.lock().push_back(task);
        self.some.notify_one();
    }
}

/// How many cores there are, helpers' and the asker's.
pub(super) fn cores() -> usize {
    Helpers::get().threads + 1
}

/// The core that is left beside helpers: one asker at a time makes pieces himself. With all of them at work a
/// small query would wait behind as many threads as there are wide ones.
static ASKERS_CORE: Mutex<()> = Mutex::new(());

/// How long an asker waits for helpers, who may be at pieces that take very long.
const PATIENCE: Duration = Duration::from_millis(20);

/// Makes something of some series.
type Make<T> = dyn Fn(&[SeriesColumns]) -> T + Send + Sync;

/// Series of which something is to be made, in pieces.
pub(super) struct Spread<T> {
    state: Mutex<State<T>>,
    made: Condvar,
}

struct State<T> {
    /// `None` after the end: what it holds is the query's.
    make: Option<Arc<Make<T>>>,
    waiting: VecDeque<(usize, Arc<Vec<SeriesColumns>>, Range<usize>)>,
    /// By number of the piece; what a panic left instead.
    made: HashMap<usize, Result<T, Box<dyn Any + Send>>>,
    /// Pieces that were ever added, and that somebody is at.
    pieces: usize,
    running: usize,
    /// Places in the row of those who wait for help.
    offers: usize,
}

impl<T: Send + 'static> Spread<T> {
    pub fn new(make: impl Fn(&[SeriesColumns]) -> T + Send + Sync + 'static) -> Arc<Spread<T>> {
        let (waiting, made) = (VecDeque::new(), HashMap::new());
        let make: Arc<Make<T>> = Arc::new(make);
        let state = State { make: Some(make), waiting, made, pieces: 0, running: 0, offers: 0 };
        Arc::new(Spread { state: Mutex::new(state), made: Condvar::new() })
    }

    /// Adds a batch in pieces of so many series; their numbers. With `help` for anybody to work on.
    pub fn add(self: &Arc<Self>, batch: &Arc<Vec<SeriesColumns>>, piece: usize, help: bool) -> Range<usize> {
        let piece = piece.max(1);
        let mut state = self.state.lock();
        let first = state.pieces;
        for from in (0..batch.len()).step_by(piece) {
            let number = state.pieces;
            state.waiting.push_back((number, batch.clone(), from..batch.len().min(from + piece)));
            state.pieces += 1;
        }
        let numbers = first..state.pieces;
        let helpers = if help { Helpers::get() } else { return numbers };
        // One piece is for the asker.
        let wanted = helpers.threads.min(state.waiting.len().saturating_sub(1));
        let offers = wanted.saturating_sub(state.offers);
        state.offers += offers;
        drop(state);
        (0..offers).for_each(|_| helpers.offer(self.clone()));
        numbers
    }

    /// How many pieces nobody has begun.
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// What was made of a piece, if it was.
    pub fn take(&self, number: usize) -> Option<T> {
        let made = self.state.lock().made.remove(&number)?;
        Some(made.unwrap_or_else(|panic| resume_unwind(panic)))
    }

    /// Makes the next piece; where all are begun, or helpers are coming and there is no core left for an
    /// asker, waits for the next that is made, unless that with this number is.
    pub fn work_or_wait_for(&self, number: usize) {
        let mut state = self.state.lock();
        if state.made.contains_key(&number) {
            return;
        }
        if state.waiting.is_empty() {
            self.made.wait(&mut state);
            return;
        }
        let core = ASKERS_CORE.try_lock();
        if state.offers > 0 && core.is_none() && !self.made.wait_for(&mut state, PATIENCE).timed_out() {
            return;
        }
        drop(state);
        self.piece();
    }

    /// Lets go of what nobody has begun, and waits for those who are at a piece: nothing of a query is held
    /// after its end.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.waiting.clear();
        while state.running > 0 {
            self.made.wait(&mut state);
        }
        state.make = None;
        state.made.clear();
    }

    fn piece(&self) {
        let mut state = self.state.lock();
        let Some(make) = state.make.clone() else { return };
        let Some((number, batch, range)) = state.waiting.pop_front() else { return };
        state.running += 1;
        drop(state);
        let made = catch_unwind(AssertUnwindSafe(|| make(&batch[range])));
        // Whoever takes it, or ends, is the only one that holds them.
        drop((make, batch));
        let mut state = self.state.lock();
        state.running -= 1;
        state.made.insert(number, made);
        drop(state);
        self.made.notify_all();
    }
}

impl<T: Send + 'static> Task for Spread<T> {
    fn turn(&self) -> bool {
        self.piece();
        let mut state = self.state.lock();
        let more = !state.waiting.is_empty();
        state.offers -= usize::from(!more);
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::labels::Labels;

    fn batch(from: usize, to: usize) -> Arc<Vec<SeriesColumns>> {
        let one = |i: usize| SeriesColumns {
            labels: Labels::empty(),
            ts_ms: [i as i64].into(),
            values: vec![i as f64],
            histograms: None,
            start_ts_ms: None,
            windows: None,
        };
        Arc::new((from..to).map(one).collect())
    }

    fn first_values(series: &[SeriesColumns]) -> Vec<f64> {
        series.iter().map(|s| s.values[0]).collect()
    }

    #[test]
    fn pieces_are_made_once_whoever_makes_them() {
        for help in [false, true] {
            let spread = Spread::new(first_values);
            let numbers = spread.add(&batch(0, 1000), 7, help);
            let more = spread.add(&batch(1000, 1003), 7, help);
            assert_eq!((numbers.len(), more.clone()), (143, 143..144));
            let mut all = Vec::new();
            for number in numbers.chain(more) {
                let made = loop {
                    match spread.take(number) {
                        Some(made) => break made,
                        None => spread.work_or_wait_for(number),
                    }
                };
                all.extend(made);
            }
            assert!(all.iter().copied().eq((0..1003).map(f64::from)), "help: {help}");
        }
    }

    #[test]
    fn pieces_of_several_askers_are_made_beside_one_another() {
        let askers: Vec<_> = (0..8)
            .map(|asker| {
                std::thread::spawn(move || {
                    let spread = Spread::new(first_values);
                    let from = asker * 10_000;
                    let mut sum = 0.0;
                    for number in spread.add(&batch(from, from + 5000), 16, true) {
                        while spread.state.lock().made.get(&number).is_none() {
                            spread.work_or_wait_for(number);
                        }
                        sum += spread.take(number).unwrap().iter().sum::<f64>();
                    }
                    (from, sum)
                })
            })
            .collect();
        for asker in askers {
            let (from, sum) = asker.join().unwrap();
            assert_eq!(sum, (from..from + 5000).map(|i| i as f64).sum::<f64>());
        }
    }

    #[test]
    fn pieces_are_made_although_the_askers_core_is_taken() {
        let _taken = ASKERS_CORE.lock();
        let spread = Spread::new(first_values);
        for number in spread.add(&batch(0, 20), 1, true) {
            while !spread.state.lock().made.contains_key(&number) {
                spread.work_or_wait_for(number);
            }
            assert_eq!(spread.take(number), Some(vec![number as f64]));
        }
    }

    #[test]
    fn piece_that_panics_ends_who_takes_it_and_no_helper() {
        for _ in 0..4 {
            let spread: Arc<Spread<()>> = Spread::new(|_| panic!("a piece"));
            let numbers = spread.add(&batch(0, 10), 1, true);
            for number in numbers {
                while !spread.state.lock().made.contains_key(&number) {
                    spread.work_or_wait_for(number);
                }
                assert!(catch_unwind(AssertUnwindSafe(|| spread.take(number))).is_err());
            }
        }
        let spread = Spread::new(first_values);
        spread.add(&batch(0, 10), 1, true);
        spread.stop();
        let state = spread.state.lock();
        assert!(state.waiting.is_empty() && state.running == 0 && state.make.is_none());
    }
}
