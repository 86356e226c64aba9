//! Remote write 2.0: `io.prometheus.write.v2.Request`, whose strings stand once in a symbol table and are referred to by number.
//!
//! Follows the [specification](https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/) and upstream's
//! `prompb/io/prometheus/write/v2/types.proto`; the start timestamp of whole series, field 6 of early release candidates, is still read.

use std::collections::HashSet;

use model::labels::METRIC_NAME;
use tsdb::head::LabelPairs;
use xxhash_rust::xxh3::xxh3_64;

use super::histogram;
use super::sink::Sink;
use super::v1::metric_kind;
use super::validate::{Float, Outcome, Validator, samples_limit};
use super::wire::{BYTES, FIXED64, Fault, Malformed, Reader, VARINT, key};
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
/// Series and samples that break a rule are left out and told of in the outcome. A body that is not such a message is an error, and then
/// what the sink has seen so far must be thrown away.
pub fn decode(body: &[u8], limits: &Limits, now_ms: i64, sink: &mut impl Sink) -> Result<Outcome, Malformed> {
    let mut validator = Validator::new(samples_limit(body), limits, now_ms, sink);
    validator.tells_of_exemplars = true;
    match request(body, &mut validator) {
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

    fn out_of_range(&self, reference: u32) -> String {
        format!("reference {reference} is outside of the table of {} symbols", self.texts.len())
    }
}

/// Reads the table first: nothing makes a sender put it before the series, though all do.
fn symbols<'a>(body: &'a [u8]) -> Result<Symbols<'a>, Fault> {
    // A symbol takes two bytes and its own, and another one where it is referred to; only empty ones, which nobody needs twice,
    // could come closer together and unfold to eight times their size.
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
                symbols.hashes.push(xxh3_64(bytes));
            }
            TIMESERIES => _ = r.bytes()?,
            other => r.skip(other, &[4, 5])?,
        }
    }
    Ok(symbols)
}

fn request<'a, S: Sink>(body: &'a [u8], validator: &mut Validator<'a, '_, S>) -> Result<(), Fault> {
    let symbols = symbols(body)?;
    let mut scratch = Scratch::default();
    let mut r = Reader::new(body);
    let mut prefetch = Prefetch { rest: r, keys: Vec::new(), refs: Vec::new() };
    let mut at = usize::MAX;
    while !r.is_empty() {
        match r.key()? {
            TIMESERIES => {
                let message = r.message()?;
                if at >= prefetch.keys.len() {
                    prefetch.look_ahead(&symbols);
                    validator.lookup(&prefetch.keys, |i, pairs| same(prefetch.refs[i], &symbols, pairs));
                    at = 0;
                }
                if let Some(key) = prefetch.keys.get(at) {
                    scratch.known = validator.begin(at, *key);
                    scratch.leading = prefetch.refs[at];
                }
                at += 1;
                series(message, validator, &mut scratch, &symbols)?;
                end_series(validator, &mut scratch, &symbols);
            }
            SYMBOL => _ = r.bytes()?,
            other => r.skip(other, &[4, 5])?,
        }
    }
    Ok(())
}

/// Goes through the body some series ahead of the validator, so that many are looked up at once.
struct Prefetch<'a> {
    rest: Reader<'a>,
    keys: Vec<u64>,
    /// The packed references that each series begins with, empty where it does not.
    refs: Vec<&'a [u8]>,
}

/// Series that are looked up together: enough to share the locks, few enough for the nearest cache.
const AHEAD: usize = 512;

impl Prefetch<'_> {
    /// The next series; at least one where the validator has found one. A fault ends it early: the validator will come to it and say so.
    fn look_ahead(&mut self, symbols: &Symbols<'_>) {
        self.keys.clear();
        self.refs.clear();
        while !self.rest.is_empty() && self.keys.len() < AHEAD {
            let Ok(key) = self.rest.key() else { return };
            if key != TIMESERIES {
                if self.rest.skip(key, &[]).is_err() {
                    return;
                }
                continue;
            }
            let Ok(mut series) = self.rest.message() else { return };
            let refs = match series.key() {
                Ok(SERIES_REFS) => series.bytes().unwrap_or_default(),
                _ => &[],
            };
            self.keys.push(key_of(refs, symbols));
            self.refs.push(refs);
        }
    }
}

/// A key made of the symbols' hashes, because a request numbers its symbols as it likes.
fn key_of(refs: &[u8], symbols: &Symbols<'_>) -> u64 {
    let mut r = Reader::new(refs);
    let mut key = 0u64;
    while let Ok(n) = r.varint() {
        let hash = symbols.hashes.get(n as u32 as usize).copied();
        key = (key.rotate_left(23) ^ hash.unwrap_or(0)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    key
}

/// Whether these references are these labels, and nothing else.
fn same(refs: &[u8], symbols: &Symbols<'_>, pairs: LabelPairs<'_>) -> bool {
    let mut r = Reader::new(refs);
    let mut next = || r.varint().ok().and_then(|n| symbols.texts.get(n as u32 as usize)).copied();
    for (name, value) in pairs {
        if next() != Some(name) || next() != Some(value) {
            return false;
        }
    }
    r.is_empty()
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Meta {
    kind: u32,
    help: u32,
    unit: u32,
}

/// What one series needs beside the validator's own vectors; kept from one to the next.
#[derive(Default)]
struct Scratch<'a> {
    /// The series at hand is known, so that its labels need not be resolved.
    known: bool,
    /// The packed references its key was made of.
    leading: &'a [u8],
    /// Bytes of references read, packed or not: more than the leading ones mean that the key does not stand for all labels.
    ref_bytes: usize,
    refs: Vec<u32>,
    /// References beyond the limit of labels: counted, not kept.
    more_refs: usize,
    /// Of the exemplar at hand.
    exemplar_refs: Vec<u32>,
    bad_exemplar: Option<String>,
    meta: Meta,
    created_ms: i64,
    /// What was handed on already, by the address of the metric's name in the body: every series repeats its metric's metadata.
    seen: HashSet<(usize, Meta)>,
    last_seen: Option<(usize, Meta)>,
}

impl Scratch<'_> {
    fn reference(&mut self, reference: u32, limits: &Limits) {
        if self.refs.len() < 2 * limits.max_labels {
            self.refs.push(reference);
        } else {
            self.more_refs += 1;
        }
    }
}

fn series<'a, S: Sink>(
    mut r: Reader<'a>,
    validator: &mut Validator<'a, '_, S>,
    scratch: &mut Scratch<'a>,
    symbols: &Symbols<'a>,
) -> Result<(), Fault> {
    while !r.is_empty() {
        match r.key()? {
            SERIES_REFS => {
                let mut refs = r.message()?;
                scratch.ref_bytes += refs.here().len();
                while !refs.is_empty() {
                    scratch.reference(refs.varint()? as u32, validator.limits);
                }
            }
            SERIES_REF => {
                scratch.ref_bytes += 1;
                scratch.reference(r.varint()? as u32, validator.limits);
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
                let (ts_ms, value) = exemplar(r.message()?, &mut scratch.exemplar_refs)?;
                exemplar_labels(&scratch.exemplar_refs, validator, symbols);
                if let Some(fault) = validator.end_exemplar(ts_ms, value, r.here())? {
                    scratch.bad_exemplar = Some(format!("an exemplar has {fault}"));
                }
            }
            // Not repeated: a second one is merged into the first, field by field.
            SERIES_METADATA => metadata(r.message()?, &mut scratch.meta)?,
            SERIES_CREATED => scratch.created_ms = r.varint()? as i64,
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

/// Resolves the references and hands the series on, or refuses it alone.
fn end_series<'a, S: Sink>(
    validator: &mut Validator<'a, '_, S>,
    scratch: &mut Scratch<'a>,
    symbols: &Symbols<'a>,
) {
    let mut problem = None;
    if scratch.ref_bytes != scratch.leading.len() {
        validator.unknown();
        scratch.known = false;
    }
    if scratch.known && (validator.wants_labels() || scratch.bad_exemplar.is_some()) {
        validator.unknown();
        scratch.known = false;
    }
    // What is known was compared label by label: its references are good.
    let unresolved = if scratch.known { &[][..] } else { &scratch.refs[..] };
    for pair in unresolved.chunks_exact(2) {
        match (symbols.get(pair[0]), symbols.get(pair[1])) {
            (Ok(name), Ok(value)) => validator.label_str(name, value),
            (Err(Dangling::NotUtf8(bytes)), _) | (_, Err(Dangling::NotUtf8(bytes))) => {
                validator.label_not_utf8(bytes)
            }
            (Err(Dangling::OutOfRange(r)), _) | (_, Err(Dangling::OutOfRange(r))) => {
                problem.get_or_insert_with(|| (Reason::BadReference, symbols.out_of_range(r)));
            }
        }
    }
    let refs = scratch.refs.len() + scratch.more_refs;
    if !refs.is_multiple_of(2) {
        problem = Some((Reason::BadReference, format!("{refs} label references, which do not make pairs")));
    } else if scratch.more_refs > 0 {
        let why =
            format!("{} labels, more than {} (ingest.max_labels)", refs / 2, validator.limits.max_labels);
        problem = Some((Reason::TooManyLabels, why));
    }
    // Upstream's sender puts exemplars into series of their own, so that one with nothing but exemplars is no fault.
    if problem.is_none() && validator.pending() == 0 && scratch.bad_exemplar.is_none() {
        problem = Some((Reason::EmptySeries, "neither samples nor histograms nor exemplars".into()));
    }
    let meta = std::mem::take(&mut scratch.meta);
    let mut bad_metadata = false;
    let texts = match (symbols.get(meta.help), symbols.get(meta.unit)) {
        (Ok(help), Ok(unit)) => Some((help, unit)),
        (Err(Dangling::OutOfRange(r)), _) | (_, Err(Dangling::OutOfRange(r))) => {
            problem.get_or_insert_with(|| {
                (Reason::BadReference, format!("metadata: {}", symbols.out_of_range(r)))
            });
            None
        }
        // Help that cannot be read is no reason to lose samples, but it is told of.
        (Err(Dangling::NotUtf8(_)), _) | (_, Err(Dangling::NotUtf8(_))) => {
            bad_metadata = true;
            None
        }
    };
    if let Some(why) = scratch.bad_exemplar.take() {
        validator.refuse_exemplar(&why);
    }
    validator.default_start(scratch.created_ms);
    let metric = if scratch.known {
        let named = |p: &&[u32]| symbols.texts.get(p[0] as usize) == Some(&METRIC_NAME);
        scratch.refs.chunks_exact(2).find(named).and_then(|p| symbols.texts.get(p[1] as usize).copied())
    } else {
        validator.metric_name()
    };
    if bad_metadata && problem.is_none() {
        validator.refuse_metadata(metric.unwrap_or_default(), "its help or unit is not UTF-8");
    }
    match problem {
        Some((reason, why)) => {
            if scratch.known {
                // Their names are wanted for the answer.
                for pair in scratch.refs.chunks_exact(2) {
                    if let (Ok(name), Ok(value)) = (symbols.get(pair[0]), symbols.get(pair[1])) {
                        validator.label_str(name, value);
                    }
                }
            }
            validator.refuse_series(reason, &why)
        }
        None => {
            if validator.end_series()
                && let (Some(metric), Some((help, unit))) = (metric, texts)
                && (meta.kind != 0 || !help.is_empty() || !unit.is_empty())
            {
                let entry = (metric.as_ptr() as usize, meta);
                if scratch.last_seen != Some(entry) && scratch.seen.insert(entry) {
                    let kind = metric_kind(meta.kind);
                    validator.metadata(family_of(metric, kind), kind, help, unit);
                }
                scratch.last_seen = Some(entry);
            }
        }
    }
    scratch.known = false;
    scratch.leading = &[];
    scratch.ref_bytes = 0;
    scratch.refs.clear();
    scratch.more_refs = 0;
    scratch.created_ms = 0;
}

/// The name that metadata is known by: 2.0 attaches it to each series, of which classic histograms and summaries have several kinds.
fn family_of<'a>(metric: &'a str, kind: &str) -> &'a str {
    let suffixes: &[&str] = match kind {
        "histogram" => &["_bucket", "_count", "_sum"],
        "gaugehistogram" => &["_bucket", "_gcount", "_gsum"],
        "summary" => &["_count", "_sum"],
        _ => &[],
    };
    suffixes.iter().find_map(|s| metric.strip_suffix(s)).filter(|rest| !rest.is_empty()).unwrap_or(metric)
}
