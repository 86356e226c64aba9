//! What one machine of the fleet exposes: about 500 series as a node exporter has them, each with the kind of
//! values it really has; and 134 more of an application beside it ([`application`]).

use crate::rng::Rng;

/// How the values of a series come about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Class {
    /// Never changes: sizes, limits, info.
    Constant(f64),
    /// A counter that moves now and then: errors, restarts.
    Slow,
    /// A counter that moves at every scrape by up to this much: bytes, packets, context switches.
    Fast(u64),
    /// Seconds counted in hundredths, by up to this many a scrape: CPU time.
    Hundredths(u64),
    /// A level that wanders in steps of this size: pages of memory, load with two decimals.
    Level { start: f64, step: f64 },
    /// A measurement with all its digits: durations.
    Noisy(f64),
}

/// Who is scraped on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    NodeExporter,
    Application,
}

impl Job {
    pub fn name(self) -> &'static str {
        match self {
            Job::NodeExporter => "node-exporter",
            Job::Application => "checkout",
        }
    }

    pub fn port(self) -> u16 {
        match self {
            Job::NodeExporter => 9100,
            Job::Application => 8080,
        }
    }
}

/// One series of a target, without the labels that all of its series share.
#[derive(Clone, Debug)]
pub struct Exposed {
    pub job: Job,
    /// The metric's name and its own labels.
    pub name: String,
    pub labels: Vec<(&'static str, String)>,
    pub class: Class,
    /// It counts what the series before it counts, and more: the buckets of a classic histogram.
    pub cumulative: bool,
}

/// All series of a node exporter, 502 of them.
pub fn exposed() -> Vec<Exposed> {
    let mut all = Vec::new();
    let mut add = |name: &str, labels: &[(&'static str, &str)], class: Class| {
        let labels = labels.iter().map(|(n, v)| (*n, (*v).to_string())).collect();
        let job = Job::NodeExporter;
        all.push(Exposed { job, name: name.to_string(), labels, class, cumulative: false });
    };
    for cpu in 0..8 {
        let cpu = cpu.to_string();
        for (mode, pace) in [
            ("idle", 1500),
            ("iowait", 9),
            ("irq", 0),
            ("nice", 0),
            ("softirq", 12),
            ("steal", 0),
            ("system", 120),
            ("user", 400),
        ] {
            let class = if pace == 0 { Class::Constant(0.0) } else { Class::Hundredths(pace) };
            add("node_cpu_seconds_total", &[("cpu", &cpu), ("mode", mode)], class);
        }
        add("node_softnet_processed_total", &[("cpu", &cpu)], Class::Fast(90_000));
        add("node_softnet_dropped_total", &[("cpu", &cpu)], Class::Constant(0.0));
        add("node_softnet_times_squeezed_total", &[("cpu", &cpu)], Class::Slow);
    }
    for device in ["nvme0n1", "nvme1n1", "dm-0", "dm-1", "sda"] {
        for (name, class) in [
            ("node_disk_read_bytes_total", Class::Fast(4 << 20)),
            ("node_disk_written_bytes_total", Class::Fast(40 << 20)),
            ("node_disk_reads_completed_total", Class::Fast(300)),
            ("node_disk_writes_completed_total", Class::Fast(2_000)),
            ("node_disk_reads_merged_total", Class::Slow),
            ("node_disk_writes_merged_total", Class::Fast(40)),
            ("node_disk_io_time_seconds_total", Class::Hundredths(300)),
            ("node_disk_read_time_seconds_total", Class::Hundredths(40)),
            ("node_disk_write_time_seconds_total", Class::Hundredths(700)),
            ("node_disk_io_now", Class::Level { start: 2.0, step: 1.0 }),
            ("node_disk_discards_completed_total", Class::Constant(0.0)),
        ] {
            add(name, &[("device", device)], class);
        }
    }
    for (device, fstype, mountpoint) in [
        ("/dev/nvme0n1p2", "ext4", "/"),
        ("/dev/nvme0n1p1", "vfat", "/boot/efi"),
        ("/dev/mapper/data", "xfs", "/var/lib/data"),
        ("tmpfs", "tmpfs", "/run"),
        ("tmpfs", "tmpfs", "/run/lock"),
    ] {
        let labels = [("device", device), ("fstype", fstype), ("mountpoint", mountpoint)];
        add("node_filesystem_size_bytes", &labels, Class::Constant(536_870_912_000.0));
        add("node_filesystem_avail_bytes", &labels, Class::Level { start: 2.0e11, step: 4096.0 * 37.0 });
        add("node_filesystem_free_bytes", &labels, Class::Level { start: 2.2e11, step: 4096.0 * 37.0 });
        add("node_filesystem_files", &labels, Class::Constant(32_768_000.0));
        add("node_filesystem_files_free", &labels, Class::Level { start: 3.0e7, step: 3.0 });
        add("node_filesystem_readonly", &labels, Class::Constant(0.0));
    }
    for device in ["eth0", "eth1", "lo", "docker0", "cilium_host"] {
        for (name, class) in [
            ("node_network_receive_bytes_total", Class::Fast(90 << 20)),
            ("node_network_transmit_bytes_total", Class::Fast(70 << 20)),
            ("node_network_receive_packets_total", Class::Fast(90_000)),
            ("node_network_transmit_packets_total", Class::Fast(80_000)),
            ("node_network_receive_errs_total", Class::Constant(0.0)),
            ("node_network_transmit_errs_total", Class::Constant(0.0)),
            ("node_network_receive_drop_total", Class::Slow),
            ("node_network_transmit_drop_total", Class::Constant(0.0)),
            ("node_network_receive_multicast_total", Class::Slow),
            ("node_network_mtu_bytes", Class::Constant(1500.0)),
            ("node_network_speed_bytes", Class::Constant(1.25e9)),
            ("node_network_up", Class::Constant(1.0)),
            ("node_network_carrier_changes_total", Class::Constant(2.0)),
            ("node_network_transmit_queue_length", Class::Constant(1000.0)),
        ] {
            add(name, &[("device", device)], class);
        }
    }
    for (i, field) in [
        "Active",
        "Active_anon",
        "Active_file",
        "AnonPages",
        "Buffers",
        "Cached",
        "Committed_AS",
        "Dirty",
        "Inactive",
        "Inactive_anon",
        "Inactive_file",
        "KernelStack",
        "Mapped",
        "MemAvailable",
        "MemFree",
        "PageTables",
        "Percpu",
        "SReclaimable",
        "SUnreclaim",
        "Shmem",
        "Slab",
        "Writeback",
        "AnonHugePages",
        "KReclaimable",
        "Mlocked",
        "Unevictable",
    ]
    .iter()
    .enumerate()
    {
        let start = 4096.0 * (40_000.0 * (i as f64 + 1.0));
        add(&format!("node_memory_{field}_bytes"), &[], Class::Level { start, step: 4096.0 * 21.0 });
    }
    for field in [
        "MemTotal",
        "SwapTotal",
        "SwapFree",
        "CommitLimit",
        "VmallocTotal",
        "Hugepagesize",
        "HugePages_Total",
    ] {
        add(&format!("node_memory_{field}_bytes"), &[], Class::Constant(67_430_830_080.0));
    }
    for proto in ["Tcp", "Udp", "Icmp", "Ip", "TcpExt"] {
        for (field, class) in [
            ("InSegs", Class::Fast(50_000)),
            ("OutSegs", Class::Fast(48_000)),
            ("RetransSegs", Class::Slow),
            ("InErrs", Class::Constant(0.0)),
            ("CurrEstab", Class::Level { start: 420.0, step: 2.0 }),
            ("ActiveOpens", Class::Fast(60)),
            ("PassiveOpens", Class::Fast(90)),
        ] {
            add(&format!("node_netstat_{proto}_{field}"), &[], class);
        }
    }
    for field in
        ["TCP_alloc", "TCP_inuse", "TCP_mem", "TCP_orphan", "TCP_tw", "UDP_inuse", "UDP_mem", "sockets_used"]
    {
        add(&format!("node_sockstat_{field}"), &[], Class::Level { start: 300.0, step: 3.0 });
    }
    for (field, pace) in [
        ("pgfault", 200_000),
        ("pgmajfault", 3),
        ("pgpgin", 40_000),
        ("pgpgout", 400_000),
        ("pswpin", 0),
        ("pswpout", 0),
        ("oom_kill", 0),
    ] {
        let class = if pace == 0 { Class::Constant(0.0) } else { Class::Fast(pace) };
        add(&format!("node_vmstat_{field}"), &[], class);
    }
    for load in ["node_load1", "node_load5", "node_load15"] {
        add(load, &[], Class::Level { start: 3.0, step: 0.01 });
    }
    for (resource, kind) in [("cpu", "waiting"), ("io", "waiting"), ("io", "stalled"), ("memory", "waiting")]
    {
        add(&format!("node_pressure_{resource}_{kind}_seconds_total"), &[], Class::Noisy(0.3));
    }
    for sensor in ["temp1", "temp2", "temp3", "temp4", "temp5", "temp6"] {
        let labels = [("chip", "platform_coretemp_0"), ("sensor", sensor)];
        add("node_hwmon_temp_celsius", &labels, Class::Level { start: 51.0, step: 0.5 });
        add("node_hwmon_temp_max_celsius", &labels, Class::Constant(80.0));
    }
    for collector in [
        "arp",
        "bcache",
        "bonding",
        "btrfs",
        "conntrack",
        "cpu",
        "cpufreq",
        "diskstats",
        "dmi",
        "edac",
        "entropy",
        "filefd",
        "filesystem",
        "hwmon",
        "ipvs",
        "loadavg",
        "mdadm",
        "meminfo",
        "netclass",
        "netdev",
        "netstat",
        "nfs",
        "nvme",
        "os",
        "pressure",
        "rapl",
        "schedstat",
        "sockstat",
        "softnet",
        "stat",
        "time",
        "timex",
        "uname",
        "vmstat",
        "xfs",
        "zfs",
    ] {
        let labels = [("collector", collector)];
        add("node_scrape_collector_duration_seconds", &labels, Class::Noisy(0.0));
        add("node_scrape_collector_success", &labels, Class::Constant(1.0));
    }
    for handler in ["/metrics", "/api/v1/query", "/api/v1/write", "/healthz"] {
        for le in ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"] {
            add("http_request_duration_seconds_bucket", &[("handler", handler), ("le", le)], Class::Fast(40));
        }
        add("http_request_duration_seconds_sum", &[("handler", handler)], Class::Noisy(0.2));
        add("http_request_duration_seconds_count", &[("handler", handler)], Class::Fast(40));
    }
    for (name, class) in [
        ("go_goroutines", Class::Level { start: 12.0, step: 1.0 }),
        ("go_threads", Class::Constant(11.0)),
        ("go_gc_duration_seconds_sum", Class::Noisy(0.001)),
        ("go_gc_duration_seconds_count", Class::Slow),
        ("go_memstats_alloc_bytes", Class::Level { start: 4.1e6, step: 4096.0 * 11.0 }),
        ("go_memstats_alloc_bytes_total", Class::Fast(3 << 20)),
        ("go_memstats_mallocs_total", Class::Fast(40_000)),
        ("go_memstats_frees_total", Class::Fast(40_000)),
        ("go_memstats_heap_inuse_bytes", Class::Level { start: 6.1e6, step: 8192.0 }),
        ("go_memstats_heap_objects", Class::Level { start: 30_000.0, step: 17.0 }),
        ("go_memstats_sys_bytes", Class::Constant(18_000_000.0)),
        ("process_cpu_seconds_total", Class::Hundredths(12)),
        ("process_open_fds", Class::Level { start: 9.0, step: 1.0 }),
        ("process_max_fds", Class::Constant(1_048_576.0)),
        ("process_resident_memory_bytes", Class::Level { start: 2.4e7, step: 4096.0 * 5.0 }),
        ("process_start_time_seconds", Class::Constant(1_795_000_000.25)),
        ("node_boot_time_seconds", Class::Constant(1_794_000_000.0)),
        ("node_context_switches_total", Class::Fast(400_000)),
        ("node_intr_total", Class::Fast(300_000)),
        ("node_forks_total", Class::Fast(60)),
        ("node_procs_running", Class::Level { start: 3.0, step: 1.0 }),
        ("node_procs_blocked", Class::Constant(0.0)),
        ("node_entropy_available_bits", Class::Constant(256.0)),
        ("node_filefd_allocated", Class::Level { start: 3_200.0, step: 32.0 }),
        ("node_time_seconds", Class::Noisy(15.0)),
        ("node_timex_offset_seconds", Class::Noisy(0.0)),
        ("scrape_duration_seconds", Class::Noisy(0.0)),
        ("scrape_samples_scraped", Class::Constant(497.0)),
        ("up", Class::Constant(1.0)),
    ] {
        add(name, &[], class);
    }
    all
}

/// Upper bounds of an application's buckets.
const BOUNDS: [&str; 12] =
    ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"];

/// All series of an application, 134 of them: requests by handler and code in classic histograms, pools and
/// queues, and what its runtime tells.
pub fn application() -> Vec<Exposed> {
    let mut all = Vec::new();
    let mut add = |name: &str, labels: &[(&'static str, &str)], class: Class, cumulative: bool| {
        let labels = labels.iter().map(|(n, v)| (*n, (*v).to_string())).collect();
        all.push(Exposed { job: Job::Application, name: name.to_string(), labels, class, cumulative });
    };
    for handler in ["/cart", "/checkout", "/items/:id", "/search"] {
        for code in ["200", "500"] {
            let own = [("code", code), ("handler", handler)];
            let failed = code == "500";
            for (i, le) in BOUNDS.into_iter().enumerate() {
                // Most requests take 10 to 100 ms; few fail.
                let class = match (failed, i) {
                    (true, _) => Class::Slow,
                    (false, 0 | 8..) => Class::Slow,
                    (false, 1..=4) => Class::Fast(60),
                    (false, _) => Class::Fast(8),
                };
                add("app_request_duration_seconds_bucket", &[own[0], own[1], ("le", le)], class, i > 0);
            }
            // As many as are in the last bucket.
            add("app_request_duration_seconds_count", &own, Class::Constant(0.0), true);
            let seconds = if failed { 0.001 } else { 4.0 };
            add("app_request_duration_seconds_sum", &own, Class::Noisy(seconds), false);
        }
        add("app_requests_in_flight", &[("handler", handler)], Class::Level { start: 3.0, step: 1.0 }, false);
    }
    for state in ["idle", "used", "waiting"] {
        add("app_db_connections", &[("state", state)], Class::Level { start: 12.0, step: 1.0 }, false);
    }
    for (name, class) in [
        ("app_cache_hits_total", Class::Fast(2_000)),
        ("app_cache_misses_total", Class::Fast(90)),
        ("go_goroutines", Class::Level { start: 240.0, step: 1.0 }),
        ("go_threads", Class::Constant(19.0)),
        ("go_memstats_alloc_bytes", Class::Level { start: 8.1e7, step: 4096.0 * 311.0 }),
        ("go_memstats_alloc_bytes_total", Class::Fast(300 << 20)),
        ("go_memstats_heap_objects", Class::Level { start: 900_000.0, step: 1_217.0 }),
        ("go_gc_duration_seconds_count", Class::Slow),
        ("process_cpu_seconds_total", Class::Hundredths(900)),
        ("process_open_fds", Class::Level { start: 180.0, step: 1.0 }),
        ("process_max_fds", Class::Constant(1_048_576.0)),
        ("process_resident_memory_bytes", Class::Level { start: 3.1e8, step: 4096.0 * 50.0 }),
        ("process_start_time_seconds", Class::Constant(1_795_000_100.5)),
        ("scrape_duration_seconds", Class::Noisy(0.0)),
        ("up", Class::Constant(1.0)),
    ] {
        add(name, &[], class, false);
    }
    all
}

/// Ten of a target's series: four CPUs, two of memory, four buckets of one histogram.
pub fn on_dashboards(e: &Exposed) -> bool {
    let label = |name: &str| e.labels.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| v.as_str());
    match e.name.as_str() {
        "node_cpu_seconds_total" => label("mode") == "user" && label("cpu") < "4",
        "node_memory_MemAvailable_bytes" | "node_memory_MemTotal_bytes" => true,
        "http_request_duration_seconds_bucket" => {
            label("handler") == "/metrics" && ["0.1", "0.5", "2.5", "+Inf"].contains(&label("le"))
        }
        _ => false,
    }
}

/// The value of a series as it goes on.
#[derive(Clone, Copy, Debug)]
pub struct Value(pub f64);

impl Value {
    /// Where a series begins; `from_zero` after a restart of its process.
    pub fn begin(class: Class, rng: &mut Rng, from_zero: bool) -> Value {
        let scale = if from_zero { 0.0 } else { 1.0 };
        Value(match class {
            Class::Constant(v) => v,
            Class::Slow => (rng.below(50) as f64) * scale,
            Class::Fast(pace) => (rng.below(20_000) * (pace / 2 + 1)) as f64 * scale,
            Class::Hundredths(pace) => (rng.below(20_000) * (pace / 2 + 1)) as f64 / 100.0 * scale,
            Class::Level { start, step } => start + step * rng.below(64) as f64,
            Class::Noisy(growth) => growth * rng.below(1000) as f64 * scale + rng.unit() * 0.02,
        })
    }

    /// The value at the next scrape.
    pub fn step(&mut self, class: Class, rng: &mut Rng) -> f64 {
        match class {
            Class::Constant(_) => {}
            Class::Slow => {
                if rng.chance(0.05) {
                    self.0 += (1 + rng.below(3)) as f64;
                }
            }
            Class::Fast(pace) => self.0 += rng.below(pace + 1) as f64,
            Class::Hundredths(pace) => {
                // Counted in whole hundredths, as the kernel does, so that the decimal stays a short one.
                let hundredths = (self.0 * 100.0).round() + rng.below(pace + 1) as f64;
                self.0 = hundredths / 100.0;
            }
            Class::Level { step, start } => {
                if rng.chance(0.6) {
                    let steps = rng.below(9) as f64 - 4.0;
                    let level = ((self.0 / step).round() + steps).max(0.0);
                    let level = if level * step > 4.0 * start + 64.0 * step { start / step } else { level };
                    self.0 = (level * step * 1e6).round() / 1e6;
                }
            }
            Class::Noisy(growth) => {
                if growth > 0.0 {
                    self.0 += growth * rng.unit();
                } else {
                    self.0 = (rng.unit() * 0.02 * 1e9).round() / 1e9;
                }
            }
        }
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn target_has_about_five_hundred_different_series() {
        let all = exposed();
        assert!((480..=520).contains(&all.len()), "{} series", all.len());
        let names: HashSet<_> = all.iter().map(|e| (e.name.clone(), e.labels.clone())).collect();
        assert_eq!(names.len(), all.len(), "two series are the same");
    }

    #[test]
    fn application_has_134_series_and_no_bucket_above_the_next() {
        let all = application();
        assert_eq!(all.len(), 134);
        let buckets = all.iter().filter(|e| e.name.ends_with("_bucket"));
        let first = buckets.clone().filter(|e| !e.cumulative).count();
        assert_eq!((buckets.count(), first), (96, 8), "each histogram begins anew");
    }

    #[test]
    fn counters_never_fall_and_levels_stay_in_reach() {
        let mut rng = Rng::of(5, 0);
        for e in exposed() {
            let mut value = Value::begin(e.class, &mut rng, false);
            let mut last = value.0;
            for _ in 0..500 {
                let next = value.step(e.class, &mut rng);
                match e.class {
                    Class::Constant(v) => assert_eq!(next, v),
                    Class::Level { start, step } => {
                        assert!((0.0..=4.0 * start + 70.0 * step).contains(&next), "{} at {next}", e.name)
                    }
                    Class::Noisy(0.0) => assert!((0.0..0.02).contains(&next)),
                    _ => assert!(next >= last, "{} fell from {last} to {next}", e.name),
                }
                last = next;
            }
        }
    }
}
