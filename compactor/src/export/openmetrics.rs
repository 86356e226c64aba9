//! OpenMetrics text with timestamps, as `promtool tsdb create-blocks-from openmetrics` and
//! `hearth import openmetrics` take it.
//!
//! Written are floats. There is no type or help, because samples do not carry them. The format has no word
//! for native histograms, for staleness markers and for series without a name: they are counted and left out.

use std::io::Write;
use std::path::PathBuf;

use model::histogram::format_g;
use model::labels::{Labels, METRIC_NAME};
use model::sample::is_stale;
use model::source::SeriesColumns;

use super::{ExportError, Exported, Sink};

/// Writes lines.
pub struct OpenMetrics<W: Write> {
    out: W,
    /// For errors.
    path: PathBuf,
}

impl<W: Write> OpenMetrics<W> {
    /// `path` is what errors call the output.
    pub fn new(out: W, path: impl Into<PathBuf>) -> OpenMetrics<W> {
        OpenMetrics { out, path: path.into() }
    }

    /// The end mark, without which the text counts as cut short.
    pub fn end(mut self) -> Result<W, ExportError> {
        let ended = self.out.write_all(b"# EOF\n").and_then(|()| self.out.flush());
        ended.map_err(|e| ExportError::disk(&self.path, e))?;
        Ok(self.out)
    }
}

impl<W: Write> Sink for OpenMetrics<W> {
    fn series(&mut self, series: &SeriesColumns, done: &mut Exported) -> Result<(), ExportError> {
        let head = head(&series.labels);
        let mut text = String::new();
        for (i, (ts, value)) in series.ts_ms.iter().zip(&series.values).enumerate() {
            let histogram = series.histograms.as_ref().is_some_and(|h| h[i].is_some());
            match &head {
                _ if is_stale(*value) => done.markers += 1,
                Some(head) if !histogram => {
                    text.push_str(head);
                    text.push(' ');
                    text.push_str(&format_g(*value));
                    text.push(' ');
                    text.push_str(&seconds(*ts));
                    text.push('\n');
                    done.samples += 1;
                }
                _ => done.left_out += 1,
            }
            if text.len() > 1 << 18 {
                self.out.write_all(text.as_bytes()).map_err(|e| ExportError::disk(&self.path, e))?;
                text.clear();
            }
        }
        self.out.write_all(text.as_bytes()).map_err(|e| ExportError::disk(&self.path, e))
    }
}

/// What stands before the value; `None` for a series without a name.
fn head(labels: &Labels) -> Option<String> {
    let name = labels.metric_name()?;
    let plain = |s: &str, colon: bool| {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (colon && b == b':');
        !s.is_empty() && !s.as_bytes()[0].is_ascii_digit() && s.bytes().all(fine)
    };
    let mut out = String::new();
    let mut parts = Vec::new();
    if plain(name, true) {
        out.push_str(name);
    } else {
        parts.push(quoted(name));
    }
    for (n, v) in labels.iter().filter(|(n, _)| *n != METRIC_NAME) {
        let n = if plain(n, false) { n.to_string() } else { quoted(n) };
        parts.push(format!("{n}={}", quoted(v)));
    }
    if !parts.is_empty() {
        out.push('{');
        out.push_str(&parts.join(","));
        out.push('}');
    }
    Some(out)
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// Seconds that read back as the same milliseconds.
///
/// Prometheus' reader multiplies by a thousand and cuts off, which makes a millisecond less of some: those
/// get half a microsecond more.
fn seconds(ts_ms: i64) -> String {
    let sign = if ts_ms < 0 { "-" } else { "" };
    let (whole, rest) = (ts_ms.unsigned_abs() / 1000, ts_ms.unsigned_abs() % 1000);
    let text = if rest == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{rest:03}") };
    let back = text.parse::<f64>().map_or(0, |s| (s * 1000.0) as i64);
    if back == ts_ms { text } else { format!("{sign}{whole}.{rest:03}0005") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_seconds() {
        let of = |pairs: &[(&str, &str)]| head(&Labels::from_pairs(pairs.iter().copied()));
        assert_eq!(of(&[("__name__", "up")]).unwrap(), "up");
        assert_eq!(
            of(&[("__name__", "a:b"), ("x", "1\n\"\\"), ("dot.ted", "é")]).unwrap(),
            r#"a:b{"dot.ted"="é",x="1\n\"\\"}"#
        );
        assert_eq!(of(&[("__name__", "a b"), ("x", "1")]).unwrap(), r#"{"a b",x="1"}"#);
        assert_eq!(of(&[("x", "1")]), None);
        assert_eq!(seconds(0), "0");
        assert_eq!(seconds(1_700_000_000_500), "1700000000.500");
        assert_eq!(seconds(-1500), "-1.500");
        for ts in (1_700_000_000_000i64..1_700_000_003_000).chain(-2000..2000) {
            let back = (seconds(ts).parse::<f64>().unwrap() * 1000.0) as i64;
            assert_eq!(back, ts, "{}", seconds(ts));
        }
    }
}
