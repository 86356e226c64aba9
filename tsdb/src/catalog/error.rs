//! What can go wrong with the catalog, whether anything was changed when it did, and whether it may pass by
//! itself.

use std::fmt::Display;
use std::sync::Arc;

use object_store::Error;

use crate::cause::{AttemptError, Cause, passes};

/// Why the catalog could not be read or changed.
#[derive(Debug, thiserror::Error, Clone)]
pub enum CatalogError {
    /// The store failed; whether a commit was made is unknown only if the text says so.
    #[error("{text}")]
    Store {
        text: String,
        #[source]
        cause: Option<Cause>,
    },
    /// A snapshot is not what was written.
    #[error("{object} is damaged: {what}")]
    Corrupt { object: String, what: String },
    /// The edit does not fit the state that others have made meanwhile. Nothing was changed.
    #[error("{0}")]
    Conflict(String),
    /// Another process commits under this one's name. Nothing was changed.
    #[error("{0}")]
    Fenced(String),
    /// The catalog may not hold more of what the edit adds. Nothing was changed.
    #[error("{0}")]
    Full(String),
}

impl CatalogError {
    /// The store failed with `cause` when it was to do `what`.
    pub fn store(what: impl Display, cause: impl std::error::Error + Send + Sync + 'static) -> CatalogError {
        CatalogError::because(format!("{what}: {cause}"), cause)
    }

    /// The store failed with `cause`, which `text` tells already.
    pub fn because(
        text: impl Into<String>,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> CatalogError {
        CatalogError::Store { text: text.into(), cause: Some(Arc::new(cause)) }
    }

    /// The store did something that it must not.
    pub fn unexpected(text: impl Into<String>) -> CatalogError {
        CatalogError::Store { text: text.into(), cause: None }
    }

    /// Whether it may pass by itself.
    pub fn passes(&self) -> bool {
        match self {
            CatalogError::Store { cause, .. } => cause.as_ref().is_none_or(|cause| passes(&**cause)),
            _ => false,
        }
    }
}

/// Why commits could not be arranged; the text says what to set.
pub type ArrangeError = AttemptError;

/// A store that could not be asked.
pub(super) fn unusable(e: Error) -> ArrangeError {
    AttemptError::because(format!("the object store cannot be used: {e}"), e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalog_error_passes_where_its_cause_does_and_leads_to_it() {
        let source = || -> Box<dyn std::error::Error + Send + Sync> { "503".into() };
        let away = CatalogError::store("cannot list a/b", Error::Generic { store: "S3", source: source() });
        assert_eq!(away.to_string(), "cannot list a/b: Generic S3 error: 503");
        assert!(away.passes());
        assert!(std::error::Error::source(&away).is_some_and(|cause| cause.to_string().contains("503")));
        let refused = Error::PermissionDenied { path: "a/b".to_string(), source: source() };
        assert!(!CatalogError::store("cannot list a/b", refused).passes());
        assert!(CatalogError::unexpected("lost 1000 races").passes());
        assert!(!CatalogError::Conflict("another block".to_string()).passes());
    }
}
