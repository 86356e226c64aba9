//! Range functions: windows slide over the samples of a matrix selector or of a subquery's steps.

mod matrix;
mod reach;
mod rows;
mod subquery;
mod windows;

pub(crate) use matrix::step_series;
pub(crate) use reach::{check_step_count, matrix_reach, subquery_steps};
