//! Settings of the engine that hold for every query.

use std::time::Duration;

use crate::parse::ParseOptions;
use crate::plan::resolution::MaxResolution;

/// Settings that hold for every query; a query may narrow some of them by
/// [`QueryOptions`](crate::engine::QueryOptions).
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How far back an instant selector looks for a sample, left-open.
    pub lookback_ms: i64,
    /// Step of `[5m:]`.
    pub default_subquery_step_ms: i64,
    /// Most samples and points one query may hold at once, as upstream's `query.max-samples` counts; how many
    /// it reads one after the other is bounded by its time.
    pub max_samples: u64,
    /// Most memory that one query's samples and results may hold at once.
    pub max_memory_bytes: u64,
    /// Most memory that all queries of an engine may hold together.
    pub max_total_memory_bytes: u64,
    /// Longest evaluation.
    pub timeout: Duration,
    /// Drop metric names at the very end (upstream `promql-delayed-name-removal`).
    pub delayed_name_removal: bool,
    /// `rate` and its kin read start timestamps (upstream `use-start-timestamps`).
    pub use_start_timestamps: bool,
    /// Metadata labels `__type__` and `__unit__` are in use (upstream `type-and-unit-labels`).
    pub type_and_unit_labels: bool,
    pub parse: ParseOptions,
    /// The coarsest resolution to answer from, where a query does not say.
    pub max_resolution: MaxResolution,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            lookback_ms: 5 * 60_000,
            default_subquery_step_ms: 60_000,
            max_samples: 50_000_000,
            max_memory_bytes: 1 << 30,
            max_total_memory_bytes: 4 << 30,
            timeout: Duration::from_secs(120),
            delayed_name_removal: false,
            use_start_timestamps: false,
            type_and_unit_labels: false,
            parse: ParseOptions::default(),
            max_resolution: MaxResolution::Auto,
        }
    }
}
