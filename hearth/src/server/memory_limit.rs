//! How much memory the machine, or the container this runs in, has to give, and which part may hold how much
//! of it: the one account of memory. Each part reserves what it holds within its own share, so that together
//! they stay within the limit.

use std::fs;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::config::Settings;
use crate::config::value::{MemorySize, Size};

/// What the parts of a process may hold in memory, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// What they may hold together; `None` where neither settings nor system say.
    pub limit: Option<u64>,
    /// `None`: without end.
    pub head: Option<u64>,
    pub queries: u64,
    pub cache: u64,
    pub results_cache: u64,
    pub writes: u64,
    pub compaction: u64,
    pub exemplars: u64,
}

/// What the head may hold where 0 is set.
const HEAD: MemorySize = MemorySize::Share { percent: 50, most: None };

impl MemoryPlan {
    pub fn of(settings: &Settings) -> MemoryPlan {
        MemoryPlan::within(settings, memory_bytes())
    }

    /// As settings have it on a machine, or in a container, with so much memory.
    fn within(settings: &Settings, machine: Option<u64>) -> MemoryPlan {
        let limit = settings.memory_limit.of(machine);
        let part = |size: MemorySize| size.of(limit).unwrap_or(u64::MAX);
        let head = match settings.head_max_memory {
            MemorySize::Bytes(0) => HEAD,
            size => size,
        };
        let compacts = settings.compactor_enabled;
        MemoryPlan {
            limit,
            head: head.of(limit),
            queries: part(settings.query_max_total_memory),
            cache: part(settings.cache_bytes),
            results_cache: part(settings.query_results_cache),
            writes: part(settings.ingest_max_in_flight),
            compaction: if compacts { part(settings.compactor_max_memory) } else { 0 },
            exemplars: part(settings.exemplars_max),
        }
    }

    /// The parts by name, with the setting of each.
    pub fn parts(&self) -> [(&'static str, &'static str, u64); 7] {
        [
            ("head", "head.max_memory_bytes", self.head.unwrap_or(u64::MAX)),
            ("queries", "query.max_total_memory_bytes", self.queries),
            ("cache", "cache_bytes", self.cache),
            ("results_cache", "query.results_cache_bytes", self.results_cache),
            ("writes", "ingest.max_in_flight_bytes", self.writes),
            ("compaction", "compactor.max_memory_bytes", self.compaction),
            ("exemplars", "exemplars.max_bytes", self.exemplars),
        ]
    }

    /// What to say where the parts may hold more than there is.
    pub fn warning(&self) -> Option<String> {
        let limit = self.limit?;
        let sum = self.parts().iter().fold(0u64, |sum, (.., bytes)| sum.saturating_add(*bytes));
        // The shares of the defaults come to a little more: not all are used up at once.
        if sum <= limit.saturating_add(limit / 20) {
            return None;
        }
        let shown = |bytes| Size(bytes).to_string();
        let parts: Vec<String> =
            self.parts().iter().map(|(_, setting, bytes)| format!("{setting} {}", shown(*bytes))).collect();
        Some(format!(
            "memory may run out: what the settings allow comes to {} bytes, {} more than memory.limit ({limit} bytes): {}",
            sum,
            sum - limit,
            parts.join(", ")
        ))
    }

    /// Shows what each part may hold.
    pub fn register(&self, registry: &mut Registry) {
        let limit: Gauge = Gauge::default();
        limit.set(i64::try_from(self.limit.unwrap_or(0)).unwrap_or(i64::MAX));
        registry.register("hearth_memory_limit_bytes", "Memory that Hearth goes by, see memory.limit", limit);
        let allowed: Family<[(&'static str, &'static str); 1], Gauge> = Family::default();
        for (part, _, bytes) in self.parts() {
            allowed.get_or_create(&[("part", part)]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        let help = "Memory that each part of the process may hold";
        registry.register("hearth_memory_allowed_bytes", help, allowed);
    }

    /// From which size on the process is too large, whatever its parts think they hold: an eighth above the
    /// limit, but never all there is.
    pub fn critical(&self) -> Option<u64> {
        let limit = self.limit?;
        let above = limit.saturating_add(limit / 8);
        Some(memory_bytes().map_or(above, |all| above.min(all / 100 * 95)))
    }
}

/// What compaction may hold, in whichever process it runs.
pub fn compaction_bytes(settings: &Settings) -> u64 {
    settings.compactor_max_memory.of(settings.memory_limit.of(memory_bytes())).unwrap_or(u64::MAX)
}

/// The container's limit (cgroup version 2, else 1), or the machine's memory where it is less.
fn memory_bytes() -> Option<u64> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own_group(&groups, "0::").map(|path| format!("/sys/fs/cgroup{path}/memory.max"));
    let own_v1 = own_group(&groups, ":memory:");
    let own_v1 = own_v1.map(|path| format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"));
    let machine = machine_bytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default());
    [
        own.and_then(|path| number(&path)),
        own_v1.and_then(|path| number(&path)),
        number("/sys/fs/cgroup/memory.max"),
        number("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        machine,
    ]
    .into_iter()
    .flatten()
    .min()
}

/// The group that a process is in as `/proc/self/cgroup` tells it: after `0::` in version 2, after `:memory:`
/// in version 1.
fn own_group<'a>(groups: &'a str, mark: &str) -> Option<&'a str> {
    let path = groups.lines().find_map(|l| l.find(mark).map(|at| &l[at + mark.len()..]))?;
    (path != "/").then_some(path)
}

fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_plan_fits_into_what_there_is_unless_settings_say_otherwise() {
        let mut settings = Settings::default();
        for machine in [1u64 << 30, 4 << 30, 16 << 30, 256 << 30] {
            let plan = MemoryPlan::within(&settings, Some(machine));
            assert_eq!(plan.warning(), None, "{machine}");
            assert_eq!(plan.head, plan.limit.map(|limit| limit / 2), "{machine}");
        }
        let large = MemoryPlan::within(&settings, Some(64 << 30));
        assert_eq!((large.queries, large.cache, large.writes), (4 << 30, 256 << 20, 512 << 20));
        let unknown = MemoryPlan::within(&settings, None);
        assert_eq!((unknown.head, unknown.queries, unknown.warning()), (None, 4 << 30, None));
        settings.head_max_memory = MemorySize::Bytes(3 << 30);
        let warning = MemoryPlan::within(&settings, Some(4 << 30)).warning().expect("too much");
        assert!(warning.contains("head.max_memory_bytes 3GiB"), "{warning}");
        settings.memory_limit = MemorySize::Bytes(1 << 30);
        settings.head_max_memory = MemorySize::Bytes(0);
        let plan = MemoryPlan::within(&settings, Some(256 << 30));
        assert_eq!((plan.head, plan.warning()), (Some(1 << 29), None));
        let all = memory_bytes().expect("this machine says how much memory it has");
        assert!(MemoryPlan::of(&Settings::default()).critical().is_some_and(|c| c < all && c > all / 2));
    }

    #[test]
    fn memory_of_the_process_is_read_from_the_system() {
        assert_eq!(machine_bytes("MemFree: 1 kB\nMemTotal:       16318188 kB\n"), Some(16_318_188 * 1024));
        let both = "4:memory:/pods/hearth\n1:name=systemd:/x\n0::/system.slice/hearth.service\n";
        assert_eq!(own_group(both, "0::"), Some("/system.slice/hearth.service"));
        assert_eq!(own_group(both, ":memory:"), Some("/pods/hearth"));
        assert_eq!(own_group("0::/\n", "0::"), None);
        assert_eq!(own_group("10::/x\n", ":memory:"), None);
    }
}
