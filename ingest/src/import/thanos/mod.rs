//! What only blocks of Thanos have: chunks of downsampled aggregates.

pub(super) mod aggregates;
