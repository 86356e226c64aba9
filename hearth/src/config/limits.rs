//! Limits of tenants as settings and the file of overrides have them, and as they are shown.
//!
//! The file is that of Mimir's and Cortex' runtime configuration, as far as limits go:
//!
//! ```yaml
//! overrides:
//!   team-a:
//!     ingestion_rate: 50000
//!     max_total_query_length: 30d
//!     blocked_queries:
//!       - pattern: 'count({__name__=~".+"})'
//!         reason: use the page's Cardinality instead
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::matcher::{MatchOp, Matcher};
use model::tenant::TenantId;
use model::tenant_limits::{BlockedPattern, BlockedQuery, Limit, LimitUnit, LimitsInForce, TenantLimits};
use serde_saphyr::Spanned;

use super::Settings;
use super::file::{self, Malformed, Node};
use super::table::closest;
use super::value::{Size, Span, Value};

/// Why a file of overrides is not used: everything that is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    #[error("limits.file: {} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// A complaint a line, each with its place.
    #[error("{}", .0.join("\n"))]
    Wrong(Vec<String>),
}

/// Limits out of settings and file, and what of the file is not enforced.
#[derive(Debug)]
pub struct LimitsRead {
    pub limits: LimitsInForce,
    pub warnings: Vec<String>,
}

/// Tenants that a file may name.
const MAX_TENANTS: usize = 100_000;

/// What tenants without an override may.
pub fn defaults(settings: &Settings) -> TenantLimits {
    let ms = |span: Span| span.ms().max(0) as u64;
    let mut limits = TenantLimits::default();
    for limit in Limit::ALL {
        let value = match limit {
            Limit::IngestionRate => settings.limits_ingestion_rate.0,
            Limit::IngestionBurstSize => settings.limits_ingestion_burst_size.0,
            Limit::MaxSeries => settings.limits_max_series.0,
            Limit::MaxSeriesPerMetric => settings.limits_max_series_per_metric.0,
            Limit::MaxLabelNames => settings.ingest_max_labels.0,
            Limit::MaxLabelNameLength => settings.ingest_max_label_name.0,
            Limit::MaxLabelValueLength => settings.ingest_max_label_value.0,
            Limit::CreationGracePeriod => ms(settings.ingest_max_ahead),
            Limit::PastGracePeriod => ms(settings.limits_past_grace_period),
            Limit::OutOfOrderWindow => ms(settings.limits_out_of_order_window),
            Limit::MaxRequestSize => settings.ingest_max_decoded.0,
            Limit::MaxFetchedSeries => settings.limits_max_fetched_series.0,
            Limit::MaxFetchedChunks => settings.limits_max_fetched_chunks.0,
            Limit::MaxFetchedBytes => settings.limits_max_fetched_bytes.0,
            Limit::MaxQueryMemory => settings.query_max_memory.0,
            Limit::MaxTotalQueryLength => ms(settings.limits_max_total_query_length),
            Limit::MaxPartialQueryLength => ms(settings.limits_max_partial_query_length),
            Limit::MaxQueryLookback => ms(settings.limits_max_query_lookback),
            Limit::MaxQueryParallelism => settings.query_max_concurrency.0,
            Limit::MaxOutstandingRequests => settings.limits_max_outstanding.0,
            Limit::BlocksRetentionPeriod => ms(settings.retention),
        };
        limits.set(*limit, value);
    }
    limits
}

/// Reads the file of overrides, if there is one, over the settings.
pub fn load(settings: &Settings) -> Result<LimitsRead, LimitsError> {
    let defaults = Arc::new(defaults(settings));
    let path = &settings.limits_file.0;
    if path.as_os_str().is_empty() {
        let limits = LimitsInForce { defaults, overrides: BTreeMap::new() };
        return Ok(LimitsRead { limits, warnings: Vec::new() });
    }
    let text = std::fs::read_to_string(path)
        .map_err(|source| LimitsError::Unreadable { path: path.clone(), source })?;
    read(path, &text, defaults)
}

/// Reads the text of a file of overrides.
fn read(path: &Path, text: &str, defaults: Arc<TenantLimits>) -> Result<LimitsRead, LimitsError> {
    let mut reader = Reader { path, wrong: Vec::new(), warnings: Vec::new() };
    let mut overrides = BTreeMap::new();
    let is_empty = |l: &str| l.is_empty() || l.starts_with('#') || l == "---";
    if !text.lines().map(str::trim).all(is_empty) {
        match file::tree(text) {
            Ok(root) => reader.root(root, &defaults, &mut overrides),
            Err(Malformed { line, column, what }) => {
                reader.complain((line.unwrap_or(1), column.unwrap_or(1)), &what);
            }
        }
    }
    match reader.wrong.is_empty() {
        true => {
            let limits = LimitsInForce { defaults, overrides };
            Ok(LimitsRead { limits, warnings: reader.warnings })
        }
        false => Err(LimitsError::Wrong(reader.wrong)),
    }
}

/// Line and column.
type Place = (u64, u64);

fn place<T>(of: &Spanned<T>) -> Place {
    (of.referenced.line(), of.referenced.column())
}

/// Reads one file, and gathers all that is wrong with it.
struct Reader<'a> {
    path: &'a Path,
    wrong: Vec<String>,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn said(&self, (line, column): Place, what: &str) -> String {
        format!("{}:{line}:{column}: {what}", self.path.display())
    }

    fn complain(&mut self, at: Place, what: &str) {
        let said = self.said(at, what);
        self.wrong.push(said);
    }

    fn map(&mut self, node: Spanned<Node>, what: &str) -> Vec<(Spanned<String>, Spanned<Node>)> {
        let at = place(&node);
        match node.value {
            Node::Map(entries) => entries,
            Node::Text(text) if text.is_empty() => Vec::new(),
            _ => {
                self.complain(at, &format!("{what} should be a mapping"));
                Vec::new()
            }
        }
    }

    fn root(
        &mut self,
        root: Spanned<Node>,
        defaults: &TenantLimits,
        overrides: &mut BTreeMap<TenantId, Arc<TenantLimits>>,
    ) {
        for (key, node) in self.map(root, "the file") {
            if key.value != "overrides" {
                let what = format!("{:?} is not used: only `overrides` is", key.value);
                let said = self.said(place(&key), &what);
                self.warnings.push(said);
                continue;
            }
            let tenants = self.map(node, "overrides");
            if tenants.len() > MAX_TENANTS {
                let what = format!("{} tenants, more than {MAX_TENANTS}", tenants.len());
                return self.complain(place(&key), &what);
            }
            for (tenant, node) in tenants {
                match TenantId::new(&tenant.value) {
                    Ok(id) => {
                        let limits = self.tenant(&tenant.value, node, defaults.clone());
                        overrides.insert(id, Arc::new(limits));
                    }
                    Err(e) => self.complain(place(&tenant), &e.to_string()),
                }
            }
        }
    }

    fn tenant(&mut self, tenant: &str, node: Spanned<Node>, mut limits: TenantLimits) -> TenantLimits {
        for (key, node) in self.map(node, tenant) {
            let name = key.value.as_str();
            if name == "blocked_queries" {
                limits.blocked_queries = self.blocked_queries(node);
            } else if let Some(limit) = Limit::named(name) {
                let at = place(&key);
                match self.text(node, name).map(|text| (value_of(limit, &text), text)) {
                    Some((Ok(value), _)) => limits.set(limit, value),
                    Some((Err(why), text)) => self.complain(at, &format!("{tenant}: {name}: {text:?} {why}")),
                    None => {}
                }
            } else if let Some(close) = closest(name, Limit::ALL.iter().map(|l| l.name())) {
                self.complain(place(&key), &format!("{tenant}: {name} is no limit: did you mean {close}?"));
            } else {
                // Files that were written for Mimir name many that mean nothing here.
                let said = self.said(place(&key), &format!("{tenant}: {name} is not enforced by Hearth"));
                self.warnings.push(said);
            }
        }
        limits
    }

    fn text(&mut self, node: Spanned<Node>, what: &str) -> Option<String> {
        let at = place(&node);
        match node.value {
            Node::Text(text) => Some(text),
            _ => {
                self.complain(at, &format!("{what} should be a single value"));
                None
            }
        }
    }

    fn blocked_queries(&mut self, node: Spanned<Node>) -> Vec<BlockedQuery> {
        let at = place(&node);
        match node.value {
            Node::List(rules) => rules.into_iter().filter_map(|rule| self.blocked_query(rule)).collect(),
            Node::Text(text) if text.is_empty() => Vec::new(),
            _ => {
                self.complain(at, "blocked_queries should be a list");
                Vec::new()
            }
        }
    }

    fn blocked_query(&mut self, node: Spanned<Node>) -> Option<BlockedQuery> {
        let at = place(&node);
        let (mut rule, mut pattern, mut regex) = (BlockedQuery::default(), None, false);
        for (key, node) in self.map(node, "a rule of blocked_queries") {
            let key_at = place(&key);
            let text = self.text(node, &key.value)?;
            let span = |text: &str| Span::parse(text).map(|s| s.ms().max(0) as u64);
            let read = match key.value.as_str() {
                "pattern" => {
                    pattern = Some(text.clone());
                    Ok(())
                }
                "regex" => bool::parse(&text).map(|is| regex = is),
                "reason" => {
                    rule.reason = text.clone();
                    Ok(())
                }
                "time_range_longer_than" => {
                    span(&text).map(|ms| rule.time_range_longer_than_ms = Some(ms).filter(|ms| *ms > 0))
                }
                "step_size_shorter_than" => {
                    span(&text).map(|ms| rule.step_size_shorter_than_ms = Some(ms).filter(|ms| *ms > 0))
                }
                _ => Err(
                    "is unknown: a rule has pattern, regex, time_range_longer_than, step_size_shorter_than, reason"
                        .into(),
                ),
            };
            if let Err(why) = read {
                self.complain(key_at, &format!("{}: {text:?} {why}", key.value));
            }
        }
        rule.pattern = match (pattern, regex) {
            (None, _) => None,
            (Some(text), false) => Some(BlockedPattern::Text(text)),
            (Some(text), true) => match Matcher::new(MatchOp::Regex, "query", &text) {
                Ok(matcher) => Some(BlockedPattern::Regex(matcher)),
                Err(e) => {
                    self.complain(at, &format!("pattern: {text:?} is not a regular expression: {e}"));
                    return None;
                }
            },
        };
        let unset = BlockedQuery { reason: rule.reason.clone(), ..BlockedQuery::default() };
        if rule == unset {
            self.complain(
                at,
                "a rule of blocked_queries needs a pattern, time_range_longer_than or step_size_shorter_than",
            );
            return None;
        }
        Some(rule)
    }
}

/// A limit's number as the file has it.
fn value_of(limit: Limit, text: &str) -> Result<u64, String> {
    match limit.unit() {
        LimitUnit::Milliseconds => Span::parse(text).map(|span| span.ms().max(0) as u64),
        LimitUnit::Bytes => Size::parse(text).map(|size| size.0),
        LimitUnit::Count | LimitUnit::PerSecond => {
            let number: Result<f64, _> = text.replace('_', "").parse();
            let fits = number.ok().filter(|n| n.is_finite() && *n >= 0.0 && *n <= u64::MAX as f64);
            // A rate below one is one: 0 would be none.
            fits.map(|n| n.ceil() as u64).ok_or_else(|| "is not a number of at least 0".to_owned())
        }
    }
}

/// What `/runtime_config` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// All limits of every tenant that has its own.
    All,
    /// Only those that differ from what holds for everybody.
    Differing,
    /// What holds for everybody.
    Defaults,
}

/// Limits as a file that says the same.
pub fn show(limits: &LimitsInForce, shown: Shown) -> String {
    if shown == Shown::Defaults {
        return Limit::ALL.iter().map(|l| line("", *l, &limits.defaults)).collect();
    }
    if limits.overrides.is_empty() {
        return "overrides: {}\n".to_owned();
    }
    let mut out = "overrides:\n".to_owned();
    for (tenant, own) in &limits.overrides {
        let differs = |l: &&Limit| shown == Shown::All || own.get(**l) != limits.defaults.get(**l);
        let mut body: String = Limit::ALL.iter().filter(differs).map(|l| line("    ", *l, own)).collect();
        if !own.blocked_queries.is_empty() {
            body += "    blocked_queries:\n";
            own.blocked_queries.iter().for_each(|rule| body += &blocked_lines(rule));
        }
        let empty = if body.is_empty() { " {}" } else { "" };
        out += &format!("  {}:{empty}\n{body}", quoted(tenant.as_str()));
    }
    out
}

fn line(indent: &str, limit: Limit, of: &TenantLimits) -> String {
    format!("{indent}{}: {}\n", limit.name(), limit.shown(of.get(limit)))
}

fn blocked_lines(rule: &BlockedQuery) -> String {
    let mut parts = Vec::new();
    match &rule.pattern {
        Some(BlockedPattern::Text(text)) => parts.push(format!("pattern: {}", quoted(text))),
        Some(BlockedPattern::Regex(matcher)) => {
            parts.push(format!("pattern: {}", quoted(&matcher.value)));
            parts.push("regex: true".to_owned());
        }
        None => {}
    }
    let mut span = |name: &str, ms: Option<u64>| {
        if let Some(ms) = ms {
            parts.push(format!("{name}: {}", Limit::MaxTotalQueryLength.shown(ms)));
        }
    };
    span("time_range_longer_than", rule.time_range_longer_than_ms);
    span("step_size_shorter_than", rule.step_size_shorter_than_ms);
    if !rule.reason.is_empty() {
        parts.push(format!("reason: {}", quoted(&rule.reason)));
    }
    let lead = |n: usize| if n == 0 { "      - " } else { "        " };
    parts.iter().enumerate().map(|(n, part)| format!("{}{part}\n", lead(n))).collect()
}

/// A text in double quotes as JSON and YAML have them.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<LimitsRead, String> {
        let defaults = Arc::new(defaults(&Settings::default()));
        read(Path::new("limits.yaml"), text, defaults).map_err(|e| e.to_string())
    }

    const FILE: &str = r#"
overrides:
  team.a:
    ingestion_rate: 1e5
    max_total_query_length: 30d
    max_estimated_memory_consumption_per_query: 268435456
    blocked_queries:
      - pattern: 'count({__name__=~".+"})'
        reason: 'use "Cardinality"'
      - pattern: .*heavy.*
        regex: true
        step_size_shorter_than: 30s
      - time_range_longer_than: 60d
    ruler_max_rules_per_rule_group: 20
  "7": {max_global_series_per_user: 10}
  none:
ingester_limits: {}
"#;

    #[test]
    fn limits_file_is_that_of_mimir_and_what_is_shown_reads_back_the_same() {
        let read = read_text(FILE).unwrap();
        let tenant = |name: &str| read.limits.overrides[&TenantId::new(name).unwrap()].clone();
        let a = tenant("team.a");
        assert_eq!(a.get(Limit::IngestionRate), 100_000);
        assert_eq!(a.get(Limit::MaxTotalQueryLength), 30 * 86_400_000);
        assert_eq!(a.get(Limit::MaxLabelNames), 64, "what is not said is as for everybody");
        assert_eq!(a.blocked_queries.len(), 3);
        assert!(a.blocked_queries[1].blocks("sum(heavy)", 0, Some(1_000)));
        assert_eq!(tenant("7").get(Limit::MaxSeries), 10);
        assert_eq!(tenant("none"), read.limits.defaults);
        assert_eq!(read.warnings.len(), 2, "{:?}", read.warnings);
        assert!(
            read.warnings[0].starts_with("limits.yaml:14:5: team.a: ruler_max_rules"),
            "{:?}",
            read.warnings
        );
        for shown in [Shown::All, Shown::Differing] {
            let text = show(&read.limits, shown);
            assert_eq!(read_text(&text).unwrap().limits, read.limits, "{text}");
        }
        let diff = show(&read.limits, Shown::Differing);
        assert!(
            !diff.contains("max_label_names_per_series") && diff.contains("ingestion_rate: 100000"),
            "{diff}"
        );
        assert!(show(&read.limits, Shown::Defaults).contains("max_outstanding_requests_per_tenant: 1000\n"));
        assert_eq!(show(&read_text("# nothing\n").unwrap().limits, Shown::All), "overrides: {}\n");
    }

    #[test]
    fn limits_file_that_is_wrong_is_refused_with_every_place() {
        let text = "overrides:\n  a/b: {}\n  c:\n    ingestion_rat: 5\n    ingestion_rate: fast\n    past_grace_period: 5\n    blocked_queries:\n      - reason: none\n      - pattern: '('\n        regex: true\n";
        let wrong = read_text(text).unwrap_err();
        let starts = [
            "limits.yaml:2:3: tenant \"a/b\" is not a valid name",
            "limits.yaml:4:5: c: ingestion_rat is no limit: did you mean ingestion_rate?",
            "limits.yaml:5:5: c: ingestion_rate: \"fast\" is not a number",
            "limits.yaml:6:5: c: past_grace_period: \"5\" is not a duration",
            "limits.yaml:8:9: a rule of blocked_queries needs",
            "limits.yaml:9:9: pattern: \"(\" is not a regular expression",
        ];
        assert_eq!(wrong.lines().count(), starts.len(), "{wrong}");
        for (line, start) in wrong.lines().zip(starts) {
            assert!(line.starts_with(start), "{line}\nshould start with\n{start}");
        }
        assert!(read_text("overrides: [").is_err());
        assert!(read_text("just text").unwrap_err().contains("the file should be a mapping"));
    }

    #[test]
    fn limits_name_the_settings_that_hold_for_everybody() {
        for limit in Limit::ALL {
            let known = super::super::TABLE.iter().any(|option| option.key == limit.setting());
            assert!(known, "{} is no setting", limit.setting());
        }
    }
}
