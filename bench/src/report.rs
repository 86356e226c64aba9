//! What was measured, as a table for people and as JSON for programs.

use std::fmt::Write;

use serde_json::{Map, Value, json};

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
}

/// One figure of one server, measured once or several times.
#[derive(Clone, Debug)]
pub struct Figure {
    pub name: String,
    pub better: Better,
    pub values: Vec<f64>,
}

impl Figure {
    /// The value in the middle; machines that are shared make outliers.
    pub fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        match sorted.len() {
            0 => 0.0,
            n if n % 2 == 1 => sorted[n / 2],
            n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
        }
    }

    /// The width of what was measured, as a share of its middle.
    pub fn spread(&self) -> f64 {
        let (low, high) = self.values.iter().fold((f64::MAX, f64::MIN), |(l, h), &v| (l.min(v), h.max(v)));
        if self.values.len() < 2 || self.median() == 0.0 { 0.0 } else { (high - low) / self.median() }
    }
}

/// All figures of one server.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub server: String,
    pub figures: Vec<Figure>,
    pub notes: Vec<String>,
}

impl Measured {
    pub fn add(&mut self, name: &str, better: Better, value: f64) {
        match self.figures.iter_mut().find(|f| f.name == name) {
            Some(figure) => figure.values.push(value),
            None => self.figures.push(Figure { name: name.into(), better, values: vec![value] }),
        }
    }

    fn find(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|f| f.name == name)
    }
}

/// The table: the first server's figures, and for each other its figures and how many times better the first
/// is.
pub fn table(all: &[Measured]) -> String {
    let mut out = String::new();
    let Some((first, others)) = all.split_first() else { return out };
    let mut head = format!("| | {} |", first.server);
    let mut line = String::from("|---|---|");
    for other in others {
        let _ = write!(head, " {} | {} is better by |", other.server, first.server);
        line.push_str("---|---|");
    }
    let _ = writeln!(out, "{head}\n{line}");
    for figure in &first.figures {
        let _ = write!(out, "| {} | {} |", figure.name, show(figure));
        for other in others {
            match other.find(&figure.name) {
                Some(theirs) => {
                    let ratio = ratio(figure, theirs).map_or("-".into(), |r| format!("{r:.2} ×"));
                    let _ = write!(out, " {} | {ratio} |", show(theirs));
                }
                None => out.push_str(" - | - |"),
            }
        }
        out.push('\n');
    }
    for m in all {
        for note in &m.notes {
            let _ = writeln!(out, "{}: {note}", m.server);
        }
    }
    out
}

/// How many times better `ours` is; above 1 is better whichever way the figure counts.
fn ratio(ours: &Figure, theirs: &Figure) -> Option<f64> {
    let (a, b) = (ours.median(), theirs.median());
    let ratio = if ours.better == Better::More { a / b } else { b / a };
    ratio.is_finite().then_some(ratio)
}

fn show(figure: &Figure) -> String {
    let v = figure.median();
    let text = match v.abs() {
        a if a >= 1e6 => format!("{:.2} M", v / 1e6),
        a if a >= 1e4 => format!("{:.1} k", v / 1e3),
        a if a >= 100.0 => format!("{v:.0}"),
        a if a >= 10.0 => format!("{v:.1}"),
        _ => format!("{v:.3}"),
    };
    match figure.spread() {
        s if s >= 0.005 => format!("{text} ± {:.0} %", s * 50.0),
        _ => text,
    }
}

/// The same for programs.
pub fn json(all: &[Measured], run: Value) -> Value {
    let server = |m: &Measured| {
        let figures: Map<String, Value> = m
            .figures
            .iter()
            .map(|f| (f.name.clone(), json!({"median": f.median(), "values": f.values})))
            .collect();
        json!({"server": m.server, "figures": figures, "notes": m.notes})
    };
    let mut ratios = Map::new();
    if let Some((first, others)) = all.split_first() {
        for other in others {
            let of = |f: &Figure| Some((f.name.clone(), json!(ratio(f, other.find(&f.name)?)?)));
            let ratios_to: Map<String, Value> = first.figures.iter().filter_map(of).collect();
            ratios.insert(other.server.clone(), Value::Object(ratios_to));
        }
    }
    json!({"run": run, "servers": all.iter().map(server).collect::<Vec<_>>(), "ratios": ratios})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_say_how_many_times_better_the_first_is() {
        let mut a = Measured { server: "a".into(), ..Measured::default() };
        let mut b = Measured { server: "b".into(), ..Measured::default() };
        for v in [300.0, 100.0, 200.0] {
            a.add("samples/s", Better::More, v);
        }
        b.add("samples/s", Better::More, 100.0);
        a.add("bytes", Better::Less, 10.0);
        b.add("bytes", Better::Less, 40.0);
        let text = table(&[a.clone(), b.clone()]);
        assert!(text.contains("| samples/s | 200 ± 50 % | 100 | 2.00 × |"), "{text}");
        assert!(text.contains("| bytes | 10.0 | 40.0 | 4.00 × |"), "{text}");
        let json = json(&[a, b], Value::Null);
        assert_eq!(json["ratios"]["b"]["bytes"], 4.0);
        assert_eq!(json["servers"][0]["figures"]["samples/s"]["median"], 200.0);
    }
}
