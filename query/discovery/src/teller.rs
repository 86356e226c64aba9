//! What sources have found, and the way in which each says it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::Group;

/// What one source has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub groups: Vec<Group>,
    /// Whether it was ever read.
    pub is_known: bool,
    /// Why it could not be read last.
    pub failure: Option<String>,
}

/// By which a task says what its source has.
pub(crate) struct Teller {
    sender: Arc<watch::Sender<Vec<Found>>>,
    at: usize,
}

impl Teller {
    pub fn new(sender: Arc<watch::Sender<Vec<Found>>>, at: usize) -> Teller {
        Teller { sender, at }
    }

    /// The source was read.
    pub fn found(&self, groups: Vec<Group>) {
        self.set(Found { groups, is_known: true, failure: None });
    }

    /// It was read in part: of what is missing, `groups` have what was found before.
    pub fn found_in_part(&self, groups: Vec<Group>, why: String) {
        self.warn(&why);
        self.set(Found { groups, is_known: true, failure: Some(why) });
    }

    /// It could not be read; what was found before stays.
    pub fn failed(&self, why: String) {
        self.warn(&why);
        let before = self.sender.borrow().get(self.at).cloned().unwrap_or_default();
        self.set(Found { failure: Some(why), ..before });
    }

    /// Once for each reason, not for each look.
    fn warn(&self, why: &str) {
        let is_new = self.sender.borrow().get(self.at).is_none_or(|f| f.failure.as_deref() != Some(why));
        if is_new {
            tracing::warn!("addresses could not be looked up, the known ones are kept: {why}");
        }
    }

    fn set(&self, now: Found) {
        self.sender.send_if_modified(|all| match all.get_mut(self.at) {
            Some(before) if *before != now => {
                *before = now;
                true
            }
            _ => false,
        });
    }
}
