//! How much memory the machine, or the container this runs in, has to give.

use std::fs;

/// The head's share of the memory where no limit is set: the rest is for writes in flight, queries, caches,
/// and the flush itself.
const HEAD_SHARE: (u64, u64) = (2, 5);

/// Bytes the head may hold: what was set, or its share of what there is. `None` where the system does not
/// say.
pub fn head_limit(set_bytes: u64) -> Option<u64> {
    let share = |all: u64| all / HEAD_SHARE.1 * HEAD_SHARE.0;
    if set_bytes > 0 { Some(set_bytes) } else { memory_bytes().map(share) }
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
    fn limit_is_what_was_set_or_a_share_of_what_there_is() {
        assert_eq!(head_limit(77), Some(77));
        let all = memory_bytes().expect("this machine says how much memory it has");
        assert!(head_limit(0).is_some_and(|limit| limit < all && limit > all / 4));
        assert_eq!(machine_bytes("MemFree: 1 kB\nMemTotal:       16318188 kB\n"), Some(16_318_188 * 1024));
        let both = "4:memory:/pods/hearth\n1:name=systemd:/x\n0::/system.slice/hearth.service\n";
        assert_eq!(own_group(both, "0::"), Some("/system.slice/hearth.service"));
        assert_eq!(own_group(both, ":memory:"), Some("/pods/hearth"));
        assert_eq!(own_group("0::/\n", "0::"), None);
        assert_eq!(own_group("10::/x\n", ":memory:"), None);
    }
}
