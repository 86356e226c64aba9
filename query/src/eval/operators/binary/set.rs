//! `and`, `unless` and `or`: rows of one side kept by what the other has.

use hashbrown::HashMap;

use super::Signatures;
use crate::column::Column;
use crate::eval::evaluator::Evaluator;
use crate::eval::frame::{Frame, Row, Val};
use crate::parse::{BinaryOp, VectorMatching};
use crate::value::QueryError;

/// The rows of several `or`, one after the other, and the steps at which each signature is present in them: a
/// chain of any length looks at each row once.
pub(super) struct Union<'m> {
    matching: &'m VectorMatching,
    signatures: Signatures<'m>,
    present: HashMap<usize, Vec<u64>>,
    rows: Vec<Row>,
    /// Where the row of a label set is; several rows may have one only where names are removed later.
    seen: HashMap<model::labels::Labels, usize>,
}

impl Union<'_> {
    /// Whether an `or` that is matched so can go on with it.
    pub fn goes_on(&self, matching: &VectorMatching) -> bool {
        self.matching == matching
    }

    pub fn series(&self) -> u64 {
        self.rows.len() as u64
    }

    pub fn into_frame(self) -> Frame {
        Frame { rows: self.rows }
    }
}

impl Evaluator<'_> {
    /// The left side of a first `or`.
    pub(super) fn union_of<'m>(
        &self,
        left: Frame,
        matching: &'m VectorMatching,
    ) -> Result<Union<'m>, QueryError> {
        let mut union = Union {
            matching,
            signatures: Signatures::new(matching),
            present: HashMap::new(),
            rows: Vec::with_capacity(left.rows.len()),
            seen: HashMap::with_capacity(left.rows.len()),
        };
        self.add_to_union(&mut union, left)?;
        Ok(union)
    }

    /// Adds what the right side of an `or` has where the left has nothing.
    pub(super) fn add_to_union(&self, union: &mut Union<'_>, right: Frame) -> Result<(), QueryError> {
        let words = self.steps.count.div_ceil(64);
        let signatures: Vec<usize> = right.rows.iter().map(|row| union.signatures.of(&row.labels)).collect();
        self.budget.check_in_turn()?;
        // Rows of one side do not take the place of one another: what they have counts for the next only.
        let mut added = Vec::with_capacity(right.rows.len());
        for (mut row, signature) in right.rows.into_iter().zip(signatures) {
            if let Some(bits) = union.present.get(&signature) {
                remove(&mut row.column, bits, true);
            }
            if !row.column.is_empty() {
                added.push((row, signature));
            }
        }
        for (row, signature) in added {
            let bits = union.present.entry(signature).or_insert_with(|| vec![0; words]);
            for (word, mask) in bits.iter_mut().zip(presence(&row.column)) {
                *word |= mask;
            }
            self.collect_into(row, &mut union.rows, &mut union.seen)?;
        }
        Ok(())
    }

    /// `and` and `unless`.
    pub(super) fn set_op(
        &mut self,
        op: BinaryOp,
        l: Frame,
        r: Frame,
        m: &VectorMatching,
    ) -> Result<Val, QueryError> {
        if op == BinaryOp::Or {
            let mut union = self.union_of(l, m)?;
            self.add_to_union(&mut union, r)?;
            return Ok(Val::Vector(union.into_frame()));
        }
        let mut signatures = Signatures::new(m);
        let left: Vec<usize> = l.rows.iter().map(|row| signatures.of(&row.labels)).collect();
        self.budget.check_in_turn()?;
        let words = self.steps.count.div_ceil(64);
        // The steps at which a signature is present on the side that decides.
        let mut present: HashMap<usize, Vec<u64>> = HashMap::new();
        for row in &r.rows {
            let bits = present.entry(signatures.of(&row.labels)).or_insert_with(|| vec![0; words]);
            for (word, mask) in bits.iter_mut().zip(presence(&row.column)) {
                *word |= mask;
            }
        }
        self.budget.check_in_turn()?;
        let mut rows = Vec::with_capacity(l.rows.len());
        let unless = op == BinaryOp::Unless;
        for (mut row, sig) in l.rows.into_iter().zip(left) {
            match present.get(&sig) {
                Some(bits) => remove(&mut row.column, bits, unless),
                None if unless => {}
                None => continue,
            }
            rows.push(row);
        }
        rows.retain(|r| !r.column.is_empty());
        self.collect(rows).map(Val::Vector)
    }
}

#[inline]
pub(super) fn bit(bits: &[u64], step: usize) -> bool {
    bits[step >> 6] >> (step & 63) & 1 == 1
}

/// The filled slots of a column as words of bits, histograms included.
pub(super) fn presence(c: &Column) -> impl Iterator<Item = u64> + '_ {
    let mut histograms = c.histograms().iter().peekable();
    c.floats().1.iter().enumerate().map(move |(w, bits)| {
        let mut bits = *bits;
        while let Some((step, _)) = histograms.next_if(|(s, _)| *s as usize >> 6 == w) {
            bits |= 1 << (step & 63);
        }
        bits
    })
}

/// Empties the slots whose bit is `when`.
fn remove(c: &mut Column, bits: &[u64], when: bool) {
    c.retain(|step| bit(bits, step) != when);
}
