//! What is counted of identities.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Counters.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    denied: Family<ReasonLabels, Counter>,
    key_failures: Counter,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics::default();
        let r = registry.sub_registry_with_prefix("hearth_auth");
        r.register(
            "refused",
            "Requests refused for who asked: no credential (missing), one that cannot be read (malformed), \
             a wrong password, token or jwt, nobody's (unknown), no right, another's tenant, or because it \
             could not be decided (unavailable)",
            metrics.denied.clone(),
        );
        r.register(
            "issuer_key_failures",
            "Times that the keys of an issuer of tokens could not be read",
            metrics.key_failures.clone(),
        );
        metrics
    }

    pub fn denied(&self, reason: &'static str) {
        self.denied.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub fn keys_failed(&self) {
        self.key_failures.inc();
    }
}
