//! Writing, flushing and starting again: the answer stays the same, wherever a sample lies; and what happens
//! where the disk is not Hearth's alone.

mod test_services;

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use test_services::{Api, Data, Hearth, Model, Series, Start, now_ms, series, wait_for};

const HOUR_MS: i64 = 3_600_000;

/// Samples every `step_ms` from `from_ms` on, on `count` series of the metric `name`; the values tell series
/// and place apart.
fn some(name: &str, count: usize, from_ms: i64, samples: usize, step_ms: i64, shift: f64) -> Vec<Series> {
    (0..count)
        .map(|n| {
            let at = |i: usize| (from_ms + i as i64 * step_ms, shift + n as f64 * 1000.0 + i as f64 * 0.25);
            let samples: Vec<_> = (0..samples).map(at).collect();
            series(&[("__name__", name), ("job", "flush"), ("n", &n.to_string())], &samples)
        })
        .collect()
}

fn write(hearth: &Hearth, model: &mut Model, all: Vec<Series>) {
    hearth.api.write(&all);
    model.acknowledged(&all);
}

#[test]
fn query_sees_head_and_blocks_as_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut hearth = Start::at(folder.path()).ready();
    let mut model = Model::default();
    let end = now_ms();
    let begin = end - 5 * HOUR_MS;
    let check = |hearth: &Hearth, model: &Model, when: &str| {
        let count = model.check(&hearth.api, "mixed", end, 6 * HOUR_MS, when);
        assert_eq!(count, model.samples(), "{when}");
        // A range query steps over the seams between blocks and head.
        let steps = hearth.api.range("count(mixed)", begin + 60_000, end - 60_000, 60_000).matrix();
        let points = steps.into_values().next().unwrap_or_default();
        assert!(
            points.iter().all(|(_, v)| *v == 12.0),
            "{when}: all twelve series at every step: {points:?}"
        );
        points.len()
    };

    // Three and a half hours in order, over two borders of the flush windows.
    write(&hearth, &mut model, some("mixed", 12, begin, 840, 15_000, 0.0));
    let before = hearth.api.range("sum by (n) (rate(mixed[5m]))", begin, begin + 3 * HOUR_MS, 30_000);
    hearth.api.flush();
    assert_eq!(hearth.api.range("sum by (n) (rate(mixed[5m]))", begin, begin + 3 * HOUR_MS, 30_000), before);

    // Then: further in time, late samples between the flushed ones, duplicates of flushed ones.
    write(&hearth, &mut model, some("mixed", 12, begin + 840 * 15_000, 360, 15_000, 50_000.0));
    write(&hearth, &mut model, some("mixed", 12, begin + 7_000, 300, 30_000, 500_000.0));
    write(&hearth, &mut model, some("mixed", 12, begin, 100, 15_000, 0.0));
    let steps = check(&hearth, &model, "head and blocks");
    assert_eq!(steps, 299, "a step a minute over all of it");

    hearth = hearth.restart();
    check(&hearth, &model, "after a restart");
    hearth.api.flush();
    check(&hearth, &model, "after a second flush");
    // Late ones again, older than everything, into windows that have two blocks already.
    write(&hearth, &mut model, some("mixed", 12, begin - 20 * 60_000, 60, 15_000, 900_000.0));
    write(&hearth, &mut model, some("mixed", 12, begin + 9_000, 300, 30_000, 700_000.0));
    hearth = hearth.again();
    check(&hearth, &model, "after kill -9 with blocks and a log");
    hearth.api.flush();
    hearth.api.flush();
    check(&hearth, &model, "after a third flush and one with nothing to do");
    hearth = hearth.again();
    check(&hearth, &model, "at the end");
    assert!(
        files(&hearth.start.data_dir()).iter().any(|f| f.ends_with("samples.parquet")),
        "blocks lie in the data folder"
    );
}

fn files(folder: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            out.extend(files(&entry.path()));
        } else {
            out.push(entry.path().display().to_string());
        }
    }
    out
}

#[test]
fn value_that_was_written_last_wins() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut hearth = Start::at(folder.path()).ready();
    let at = now_ms() - HOUR_MS;
    let write = |hearth: &Hearth, value: f64| {
        hearth.api.write(&[series(
            &[("__name__", "told_twice"), ("job", "flush")],
            &[(at, value), (at + 15_000, 7.0)],
        )]);
    };
    let holds = |hearth: &Hearth, value: f64, when: &str| {
        let points = hearth
            .api
            .instant("told_twice[10m]", at + 60_000)
            .matrix()
            .into_values()
            .next()
            .expect("the series is there");
        assert_eq!(points, vec![(at, value), (at + 15_000, 7.0)], "{when}");
        assert_eq!(
            hearth.api.instant("sum_over_time(told_twice[10m])", at + 60_000).single(),
            value + 7.0,
            "{when}"
        );
    };
    write(&hearth, 1.0);
    write(&hearth, 2.0);
    holds(&hearth, 2.0, "both in the head");
    hearth = hearth.again();
    holds(&hearth, 2.0, "both in the log");
    hearth.api.flush();
    holds(&hearth, 2.0, "flushed");
    write(&hearth, 3.0);
    holds(&hearth, 3.0, "one in a block, one in the head");
    hearth = hearth.again();
    holds(&hearth, 3.0, "one in a block, one in the log");
    hearth.api.flush();
    holds(&hearth, 3.0, "in two blocks");
    write(&hearth, 1.0);
    hearth.api.flush();
    hearth = hearth.restart();
    holds(&hearth, 1.0, "the first value again, written last, in three blocks");
    // Within one request the later one is the last written too.
    hearth.api.write(&[series(&[("__name__", "told_twice"), ("job", "flush")], &[(at, 8.0), (at, 9.0)])]);
    holds(&hearth, 9.0, "twice in one request");
}

#[test]
fn second_process_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut hearth = Start::at(folder.path()).ready();
    let mut second = Start { port: test_services::free_port(), ..hearth.start.clone() };
    second.folder = folder.path().to_owned();
    // It may be the first one's successor, so it waits, not ready, and says for what.
    let mut second = second.spawn();
    // Both write to one file, and the first one's banner names the folder too: only these words are the
    // second's.
    let refusal = format!("{} is in use by another Hearth", hearth.start.data_dir().display());
    let said = wait_for("the second to say what it waits for", Duration::from_secs(60), || {
        Some(second.process.log_tail()).filter(|said| said.contains(&refusal))
    });
    assert!(second.process.exited().is_none() && !said.contains("panicked"), "{said}");
    assert_eq!(second.api.get("/-/ready", &[]).status, 503);
    drop(second);
    // The first goes on as if nothing had been.
    hearth.api.write(&some("undisturbed", 1, now_ms() - 60_000, 3, 1_000, 0.0));
    hearth = hearth.restart();
    assert_eq!(hearth.api.instant("count_over_time(undisturbed[5m])", now_ms()).single(), 3.0);
}

/// Waits for a process that is expected to end, and gives back how, and all it said.
fn ends(mut hearth: Hearth) -> (ExitStatus, String) {
    let status = wait_for("hearth to refuse", Duration::from_secs(60), || hearth.process.exited());
    (status, hearth.process.log_tail())
}

#[test]
fn data_folder_that_cannot_be_made_or_written_is_a_clear_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // A file where the folder should be, which no privilege helps against.
    std::fs::write(folder.path().join("data"), b"not a folder").expect("a file can be written");
    let (status, said) = ends(Start::at(folder.path()).spawn());
    assert!(!status.success() && status.code() != Some(101), "{status}: {said}");
    let name = folder.path().join("data").display().to_string();
    assert!(said.contains(&name) && !said.contains("panicked"), "the message names {name}: {said}");
}

/// A disk of a given size in memory, where the test may mount one.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path, mib: u32) -> Option<SmallDisk<'a>> {
        std::fs::create_dir_all(at).expect("a folder can be made");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(at);
        let out = command.output().ok()?;
        out.status.success().then(|| SmallDisk(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Lazily: the process that uses it may be ending only now.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// Writes until a write is refused, and asserts how. All acknowledged goes into the model.
fn fill(hearth: &Hearth, model: &mut Model, from_ms: i64) {
    for i in 0..4_000 {
        // Values without pattern, new series all the time: they do not compress.
        let all: Vec<_> = (0..20)
            .map(|n| {
                let mut rng = test_services::Rng(i * 100 + n);
                let samples: Vec<_> =
                    (0..100).map(|s| (from_ms + s * 500, rng.roll() as f64 / 3.0)).collect();
                series(
                    &[("__name__", "full"), ("job", "flush"), ("n", &format!("{i}-{n}-{}", rng.roll()))],
                    &samples,
                )
            })
            .collect();
        let answer = hearth.api.try_write(&all).expect("a full disk does not end the connection");
        if answer.status == 204 {
            model.acknowledged(&all);
        } else {
            answer.error(503, "unavailable");
            model.unanswered(&all);
            return;
        }
    }
    panic!("the disk does not get full");
}

/// What must hold on a full disk and after it: `space` makes room again.
fn full_and_free_again(hearth: Hearth, space: impl FnOnce(&Hearth)) {
    let mut hearth = hearth;
    let mut model = Model::default();
    let from = now_ms() - 10 * 60_000;
    let check = |hearth: &Hearth, model: &Model, when: &str| {
        model.check(&hearth.api, "full", from + 60_000, 120_000, when)
    };
    fill(&hearth, &mut model, from);
    check(&hearth, &model, "full");
    // Still full: still refused, still answering.
    let more = some("full", 400, from, 60, 1_000, 3.5);
    let answer = hearth.api.try_write(&more).expect("a full disk does not end the connection");
    answer.error(503, "unavailable");
    model.unanswered(&more);
    assert_eq!(hearth.api.get("/-/healthy", &[]).status, 200);
    check(&hearth, &model, "still full");

    space(&hearth);
    let late = some("full", 5, from, 10, 1_000, 7.5);
    wait_for("writes to be taken again", Duration::from_secs(60), || {
        Some(hearth.api.try_write(&late).expect("an answer")).filter(|a| a.status == 204)
    });
    model.acknowledged(&late);
    check(&hearth, &model, "room again");
    hearth.start.file_limit_kib = None;
    hearth = hearth.again();
    check(&hearth, &model, "after kill -9");
    hearth.api.flush();
    check(&hearth, &model, "after a flush");
    hearth = hearth.restart();
    check(&hearth, &model, "after a restart");
}

#[test]
fn full_disk_refuses_writes_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let start = Start::at(folder.path());
    let data = start.data_dir();
    let Some(_disk) = SmallDisk::mount(&data, 12) else {
        eprintln!("no disk can be mounted here: a limit on the size of files stands in");
        return limited_files(folder.path());
    };
    let ballast = data.join("ballast");
    std::fs::write(&ballast, vec![1u8; 9 << 20]).expect("the disk has room for the ballast");
    full_and_free_again(start.ready(), |_| std::fs::remove_file(&ballast).expect("the ballast can go"));
}

#[test]
fn log_that_cannot_grow_refuses_writes_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    limited_files(folder.path());
}

/// The same without privileges: files of the process may not grow beyond 512 KiB, until they may.
fn limited_files(folder: &Path) {
    let mut start = Start::at(folder);
    start.file_limit_kib = Some(512);
    full_and_free_again(start.ready(), |hearth| {
        let raised = Command::new("prlimit")
            .args(["--pid", &hearth.process.id().to_string(), "--fsize=unlimited"])
            .status();
        assert!(raised.is_ok_and(|s| s.success()), "the limit can be lifted");
    });
}

#[test]
fn sigterm_in_the_middle_of_load_loses_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut hearth = Start::at(folder.path()).ready();
    let from = now_ms() - HOUR_MS;
    let stopped = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|w| {
            let (api, stopped) = (Api::new(hearth.start.port), stopped.clone());
            std::thread::spawn(move || load(&api, &stopped, w, from))
        })
        .collect();
    std::thread::sleep(Duration::from_millis(700));
    let status = hearth.stop();
    stopped.store(true, Ordering::Relaxed);
    assert_eq!(status.code(), Some(0), "a clean stop: {}", hearth.process.log_tail());
    let mut model = Model::default();
    for writer in writers {
        model.merge(writer.join().expect("a writer"));
    }
    assert!(model.samples() > 0, "something was acknowledged before the stop");
    hearth = hearth.again();
    model.check(&hearth.api, "until_term", now_ms(), 2 * HOUR_MS, "after SIGTERM");
    assert!(matches!(hearth.api.instant("count(until_term)", from + 1_000), Data::Vector(_)));
}

fn load(api: &Api, stopped: &AtomicBool, writer: i64, from: i64) -> Model {
    let mut model = Model::default();
    for i in 0..3_000 {
        if stopped.load(Ordering::Relaxed) {
            break;
        }
        let labels = [("__name__", "until_term"), ("job", "flush"), ("n", &writer.to_string())];
        let all = [series(&labels, &[(from + i * 1_000, i as f64), (from + i * 1_000 + 500, -i as f64)])];
        match api.try_write(&all) {
            Ok(answer) if answer.status == 204 => model.acknowledged(&all),
            Ok(answer) => {
                answer.error(503, "unavailable");
                model.unanswered(&all);
            }
            Err(_) => model.unanswered(&all),
        }
    }
    model
}
