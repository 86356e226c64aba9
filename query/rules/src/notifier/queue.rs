//! Alerts that wait for one Alertmanager: the newest of each, the oldest first, never more than fit.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use model::labels::Labels;

use super::message::Message;

/// Bounds of the notifier.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Alerts that wait for one Alertmanager.
    pub queue_capacity: usize,
    /// Alerts in one request.
    pub batch: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { queue_capacity: 10_000, batch: 256 }
    }
}

/// Alerts that wait for one Alertmanager.
#[derive(Debug)]
pub struct Queue {
    waiting: VecDeque<Arc<Message>>,
    capacity: usize,
}

impl Queue {
    pub fn new(capacity: usize) -> Queue {
        Queue { waiting: VecDeque::new(), capacity: capacity.max(1) }
    }

    /// Adds alerts at the end; how many of the oldest had to go for them.
    pub fn push(&mut self, messages: impl IntoIterator<Item = Arc<Message>>) -> u64 {
        self.waiting.extend(messages);
        let over = self.waiting.len().saturating_sub(self.capacity);
        self.waiting.drain(..over);
        over as u64
    }

    /// The next `most`.
    pub fn take(&mut self, most: usize) -> Vec<Arc<Message>> {
        let count = most.min(self.waiting.len());
        self.waiting.drain(..count).collect()
    }

    /// Gives back what was not delivered, in front. Lets go of what nobody needs any more: what is over,
    /// and what a newer message about the same alert has replaced. How many those are which the
    /// Alertmanager then never gets.
    pub fn give_back(&mut self, batch: Vec<Arc<Message>>, now_ms: i64) -> u64 {
        let mut lost = 0;
        let newer: HashSet<&Labels> = self.waiting.iter().map(|m| &m.labels).collect();
        let mut kept = Vec::with_capacity(batch.len());
        for message in batch {
            if newer.contains(&message.labels) {
                continue;
            }
            match message.valid_until_ms > now_ms {
                true => kept.push(message),
                false => lost += 1,
            }
        }
        for message in kept.into_iter().rev() {
            match self.waiting.len() < self.capacity {
                true => self.waiting.push_front(message),
                false => lost += 1,
            }
        }
        lost
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str, valid_until_ms: i64) -> Arc<Message> {
        Arc::new(Message { labels: Labels::from_pairs([("a", name)]), json: String::new(), valid_until_ms })
    }

    fn names(messages: &[Arc<Message>]) -> Vec<&str> {
        messages.iter().map(|m| m.labels.value("a")).collect()
    }

    #[test]
    fn queue_that_is_full_drops_the_oldest() {
        let mut queue = Queue::new(3);
        assert_eq!(queue.push(["1", "2", "3", "4"].map(|n| message(n, 10))), 1);
        assert_eq!(names(&queue.take(2)), ["2", "3"]);
        assert_eq!(names(&queue.take(9)), ["4"]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn queue_gives_again_what_was_not_delivered_unless_it_is_over_or_replaced() {
        let mut queue = Queue::new(3);
        queue.push([message("a", 10), message("b", 10), message("c", 99)]);
        let batch = queue.take(3);
        queue.push([message("a", 50), message("d", 50)]);
        // b is over; a's newer message says all there is to say.
        assert_eq!(queue.give_back(batch, 10), 1);
        assert_eq!(names(&queue.take(9)), ["c", "a", "d"]);
        let mut full = Queue::new(1);
        full.push([message("x", 50)]);
        assert_eq!(full.give_back(vec![message("y", 50)], 0), 1);
    }
}
