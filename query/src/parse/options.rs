//! Which parts of the language a query may use, and the error that says why one was refused.

use super::ast::Span;

/// Which parts of the language are allowed, as Prometheus' feature flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseOptions {
    /// `promql-experimental-functions`
    pub experimental_functions: bool,
    /// Arithmetic in durations. Prometheus had it behind `promql-duration-expr`, and has it always since
    /// 3.14.
    pub duration_expressions: bool,
    /// `promql-extended-range-selectors`: `anchored` and `smoothed`
    pub extended_range_selectors: bool,
    /// `promql-binop-fill-modifiers`
    pub fill_modifiers: bool,
    /// Longest query text, in bytes.
    pub max_text_bytes: usize,
    /// Deepest nesting of the tree, chains of binary operators apart.
    pub max_depth: usize,
    /// Most binary operators in one chain (`a + b + c`), whose tree leans to the left.
    pub max_chain: usize,
}

impl Default for ParseOptions {
    fn default() -> Self {
        ParseOptions {
            experimental_functions: false,
            duration_expressions: true,
            extended_range_selectors: false,
            fill_modifiers: false,
            max_text_bytes: 64 << 10,
            max_depth: 200,
            max_chain: 2000,
        }
    }
}

impl ParseOptions {
    /// Everything on: how the conformance corpus runs.
    pub fn all() -> Self {
        ParseOptions {
            experimental_functions: true,
            duration_expressions: true,
            extended_range_selectors: true,
            fill_modifiers: true,
            ..ParseOptions::default()
        }
    }
}

/// Where and why a query was refused. Displays as upstream does: `line:col: parse error: …`,
/// `unknown position` for an empty text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    pub span: Span,
    /// 1-based, counted in bytes from the line's start as upstream counts; line 0 stands for no position.
    pub line: u32,
    pub column: u32,
    pub message: String,
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.line == 0 {
            return write!(f, "unknown position: parse error: {}", self.message);
        }
        write!(f, "{}:{}: parse error: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for ParseError {}
