//! Why a rule gave nothing, or why what it gave was not written.

use std::error::Error;
use std::sync::Arc;

use query::value::QueryError;

use crate::alert::AlertError;

/// Why an evaluation failed. The texts of what upstream knows too are upstream's: the API shows them.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The expression could not be carried out.
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("rule result is not a vector or scalar")]
    NotAVector,
    /// The rule's labels make one series of several.
    #[error("vector contains metrics with the same labelset after applying rule labels")]
    SameLabels,
    #[error("exceeded limit of {limit} with {series} series")]
    Limit { limit: i64, series: usize },
    /// What an alerting rule gave cannot be alerts.
    #[error(transparent)]
    Alerts(#[from] AlertError),
    #[error("another process may evaluate the group by now, so nothing was written")]
    NotOurs,
    /// Some samples were refused, the others are stored.
    #[error("{count} of its samples were not taken: {first}")]
    Refused { count: usize, first: String },
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl EvaluationError {
    /// For a rule some of whose samples were refused, each with its reason.
    pub(super) fn of_refused(refused: Vec<String>) -> Option<EvaluationError> {
        let count = refused.len();
        refused.into_iter().next().map(|first| EvaluationError::Refused { count, first })
    }
}

/// The store did not take what was to be written; nothing was. It is what the store says, whatever it is.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct WriteError(Arc<dyn Error + Send + Sync>);

impl WriteError {
    pub fn new(cause: impl Error + Send + Sync + 'static) -> WriteError {
        WriteError(Arc::new(cause))
    }
}
