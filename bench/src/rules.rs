//! Many groups of rules over the fleet: what an evaluation costs a server.

use std::fmt::Write;
use std::io;
use std::time::{Duration, Instant};

use crate::report::{Better, Measured};
use crate::server::{Server, agent};

/// Rules of a group. Each group looks at one machine, as the rules of a service look at that service; the
/// last one reads what another rule of the group writes, and one alerts.
const RULES: [(&str, &str); 20] = [
    ("cpu:rate5m", "sum by (mode) (rate(node_cpu_seconds_total{I}[5m]))"),
    ("cpu:busy", "1 - avg by (instance) (rate(node_cpu_seconds_total{I,mode=\"idle\"}[5m]))"),
    ("cpu:count", "count by (instance) (node_cpu_seconds_total{I,mode=\"idle\"})"),
    ("memory:free", "node_memory_MemAvailable_bytes{I} / node_memory_MemTotal_bytes{I}"),
    ("swap:used", "1 - node_memory_SwapFree_bytes{I} / node_memory_SwapTotal_bytes{I}"),
    ("net:in", "sum by (instance) (rate(node_network_receive_bytes_total{I,device!=\"lo\"}[5m]))"),
    ("net:out", "sum by (instance) (rate(node_network_transmit_bytes_total{I,device!=\"lo\"}[5m]))"),
    ("net:drops", "sum by (instance) (increase(node_network_receive_drop_total{I}[5m]))"),
    ("net:errors", "sum by (instance) (increase(node_network_receive_errs_total{I}[5m]))"),
    (
        "load:cpu",
        "node_load1{I} / on (instance) count by (instance) (node_cpu_seconds_total{I,mode=\"idle\"})",
    ),
    ("files:open", "node_filefd_allocated{I}"),
    ("context:rate", "rate(node_context_switches_total{I}[5m])"),
    ("forks:rate", "rate(node_forks_total{I}[5m])"),
    ("temp:max", "max by (instance) (node_hwmon_temp_celsius{I})"),
    ("http:p99", "histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket{I}[5m])))"),
    (
        "http:mean",
        "sum by (handler) (rate(http_request_duration_seconds_sum{I}[5m])) / sum by (handler) (rate(http_request_duration_seconds_count{I}[5m]))",
    ),
    ("scrape:slow", "topk(5, node_scrape_collector_duration_seconds{I})"),
    ("up:last", "max_over_time(up{I}[5m])"),
    ("vm:faults", "rate(node_vmstat_pgmajfault{I}[5m])"),
    ("cpu:busy:max", "max_over_time(cpu:busy{I,group=\"{G}\"}[5m])"),
];

/// A rule file with so many groups over so many machines.
pub fn file(groups: u32, targets: u32, interval_seconds: u32) -> String {
    let mut text = "groups:\n".to_string();
    for group in 0..groups {
        let machine = group % targets.max(1);
        let instance = format!("instance=\"node-{machine:05}-0.eu-central-1.compute.internal:9100\"");
        let _ = writeln!(text, "- name: g{group}\n  interval: {interval_seconds}s\n  rules:");
        for (name, expr) in RULES {
            let expr = expr.replace("{I", &format!("{{{instance}")).replace("{G}", &format!("g{group}"));
            let _ = match name {
                "up:last" => writeln!(text, "  - alert: Down\n    expr: '{expr} < 1'\n    for: 5m"),
                _ => {
                    writeln!(text, "  - record: {name}\n    expr: '{expr}'\n    labels: {{group: g{group}}}")
                }
            };
        }
    }
    text
}

/// What a server has counted of its rules.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    evaluations: f64,
    failures: f64,
    missed: f64,
}

fn counts(metrics: &str) -> Counts {
    let sum = |name: &str| -> f64 {
        let start = format!("{name}{{");
        let lines = metrics.lines().filter(|line| line.starts_with(&start));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    Counts {
        evaluations: sum("prometheus_rule_evaluations_total"),
        failures: sum("prometheus_rule_evaluation_failures_total"),
        missed: sum("prometheus_rule_group_iterations_missed_total"),
    }
}

fn read(server: &Server) -> io::Result<Counts> {
    let answer = agent(Duration::from_secs(60)).get(format!("{}/metrics", server.url)).call();
    let text = answer.map_err(io::Error::other)?.body_mut().with_config().limit(1 << 30).read_to_string();
    Ok(counts(&text.map_err(io::Error::other)?))
}

/// Watches a server that has the samples and the rules for so long.
pub fn measure(server: &Server, interval: Duration, watch: Duration, into: &mut Measured) -> io::Result<()> {
    // Every group has had its turn with the samples there.
    std::thread::sleep(interval + Duration::from_secs(2));
    let (before, cpu, begun) = (read(server)?, server.cpu_seconds(), Instant::now());
    std::thread::sleep(watch);
    let (after, cpu) = (read(server)?, server.cpu_seconds() - cpu);
    let evaluations = after.evaluations - before.evaluations;
    into.add("CPU ms per rule", Better::Less, cpu * 1000.0 / evaluations.max(1.0));
    into.add("rules per second", Better::More, evaluations / begun.elapsed().as_secs_f64());
    into.add("resident bytes", Better::Less, server.memory_bytes("VmRSS") as f64);
    let (failed, missed) = (after.failures - before.failures, after.missed - before.missed);
    if failed + missed > 0.0 {
        into.notes.push(format!("{failed} rules failed, {missed} slots were missed"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_file_has_all_groups_and_names_its_machines() {
        let text = file(3, 2, 30);
        assert_eq!(text.matches("- name: g").count(), 3);
        let rules = text.matches("- record: ").count() + text.matches("- alert: ").count();
        assert_eq!(rules, 3 * RULES.len());
        assert!(!text.contains("{I") && !text.contains("{G}"), "{text}");
        assert!(text.contains("node-00001-0.eu-central-1") && !text.contains("node-00002-0"), "{text}");
    }

    #[test]
    fn counts_are_summed_over_groups() {
        let text = "prometheus_rule_evaluations_total{rule_group=\"a\"} 3\nprometheus_rule_evaluations_total{rule_group=\"b\"} 4\nprometheus_rule_evaluation_failures_total{rule_group=\"b\"} 1\n";
        assert_eq!(counts(text), Counts { evaluations: 7.0, failures: 1.0, missed: 0.0 });
    }
}
