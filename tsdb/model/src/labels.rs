//! Label sets: one allocation each, sorted by name, cheap to clone, compare and hash.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh64::{Xxh64, xxh64};

use crate::quote::{is_legacy_label_name, quote};

/// The label that holds a metric's name.
pub const METRIC_NAME: &str = "__name__";

/// How a set begins whose first label is the metric's name.
const NAME_FIRST: &str = "\u{8}__name__";

/// Longest name or value that [`Labels`] can hold: upstream's layout writes a length in three bytes.
pub const MAX_LABEL_BYTES: usize = (1 << 24) - 1;

/// The length that stands for "four more characters say it".
const LONG: u8 = 127;

/// A label set: names unique and ascending by bytes, no empty values.
///
/// The text is `len name len value …`. A length is one character below 127, else the character 127 and four
/// that hold seven bits each, highest first. Lengths are ASCII, so the whole is a `str` and so is every name
/// and value cut out of it: that they are valid UTF-8 is known by type and not checked at each access, which
/// took a fifth of a query over many series.
///
/// What is written to disk and hashed is upstream's layout ([`Labels::encode`]), which is the same bytes
/// while every name and value is shorter than 127 bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<str>);

impl Labels {
    pub fn empty() -> Self {
        Labels(Arc::from(""))
    }

    /// A set from pairs in any order. Empty values are left out, of a repeated name the last stays.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut b = LabelsBuilder::default();
        for (n, v) in pairs {
            b.set(n.as_ref(), v.as_ref());
        }
        b.build()
    }

    /// A set from pairs already ascending by name, unique and without empty values (checked in debug builds
    /// only).
    pub fn from_sorted<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut text = String::with_capacity(256);
        let mut last: Option<&str> = None;
        for (n, v) in pairs {
            debug_assert!(last.is_none_or(|l| l < n), "labels out of order: {last:?} before {n:?}");
            debug_assert!(!v.is_empty(), "label {n:?} is empty");
            last = Some(n);
            put(&mut text, n);
            put(&mut text, v);
        }
        Labels(Arc::from(text))
    }

    /// A set from the bytes of [`Labels::encode`]; `None` where they are not of a valid set.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut take = || {
            let (len, at) = match *rest.first()? {
                255 => (u32::from_le_bytes([*rest.get(1)?, *rest.get(2)?, *rest.get(3)?, 0]) as usize, 4),
                n => (n as usize, 1),
            };
            let s = std::str::from_utf8(rest.get(at..at + len)?).ok()?;
            rest = &rest[at + len..];
            Some((s, rest.is_empty()))
        };
        let mut text = String::with_capacity(bytes.len() + 8);
        let mut last = None;
        let mut done = bytes.is_empty();
        while !done {
            let (name, _) = take()?;
            let (value, end) = take()?;
            if value.is_empty() || last.is_some_and(|l| l >= name) {
                return None;
            }
            put(&mut text, name);
            put(&mut text, value);
            last = Some(name);
            done = end;
        }
        Some(Labels(Arc::from(text)))
    }

    /// The pairs as `len name len value …`, a length being one byte below 255 and else `255` and three bytes,
    /// little end first: the layout upstream builds with by default (`model/labels/labels_stringlabels.go`).
    /// Equal sets have equal bytes. Copies only where a name or value has 127 bytes or more.
    pub fn encode(&self) -> Cow<'_, [u8]> {
        if self.iter().all(|(n, v)| n.len() < LONG as usize && v.len() < LONG as usize) {
            return Cow::Borrowed(self.0.as_bytes());
        }
        let mut bytes = Vec::with_capacity(self.0.len());
        for s in self.iter().flat_map(|(n, v)| [n, v]) {
            let (len, used) = encoded_len(s.len());
            bytes.extend_from_slice(&len[..used]);
            bytes.extend_from_slice(s.as_bytes());
        }
        Cow::Owned(bytes)
    }

    /// How many bytes the set takes in memory, beside the reference to it.
    pub fn byte_len(&self) -> usize {
        self.0.len()
    }

    /// Pairs, ascending by name.
    pub fn iter(&self) -> LabelsIter<'_> {
        LabelsIter { rest: &self.0 }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many pairs; walks the set.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// The value of a label, `None` where the set has none of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.iter();
        while !pairs.rest.is_empty() {
            let (this, value) = (pairs.next_text(), pairs.next_text());
            match this.cmp(name) {
                Ordering::Less => {}
                Ordering::Equal => return Some(value),
                Ordering::Greater => return None,
            }
        }
        None
    }

    /// The value of a label, empty where the set has none: what a matcher sees.
    pub fn value(&self, name: &str) -> &str {
        self.get(name).unwrap_or("")
    }

    pub fn metric_name(&self) -> Option<&str> {
        self.get(METRIC_NAME)
    }

    /// xxHash64 of [`Labels::encode`]: upstream's `Labels.Hash`, so that `limit_ratio` picks the same series.
    pub fn hash(&self) -> u64 {
        xxh64(&self.encode(), 0)
    }

    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.iter().map(|(n, v)| (n.into(), v.into())).collect() }
    }

    /// Only the pairs for which `keep` holds.
    pub fn filter(&self, mut keep: impl FnMut(&str, &str) -> bool) -> Labels {
        let (whole, mut pairs) = (&*self.0, self.iter());
        // Mostly what is kept is one run, which is copied as it is.
        let (mut run, mut before) = (0..0, String::new());
        loop {
            let from = whole.len() - pairs.rest.len();
            let Some((name, value)) = pairs.next() else { break };
            let to = whole.len() - pairs.rest.len();
            if !keep(name, value) {
                continue;
            }
            if run.end != from {
                before.push_str(&whole[run]);
                run = from..from;
            }
            run.end = to;
        }
        if run.len() == whole.len() {
            return self.clone();
        }
        if before.is_empty() {
            return Labels(Arc::from(&whole[run]));
        }
        before.push_str(&whole[run]);
        Labels(Arc::from(before))
    }

    /// The order of series in blocks and of every [`crate::source::SeriesCursor`]: by metric name, then by
    /// all labels. It keeps the series of one metric together, which plain label order does not (a label such
    /// as `A` sorts before `__name__`).
    pub fn series_cmp(&self, other: &Labels) -> Ordering {
        // Where the name comes first in both, as nearly always, the order of labels is that of series.
        if self.0.starts_with(NAME_FIRST) && other.0.starts_with(NAME_FIRST) {
            return self.cmp(other);
        }
        self.value(METRIC_NAME).cmp(other.value(METRIC_NAME)).then_with(|| self.cmp(other))
    }
}

/// Hash of pairs that are already sorted, equal to [`Labels::hash`] of the same set, without building it.
pub fn hash_sorted<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> u64 {
    let mut h = Xxh64::new(0);
    for (n, v) in pairs {
        for s in [n, v] {
            let (len, used) = encoded_len(s.len());
            h.update(&len[..used]);
            h.update(s.as_bytes());
        }
    }
    h.digest()
}

/// A length in upstream's layout, and how many of the bytes are used.
fn encoded_len(len: usize) -> ([u8; 4], usize) {
    if len < 255 {
        ([len as u8, 0, 0, 0], 1)
    } else {
        ([255, len as u8, (len >> 8) as u8, (len >> 16) as u8], 4)
    }
}

/// Appends a length and a name or value.
fn put(text: &mut String, s: &str) {
    let len = s.len();
    assert!(len <= MAX_LABEL_BYTES, "a label of {len} bytes; callers limit them to {MAX_LABEL_BYTES}");
    if len < LONG as usize {
        text.push(char::from(len as u8));
    } else {
        text.push(char::from(LONG));
        for shift in [21, 14, 7, 0] {
            text.push(char::from((len >> shift) as u8 & 127));
        }
    }
    text.push_str(s);
}

/// The order upstream calls `labels.Compare`: pair by pair, name before value, a prefix first.
///
/// Neighbours of a sorted list share most of their text, so it is compared as a whole, and only the name or
/// value in which the two part is looked for.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        let same = common_prefix(a, b);
        if same == a.len() || same == b.len() {
            // A set whose text the other begins with has the first of its pairs.
            return a.len().cmp(&b.len());
        }
        let mut at = 0;
        loop {
            let (len, head) = length_at(&a[at..]);
            if same < at + head {
                // Of different lengths, so the one is not the other.
                let (mut a, mut b) =
                    (LabelsIter { rest: &self.0[at..] }, LabelsIter { rest: &other.0[at..] });
                return a.next_text().cmp(b.next_text());
            }
            if same < at + head + len {
                return a[same].cmp(&b[same]);
            }
            at += head + len;
        }
    }
}

/// How many bytes two texts begin with alike.
#[inline]
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let (words_a, words_b) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let mut at = 0;
    for (x, y) in words_a.iter().zip(words_b) {
        let differing = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differing != 0 {
            return at + differing.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + a[at..].iter().zip(&b[at..]).take_while(|(x, y)| x == y).count()
}

/// The length that text begins with, and how many bytes say it.
#[inline]
fn length_at(bytes: &[u8]) -> (usize, usize) {
    match bytes[0] {
        LONG => (bytes[1..5].iter().fold(0, |len, &b| len << 7 | b as usize), 5),
        n => (n as usize, 1),
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// `{a="1", b="2"}` with the values quoted and escaped; the metric name is an ordinary label here, as in
/// upstream's `Labels.String`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (n, v)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if is_legacy_label_name(n) {
                write!(f, "{n}={}", quote(v))?;
            } else {
                write!(f, "{}={}", quote(n), quote(v))?;
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = LabelsIter<'a>;
    fn into_iter(self) -> LabelsIter<'a> {
        self.iter()
    }
}

/// Pairs of a [`Labels`], ascending by name.
#[derive(Clone)]
pub struct LabelsIter<'a> {
    rest: &'a str,
}

impl<'a> LabelsIter<'a> {
    /// The next name or value. Never called at the end.
    #[inline]
    fn next_text(&mut self) -> &'a str {
        let (len, at) = length_at(self.rest.as_bytes());
        let (s, rest) = self.rest[at..].split_at(len);
        self.rest = rest;
        s
    }
}

impl<'a> Iterator for LabelsIter<'a> {
    type Item = (&'a str, &'a str);
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        Some((self.next_text(), self.next_text()))
    }
}

/// Collects pairs in any order into a [`Labels`].
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(Box<str>, Box<str>)>,
}

impl LabelsBuilder {
    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        if value.is_empty() {
            return self.remove(name);
        }
        match self.pairs.iter_mut().find(|(n, _)| &**n == name) {
            Some(p) => p.1 = value.into(),
            None => self.pairs.push((name.into(), value.into())),
        }
        self
    }

    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.pairs.retain(|(n, _)| &**n != name);
        self
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| &**n == name).map(|(_, v)| &**v)
    }

    pub fn build(&mut self) -> Labels {
        self.pairs.sort_unstable();
        Labels::from_sorted(self.pairs.iter().map(|(n, v)| (&**n, &**v)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels_order_is_upstreams_and_series_order_keeps_a_metric_together() {
        let a = Labels::from_pairs([("__name__", "up"), ("A", "z")]);
        let b = Labels::from_pairs([("__name__", "zz"), ("A", "a")]);
        assert_eq!(a.cmp(&b), Ordering::Greater, "A sorts before __name__");
        assert_eq!(a.series_cmp(&b), Ordering::Less);
        let short = Labels::from_pairs([("a", "1")]);
        let long = Labels::from_pairs([("a", "1"), ("b", "1")]);
        assert!(short < long);
    }

    #[test]
    fn labels_encoding_is_upstreams_at_every_width_of_a_length() {
        for len in [1, 126, 127, 128, 254, 255, 256, 70_000, MAX_LABEL_BYTES] {
            let value = "v".repeat(len);
            let labels = Labels::from_pairs([("a", value.as_str()), ("b", "é")]);
            let mut want = vec![1, b'a'];
            match u8::try_from(len) {
                Ok(short) if short < 255 => want.push(short),
                _ => want.extend([255, len as u8, (len >> 8) as u8, (len >> 16) as u8]),
            }
            want.extend(value.bytes());
            want.extend([1, b'b', 2, 0xc3, 0xa9]);
            assert_eq!(*labels.encode(), want, "a value of {len} bytes");
            assert_eq!(labels.get("b"), Some("é"), "behind a value of {len} bytes");
            assert_eq!(Labels::decode(&want), Some(labels), "a value of {len} bytes");
        }
        assert_eq!(Labels::decode(&[1, b'a', 1, 0xff]), None, "not UTF-8");
        assert_eq!(Labels::decode(&[1, b'a', 9, b'v']), None, "cut off");
    }

    proptest! {
        #[test]
        fn labels_order_is_that_of_their_pairs(
            shared in proptest::collection::btree_map("[_a-d]{1,9}", ".{1,12}|x{120,300}", 0..5),
            own in proptest::array::uniform2(proptest::collection::btree_map("[A_a-d]{1,9}|__name__", "[ab]{1,9}|x{120,300}", 0..4)),
        ) {
            let [a, b] = own.map(|own| Labels::from_pairs(shared.iter().chain(&own)));
            prop_assert_eq!(a.cmp(&b), a.iter().cmp(b.iter()));
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            let by_name = a.value(METRIC_NAME).cmp(b.value(METRIC_NAME));
            prop_assert_eq!(a.series_cmp(&b), by_name.then_with(|| a.iter().cmp(b.iter())));
        }

        #[test]
        fn labels_keep_their_pairs(pairs in proptest::collection::btree_map("[a-z_é]{1,9}", ".{1,20}|.{120,300}", 0..12)) {
            let labels = Labels::from_pairs(pairs.iter());
            let back: Vec<_> = labels.iter().collect();
            let want: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            prop_assert_eq!(&back, &want);
            prop_assert_eq!(labels.hash(), hash_sorted(want.iter().copied()));
            prop_assert_eq!(&labels.to_builder().build(), &labels);
            for (name, value) in &want {
                prop_assert_eq!(labels.get(name), Some(*value));
            }
            prop_assert_eq!(labels.get("b~"), None);
            for part in 0..4 {
                let kept = |name: &str| name.len() % 4 != part && name != "a";
                let own = labels.filter(|name, _| kept(name));
                prop_assert_eq!(own, Labels::from_pairs(pairs.iter().filter(|(name, _)| kept(name))));
            }
            prop_assert_eq!(Labels::decode(&labels.encode()), Some(labels));
        }
    }
}
