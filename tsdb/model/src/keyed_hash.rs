//! A hash of bytes that come from outside, with a key that this process alone has.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use xxhash_rust::xxh3::xxh3_64_with_secret;

/// As many bytes as the hash has in its own key, which everybody knows.
const KEY_BYTES: usize = 192;

static KEY: LazyLock<[u8; KEY_BYTES]> = LazyLock::new(|| {
    let random = RandomState::new();
    let mut key = [0; KEY_BYTES];
    for (i, word) in key.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&random.hash_one(i).to_le_bytes());
    }
    key
});

/// The hash: another one in every process, so that it is of use only within one. Whoever does not know the
/// key cannot choose bytes that collide, and so cannot make a table of all others slow or wrong.
pub fn keyed_hash(bytes: &[u8]) -> u64 {
    xxh3_64_with_secret(bytes, &*KEY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use xxhash_rust::xxh3::xxh3_64;

    /// Texts of 32 bytes that collide where the key is the one in the standard: a product in the hash, of the
    /// first eight bytes and the next, is zero whatever the next are.
    fn colliding(count: u64) -> Vec<[u8; 32]> {
        const FIRST_WORD: u64 = 0xbe4b_a423_396c_feb8;
        let text = |i: u64| {
            let mut text = [0; 32];
            text[..8].copy_from_slice(&FIRST_WORD.to_le_bytes());
            text[8..16].copy_from_slice(&i.to_le_bytes());
            text
        };
        (0..count).map(text).collect()
    }

    #[test]
    fn keyed_hash_tells_apart_what_was_made_to_collide() {
        let texts = colliding(20_000);
        let distinct = |hash: fn(&[u8]) -> u64| texts.iter().map(|t| hash(t)).collect::<HashSet<_>>().len();
        assert_eq!(distinct(xxh3_64), 1);
        assert_eq!(distinct(keyed_hash), 20_000);
        assert_eq!(keyed_hash(&texts[0]), keyed_hash(&texts[0]));
    }
}
