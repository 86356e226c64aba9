//! `/metrics` in the format that is asked for: OpenMetrics as it is encoded, or Prometheus' text and protobuf
//! made of it.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use query::api::exposition::accept::{Format, Offered, negotiate};
use query::api::exposition::own;

/// The answer for an `Accept` header, of a text that is OpenMetrics.
pub fn answer(open_metrics: String, headers: &HeaderMap) -> Response {
    let accept: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let agreed = negotiate(&accept.join(","), Offered { open_metrics: true, protobuf: true });
    let body = match agreed.format {
        Format::OpenMetrics { .. } => Body::from(open_metrics),
        Format::Text => Body::from(plain(&open_metrics)),
        Format::Protobuf => Body::from(own::protobuf(&open_metrics)),
    };
    ([(header::CONTENT_TYPE, agreed.content_type())], body).into_response()
}

/// Version 0.0.4 of the same metrics: counters have their suffix in the name of the family too, kinds that
/// the older format does not know become those that it knows, and there are no units, exemplars and end.
fn plain(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let lines: Vec<&str> = open_metrics.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let Some(comment) = line.strip_prefix("# ") else {
            let mut marks = line.match_indices(" # {").map(|(at, _)| at);
            let exemplar = marks.find(|at| is_outside_quotes(line, *at));
            out.push_str(&line[..exemplar.unwrap_or(line.len())]);
            out.push('\n');
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (what, name, rest) = (words.next(), words.next().unwrap_or(""), words.next().unwrap_or(""));
        match what {
            Some("HELP") => {
                let kind = kind_of(&lines[at + 1..], name);
                out.push_str(&format!("# HELP {}{} {rest}\n", name, suffix(kind)));
            }
            Some("TYPE") => {
                out.push_str(&format!("# TYPE {}{} {}\n", name, suffix(rest), older(rest)));
            }
            // UNIT and EOF.
            _ => {}
        }
    }
    out
}

/// The kind that the lines behind a HELP say of its family.
fn kind_of<'a>(lines: &[&'a str], name: &str) -> &'a str {
    let of = |line: &&'a str| line.strip_prefix("# TYPE ")?.strip_prefix(name)?.strip_prefix(' ');
    lines.iter().take(2).find_map(of).unwrap_or("unknown")
}

fn suffix(kind: &str) -> &'static str {
    match kind {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    }
}

fn older(kind: &str) -> &str {
    match kind {
        "unknown" => "untyped",
        "info" | "stateset" => "gauge",
        "gaugehistogram" => "histogram",
        other => other,
    }
}

/// Whether a place of a line is within no quotes.
fn is_outside_quotes(line: &str, at: usize) -> bool {
    let mut quoted = false;
    let mut escaped = false;
    for b in &line.as_bytes()[..at] {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    !quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_become_the_older_text() {
        let text = "# HELP a Help \"x\".\n# TYPE a counter\n# UNIT a seconds\na_total{l=\"x # {y\\\" # {\"} 1 # {trace_id=\"7\"} 1.0 2\na_total 2\n\
                    # HELP b B.\n# TYPE b gauge\nb 3\n# TYPE c unknown\nc 1\n# HELP d D.\n# TYPE d info\nd_info{v=\"1\"} 1\n\
                    # TYPE h histogram\nh_bucket{le=\"1.0\"} 1\nh_sum 1\nh_count 1\n# EOF\n";
        let want = "# HELP a_total Help \"x\".\n# TYPE a_total counter\na_total{l=\"x # {y\\\" # {\"} 1\na_total 2\n\
                    # HELP b B.\n# TYPE b gauge\nb 3\n# TYPE c untyped\nc 1\n# HELP d_info D.\n# TYPE d_info gauge\nd_info{v=\"1\"} 1\n\
                    # TYPE h histogram\nh_bucket{le=\"1.0\"} 1\nh_sum 1\nh_count 1\n";
        assert_eq!(plain(text), want);
    }
}
