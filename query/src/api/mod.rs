//! The Prometheus HTTP API: parameters in, exact Prometheus JSON, status codes and error types out.

pub mod error;
pub mod form;
pub mod json;
pub mod metrics;
pub mod params;

pub use error::{ApiError, ErrorType};
pub use metrics::Metrics;
