//! What differed, in upstream's layout, and the whole as JUnit's XML.

use std::fmt::Write;

use model::labels::Labels;
use query::parse::write_duration;

use super::file::ExpectedAlert;
use super::outcome::FileOutcome;

/// `5m`, `0s`.
pub fn duration(ms: i64) -> String {
    let mut out = String::new();
    let _ = write_duration(&mut out, ms);
    out
}

/// A list of alerts, indented as part of a failure.
pub fn alerts(all: &[ExpectedAlert]) -> String {
    if all.is_empty() {
        return "[]".into();
    }
    let mut out = String::from("[");
    for (at, alert) in all.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let _ = write!(
            out,
            "{comma}\n            {at}:\n              Labels:{}\n              Annotations:{}",
            alert.labels, alert.annotations
        );
    }
    out + "\n            ]"
}

/// A sample of an expression's result.
pub fn sample(labels: &Labels, value: &str) -> String {
    format!("{labels} {value}")
}

/// `1E+00`, as upstream shows floats.
pub fn float(v: f64) -> String {
    crate::template::format_float(v, 'E', None)
}

/// Expected against given line by line: what is missing with a minus, what is too much with a plus.
pub fn difference(expected: &str, given: &str) -> String {
    let (expected, given): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), given.lines().collect());
    // The longest common part, by the textbook; both are a few lines. Past that, it is not worth the memory.
    let (rows, columns) = (expected.len(), given.len());
    if rows * columns > 1 << 20 {
        return String::from("        (too long to compare line by line)");
    }
    let mut length = vec![vec![0usize; columns + 1]; rows + 1];
    for i in (0..rows).rev() {
        for j in (0..columns).rev() {
            length[i][j] = match expected[i] == given[j] {
                true => length[i + 1][j + 1] + 1,
                false => length[i + 1][j].max(length[i][j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    while i < rows || j < columns {
        if i < rows && j < columns && expected[i] == given[j] {
            out.push(format!("          {}", expected[i]));
            (i, j) = (i + 1, j + 1);
        } else if j >= columns || (i < rows && length[i + 1][j] >= length[i][j + 1]) {
            out.push(format!("        - {}", expected[i]));
            i += 1;
        } else {
            out.push(format!("        + {}", given[j]));
            j += 1;
        }
    }
    out.join("\n")
}

/// All outcomes as JUnit's XML.
pub fn junit(outcomes: &[FileOutcome]) -> String {
    let mut out = String::from("<testsuites>\n");
    for outcome in outcomes {
        let failed = outcome.groups.iter().filter(|g| !g.failures.is_empty()).count();
        let broken = usize::from(outcome.error.is_some());
        let _ = writeln!(
            out,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" errors=\"{broken}\" timestamp=\"\">",
            escaped(&outcome.file),
            outcome.groups.len() + broken
        );
        if let Some(error) = &outcome.error {
            let _ = writeln!(out, "    <testcase name=\"file\"><error>{}</error></testcase>", escaped(error));
        }
        for (at, group) in outcome.groups.iter().enumerate() {
            let name =
                if group.name.is_empty() { format!("test group {}", at + 1) } else { group.name.clone() };
            let _ = write!(out, "    <testcase name=\"{}\">", escaped(&name));
            for failure in &group.failures {
                let _ = write!(out, "<failure>{}</failure>", escaped(failure));
            }
            out.push_str("</testcase>\n");
        }
        out.push_str("  </testsuite>\n");
    }
    out + "</testsuites>\n"
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&#34;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
