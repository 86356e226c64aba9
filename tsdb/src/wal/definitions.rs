//! Definitions of many series in one record: each text once, and of each series only the labels in which it
//! differs from the one before. Series of a scrape share most of theirs.

use hashbrown::HashMap;

use model::codec::varint::{put_bytes, put_i64, put_u64, take_bytes, take_i64, take_u64};

/// Number, tenant and labels of a series.
pub(super) type Definition<'a> = (u32, &'a str, Vec<(&'a str, &'a str)>);

/// Writes definitions: how many texts, the texts, how many series; for each the difference of its number to
/// the one before, the number of its tenant's text, how many labels, and for each label 0 if the series
/// before has the same in this place, else the number of its name's text plus 1 and that of its value's.
pub(super) fn put(out: &mut Vec<u8>, all: &[Definition<'_>]) {
    let mut texts: Vec<&str> = Vec::new();
    let mut numbers: HashMap<&str, u64> = HashMap::new();
    let mut number = |text| {
        *numbers.entry(text).or_insert_with(|| {
            texts.push(text);
            texts.len() as u64 - 1
        })
    };
    let mut rows = Vec::with_capacity(all.len() * 12);
    let (mut before, mut labels_before) = (0i64, &[][..]);
    for (series, tenant, labels) in all {
        put_i64(&mut rows, i64::from(*series) - before);
        before = i64::from(*series);
        put_u64(&mut rows, number(tenant));
        put_u64(&mut rows, labels.len() as u64);
        for (at, label) in labels.iter().enumerate() {
            if labels_before.get(at) == Some(label) {
                rows.push(0);
                continue;
            }
            put_u64(&mut rows, number(label.0) + 1);
            put_u64(&mut rows, number(label.1));
        }
        labels_before = labels;
    }
    put_u64(out, texts.len() as u64);
    texts.iter().for_each(|text| put_bytes(out, text.as_bytes()));
    put_u64(out, all.len() as u64);
    out.extend_from_slice(&rows);
}

/// Takes what [`put`] wrote; `None` where it is something else.
pub(super) fn take<'a>(from: &mut &'a [u8]) -> Option<Vec<Definition<'a>>> {
    let texts: Vec<&str> =
        (0..count(from)?).map(|_| std::str::from_utf8(take_bytes(from)?).ok()).collect::<Option<_>>()?;
    let text = |number: u64| texts.get(usize::try_from(number).ok()?).copied();
    let n = count(from)?;
    let mut all: Vec<Definition<'a>> = Vec::with_capacity(n.min(4096));
    let mut series = 0i64;
    for _ in 0..n {
        series = series.checked_add(take_i64(from)?)?;
        let tenant = text(take_u64(from)?)?;
        let before = all.last().map_or(&[][..], |(_, _, labels)| &labels[..]);
        let labels = (0..count(from)?)
            .map(|at| match take_u64(from)? {
                0 => before.get(at).copied(),
                name => Some((text(name - 1)?, text(take_u64(from)?)?)),
            })
            .collect::<Option<Vec<_>>>()?;
        all.push((u32::try_from(series).ok()?, tenant, labels));
    }
    Some(all)
}

/// A count of things that follow, a byte each at least.
fn count(from: &mut &[u8]) -> Option<usize> {
    take_u64(from).filter(|&n| n <= from.len() as u64).map(|n| n as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn definitions_of_one_scrape_take_a_few_bytes_each() {
        let modes = ["idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"];
        let all: Vec<Definition<'_>> = (0..800u32)
            .map(|i| {
                let cpu = ["0", "1", "2", "3"][i as usize / 8 % 4];
                let labels = vec![
                    ("__name__", "node_cpu_seconds_total"),
                    ("cpu", cpu),
                    ("instance", "node-00042-0.eu-central-1.compute.internal:9100"),
                    ("job", "node-exporter"),
                    ("mode", modes[i as usize % 8]),
                ];
                (i + 1000, "default", labels)
            })
            .collect();
        let mut out = Vec::new();
        put(&mut out, &all);
        assert!(out.len() < 10 * all.len(), "{} bytes", out.len());
        let mut rest = &out[..];
        assert_eq!(take(&mut rest), Some(all));
        assert!(rest.is_empty());
    }

    proptest! {
        #[test]
        fn definitions_survive(
            all in proptest::collection::vec((any::<u32>(), "[ab]", proptest::collection::vec(("[a-c]{0,2}", "\\PC{0,3}"), 0..5)), 0..40),
        ) {
            let all: Vec<Definition<'_>> = all
                .iter()
                .map(|(n, tenant, labels)| {
                    (*n, &tenant[..], labels.iter().map(|(n, v)| (&n[..], &v[..])).collect())
                })
                .collect();
            let mut out = Vec::new();
            put(&mut out, &all);
            prop_assert_eq!(take(&mut &out[..]), Some(all.clone()));
            for cut in 0..out.len() {
                prop_assert_ne!(take(&mut &out[..cut]), Some(all.clone()));
            }
        }
    }
}
