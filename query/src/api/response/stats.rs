//! The `stats` object of an answer, as upstream lays it out.

use crate::api::response::resolution;
use crate::results_cache::CacheUse;
use crate::value::{QueryStats, SamplesPerStep};
use model::source::Fetched;

/// Upstream's `stats` object (`util/stats.BuiltinStats`).
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    timings: Timings,
    samples: Samples,
    /// Hearth's own: which resolution answered which part of time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resolutions: Vec<resolution::Part>,
    /// Hearth's own: how much of a range query's result was kept from before.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<Cache>,
    /// Hearth's own: what was fetched from the object store.
    #[serde(skip_serializing_if = "Option::is_none")]
    object_store: Option<ObjectStore>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectStore {
    requests: u64,
    rounds: u64,
    bytes: u64,
    bytes_needed: u64,
    disk_bytes: u64,
}

impl ObjectStore {
    /// `None` where all was in memory.
    fn of(fetched: &Fetched) -> Option<ObjectStore> {
        let Fetched { requests, bytes, bytes_needed, rounds, disk_bytes } = *fetched;
        let some = requests > 0 || disk_bytes > 0;
        some.then_some(ObjectStore { requests, rounds, bytes, bytes_needed, disk_bytes })
    }
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Cache {
    cached_steps: u64,
    computed_steps: u64,
    shared: bool,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Timings {
    eval_total_time: f64,
    result_sort_time: f64,
    query_preparation_time: f64,
    inner_eval_time: f64,
    exec_queue_time: f64,
    exec_total_time: f64,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Samples {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    total_queryable_samples_per_step: Vec<(Seconds, u64)>,
    total_queryable_samples: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples_read_per_step: Vec<(Seconds, u64)>,
    samples_read: u64,
    peak_samples: u64,
}

/// Milliseconds, written as seconds as Go writes them: without decimals where there are none.
struct Seconds(i64);

impl serde::Serialize for Seconds {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0 % 1000 == 0 {
            to.serialize_i64(self.0 / 1000)
        } else {
            to.serialize_f64(self.0 as f64 / 1000.0)
        }
    }
}

impl Stats {
    pub fn new(stats: &QueryStats, queued: std::time::Duration, cache: Option<CacheUse>) -> Stats {
        let per_step = |of: fn(&SamplesPerStep) -> &Vec<u64>| match &stats.samples_per_step {
            None => Vec::new(),
            Some(all) => {
                let at =
                    |i: usize| Seconds(all.start_ms.saturating_add(all.step_ms.saturating_mul(i as i64)));
                of(all).iter().enumerate().map(|(i, n)| (at(i), *n)).collect()
            }
        };
        Stats {
            timings: Timings {
                eval_total_time: (stats.prepare + stats.eval + stats.sort).as_secs_f64(),
                result_sort_time: stats.sort.as_secs_f64(),
                query_preparation_time: stats.prepare.as_secs_f64(),
                inner_eval_time: stats.eval.as_secs_f64(),
                exec_queue_time: queued.as_secs_f64(),
                exec_total_time: (stats.total + queued).as_secs_f64(),
            },
            samples: Samples {
                total_queryable_samples_per_step: per_step(|s| &s.total),
                total_queryable_samples: stats.samples_total,
                samples_read_per_step: per_step(|s| &s.read),
                samples_read: stats.samples_new,
                peak_samples: stats.samples_peak,
            },
            resolutions: resolution::parts(&stats.resolutions),
            cache: cache.map(|CacheUse { cached_steps, computed_steps, shared }| Cache {
                cached_steps,
                computed_steps,
                shared,
            }),
            object_store: ObjectStore::of(&stats.fetched),
        }
    }
}
