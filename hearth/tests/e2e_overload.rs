//! Far more than the head may hold, an object store that is away, a disk that takes nothing, and attacks of
//! every kind: writes are put off and never lost, queries go on, memory stays bounded, and all is well again
//! soon after.

mod test_services;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use test_services::api::{percent, seconds};
use test_services::remote_write::{bytes_field, snappy, varint, write_request};
use test_services::{Api, Rng, Series, Start, now_ms, series, wait_for};

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

/// What a container for a process with [`MEMORY_LIMIT`] has: 80 % of it are the default of the limit.
const CAP_BYTES: u64 = 1 << 30;
const MEMORY_LIMIT: &str = "819MiB";

/// How long each attack goes on.
const ATTACK: Duration = Duration::from_secs(5);

/// Answers that say what is wrong and leave the server well.
const WELL: [u16; 7] = [200, 204, 400, 413, 422, 429, 503];

/// One client of an attack: what it does over and over, with the number of the client and of the turn.
type Attacker<'a> = &'a (dyn Fn(&Api, u64, u64) -> Option<u16> + Sync);

fn as_tenant(tenant: &str) -> [(&str, &str); 3] {
    [("Content-Encoding", "snappy"), ("Content-Type", "application/x-protobuf"), ("X-Scope-OrgID", tenant)]
}

fn write_as(api: &Api, tenant: &str, all: &[Series]) -> Option<u16> {
    let body = snappy(&write_request(all));
    api.try_post("/api/v1/write", &as_tenant(tenant), &body).ok().map(|answer| answer.status)
}

/// A large answer begins before all of it is there: where memory runs out meanwhile its connection ends.
fn ask(api: &Api, path: &str, query: &str) -> Option<u16> {
    let path = format!("{path}{}", percent(query.as_bytes(), false));
    api.try_get_with(&path, &[("X-Scope-OrgID", "attack")]).ok().map(|answer| answer.status)
}

fn ask_range(api: &Api, query: &str) -> Option<u16> {
    let (start, end) = (seconds(now_ms() - 3_600_000), seconds(now_ms()));
    ask(api, &format!("/api/v1/query_range?start={start}&end={end}&step=15&query="), query)
}

fn new_series(api: &Api, client: u64, turn: u64) -> Option<u16> {
    let one = |n: u64| {
        let id = format!("{client}-{}", turn * 2_000 + n);
        series(&[("__name__", "flood"), ("id", &id), ("text", &id.repeat(20))], &[(now_ms(), 1.0)])
    };
    write_as(api, "attack", &(0..2_000).map(one).collect::<Vec<_>>())
}

/// Series whose labels are hundreds of times as long as what the head has of them, as it has each text once.
fn long_labels(api: &Api, client: u64, turn: u64) -> Option<u16> {
    let long = "w".repeat(8_000);
    let one = |n: u64| {
        let own = format!("{client}-{turn}-{n}-{}", &long[..4_000]);
        let labels = [("__name__", "long"), ("a", own.as_str()), ("b", &long), ("c", &long), ("d", &long)];
        series(&labels, &[(now_ms(), 1.0)])
    };
    write_as(api, "attack", &(0..200).map(one).collect::<Vec<_>>())
}

fn late_samples(api: &Api, client: u64, turn: u64) -> Option<u16> {
    let mut rng = Rng(client * 1_000_003 + turn + 1);
    let from_ms = now_ms() - 30 * 86_400_000;
    let one = |n: u64| {
        let samples: Vec<_> = (0..100)
            .map(|_| (from_ms + rng.below(2_500_000_000u64) as i64, rng.below(1_000u64) as f64))
            .collect();
        series(&[("__name__", "late"), ("id", &format!("{client}-{n}"))], &samples)
    };
    write_as(api, "attack", &(0..100).map(one).collect::<Vec<_>>())
}

fn metadata(api: &Api, client: u64, turn: u64) -> Option<u16> {
    let mut message = Vec::new();
    for n in 0..2_000 {
        let mut one = vec![8, 1];
        bytes_field(&mut one, 2, format!("metric_{client}_{turn}_{n}").as_bytes());
        bytes_field(&mut one, 4, format!("{turn} {n} {}", "help ".repeat(600)).as_bytes());
        bytes_field(&mut message, 3, &one);
    }
    api.try_post("/api/v1/write", &as_tenant("attack"), &snappy(&message)).ok().map(|answer| answer.status)
}

/// 32 MiB in 1.5: a body of one byte that is copied, as a write and as a read.
fn decompression_bomb(api: &Api, _: u64, turn: u64) -> Option<u16> {
    let mut bomb = Vec::new();
    varint(&mut bomb, 32 << 20);
    bomb.extend([0, if turn.is_multiple_of(2) { 0x0a } else { 0x10 }]);
    for _ in 0..(32 << 20) / 64 {
        bomb.extend([63 << 2 | 2, 1, 0]);
    }
    api.try_post("/api/v1/write", &as_tenant("attack"), &bomb).ok().map(|answer| answer.status)
}

fn regexes(api: &Api, client: u64, turn: u64) -> Option<u16> {
    let words: Vec<String> = (0..50).map(|n| format!(r"\pL{}", client * 1_000 + turn * 50 + n)).collect();
    ask(api, "/api/v1/query?query=", &format!(r#"x{{text=~"({}){{1,900}}"}}"#, words.join("|")))
}

fn label_bombs(api: &Api, client: u64, turn: u64) -> Option<u16> {
    let many = |name: &str| vec![format!("\"{name}\""); 200].join(",");
    let inner = format!(r#"label_join(x, "a", ",", {})"#, many("text"));
    match (client + turn) % 3 {
        0 => ask_range(api, &format!(r#"label_join({inner}, "b", ",", {})"#, many("a"))),
        1 => ask_range(api, &format!(r#"label_replace(x, "z", "{}", "text", "(.*)")"#, "$1".repeat(300))),
        _ => ask_range(api, r#"count_values("v", x)"#),
    }
}

fn heavy_queries(api: &Api, client: u64, turn: u64) -> Option<u16> {
    let all = ["x", "rate(x[5m:1s])", "sort(x)", "max_over_time(x[1h:1s])", "x or flood", "x * on (n) x"];
    ask_range(api, all[(client + turn) as usize % all.len()])
}

fn lookups(api: &Api, client: u64, turn: u64) -> Option<u16> {
    let all = [
        "/api/v1/series?match[]=",
        "/federate?match[]=",
        "/api/v1/label/text/values?match[]=",
        "/api/v1/labels?match[]=",
        "/api/v1/metadata?limit=&metric=&x=",
    ];
    ask(api, all[(client + turn) as usize % all.len()], r#"{__name__=~".+"}"#)
}

fn forms(api: &Api, _: u64, turn: u64) -> Option<u16> {
    let headers = [("X-Scope-OrgID", "attack"), ("Content-Type", "application/x-www-form-urlencoded")];
    let body = match turn % 2 {
        0 => format!("query=up{}", "&a".repeat(4_000_000)),
        _ => format!("query={}", "(".repeat(2_000_000)),
    };
    api.try_post("/api/v1/query", &headers, body.as_bytes()).ok().map(|answer| answer.status)
}

/// Runs an attack with so many clients, and sees that the server is well during and after it.
fn attacked(hearth: &test_services::Hearth, name: &str, clients: u64, attacker: Attacker<'_>) {
    let until = Instant::now() + ATTACK;
    let statuses = std::sync::Mutex::new(std::collections::BTreeMap::<u16, u64>::new());
    std::thread::scope(|threads| {
        for client in 0..clients {
            let statuses = &statuses;
            threads.spawn(move || {
                let mut turn = 0;
                while Instant::now() < until {
                    if let Some(status) = attacker(&hearth.api, client, turn) {
                        assert!(WELL.contains(&status), "{name}: {status}");
                        *statuses.lock().expect("no client failed").entry(status).or_default() += 1;
                    }
                    turn += 1;
                }
            });
        }
    });
    let over = Instant::now();
    wait_for("another tenant to be served", RECOVERY, || {
        let well = [series(&[("__name__", "well")], &[(now_ms(), 1.0)])];
        let asked = hearth.api.try_get_with("/api/v1/query?query=well", &[("X-Scope-OrgID", "well")]);
        let served = write_as(&hearth.api, "well", &well) == Some(204);
        (served && asked.is_ok_and(|answer| answer.status == 200)).then_some(())
    });
    let most = hearth.process.memory_bytes("VmHWM");
    let statuses = statuses.into_inner().expect("no client failed");
    eprintln!("{name}: {} MiB at most, served again after {:?}; {statuses:?}", most >> 20, over.elapsed());
    assert!(most < CAP_BYTES, "{name}: {} MiB resident", most >> 20);
    assert!(!statuses.is_empty(), "{name}: nobody was answered");
}

#[test]
fn memory_stays_below_the_cap_of_a_container_under_attacks_of_every_kind() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = format!("tenant_header: X-Scope-OrgID\nmemory:\n  limit: {MEMORY_LIMIT}\n");
    let hearth = Start::at(folder.path()).config(&config).ready();
    let (now, text) = (now_ms(), "y".repeat(300));
    for from in (0..2_000u64).step_by(500) {
        let one = |n: u64| {
            let samples: Vec<_> = (0..240).map(|s| (now - 3_600_000 + s * 15_000, s as f64)).collect();
            series(&[("__name__", "x"), ("n", &n.to_string()), ("text", &format!("{n}{text}"))], &samples)
        };
        let all: Vec<_> = (from..from + 500).map(one).collect();
        assert_eq!(write_as(&hearth.api, "attack", &all), Some(204));
    }
    let attacks: [(&str, u64, Attacker<'_>); 11] = [
        ("new series", 4, &new_series),
        ("long labels", 4, &long_labels),
        ("late samples", 4, &late_samples),
        ("metadata", 3, &metadata),
        ("decompression bombs", 8, &decompression_bomb),
        ("regular expressions", 8, &regexes),
        ("label bombs", 20, &label_bombs),
        ("heavy queries", 60, &heavy_queries),
        ("lookups", 12, &lookups),
        ("forms", 6, &forms),
        ("all at once", 22, &|api, client, turn| {
            let all: [Attacker<'_>; 11] = [
                &new_series,
                &long_labels,
                &late_samples,
                &metadata,
                &decompression_bomb,
                &regexes,
                &label_bombs,
                &heavy_queries,
                &lookups,
                &forms,
                &heavy_queries,
            ];
            all[client as usize % all.len()](api, client, turn)
        }),
    ];
    for (name, clients, attacker) in attacks {
        attacked(&hearth, name, clients, attacker);
    }
}
