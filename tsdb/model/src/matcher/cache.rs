//! Compiled expressions of the last queries: a dashboard asks with the same few again and again, and each
//! takes up to milliseconds to compile.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;

use super::re2::Re2;
use super::translate::Re2Error;

/// Expressions in each of the two halves. Beside its program an expression that is in use holds up to 2 MiB
/// of states for each thread that matches with it, so few are kept.
const HALF_ENTRIES: usize = 64;

/// Most bytes of programs in each half.
const HALF_BYTES: usize = 8 << 20;

/// Longest expression that is kept.
const MAX_TEXT_BYTES: usize = 8 << 10;

/// Those used since the last turn, and those used before it: at a turn the latter go.
#[derive(Default)]
struct Halves {
    recent: HashMap<String, Arc<Re2>>,
    recent_bytes: usize,
    older: HashMap<String, Arc<Re2>>,
}

static CACHE: LazyLock<Mutex<Halves>> = LazyLock::new(Mutex::default);

/// A fully anchored expression whose groups nobody asks for, compiled now or before.
pub(super) fn anchored(expr: &str) -> Result<Arc<Re2>, Re2Error> {
    let kept = {
        let mut halves = CACHE.lock();
        match halves.recent.get(expr) {
            Some(re) => return Ok(re.clone()),
            None => halves.older.remove(expr),
        }
    };
    let re = match kept {
        Some(re) => re,
        None => Arc::new(Re2::anchored_without_groups(expr)?),
    };
    if re.is_compiled() && expr.len() <= MAX_TEXT_BYTES && re.size_bytes() <= HALF_BYTES / 8 {
        CACHE.lock().keep(expr, &re);
    }
    Ok(re)
}

impl Halves {
    fn keep(&mut self, expr: &str, re: &Arc<Re2>) {
        let bytes = re.size_bytes() + expr.len();
        if self.recent.len() >= HALF_ENTRIES || self.recent_bytes + bytes > HALF_BYTES {
            self.older = std::mem::take(&mut self.recent);
            self.recent_bytes = 0;
        }
        self.recent_bytes += bytes;
        self.recent.insert(expr.to_string(), re.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_gives_back_what_it_compiled_and_stays_small() {
        let expr = "cached-[a-z]+-[0-9]+";
        let first = anchored(expr).unwrap();
        assert!(Arc::ptr_eq(&first, &anchored(expr).unwrap()) && first.is_match("cached-a-1"));
        let mut halves = Halves::default();
        for i in 0..1_000 {
            halves.keep(&format!("x{i}[a-z]+[0-9]"), &first);
            assert!(halves.recent.len() <= HALF_ENTRIES && halves.recent_bytes <= HALF_BYTES);
        }
        assert!(halves.older.len() <= HALF_ENTRIES);
        assert!(anchored("(").is_err());
    }
}
