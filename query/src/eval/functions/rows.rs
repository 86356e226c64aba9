//! What functions that make rows of their own share: one row per label set, and the name that annotations may tell.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use tsdb::labels::Labels;

use crate::eval::frame::{Column, Frame, Row, Val};
use crate::eval::{Evaluator, SAME_LABELSET};
use crate::value::QueryError;

/// Rows by label set, in order of first appearance. Series that share a label set become one where they never stand at the same step.
#[derive(Default)]
pub struct UniqueRows {
    rows: Vec<Row>,
    by_labels: HashMap<Labels, usize>,
}

impl UniqueRows {
    /// The row of a label set; a new one is empty.
    pub fn row(&mut self, labels: &Labels, drop_name: bool, steps: usize) -> &mut Row {
        let at = match self.by_labels.entry(labels.clone()) {
            Entry::Occupied(e) => *e.get(),
            Entry::Vacant(e) => {
                self.rows.push(Row { labels: labels.clone(), drop_name, column: Column::new(steps) });
                *e.insert(self.rows.len() - 1)
            }
        };
        &mut self.rows[at]
    }

    /// Adds a whole row.
    pub fn push(&mut self, row: Row) -> Result<(), QueryError> {
        match self.by_labels.entry(row.labels.clone()) {
            Entry::Vacant(e) => {
                e.insert(self.rows.len());
                self.rows.push(row);
                Ok(())
            }
            Entry::Occupied(e) => {
                if self.rows[*e.get()].column.absorb(row.column) {
                    Ok(())
                } else {
                    Err(QueryError::execution(SAME_LABELSET))
                }
            }
        }
    }

    pub fn into_val(self) -> Val {
        Val::Vector(Frame { rows: self.rows })
    }
}

impl Evaluator<'_> {
    /// The metric's name for an annotation about a row that lost it: known only while names are kept to the end.
    pub fn annotated_name<'l>(&self, labels: &'l Labels) -> &'l str {
        if self.options.delayed_name_removal { labels.metric_name().unwrap_or("") } else { "" }
    }
}
