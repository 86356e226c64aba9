//! Passwords against bcrypt hashes, which are slow on purpose.
//!
//! One is compared at a time, on a thread that may block, and the result is remembered by a keyed hash of
//! user, hash and password, so that a sender pays once. Who guesses fills a memory of their own: it never
//! pushes out what is known to be right. For an unknown user some hash is compared all the same, so that time
//! tells nothing.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use crate::web_config::hash_cost;

/// Remembered of each kind; beyond it a memory begins anew.
const REMEMBERED: usize = 1_000;

/// Comparisons that may wait for their turn: at 70 ms each, the last waits some seconds.
const MOST_WAITING: usize = 64;

/// Where no user has a cost to go by: `htpasswd`'s usual one.
const USUAL_COST: u32 = 10;

/// The result of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    Wrong,
    /// Too many are being compared.
    Busy,
}

type Memory = Mutex<HashSet<[u8; 32]>>;

/// Compares passwords.
pub struct Passwords {
    key: Option<hmac::Key>,
    right: Memory,
    wrong: Memory,
    turn: Semaphore,
    waiting: Semaphore,
}

impl Default for Passwords {
    fn default() -> Passwords {
        Passwords {
            // Without random numbers nothing is remembered, and every request pays.
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
            right: Memory::default(),
            wrong: Memory::default(),
            turn: Semaphore::new(1),
            waiting: Semaphore::new(MOST_WAITING),
        }
    }
}

impl Passwords {
    /// Whether the password is the user's, by the hashes of `users`.
    pub async fn check(&self, users: &BTreeMap<String, String>, user: &str, password: &str) -> Verdict {
        let known = users.get(user);
        let hash = known.cloned().unwrap_or_else(|| hash_of_nobody(users));
        let name = self.key.as_ref().map(|key| name(key, [user, &hash, password]));
        if let Some(name) = &name {
            if known.is_some() && self.right.lock().contains(name) {
                return Verdict::Right;
            }
            if self.wrong.lock().contains(name) {
                return Verdict::Wrong;
            }
        }
        let Ok(_waiting) = self.waiting.try_acquire() else { return Verdict::Busy };
        let Ok(_turn) = self.turn.acquire().await else { return Verdict::Busy };
        let password: Arc<str> = password.into();
        let compared =
            tokio::task::spawn_blocking(move || bcrypt::verify(password.as_bytes(), &hash).unwrap_or(false));
        let right = compared.await.unwrap_or(false) && known.is_some();
        if let Some(name) = name {
            let mut memory = if right { self.right.lock() } else { self.wrong.lock() };
            if memory.len() >= REMEMBERED {
                memory.clear();
            }
            memory.insert(name);
        }
        if right { Verdict::Right } else { Verdict::Wrong }
    }
}

/// What a comparison is remembered by: nobody can tell the password from it, nor make two alike.
fn name(key: &hmac::Key, parts: [&str; 3]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    let mut name = [0; 32];
    name.copy_from_slice(context.sign().as_ref());
    name
}

/// A hash that no password has, as slow as the slowest of the users'.
fn hash_of_nobody(users: &BTreeMap<String, String>) -> String {
    let cost = users.values().filter_map(|hash| hash_cost(hash)).max().unwrap_or(USUAL_COST);
    format!("$2b${cost:02}${}", "O".repeat(53))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn passwords_are_compared_once_and_wrong_ones_push_out_no_right_one() {
        let users: BTreeMap<String, String> = [("ann".to_owned(), bcrypt::hash("secret", 4).unwrap())].into();
        let passwords = Passwords::default();
        assert_eq!(passwords.check(&users, "ann", "secret").await, Verdict::Right);
        for guess in 0..REMEMBERED + 10 {
            let guess = guess.to_string();
            assert_eq!(passwords.check(&users, "ann", &guess).await, Verdict::Wrong);
        }
        assert_eq!(passwords.check(&users, "bob", "secret").await, Verdict::Wrong);
        assert_eq!((passwords.right.lock().len(), passwords.wrong.lock().len() <= REMEMBERED), (1, true));
        // Remembered, and so not asked for again: even with nobody's turn.
        let _turn = passwords.turn.acquire().await.unwrap();
        assert_eq!(passwords.check(&users, "ann", "secret").await, Verdict::Right);
        assert_eq!(passwords.check(&users, "bob", "secret").await, Verdict::Wrong);
        let other = [("ann".to_owned(), bcrypt::hash("new", 4).unwrap())].into();
        drop(_turn);
        assert_eq!(
            passwords.check(&other, "ann", "secret").await,
            Verdict::Wrong,
            "the password has changed"
        );
    }

    #[test]
    fn hash_of_nobody_is_as_slow_as_those_of_users() {
        let users = [("a".to_owned(), format!("$2y$12${}", "a".repeat(53)))].into();
        assert_eq!(hash_cost(&hash_of_nobody(&users)), Some(12));
        assert_eq!(bcrypt::verify("x", &hash_of_nobody(&BTreeMap::new())).ok(), Some(false));
    }
}
