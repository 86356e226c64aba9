//! Series descriptions, the small language in which test scripts write samples:
//! `up{job="a"} 1+2x3 _ stale {{schema:1 sum:3}}`.
//!
//! The language is that of the unit testing rules in Prometheus' documentation, with start timestamps
//! (`metric@st -1mx5`) as `promql/promqltest` of release 3.14 reads them.

use model::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Histogram};
use model::labels::{Labels, LabelsBuilder};
use model::sample::stale_nan;

use super::ast::{BinaryOp, Span};
use super::grammar::{Parse, Parser, Stop};
use super::number::parse_duration_ns;
use super::token::{HistKey, Kind, ResetHint};
use super::{ParseError, ParseOptions};

/// A series and what stands at each step.
#[derive(Clone, Debug)]
pub struct SeriesDescription {
    pub labels: Labels,
    pub items: Vec<SequenceItem>,
}

/// One item of the sequence, not yet repeated: a script may ask for more values than there is memory.
#[derive(Clone, Debug)]
pub enum SequenceItem {
    /// So many gaps.
    Gaps(u64),
    /// `values` numbers, each `step` more than the one before. `stale` is the staleness marker.
    Floats { first: f64, step: f64, values: u64 },
    /// `values` histograms, each with `step` added or (`subtract`) taken away once more.
    Histograms {
        first: Box<Histogram>,
        /// Whether the description says what its counter-reset hint is; otherwise any hint will do when
        /// results are compared.
        hint_set: bool,
        step: Option<HistogramStep>,
        values: u64,
    },
}

/// What changes from one histogram to the next.
#[derive(Clone, Debug)]
pub struct HistogramStep {
    pub change: Box<Histogram>,
    pub subtract: bool,
}

/// What stands at one step of the sequence.
#[derive(Clone, Debug)]
pub enum SequenceValue {
    Gap,
    Float(f64),
    Histogram { value: Box<Histogram>, hint_set: bool },
}

impl SeriesDescription {
    /// How many steps the sequence has.
    pub fn steps(&self) -> u64 {
        self.items
            .iter()
            .map(|item| match item {
                SequenceItem::Gaps(n) => *n,
                SequenceItem::Floats { values, .. } | SequenceItem::Histograms { values, .. } => *values,
            })
            .fold(0, u64::saturating_add)
    }

    /// The sequence step by step. `combine(a, b, subtract)` adds two histograms or subtracts the second; it
    /// is asked only for sequences like `{{…}}+{{…}}x3`. Sequences of more than `max_steps` are refused.
    pub fn expand(
        &self,
        max_steps: u64,
        mut combine: impl FnMut(&Histogram, &Histogram, bool) -> Result<Histogram, String>,
    ) -> Result<Vec<SequenceValue>, String> {
        let steps = self.steps();
        if steps > max_steps {
            return Err(format!("series has {steps} values, at most {max_steps} are allowed"));
        }
        let mut out = Vec::with_capacity(steps as usize);
        for item in &self.items {
            match item {
                SequenceItem::Gaps(n) => out.extend((0..*n).map(|_| SequenceValue::Gap)),
                SequenceItem::Floats { first, step, values } => {
                    let mut v = *first;
                    for _ in 0..*values {
                        out.push(SequenceValue::Float(v));
                        // Only where there is a step: a staleness marker plus zero is another NaN.
                        if *step != 0.0 {
                            v += step;
                        }
                    }
                }
                SequenceItem::Histograms { first, hint_set, step, values } => {
                    let mut now = first.clone();
                    for at in 0..*values {
                        if at > 0
                            && let Some(step) = step
                        {
                            if now.schema > step.change.schema {
                                return Err(format!(
                                    "error combining histograms: cannot merge from schema {} to {}",
                                    step.change.schema, now.schema
                                ));
                            }
                            *now = combine(&now, &step.change, step.subtract)?;
                        }
                        out.push(SequenceValue::Histogram { value: now.clone(), hint_set: *hint_set });
                    }
                }
            }
        }
        Ok(out)
    }
}

/// Reads one line of a `load` block or of an expected result.
pub fn parse_series_description(line: &str) -> Result<SeriesDescription, ParseError> {
    let options = ParseOptions { max_text_bytes: 1 << 20, ..ParseOptions::all() };
    let mut parser = match Parser::new(line, &options, true) {
        Ok(parser) => parser,
        Err(stop) => return Err(super::stopped(stop)),
    };
    parser.series().map_err(|stop| parser.finish(stop))
}

/// Start timestamps of a series, as `metric{labels}@st -1mx5 _ 30s+1mx3` gives them for the line that
/// follows: one per step, `None` for a gap, else milliseconds relative to the sample's timestamp.
#[derive(Clone, Debug, PartialEq)]
pub struct StartTimestamps {
    pub labels: Labels,
    pub offsets_ms: Vec<Option<i64>>,
}

/// Reads a start-timestamp line; `None` where the line is none.
pub fn parse_start_timestamps(line: &str, max_steps: usize) -> Option<Result<StartTimestamps, String>> {
    let line = line.trim();
    let (head, sequence) = line.split_once([' ', '\t'])?;
    let series = head.strip_suffix("@st")?;
    Some((|| {
        let labels = parse_series_description(&format!("{series} _"))
            .map_err(|e| format!("invalid @st line metric {series:?}: {e}"))?
            .labels;
        let mut offsets_ms = Vec::new();
        for item in sequence.split_whitespace() {
            push_start_item(&mut offsets_ms, item, max_steps)
                .map_err(|e| format!("invalid @st sequence: invalid ST item {item:?}: {e}"))?;
        }
        Ok(StartTimestamps { labels, offsets_ms })
    })())
}

fn push_start_item(out: &mut Vec<Option<i64>>, item: &str, max_steps: usize) -> Result<(), String> {
    let count = |text: &str| -> Result<usize, String> {
        let n: usize = text.parse().map_err(|_| "invalid repeat count")?;
        if n.saturating_add(out.len()) >= max_steps {
            return Err(format!("more than {max_steps} values"));
        }
        Ok(n)
    };
    if item == "_" {
        out.push(None);
        return Ok(());
    }
    if let Some(n) = item.strip_prefix("_x") {
        let n = count(n)?;
        if n == 0 {
            return Err("invalid repeat count".into());
        }
        out.extend((0..n).map(|_| None));
        return Ok(());
    }
    let (base, rest) = duration_prefix_ms(item)?;
    let (step, times) = match rest.chars().next() {
        None => (0, 0),
        Some('x') => (0, count(&rest[1..])?),
        Some(sign @ ('+' | '-')) => {
            let (step, rest) =
                duration_prefix_ms(&rest[1..]).map_err(|e| format!("invalid step duration: {e}"))?;
            let times = rest.strip_prefix('x').ok_or("expected 'x<count>' after step duration")?;
            (if sign == '-' { -step } else { step }, count(times)?)
        }
        Some(other) => return Err(format!("unexpected character {other:?} after duration")),
    };
    out.extend((0..=times as i64).map(|i| Some(base.saturating_add(step.saturating_mul(i)))));
    Ok(())
}

/// A duration with or without a sign at the start of the text, in milliseconds, and what follows it.
fn duration_prefix_ms(text: &str) -> Result<(i64, &str), String> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = unsigned.find(|c: char| !c.is_ascii_digit()).unwrap_or(unsigned.len());
    if digits == 0 {
        return Err(format!("expected digits in duration {text:?}"));
    }
    // `x` counts repetitions and is in no unit.
    let unit = unsigned[digits..]
        .find(|c: char| !c.is_ascii_alphabetic() || c == 'x')
        .unwrap_or(unsigned.len() - digits);
    let (duration, rest) = unsigned.split_at(digits + unit);
    let ns = parse_duration_ns(duration).map_err(|e| format!("invalid duration {duration:?}: {e}"))?;
    let ms = (ns / 1_000_000) as i64;
    Ok((if text.starts_with('-') { -ms } else { ms }, rest))
}

/// The keys of one histogram description, each at most once.
#[derive(Default)]
struct Keys {
    seen: Vec<HistKey>,
    histogram: Histogram,
    offset: i32,
    negative_offset: i32,
}

impl Parser<'_> {
    fn series(&mut self) -> Parse<SeriesDescription> {
        let labels = self.metric()?;
        let mut items = Vec::new();
        loop {
            if self.token.kind == Kind::Eof {
                return Ok(SeriesDescription { labels, items });
            }
            if self.bump_if(Kind::Space).is_none() {
                return self.in_context(Err(Stop::Unexpected), "series values", "");
            }
            if matches!(self.token.kind, Kind::Space | Kind::Eof) {
                continue;
            }
            let item = self.item();
            items.push(self.in_context(item, "series values", "")?);
        }
    }

    fn metric(&mut self) -> Parse<Labels> {
        let mut labels = LabelsBuilder::default();
        let mut named = None;
        if self.is_metric_name() {
            let name = self.bump();
            named = Some(self.raw(name));
        }
        if self.bump_if(Kind::LeftBrace).is_some() {
            while self.bump_if(Kind::RightBrace).is_none() {
                self.label(&mut labels)?;
                if self.bump_if(Kind::Comma).is_none() && self.token.kind != Kind::RightBrace {
                    return self.unworded("label set", "\",\" or \"}\"");
                }
            }
        }
        if let Some(name) = named {
            labels.set("__name__", name);
        }
        Ok(labels.build())
    }

    fn unworded<T>(&self, context: &str, expected: &str) -> Parse<T> {
        self.in_context(Err(Stop::Unexpected), context, expected)
    }

    fn label(&mut self, labels: &mut LabelsBuilder) -> Parse<()> {
        const CONTEXT: &str = "label set";
        let token = self.token;
        let name = match token.kind {
            Kind::Identifier => {
                self.bump();
                self.raw(token).to_string()
            }
            Kind::Str => {
                self.bump();
                self.unquote_text(token)?
            }
            _ => return self.unworded(CONTEXT, "identifier or \"}\""),
        };
        if self.bump_if(Kind::Equal).is_none() {
            if token.kind == Kind::Str {
                labels.set("__name__", &name);
                return Ok(());
            }
            return self.unworded(CONTEXT, "\"=\"");
        }
        let Some(value) = self.bump_if(Kind::Str) else {
            return self.unworded(CONTEXT, "string");
        };
        let value = self.unquote_text(value)?;
        labels.set(&name, &value);
        Ok(())
    }

    fn item(&mut self) -> Parse<SequenceItem> {
        let token = self.token;
        match token.kind {
            Kind::Blank => {
                self.bump();
                Ok(SequenceItem::Gaps(self.times()?.unwrap_or(1)))
            }
            Kind::OpenHist => {
                let (first, mut hint_set) = self.histogram()?;
                let step = match self.token.kind {
                    Kind::Op(op @ (BinaryOp::Add | BinaryOp::Sub)) => {
                        self.bump();
                        if self.token.kind != Kind::OpenHist {
                            return Err(Stop::Unexpected);
                        }
                        let (change, change_hint) = self.histogram()?;
                        hint_set = change_hint;
                        if self.token.kind != Kind::Times {
                            return Err(Stop::Unexpected);
                        }
                        Some(HistogramStep { change: Box::new(change), subtract: op == BinaryOp::Sub })
                    }
                    _ => None,
                };
                // The value at time zero comes on top.
                let values = self.times()?.map_or(1, |n| n.saturating_add(1));
                Ok(SequenceItem::Histograms { first: Box::new(first), hint_set, step, values })
            }
            _ => {
                let first = match token.kind {
                    Kind::Identifier => {
                        self.bump();
                        if self.raw(token) != "stale" {
                            return self.fail(
                                token.span(),
                                format!(
                                    "unexpected {} in series values, expected number or \"stale\"",
                                    super::token::describe(token, self.text())
                                ),
                            );
                        }
                        stale_nan()
                    }
                    _ => self.signed_number()?,
                };
                let step = match self.token.kind {
                    Kind::Op(BinaryOp::Add | BinaryOp::Sub) => {
                        let step = self.signed_number()?;
                        if self.token.kind != Kind::Times {
                            return Err(Stop::Unexpected);
                        }
                        step
                    }
                    _ => 0.0,
                };
                let values = self.times()?.map_or(1, |n| n.saturating_add(1));
                Ok(SequenceItem::Floats { first, step, values })
            }
        }
    }

    /// `x5`, if there is one.
    fn times(&mut self) -> Parse<Option<u64>> {
        if self.bump_if(Kind::Times).is_none() {
            return Ok(None);
        }
        let token = self.expect(Kind::Number)?;
        match self.raw(token).parse() {
            Ok(n) => Ok(Some(n)),
            Err(_) => self.fail(
                token.span(),
                format!("invalid repetition in series values: {}", model::quote::quote(self.raw(token))),
            ),
        }
    }

    /// `{{…}}`, and whether it says what its counter-reset hint is.
    fn histogram(&mut self) -> Parse<(Histogram, bool)> {
        self.expect(Kind::OpenHist)?;
        let mut keys = Keys::default();
        loop {
            while self.bump_if(Kind::Space).is_some() {}
            if self.bump_if(Kind::CloseHist).is_some() {
                break;
            }
            let Kind::HistKey(key) = self.token.kind else {
                return self
                    .unworded("histogram description", "histogram description key, e.g. buckets:[5 10 7]");
            };
            let key_token = self.bump();
            if keys.seen.contains(&key) {
                return self
                    .fail(key_token.span(), format!("duplicate key \"{}\" in histogram", key.as_str()));
            }
            keys.seen.push(key);
            let entry = self.histogram_entry(key, &mut keys);
            self.in_context(
                entry,
                "histogram description",
                "histogram description key, e.g. buckets:[5 10 7]",
            )?;
        }
        let Keys { seen, mut histogram, offset, negative_offset } = keys;
        let spans = |buckets: &[f64], offset: i32| match u32::try_from(buckets.len()) {
            Ok(length) if length > 0 => vec![BucketSpan { offset, length }],
            _ => Vec::new(),
        };
        histogram.positive_spans = spans(&histogram.positive_buckets, offset);
        histogram.negative_spans = spans(&histogram.negative_buckets, negative_offset);
        if histogram.schema == CUSTOM_BUCKETS_SCHEMA && histogram.custom_values.is_none() {
            histogram.custom_values = Some([].into());
        }
        Ok((histogram, seen.contains(&HistKey::CounterResetHint)))
    }

    fn histogram_entry(&mut self, key: HistKey, keys: &mut Keys) -> Parse<()> {
        self.expect(Kind::Colon)?;
        let h = &mut keys.histogram;
        match key {
            HistKey::Schema => h.schema = self.int()?,
            HistKey::Sum => h.sum = self.signed_number()?,
            HistKey::Count => h.count = self.signed_number()?,
            HistKey::ZeroBucket => h.zero_count = self.signed_number()?,
            HistKey::ZeroBucketWidth => h.zero_threshold = self.number_literal()?.value,
            HistKey::CustomValues => h.custom_values = Some(self.bucket_list()?.into()),
            HistKey::Buckets => h.positive_buckets = self.bucket_list()?,
            HistKey::NegativeBuckets => h.negative_buckets = self.bucket_list()?,
            HistKey::Offset => keys.offset = self.int()?,
            HistKey::NegativeOffset => keys.negative_offset = self.int()?,
            HistKey::CounterResetHint => {
                let Kind::ResetHint(hint) = self.token.kind else {
                    return Err(Stop::Unexpected);
                };
                self.bump();
                h.counter_reset_hint = match hint {
                    ResetHint::Unknown => CounterResetHint::Unknown,
                    ResetHint::Reset => CounterResetHint::CounterReset,
                    ResetHint::NotReset => CounterResetHint::NotCounterReset,
                    ResetHint::Gauge => CounterResetHint::Gauge,
                };
            }
        }
        Ok(())
    }

    fn int(&mut self) -> Parse<i32> {
        let negative = self.bump_if(Kind::Op(BinaryOp::Sub)).is_some();
        let token = self.expect(Kind::Number)?;
        match self.raw(token).parse::<i32>() {
            Ok(n) => Ok(if negative { -n } else { n }),
            Err(_) => self.fail(
                Span { start: token.start, end: token.end },
                format!("invalid integer in histogram description: {}", model::quote::quote(self.raw(token))),
            ),
        }
    }

    fn bucket_list(&mut self) -> Parse<Vec<f64>> {
        self.expect(Kind::LeftBracket)?;
        let mut values = Vec::new();
        loop {
            values.push(self.signed_number()?);
            let spaced = self.bump_if(Kind::Space).is_some();
            if self.bump_if(Kind::RightBracket).is_some() {
                return Ok(values);
            }
            if !spaced {
                return Err(Stop::Unexpected);
            }
        }
    }
}
