//! Questions to a member, as JSON.

use model::matcher::{MatchOp, Matcher};
use model::tenant::TenantId;
use serde::{Deserialize, Serialize};

use crate::PROTOCOL;

/// Longest question that is read, in bytes.
pub const MAX_BYTES: usize = 8 << 20;

/// Most selectors in one question, and matchers in each.
const MAX_SELECTORS: usize = 10_000;
const MAX_MATCHERS: usize = 10_000;

/// A question; which kind is said by `what`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    pub version: u32,
    /// Who is meant: another that has its address now refuses.
    pub writer: String,
    pub tenant: String,
    /// What is at or below this segment of the writer's log is not wanted.
    pub floor: u64,
    /// Any may match; none: every series. Of samples there is one.
    pub selectors: Vec<Vec<Label>>,
    /// First and last timestamp wanted, both included, in milliseconds.
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    /// How long the asker waits for the end of the answer, in milliseconds; `None`: as long as it takes.
    pub timeout_ms: Option<u64>,
    pub what: What,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Samples {
        /// Where the asker has downsampled blocks: it has to know what lies there. Both ends included.
        unsettled_in_ms: Option<(i64, i64)>,
    },
    Series,
    LabelNames,
    LabelValues(String),
    Exemplars,
    /// Of one metric, or of all.
    Metadata(Option<String>),
}

/// A matcher on a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    name: String,
    /// `=`, `!=`, `=~` or `!~`.
    op: String,
    value: String,
}

impl From<&Matcher> for Label {
    fn from(m: &Matcher) -> Label {
        Label { name: m.name.to_string(), op: m.op.as_str().to_owned(), value: m.value.to_string() }
    }
}

impl Label {
    fn matcher(&self) -> Result<Matcher, String> {
        let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
        let op = ops.into_iter().find(|op| op.as_str() == self.op);
        let op = op.ok_or_else(|| format!("{:?} is no way to match", self.op))?;
        Matcher::new(op, &self.name, &self.value).map_err(|e| e.to_string())
    }
}

/// Matchers as they are sent.
pub fn labels(matchers: &[Matcher]) -> Vec<Label> {
    matchers.iter().map(Label::from).collect()
}

impl Question {
    /// Reads a question; the text says what is wrong with it.
    pub fn read(text: &[u8]) -> Result<Question, String> {
        let question: Question =
            serde_json::from_slice(text).map_err(|e| format!("the question cannot be read: {e}"))?;
        if question.version != PROTOCOL {
            return Err(format!(
                "the question is of version {}, this Hearth answers version {PROTOCOL}: run the same version everywhere",
                question.version
            ));
        }
        if question.selectors.len() > MAX_SELECTORS
            || question.selectors.iter().any(|s| s.len() > MAX_MATCHERS)
        {
            return Err(format!(
                "more than {MAX_SELECTORS} selectors, or {MAX_MATCHERS} matchers in one of them"
            ));
        }
        Ok(question)
    }

    pub fn tenant(&self) -> Result<TenantId, String> {
        TenantId::new(&self.tenant).map_err(|e| e.to_string())
    }

    /// Its selectors, compiled: that may take a while.
    pub fn matchers(&self) -> Result<Vec<Vec<Matcher>>, String> {
        self.selectors.iter().map(|s| s.iter().map(Label::matcher).collect()).collect()
    }

    pub fn to_text(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and texts always serialize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        let matchers =
            [Matcher::equal("job", "a\"b"), Matcher::new(MatchOp::NotRegex, "env", "dev|test.*").unwrap()];
        Question {
            version: PROTOCOL,
            writer: "w".into(),
            tenant: "default".into(),
            floor: u64::MAX,
            selectors: vec![labels(&matchers)],
            min_t_ms: i64::MIN,
            max_t_ms: i64::MAX,
            timeout_ms: Some(5),
            what: What::Samples { unsettled_in_ms: Some((-1, 1)) },
        }
    }

    #[test]
    fn question_comes_back_as_it_was_asked() {
        let asked = question();
        let read = Question::read(&asked.to_text()).unwrap();
        assert_eq!(read, asked);
        assert_eq!(read.matchers().unwrap()[0][1].to_string(), "env!~\"dev|test.*\"");
    }

    #[test]
    fn question_of_another_version_or_without_sense_is_refused() {
        let newer = Question { version: PROTOCOL + 1, ..question() };
        assert!(Question::read(&newer.to_text()).unwrap_err().contains("same version everywhere"));
        assert!(Question::read(b"{}").unwrap_err().contains("cannot be read"));
        let mut odd = question();
        odd.selectors[0][0].op = "~".into();
        assert!(odd.matchers().unwrap_err().contains("no way to match"));
        assert!(Question { tenant: "../etc".into(), ..question() }.tenant().is_err());
    }
}
