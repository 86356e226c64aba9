//! The fleet: targets that are scraped, restarted, replaced and sometimes late, all from one seed.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use crate::rng::Rng;
use crate::target::{Exposed, Value, application, exposed, on_dashboards};

/// What is scraped on each machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// A node exporter, 502 series.
    Node,
    /// Ten series of it, those that [`crate::queries::dashboards`] asks for.
    Dashboards,
    /// A node exporter and an application, 636 series, asked by [`crate::classes::classes`].
    NodeAndApplication,
}

/// What kind of fleet; the same options give the same bytes on every machine.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    pub seed: u64,
    pub targets: u32,
    /// Two Prometheus servers scrape every target, told apart by the label `replica`.
    pub ha: bool,
    pub begin_ms: i64,
    pub duration_ms: i64,
    pub interval_ms: i64,
    /// Share of the targets that is replaced by new ones within an hour, 0 to 1.
    pub churn_per_hour: f64,
    /// Restarts of a target within an hour: its counters begin at zero again.
    pub restarts_per_hour: f64,
    /// Share of the scrapes that come late, by up to `late_by_ms`.
    pub late: f64,
    pub late_by_ms: i64,
    pub exposition: Exposition,
}

impl FleetOptions {
    pub fn steps(&self) -> i64 {
        self.duration_ms / self.interval_ms
    }

    fn exposed(&self) -> Vec<Exposed> {
        let mut all = exposed();
        match self.exposition {
            Exposition::Node => {}
            Exposition::Dashboards => all.retain(on_dashboards),
            Exposition::NodeAndApplication => all.extend(application()),
        }
        all
    }

    /// Series that are alive at any moment.
    pub fn active_series(&self) -> u64 {
        u64::from(self.targets) * self.exposed().len() as u64 * if self.ha { 2 } else { 1 }
    }
}

/// Strings by number: a label is held once however many series carry it.
#[derive(Default)]
pub struct Names {
    texts: Vec<Rc<str>>,
    by_text: HashMap<Rc<str>, u32>,
}

impl Names {
    pub fn number(&mut self, text: &str) -> u32 {
        if let Some(&n) = self.by_text.get(text) {
            return n;
        }
        let text: Rc<str> = text.into();
        self.texts.push(text.clone());
        self.by_text.insert(text, self.texts.len() as u32 - 1);
        self.texts.len() as u32 - 1
    }

    pub fn text(&self, number: u32) -> &str {
        &self.texts[number as usize]
    }

    pub fn len(&self) -> usize {
        self.texts.len()
    }
}

/// One scrape of one target as one Prometheus sends it: all series at the same timestamp.
pub struct Scrape<'a> {
    pub ts_ms: i64,
    /// Labels of each series as numbers of name and value in turn, ascending by name.
    pub labels: &'a [Box<[u32]>],
    pub values: &'a [f64],
}

struct Target {
    number: u32,
    /// How often it was replaced: part of its name.
    life: u32,
    rng: Rng,
    /// Milliseconds into the interval at which each replica scrapes it.
    offset_ms: [i64; 2],
    values: Vec<Value>,
    labels: [Vec<Box<[u32]>>; 2],
}

/// The targets that one connection sends, in order of time.
pub struct Fleet {
    options: FleetOptions,
    exposed: Vec<Exposed>,
    /// The part of `exposed` that each job of a machine exposes, scraped one by one.
    jobs: Vec<Range<usize>>,
    pub names: Names,
    targets: Vec<Target>,
    row: Vec<f64>,
    /// Series seen so far, those that are gone included.
    pub series: u64,
    pub samples: u64,
}

/// Bit pattern of Prometheus' staleness marker.
const STALE: u64 = 0x7ff0_0000_0000_0002;

impl Fleet {
    /// The part of the fleet whose numbers leave `part` when divided by `parts`.
    pub fn part(options: &FleetOptions, part: u32, parts: u32) -> Fleet {
        let exposed = options.exposed();
        let mut jobs: Vec<Range<usize>> = Vec::new();
        for of_job in exposed.chunk_by(|a, b| a.job == b.job) {
            let from = jobs.last().map_or(0, |before| before.end);
            jobs.push(from..from + of_job.len());
        }
        let mut fleet = Fleet {
            options: options.clone(),
            exposed,
            jobs,
            names: Names::default(),
            targets: Vec::new(),
            row: Vec::new(),
            series: 0,
            samples: 0,
        };
        for number in (part..options.targets).step_by(parts as usize) {
            let target = fleet.begin(number, 0);
            fleet.targets.push(target);
        }
        fleet
    }

    fn begin(&mut self, number: u32, life: u32) -> Target {
        let mut rng = Rng::of(self.options.seed, u64::from(number) << 20 | u64::from(life));
        let interval = self.options.interval_ms as u64;
        let offset_ms = [rng.below(interval) as i64, rng.below(interval) as i64];
        let values = self.exposed.iter().map(|e| Value::begin(e.class, &mut rng, life > 0)).collect();
        let labels = [0, 1].map(|replica| self.labels(number, life, replica));
        self.series += (self.exposed.len() * if self.options.ha { 2 } else { 1 }) as u64;
        Target { number, life, rng, offset_ms, values, labels }
    }

    fn labels(&mut self, number: u32, life: u32, replica: usize) -> Vec<Box<[u32]>> {
        if replica > 0 && !self.options.ha {
            return Vec::new();
        }
        let host = format!("node-{number:05}-{life}.eu-central-1.compute.internal");
        let rack = format!("rack-{:03}", number / 40);
        let mut all = Vec::with_capacity(self.exposed.len());
        for e in &self.exposed {
            let instance = format!("{host}:{}", e.job.port());
            let mut pairs: Vec<(&str, &str)> = vec![
                ("__name__", &e.name),
                ("cluster", "eu-central-1-production"),
                ("instance", &instance),
                ("job", e.job.name()),
                ("rack", &rack),
            ];
            pairs.extend(e.labels.iter().map(|(n, v)| (*n, v.as_str())));
            if self.options.ha {
                pairs.push(("replica", ["prometheus-0", "prometheus-1"][replica]));
            }
            pairs.sort_unstable();
            all.push(pairs.into_iter().flat_map(|(n, v)| [n, v]).map(|t| self.names.number(t)).collect());
        }
        all
    }

    /// All scrapes of one step of time, target by target. `take` also gets the names that the labels' numbers
    /// mean.
    pub fn step(&mut self, step: i64, mut take: impl FnMut(&Names, Scrape<'_>)) {
        let steps_per_hour = 3_600_000.0 / self.options.interval_ms as f64;
        let replicas = if self.options.ha { 2 } else { 1 };
        for at in 0..self.targets.len() {
            let target = &mut self.targets[at];
            let mut begin = self.options.begin_ms + step * self.options.interval_ms;
            if step > 0 && target.rng.chance(self.options.churn_per_hour / steps_per_hour) {
                // The old one is gone: Prometheus marks all of its series as stale.
                self.row.clear();
                self.row.resize(self.exposed.len(), f64::from_bits(STALE));
                for replica in 0..replicas {
                    let ts_ms = begin + target.offset_ms[replica];
                    self.samples += self.row.len() as u64;
                    take(&self.names, Scrape { ts_ms, labels: &target.labels[replica], values: &self.row });
                }
                let (number, life) = (target.number, target.life + 1);
                self.targets[at] = self.begin(number, life);
            }
            let target = &mut self.targets[at];
            if target.rng.chance(self.options.restarts_per_hour / steps_per_hour) {
                for (value, e) in target.values.iter_mut().zip(&self.exposed) {
                    *value = Value::begin(e.class, &mut target.rng, true);
                }
            }
            self.row.clear();
            for (value, e) in target.values.iter_mut().zip(&self.exposed) {
                let below = if e.cumulative { self.row.last().copied().unwrap_or(0.0) } else { 0.0 };
                self.row.push(below + value.step(e.class, &mut target.rng));
            }
            if target.rng.chance(self.options.late) {
                begin -= target.rng.below(self.options.late_by_ms as u64) as i64;
            }
            for (replica, (at, job)) in
                (0..replicas).flat_map(|r| self.jobs.iter().enumerate().map(move |job| (r, job)))
            {
                // Most scrapes are on the dot: Prometheus aligns what is within 2 ms. The rest is a little
                // late.
                let jitter = if target.rng.chance(0.7) { 0 } else { target.rng.below(12) as i64 };
                // Each job is scraped at its own time.
                let interval = self.options.interval_ms;
                let apart = interval * at as i64 / self.jobs.len() as i64;
                let ts_ms = begin + (target.offset_ms[replica] + apart) % interval + jitter;
                self.samples += job.len() as u64;
                let (labels, values) = (&target.labels[replica][job.clone()], &self.row[job.clone()]);
                take(&self.names, Scrape { ts_ms, labels, values });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> FleetOptions {
        FleetOptions {
            seed: 9,
            targets: 5,
            ha: true,
            begin_ms: 1_795_000_000_000,
            duration_ms: 3_600_000,
            interval_ms: 15_000,
            churn_per_hour: 0.5,
            restarts_per_hour: 0.2,
            late: 0.1,
            late_by_ms: 1_800_000,
            exposition: Exposition::Node,
        }
    }

    fn everything(options: &FleetOptions, parts: u32) -> Vec<(i64, u64, u64)> {
        let mut all = Vec::new();
        for part in 0..parts {
            let mut fleet = Fleet::part(options, part, parts);
            for step in 0..options.steps() {
                fleet.step(step, |names, scrape| {
                    let instance = scrape.labels[0].iter().map(|&n| names.text(n)).collect::<Vec<_>>();
                    assert!(instance.chunks(2).is_sorted_by_key(|pair| pair[0]));
                    let text = instance.concat();
                    let hash = text.bytes().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
                    all.push((scrape.ts_ms, hash, scrape.values[3].to_bits()));
                });
            }
        }
        all.sort_unstable();
        all
    }

    #[test]
    fn however_it_is_cut_into_parts_it_is_the_same_fleet() {
        let whole = everything(&options(), 1);
        assert_eq!(whole, everything(&options(), 1));
        assert_eq!(whole, everything(&options(), 3));
        assert_ne!(whole, everything(&FleetOptions { seed: 10, ..options() }, 1));
    }

    #[test]
    fn applications_buckets_add_up_and_come_at_their_own_time() {
        let mut options = FleetOptions { ha: false, exposition: Exposition::NodeAndApplication, ..options() };
        (options.late, options.targets) = (0.0, 1);
        assert_eq!(options.active_series(), 636);
        let mut fleet = Fleet::part(&options, 0, 1);
        let mut scrapes = Vec::new();
        for step in 0..20 {
            fleet.step(step, |_, scrape| scrapes.push((scrape.ts_ms, scrape.values.to_vec())));
        }
        let (node, application): (Vec<_>, Vec<_>) = scrapes.iter().partition(|(_, row)| row.len() == 502);
        assert_eq!((node.len(), application.len()), (20, 20));
        assert!(node.iter().zip(&application).all(|(a, b)| a.0 != b.0), "one time for both");
        for (_, row) in application {
            // Twelve buckets, then as many as are in the last of them.
            assert!(row[..12].is_sorted() && row[11] == row[12], "{:?}", &row[..13]);
        }
    }

    #[test]
    fn targets_are_replaced_at_the_pace_asked_for() {
        let many = FleetOptions { targets: 200, churn_per_hour: 0.3, ..options() };
        let mut fleet = Fleet::part(&many, 0, 1);
        for step in 0..many.steps() {
            fleet.step(step, |_, _| {});
        }
        let replaced = (fleet.series - many.active_series()) as f64 / many.active_series() as f64;
        assert!((0.2..0.4).contains(&replaced), "{replaced} of the fleet replaced in an hour");
    }
}
