//! Which exposition format an `Accept` header asks for, as Prometheus' own client library reads it.

use super::names::Escaping;

/// A format that samples are exposed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`, which everybody reads.
    Text,
    /// `application/openmetrics-text`, in the version that was asked for.
    OpenMetrics { version: &'static str },
    /// `MetricFamily` messages, each behind its length.
    Protobuf,
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    pub format: Format,
    pub escaping: Escaping,
}

impl Negotiated {
    /// The value of `Content-Type`.
    pub fn content_type(&self) -> String {
        let format = match self.format {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8".to_owned(),
            Format::OpenMetrics { version } => {
                format!("application/openmetrics-text; version={version}; charset=utf-8")
            }
            Format::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
                    .to_owned()
            }
        };
        format!("{format}; escaping={}", self.escaping.as_str())
    }
}

/// Formats that an endpoint has beside text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offered {
    pub open_metrics: bool,
    pub protobuf: bool,
}

/// The first of the wanted formats, by their weight and then by their order, that is offered; text where none
/// is.
pub fn negotiate(accept: &str, offered: Offered) -> Negotiated {
    let mut clauses: Vec<Clause<'_>> = accept.split(',').filter_map(Clause::read).collect();
    clauses.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    let mut escaping = Escaping::default();
    for clause in &clauses {
        escaping = clause.param("escaping").and_then(Escaping::of).unwrap_or(escaping);
        if let Some(format) = clause.format(offered) {
            return Negotiated { format, escaping };
        }
    }
    Negotiated { format: Format::Text, escaping }
}

/// One of the alternatives of a header.
struct Clause<'a> {
    kind: &'a str,
    params: Vec<(&'a str, &'a str)>,
    weight: f32,
}

impl<'a> Clause<'a> {
    fn read(text: &'a str) -> Option<Clause<'a>> {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().filter(|k| !k.is_empty())?;
        let params: Vec<_> = parts
            .filter_map(|p| p.split_once('='))
            .map(|(name, value)| (name.trim(), value.trim().trim_matches('"')))
            .collect();
        let weight = params.iter().find(|(n, _)| *n == "q").map_or(Some(1.0), |(_, q)| q.parse::<f32>().ok());
        let weight = weight.filter(|q| (0.0..=1.0).contains(q)).unwrap_or(1.0);
        Some(Clause { kind, params, weight })
    }

    fn param(&self, name: &str) -> Option<&'a str> {
        self.params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    fn format(&self, offered: Offered) -> Option<Format> {
        if self.weight == 0.0 {
            return None;
        }
        let version = self.param("version");
        match self.kind.to_ascii_lowercase().as_str() {
            "application/vnd.google.protobuf" if offered.protobuf => {
                let known = self.param("proto") == Some("io.prometheus.client.MetricFamily")
                    && self.param("encoding") == Some("delimited");
                known.then_some(Format::Protobuf)
            }
            "application/openmetrics-text" if offered.open_metrics => match version {
                Some("1.0.0") => Some(Format::OpenMetrics { version: "1.0.0" }),
                None | Some("" | "0.0.1") => Some(Format::OpenMetrics { version: "0.0.1" }),
                Some(_) => None,
            },
            "text/plain" if matches!(version, None | Some("" | "0.0.4")) => Some(Format::Text),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_is_read_as_prometheus_client_library_reads_it() {
        let all = Offered { open_metrics: true, protobuf: true };
        let of = |accept: &str, offered| negotiate(accept, offered).content_type();
        let text = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
        for accept in ["", "*/*", "text/html", "text/plain", "text/plain;version=0.0.4;q=0.3, */*", ",;,q="] {
            assert_eq!(of(accept, all), text, "{accept}");
        }
        // What scrapers send: Prometheus 2.42, 3.x, and 3.x with native histograms.
        let old = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(
            of(old, all),
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
        );
        let new = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert!(of(new, all).starts_with("application/vnd.google.protobuf"));
        assert_eq!(
            of(new, Offered { open_metrics: true, protobuf: false }),
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
        );
        assert_eq!(
            of(new, Offered::default()),
            "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8"
        );
        assert_eq!(of("application/openmetrics-text;version=1.0.0;q=0, text/plain", all), text);
        assert_eq!(
            of("application/openmetrics-text", all),
            "application/openmetrics-text; version=0.0.1; charset=utf-8; escaping=underscores"
        );
    }
}
