//! What the process tells about itself: its build, and what the operating system and the allocator count of
//! it.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};

/// Registers the build and the process.
pub fn register(registry: &mut Registry) {
    let build = Family::<[(&'static str, &'static str); 2], Gauge>::default();
    build.get_or_create(&[("version", env!("CARGO_PKG_VERSION")), ("target", target())]).set(1);
    registry.register("hearth_build_info", "What runs here; always 1", build);
    registry.register_collector(Box::new(Process { started: now_seconds() }));
}

const fn target() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "x86_64"
    } else if cfg!(target_arch = "aarch64") {
        "aarch64"
    } else {
        "other"
    }
}

fn now_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// The process metrics every Prometheus client library has, under [their usual
/// names](https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics), read from `/proc` at
/// each scrape.
#[derive(Debug)]
struct Process {
    /// Seconds since the epoch.
    started: f64,
}

/// A clock tick of `/proc` in seconds: the kernel shows user space 100 a second on every architecture that
/// Rust supports.
const TICK_SECONDS: f64 = 0.01;

/// Bytes of a page, where `/proc` does not say bytes itself.
const KIB: u64 = 1024;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: f64| {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
        };
        gauge(
            "process_start_time",
            "Start of the process since the Unix epoch",
            Some(&Unit::Seconds),
            self.started,
        )?;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(kib) = field(&status, "VmRSS:") {
            gauge("process_resident_memory", "Memory in RAM", Some(&Unit::Bytes), (kib * KIB) as f64)?;
        }
        if let Some(kib) = field(&status, "VmSize:") {
            gauge("process_virtual_memory", "Memory mapped", Some(&Unit::Bytes), (kib * KIB) as f64)?;
        }
        for (name, help, bytes) in heap() {
            gauge(name, help, None, bytes as f64)?;
        }
        if let Some(threads) = field(&status, "Threads:") {
            gauge("process_threads", "Threads of the operating system", None, threads as f64)?;
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // One of them is the listing's own.
            let open = files.count().saturating_sub(1);
            gauge("process_open_fds", "Open files and sockets", None, open as f64)?;
        }
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        if let Some(most) = field(&limits, "Max open files") {
            gauge("process_max_fds", "Files and sockets that may be open", None, most as f64)?;
        }
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(seconds) = cpu_seconds(&stat) {
            let metric = ConstCounter::new(seconds);
            let unit = Some(&Unit::Seconds);
            metric.encode(encoder.encode_descriptor(
                "process_cpu",
                "User and system time",
                unit,
                metric.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

/// What the allocator holds: what the kinds of memory that are counted elsewhere have to add up to, and what
/// it cannot use.
#[cfg(feature = "jemalloc")]
fn heap() -> Vec<(&'static str, &'static str, usize)> {
    use tikv_jemalloc_ctl::{epoch, stats};
    // The figures are those of the moment at which this is called.
    let figures = epoch::advance().and_then(|_| Ok((stats::allocated::read()?, stats::resident::read()?)));
    figures.map_or_else(
        |_| Vec::new(),
        |(allocated, resident)| {
            vec![
                ("hearth_heap_allocated_bytes", "Memory in use, rounded up as the allocator does", allocated),
                (
                    "hearth_heap_resident_bytes",
                    "Memory in RAM that the allocator has, in use or not",
                    resident,
                ),
            ]
        },
    )
}

#[cfg(not(feature = "jemalloc"))]
fn heap() -> Vec<(&'static str, &'static str, usize)> {
    Vec::new()
}

/// The first number after a name at a line's start.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// User and system time of `/proc/self/stat`, fields 14 and 15 of proc(5). The second field is the program's
/// name in parentheses and may hold anything, so counting starts after its last parenthesis.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 * TICK_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_is_described_under_the_usual_names() {
        let mut registry = Registry::default();
        register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for name in [
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_virtual_memory_bytes ",
            "process_open_fds ",
            "process_max_fds ",
            "process_start_time_seconds ",
            "process_threads ",
            "hearth_build_info{",
        ] {
            assert!(text.lines().any(|l| l.starts_with(name)), "{name} is not in\n{text}");
        }
    }

    #[cfg(feature = "jemalloc")]
    #[test]
    fn heap_is_as_large_as_what_is_in_it() {
        let heap = || heap()[0].2;
        let before = heap();
        let held = vec![1u8; 64 << 20];
        // Other tests allocate and free meanwhile, but not that much.
        assert!(heap() > before + (32 << 20), "{} after {before} bytes", heap());
        assert_eq!(held[held.len() - 1], 1);
    }

    #[test]
    fn program_may_have_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 100 1 1";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("nonsense"), None);
    }
}
