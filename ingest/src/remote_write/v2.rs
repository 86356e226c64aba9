//! Remote write 2.0: `io.prometheus.write.v2.Request`, whose strings stand once in a symbol table and are
//! referred to by number.
//!
//! Follows the [specification](https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/) and upstream's
//! `prompb/io/prometheus/write/v2/types.proto`; the start timestamp of whole series, field 6 of early release
//! candidates, is still read.

use std::collections::HashSet;

use model::keyed_hash::keyed_hash;
use model::labels::METRIC_NAME;
use model::tenant_limits::Limit;
use tsdb::head::LabelPairs;

use super::histogram;
use super::sink::Sink;
use super::v1::metric_kind;
use super::validate::{Float, Outcome, Validator, samples_limit, too_many_labels};
use super::walk::{Message, walk};
use super::wire::{BYTES, DecodeError, FIXED64, Fault, Reader, VARINT, key};
use crate::limits::Limits;
use crate::reject::Reason;

const SYMBOL: u32 = key(4, BYTES);
const TIMESERIES: u32 = key(5, BYTES);

const SERIES_REFS: u32 = key(1, BYTES);
const SERIES_REF: u32 = key(1, VARINT);
const SERIES_SAMPLE: u32 = key(2, BYTES);
const SERIES_HISTOGRAM: u32 = key(3, BYTES);
const SERIES_EXEMPLAR: u32 = key(4, BYTES);
const SERIES_METADATA: u32 = key(5, BYTES);
const SERIES_CREATED: u32 = key(6, VARINT);

const SAMPLE_VALUE: u32 = key(1, FIXED64);
const SAMPLE_TIMESTAMP: u32 = key(2, VARINT);
const SAMPLE_START: u32 = key(3, VARINT);

const EXEMPLAR_REFS: u32 = key(1, BYTES);
const EXEMPLAR_REF: u32 = key(1, VARINT);
const EXEMPLAR_VALUE: u32 = key(2, FIXED64);
const EXEMPLAR_TIMESTAMP: u32 = key(3, VARINT);

const META_TYPE: u32 = key(1, VARINT);
const META_HELP: u32 = key(3, VARINT);
const META_UNIT: u32 = key(4, VARINT);

/// Decodes `body` (an `io.prometheus.write.v2.Request`, no longer compressed) into `sink`.
///
/// Series and samples that break a rule are left out and told of in the outcome. A body that is not such a
/// message is an error, and then what the sink has seen so far must be thrown away; so is one that unfolds to
/// more than the sink has memory for.
pub fn decode(
    body: &[u8],
    limits: &Limits,
    now_ms: i64,
    sink: &mut impl Sink,
) -> Result<Outcome, DecodeError> {
    let mut validator = Validator::new(samples_limit(body), limits, now_ms, sink);
    validator.tells_of_exemplars = true;
    let decoded = symbols(body).and_then(|symbols| {
        validator.request_needs(symbols.bytes())?;
        let state = SeriesState::default();
        let mut request = Request { symbols, state, seen: HashSet::new(), last_seen: None };
        walk(body, &mut request, &mut validator)
    });
    match decoded {
        Ok(()) => Ok(validator.outcome),
        Err(fault) => Err(fault.within(body)),
    }
}

/// The strings of a request, each checked for UTF-8 once, however many series refer to it.
struct Symbols<'a> {
    texts: Vec<&'a str>,
    hashes: Vec<u64>,
    /// Those that are not UTF-8; their place above is held by an empty text.
    not_utf8: Vec<(u32, &'a [u8])>,
}

/// Why a reference leads nowhere.
enum Dangling<'a> {
    OutOfRange(u32),
    NotUtf8(&'a [u8]),
}

impl<'a> Symbols<'a> {
    fn get(&self, reference: u32) -> Result<&'a str, Dangling<'a>> {
        if !self.not_utf8.is_empty()
            && let Ok(at) = self.not_utf8.binary_search_by_key(&reference, |(i, _)| *i)
        {
            return Err(Dangling::NotUtf8(self.not_utf8[at].1));
        }
        self.texts.get(reference as usize).copied().ok_or(Dangling::OutOfRange(reference))
    }

    /// Memory of the table.
    fn bytes(&self) -> usize {
        self.texts.capacity() * size_of::<&str>()
            + self.hashes.capacity() * size_of::<u64>()
            + self.not_utf8.capacity() * size_of::<(u32, &[u8])>()
    }

    fn out_of_range(&self, reference: u32) -> String {
        format!("reference {reference} is outside of the table of {} symbols", self.texts.len())
    }
}

/// Reads the table first: nothing makes a sender put it before the series, though all do.
fn symbols<'a>(body: &'a [u8]) -> Result<Symbols<'a>, Fault> {
    // A symbol takes two bytes and its own, and another one where it is referred to; only empty ones, which
    // nobody needs twice, could come closer together and unfold to eight times their size.
    let limit = body.len() / 4 + 64;
    let mut symbols = Symbols { texts: Vec::new(), hashes: Vec::new(), not_utf8: Vec::new() };
    let mut r = Reader::new(body);
    while !r.is_empty() {
        match r.key()? {
            SYMBOL => {
                let bytes = r.bytes()?;
                if symbols.texts.len() >= limit {
                    return Err(Fault::new(r.here(), format!("more than {limit} symbols in so few bytes")));
                }
                let text = std::str::from_utf8(bytes).unwrap_or_else(|_| {
                    symbols.not_utf8.push((symbols.texts.len() as u32, bytes));
                    ""
                });
                symbols.texts.push(text);
                symbols.hashes.push(keyed_hash(bytes));
            }
            TIMESERIES => _ = r.bytes()?,
            other => r.skip(other, &[4, 5])?,
        }
    }
    Ok(symbols)
}

/// `io.prometheus.write.v2.Request`, its symbols read.
struct Request<'a> {
    symbols: Symbols<'a>,
    state: SeriesState<'a>,
    /// Metadata that was handed on already, by the address of the metric's name in the body: every series
    /// repeats its metric's.
    seen: HashSet<(usize, Meta)>,
    last_seen: Option<(usize, Meta)>,
}

impl<'a, S: Sink> Message<'a, S> for Request<'a> {
    const SERIES: u32 = TIMESERIES;

    /// The packed references a series begins with, none where it does not. The key is made of the symbols'
    /// hashes, because a request numbers its symbols as it likes.
    fn leading(&self, mut series: Reader<'a>) -> (&'a [u8], u64) {
        let refs = match series.key() {
            Ok(SERIES_REFS) => series.bytes().unwrap_or_default(),
            _ => &[],
        };
        let mut r = Reader::new(refs);
        let mut key = 0u64;
        while let Ok(n) = r.varint() {
            let hash = self.symbols.hashes.get(n as u32 as usize).copied();
            key = (key.rotate_left(23) ^ hash.unwrap_or(0)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        (refs, key)
    }

    fn same(&self, leading: &[u8], pairs: LabelPairs<'_>) -> bool {
        let mut r = Reader::new(leading);
        let texts = &self.symbols.texts;
        let mut next = || r.varint().ok().and_then(|n| texts.get(n as u32 as usize)).copied();
        for (name, value) in pairs {
            if next() != Some(name) || next() != Some(value) {
                return false;
            }
        }
        r.is_empty()
    }

    fn series(
        &mut self,
        series: Reader<'a>,
        leading: &'a [u8],
        known: bool,
        validator: &mut Validator<'a, '_, S>,
    ) -> Result<(), Fault> {
        self.state.known = known;
        self.state.leading = leading;
        read_series(series, validator, &mut self.state, &self.symbols)?;
        self.end_series(validator)?;
        self.state.clear();
        Ok(())
    }

    fn other(
        &mut self,
        key: u32,
        r: &mut Reader<'a>,
        _validator: &mut Validator<'a, '_, S>,
    ) -> Result<(), Fault> {
        match key {
            SYMBOL => r.bytes().map(drop),
            other => r.skip(other, &[4, 5]),
        }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Meta {
    kind: u32,
    help: u32,
    unit: u32,
}

/// What one series needs besides the validator's own vectors; kept from one to the next.
#[derive(Default)]
struct SeriesState<'a> {
    /// The series at hand is known, so that its labels need not be resolved.
    known: bool,
    /// The packed references its key was made of.
    leading: &'a [u8],
    /// Bytes of references read, packed or not: more than the leading ones mean that the key does not stand
    /// for all labels.
    ref_bytes: usize,
    refs: Vec<u32>,
    /// References beyond the limit of labels: counted, not kept.
    more_refs: usize,
    /// Of the exemplar at hand.
    exemplar_refs: Vec<u32>,
    bad_exemplar: Option<String>,
    meta: Meta,
    created_ms: i64,
}

impl SeriesState<'_> {
    fn reference(&mut self, reference: u32, limits: &Limits) {
        if self.refs.len() < 2 * limits.max_labels {
            self.refs.push(reference);
        } else {
            self.more_refs += 1;
        }
    }

    fn clear(&mut self) {
        self.known = false;
        self.leading = &[];
        self.ref_bytes = 0;
        self.refs.clear();
        self.more_refs = 0;
        self.bad_exemplar = None;
        self.meta = Meta::default();
        self.created_ms = 0;
    }
}

fn read_series<'a, S: Sink>(
    mut r: Reader<'a>,
    validator: &mut Validator<'a, '_, S>,
    state: &mut SeriesState<'a>,
    symbols: &Symbols<'a>,
) -> Result<(), Fault> {
    while !r.is_empty() {
        match r.key()? {
            SERIES_REFS => {
                let mut refs = r.message()?;
                state.ref_bytes += refs.here().len();
                while !refs.is_empty() {
                    state.reference(refs.varint()? as u32, validator.limits);
                }
            }
            SERIES_REF => {
                state.ref_bytes += 1;
                state.reference(r.varint()? as u32, validator.limits);
            }
            SERIES_SAMPLE => {
                let float = sample(r.message()?)?;
                validator.float(float, r.here())?;
            }
            SERIES_HISTOGRAM => {
                let histogram = histogram::read(r.message()?, validator.limits)?;
                validator.histogram(histogram, r.here())?;
            }
            SERIES_EXEMPLAR => {
                let (ts_ms, value) = exemplar(r.message()?, &mut state.exemplar_refs)?;
                exemplar_labels(&state.exemplar_refs, validator, symbols);
                if let Some(fault) = validator.end_exemplar(ts_ms, value, r.here())? {
                    state.bad_exemplar = Some(format!("an exemplar has {fault}"));
                }
            }
            // Not repeated: a second one is merged into the first, field by field.
            SERIES_METADATA => metadata(r.message()?, &mut state.meta)?,
            SERIES_CREATED => state.created_ms = r.varint()? as i64,
            other => r.skip(other, &[1, 2, 3, 4, 5, 6])?,
        }
    }
    Ok(())
}

fn sample(mut r: Reader<'_>) -> Result<Float, Fault> {
    let mut float = Float { ts_ms: 0, value: 0.0, start_ts_ms: 0 };
    while !r.is_empty() {
        match r.key()? {
            SAMPLE_VALUE => float.value = r.double()?,
            SAMPLE_TIMESTAMP => float.ts_ms = r.varint()? as i64,
            SAMPLE_START => float.start_ts_ms = r.varint()? as i64,
            other => r.skip(other, &[1, 2, 3])?,
        }
    }
    Ok(float)
}

/// Its references into `refs`; answers its timestamp and value.
fn exemplar(mut r: Reader<'_>, refs: &mut Vec<u32>) -> Result<(i64, f64), Fault> {
    let (mut ts_ms, mut value) = (0, 0.0);
    refs.clear();
    while !r.is_empty() {
        match r.key()? {
            EXEMPLAR_REFS => {
                let mut packed = r.message()?;
                while !packed.is_empty() {
                    refs.push(packed.varint()? as u32);
                }
            }
            EXEMPLAR_REF => refs.push(r.varint()? as u32),
            EXEMPLAR_VALUE => value = r.double()?,
            EXEMPLAR_TIMESTAMP => ts_ms = r.varint()? as i64,
            other => r.skip(other, &[1, 2, 3])?,
        }
    }
    Ok((ts_ms, value))
}

/// Hands an exemplar's labels to the validator, or what is wrong with them.
fn exemplar_labels<'a, S: Sink>(refs: &[u32], validator: &mut Validator<'a, '_, S>, symbols: &Symbols<'a>) {
    let (pairs, odd) = refs.as_chunks::<2>();
    if !odd.is_empty() {
        return validator.exemplar_fault("an odd number of label references");
    }
    for [name, value] in pairs {
        match (symbols.get(*name), symbols.get(*value)) {
            (Ok(name), Ok(value)) => validator.exemplar_label_str(name, value),
            (Err(Dangling::OutOfRange(r)), _) | (_, Err(Dangling::OutOfRange(r))) => {
                validator.exemplar_fault(symbols.out_of_range(r));
            }
            (Err(Dangling::NotUtf8(_)), _) | (_, Err(Dangling::NotUtf8(_))) => {
                validator.exemplar_fault("a label that is not UTF-8");
            }
        }
    }
}

fn metadata(mut r: Reader<'_>, meta: &mut Meta) -> Result<(), Fault> {
    while !r.is_empty() {
        match r.key()? {
            META_TYPE => meta.kind = r.varint()? as u32,
            META_HELP => meta.help = r.varint()? as u32,
            META_UNIT => meta.unit = r.varint()? as u32,
            other => r.skip(other, &[1, 3, 4])?,
        }
    }
    Ok(())
}

/// Why a series is refused as a whole, in words.
type Problem = (Reason, String);

/// A series' metadata with its references resolved.
enum MetaTexts<'a> {
    Texts {
        help: &'a str,
        unit: &'a str,
    },
    /// Help that cannot be read is no reason to lose samples, but the answer names it.
    NotUtf8,
}

impl<'a> Request<'a> {
    /// Resolves the references and hands the series on, or refuses it alone.
    fn end_series<S: Sink>(&mut self, validator: &mut Validator<'a, '_, S>) -> Result<(), Fault> {
        let state = &mut self.state;
        let wants_labels = state.known && (validator.wants_labels() || state.bad_exemplar.is_some());
        if state.ref_bytes != state.leading.len() || wants_labels {
            validator.unknown();
            state.known = false;
        }
        let mut problem = None;
        // What is known was compared label by label: its references are good.
        if !state.known {
            problem = resolve_labels(&state.refs, validator, &self.symbols).err();
        }
        problem = count_problem(state, validator, problem);
        let texts = match meta_texts(state.meta, &self.symbols) {
            Ok(texts) => Some(texts),
            Err(why) => {
                problem.get_or_insert((Reason::BadReference, why));
                None
            }
        };
        if let Some(why) = state.bad_exemplar.take() {
            validator.refuse_exemplar(&why);
        }
        validator.default_start(state.created_ms);
        let metric = metric_name(state, validator, &self.symbols);
        if matches!(texts, Some(MetaTexts::NotUtf8)) && problem.is_none() {
            validator.refuse_metadata(metric.unwrap_or_default(), "its help or unit is not UTF-8");
        }
        if let Some((reason, why)) = problem {
            if state.known {
                // Their names are wanted for the answer.
                _ = resolve_labels(&state.refs, validator, &self.symbols);
            }
            if reason == Reason::TooManyLabels {
                validator.ran_into(Limit::MaxLabelNames);
            }
            validator.refuse_series(reason, &why);
            return Ok(());
        }
        let meta = state.meta;
        if validator.end_series()?
            && let (Some(metric), Some(MetaTexts::Texts { help, unit })) = (metric, texts)
            && (meta.kind != 0 || !help.is_empty() || !unit.is_empty())
        {
            let entry = (metric.as_ptr() as usize, meta);
            if self.last_seen != Some(entry) && self.seen.insert(entry) {
                let kind = metric_kind(meta.kind);
                validator.metadata(family_of(metric, kind), kind, help, unit)?;
            }
            self.last_seen = Some(entry);
        }
        Ok(())
    }
}

/// Hands the labels that references stand for to the validator; what is wrong with the first that lead
/// nowhere.
fn resolve_labels<'a, S: Sink>(
    refs: &[u32],
    validator: &mut Validator<'a, '_, S>,
    symbols: &Symbols<'a>,
) -> Result<(), Problem> {
    let mut problem = Ok(());
    for pair in refs.chunks_exact(2) {
        match (symbols.get(pair[0]), symbols.get(pair[1])) {
            (Ok(name), Ok(value)) => validator.label_str(name, value),
            (Err(Dangling::NotUtf8(bytes)), _) | (_, Err(Dangling::NotUtf8(bytes))) => {
                validator.label_not_utf8(bytes)
            }
            (Err(Dangling::OutOfRange(r)), _) | (_, Err(Dangling::OutOfRange(r))) => {
                problem = problem.and(Err((Reason::BadReference, symbols.out_of_range(r))));
            }
        }
    }
    problem
}

/// What is wrong with how many references, samples and exemplars a series has.
fn count_problem<S: Sink>(
    state: &SeriesState<'_>,
    validator: &Validator<'_, '_, S>,
    of_labels: Option<Problem>,
) -> Option<Problem> {
    let refs = state.refs.len() + state.more_refs;
    if !refs.is_multiple_of(2) {
        return Some((Reason::BadReference, format!("{refs} label references, which do not make pairs")));
    }
    if state.more_refs > 0 {
        let why = too_many_labels(refs / 2, validator.limits);
        return Some((Reason::TooManyLabels, why));
    }
    // Upstream's sender puts exemplars into series of their own, so that one with nothing but exemplars is no
    // fault.
    if of_labels.is_none() && validator.pending() == 0 && state.bad_exemplar.is_none() {
        return Some((Reason::EmptySeries, "neither samples nor histograms nor exemplars".into()));
    }
    of_labels
}

/// The texts that metadata refers to, or which reference leads nowhere.
fn meta_texts<'a>(meta: Meta, symbols: &Symbols<'a>) -> Result<MetaTexts<'a>, String> {
    match (symbols.get(meta.help), symbols.get(meta.unit)) {
        (Ok(help), Ok(unit)) => Ok(MetaTexts::Texts { help, unit }),
        (Err(Dangling::OutOfRange(r)), _) | (_, Err(Dangling::OutOfRange(r))) => {
            Err(format!("metadata: {}", symbols.out_of_range(r)))
        }
        (Err(Dangling::NotUtf8(_)), _) | (_, Err(Dangling::NotUtf8(_))) => Ok(MetaTexts::NotUtf8),
    }
}

/// The metric's name of the series at hand, whose labels were not resolved where it is known.
fn metric_name<'a, S: Sink>(
    state: &SeriesState<'a>,
    validator: &Validator<'a, '_, S>,
    symbols: &Symbols<'a>,
) -> Option<&'a str> {
    if !state.known {
        return validator.metric_name();
    }
    let named = |p: &&[u32]| symbols.texts.get(p[0] as usize) == Some(&METRIC_NAME);
    state.refs.chunks_exact(2).find(named).and_then(|p| symbols.texts.get(p[1] as usize).copied())
}

/// The name that metadata is known by: 2.0 attaches it to each series, of which classic histograms and
/// summaries have several kinds.
fn family_of<'a>(metric: &'a str, kind: &str) -> &'a str {
    let suffixes: &[&str] = match kind {
        "histogram" => &["_bucket", "_count", "_sum"],
        "gaugehistogram" => &["_bucket", "_gcount", "_gsum"],
        "summary" => &["_count", "_sum"],
        _ => &[],
    };
    suffixes.iter().find_map(|s| metric.strip_suffix(s)).filter(|rest| !rest.is_empty()).unwrap_or(metric)
}
