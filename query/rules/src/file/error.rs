//! One thing that is wrong with a file, with its place.

use std::fmt;

/// A line and a column, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    pub place: Position,
    /// The other of two places that contradict one another.
    pub second: Option<Position>,
    pub text: String,
}

impl FileError {
    pub fn at(place: Position, text: String) -> FileError {
        FileError { place, second: None, text }
    }
}

/// `L:C: text`, as upstream has it behind the name of the file.
impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.place.line, self.place.column)?;
        if let Some(second) = self.second {
            write!(f, "{}:{}: ", second.line, second.column)?;
        }
        f.write_str(&self.text)
    }
}
