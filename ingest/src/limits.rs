//! What one request and one series may cost, with the defaults and the reason for each.

use std::time::Duration;

use model::tenant_limits::{Limit, TenantLimits};
use tsdb::head::SeriesLimits;

/// The limits of the write path. Every one of them answers a client with the number it ran into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Body as it arrives, compressed. 32 MiB, upstream's own bound; more is a 413.
    pub max_body_bytes: usize,
    /// Body after snappy, checked against the length it declares before anything is allocated. 32 MiB,
    /// upstream's own bound; more is a 400.
    pub max_decoded_bytes: usize,
    /// Memory that all requests being read, decoded and committed may hold together, 512 MiB. A request
    /// counts as its compressed bytes plus three times its decoded ones (the message itself and what is
    /// usually made of it), and as more where it unfolds to more: a few bytes of 2.0 can refer to long labels
    /// and texts. Over it, a 503 with `Retry-After`; a request that would not fit alone is a 413.
    pub max_in_flight_bytes: usize,
    /// How long a request waits for its share of that memory before the 503: half a second, so that a burst
    /// passes unnoticed.
    pub max_wait: Duration,
    /// How long a client may take to send its body: 60 s. A slower one gets a 503 and gives its memory back.
    pub max_body_time: Duration,
    /// Labels on one series, the metric name included. 64: well above what service discovery and Kubernetes
    /// attach, well below abuse.
    pub max_labels: usize,
    /// Bytes of one label's name, 1,024.
    pub max_label_name_bytes: usize,
    /// Bytes of one label's value, 8,192.
    pub max_label_value_bytes: usize,
    /// Bytes of all names and values of one series, 32 KiB.
    pub max_series_bytes: usize,
    /// Buckets and spans of one side of a native histogram, 16,384 (schema 8 needs 256 for each doubling).
    pub max_histogram_buckets: usize,
    /// Bytes of one metric's help or unit, 4,096; what is longer is cut, not refused: it is only ever read by
    /// people.
    pub max_metadata_bytes: usize,
    /// How far ahead of the clock a sample may be, 10 minutes, upstream's own bound.
    pub max_ahead_ms: i64,
    /// How old a sample may be; `None` for as old as 1970.
    pub retention_ms: Option<i64>,
    /// How old a sample may be when it comes, whatever the retention; `None` for no such limit.
    pub past_grace_ms: Option<i64>,
    /// How far behind the newest sample of the tenant late ones may be; `None` for no such limit.
    pub out_of_order_ms: Option<i64>,
    /// How many series a tenant may have in the head.
    pub series: SeriesLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_body_bytes: 32 << 20,
            max_decoded_bytes: 32 << 20,
            max_in_flight_bytes: 512 << 20,
            max_wait: Duration::from_millis(500),
            max_body_time: Duration::from_secs(60),
            max_labels: 64,
            max_label_name_bytes: 1024,
            max_label_value_bytes: 8192,
            max_series_bytes: 32 << 10,
            max_histogram_buckets: 16_384,
            max_metadata_bytes: 4096,
            max_ahead_ms: 10 * 60 * 1000,
            retention_ms: None,
            past_grace_ms: None,
            out_of_order_ms: None,
            series: SeriesLimits::default(),
        }
    }
}

impl Limits {
    /// With what a tenant may instead: where it has a limit, that holds, be it higher or lower.
    pub(crate) fn of_tenant(&self, tenant: &TenantLimits) -> Limits {
        let size = |limit, otherwise: usize| match tenant.bound(limit) {
            Some(n) => usize::try_from(n).unwrap_or(usize::MAX),
            None => otherwise,
        };
        let ms = |limit| tenant.bound(limit).map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        Limits {
            // Never more than what memory was set aside for.
            max_decoded_bytes: size(Limit::MaxRequestSize, self.max_decoded_bytes)
                .min(self.max_decoded_bytes),
            max_labels: size(Limit::MaxLabelNames, self.max_labels),
            max_label_name_bytes: size(Limit::MaxLabelNameLength, self.max_label_name_bytes),
            max_label_value_bytes: size(Limit::MaxLabelValueLength, self.max_label_value_bytes),
            max_ahead_ms: ms(Limit::CreationGracePeriod).unwrap_or(self.max_ahead_ms),
            past_grace_ms: ms(Limit::PastGracePeriod).or(self.past_grace_ms),
            out_of_order_ms: ms(Limit::OutOfOrderWindow).or(self.out_of_order_ms),
            series: SeriesLimits::of(tenant),
            ..self.clone()
        }
    }

    /// First and last timestamp that is taken at this moment, both included.
    pub(crate) fn accepted_ms(&self, now_ms: i64) -> std::ops::RangeInclusive<i64> {
        let back = [self.retention_ms, self.past_grace_ms].into_iter().flatten().min();
        let oldest = back.map_or(0, |r| now_ms.saturating_sub(r).max(0));
        oldest..=now_ms.saturating_add(self.max_ahead_ms)
    }
}
