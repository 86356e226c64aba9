//! Numbers as Parquet packs them, decoded in tight loops and handed on a few at a time, so that they go from
//! a page straight to where they are wanted.
//!
//! After the encodings of the Parquet format's own specification. All numbers come as 64 bits: doubles as
//! their bits, 32-bit integers as what wraps to them. Whatever the bytes are, the answer is numbers or
//! `None`.

use model::codec::varint;

/// How many numbers are decoded at a time.
const GROUP: usize = 32;
/// Bytes of a number, and of what is loaded to find a narrower one.
const WORD: usize = size_of::<u64>();
/// Bytes that must be there from where eight differences begin, whatever their width: what lies in them is
/// not checked again.
const BEYOND: usize = 64;

/// Calls [`unpack`] for a width that is known only now, [`unpack_wide`] for what is too wide for it.
macro_rules! unpack_width {
    ($width:expr, $args:tt, $($known:literal)*) => {
        match $width {
            $($known => unpack::<$known> $args,)*
            _ => unpack_wide($width, $args),
        }
    };
}

/// The numbers of one page, read from front to back.
pub(crate) enum Numbers<'a> {
    Deltas(Box<Deltas<'a>>),
    Planes(Planes<'a>),
    Plain(&'a [u8]),
    /// Not packed at all.
    Words(&'a [i64]),
}

impl<'a> Numbers<'a> {
    /// DELTA_BINARY_PACKED.
    pub fn deltas(bytes: &'a [u8]) -> Option<Numbers<'a>> {
        Deltas::new(bytes).map(|d| Numbers::Deltas(Box::new(d)))
    }

    /// BYTE_STREAM_SPLIT of eight bytes.
    pub fn planes(bytes: &'a [u8]) -> Option<Numbers<'a>> {
        bytes.len().is_multiple_of(WORD).then_some(Numbers::Planes(Planes { bytes, at: 0 }))
    }

    /// PLAIN of eight bytes.
    pub fn plain(bytes: &'a [u8]) -> Option<Numbers<'a>> {
        bytes.len().is_multiple_of(WORD).then_some(Numbers::Plain(bytes))
    }

    /// Leaves out the next `n`.
    pub fn skip(&mut self, n: usize) -> Option<()> {
        match self {
            Numbers::Deltas(all) => all.take(n, |_| ()),
            Numbers::Planes(all) => {
                all.at = all.at.checked_add(n).filter(|at| *at <= all.len())?;
                Some(())
            }
            Numbers::Plain(bytes) => {
                *bytes = bytes.get(n.checked_mul(WORD)?..)?;
                Some(())
            }
            Numbers::Words(words) => {
                *words = words.get(n..)?;
                Some(())
            }
        }
    }

    /// Hands on the next `n`, in order, some at a time.
    #[inline]
    pub fn take(&mut self, n: usize, mut to: impl FnMut(&[i64])) -> Option<()> {
        match self {
            Numbers::Deltas(all) => all.take(n, to),
            Numbers::Planes(all) => all.take(n, to),
            Numbers::Plain(bytes) => {
                let (now, rest) = bytes.split_at_checked(n.checked_mul(WORD)?)?;
                *bytes = rest;
                let mut group = [0; GROUP];
                for words in now.as_chunks::<WORD>().0.chunks(GROUP) {
                    let group = &mut group[..words.len()];
                    group.iter_mut().zip(words).for_each(|(g, w)| *g = i64::from_le_bytes(*w));
                    to(group);
                }
                Some(())
            }
            Numbers::Words(words) => {
                let (now, rest) = words.split_at_checked(n)?;
                *words = rest;
                to(now);
                Some(())
            }
        }
    }
}

/// Differences, packed in miniblocks of equal width.
pub(crate) struct Deltas<'a> {
    /// What follows the open miniblock's decoded part.
    bytes: &'a [u8],
    /// Values of a miniblock, a multiple of [`GROUP`], and miniblocks of a block.
    of_miniblock: usize,
    miniblocks: usize,
    /// Of the page, what is not in `group` yet.
    left: usize,
    /// Widths of the block's miniblocks that follow, and its least difference.
    widths: &'a [u8],
    least: i64,
    /// Width of the open miniblock and what is left of it.
    width: u8,
    left_of_miniblock: usize,
    last: i64,
    group: [i64; GROUP],
    /// What of the group is decoded and not handed on.
    ready: std::ops::Range<usize>,
    padded: [u8; GROUP * WORD + BEYOND],
}

impl<'a> Deltas<'a> {
    fn new(mut bytes: &'a [u8]) -> Option<Deltas<'a>> {
        let of_block = usize::try_from(varint::take_u64(&mut bytes)?).ok()?;
        let miniblocks = usize::try_from(varint::take_u64(&mut bytes)?).ok().filter(|n| *n > 0)?;
        let count = usize::try_from(varint::take_u64(&mut bytes)?).ok()?;
        let first = varint::take_i64(&mut bytes)?;
        let of_miniblock = of_block / miniblocks;
        if of_miniblock == 0 || !of_miniblock.is_multiple_of(GROUP) || of_block % miniblocks != 0 {
            return None;
        }
        let mut group = [0; GROUP];
        group[0] = first;
        Some(Deltas {
            bytes,
            of_miniblock,
            miniblocks,
            left: count.saturating_sub(1),
            widths: &[],
            least: 0,
            width: 0,
            left_of_miniblock: 0,
            last: first,
            group,
            ready: 0..count.min(1),
            padded: [0; _],
        })
    }

    #[inline]
    fn take(&mut self, mut n: usize, mut to: impl FnMut(&[i64])) -> Option<()> {
        while n > 0 {
            if self.ready.is_empty() {
                self.decode_group()?;
            }
            let now = self.ready.start..self.ready.end.min(self.ready.start + n);
            n -= now.len();
            self.ready.start = now.end;
            to(&self.group[now]);
        }
        Some(())
    }

    fn decode_group(&mut self) -> Option<()> {
        if self.left == 0 {
            return None;
        }
        if self.left_of_miniblock == 0 {
            if self.widths.is_empty() {
                self.least = varint::take_i64(&mut self.bytes)?;
                (self.widths, self.bytes) = self.bytes.split_at_checked(self.miniblocks)?;
            }
            (self.width, self.widths) = self.widths.split_first().map(|(w, rest)| (*w, rest))?;
            self.left_of_miniblock = self.of_miniblock;
        }
        let have = self.left.min(GROUP);
        let width = usize::from(self.width);
        if width > 64 {
            return None;
        }
        let length = GROUP / 8 * width;
        let packed = match self.bytes.get(..length + BEYOND) {
            Some(packed) => packed,
            None => {
                // Near the end; the last miniblock may lack its padding.
                let rest = &self.bytes[..self.bytes.len().min(length)];
                if rest.len() * 8 < have * width {
                    return None;
                }
                self.padded[..rest.len()].copy_from_slice(rest);
                &self.padded[..length + BEYOND]
            }
        };
        self.last = match width {
            0 => step(&mut self.group, self.last, self.least),
            _ => unpack_width!(width, (packed, &mut self.group, self.last, self.least),
                1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28
                29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56),
        };
        self.bytes = self.bytes.get(length..).unwrap_or(&[]);
        self.ready = 0..have;
        self.left -= have;
        self.left_of_miniblock -= GROUP;
        Some(())
    }
}

/// Numbers that differ by the same each; the last of them.
fn step(group: &mut [i64; GROUP], mut last: i64, by: i64) -> i64 {
    for g in group {
        last = last.wrapping_add(by);
        *g = last;
    }
    last
}

/// Sums up differences of `W` bits, 56 at most; the last sum. The width is known when this is compiled, so
/// every shift is.
#[inline]
fn unpack<const W: usize>(packed: &[u8], group: &mut [i64; GROUP], mut last: i64, least: i64) -> i64 {
    let mask = u64::MAX >> (64 - W);
    // Eight differences fill `W` bytes, so each eighth begins with a byte.
    for (k, of_eight) in group.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let Some(bytes) = packed[k * W..].first_chunk::<BEYOND>() else { return last };
        for (i, g) in of_eight.iter_mut().enumerate() {
            let bit = i * W;
            let word = bytes[bit / 8..].first_chunk().map_or(0, |w| u64::from_le_bytes(*w));
            last = last.wrapping_add(least.wrapping_add((word >> (bit % 8) & mask) as i64));
            *g = last;
        }
    }
    last
}

/// The same for any width, at leisure.
fn unpack_wide(width: usize, (packed, group, mut last, least): (&[u8], &mut [i64; GROUP], i64, i64)) -> i64 {
    let mask = u64::MAX >> (64 - width);
    for (i, g) in group.iter_mut().enumerate() {
        let bit = i * width;
        let words = packed[bit / 8..].first_chunk().map_or(0, |w| u128::from_le_bytes(*w));
        last = last.wrapping_add(least).wrapping_add(((words >> (bit % 8)) as u64 & mask) as i64);
        *g = last;
    }
    last
}

/// Byte i of all numbers, then byte i + 1 of all.
pub(crate) struct Planes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Planes<'_> {
    fn len(&self) -> usize {
        self.bytes.len() / WORD
    }

    #[inline]
    fn take(&mut self, n: usize, mut to: impl FnMut(&[i64])) -> Option<()> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.len())?;
        let len = self.len();
        let planes: [&[u8]; WORD] = std::array::from_fn(|p| &self.bytes[p * len + self.at..p * len + end]);
        self.at = end;
        let mut groups = planes.map(|p| p.as_chunks::<GROUP>().0.iter());
        let mut group = [0; GROUP];
        for _ in 0..n / GROUP {
            let words = weave(std::array::from_fn(|p| groups[p].next().unwrap_or(&[0; GROUP])));
            group.iter_mut().zip(words.as_chunks().0).for_each(|(g, w)| *g = i64::from_le_bytes(*w));
            to(&group);
        }
        let rest = n % GROUP;
        for (i, g) in group[..rest].iter_mut().enumerate() {
            *g = i64::from_le_bytes(planes.map(|p| p[n - rest + i]));
        }
        if rest > 0 {
            to(&group[..rest]);
        }
        Some(())
    }
}

/// Words out of their bytes 0, their bytes 1 and so on. Bytes that are four apart are brought together, then
/// those two apart, then neighbours: each step is one that the machine has an instruction for.
#[inline]
fn weave([p0, p1, p2, p3, p4, p5, p6, p7]: [&[u8; GROUP]; WORD]) -> [u8; GROUP * WORD] {
    let even = zip::<{ 2 * GROUP }, { 4 * GROUP }>(&zip(p0, p4), &zip(p2, p6));
    let odd = zip::<{ 2 * GROUP }, { 4 * GROUP }>(&zip(p1, p5), &zip(p3, p7));
    zip(&even, &odd)
}

/// The bytes of two in turn; `M` is twice `N`.
#[inline]
fn zip<const N: usize, const M: usize>(a: &[u8; N], b: &[u8; N]) -> [u8; M] {
    let mut both = [0; M];
    for (pair, (a, b)) in both.as_chunks_mut::<2>().0.iter_mut().zip(a.iter().zip(b)) {
        *pair = [*a, *b];
    }
    both
}

/// Runs of equal levels out of the hybrid of runs and packed bits.
struct Levels<'a> {
    bytes: &'a [u8],
    /// Bits of a level, 1 or 2.
    width: u32,
    /// Packed bytes that follow, and the open one with how many levels it has left.
    packed: usize,
    open: (u8, u32),
}

impl<'a> Levels<'a> {
    fn new(bytes: &'a [u8], width: u32) -> Levels<'a> {
        Levels { bytes, width, packed: 0, open: (0, 0) }
    }

    /// The next run, a level and how often it comes.
    fn next(&mut self) -> Option<(u8, usize)> {
        let mask = (1u8 << self.width) - 1;
        if self.open.1 == 0 && self.packed == 0 {
            let header = varint::take_u64(&mut self.bytes)?;
            let count = usize::try_from(header >> 1).ok()?;
            if header & 1 == 0 {
                let (level, rest) = self.bytes.split_first()?;
                self.bytes = rest;
                return Some((*level, count));
            }
            self.packed = count.checked_mul(self.width as usize)?;
        }
        if self.open.1 == 0 {
            if self.packed == 0 {
                // A run of nothing.
                return Some((0, 0));
            }
            let (byte, rest) = self.bytes.split_first()?;
            (self.bytes, self.open) = (rest, (*byte, 8 / self.width));
            self.packed -= 1;
        }
        let (byte, left) = self.open;
        let level = byte & mask;
        // As many as are the same from the lowest bits up.
        let mut same = 1;
        while same < left && byte >> (same * self.width) & mask == level {
            same += 1;
        }
        self.open = (byte.checked_shr(same * self.width).unwrap_or(0), left - same);
        Some((level, same as usize))
    }
}

/// Of a page of lists: after how many values each row ends. `levels` of them are in the page, `whole` is the
/// definition level of a value (1 to 3), and there must be `rows` rows. A row without a list ends where the
/// one before it does.
pub(crate) fn row_ends(
    repetition: &[u8],
    definition: &[u8],
    whole: u8,
    levels: usize,
    rows: usize,
    ends: &mut Vec<u64>,
) -> Option<()> {
    ends.clear();
    let mut repetition = Levels::new(repetition, 1);
    let mut definition = Levels::new(definition, level_width(whole));
    let (mut repeated, mut defined) = ((0, 0), (0, 0));
    let (mut left, mut values) = (levels, 0u64);
    while left > 0 {
        if repeated.1 == 0 {
            repeated = repetition.next()?;
        }
        if defined.1 == 0 {
            defined = definition.next()?;
        }
        let now = repeated.1.min(defined.1).min(left);
        let is_value = defined.0 == whole;
        match repeated.0 {
            0 if ends.len() + now <= rows => {
                for _ in 0..now {
                    values += u64::from(is_value);
                    ends.push(values);
                }
            }
            1 if is_value => {
                values += now as u64;
                *ends.last_mut()? = values;
            }
            _ => return None,
        }
        repeated.1 -= now;
        defined.1 -= now;
        left -= now;
    }
    (ends.len() == rows).then_some(())
}

/// Bits of a level of at most `whole`.
fn level_width(whole: u8) -> u32 {
    if whole > 1 { 2 } else { 1 }
}

/// The same for a column without lists: a value a row, or none. Without definition levels (`whole` is 0)
/// every row has one.
pub(crate) fn flat_ends(
    definition: &[u8],
    whole: u8,
    levels: usize,
    rows: usize,
    ends: &mut Vec<u64>,
) -> Option<()> {
    ends.clear();
    if levels != rows {
        return None;
    }
    if whole == 0 {
        ends.extend(1..=levels as u64);
        return Some(());
    }
    let mut definition = Levels::new(definition, level_width(whole));
    let mut values = 0;
    while ends.len() < rows {
        let (level, count) = definition.next()?;
        let count = count.min(rows - ends.len()) as u64;
        match level == whole {
            true => ends.extend(values + 1..=values + count),
            false => ends.extend(std::iter::repeat_n(values, count as usize)),
        }
        values += if level == whole { count } else { 0 };
    }
    Some(())
}

/// Appends `count` places in a dictionary: a byte that says how wide they are, then runs and packed bits.
pub(crate) fn indices(bytes: &[u8], count: usize, to: &mut Vec<u32>) -> Option<()> {
    if count == 0 {
        return Some(());
    }
    let (width, mut bytes) = bytes.split_first().map(|(w, rest)| (usize::from(*w), rest))?;
    if width > 32 {
        return None;
    }
    let end = to.len() + count;
    let mask = (1u64 << width) - 1;
    while to.len() < end {
        let header = varint::take_u64(&mut bytes)?;
        let left = end - to.len();
        let run = usize::try_from(header >> 1).ok()?;
        if header & 1 == 0 {
            let (own, rest) = bytes.split_at_checked(width.div_ceil(8))?;
            let index = own.iter().rev().fold(0u32, |v, b| v << 8 | u32::from(*b));
            bytes = rest;
            to.extend(std::iter::repeat_n(index, run.min(left)));
            continue;
        }
        // Groups of eight; the last may lack what no index needs.
        let length = run.checked_mul(width)?.min(bytes.len());
        let (own, rest) = bytes.split_at(length);
        bytes = rest;
        let have = run.checked_mul(8)?.min(left);
        if own.len() * 8 < have * width {
            return None;
        }
        for i in 0..have {
            let bit = i * width;
            let word = match own[bit / 8..].first_chunk() {
                Some(word) => u64::from_le_bytes(*word),
                None => own[bit / 8..].iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)),
            };
            to.push((word >> (bit % 8) & mask) as u32);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the specification says of differences, a bit at a time.
    fn packed(values: &[i64], of_miniblock: usize, miniblocks: usize) -> Vec<u8> {
        let mut out = Vec::new();
        varint::put_u64(&mut out, (of_miniblock * miniblocks) as u64);
        varint::put_u64(&mut out, miniblocks as u64);
        varint::put_u64(&mut out, values.len() as u64);
        varint::put_i64(&mut out, values.first().copied().unwrap_or(0));
        let deltas: Vec<i64> = values.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
        for block in deltas.chunks(of_miniblock * miniblocks) {
            let least = *block.iter().min().unwrap();
            varint::put_i64(&mut out, least);
            let above: Vec<u64> = block.iter().map(|d| d.wrapping_sub(least) as u64).collect();
            let width = |of: &[u64]| 64 - of.iter().fold(0, |all, d| all | d).leading_zeros();
            let minis: Vec<&[u64]> = above.chunks(of_miniblock).collect();
            out.extend((0..miniblocks).map(|m| minis.get(m).map_or(0, |of| width(of) as u8)));
            for mini in minis {
                let mut bits = Vec::new();
                for i in 0..of_miniblock {
                    let d = mini.get(i).copied().unwrap_or(0);
                    bits.extend((0..width(mini)).map(|b| (d >> b & 1) as u8));
                }
                out.extend(bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |b, bit| b << 1 | bit)));
            }
        }
        out
    }

    fn taken(mut numbers: Numbers<'_>, skip: usize, n: usize) -> Option<Vec<i64>> {
        let mut out = Vec::new();
        numbers.skip(skip)?;
        // In two pieces, so that groups are cut.
        for n in [n / 3, n - n / 3] {
            numbers.take(n, |some| out.extend_from_slice(some))?;
        }
        Some(out)
    }

    proptest! {
        #[test]
        fn differences_of_every_width_come_back(
            width in 0u32..=64,
            seeds in proptest::collection::vec(any::<i64>(), 0..500),
            (of_miniblock, miniblocks) in prop_oneof![Just((32, 4)), Just((64, 4)), Just((32, 1))],
            cut in 0usize..600,
        ) {
            let mut last = 0i64;
            let values: Vec<i64> = seeds.iter().map(|s| {
                let d = if width == 0 { 7 } else { (*s as u64 >> (64 - width)) as i64 };
                last = last.wrapping_add(d);
                last
            }).collect();
            let bytes = packed(&values, of_miniblock, miniblocks);
            let skip = cut.min(values.len());
            let got = taken(Numbers::deltas(&bytes).unwrap(), skip, values.len() - skip);
            prop_assert_eq!(got.as_deref(), Some(&values[skip..]));
            prop_assert!(taken(Numbers::deltas(&bytes).unwrap(), skip, values.len() - skip + 1).is_none());
            // Cut short, it is what was there or nothing.
            let short = &bytes[..bytes.len().min(cut)];
            let got = Numbers::deltas(short).and_then(|d| taken(d, 0, values.len()));
            prop_assert!(got.is_none_or(|got| got == values));
        }

        #[test]
        fn planes_and_words_come_back(values in proptest::collection::vec(any::<i64>(), 0..100), skip in 0usize..100) {
            let words: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let planes: Vec<u8> =
                (0..8).flat_map(|p| values.iter().map(move |v| v.to_le_bytes()[p])).collect();
            let skip = skip.min(values.len());
            for numbers in [Numbers::planes(&planes), Numbers::plain(&words), Some(Numbers::Words(&values))] {
                let got = taken(numbers.unwrap(), skip, values.len() - skip);
                prop_assert_eq!(got.as_deref(), Some(&values[skip..]));
            }
            for numbers in [Numbers::planes(&planes), Numbers::plain(&words), Some(Numbers::Words(&values))] {
                prop_assert!(taken(numbers.unwrap(), skip, values.len() - skip + 1).is_none());
            }
        }

        #[test]
        fn bytes_that_mean_nothing_are_numbers_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(numbers) = Numbers::deltas(&bytes) {
                taken(numbers, 3, 1000);
            }
            let mut ends = Vec::new();
            let (repetition, definition) = bytes.split_at(bytes.len() / 2);
            for whole in [1, 2, 3] {
                let mut places = Vec::new();
                if indices(&bytes, 300, &mut places).is_some() {
                    prop_assert_eq!(places.len(), 300);
                }
                if flat_ends(definition, whole, 50, 50, &mut ends).is_some() {
                    prop_assert!(ends.len() == 50 && ends.is_sorted() && ends[49] <= 50);
                }
                if row_ends(repetition, definition, whole, 400, 20, &mut ends).is_some() {
                    prop_assert!(ends.len() == 20 && ends.is_sorted() && ends[19] <= 400);
                }
            }
        }
    }

    #[test]
    fn rows_end_where_levels_say() {
        // A list of three, none, an empty one and one of 20: runs and packed bits mixed.
        let mut ends = Vec::new();
        // 0 1 1 | 0 | 0 | 0 1 ... : the first byte from its lowest bit.
        let levels = 3 + 1 + 1 + 20;
        let (repetition, definition) =
            ([3, 0b1100_0110, 17 << 1, 1], [3, 0b0010_1010, 0b1010_1001, 17 << 1, 2]);
        assert_eq!(row_ends(&repetition, &definition, 2, levels, 4, &mut ends), Some(()));
        assert_eq!(ends, [3, 3, 3, 23]);
        assert_eq!(
            row_ends(&repetition, &definition, 2, levels, 5, &mut ends),
            None,
            "another number of rows"
        );
    }

    #[test]
    fn indices_come_in_runs_and_packed() {
        // Three bits: 0 to 7 packed, then a run of five sixes, then 1 and 2 packed without the rest of their
        // eight.
        let bytes = [3, 3, 0b1000_1000, 0b1100_0110, 0b1111_1010, 5 << 1, 6, 3, 0b0001_0001];
        let mut got = vec![9];
        assert_eq!(indices(&bytes, 15, &mut got), Some(()));
        assert_eq!(got, [9, 0, 1, 2, 3, 4, 5, 6, 7, 6, 6, 6, 6, 6, 1, 2]);
        assert_eq!(indices(&bytes, 18, &mut got), None);
        assert_eq!(indices(&[0], 0, &mut got), Some(()));
    }

    #[test]
    fn rows_without_lists_have_a_value_or_none() {
        let mut ends = Vec::new();
        assert_eq!(flat_ends(&[3, 0b0000_1101, 4 << 1, 1], 1, 12, 12, &mut ends), Some(()));
        assert_eq!(ends, [1, 1, 2, 3, 3, 3, 3, 3, 4, 5, 6, 7]);
        assert_eq!(flat_ends(&[], 0, 3, 3, &mut ends), Some(()));
        assert_eq!(ends, [1, 2, 3]);
        assert_eq!(flat_ends(&[4 << 1, 1], 1, 5, 5, &mut ends), None);
    }
}
