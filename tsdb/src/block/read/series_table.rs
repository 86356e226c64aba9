//! A block's series in memory: dictionary codes per label, so that a matcher is asked once per distinct value
//! and not per series.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt32Type};
use arrow_array::{Array, DictionaryArray, MapArray, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use hashbrown::HashMap;

use super::symbols::Symbols;
use crate::block::read::file::BlockFile;
use crate::block::read::page::dictionary::TextScan;
use crate::block::read::scan::{self, Scan};
use crate::block::read::store::BlockStore;
use crate::block::schema;
use crate::block_meta::BlockMeta;
use model::labels::{Labels, METRIC_NAME};
use model::matcher::{MatchOp, Matcher};
use model::source::{Budget, SourceError};

/// Values that are matched between two looks at the clock.
const LOOKED_AT: usize = 64;

/// Code of a label that a series lacks.
const ABSENT: u32 = u32::MAX;

/// All series of a block, or some runs of them. Inside, series are numbered as they come; outside, by their
/// ids.
pub(crate) struct SeriesTable {
    /// The ids that are here, ascending and apart.
    runs: Vec<Range<u32>>,
    len: usize,
    /// Ascending by name.
    columns: Vec<Column>,
    /// Labels without a column: for each series a run of (name, value) codes, ascending by name.
    other_starts: Vec<u32>,
    others: Vec<(u32, u32)>,
    /// The series that carry each of those names, ascending; made once all series are there.
    carriers: Vec<Vec<u32>>,
    other_names: Symbols,
    other_values: Symbols,
}

struct Column {
    name: Box<str>,
    symbols: Symbols,
    codes: Vec<u32>,
}

impl Column {
    /// The run of series with a value, where series are sorted by this column.
    fn run_of(&self, value: &str) -> Range<u32> {
        let text = |code: u32| if code == ABSENT { "" } else { &*self.symbols.strings[code as usize] };
        let from = self.codes.partition_point(|c| text(*c) < value);
        let to = self.codes.partition_point(|c| text(*c) <= value);
        from as u32..to as u32
    }
}

/// What is to be read for runs of a series table: pages by row group.
pub(crate) struct TableProjection<'f> {
    groups: Vec<GroupWish<'f>>,
}

/// The columns of one row group.
struct GroupWish<'f> {
    ids: TextScan<'f>,
    labels: Vec<TextScan<'f>>,
    other_names: TextScan<'f>,
    other_values: TextScan<'f>,
}

impl<'f> TableProjection<'f> {
    /// For runs of series, ascending and apart. Where the table is not laid out for it, scans do in its
    /// place.
    pub fn new(
        file: &'f BlockFile,
        runs: &[Range<u32>],
    ) -> Result<(TableProjection<'f>, Vec<Scan<'f>>), SourceError> {
        let mut groups: Vec<(usize, Vec<Range<u32>>)> = Vec::new();
        for (group, rows) in file.index.row_starts.windows(2).enumerate() {
            let of_group = |run: &Range<u32>| {
                let from = u64::from(run.start).clamp(rows[0], rows[1]);
                let to = u64::from(run.end).clamp(rows[0], rows[1]);
                (from - rows[0]) as u32..(to - rows[0]) as u32
            };
            let wanted: Vec<Range<u32>> = runs.iter().map(of_group).filter(|r| !r.is_empty()).collect();
            if !wanted.is_empty() {
                groups.push((group, wanted));
            }
        }
        let pages: Option<Vec<GroupWish<'f>>> =
            groups.iter().map(|(group, rows)| GroupWish::new(file, *group, rows)).collect();
        if let Some(groups) = pages {
            return Ok((TableProjection { groups }, Vec::new()));
        }
        let schema = dictionary_schema(file);
        let scans = groups.into_iter().map(|(group, rows)| {
            let rows: Vec<u32> = rows.into_iter().flatten().collect();
            Scan::with_dictionaries(file, schema.clone(), group, Some(&rows))
        });
        Ok((TableProjection { groups: Vec::new() }, scans.collect::<Result<_, _>>()?))
    }

    /// The bytes to be fetched.
    pub fn needs(&self) -> Vec<(&'f BlockFile, Range<u64>)> {
        self.groups.iter().flat_map(GroupWish::scans).flat_map(TextScan::needs).collect()
    }
}

impl<'f> GroupWish<'f> {
    /// `None` where a column is not laid out for it.
    fn new(file: &'f BlockFile, group: usize, rows: &[Range<u32>]) -> Option<GroupWish<'f>> {
        // The number, the labels, the map of the rest with its two.
        let columns = file.index.arrow.schema().fields().len();
        let leaves = file.index.arrow.metadata().file_metadata().schema_descr().num_columns();
        if columns < 2 || leaves != columns + 1 {
            return None;
        }
        let scan = |leaf: usize| TextScan::new(file, group, leaf, rows);
        Some(GroupWish {
            ids: scan(0)?,
            labels: (1..columns - 1).map(scan).collect::<Option<_>>()?,
            other_names: scan(columns - 1)?,
            other_values: scan(columns)?,
        })
    }

    fn scans(&self) -> impl Iterator<Item = &TextScan<'f>> {
        let others = [&self.other_names, &self.other_values];
        std::iter::once(&self.ids).chain(&self.labels).chain(others)
    }
}

impl SeriesTable {
    /// All series of a block, as the one run of them.
    pub fn whole(meta: &BlockMeta, file: &BlockFile) -> Result<Range<u32>, SourceError> {
        let all = u32::try_from(meta.stats.series)
            .map_err(|_| file.damaged("its meta.json tells of more series than a block can have"))?;
        if file.index.row_starts.last() != Some(&u64::from(all)) {
            let rows = file.index.row_starts.last();
            return Err(file.damaged(format!("it has {} series, not {all}", rows.copied().unwrap_or(0))));
        }
        Ok(0..all)
    }

    fn find_carriers(&self) -> Vec<Vec<u32>> {
        let mut carriers = vec![Vec::new(); self.other_names.strings.len()];
        for series in 0..self.len as u32 {
            self.others_of(series).iter().for_each(|(name, _)| carriers[*name as usize].push(series));
        }
        carriers.iter_mut().for_each(Vec::shrink_to_fit);
        carriers
    }

    /// At most `count` series from a given one on, never beyond a row group: for readers of whole blocks,
    /// whose memory must not grow with them. Only [`SeriesTable::labels`] and [`SeriesTable::len`] mean
    /// anything of it. Not cached.
    pub fn run(
        store: &BlockStore,
        file: &BlockFile,
        first: u32,
        count: u32,
    ) -> Result<SeriesTable, SourceError> {
        let starts = &file.index.row_starts;
        let group = starts.partition_point(|s| *s <= u64::from(first)).wrapping_sub(1);
        if group + 1 >= starts.len() {
            return Err(file.damaged(format!("it has no series {first}")));
        }
        let to = (u64::from(first) + u64::from(count.max(1))).min(starts[group + 1]);
        let to = u32::try_from(to).map_err(|e| file.damaged(e))?;
        let runs: Vec<Range<u32>> = std::iter::once(first..to).collect();
        SeriesTable::read(store, file, runs)
    }

    /// Reads runs of series. Without what [`SeriesTable::matching`] needs, see [`SeriesTable::searchable`].
    fn read(store: &BlockStore, file: &BlockFile, runs: Vec<Range<u32>>) -> Result<SeriesTable, SourceError> {
        let (projection, scans) = TableProjection::new(file, &runs)?;
        let (batches, bytes) = scan::run_with_reads(store, scans, &projection.needs())?;
        SeriesTable::of_runs(file, runs, &projection, bytes, batches)
    }

    /// The table of what the projection of these runs found.
    pub fn of_runs(
        file: &BlockFile,
        runs: Vec<Range<u32>>,
        projection: &TableProjection<'_>,
        bytes: Vec<Bytes>,
        batches: Vec<Vec<RecordBatch>>,
    ) -> Result<SeriesTable, SourceError> {
        let wanted: usize = runs.iter().map(|r| r.len()).sum();
        let mut table = SeriesTable::empty(file, runs)?;
        let mut bytes = &bytes[..];
        for group in &projection.groups {
            table.push_pages(file, group, &mut bytes)?;
        }
        for batch in batches.iter().flatten() {
            table.push(batch).ok_or_else(|| {
                file.damaged("the columns of its series table are not of one, or contradict themselves")
            })?;
        }
        if table.len != wanted {
            return Err(file.damaged(format!("it holds {} of the {wanted} series asked for", table.len)));
        }
        Ok(table)
    }

    /// Decodes a row group's pages, whose bytes come next.
    fn push_pages(
        &mut self,
        file: &BlockFile,
        group: &GroupWish<'_>,
        bytes: &mut &[Bytes],
    ) -> Result<(), SourceError> {
        let mut next = |scan: &TextScan<'_>| {
            let (own, rest) = bytes.split_at(scan.needs().len().min(bytes.len()));
            *bytes = rest;
            own
        };
        let mut ids = self.ids().skip(self.len);
        let (mut rows, mut right) = (0, true);
        group.ids.decode_numbers(next(&group.ids), |id| {
            rows += 1;
            // Unsigned, of 32 bits.
            right &= ids.next() == Some(id as u32);
        })?;
        drop(ids);
        if !right {
            return Err(file.damaged("its series are not numbered as they lie"));
        }
        for (column, scan) in self.columns.iter_mut().zip(&group.labels) {
            let Column { symbols, codes, .. } = column;
            codes.reserve(rows);
            scan.decode(next(scan), symbols, |of_row| codes.push(of_row.first().copied().unwrap_or(ABSENT)))?;
        }
        let (mut names, first) = (Vec::new(), self.other_starts.len());
        let mut end = self.others.len() as u32;
        group.other_names.decode(next(&group.other_names), &mut self.other_names, |of_row| {
            names.extend_from_slice(of_row);
            end += of_row.len() as u32;
            self.other_starts.push(end);
        })?;
        let (mut values, mut at, mut fits) = (Vec::new(), first, true);
        group.other_values.decode(next(&group.other_values), &mut self.other_values, |of_row| {
            values.extend_from_slice(of_row);
            let of_names = self.other_starts.get(at).map(|end| end - self.other_starts[at - 1]);
            fits &= of_names == Some(of_row.len() as u32);
            at += 1;
        })?;
        if !fits || at != self.other_starts.len() || names.len() != values.len() {
            return Err(file.damaged("its other labels do not have a value for each name"));
        }
        // A label is not there or has a value, and is there once.
        let text = |name: u32| &*self.other_names.strings[name as usize];
        let ascend = |row: &[u32]| {
            let (from, to) = (row[0] - self.other_starts[first - 1], row[1] - self.other_starts[first - 1]);
            names[from as usize..to as usize].windows(2).all(|w| text(w[0]) < text(w[1]))
        };
        let all = self.columns.iter().map(|c| &c.symbols).chain([&self.other_values]);
        let empty = all.into_iter().any(|symbols| symbols.numbers.contains_key(""));
        let twice = self.other_names.strings.iter().any(|name| self.column(name).is_some());
        if empty || twice || !self.other_starts[first - 1..].windows(2).all(ascend) {
            return Err(file.damaged("a series has a label without a value, or twice"));
        }
        self.others.extend(names.into_iter().zip(values));
        self.len += rows;
        Ok(())
    }

    /// The same, to be asked for matching series.
    pub fn searchable(mut self) -> SeriesTable {
        self.carriers = self.find_carriers();
        self
    }

    /// Whether these are the series that are here.
    pub fn has_runs(&self, runs: &[Range<u32>]) -> bool {
        self.runs == runs
    }

    /// The id of a series by its number here.
    fn id(&self, mut number: u32) -> u32 {
        for run in &self.runs {
            if number < run.len() as u32 {
                return run.start + number;
            }
            number -= run.len() as u32;
        }
        // Beyond the end.
        u32::MAX
    }

    /// The number here of a series by its id; it must be here.
    fn number(&self, id: u32) -> u32 {
        let mut before = 0;
        for run in &self.runs {
            if id < run.end {
                return before + (id - run.start);
            }
            before += run.len() as u32;
        }
        unreachable!("series {id} is not in this part of the table")
    }

    fn empty(file: &BlockFile, runs: Vec<Range<u32>>) -> Result<SeriesTable, SourceError> {
        let fields = file.index.arrow.schema().fields();
        let names: Vec<String> = fields.iter().map(|f| f.name().clone()).collect();
        let fine = names.len() >= 2
            && names[0] == schema::SERIES_ID
            && names[names.len() - 1] == schema::OTHER_LABELS;
        let label_names = if fine { &names[1..names.len() - 1] } else { &[] };
        if !fine || label_names.windows(2).any(|w| w[0] >= w[1]) {
            return Err(file.damaged("it does not have the columns of a series table"));
        }
        Ok(SeriesTable {
            runs,
            len: 0,
            columns: label_names
                .iter()
                .map(|n| Column { name: n.as_str().into(), symbols: Symbols::default(), codes: Vec::new() })
                .collect(),
            other_starts: vec![0],
            others: Vec::new(),
            carriers: Vec::new(),
            other_names: Symbols::default(),
            other_values: Symbols::default(),
        })
    }

    fn push(&mut self, batch: &RecordBatch) -> Option<()> {
        let rows = batch.num_rows();
        let ids = batch.column(0).as_primitive_opt::<UInt32Type>()?;
        let mut expected = self.ids().skip(self.len);
        if ids.values().iter().any(|id| expected.next() != Some(*id)) {
            return None;
        }
        drop(expected);
        self.len += rows;
        for (column, array) in self.columns.iter_mut().zip(&batch.columns()[1..]) {
            let array: &DictionaryArray<Int32Type> = array.as_dictionary_opt()?;
            let strings = array.values().as_string_opt::<i32>()?;
            // One batch may hold only part of the column's strings, and few of its series all of them.
            let mut numbers = vec![ABSENT; strings.len()];
            let keys = array.keys();
            column.codes.reserve(rows);
            for i in 0..rows {
                column.codes.push(if keys.is_null(i) {
                    ABSENT
                } else {
                    let key = keys.value(i) as usize;
                    let number = numbers.get_mut(key)?;
                    if *number == ABSENT {
                        // A label is not there or has a value.
                        let value = Some(strings.value(key)).filter(|v| !v.is_empty())?;
                        *number = column.symbols.number(value);
                    }
                    *number
                });
            }
        }
        let others: &MapArray = batch.column(batch.num_columns() - 1).as_map_opt()?;
        // Inside a map the strings come plain.
        let names = others.keys().as_string_opt::<i32>()?;
        let values = others.values().as_string_opt::<i32>()?;
        let offsets = others.value_offsets();
        for i in 0..rows {
            let mut last = None;
            for at in offsets[i] as usize..offsets[i + 1] as usize {
                let (name, value) = (names.value(at), values.value(at));
                if value.is_empty() || last.is_some_and(|last| last >= name) {
                    return None;
                }
                last = Some(name);
                let known = self.other_names.strings.len();
                let number = self.other_names.number(name);
                if number as usize == known && self.column(name).is_some() {
                    return None;
                }
                self.others.push((number, self.other_values.number(value)));
            }
            self.other_starts.push(self.others.len() as u32);
        }
        Some(())
    }

    pub fn bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(|c| c.codes.len() * 4 + c.symbols.bytes()).sum();
        columns
            + self.others.len() * 8
            + self.carriers.iter().map(|c| c.len() * 4 + 24).sum::<usize>()
            + self.other_starts.len() * 4
            + self.other_names.bytes()
            + self.other_values.bytes()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The ids of all series that are here.
    pub fn ids(&self) -> impl Iterator<Item = u32> + use<> {
        self.runs.clone().into_iter().flatten()
    }

    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.binary_search_by(|c| (*c.name).cmp(name)).ok().map(|i| &self.columns[i])
    }

    fn others_of(&self, series: u32) -> &[(u32, u32)] {
        let at = series as usize;
        &self.others[self.other_starts[at] as usize..self.other_starts[at + 1] as usize]
    }

    /// The labels of a series, by its id.
    pub fn labels(&self, series: u32) -> Labels {
        let series = self.number(series);
        let in_columns = self.columns.iter().filter_map(|c| {
            let code = c.codes[series as usize];
            (code != ABSENT).then(|| (&*c.name, &*c.symbols.strings[code as usize]))
        });
        let others = self.others_of(series);
        if others.is_empty() {
            return Labels::from_sorted(in_columns);
        }
        let mut pairs: Vec<(&str, &str)> = in_columns.collect();
        pairs.extend(others.iter().map(|(n, v)| {
            (&*self.other_names.strings[*n as usize], &*self.other_values.strings[*v as usize])
        }));
        pairs.sort_unstable();
        Labels::from_sorted(pairs)
    }

    /// The ids of the series for which all matchers hold, ascending.
    pub fn matching(&self, matchers: &[Matcher], budget: &Budget) -> Result<Vec<u32>, SourceError> {
        let mut found = self.numbers_matching(matchers, budget)?;
        match &self.runs[..] {
            [Range { start: 0, .. }] => {}
            [one] => found.iter_mut().for_each(|n| *n += one.start),
            _ => found.iter_mut().for_each(|n| *n = self.id(*n)),
        }
        Ok(found)
    }

    fn numbers_matching(&self, matchers: &[Matcher], budget: &Budget) -> Result<Vec<u32>, SourceError> {
        // Series are sorted by metric name first, so an equality on it is a range.
        let mut range = 0..self.len as u32;
        for m in matchers {
            if m.op == MatchOp::Equal
                && *m.name == *METRIC_NAME
                && let Some(column) = self.column(METRIC_NAME)
            {
                range = intersect(&range, &column.run_of(&m.value));
            }
        }
        if range.is_empty() {
            return Ok(Vec::new());
        }
        // The range rules out most series at once; the rest are asked label by label.
        let mut left: Option<Vec<u32>> = None;
        for m in matchers {
            if m.op == MatchOp::Equal && *m.name == *METRIC_NAME && self.column(METRIC_NAME).is_some() {
                continue;
            }
            let empty = m.matches_empty();
            left = match (self.column(&m.name), self.other_names.numbers.get(&*m.name)) {
                // One value: its code is looked up and no other value is.
                (Some(column), _) if m.op == MatchOp::Equal && !m.value.is_empty() => {
                    let Some(code) = column.symbols.numbers.get(&*m.value) else { return Ok(Vec::new()) };
                    Some(keep(left, &range, |s| column.codes[s as usize] == *code))
                }
                (Some(column), _) => {
                    let mut fits: Vec<bool> = Vec::with_capacity(column.symbols.strings.len());
                    for some in column.symbols.strings.chunks(LOOKED_AT) {
                        budget.check()?;
                        fits.extend(some.iter().map(|v| m.matches(v)));
                    }
                    let holds = |s: u32| match column.codes[s as usize] {
                        ABSENT => empty,
                        code => fits[code as usize],
                    };
                    Some(keep(left, &range, holds))
                }
                (None, Some(&name)) => {
                    // Those that carry the label and whose value says the contrary of what its lack would.
                    let mut known: HashMap<u32, bool> = HashMap::new();
                    let mut differs = |s: &u32| {
                        let own = self.others_of(*s).iter().find(|(n, _)| *n == name);
                        let fits = |v: &u32| m.matches(&self.other_values.strings[*v as usize]);
                        own.is_some_and(|(_, v)| *known.entry(*v).or_insert_with_key(fits) != empty)
                    };
                    let carriers = within(&self.carriers[name as usize], &range);
                    let mut differing: Vec<u32> = Vec::new();
                    for some in carriers.chunks(LOOKED_AT) {
                        budget.check()?;
                        differing.extend(some.iter().copied().filter(&mut differs));
                    }
                    let mut walk = differing.iter().peekable();
                    let mut is_one = |s: u32| {
                        while walk.next_if(|d| **d < s).is_some() {}
                        walk.peek().is_some_and(|d| **d == s)
                    };
                    match (left, empty) {
                        (None, false) => Some(differing),
                        (left, _) => Some(keep(left, &range, |s| is_one(s) != empty)),
                    }
                }
                (None, None) if !empty => return Ok(Vec::new()),
                (None, None) => left,
            };
            if left.as_ref().is_some_and(Vec::is_empty) {
                return Ok(Vec::new());
            }
        }
        Ok(left.unwrap_or_else(|| range.collect()))
    }

    /// Adds the label names that occur on some series.
    pub fn names(&self, series: Option<&[u32]>, add: &mut dyn FnMut(&str)) {
        match series {
            None => {
                self.columns.iter().for_each(|c| add(&c.name));
                self.other_names.strings.iter().for_each(|n| add(n));
            }
            Some(series) => {
                let series: Vec<u32> = series.iter().map(|s| self.number(*s)).collect();
                let used = |c: &&Column| series.iter().any(|s| c.codes[*s as usize] != ABSENT);
                self.columns.iter().filter(used).for_each(|c| add(&c.name));
                let mut seen = vec![false; self.other_names.strings.len()];
                for s in &series {
                    self.others_of(*s).iter().for_each(|(n, _)| seen[*n as usize] = true);
                }
                let of_others = seen.iter().zip(&self.other_names.strings).filter(|(seen, _)| **seen);
                of_others.for_each(|(_, n)| add(n));
            }
        }
    }

    /// Adds the values that a label has on some series.
    pub fn values(&self, name: &str, series: Option<&[u32]>, add: &mut dyn FnMut(&str)) {
        if let Some(column) = self.column(name) {
            match series {
                None => column.symbols.strings.iter().for_each(|v| add(v)),
                Some(series) => {
                    let mut seen = vec![false; column.symbols.strings.len()];
                    for s in series {
                        let number = self.number(*s) as usize;
                        if let Some(seen) = seen.get_mut(column.codes[number] as usize) {
                            *seen = true;
                        }
                    }
                    seen.iter().zip(&column.symbols.strings).filter(|(s, _)| **s).for_each(|(_, v)| add(v));
                }
            }
        } else if let Some(&name) = self.other_names.numbers.get(name) {
            let mut seen = vec![false; self.other_values.strings.len()];
            let mut one = |s: u32| {
                self.others_of(s)
                    .iter()
                    .filter(|(n, _)| *n == name)
                    .for_each(|(_, v)| seen[*v as usize] = true);
            };
            match series {
                None => self.carriers[name as usize].iter().for_each(|s| one(*s)),
                Some(series) => series.iter().for_each(|s| one(self.number(*s))),
            }
            seen.iter().zip(&self.other_values.strings).filter(|(s, _)| **s).for_each(|(_, v)| add(v));
        }
    }
}

/// The file's schema with texts as dictionaries.
fn dictionary_schema(file: &BlockFile) -> Arc<Schema> {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let one = |f: &Arc<Field>| match f.data_type() {
        DataType::Utf8 => f.as_ref().clone().with_data_type(dictionary.clone()),
        _ => f.as_ref().clone(),
    };
    Arc::new(Schema::new(file.index.arrow.schema().fields().iter().map(one).collect::<Vec<_>>()))
}

fn intersect(a: &Range<u32>, b: &Range<u32>) -> Range<u32> {
    let from = a.start.max(b.start);
    from..a.end.min(b.end).max(from)
}

/// The part of ascending numbers that lies in a range.
fn within<'a>(numbers: &'a [u32], range: &Range<u32>) -> &'a [u32] {
    let from = numbers.partition_point(|n| *n < range.start);
    &numbers[from..numbers.partition_point(|n| *n < range.end)]
}

fn keep(left: Option<Vec<u32>>, range: &Range<u32>, mut holds: impl FnMut(u32) -> bool) -> Vec<u32> {
    match left {
        Some(mut left) => {
            left.retain(|s| holds(*s));
            left
        }
        None => range.clone().filter(|s| holds(*s)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStore;
    use object_store::memory::InMemory;
    use ulid::Ulid;

    use super::*;
    use crate::block::{BlockOrigin, WriteOptions, write_block};
    use model::source::SeriesColumns;
    use model::tenant::TenantId;

    /// Labels of all kinds: for all, for some, for very few, and one of so many long values that its
    /// dictionary overflows.
    fn series() -> impl Iterator<Item = SeriesColumns> {
        (0..40_000u32).map(|i| {
            let mut pairs = vec![
                ("__name__", format!("m{:03}", i / 300)),
                ("instance", format!("i{:05}", i)),
                ("long", format!("{:040}", i.wrapping_mul(2_654_435_761))),
            ];
            if i % 3 == 0 {
                pairs.push(("mode", format!("{}", i % 7)));
            }
            if i % 900 == 5 {
                pairs.push(("rare", format!("{}", i % 4)));
                pairs.push(("rarer", "x".to_string()));
            }
            pairs.sort();
            SeriesColumns {
                labels: Labels::from_pairs(pairs),
                ts_ms: [i64::from(i)].into(),
                values: vec![1.0],
                histograms: None,
                start_ts_ms: None,
                windows: None,
            }
        })
    }

    #[test]
    fn pages_say_what_arrow_says() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let tenant = TenantId::single();
        let origin = BlockOrigin::flushed(Ulid::new(), tenant.clone(), "test");
        let written = write_block(dir.path(), origin, WriteOptions::fresh(), series().map(Ok));
        let files = written.unwrap().unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        runtime.block_on(crate::block::write::upload::upload(&*store, &files)).unwrap();
        let blocks = BlockStore::new(store, runtime.handle().clone(), 16 << 20);
        let [file, ..] = BlockFile::open(&blocks, &tenant, &files.meta, false).unwrap();
        let labels: Vec<Labels> = series().map(|s| s.labels).collect();
        let all = 40_000;
        for runs in [vec![0..7, 16_000..17_000, all - 1..all], std::iter::once(0..all).collect()] {
            let (projection, scans) = TableProjection::new(&file, &runs).unwrap();
            assert!(scans.is_empty() && !projection.groups.is_empty(), "pages are laid out for it");
            let pages = SeriesTable::read(&blocks, &file, runs.clone()).unwrap().searchable();
            let rows: Vec<u32> = runs.iter().cloned().flatten().collect();
            let scan = Scan::with_dictionaries(&file, dictionary_schema(&file), 0, Some(&rows)).unwrap();
            let (batches, none) =
                (scan::run(&blocks, vec![scan]).unwrap(), TableProjection { groups: Vec::new() });
            let arrow = SeriesTable::of_runs(&file, runs.clone(), &none, Vec::new(), batches).unwrap();
            let arrow = arrow.searchable();
            for id in rows {
                assert_eq!(pages.labels(id), labels[id as usize]);
                assert_eq!(arrow.labels(id), labels[id as usize]);
            }
            for (name, value) in [("rare", "1"), ("rarer", ""), ("mode", "6"), ("__name__", "m054")] {
                let wanted = [Matcher::equal(name, value)];
                let want: Vec<u32> =
                    pages.ids().filter(|id| labels[*id as usize].value(name) == value).collect();
                assert_eq!(pages.matching(&wanted, &Budget::unlimited()).unwrap(), want, "{name}");
                assert_eq!(arrow.matching(&wanted, &Budget::unlimited()).unwrap(), want, "{name}");
            }
        }
    }
}
