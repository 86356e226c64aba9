//! What is still to come of a selector, for whoever streams its rows.

use model::labels::Labels;
use parking_lot::Mutex;

use crate::plan::NodeId;

/// The label sets that a selector will still give: asked for by whoever streams its rows, answered by the
/// selection between two batches, when its cursor is free to be asked.
pub(crate) struct SeriesToCome {
    pub selector: NodeId,
    question: Mutex<Question>,
}

enum Question {
    NotAsked,
    Asked,
    /// `None`: the source does not know before it has read them.
    Answered(Option<Vec<Labels>>),
}

impl SeriesToCome {
    /// Those of a selector, not asked for yet.
    pub fn of(selector: NodeId) -> SeriesToCome {
        SeriesToCome { selector, question: Mutex::new(Question::NotAsked) }
    }

    /// Asks, unless an answer is on its way.
    pub fn ask(&self) {
        let mut question = self.question.lock();
        if matches!(*question, Question::NotAsked) {
            *question = Question::Asked;
        }
    }

    /// The answer, once.
    pub fn take(&self) -> Option<Option<Vec<Labels>>> {
        let mut question = self.question.lock();
        if !matches!(*question, Question::Answered(_)) {
            return None;
        }
        match std::mem::replace(&mut *question, Question::NotAsked) {
            Question::Answered(labels) => Some(labels),
            Question::NotAsked | Question::Asked => None,
        }
    }

    /// Answers, if somebody asked.
    pub fn answer(&self, labels: impl FnOnce() -> Option<Vec<Labels>>) {
        let mut question = self.question.lock();
        // An answer that was not yet taken would be of an earlier place.
        if !matches!(*question, Question::NotAsked) {
            *question = Question::Answered(labels());
        }
    }
}
