//! How a snapshot lies in the store: all of it, or what it changes of an earlier one.
//!
//! Writing all of a large catalog with every commit would cost as much as the catalog has blocks. So its
//! object holds what changed, as long as the whole snapshot at the beginning is larger than all changes since
//! then. Changes are against one of a few earlier snapshots, as in a number written with digits to the base
//! [`RADIX`]: after the whole snapshot `w`, number `w + 0o123` changes `w + 0o120`, which changes
//! `w + 0o100`, which changes `w`. A reader that comes from nowhere reads one object for each digit that is
//! not zero, at once; one that follows reads one object for each commit; and a change is said once for each
//! digit.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use super::changes::Changes;
use super::error::CatalogError;
use super::snapshot::{Snapshot, not_a_snapshot};

/// Smaller means fewer bytes a commit, and more objects that a start reads.
const RADIX: u64 = 8;
/// Snapshots that may stand on one whole one: three digits.
const MAX_CHANGES: u64 = RADIX * RADIX * RADIX - 1;

/// What one object holds.
pub(super) enum Object {
    Whole(Box<Snapshot>, u64),
    Changes(Box<Changes>, u64),
}

/// The one field that every version has.
#[derive(Deserialize)]
struct OnlyVersion {
    version: u32,
}

impl Object {
    /// Reads and checks an object's text.
    pub fn from_json(object: &str, text: &Bytes) -> Result<Object, CatalogError> {
        // Before anything else: of a newer version not even the checksum can be told.
        let version = serde_json::from_slice::<OnlyVersion>(text).map_err(|e| not_a_snapshot(object, &e))?;
        match version.version {
            1..=Snapshot::VERSION => {
                Ok(Object::Whole(Box::new(Snapshot::from_json(object, text)?), text.len() as u64))
            }
            Changes::VERSION => {
                Ok(Object::Changes(Box::new(Changes::from_json(object, text)?), text.len() as u64))
            }
            version => Err(CatalogError::Corrupt {
                object: object.to_string(),
                what: format!(
                    "catalog version {version}, this Hearth reads 1 to {}: upgrade it",
                    Changes::VERSION
                ),
            }),
        }
    }

    /// Which snapshot it says it is.
    pub fn number(&self) -> u64 {
        match self {
            Object::Whole(snapshot, _) => snapshot.number,
            Object::Changes(changes, _) => changes.number,
        }
    }
}

/// A snapshot, and what a reader has to have read to know it.
#[derive(Clone)]
pub(super) struct Stored {
    pub snapshot: Arc<Snapshot>,
    /// Those that it is changes of, each of the one before it, the first of them whole; empty where it is
    /// whole itself.
    pub stands_on: Vec<Arc<Snapshot>>,
    /// Bytes of the object of the whole one, and of all objects since then that hold changes.
    pub whole_bytes: u64,
    pub spent_bytes: u64,
}

impl Stored {
    /// All of a snapshot in an object of so many bytes.
    pub fn whole(snapshot: Snapshot, bytes: u64) -> Stored {
        Stored { snapshot: Arc::new(snapshot), stands_on: Vec::new(), whole_bytes: bytes, spent_bytes: 0 }
    }

    /// What an object of so many bytes leads to from the last of `stands_on`.
    pub fn changed(
        object: &str,
        changes: &Changes,
        bytes: u64,
        stands_on: Vec<Arc<Snapshot>>,
    ) -> Result<Stored, CatalogError> {
        let corrupt = |what: String| CatalogError::Corrupt { object: object.to_string(), what };
        let since = stands_on.last().ok_or_else(|| corrupt("it stands on nothing".to_string()))?;
        let snapshot = Arc::new(changes.apply(since).map_err(corrupt)?);
        let spent_bytes = changes.spent_bytes.saturating_add(bytes);
        Ok(Stored { snapshot, stands_on, whole_bytes: changes.whole_bytes, spent_bytes })
    }

    /// The snapshots that are known with it, newest first.
    pub fn known(&self) -> impl Iterator<Item = &Arc<Snapshot>> {
        std::iter::once(&self.snapshot).chain(self.stands_on.iter().rev())
    }

    /// The text in which the snapshot after this one is to be stored, and what it then stands on. It is whole
    /// where the whole one that it would stand on has fewer than `changes_from_bytes`.
    pub fn followed_by(&self, next: Snapshot, changes_from_bytes: u64) -> (Vec<u8>, Stored) {
        if self.whole_bytes >= changes_from_bytes
            && let Some(found) = self.changed_to(&next)
        {
            return found;
        }
        let text = next.to_json();
        let stored = Stored::whole(next, text.len() as u64);
        (text, stored)
    }

    /// The next snapshot as changes; `None` where it should be stored whole.
    fn changed_to(&self, next: &Snapshot) -> Option<(Vec<u8>, Stored)> {
        let mut path: Vec<Arc<Snapshot>> = self.stands_on.clone();
        path.push(self.snapshot.clone());
        let whole = path[0].number;
        let step = next.number.checked_sub(whole).filter(|step| (1..=MAX_CHANGES).contains(step))?;
        path.retain(|s| s.number <= whole + without_last_digit(step));
        let changes = Changes::between(&path, next, self.whole_bytes, self.spent_bytes)?;
        let text = changes.to_json();
        let spent_bytes = self.spent_bytes + text.len() as u64;
        if spent_bytes >= self.whole_bytes {
            return None;
        }
        let snapshot = Arc::new(changes.apply(path.last()?).ok()?);
        // Should an edit ever do what changes cannot say, then all of it is written.
        if *snapshot != *next {
            tracing::warn!(
                number = next.number,
                "a snapshot cannot be told as changes, all of it is written"
            );
            return None;
        }
        Some((text, Stored { snapshot, stands_on: path, whole_bytes: self.whole_bytes, spent_bytes }))
    }
}

/// A number with its last digit that is not zero made zero.
fn without_last_digit(number: u64) -> u64 {
    let mut place = 1;
    while number != 0 && (number / place).is_multiple_of(RADIX) {
        place *= RADIX;
    }
    number - number / place % RADIX * place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_stand_on_the_digits_of_their_number() {
        assert_eq!([1, 7, 8, 9].map(without_last_digit), [0, 0, 0, 8]);
        assert_eq!(without_last_digit(0o123), 0o120);
        assert_eq!(without_last_digit(0o120), 0o100);
        assert_eq!(without_last_digit(0o700), 0);
        assert_eq!(without_last_digit(0), 0);
    }
}
