//! What lies behind an error, kept below its sentence: whoever has to tell one failure from another looks
//! there and does not read text.

use std::error::Error;
use std::sync::Arc;

/// The cause of an error. Shared, because one failure is told to everybody who waited for the same thing.
pub type Cause = Arc<dyn Error + Send + Sync>;
