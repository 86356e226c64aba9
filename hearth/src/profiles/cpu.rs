//! Where the processor's time goes: stacks that a timer's signal finds.
//!
//! The signal's handler walks the stack that it interrupts, with the compiler's unwinder, which finds a
//! function's unwind table without a lock on glibc from 2.35 on (`_dl_find_object`). Where it interrupts the
//! C library itself the sample is left out, because older ones hold locks there.

use std::time::{Duration, SystemTime};

use axum::http::{StatusCode, Uri};
use axum::response::Response;
use pprof::{ProfilerGuard, ProfilerGuardBuilder};

use super::format::{Frame, Kind, Profile};
use super::{download, refusal, seconds};

/// Samples in a second of processor time; not a round number, so that what happens a hundred times a second
/// is not always or never met.
const FREQUENCY: i32 = 99;
const DEFAULT_S: u64 = 30;
/// The longest that one may take.
pub const LONGEST_S: u64 = 300;
/// Libraries in which no stack is walked.
const LEFT_OUT: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];

/// `GET /debug/pprof/profile?seconds=30`. One at a time; a client that goes away ends it.
pub async fn profile(uri: Uri) -> Response {
    let seconds = match seconds(&uri) {
        Ok(seconds) => Duration::from_secs(seconds.unwrap_or(DEFAULT_S)),
        Err(why) => return refusal(StatusCode::BAD_REQUEST, why),
    };
    let begun = SystemTime::now();
    let started = ProfilerGuardBuilder::default().frequency(FREQUENCY).blocklist(&LEFT_OUT).build();
    let guard = match started {
        Ok(guard) => guard,
        Err(why) => {
            let why = format!("Could not enable CPU profiling: {why}");
            return refusal(StatusCode::INTERNAL_SERVER_ERROR, why);
        }
    };
    tokio::time::sleep(seconds).await;
    // Reading the program's symbols takes a second or two the first time.
    let read = tokio::task::spawn_blocking(move || message(&guard, begun, seconds)).await;
    match read {
        Ok(Ok(message)) => download(message, "profile"),
        Ok(Err(why)) => refusal(StatusCode::INTERNAL_SERVER_ERROR, why),
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the profile was not read to its end"),
    }
}

fn message(guard: &ProfilerGuard<'_>, begun: SystemTime, took: Duration) -> Result<Vec<u8>, String> {
    let report = guard.report().build().map_err(|e| format!("the samples cannot be read: {e}"))?;
    let period_ns = 1_000_000_000 / i64::from(FREQUENCY);
    let kinds = [Kind { name: "samples", unit: "count" }, Kind { name: "cpu", unit: "nanoseconds" }];
    let mut profile = Profile::new(&kinds, begun, took, period_ns);
    for (stack, count) in &report.data {
        let frames = stack.frames.iter().flatten().map(|symbol| Frame {
            function: symbol.name(),
            file: symbol.filename().into_owned(),
            line: symbol.lineno(),
        });
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        profile.add(frames, &[count, count.saturating_mul(period_ns)], Some(&stack.thread_name));
    }
    profile.packed().map_err(|e| format!("the profile cannot be packed: {e}"))
}
