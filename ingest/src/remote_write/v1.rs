//! Remote write 1.0: `prometheus.WriteRequest`, read field by field out of the decoded body, every string
//! borrowed from it.
//!
//! Follows the [specification](https://prometheus.io/docs/specs/prw/remote_write_spec/) and upstream's
//! `prompb/types.proto`.

use model::keyed_hash::keyed_hash;
use tsdb::head::LabelPairs;

use super::histogram;
use super::sink::Sink;
use super::validate::{Float, Outcome, Validator, samples_limit};
use super::walk::{Message, walk};
use super::wire::{BYTES, DecodeError, FIXED64, Fault, Reader, VARINT, key};
use crate::limits::Limits;
use crate::reject::Reason;

const TIMESERIES: u32 = key(1, BYTES);
const METADATA: u32 = key(3, BYTES);

const SERIES_LABEL: u32 = key(1, BYTES);
const SERIES_SAMPLE: u32 = key(2, BYTES);
const SERIES_EXEMPLAR: u32 = key(3, BYTES);
const SERIES_HISTOGRAM: u32 = key(4, BYTES);

const LABEL_NAME: u32 = key(1, BYTES);
const LABEL_VALUE: u32 = key(2, BYTES);

const SAMPLE_VALUE: u32 = key(1, FIXED64);
const SAMPLE_TIMESTAMP: u32 = key(2, VARINT);

const EXEMPLAR_LABEL: u32 = key(1, BYTES);
const EXEMPLAR_VALUE: u32 = key(2, FIXED64);
const EXEMPLAR_TIMESTAMP: u32 = key(3, VARINT);

const META_TYPE: u32 = key(1, VARINT);
const META_NAME: u32 = key(2, BYTES);
const META_HELP: u32 = key(4, BYTES);
const META_UNIT: u32 = key(5, BYTES);

/// The metric types of both protocols, by number, in the words of upstream's API. What is beyond them counts
/// as `unknown`.
pub(crate) fn metric_kind(number: u32) -> &'static str {
    const KINDS: [&str; 8] =
        ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];
    usize::try_from(number).ok().and_then(|n| KINDS.get(n)).copied().unwrap_or("unknown")
}

/// Decodes `body` (a `prometheus.WriteRequest`, no longer compressed) into `sink`.
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
    match walk(body, &mut WriteRequest, &mut validator) {
        Ok(()) => Ok(validator.outcome),
        Err(fault) => Err(fault.within(body)),
    }
}

/// `prometheus.WriteRequest`.
struct WriteRequest;

impl<'a, S: Sink> Message<'a, S> for WriteRequest {
    const SERIES: u32 = TIMESERIES;

    /// The labels a series begins with: all of them, from every sender there is.
    #[inline]
    fn leading(&self, series: Reader<'a>) -> (&'a [u8], u64) {
        let start = series.here();
        let (mut r, mut end) = (series, series);
        while !r.is_empty() && matches!(r.key(), Ok(SERIES_LABEL)) && r.bytes().is_ok() {
            end = r;
        }
        let labels = &start[..start.len() - end.here().len()];
        (labels, keyed_hash(labels))
    }

    fn same(&self, leading: &[u8], pairs: LabelPairs<'_>) -> bool {
        let mut r = Reader::new(leading);
        for (name, value) in pairs {
            let Ok(SERIES_LABEL) = r.key() else { return false };
            let Ok(found) = r.message().and_then(label) else { return false };
            if found != (name.as_bytes(), value.as_bytes()) {
                return false;
            }
        }
        r.is_empty()
    }

    #[inline]
    fn series(
        &mut self,
        series: Reader<'a>,
        leading: &'a [u8],
        known: bool,
        validator: &mut Validator<'a, '_, S>,
    ) -> Result<(), Fault> {
        read_series(series, leading, known, validator)?;
        validator.end_series().map(drop)
    }

    fn other(
        &mut self,
        key: u32,
        r: &mut Reader<'a>,
        validator: &mut Validator<'a, '_, S>,
    ) -> Result<(), Fault> {
        match key {
            METADATA => metadata(r.message()?, validator),
            other => r.skip(other, &[1, 3]),
        }
    }
}

/// Reads a series that begins with these labels, which are passed over where the series is known.
#[inline]
fn read_series<'a, S: Sink>(
    message: Reader<'a>,
    labels: &'a [u8],
    known: bool,
    validator: &mut Validator<'a, '_, S>,
) -> Result<(), Fault> {
    if known {
        let rest = Reader::new(&message.here()[labels.len()..]);
        let more = fields(rest, validator)?;
        if !more && !validator.wants_labels() {
            return Ok(());
        }
        // Rare: labels between or behind the samples, or samples to be refused by their series' name. Read
        // from the start, as unknown.
        validator.restart();
    }
    if fields(message, validator)? && labels_apart(message, labels) {
        // What the key stands for is not all of the labels.
        validator.unknown();
    }
    Ok(())
}

/// Whether a series has labels behind those it begins with.
#[cold]
fn labels_apart(message: Reader<'_>, labels: &[u8]) -> bool {
    let mut r = Reader::new(&message.here()[labels.len()..]);
    while !r.is_empty() {
        match r.key() {
            Ok(SERIES_LABEL) => return true,
            Ok(other) if r.skip(other, &[]).is_ok() => {}
            _ => return true,
        }
    }
    false
}

/// Reads all fields of a series; true if labels were among them.
#[inline]
fn fields<'a, S: Sink>(mut r: Reader<'a>, validator: &mut Validator<'a, '_, S>) -> Result<bool, Fault> {
    let mut labels = false;
    while !r.is_empty() {
        match r.key()? {
            SERIES_LABEL => {
                labels = true;
                let (name, value) = label(r.message()?)?;
                validator.label(name, value);
            }
            SERIES_SAMPLE => {
                let float = sample(r.message()?)?;
                validator.float(float, r.here())?;
            }
            SERIES_EXEMPLAR => {
                let (ts_ms, value) = exemplar(r.message()?, validator)?;
                // One that is broken is no reason to refuse the request: upstream does not either.
                let _ = validator.end_exemplar(ts_ms, value, r.here())?;
            }
            SERIES_HISTOGRAM => {
                let histogram = histogram::read(r.message()?, validator.limits)?;
                validator.histogram(histogram, r.here())?;
            }
            other => r.skip(other, &[1, 2, 3, 4])?,
        }
    }
    Ok(labels)
}

#[inline]
fn label<'a>(mut r: Reader<'a>) -> Result<(&'a [u8], &'a [u8]), Fault> {
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    while !r.is_empty() {
        match r.key()? {
            LABEL_NAME => name = r.bytes()?,
            LABEL_VALUE => value = r.bytes()?,
            other => r.skip(other, &[1, 2])?,
        }
    }
    Ok((name, value))
}

#[inline]
fn sample(mut r: Reader<'_>) -> Result<Float, Fault> {
    let mut float = Float { ts_ms: 0, value: 0.0, start_ts_ms: 0 };
    while !r.is_empty() {
        match r.key()? {
            SAMPLE_VALUE => float.value = r.double()?,
            SAMPLE_TIMESTAMP => float.ts_ms = r.varint()? as i64,
            other => r.skip(other, &[1, 2])?,
        }
    }
    Ok(float)
}

/// Hands its labels to the validator; answers its timestamp and value.
fn exemplar<'a, S: Sink>(
    mut r: Reader<'a>,
    validator: &mut Validator<'a, '_, S>,
) -> Result<(i64, f64), Fault> {
    let (mut ts_ms, mut value) = (0, 0.0);
    while !r.is_empty() {
        match r.key()? {
            EXEMPLAR_LABEL => {
                let (name, text) = label(r.message()?)?;
                validator.exemplar_label(name, text);
            }
            EXEMPLAR_VALUE => value = r.double()?,
            EXEMPLAR_TIMESTAMP => ts_ms = r.varint()? as i64,
            other => r.skip(other, &[1, 2, 3])?,
        }
    }
    Ok((ts_ms, value))
}

fn metadata<S: Sink>(mut r: Reader<'_>, validator: &mut Validator<'_, '_, S>) -> Result<(), Fault> {
    let mut kind = 0;
    let (mut name, mut help, mut unit): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
    while !r.is_empty() {
        match r.key()? {
            META_TYPE => kind = r.varint()? as u32,
            META_NAME => name = r.bytes()?,
            META_HELP => help = r.bytes()?,
            META_UNIT => unit = r.bytes()?,
            other => r.skip(other, &[1, 2, 4, 5])?,
        }
    }
    match (std::str::from_utf8(name), std::str::from_utf8(help), std::str::from_utf8(unit)) {
        (Ok(name), Ok(help), Ok(unit)) => validator.metadata(name, metric_kind(kind), help, unit)?,
        _ => validator.outcome.rejected.add(Reason::InvalidUtf8, 0, || {
            format!("metadata of {:?} is not UTF-8", String::from_utf8_lossy(&name[..name.len().min(80)]))
        }),
    }
    Ok(())
}
