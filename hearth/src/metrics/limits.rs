//! What tenants may, whom limits refused, and whether their file can be read.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use model::tenant_limits::{Limit, LimitUnit, LimitsByTenant};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// How the last reading of the file went.
#[derive(Debug, Default)]
pub struct FileStatus {
    failed: AtomicBool,
    read_ms: AtomicI64,
}

impl FileStatus {
    pub fn read(&self, now_ms: i64) {
        self.failed.store(false, Ordering::Relaxed);
        self.read_ms.store(now_ms, Ordering::Relaxed);
    }

    pub fn failed(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }
}

/// Reads the counts at each scrape.
pub struct LimitMetrics {
    pub limits: LimitsByTenant,
    pub file: Arc<FileStatus>,
}

/// Tenants whose own limits are shown; names of further ones would make more series than they are worth.
const SHOWN_TENANTS: usize = 200;

/// A limit in the unit that metrics have: seconds where it is a time.
fn in_base_unit(limit: Limit, value: u64) -> f64 {
    match limit.unit() {
        LimitUnit::Milliseconds => value as f64 / 1e3,
        LimitUnit::Count | LimitUnit::PerSecond | LimitUnit::Bytes => value as f64,
    }
}

impl LimitMetrics {
    fn encode_limits(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let limits = self.limits.in_force();
        let help =
            "What a tenant may that has no limit of its own, in seconds where it is a time; 0: no limit";
        let mut family = encoder.encode_descriptor("hearth_limit_default", help, None, MetricType::Gauge)?;
        for limit in Limit::ALL {
            let value = in_base_unit(*limit, limits.defaults.get(*limit));
            ConstGauge::new(value).encode(family.encode_family(&[("limit", limit.name())])?)?;
        }
        let help =
            "What a tenant may that has a limit of its own, in seconds where it is a time; 0: no limit";
        let mut family = encoder.encode_descriptor("hearth_limit_override", help, None, MetricType::Gauge)?;
        for (tenant, own) in limits.overrides.iter().take(SHOWN_TENANTS) {
            for limit in Limit::ALL.iter().filter(|l| own.get(**l) != limits.defaults.get(**l)) {
                let labels = [("tenant", tenant.as_str()), ("limit", limit.name())];
                let value = in_base_unit(*limit, own.get(*limit));
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Debug for LimitMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LimitMetrics")
    }
}

impl Collector for LimitMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let help = "Samples, series and queries that a limit of their tenant refused, by tenant and limit";
        let mut family =
            encoder.encode_descriptor("hearth_limit_refusals", help, None, MetricType::Counter)?;
        for (tenant, limit, n) in self.limits.refusals() {
            let labels = [("tenant", tenant.as_ref()), ("limit", limit)];
            ConstCounter::new(n).encode(family.encode_family(&labels)?)?;
        }
        self.encode_limits(&mut encoder)?;
        let help =
            "Whether the file of limits could be read the last time (1), or the former limits hold (0)";
        let fine = ConstGauge::new(i64::from(!self.file.failed.load(Ordering::Relaxed)));
        fine.encode(encoder.encode_descriptor(
            "hearth_limits_file_last_reload_successful",
            help,
            None,
            MetricType::Gauge,
        )?)?;
        let help = "Time at which the file of limits was last read without a fault";
        let read_s = ConstGauge::new(self.file.read_ms.load(Ordering::Relaxed) as f64 / 1e3);
        read_s.encode(encoder.encode_descriptor(
            "hearth_limits_file_last_reload_success_timestamp_seconds",
            help,
            None,
            MetricType::Gauge,
        )?)
    }
}
