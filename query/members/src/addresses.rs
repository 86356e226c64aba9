//! Where members are reached, where that is not what they say of themselves: fixed by name, or found.
//!
//! What is found are URLs without names. Who answers at one says who it is; nothing else is believed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures::StreamExt;
use parking_lot::RwLock;

use crate::ask::Transport;

/// URLs that are asked at the same time, and the most that are asked at all.
const AT_ONCE: usize = 32;
const MOST: usize = 1_000;

/// What is known of a URL that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Met {
    /// This member is there.
    Member(String),
    /// Nobody that can be used, and why.
    Nobody(String),
}

/// See the module.
#[derive(Default)]
pub struct Addresses {
    /// By name, in the place of everything else.
    fixed: BTreeMap<String, String>,
    found: RwLock<Found>,
    meeting: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Found {
    by_name: BTreeMap<String, String>,
    met: BTreeMap<String, Met>,
}

impl Addresses {
    /// Addresses by name.
    pub fn fixed(fixed: BTreeMap<String, String>) -> Addresses {
        Addresses { fixed, ..Addresses::default() }
    }

    /// Where a member is, if that is known here.
    pub fn of(&self, name: &str) -> Option<String> {
        self.fixed.get(name).cloned().or_else(|| self.found.read().by_name.get(name).cloned())
    }

    /// What is known of each URL that was found.
    pub fn met(&self) -> BTreeMap<String, Met> {
        self.found.read().met.clone()
    }

    /// Asks everybody at these URLs who they are, which takes as long as the slowest may.
    pub async fn meet(&self, urls: &[String], transport: &dyn Transport) {
        let mut meeting = self.meeting.lock().await;
        self.ask_all(urls.iter().cloned().collect(), transport).await;
        *meeting = Some(Instant::now());
    }

    /// The same of the URLs that are known, unless that was done since a moment.
    pub async fn meet_again(&self, moment: Instant, transport: &dyn Transport) {
        let mut meeting = self.meeting.lock().await;
        let urls: BTreeSet<String> = self.found.read().met.keys().cloned().collect();
        if urls.is_empty() || meeting.is_some_and(|at| at >= moment) {
            return;
        }
        self.ask_all(urls, transport).await;
        *meeting = Some(Instant::now());
    }

    async fn ask_all(&self, urls: BTreeSet<String>, transport: &dyn Transport) {
        if urls.len() > MOST {
            tracing::warn!(
                "{} addresses of members were found, of which only {MOST} are asked who is there",
                urls.len()
            );
        }
        let ask = async |url: String| {
            let met = match transport.who(&url, false).await {
                Ok(who) => Met::Member(who.name),
                Err(e) => Met::Nobody(e.sentence()),
            };
            (url, met)
        };
        let asked = futures::stream::iter(urls.into_iter().take(MOST)).map(ask).buffer_unordered(AT_ONCE);
        let met: BTreeMap<String, Met> = asked.collect().await;
        let mut found = self.found.write();
        *found = by_name(met, &found.by_name);
    }
}

/// Who is where. One that does not answer for the moment is where it was, if that address is still found; one
/// that is at several is where it was, or at the first.
fn by_name(met: BTreeMap<String, Met>, before: &BTreeMap<String, String>) -> Found {
    let mut by_name: BTreeMap<String, String> = BTreeMap::new();
    for (url, who) in &met {
        if let Met::Member(name) = who {
            let is_same = before.get(name) == Some(url);
            if is_same || !by_name.contains_key(name) {
                by_name.insert(name.clone(), url.clone());
            }
        }
    }
    for (name, url) in before {
        if matches!(met.get(url), Some(Met::Nobody(_))) {
            by_name.entry(name.clone()).or_insert_with(|| url.clone());
        }
    }
    Found { by_name, met }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(all: &[(&str, Option<&str>)]) -> BTreeMap<String, Met> {
        let one = |(url, name): &(&str, Option<&str>)| {
            let met = name.map_or(Met::Nobody("away".into()), |name| Met::Member(name.to_owned()));
            (url.to_string(), met)
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn found_addresses_belong_to_who_answers_there() {
        let no_one = BTreeMap::new();
        let at = |found: &Found, name: &str| found.by_name.get(name).cloned();
        let first =
            by_name(met(&[("http://1", Some("a")), ("http://2", Some("b")), ("http://3", None)]), &no_one);
        assert_eq!(at(&first, "a").as_deref(), Some("http://1"));
        // `b` moved, and another took its place; `a` does not answer for the moment.
        let moved = met(&[("http://1", None), ("http://2", Some("c")), ("http://3", Some("b"))]);
        let second = by_name(moved, &first.by_name);
        let expected = [("a", "http://1"), ("b", "http://3"), ("c", "http://2")];
        assert_eq!(second.by_name, expected.map(|(n, u)| (n.to_owned(), u.to_owned())).into());
        // Two addresses of one member: it stays where it was.
        let both = by_name(met(&[("http://0", Some("b")), ("http://3", Some("b"))]), &second.by_name);
        assert_eq!(at(&both, "b").as_deref(), Some("http://3"));
        // Its address is not found any more.
        assert_eq!(at(&both, "a"), None);
    }
}
