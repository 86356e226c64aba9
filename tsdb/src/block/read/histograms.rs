//! Native histograms out of the list columns that hold their parts.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::types::{Float64Type, Int32Type};
use arrow_array::{Array, ListArray};

use super::arrow_lists::{nested, primitives};
use crate::block::schema::hint_of;
use model::histogram::{BucketSpan, Histogram};

/// The histograms of items `from..to` of a row with `n` of them; `list` finds a column's list of that row by
/// name.
pub(crate) fn histograms_of<'a>(
    n: usize,
    from: usize,
    to: usize,
    list: &impl Fn(&str) -> Result<&'a (ListArray, usize), String>,
) -> Result<Vec<Arc<Histogram>>, String> {
    let get = |name: &str| list(name);
    let wrong = |name: &str| format!("its column {name} does not have {n} items");
    let floats = |name: &str| {
        let (array, at) = get(name)?;
        primitives::<Float64Type>(array, *at).filter(|v| v.len() == n).ok_or_else(|| wrong(name))
    };
    let ints = |name: &str| {
        let (array, at) = get(name)?;
        primitives::<Int32Type>(array, *at).filter(|v| v.len() == n).ok_or_else(|| wrong(name))
    };
    let lists = |name: &str| {
        let (array, at) = get(name)?;
        nested(array, *at).filter(|(_, items)| items.len() == n).ok_or_else(|| wrong(name))
    };
    let (schemas, hints) = (ints("h_schema")?, ints("h_hint")?);
    let (thresholds, zeros) = (floats("h_zero_threshold")?, floats("h_zero_count")?);
    let (counts, sums) = (floats("h_count")?, floats("h_sum")?);
    let (pos_spans, neg_spans) = (lists("h_pos_spans")?, lists("h_neg_spans")?);
    let (pos, neg, custom) = (lists("h_pos_buckets")?, lists("h_neg_buckets")?, lists("h_custom_values")?);
    let spans = |(inner, items): &(&ListArray, Range<usize>), i: usize| {
        let flat = primitives::<Int32Type>(inner, items.start + i).filter(|f| f.len() % 2 == 0)?;
        let pairs = flat.as_chunks::<2>().0.iter();
        Some(pairs.map(|[offset, length]| BucketSpan { offset: *offset, length: *length as u32 }).collect())
    };
    let buckets = |(inner, items): &(&ListArray, Range<usize>), i: usize| {
        primitives::<Float64Type>(inner, items.start + i).map(<[f64]>::to_vec)
    };
    let mut before: Option<Arc<[f64]>> = None;
    let mut out = Vec::with_capacity(to - from);
    for i in from..to {
        let custom_values = match custom.0.is_null(custom.1.start + i) {
            true => None,
            false => {
                let bounds = primitives::<Float64Type>(custom.0, custom.1.start + i)
                    .ok_or_else(|| wrong("h_custom_values"))?;
                // A series rarely changes its bounds: share them.
                let same = |b: &Arc<[f64]>| {
                    b.len() == bounds.len() && b.iter().zip(bounds).all(|(x, y)| x.to_bits() == y.to_bits())
                };
                let shared = before.clone().filter(same).unwrap_or_else(|| bounds.into());
                before = Some(shared.clone());
                Some(shared)
            }
        };
        out.push(Arc::new(Histogram {
            counter_reset_hint: hint_of(hints[i])
                .ok_or_else(|| format!("{} is no counter reset hint", hints[i]))?,
            schema: schemas[i],
            zero_threshold: thresholds[i],
            zero_count: zeros[i],
            count: counts[i],
            sum: sums[i],
            positive_spans: spans(&pos_spans, i).ok_or_else(|| wrong("h_pos_spans"))?,
            negative_spans: spans(&neg_spans, i).ok_or_else(|| wrong("h_neg_spans"))?,
            positive_buckets: buckets(&pos, i).ok_or_else(|| wrong("h_pos_buckets"))?,
            negative_buckets: buckets(&neg, i).ok_or_else(|| wrong("h_neg_buckets"))?,
            custom_values,
        }));
    }
    Ok(out)
}
