//! A damaged log opens with every sample that is not in the damage, before it and behind it, and says how
//! many bytes were lost.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};

use model::tenant::TenantId;
use object_store::memory::InMemory;
use tracing::field::{Field, Visit};
use tracing::span;
use tsdb::db::DbOptions;
use tsdb::wal::record::{FloatRow, put_floats, put_series};
use tsdb::wal::{HEADER_BYTES, MAGIC, segment_path};

use crate::held::{self, ALL, Brings, Contents, Files};

/// Every warning of this process; those about a folder have its path in them.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Hears warnings and keeps their texts.
struct Listener;

impl tracing::Subscriber for Listener {
    fn enabled(&self, about: &tracing::Metadata<'_>) -> bool {
        *about.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    write!(self.0, "{value:?}").unwrap();
                }
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        WARNINGS.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Listener).expect("nobody else listens"));
}

/// What was warned of about files in a folder since it was asked last.
fn warnings(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    WARNINGS.lock().unwrap().extract_if(.., |w| w.contains(&folder)).collect()
}

fn options(dir: &Path) -> DbOptions {
    held::options(dir, Arc::new(InMemory::new()))
}

/// The kind of a record that defines series.
const SERIES: u8 = 7;

/// A log of one segment, and after each request its length and what the store then held.
struct Recorded {
    files: Files,
    segment: PathBuf,
    steps: Vec<(usize, Contents)>,
}

impl Recorded {
    fn bytes(&self) -> &[u8] {
        &self.files[&self.segment]
    }

    /// What must be there if only the first `whole` bytes are records.
    fn held(&self, whole: usize) -> &Contents {
        &self.steps.iter().rfind(|(len, _)| *len <= whole).expect("the first is the empty log").1
    }

    fn with(&self, segment: Vec<u8>) -> tempfile::TempDir {
        let mut files = self.files.clone();
        files.insert(self.segment.clone(), segment);
        held::folder(&files)
    }
}

/// Requests of one kind each, so that a request has at most one record beside the definitions of its series.
async fn recorded() -> Recorded {
    let dir = tempfile::tempdir().unwrap();
    let db = held::open(options(dir.path())).await;
    let segment = held::files(dir.path()).into_keys().find(|p| p.starts_with("log")).unwrap();
    let mut held = Contents::default();
    let mut steps = vec![(0, held.clone())];
    for (n, brings) in ALL.iter().chain(&ALL).enumerate() {
        held::write(&db, &TenantId::single(), &mut held, n as i64, &[*brings]).await;
        steps.push((std::fs::read(dir.path().join(&segment)).unwrap().len(), held.clone()));
    }
    drop(db);
    Recorded { files: held::files(dir.path()), segment, steps }
}

/// Where each record of a segment begins, and the end of the last: by the lengths alone.
fn borders(segment: &[u8]) -> Vec<usize> {
    let mut borders = vec![HEADER_BYTES];
    while let Some(length) = segment.get(borders[borders.len() - 1]..).and_then(<[u8]>::first_chunk::<4>) {
        borders.push(borders[borders.len() - 1] + 8 + u32::from_le_bytes(*length) as usize);
    }
    assert_eq!(borders.last(), Some(&segment.len()));
    borders
}

/// Opens a folder twice. The first time `cut` bytes of one segment are lost, and of the records only the
/// first `whole` bytes are there; the second time nothing more is lost, and it goes on.
async fn opens(recorded: &Recorded, folder: &Path, whole: usize, cut: usize, what: &str) {
    let mut held = recorded.held(whole).clone();
    let warning = if whole < HEADER_BYTES {
        format!("has no header: {cut} bytes passed over")
    } else {
        format!("ends in {cut} bytes that are no whole record")
    };
    let tenant = TenantId::single();
    for again in [false, true] {
        let db = held::open(options(folder)).await;
        // What is no segment cannot be cut and is reported again, until a flush removes it.
        let lost = if again && whole >= HEADER_BYTES { 0 } else { cut as u64 };
        let replayed = db.replayed();
        let (samples, exemplars) = (held.samples(), held.exemplars());
        assert_eq!(
            (
                replayed.cut_bytes,
                replayed.samples,
                replayed.exemplars,
                replayed.orphans,
                replayed.unread_bytes
            ),
            (lost, samples, exemplars, 0, 0),
            "{what}, again {again}"
        );
        let warned = warnings(folder);
        let expected = usize::from(lost > 0 || whole < HEADER_BYTES);
        assert!(
            warned.len() == expected && warned.iter().all(|w| w.contains(&warning)),
            "{what}, again {again}: {warned:?}"
        );
        assert_eq!(held::read(&db, &tenant).await, held, "{what}, again {again}");
        if !again {
            held::write(&db, &tenant, &mut held, 50, &ALL).await;
        }
        assert_eq!(held::read(&db, &tenant).await, held, "{what}, again {again}, written on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_cut_anywhere_opens_with_its_whole_records_and_says_how_many_bytes_were_lost() {
    listen();
    let recorded = recorded().await;
    let bytes = recorded.bytes();
    let borders = borders(bytes);
    let mut cuts = vec![0, 1, HEADER_BYTES - 1];
    for border in borders.windows(2) {
        let [from, to] = [border[0], border[1]];
        cuts.extend([from, from + 1, from + 4, from + 8, from + 9, (from + 8 + to) / 2, to - 1]);
    }
    cuts.push(bytes.len());
    for cut in cuts {
        let whole = borders.iter().rfind(|border| **border <= cut).copied().unwrap_or(0);
        let folder = recorded.with(bytes[..cut].to_vec());
        opens(&recorded, folder.path(), whole, cut - whole, &format!("cut at {cut} of {}", bytes.len()))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn torn_tail_of_any_bytes_is_cut_off() {
    listen();
    let recorded = recorded().await;
    let bytes = recorded.bytes();
    let last = borders(bytes).iter().rev().nth(1).copied().unwrap();
    // What disks leave behind a write that was not finished: zeros, ones, an earlier write's bytes, half of
    // one record and half of another.
    let tails: [(&str, Vec<u8>); 5] = [
        ("zeros", vec![0; 4096]),
        ("ones", vec![0xff; 513]),
        ("one byte", vec![7]),
        ("an earlier write, not at its begin", bytes[HEADER_BYTES + 3..HEADER_BYTES + 40].to_vec()),
        ("two halves", [&bytes[last..last + 9], &bytes[HEADER_BYTES + 9..HEADER_BYTES + 30]].concat()),
    ];
    for (what, tail) in tails {
        let folder = recorded.with([bytes, &tail].concat());
        opens(&recorded, folder.path(), bytes.len(), tail.len(), what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_with_a_flipped_bit_lacks_the_request_it_is_in_and_no_other() {
    listen();
    let recorded = recorded().await;
    let bytes = recorded.bytes();
    let borders = borders(bytes);
    let mut flips: Vec<(usize, u8)> = (0..HEADER_BYTES).step_by(3).map(|at| (at, 1 << (at % 8))).collect();
    for border in borders.windows(2) {
        let [from, to] = [border[0], border[1]];
        // The length becomes larger and smaller, the checksum, the kind, the first and the last of the
        // payload.
        flips.extend([
            (from, 1),
            (from, 0x10),
            (from + 3, 0x80),
            (from + 4, 1),
            (from + 7, 0x80),
            (from + 8, 4),
        ]);
        flips.extend([(from + 9, 0x40), ((from + 9 + to) / 2, 2), (to - 1, 8)]);
    }
    let all = &recorded.steps.last().expect("there are requests").1;
    for (at, bit) in flips {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= bit;
        let folder = recorded.with(damaged);
        let what = format!("bit {bit:#x} of byte {at} flipped");
        let mut held = all.clone();
        let record = borders.windows(2).find(|border| (border[0]..border[1]).contains(&at));
        if record.is_some() {
            let request = recorded.steps.iter().position(|(len, _)| *len > at).expect("it is in one");
            let mut part = recorded.steps[request].1.clone();
            part.remove(&recorded.steps[request - 1].1);
            held.remove(&part);
        }
        let is_last = record.is_some_and(|border| border[1] == bytes.len());
        let lost = record.map_or(HEADER_BYTES, |border| border[1] - border[0]) as u64;
        for again in [false, true] {
            let db = held::open(options(folder.path())).await;
            let replayed = db.replayed();
            let want = if !is_last { (lost, 1, 0) } else { (0, 0, if again { 0 } else { lost }) };
            let got = (replayed.damaged_bytes, replayed.damaged_places, replayed.cut_bytes);
            assert_eq!(got, want, "{what}, again {again}");
            let warned = warnings(folder.path());
            assert_eq!(warned.len(), usize::from(!is_last || !again), "{what}: {warned:?}");
            let read = held::read(&db, &TenantId::single()).await;
            if record.is_some_and(|border| bytes[border[0] + 8] == SERIES) {
                // What speaks of these series later is lost with them, and is counted. Nothing of it is
                // another's.
                assert!(replayed.orphans > 0 && read != held, "{what}");
                let mut left = read;
                left.remove(all);
                assert_eq!(left, Contents::default(), "{what}");
            } else {
                assert_eq!((read, replayed.orphans), (held.clone(), 0), "{what}, again {again}");
            }
            if let Some(border) = record {
                let aside = held::files(folder.path())
                    .into_iter()
                    .find(|(path, _)| path.to_string_lossy().ends_with(&format!(".{}.damaged", border[0])));
                let mut bytes = bytes[border[0]..border[1]].to_vec();
                bytes[at - border[0]] ^= bit;
                assert_eq!(aside.expect("it is kept").1, bytes, "{what}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_middle_of_one_session_costs_one_request() {
    listen();
    let dir = tempfile::tempdir().unwrap();
    let tenant = TenantId::single();
    // Three sessions of three requests each. Of the middle one the second request is damaged: it alone is
    // lost.
    let (mut held, mut border) = (Contents::default(), 0);
    for session in 0..3i64 {
        let db = held::open(options(dir.path())).await;
        for n in session * 3..session * 3 + 3 {
            if n == 4 {
                held::write(&db, &tenant, &mut Contents::default(), n, &[Brings::Floats]).await;
                held::write(&db, &tenant, &mut held, n, &[Brings::Histograms]).await;
            } else {
                held::write(&db, &tenant, &mut held, n, &[Brings::Floats, Brings::Histograms]).await;
            }
            if n == 3 {
                border = std::fs::read(segment_path(&dir.path().join("log"), 2)).unwrap().len();
            }
        }
    }
    let segment = segment_path(&dir.path().join("log"), 2);
    let mut bytes = std::fs::read(&segment).unwrap();
    // Behind the definitions of its series lie its floats.
    let floats = border + 8 + u32::from_le_bytes(*bytes[border..].first_chunk().unwrap()) as usize;
    bytes[floats + 12] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let db = held::open(options(dir.path())).await;
    assert_eq!((db.replayed().cut_bytes, db.replayed().damaged_places), (0, 1));
    assert!(db.replayed().damaged_bytes < (bytes.len() - border) as u64 / 2);
    assert_eq!(held::read(&db, &tenant).await, held);
}

/// A segment's header, of session 77.
fn begun(number: u64) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &77u64.to_le_bytes(), &number.to_le_bytes()].concat();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn define(out: &mut Vec<u8>, series: u32, name: &str) {
    put_series(out, [(series, TenantId::single().as_str(), vec![("__name__", name)])]).unwrap();
}

/// Series by number and time in milliseconds.
fn samples(out: &mut Vec<u8>, rows: &[(u32, i64)]) {
    let row = |(series, ts_ms): &(u32, i64)| FloatRow {
        series: *series,
        ts_ms: *ts_ms,
        value: 1.0,
        start_ts_ms: 0,
    };
    put_floats(out, rows.iter().map(row)).unwrap();
}

/// What a log of these segments holds, from the first on, and what its replay says: bytes cut off, samples,
/// samples without a series.
async fn replayed(segments: &[Vec<u8>]) -> (Vec<(String, Vec<i64>)>, (u64, u64, u64)) {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    std::fs::create_dir(&log).unwrap();
    for (number, bytes) in (1..).zip(segments) {
        std::fs::write(segment_path(&log, number), bytes).unwrap();
    }
    let db = held::open(options(dir.path())).await;
    let report = db.replayed();
    let counts = (report.cut_bytes, report.samples, report.orphans);
    (held::read(&db, &TenantId::single()).await.times(), counts)
}

fn named(all: &[(&str, &[i64])]) -> Vec<(String, Vec<i64>)> {
    all.iter().map(|(name, times)| (name.to_string(), times.to_vec())).collect()
}

// A segment that is full is followed by another of its session, which refers to what was defined in it.

#[tokio::test(flavor = "multi_thread")]
async fn samples_whose_series_was_defined_in_damaged_bytes_are_counted_and_never_given_to_another() {
    listen();
    let (mut first, mut second) = (begun(1), begun(2));
    define(&mut first, 1, "kept");
    let damaged_from = first.len();
    define(&mut first, 2, "lost");
    first[damaged_from + 12] ^= 1;
    samples(&mut second, &[(1, 10), (2, 10), (1, 20), (2, 20), (2, 30)]);
    // The lost one's number is given out again: what came before is not the new one's.
    define(&mut second, 2, "new");
    samples(&mut second, &[(2, 40), (2, 50)]);
    let (held, counts) = replayed(&[first.clone(), second]).await;
    assert_eq!(counts, ((first.len() - damaged_from) as u64, 4, 3));
    assert_eq!(held, named(&[("kept", &[10, 20]), ("new", &[40, 50])]));
}

#[tokio::test(flavor = "multi_thread")]
async fn number_whose_new_series_was_defined_in_damaged_bytes_does_not_mean_the_one_before() {
    listen();
    let (mut first, mut third) = (begun(1), begun(3));
    define(&mut first, 1, "old");
    samples(&mut first, &[(1, 10)]);
    samples(&mut third, &[(1, 30), (2, 30)]);
    define(&mut third, 1, "again");
    samples(&mut third, &[(1, 40)]);
    // Of the second segment the header is lost, or the second of its definitions.
    for header in [true, false] {
        let mut second = begun(2);
        define(&mut second, 2, "kept");
        let from = second.len();
        define(&mut second, 1, "new");
        second[if header { 3 } else { from + 12 }] ^= 1;
        let lost = if header { 0 } else { second.len() - from };
        let (held, counts) = replayed(&[first.clone(), second, third.clone()]).await;
        assert_eq!(counts, (lost as u64, 3 + u64::from(header), u64::from(!header)), "header {header}");
        let all = [("again", &[40][..]), ("kept", &[30]), ("new", &[30]), ("old", &[10])];
        let all: Vec<_> = all.into_iter().filter(|(name, _)| header || *name != "new").collect();
        assert_eq!(held, named(&all), "header {header}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn series_defined_in_the_segment_before_outlive_damage_in_the_next() {
    listen();
    let (mut first, mut second) = (begun(1), begun(2));
    define(&mut first, 1, "up");
    samples(&mut first, &[(1, 10)]);
    samples(&mut second, &[(1, 20)]);
    let damaged = second.len() + 12;
    samples(&mut second, &[(1, 30)]);
    samples(&mut second, &[(1, 40)]);
    second[damaged] ^= 1;
    let (held, counts) = replayed(&[first, second]).await;
    assert_eq!((held, counts), (named(&[("up", &[10, 20, 40])]), (0, 3, 0)));
}
