//! How fast each tenant may send: a bucket of samples that fills at its rate and is emptied by what is taken.

use std::collections::HashMap;
use std::sync::Arc;

use model::tenant::TenantId;
use model::tenant_limits::{Limit, TenantLimits};
use parking_lot::Mutex;

/// Why samples are not taken now, and in how many seconds there is room again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}: try again in {retry_after_s} s")]
pub struct TooFast {
    text: String,
    pub retry_after_s: u32,
}

/// The longest that a sender is told to wait: a limit may be raised meanwhile.
const LONGEST_WAIT_S: u32 = 60;

/// How many tenants' buckets there may be before those that are full again are thrown away.
const SWEEP_FROM: usize = 1024;

/// Buckets of all tenants that have a rate. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct RateLimiter(Arc<Mutex<HashMap<TenantId, Bucket>>>);

/// Samples that may come at once, and when that was true.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bucket {
    /// Below zero after a request that was larger than what was left.
    tokens: f64,
    at_ms: i64,
}

/// A tenant's rate as it is now.
#[derive(Clone, Copy)]
struct Rate {
    per_second: u64,
    burst: u64,
}

impl Rate {
    fn of(limits: &TenantLimits) -> Option<Rate> {
        let per_second = limits.bound(Limit::IngestionRate)?;
        Some(Rate { per_second, burst: limits.burst() })
    }
}

impl Bucket {
    fn full(rate: Rate, now_ms: i64) -> Bucket {
        Bucket { tokens: rate.burst as f64, at_ms: now_ms }
    }

    /// The bucket later. A clock that went back fills nothing.
    fn at(self, rate: Rate, now_ms: i64) -> Bucket {
        let passed_s = now_ms.saturating_sub(self.at_ms).max(0) as f64 / 1e3;
        let tokens = (self.tokens + passed_s * rate.per_second as f64).min(rate.burst as f64);
        Bucket { tokens, at_ms: now_ms }
    }

    fn is_full(self, rate: Rate) -> bool {
        self.tokens >= rate.burst as f64
    }
}

impl RateLimiter {
    /// Takes so many samples out of a tenant's bucket, if there is anything in it. A request is taken whole
    /// however large it is, and those after it wait for longer: none is refused for ever. With 0 it only
    /// asks, which is done before a body is read: what will not be taken should cost next to nothing.
    pub(crate) fn take(
        &self,
        tenant: &TenantId,
        limits: &TenantLimits,
        now_ms: i64,
        samples: u64,
    ) -> Result<(), TooFast> {
        let Some(rate) = Rate::of(limits) else { return Ok(()) };
        let mut buckets = self.0.lock();
        if buckets.len() >= SWEEP_FROM && !buckets.contains_key(tenant) {
            // With the rate of whoever asks, which is about everybody's.
            buckets.retain(|_, bucket| !bucket.at(rate, now_ms).is_full(rate));
        }
        let bucket = buckets.entry(tenant.clone()).or_insert_with(|| Bucket::full(rate, now_ms));
        *bucket = bucket.at(rate, now_ms);
        if bucket.tokens <= 0.0 {
            let wait_s = (1.0 - bucket.tokens) / rate.per_second as f64;
            let what = format!(
                "samples of tenant {tenant} come faster than {} in a second with a burst of {}",
                rate.per_second, rate.burst
            );
            return Err(TooFast {
                text: Limit::IngestionRate.refusal(what, rate.per_second),
                retry_after_s: (wait_s.ceil() as u32).clamp(1, LONGEST_WAIT_S),
            });
        }
        bucket.tokens -= samples as f64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(rate: u64, burst: u64) -> TenantLimits {
        let mut limits = TenantLimits::default();
        limits.set(Limit::IngestionRate, rate);
        limits.set(Limit::IngestionBurstSize, burst);
        limits
    }

    #[test]
    fn rate_is_kept_in_the_long_run_whatever_the_requests_are() {
        let (limiter, tenant, limits) = (RateLimiter::default(), TenantId::single(), limits(100, 200));
        let (mut taken, mut refused) = (0, 0);
        for now_ms in (0..100_000).step_by(10) {
            match limiter.take(&tenant, &limits, now_ms, 37) {
                Ok(()) => taken += 37,
                Err(_) => refused += 1,
            }
        }
        assert!((10_000..=10_000 + 200 + 37).contains(&taken), "{taken} of 10,000 and a burst");
        assert!(refused > 9_000);
    }

    #[test]
    fn rate_lets_a_request_through_that_is_larger_than_the_burst_and_waits_for_longer_then() {
        let (limiter, tenant, limits) = (RateLimiter::default(), TenantId::single(), limits(100, 200));
        limiter.take(&tenant, &limits, 0, 1_000).unwrap();
        let refused = limiter.take(&tenant, &limits, 0, 0).unwrap_err();
        assert_eq!(refused.retry_after_s, 9);
        assert!(refused.to_string().contains("(ingestion_rate)"), "{refused}");
        assert!(limiter.take(&tenant, &limits, 7_900, 0).is_err());
        assert!(limiter.take(&tenant, &limits, 8_010, 0).is_ok());
        // A clock that goes back neither fills the bucket nor empties it.
        assert!(limiter.take(&tenant, &limits, 0, 0).is_ok());
    }

    #[test]
    fn rate_of_one_tenant_is_nothing_to_another_and_none_is_none() {
        let limiter = RateLimiter::default();
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        limiter.take(&a, &limits(1, 1), 0, 10).unwrap();
        assert!(limiter.take(&a, &limits(1, 1), 0, 0).is_err());
        assert!(limiter.take(&b, &limits(1, 1), 0, 0).is_ok());
        assert!(limiter.take(&a, &TenantLimits::default(), 0, 0).is_ok());
    }

    #[test]
    fn rate_forgets_tenants_that_have_nothing_owing() {
        let limiter = RateLimiter::default();
        for n in 0..3 * SWEEP_FROM {
            let tenant = TenantId::new(&format!("t{n}")).unwrap();
            limiter.take(&tenant, &limits(1_000, 1_000), n as i64 * 10, 1).unwrap();
        }
        assert!(limiter.0.lock().len() <= SWEEP_FROM + 1);
    }
}
