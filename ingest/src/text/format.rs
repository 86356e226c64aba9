//! Which dialect a text is in.

/// The dialects. They differ in the unit of timestamps (milliseconds and seconds), in `# UNIT`, exemplars and
/// `# EOF`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`.
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`: ends with `# EOF`, or is refused as cut short.
    OpenMetrics,
}
