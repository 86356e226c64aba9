//! Two vectors matched by their labels: which series meet, what each pair gives at each step, and what stands
//! in for a side that has nothing.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use model::labels::{Labels, METRIC_NAME};
use model::sample::Value;
use model::source::Budget;

use super::set::{bit, presence};
use super::{Signatures, StepNotes, changes_meaning, dense, is_trim, pair_op};
use crate::column::{Column, Point};
use crate::eval::evaluator::{Evaluator, SAME_LABELSET, column_bytes, label_bytes};
use crate::eval::frame::{Frame, Row, Val, is_metadata_label};
use crate::parse::{BinaryOp, Cardinality, Span, VectorMatching};
use crate::plan::Binary;
use crate::value::{ErrorKind, QueryError};

/// One side of a match.
struct Side<'a> {
    rows: &'a [Row],
    /// The number of each row's signature.
    signatures: Vec<usize>,
}

impl<'a> Side<'a> {
    fn new(rows: &'a [Row], signatures: &mut Signatures<'_>) -> Side<'a> {
        Side { rows, signatures: rows.iter().map(|row| signatures.of(&row.labels)).collect() }
    }

    fn iter(&self) -> impl Iterator<Item = (&'a Row, usize)> {
        self.rows.iter().zip(self.signatures.iter().copied())
    }

    /// The places of the rows of each signature.
    fn by_signature(&self, signatures: usize) -> Vec<Vec<usize>> {
        let mut places = vec![Vec::new(); signatures];
        for (i, sig) in self.signatures.iter().enumerate() {
            places[*sig].push(i);
        }
        places
    }
}

/// A match at work: `many` is matched against `one`.
struct Matching<'m> {
    out: Output<'m>,
    matched: Matched,
    notes_by_step: StepNotes,
    /// The left operand is the side of the "one".
    swapped: bool,
    one_to_one: bool,
    /// Steps at which a match is tried at all.
    active: Vec<u64>,
    /// By signature: several rows may meet at it, or what is unmatched is filled later. Then each match is
    /// written down.
    track: Vec<bool>,
}

impl<'m> Matching<'m> {
    fn new(
        ev: &Evaluator<'_>,
        b: &Binary,
        m: &'m VectorMatching,
        many: &Side<'_>,
        one: &Side<'_>,
        signatures: usize,
    ) -> Matching<'m> {
        let steps = ev.steps.count;
        let mut many_per_sig = vec![0u32; signatures];
        many.signatures.iter().for_each(|s| many_per_sig[*s] += 1);
        let delayed = ev.options.delayed_name_removal;
        let out = Output {
            op: b.op,
            matching: m,
            return_bool: b.return_bool,
            drop_name: !delayed && b.return_bool,
            steps,
            instant: ev.steps.is_instant(),
            delayed,
            rows: Vec::new(),
            by_labels: HashMap::new(),
            names: m.labels.iter().map(|l| &**l).collect(),
            budget: ev.budget.clone(),
            reserved: 0,
        };
        let filling = m.fill_left.is_some() || m.fill_right.is_some();
        Matching {
            out,
            matched: Matched::new(steps),
            notes_by_step: StepNotes::default(),
            swapped: m.card == Cardinality::OneToMany,
            one_to_one: m.card == Cardinality::OneToOne,
            active: active_steps(many.rows, one.rows, steps, filling),
            track: many_per_sig.into_iter().map(|n| n > 1 || m.fill_left.is_some()).collect(),
        }
    }

    /// A row of the many with those of the one that have its signature.
    fn pair<'r>(
        &mut self,
        row: &Row,
        sig: usize,
        candidates: impl Iterator<Item = &'r Row>,
    ) -> Result<(), QueryError> {
        let (op, track, swapped) = (self.out.op, self.track[sig], self.swapped);
        for other in candidates {
            let target = self.out.target(&row.labels, &other.labels)?;
            let floats = row.column.histogram_count() == 0 && other.column.histogram_count() == 0;
            if floats && !is_trim(op) {
                let ((x, has_x), (y, has_y)) = (row.column.floats(), other.column.floats());
                let both = has_x.iter().zip(has_y).zip(&self.active).map(|((a, b), c)| a & b & c);
                let both: Vec<u64> = both.collect();
                if track {
                    self.matched.note_all(sig, &self.out.rows[target].labels, &both, self.one_to_one)?;
                }
                let (left, right) = if swapped { (y, x) } else { (x, y) };
                self.out.put_all(target, dense(op, left, right, both, self.out.return_bool, false))?;
                continue;
            }
            for (step, x) in row.column.iter() {
                if !bit(&self.active, step) {
                    continue;
                }
                let Some(y) = other.column.get(step) else { continue };
                self.put(target, step, x, y, track.then_some(sig))?;
            }
        }
        Ok(())
    }

    /// A row of the many where no candidate has a value: `fill` stands in for the one.
    fn fill_one<'r, I: Iterator<Item = &'r Row>>(
        &mut self,
        row: &Row,
        sig: usize,
        candidates: impl Fn() -> I,
        fill: f64,
    ) -> Result<(), QueryError> {
        let labels = match_labels(&row.labels, self.out.matching);
        let mut target = None;
        for (step, x) in row.column.iter() {
            if candidates().any(|other| other.column.get(step).is_some()) {
                continue;
            }
            let target = match target {
                Some(known) => known,
                None => *target.insert(self.out.target(&row.labels, &labels)?),
            };
            self.put(target, step, x, Point::Float(fill), self.track[sig].then_some(sig))?;
        }
        Ok(())
    }

    /// A row of the one where nothing matched it: `fill` stands in for the many.
    fn fill_many(&mut self, row: &Row, sig: usize, fill: f64) -> Result<(), QueryError> {
        let labels = match_labels(&row.labels, self.out.matching);
        let mut target = None;
        for (step, y) in row.column.iter() {
            if self.matched.any(sig, step) {
                continue;
            }
            let target = match target {
                Some(known) => known,
                None => *target.insert(self.out.target(&labels, &row.labels)?),
            };
            self.put(target, step, Point::Float(fill), y, Some(sig))?;
        }
        Ok(())
    }

    /// The result of a pair, `x` of the many and `y` of the one, written down as a match of `track`.
    #[inline]
    fn put(
        &mut self,
        target: usize,
        step: usize,
        x: Point<'_>,
        y: Point<'_>,
        track: Option<usize>,
    ) -> Result<(), QueryError> {
        let (left, right) = if self.swapped { (y, x) } else { (x, y) };
        let (matched, one_to_one) = (&mut self.matched, self.one_to_one);
        self.out.put(target, step, left, right, &mut self.notes_by_step, |labels| match track {
            Some(sig) => matched.note(sig, labels, step, one_to_one),
            None => Ok(()),
        })
    }
}

impl Evaluator<'_> {
    /// Two vectors, matched by their labels.
    pub(super) fn vector_vector(
        &mut self,
        b: &Binary,
        l: Frame,
        r: Frame,
        m: &VectorMatching,
        span: Span,
    ) -> Result<Val, QueryError> {
        let swapped = m.card == Cardinality::OneToMany;
        // From here on `many` is matched against `one`.
        let (many, one) = if swapped { (r.rows, l.rows) } else { (l.rows, r.rows) };
        let mut error = match self.matched(b, &many, &one, m, span) {
            Err(e) if e.kind == ErrorKind::Execution && self.steps.count > 1 => e,
            done => return done,
        };
        // Upstream goes step by step and tells the error of the first step that has one, here it is told
        // whichever was come upon first. So the first step is looked for: none fails before `low`, one does
        // before `high`.
        let (mut low, mut high) = (0, self.steps.count);
        // Each attempt takes copies of both sides.
        self.expect_rows(many.len() + one.len(), self.steps.count)?;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let until = |rows: &[Row]| -> Vec<Row> {
                let mut rows = rows.to_vec();
                rows.iter_mut().for_each(|r| r.column.retain(|step| step < middle));
                rows
            };
            match self.matched(b, &until(&many), &until(&one), m, span) {
                Ok(_) => low = middle,
                Err(e) if e.kind == ErrorKind::Execution => (error, high) = (e, middle),
                Err(e) => return Err(e),
            }
        }
        Err(error)
    }

    /// `many` matched against `one`.
    fn matched(
        &mut self,
        b: &Binary,
        many: &[Row],
        one: &[Row],
        m: &VectorMatching,
        span: Span,
    ) -> Result<Val, QueryError> {
        let mut signatures = Signatures::new(m);
        let keys: u64 = many.iter().chain(one).map(|row| label_bytes(&row.labels)).sum();
        self.charge(keys)?;
        let many = Side::new(many, &mut signatures);
        let one = Side::new(one, &mut signatures);
        let ones = one.by_signature(signatures.len());
        let mut matching = Matching::new(self, b, m, &many, &one, signatures.len());
        self.refuse_duplicates(&one, &ones, &matching)?;
        for (row, sig) in many.iter() {
            self.budget.check_in_turn()?;
            let candidates = || ones[sig].iter().map(|i| &one.rows[*i]);
            matching.pair(row, sig, candidates())?;
            // Upstream exchanges the operands for `group_right` but not the fill values.
            if let Some(fill) = m.fill_right {
                matching.fill_one(row, sig, candidates, fill)?;
            }
        }
        if let Some(fill) = m.fill_left {
            for (row, sig) in one.iter() {
                matching.fill_many(row, sig, fill)?;
            }
        }
        let Matching { out, notes_by_step, .. } = matching;
        self.live += out.reserved.into();
        let rows: Vec<Row> = out.rows.into_iter().filter(|r| !r.column.is_empty()).collect();
        notes_by_step.tell(b.op, span, &mut self.notes);
        if self.steps.is_instant() { self.collect(rows) } else { Ok(Frame { rows }) }.map(Val::Vector)
    }

    /// The side of the "one" must be unique per signature at each step.
    fn refuse_duplicates(
        &self,
        one: &Side<'_>,
        ones: &[Vec<usize>],
        matching: &Matching<'_>,
    ) -> Result<(), QueryError> {
        // By signature: the steps that rows before had something at. Each row is held against all of them at
        // once.
        let words = self.steps.count.div_ceil(64);
        let mut taken: HashMap<usize, Vec<u64>> = HashMap::new();
        let mut first: Option<(usize, usize)> = None;
        let sigs = &one.signatures;
        for (i, sig) in sigs.iter().enumerate().filter(|(_, sig)| ones[**sig].len() > 1) {
            self.budget.check_in_turn()?;
            let taken = taken.entry(*sig).or_insert_with(|| vec![0; words]);
            let mut clash = None;
            for (w, (bits, taken)) in presence(&one.rows[i].column).zip(taken.iter_mut()).enumerate() {
                let both = bits & *taken & matching.active[w];
                if both != 0 && clash.is_none() {
                    clash = Some(w * 64 + both.trailing_zeros() as usize);
                }
                *taken |= bits;
            }
            if let Some(step) = clash
                && first.is_none_or(|known| (step, i) < known)
            {
                first = Some((step, i));
            }
        }
        let Some((step, i)) = first else { return Ok(()) };
        let at_step = |row: &&usize| one.rows[**row].column.get(step).is_some();
        let Some(&before) = ones[sigs[i]].iter().take_while(|b| **b < i).find(at_step) else {
            return Err(QueryError::internal("two series clash, and one of them cannot be found"));
        };
        let mut names = [one.rows[i].labels.to_string(), one.rows[before].labels.to_string()];
        names.sort_unstable();
        let [a, b] = names;
        Err(QueryError::execution(format!(
            "found duplicate series for the match group {} on the {} hand-side of the operation: [{a}, {b}];many-to-many matching not allowed: matching labels must be unique on one side",
            match_labels(&one.rows[i].labels, matching.out.matching),
            if matching.swapped { "left" } else { "right" },
        )))
    }
}

/// Steps at which a match is tried at all: both sides have something, or what is missing may be filled.
fn active_steps(many: &[Row], one: &[Row], steps: usize, filling: bool) -> Vec<u64> {
    let words = steps.div_ceil(64);
    if filling {
        return vec![u64::MAX; words];
    }
    let any = |rows: &[Row]| {
        let mut bits = vec![0u64; words];
        for row in rows {
            bits.iter_mut().zip(presence(&row.column)).for_each(|(a, b)| *a |= b);
        }
        bits
    };
    any(many).into_iter().zip(any(one)).map(|(a, b)| a & b).collect()
}

/// The labels a match group is named by (upstream `Labels.MatchLabels`).
fn match_labels(labels: &Labels, m: &VectorMatching) -> Labels {
    let named = |n: &str| m.labels.iter().any(|l| &**l == n);
    match m.on {
        true => labels.filter(|n, _| named(n)),
        false => labels.filter(|n, _| n != METRIC_NAME && !named(n)),
    }
}

/// Which results exist already, per signature.
struct Matched {
    words: usize,
    by_signature: HashMap<usize, Vec<u64>>,
    by_result: HashMap<(usize, Labels), Vec<u64>>,
}

impl Matched {
    fn new(steps: usize) -> Self {
        Matched { words: steps.div_ceil(64), by_signature: HashMap::new(), by_result: HashMap::new() }
    }

    fn any(&self, sig: usize, step: usize) -> bool {
        self.by_signature.get(&sig).is_some_and(|b| bit(b, step))
    }

    fn note(&mut self, sig: usize, labels: &Labels, step: usize, one_to_one: bool) -> Result<(), QueryError> {
        let mut steps = vec![0; self.words];
        steps[step >> 6] = 1 << (step & 63);
        self.note_all(sig, labels, &steps, one_to_one)
    }

    /// Notes a result at each of some steps, a bit for each.
    fn note_all(
        &mut self,
        sig: usize,
        labels: &Labels,
        steps: &[u64],
        one_to_one: bool,
    ) -> Result<(), QueryError> {
        let words = self.words;
        let clash = |bits: &mut Vec<u64>| {
            let mut clash = 0;
            for (bits, more) in bits.iter_mut().zip(steps) {
                clash |= *bits & more;
                *bits |= more;
            }
            clash != 0
        };
        let before = clash(self.by_signature.entry(sig).or_insert_with(|| vec![0; words]));
        if one_to_one {
            return match before {
                true => Err(QueryError::execution(
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                )),
                false => Ok(()),
            };
        }
        if clash(self.by_result.entry((sig, labels.clone())).or_insert_with(|| vec![0; words])) {
            return Err(QueryError::execution(
                "multiple matches for labels: grouping labels must ensure unique matches",
            ));
        }
        Ok(())
    }
}

/// Rows of the result, by their labels.
struct Output<'m> {
    op: BinaryOp,
    matching: &'m VectorMatching,
    return_bool: bool,
    drop_name: bool,
    steps: usize,
    instant: bool,
    delayed: bool,
    rows: Vec<Row>,
    by_labels: HashMap<Labels, usize>,
    /// Of `on` or `ignoring`.
    names: HashSet<&'m str>,
    budget: Arc<Budget>,
    /// Bytes that the rows took of the budget.
    reserved: u64,
}

impl Output<'_> {
    /// The row that a pair of series goes to.
    fn target(&mut self, many: &Labels, one: &Labels) -> Result<usize, QueryError> {
        let labels = self.result_labels(many, one);
        if let (Some(&at), false) = (self.by_labels.get(&labels), self.instant) {
            return Ok(at);
        }
        let bytes = column_bytes(self.steps) + label_bytes(&labels);
        self.budget.reserve(bytes)?;
        self.reserved += bytes;
        let place = self.rows.len();
        self.by_labels.insert(labels.clone(), place);
        self.rows.push(Row { labels, drop_name: self.return_bool, column: Column::new(self.steps) });
        Ok(place)
    }

    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let m = self.matching;
        let mut labels = many.clone();
        if self.drop_name || changes_meaning(self.op) {
            labels = labels.filter(|n, _| !is_metadata_label(n));
        }
        if m.card == Cardinality::OneToOne {
            labels = labels.filter(|n, _| self.names.contains(n) == m.on);
        }
        if m.include.is_empty() {
            return labels;
        }
        let mut b = labels.to_builder();
        for name in &m.include {
            b.set(name, one.value(name));
        }
        b.build()
    }

    fn put_all(&mut self, target: usize, column: Column) -> Result<(), QueryError> {
        let row = &mut self.rows[target];
        if row.column.is_empty() {
            row.column = column;
        } else if !row.column.absorb(column) {
            return Err(QueryError::execution(SAME_LABELSET));
        }
        Ok(())
    }

    fn put(
        &mut self,
        target: usize,
        step: usize,
        l: Point<'_>,
        r: Point<'_>,
        notes_by_step: &mut StepNotes,
        note: impl FnOnce(&Labels) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let outcome = pair_op(self.op, l, r);
        notes_by_step.put(step, outcome.note);
        if outcome.failed {
            return Ok(());
        }
        let row = &mut self.rows[target];
        note(&row.labels)?;
        let value = match (self.return_bool, outcome.keep) {
            (true, keep) => Value::Float(if keep { 1.0 } else { 0.0 }),
            (false, true) => outcome.value,
            (false, false) => return Ok(()),
        };
        if row.column.get(step).is_some() && !(self.instant && self.delayed) {
            return Err(QueryError::execution(SAME_LABELSET));
        }
        row.column.set(step, value);
        Ok(())
    }
}
