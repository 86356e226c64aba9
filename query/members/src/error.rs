//! What may come back of a member instead of an answer.

use model::source::SourceError;

/// Why a member's answer cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AskError {
    /// What was asked for is in the bucket by now: this snapshot of the tenant's catalog has it.
    #[error("what it held is in the bucket, in snapshot {snapshot}")]
    Committed { snapshot: u64 },
    /// It did not answer, or broke off.
    #[error("{0}")]
    Away(String),
    /// It answered something else.
    #[error("its answer cannot be used: {0}")]
    Wrong(String),
    /// The query is over, or may not use so much.
    #[error(transparent)]
    Query(SourceError),
}

/// A member that did not answer as it should; what to do is said once for all.
#[derive(Debug, thiserror::Error)]
#[error(
    "{member} takes part and {why}. Without it the answer may lack samples {span}, which it has not flushed: ask again when it is there; `partial_response=true` answers without it; if it is gone for good, `hearth bucket forget` it"
)]
pub struct MemberFailed {
    pub member: String,
    pub why: String,
    /// Of which times samples may be missing, as the end of a sentence.
    pub span: String,
}

/// What an answer over a range (milliseconds, both ends included) may lack, as the end of a sentence.
pub fn span_text((first_ms, last_ms): (i64, i64)) -> String {
    // Beyond these years nobody means a time.
    let time =
        |ms| jiff::Timestamp::from_millisecond(ms).ok().filter(|t| (0..1 << 33).contains(&t.as_second()));
    match (time(first_ms), time(last_ms)) {
        (Some(first), Some(last)) => format!("of {first} to {last}"),
        (Some(first), None) => format!("of {first} and later"),
        (None, Some(last)) => format!("up to {last}"),
        (None, None) => "of all times".to_owned(),
    }
}

impl AskError {
    /// As a query sees it; `member` is who was asked, `span` of which times.
    pub fn of(self, member: &str, span: String) -> SourceError {
        match self {
            AskError::Query(e) => e,
            e => SourceError::storage(MemberFailed { member: member.to_owned(), why: e.sentence(), span }),
        }
    }

    /// What the member did, as the second half of a sentence.
    pub fn sentence(&self) -> String {
        match self {
            AskError::Committed { snapshot } => {
                format!("says that snapshot {snapshot} has all, which is not there")
            }
            AskError::Away(why) => format!("does not answer: {why}"),
            AskError::Wrong(why) => format!("gives an answer that cannot be used: {why}"),
            AskError::Query(e) => e.to_string(),
        }
    }
}
