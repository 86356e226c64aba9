//! Which files of exemplars go and which become one: decisions only.

use std::collections::BTreeMap;
use std::sync::Arc;

use ulid::Ulid;

use crate::sidecar::Sidecar;

/// A day, in milliseconds: what is joined in one file once it is over.
const DAY_MS: i64 = 24 * 3600 * 1000;

/// Bytes beyond which files are not joined: one is read whole.
const JOINED_BYTES: u64 = 16 << 20;

/// What to do with a tenant's files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// All of them is older than is kept.
    pub expired: Vec<Ulid>,
    /// These become one.
    pub join: Vec<Ulid>,
}

/// Plans at most one joining: of the oldest day that has been over for an hour and has several files.
pub fn plan(files: &[Arc<Sidecar>], keep_ms: Option<i64>, now_ms: i64) -> Upkeep {
    let first_kept = keep_ms.map_or(i64::MIN, |keep| now_ms.saturating_sub(keep));
    let (kept, expired): (Vec<_>, Vec<_>) = files.iter().partition(|f| f.max_t_ms >= first_kept);
    let mut by_day: BTreeMap<i64, Vec<&Sidecar>> = BTreeMap::new();
    for f in kept {
        let day = f.max_t_ms.div_euclid(DAY_MS);
        if day.saturating_add(1).saturating_mul(DAY_MS) + DAY_MS / 24 <= now_ms {
            by_day.entry(day).or_default().push(f);
        }
    }
    let join = by_day.into_values().map(|files| {
        let mut bytes = 0;
        let fits = |f: &&&Sidecar| {
            bytes += f.bytes;
            bytes <= JOINED_BYTES
        };
        let mut files = files;
        files.sort_by_key(|f| f.bytes);
        files.iter().take_while(fits).map(|f| f.ulid).collect::<Vec<_>>()
    });
    let join = join.into_iter().find(|join| join.len() > 1).unwrap_or_default();
    Upkeep { expired: expired.iter().map(|f| f.ulid).collect(), join }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_files_go_and_those_of_a_day_that_is_over_become_one() {
        let file = |n: u64, day: i64, bytes| {
            let (min_t_ms, max_t_ms) = (day * DAY_MS, day * DAY_MS + 5);
            Arc::new(Sidecar {
                ulid: Ulid::from_parts(n, 0),
                min_t_ms,
                max_t_ms,
                rows: 1,
                bytes,
                xxh3: String::new(),
            })
        };
        let ulid = |n| Ulid::from_parts(n, 0);
        let files = [
            file(1, 1, 9),
            file(2, 3, 9),
            file(3, 4, 9),
            file(4, 4, JOINED_BYTES),
            file(5, 4, 8),
            file(6, 5, 9),
            file(7, 5, 9),
        ];
        let plan = |keep, now| plan(&files, keep, now);
        assert_eq!(plan(None, 5 * DAY_MS), Upkeep::default(), "the day is not over for an hour");
        assert_eq!(plan(None, 6 * DAY_MS - 1).join, [ulid(5), ulid(3)], "a large one stays alone");
        assert_eq!(plan(Some(3 * DAY_MS), 6 * DAY_MS).expired, [ulid(1)]);
        assert_eq!(plan(Some(0), 100 * DAY_MS).expired.len(), 7);
    }
}
