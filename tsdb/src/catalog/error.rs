//! What can go wrong with the catalog, and whether anything was changed when it did.

/// Why the catalog could not be read or changed.
#[derive(Debug, thiserror::Error, Clone)]
pub enum CatalogError {
    /// The store failed; whether a commit was made is unknown only if the text says so.
    #[error("{0}")]
    Store(String),
    /// A snapshot is not what was written.
    #[error("{object} is damaged: {what}")]
    Corrupt { object: String, what: String },
    /// The edit does not fit the state that others have made meanwhile. Nothing was changed.
    #[error("{0}")]
    Conflict(String),
    /// The catalog may not hold more of what the edit adds. Nothing was changed.
    #[error("{0}")]
    Full(String),
}

/// Why commits could not be arranged; the text says what to set.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("{0}")]
pub struct ArrangeError(pub String);
