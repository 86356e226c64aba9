//! The process' own metrics, read back from the OpenMetrics text that they are encoded as, for the formats
//! that are made of it.

/// A metric of OpenMetrics text, its samples as they stand there.
#[derive(Debug)]
pub struct Family<'a> {
    /// As Prometheus' text has it: counters with `_total`.
    pub name: String,
    pub kind: &'a str,
    pub help: String,
    pub samples: Vec<Sample<'a>>,
}

/// A line with a value, which is kept as it is spelled.
#[derive(Debug)]
pub struct Sample<'a> {
    pub name: &'a str,
    pub labels: Pairs<'a>,
    pub value: &'a str,
    pub exemplar: Option<Exemplar<'a>>,
}

/// What stands behind a sample. The time is in seconds.
#[derive(Debug)]
pub struct Exemplar<'a> {
    pub labels: Pairs<'a>,
    pub value: &'a str,
    pub time: Option<&'a str>,
}

/// Labels with their values.
pub type Pairs<'a> = Vec<(&'a str, String)>;

/// A classic histogram: buckets, sum and count that have all labels but `le` in common.
#[derive(Debug, Default)]
pub struct Histogram<'f, 'a> {
    pub labels: Pairs<'a>,
    pub sum: Option<&'a str>,
    pub count: Option<&'a str>,
    /// Upper bounds, and the samples that count what is up to them.
    pub buckets: Vec<(&'f str, &'f Sample<'a>)>,
}

/// The families of text that this process wrote itself: nothing in it is surprising.
pub fn families(text: &str) -> Vec<Family<'_>> {
    let mut all: Vec<Family<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, name, rest) = (words.next(), words.next().unwrap_or(""), words.next().unwrap_or(""));
            if matches!(what, Some("HELP" | "TYPE")) && all.last().is_none_or(|f| f.name != name) {
                all.push(Family {
                    name: name.to_owned(),
                    kind: "unknown",
                    help: String::new(),
                    samples: Vec::new(),
                });
            }
            match (what, all.last_mut()) {
                (Some("HELP"), Some(family)) => family.help = unescaped(rest),
                (Some("TYPE"), Some(family)) => family.kind = rest,
                _ => {}
            }
        } else if let (Some(sample), Some(family)) = (sample(line), all.last_mut()) {
            family.samples.push(sample);
        }
    }
    for family in &mut all {
        family.name.push_str(match family.kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        });
    }
    all.retain(|f| !f.samples.is_empty());
    all
}

impl<'a> Family<'a> {
    /// The samples of a family of histograms, put together.
    pub fn histograms(&self) -> Vec<Histogram<'_, 'a>> {
        let mut all: Vec<Histogram<'_, 'a>> = Vec::new();
        for sample in &self.samples {
            let labels: Pairs<'a> = sample.labels.iter().filter(|(name, _)| *name != "le").cloned().collect();
            if all.last().is_none_or(|last| last.labels != labels) {
                all.push(Histogram { labels, ..Histogram::default() });
            }
            let Some(histogram) = all.last_mut() else { continue };
            match sample.name.strip_prefix(self.name.as_str()) {
                Some("_sum") => histogram.sum = Some(sample.value),
                Some("_count") => histogram.count = Some(sample.value),
                Some("_bucket") => {
                    let le = sample.labels.iter().find(|(name, _)| *name == "le");
                    histogram.buckets.push((le.map_or("+Inf", |(_, le)| le), sample));
                }
                _ => {}
            }
        }
        all
    }
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let (labels, rest) = labels(rest)?;
    let (value, exemplar) = match rest.split_once(" # ") {
        Some((value, exemplar)) => (value, self::exemplar(exemplar)),
        None => (rest, None),
    };
    Some(Sample { name, labels, value: value.split_whitespace().next()?, exemplar })
}

fn exemplar(text: &str) -> Option<Exemplar<'_>> {
    let (labels, rest) = labels(text)?;
    let mut words = rest.split_whitespace();
    Some(Exemplar { labels, value: words.next()?, time: words.next() })
}

/// The labels in braces, where there are any, and what is behind them.
fn labels(text: &str) -> Option<(Pairs<'_>, &str)> {
    let Some(mut rest) = text.strip_prefix('{') else { return Some((Vec::new(), text)) };
    let mut labels = Vec::new();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = unquoted(after)?;
        labels.push((name, value));
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                next => out.push(next.unwrap_or('\\')),
            },
            c => out.push(c),
        }
    }
    out
}

/// Up to the closing quote, and what is behind it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                c => out.push(c),
            },
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_metrics_are_read_back_with_their_exemplars() {
        let text = "# HELP a A # \"b\\\\n\\\".\n# TYPE a counter\na_total{l=\"x # {y\\\" # {\"} 1 # {trace_id=\"7 # \"} 1.5 2.25\na_total 2\n\
                    # TYPE h histogram\nh_sum{n=\"/\"} 0.5\nh_count{n=\"/\"} 3\nh_bucket{le=\"0.1\",n=\"/\"} 2 # {t=\"8\"} 0.05\n\
                    h_bucket{le=\"+Inf\",n=\"/\"} 3\n# TYPE d info\nd_info{v=\"1\"} 1\n# TYPE empty gauge\n# EOF\n";
        let all = families(text);
        let names: Vec<&str> = all.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["a_total", "h", "d_info"]);
        assert_eq!(all[0].help, "A # \"b\\n\".");
        let first = &all[0].samples[0];
        assert_eq!(first.labels, [("l", "x # {y\" # {".to_owned())]);
        let exemplar = first.exemplar.as_ref().unwrap();
        assert_eq!((exemplar.value, exemplar.time), ("1.5", Some("2.25")));
        assert_eq!(exemplar.labels, [("trace_id", "7 # ".to_owned())]);
        assert_eq!((all[0].samples[1].value, all[0].samples[1].exemplar.is_none()), ("2", true));
        let [histogram] = &all[1].histograms()[..] else { panic!("{all:?}") };
        assert_eq!((histogram.sum, histogram.count), (Some("0.5"), Some("3")));
        let bounds: Vec<_> = histogram.buckets.iter().map(|(le, s)| (*le, s.value)).collect();
        assert_eq!(bounds, [("0.1", "2"), ("+Inf", "3")]);
    }
}
