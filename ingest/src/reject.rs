//! What was not stored and why: counted by reason, the first few in words.

use std::collections::BTreeMap;
use std::fmt::Write;

use model::tenant_limits::Limit;

/// Why a series, a sample or a metric's metadata was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// A name or value that is not UTF-8.
    InvalidUtf8,
    EmptyLabelName,
    DuplicateLabelName,
    MissingMetricName,
    TooManyLabels,
    LabelTooLong,
    /// References into the symbol table that are odd in number or point outside it (2.0 only).
    BadReference,
    /// A series with neither samples nor histograms nor exemplars (2.0 only).
    EmptySeries,
    /// Too far in the future, before 1970, or older than the retention.
    OutOfBounds,
    /// A native histogram that contradicts itself.
    InvalidHistogram,
    /// An exemplar older than the newest of its series (2.0 only; 1.0 has no way to tell without losing the
    /// request).
    OutOfOrderExemplar,
    /// An exemplar for which there is no memory (2.0 only), because the object store takes less than comes.
    NoRoom,
    /// A new series of a tenant, or of one of its metrics, that has as many as it may.
    TooManySeries,
    /// Further behind the newest sample of its tenant than late ones may be.
    TooLate,
}

impl Reason {
    pub const ALL: [Reason; 14] = [
        Reason::InvalidUtf8,
        Reason::EmptyLabelName,
        Reason::DuplicateLabelName,
        Reason::MissingMetricName,
        Reason::TooManyLabels,
        Reason::LabelTooLong,
        Reason::BadReference,
        Reason::EmptySeries,
        Reason::OutOfBounds,
        Reason::InvalidHistogram,
        Reason::OutOfOrderExemplar,
        Reason::NoRoom,
        Reason::TooManySeries,
        Reason::TooLate,
    ];

    /// As the `reason` label of `hearth_ingest_rejected_total` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::InvalidUtf8 => "invalid_utf8",
            Reason::EmptyLabelName => "empty_label_name",
            Reason::DuplicateLabelName => "duplicate_label_name",
            Reason::MissingMetricName => "missing_metric_name",
            Reason::TooManyLabels => "too_many_labels",
            Reason::LabelTooLong => "label_too_long",
            Reason::BadReference => "bad_reference",
            Reason::EmptySeries => "empty_series",
            Reason::OutOfBounds => "out_of_bounds",
            Reason::InvalidHistogram => "invalid_histogram",
            Reason::OutOfOrderExemplar => "out_of_order_exemplar",
            Reason::NoRoom => "no_room",
            Reason::TooManySeries => "too_many_series",
            Reason::TooLate => "too_late",
        }
    }
}

/// How many items are told in words; the rest is only counted.
const TOLD: usize = 5;

/// The refusals of one request. Its size does not grow with the request.
#[derive(Clone, Debug, Default)]
pub struct Rejections {
    items: [u64; Reason::ALL.len()],
    samples: [u64; Reason::ALL.len()],
    told: Vec<String>,
    /// Of these, what a limit of the tenant refused: samples, or items where there were none.
    by_limit: BTreeMap<Limit, u64>,
}

impl Rejections {
    /// Counts samples (at least one) that a limit of the tenant refused; [`Rejections::add`] has told of
    /// them.
    pub(crate) fn note_limit(&mut self, limit: Limit, samples: u64) {
        *self.by_limit.entry(limit).or_default() += samples.max(1);
    }

    /// What limits of the tenant refused.
    pub fn by_limit(&self) -> impl Iterator<Item = (Limit, u64)> + '_ {
        self.by_limit.iter().map(|(limit, n)| (*limit, *n))
    }

    /// Counts one refused item (a series, a sample, a metadata entry) that held `samples` samples; `tell` is
    /// only called for the first few.
    #[cold]
    pub(crate) fn add(&mut self, reason: Reason, samples: u64, tell: impl FnOnce() -> String) {
        self.items[reason as usize] += 1;
        self.samples[reason as usize] += samples;
        if self.told.len() < TOLD {
            self.told.push(tell());
        }
    }

    pub fn is_empty(&self) -> bool {
        self.items.iter().all(|n| *n == 0)
    }

    /// Refused items: whole series, single samples, metadata entries.
    pub fn items(&self, reason: Reason) -> u64 {
        self.items[reason as usize]
    }

    /// Samples that these items held.
    pub fn samples(&self, reason: Reason) -> u64 {
        self.samples[reason as usize]
    }

    pub fn all_samples(&self) -> u64 {
        self.samples.iter().sum()
    }

    /// The first few in words.
    pub fn told(&self) -> &[String] {
        &self.told
    }

    /// What the client reads: how much, why, and the first few by name. `stored` is how many samples were not
    /// refused.
    pub fn report(&self, stored: u64) -> String {
        let refused = self.all_samples();
        let mut out = format!("{refused} of {} samples not stored: ", refused + stored);
        let mut reasons: Vec<_> = Reason::ALL.into_iter().filter(|r| self.items(*r) > 0).collect();
        reasons.sort_by_key(|r| std::cmp::Reverse(self.items(*r)));
        for (i, r) in reasons.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            let _ = write!(out, "{comma}{} × {}", self.items(*r), r.as_str());
        }
        for (i, told) in self.told.iter().enumerate() {
            let _ = write!(out, "{}{told}", if i == 0 { "; the first: " } else { "; " });
        }
        out
    }
}

/// A label set as a client may recognise it, cut to a length that is fit for an error.
pub(crate) fn show(labels: &[(&str, &str)]) -> String {
    let mut out = String::from("{");
    for (i, (n, v)) in labels.iter().enumerate() {
        if out.len() > 200 {
            out.push_str(", …");
            break;
        }
        let comma = if i > 0 { ", " } else { "" };
        let _ = write!(out, "{comma}{}={:?}", cut(n, 80), cut(v, 80));
    }
    out.push('}');
    out
}

/// At most `max` bytes of a text, whole characters.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}
