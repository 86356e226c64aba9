//! What may be deleted from the store: a decision over listings, values in, names out.

use std::collections::BTreeSet;

use tsdb::depot::BlockFolder;
use ulid::Ulid;

/// Folders below `blocks/` that nobody needs: no snapshot that a reader may still hold names them (`named`), and their newest object was written at
/// least `grace_ms` ago, so that no upload of them can be under way. The block's own name says when it was begun: where it is younger than the store
/// claims, it counts, so that a store whose clock is wrong costs nobody an upload.
pub fn garbage(
    folders: &[BlockFolder],
    named: &BTreeSet<Ulid>,
    now_ms: i64,
    grace_ms: i64,
) -> Vec<BlockFolder> {
    let begun_ms = |f: &BlockFolder| i64::try_from(f.ulid.timestamp_ms()).unwrap_or(i64::MAX);
    let old = |f: &&BlockFolder| now_ms.saturating_sub(f.written_ms.max(begun_ms(f))) >= grace_ms;
    folders.iter().filter(|f| !named.contains(&f.ulid)).filter(old).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_reader_and_no_writer_can_need_is_garbage() {
        let folder = |n: u64, written_ms| BlockFolder {
            ulid: Ulid::from_parts(n, 0),
            objects: 4,
            bytes: 100,
            written_ms,
        };
        // The last was begun a moment ago, whatever the store says of its objects.
        let folders = [folder(1, 0), folder(2, 0), folder(3, 900), folder(4, 500), folder(900, 0)];
        let named = BTreeSet::from([Ulid::from_parts(1, 0)]);
        let found: Vec<u64> =
            garbage(&folders, &named, 1000, 500).iter().map(|f| f.ulid.timestamp_ms()).collect();
        assert_eq!(found, [2, 4]);
    }
}
