//! Small queries run where their request came in; what waits or is large runs elsewhere, with the same
//! answer.

use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Duration;

use model::labels::Labels;
use model::source::at_once::{is_at_once, may_read_series, may_wait};
use model::source::memory::MemorySource;
use model::source::{LabelQuery, Selection, SeriesCursor, Source, SourceError};
use parking_lot::Mutex;

use super::frame::{api_of, sample_data};

/// What a source does when it is asked.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Small,
    Waits,
    Large,
    Panics,
    /// It knows nothing of doing things at once.
    Simple,
}

struct Watched {
    data: MemorySource,
    way: Way,
    /// The thread of each selection, and whether it was an attempt.
    selections: Arc<Mutex<Vec<(ThreadId, bool)>>>,
}

impl Source for Watched {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        self.selections.lock().push((thread::current().id(), is_at_once()));
        match self.way {
            Way::Small | Way::Simple => {}
            Way::Waits => may_wait()?,
            Way::Large => may_read_series(1000)?,
            Way::Panics => assert!(!is_at_once(), "a bug of the source"),
        }
        self.data.select(selection)
    }

    fn series(&self, query: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        self.data.series(query)
    }

    fn gives_up_at_once(&self) -> bool {
        self.way != Way::Simple
    }
}

/// The answers to a query that is asked twice, and for each selection whether it ran where the request came
/// in and whether it was an attempt.
async fn asked_twice(way: Way, path: &str) -> (Vec<String>, Vec<(bool, bool)>) {
    let selections = Arc::new(Mutex::new(Vec::new()));
    let api = api_of(Arc::new(Watched { data: sample_data(), way, selections: selections.clone() }), |c| {
        // A machine that is busy otherwise lets a test's thread wait for longer than users' are kept.
        c.limits.longest_at_once = Duration::from_secs(60);
    });
    let answers = vec![api.get(path).await.text, api.get(path).await.text];
    let here = thread::current().id();
    let selections = selections.lock().iter().map(|(thread, attempt)| (*thread == here, *attempt)).collect();
    (answers, selections)
}

#[tokio::test]
async fn small_queries_run_where_they_arrive_and_others_do_not() {
    let (attempt, elsewhere) = ((true, true), (false, false));
    for path in ["query?query=sum(up)&time=600", "query_range?query=up&start=0&end=600&step=60&stats=true"] {
        let (want, selections) = asked_twice(Way::Simple, path).await;
        assert_eq!(selections, [elsewhere; 2], "{path}");
        assert!(want[0].contains("success"), "{}", want[0]);
        for (way, expected) in [
            (Way::Small, vec![attempt; 2]),
            // What it waited for may be there the next time.
            (Way::Waits, vec![attempt, elsewhere, attempt, elsewhere]),
            // It will be as large the next time.
            (Way::Large, vec![attempt, elsewhere, elsewhere]),
            (Way::Panics, vec![attempt, elsewhere, attempt, elsewhere]),
        ] {
            let (answers, selections) = asked_twice(way, path).await;
            assert_eq!(selections, expected, "{path}");
            if !path.contains("stats") {
                assert_eq!(answers, want, "{path}");
            }
            assert!(answers.iter().all(|a| a.contains("success")), "{answers:?}");
        }
    }
}

#[tokio::test]
async fn queries_that_may_take_long_are_not_tried() {
    for query in [r#"up{job=~".*"}"#, "max_over_time(up[10m:1s])", r#"label_replace(up,"a","$1","b","(.*)")"#]
    {
        let query: String = query.bytes().map(|b| format!("%{b:02x}")).collect();
        let (answers, selections) = asked_twice(Way::Small, &format!("query?query={query}&time=600")).await;
        assert!(answers[0].contains("success"), "{}", answers[0]);
        assert!(selections.iter().all(|(_, attempt)| !attempt), "{query}");
    }
}

#[tokio::test]
async fn errors_of_small_queries_are_those_of_any() {
    for (path, status) in [
        ("query?query=up%20%2b%20on(x)%20up&time=600", 422),
        ("query?query=up%20%2b&time=600", 400),
        ("query_range?query=up[5m]&start=0&end=600&step=60", 400),
    ] {
        let of = |way| {
            let api =
                api_of(Arc::new(Watched { data: sample_data(), way, selections: Arc::default() }), |_| {});
            async move { api.get(path).await }
        };
        let (small, simple) = (of(Way::Small).await, of(Way::Simple).await);
        assert_eq!((small.status.as_u16(), &small.text), (status, &simple.text), "{path}");
    }
}
