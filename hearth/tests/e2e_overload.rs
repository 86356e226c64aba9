//! Far more than the head may hold, an object store that is away, and a disk that takes nothing: writes are
//! put off and never lost, queries go on, memory stays bounded, and all is well again soon after.

mod test_services;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use test_services::{Api, Series, Start, now_ms, series, wait_for};

/// Small, so that a few seconds are enough to fill it many times over.
const HEAD_BYTES: u64 = 2 << 20;

/// What the process may need in all, a debug build with everything else it does.
const MOST_MEMORY_BYTES: u64 = 500 << 20;

/// How soon a client must be served again once what held it up is over.
const RECOVERY: Duration = Duration::from_secs(60);

/// One request of a sender: fifty series with twenty samples of noise each.
fn request(sender: usize, n: u64, from_ms: i64) -> Vec<Series> {
    (0..50u64)
        .map(|s| {
            let samples: Vec<_> = (n * 20..n * 20 + 20)
                .map(|t| {
                    let noise = (t ^ s << 32 ^ (sender as u64) << 50).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    (from_ms + t as i64, (noise >> 11) as f64 / 1e7)
                })
                .collect();
            let (sender, s) = (format!("sender-{sender}"), format!("{s:02}"));
            series(&[("__name__", "flood"), ("s", &s), ("sender", &sender)], &samples)
        })
        .collect()
}

/// Sends until all is acknowledged, coming again when told to; how often that was.
fn flood(api: &Api, sender: usize, requests: u64, from_ms: i64) -> u64 {
    let mut put_off = 0;
    for n in 0..requests {
        let request = request(sender, n, from_ms);
        wait_for("a write to be taken", RECOVERY, || {
            let answer = api.try_write(&request).expect("an answer, however much there is to do");
            match answer.status {
                204 => Some(()),
                503 => {
                    assert_eq!(answer.headers["retry-after"], "5");
                    assert!(answer.error(503, "unavailable").contains("head.max_memory_bytes"));
                    put_off += 1;
                    None
                }
                other => panic!("{other}: {}", answer.text()),
            }
        });
    }
    put_off
}

fn count(api: &Api) -> f64 {
    let all = api.instant("sum(count_over_time(flood[1h]))", now_ms() + 1_000);
    if all.is_empty() { 0.0 } else { all.single() }
}

fn start(folder: &std::path::Path) -> test_services::Hearth {
    Start::at(folder).config(&format!("head:\n  max_memory_bytes: {HEAD_BYTES}\n")).ready()
}

#[test]
fn head_puts_off_many_times_what_fits_and_takes_it_in_the_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hearth = start(folder.path());
    let (senders, requests, from_ms) = (4, 125, now_ms() - 600_000);
    let stop = Arc::new(AtomicBool::new(false));
    // Somebody looks at it all the while, and is answered.
    let (api, stopped, looks) = (hearth.api.clone(), stop.clone(), Arc::new(AtomicU64::new(0)));
    let looked = looks.clone();
    let beside = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            let asked = Instant::now();
            count(&api);
            assert!(asked.elapsed() < RECOVERY);
            looked.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    let put_off: u64 = std::thread::scope(|threads| {
        let one = |sender| {
            let api = hearth.api.clone();
            threads.spawn(move || flood(&api, sender, requests, from_ms))
        };
        let all: Vec<_> = (0..senders).map(one).collect();
        all.into_iter().map(|t| t.join().expect("a sender got through")).sum()
    });
    stop.store(true, Ordering::Relaxed);
    beside.join().expect("queries are answered under overload");
    assert!(put_off > 0 && looks.load(Ordering::Relaxed) > 0, "{put_off} put off");
    let sent = (senders as u64 * requests * 50 * 20) as f64;
    assert_eq!(count(&hearth.api), sent, "nothing acknowledged is lost, nothing is twice");
    let most = hearth.process.memory_bytes("VmHWM");
    assert!(most < MOST_MEMORY_BYTES, "{} MiB resident", most >> 20);
    // What is acknowledged survives the process, whatever state it was in.
    let hearth = hearth.again();
    assert_eq!(count(&hearth.api), sent);
}

#[test]
fn object_store_that_is_away_costs_disk_and_without_disk_writes_stop_but_not_queries() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hearth = start(folder.path());
    let blocks = hearth.start.data_dir().join("blocks");
    let away = hearth.start.data_dir().join("away");
    std::fs::rename(&blocks, &away).expect("the store can be taken away");
    std::fs::write(&blocks, "no folder").expect("a file stands in its place");
    let from_ms = now_ms() - 600_000;
    // Samples leave memory for the local disk: twice what the head may hold is taken, and more.
    let mut sent = 500;
    flood(&hearth.api, 0, sent, from_ms);
    assert_eq!(count(&hearth.api), (sent * 1000) as f64, "queries are answered from the local disk");
    // Where blocks are encoded a file stands too: nothing can be sealed any more. Something may be at it
    // right now.
    let scratch = hearth.start.data_dir().join("scratch");
    wait_for("the scratch folder to be taken away", RECOVERY, || {
        let _ = std::fs::remove_dir_all(&scratch);
        std::fs::write(&scratch, "no folder").ok()
    });
    let refused = wait_for("the head to be full", Duration::from_secs(120), || {
        let request = request(0, sent, from_ms);
        let answer = hearth.api.try_write(&request).expect("an answer");
        match answer.status {
            204 => {
                sent += 1;
                (sent > 3_000).then_some(None)
            }
            _ => Some(Some(answer)),
        }
    });
    let refused = refused.expect("a head that can go nowhere holds writes up");
    assert!(refused.error(503, "unavailable").contains("head.max_memory_bytes"));
    // A sender of 2.0 learns that nothing was written.
    let body = test_services::remote_write::snappy(&test_services::remote_write::write_request(&request(
        0, sent, from_ms,
    )));
    let as_prometheus = [
        ("Content-Encoding", "snappy"),
        ("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
        ("User-Agent", "Prometheus/3.14.0"),
    ];
    let answer = hearth.api.post("/api/v1/write", &as_prometheus, &body);
    assert_eq!((answer.status, answer.headers["retry-after"].as_str()), (503, "5"));
    assert_eq!(answer.headers["x-prometheus-remote-write-samples-written"], "0");
    assert_eq!(count(&hearth.api), (sent * 1000) as f64, "queries are answered from head and disk");
    std::fs::remove_file(&scratch).expect("the file can go");
    std::fs::remove_file(&blocks).expect("the file can go");
    std::fs::rename(&away, &blocks).expect("the store comes back");
    let back = Instant::now();
    wait_for("a write to be taken again", RECOVERY, || {
        (hearth.api.try_write(&request(0, sent, from_ms)).expect("an answer").status == 204).then_some(())
    });
    eprintln!("taken again after {:?}", back.elapsed());
    assert_eq!(count(&hearth.api), ((sent + 1) * 1000) as f64);
}
