//! The walk over a request's body, which both versions of the protocol share: series in groups, looked up
//! together, then read one by one.

use tsdb::head::LabelPairs;

use super::sink::Sink;
use super::validate::Validator;
use super::wire::{Fault, Reader};

/// Series that are looked up together: enough to share the locks, few enough for the nearest cache.
const GROUP: usize = 512;

/// What a version of the protocol knows of its messages.
pub(super) trait Message<'a, S: Sink> {
    /// The key of the field that holds one series.
    const SERIES: u32;

    /// The bytes a series begins with that stand for its labels, and a key made of them. What is broken gives
    /// fewer bytes; reading the series will come to it and say so.
    fn leading(&self, series: Reader<'a>) -> (&'a [u8], u64);

    /// Whether these bytes stand for these labels and nothing else.
    fn same(&self, leading: &[u8], pairs: LabelPairs<'_>) -> bool;

    /// Reads one series and ends it. `known`: its labels are those that `leading` stands for, and need not be
    /// read.
    fn series(
        &mut self,
        series: Reader<'a>,
        leading: &'a [u8],
        known: bool,
        validator: &mut Validator<'a, '_, S>,
    ) -> Result<(), Fault>;

    /// Reads any other field, whose key was just read.
    fn other(
        &mut self,
        key: u32,
        r: &mut Reader<'a>,
        validator: &mut Validator<'a, '_, S>,
    ) -> Result<(), Fault>;
}

/// The next series of a body, by their messages and the bytes that stand for their labels.
#[derive(Default)]
struct Group<'a> {
    keys: Vec<u64>,
    series: Vec<(Reader<'a>, &'a [u8])>,
}

/// Walks over all of a body. The first fault in the order of its bytes ends it.
pub(super) fn walk<'a, S: Sink, M: Message<'a, S>>(
    body: &'a [u8],
    message: &mut M,
    validator: &mut Validator<'a, '_, S>,
) -> Result<(), Fault> {
    let mut r = Reader::new(body);
    let mut group = Group::default();
    while !r.is_empty() {
        let gathered = gather(&mut r, message, validator, &mut group);
        validator.lookup(&group.keys, |i, pairs| message.same(group.series[i].1, pairs));
        for (i, (series, leading)) in group.series.iter().enumerate() {
            let known = validator.begin(i, group.keys[i]);
            message.series(*series, leading, known, validator)?;
        }
        gathered?;
    }
    Ok(())
}

/// Reads on until the group is full or the body ends.
fn gather<'a, S: Sink, M: Message<'a, S>>(
    r: &mut Reader<'a>,
    message: &mut M,
    validator: &mut Validator<'a, '_, S>,
    group: &mut Group<'a>,
) -> Result<(), Fault> {
    group.keys.clear();
    group.series.clear();
    while !r.is_empty() && group.keys.len() < GROUP {
        let key = r.key()?;
        if key != M::SERIES {
            message.other(key, r, validator)?;
            continue;
        }
        let series = r.message()?;
        let (leading, key) = message.leading(series);
        group.keys.push(key);
        group.series.push((series, leading));
    }
    Ok(())
}
