//! Profiles over HTTP, in the format and at the paths that `go tool pprof` reads.

mod test_services;

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use test_services::api::Answer;
use test_services::{Api, Start, now_ms, series};

/// The message in a profile, whose texts stand in it as they are.
fn unpacked(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["content-type"], "application/octet-stream");
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut message).expect("a packed message");
    String::from_utf8_lossy(&message).into_owned()
}

#[test]
fn profiles_are_off_unless_the_admin_api_is_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let hearth = Start::at(folder.path()).config("self_metrics_interval: 0\n").ready();
    for path in
        ["/debug/pprof/", "/debug/pprof/profile?seconds=1", "/debug/pprof/heap", "/debug/pprof/cmdline"]
    {
        let answer = hearth.api.get(path, &[]);
        assert_eq!(answer.status, 403, "{path}: {}", answer.text());
        assert!(answer.text().contains("admin_api"), "{path}: {}", answer.text());
    }
}

#[test]
fn profiles_name_functions_and_kinds_of_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let hearth = Start::at(folder.path()).config("self_metrics_interval: 0\nadmin_api: true\n").ready();
    let end = now_ms() / 1000 * 1000;
    // Ten minutes and more would be sealed, and then the head may have no chunks.
    let samples: Vec<(i64, f64)> = (0..300).map(|i| (end - (300 - i) * 1000, i as f64)).collect();
    let all: Vec<_> =
        (0..50).map(|n| series(&[("__name__", "load"), ("n", &n.to_string())], &samples)).collect();
    hearth.api.write(&all);

    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let api = Api::new(hearth.start.port);
            let (start, end) = ((end / 1000 - 600).to_string(), (end / 1000).to_string());
            while !done.load(Ordering::Relaxed) {
                let form =
                    [("query", "sum(rate(load[5m]))"), ("start", &start), ("end", &end), ("step", "1")];
                assert_eq!(api.get("/api/v1/query_range", &form).status, 200);
            }
        });
        let first = scope.spawn(|| hearth.api.get("/debug/pprof/profile?seconds=3", &[]));
        std::thread::sleep(std::time::Duration::from_secs(1));
        let second = hearth.api.get("/debug/pprof/profile?seconds=1", &[]);
        assert_eq!(second.status, 500, "{}", second.text());
        assert!(second.text().starts_with("Could not enable CPU profiling"), "{}", second.text());
        let profile = unpacked(&first.join().expect("an answer"));
        done.store(true, Ordering::Relaxed);
        for text in ["query::engine::", ".rs", "nanoseconds", "hearth"] {
            assert!(profile.contains(text), "{text} is not in a profile of {} bytes", profile.len());
        }
    });

    let heap = unpacked(&hearth.api.get("/debug/pprof/heap", &[]));
    for text in ["inuse_space", "head", "chunks", "label strings", "free, kept by the allocator"] {
        assert!(heap.contains(text), "{text}: {heap:?}");
    }
    let line = hearth.api.get("/debug/pprof/cmdline", &[]).text();
    assert!(line.contains("hearth"), "{line}");
    assert_eq!(hearth.api.get("/debug/pprof/profile?seconds=x", &[]).status, 400);
    assert_eq!(hearth.api.get("/debug/pprof/nothing", &[]).status, 404);
    assert_eq!(hearth.api.call("POST", "/debug/pprof/heap").status, 405);
}
