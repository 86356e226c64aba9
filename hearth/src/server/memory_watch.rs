//! Looks at the size of the process, and calls off queries where it is too large all the same.
//!
//! Every part reserves what it holds; but what is reserved is an estimate, and allocators keep some for
//! themselves. Where the system is about to end the process, the heaviest query goes first.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use model::source::MemoryPool;

use super::memory_limit::MemoryPlan;

/// Between two looks: what a query can take in this time has to fit between the limit and what there is.
const EVERY: Duration = Duration::from_millis(250);

/// What calling off a query must give back at least, as a share of the limit: less does not help.
const WORTH_IT: u64 = 50;

/// Looks for as long as the process runs; at once done where nobody knows how much memory there is.
pub async fn watch(plan: MemoryPlan, queries: Arc<MemoryPool>) {
    let Some(critical) = plan.critical() else { return };
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(size) = resident_bytes() else { return };
        if size < critical {
            continue;
        }
        if let Some(bytes) = queries.evict_heaviest(critical / WORTH_IT) {
            tracing::warn!(
                "the process holds {size} bytes of memory, {critical} are critical (memory.limit): the heaviest query, {bytes} bytes, is called off"
            );
        }
    }
}

/// Memory of the process that is its own: not that of files, which the system takes back by itself.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    resident_in(&status)
}

fn resident_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_the_process_without_its_files_is_read() {
        let status = "Name:\thearth\nVmRSS:\t  200 kB\nRssAnon:\t     150 kB\nRssFile:\t 50 kB\n";
        assert_eq!(resident_in(status), Some(150 * 1024));
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
