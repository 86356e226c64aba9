//! Which protocol a client speaks; a label of the metrics as well.

/// What a client speaks, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Remote write 1.0, `prometheus.WriteRequest`.
    V1,
    /// Remote write 2.0, `io.prometheus.write.v2.Request`.
    V2,
    /// None that is taken here.
    Unknown,
}

impl Protocol {
    /// As the `protocol` label of `hearth_ingest_requests_total` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::V1 => "remote_write_v1",
            Protocol::V2 => "remote_write_v2",
            Protocol::Unknown => "unknown",
        }
    }
}
