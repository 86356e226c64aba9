//! Tables for people: aligned columns, numbers with units, colour only on a terminal.

use std::fmt::Write;
use std::io::IsTerminal;

use query::eval::resolution::resolution_name;

/// A table that is put together line by line.
pub struct Table {
    titles: Vec<&'static str>,
    /// By column, whether it is numbers, which stand to the right.
    right: Vec<bool>,
    lines: Vec<Vec<String>>,
}

impl Table {
    /// Titles; one that begins with `>` is of a column of numbers.
    pub fn new(titles: &[&'static str]) -> Table {
        Table {
            right: titles.iter().map(|t| t.starts_with('>')).collect(),
            titles: titles.iter().map(|t| t.trim_start_matches('>')).collect(),
            lines: Vec::new(),
        }
    }

    pub fn line(&mut self, cells: Vec<String>) {
        self.lines.push(cells);
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The text of it. Widths are in characters.
    pub fn render(&self, colour: bool) -> String {
        let width = |i: usize| {
            let cells = self.lines.iter().filter_map(|l| l.get(i)).map(|c| c.chars().count());
            cells.max().unwrap_or(0).max(self.titles[i].chars().count())
        };
        let widths: Vec<usize> = (0..self.titles.len()).map(width).collect();
        let mut out = String::new();
        let titles: Vec<String> = self.titles.iter().map(|t| t.to_string()).collect();
        let title = self.row(&titles, &widths);
        out += &if colour { format!("\x1b[1m{title}\x1b[0m\n") } else { format!("{title}\n") };
        for line in &self.lines {
            out += &self.row(line, &widths);
            out.push('\n');
        }
        out
    }

    fn row(&self, cells: &[String], widths: &[usize]) -> String {
        let mut out = String::new();
        for (i, cell) in cells.iter().enumerate() {
            let space = widths[i].saturating_sub(cell.chars().count());
            let gap = if i == 0 { "" } else { "  " };
            let (before, after) = if self.right[i] { (space, 0) } else { (0, space) };
            let _ = write!(out, "{gap}{:before$}{cell}{:after$}", "", "");
        }
        out.trim_end().to_owned()
    }
}

/// Whether what goes to standard output may be coloured.
pub fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// `2026-11-25 17:05:03`, in UTC.
pub fn time(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(t) => t.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => format!("{ms} ms"),
    }
}

/// `raw`, `5m`, `1h`; `~5m` where the windows are approximate, as queries have it.
pub fn resolution(ms: i64, approximate: bool) -> String {
    format!("{}{}", if approximate { "~" } else { "" }, resolution_name(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_to_the_right() {
        let mut table = Table::new(&["NAME", ">SERIES"]);
        table.line(vec!["up".into(), "1,234,567".into()]);
        table.line(vec!["höher".into(), "9".into()]);
        assert_eq!(table.render(false), "NAME      SERIES\nup     1,234,567\nhöher          9\n");
        assert!(table.render(true).starts_with("\x1b[1mNAME"));
    }

    #[test]
    fn times_and_resolutions_for_people() {
        assert_eq!(time(1_764_090_303_000), "2025-11-25 17:05:03");
        assert_eq!(
            (resolution(0, false), resolution(300_000, true), resolution(3_600_000, false)),
            ("raw".into(), "~5m".into(), "1h".into())
        );
    }
}
