//! Thousands of random expressions over random series, put to a real Prometheus and to Hearth.
//!
//! Both are sent the same series by remote write, then asked the same questions, each from a seed and a number; their answers must have the same
//! series with the same values, or both must be errors of the same type. Prometheus is Debian's 2.42, Hearth answers as 3.14 does: what changed
//! between the two is explained where the generator avoids it or writes it in two ways, or in [`EXPLAINED`]. More questions, or other ones:
//! `DIFFERENTIAL_QUESTIONS=100000 DIFFERENTIAL_SEED=7 cargo test -p hearth --test e2e_differential`.

mod differential;
mod neighbours;

use differential::compare::{Said, Tolerance, difference, said};
use differential::generate::{ALL, Grade, Question, question, side};
use differential::load::{self, SPAN_MS, START_MS};
use neighbours::api::seconds;
use neighbours::prometheus::Prometheus;
use neighbours::{Api, Data, hearth};
use std::collections::BTreeMap;

const SEED: u64 = 1;
const QUESTIONS: u64 = 3_000;
/// Threads that ask. Each server also works on several cores.
const ASKERS: u64 = 3;

/// A difference that is understood: what it is, and in which questions it may show itself. The last argument is what Hearth said.
struct Explained {
    why: &'static str,
    holds: fn(&str, &Said) -> bool,
}

const EXPLAINED: &[Explained] = &[
    Explained {
        why: "2.42 moves a range pinned by @ along with the steps where another argument of the function (or the evaluation time, in \
              predict_linear) keeps the call from being evaluated once; 3.x reads it once",
        holds: |text, _| {
            arguments_of(text, "predict_linear").iter().any(|a| a.contains('@'))
                || arguments_of(text, "quantile_over_time")
                    .iter()
                    .any(|a| a.contains('@') && a.starts_with("scalar("))
        },
    },
    Explained {
        why: "2.42 sees that a match is not one to one only among the pairs that a comparison keeps; 3.x looks at all of them",
        holds: |text, hearth| {
            let filters = ["==", "!=", ">", "<", ">=", "<="].iter().any(|op| {
                text.match_indices(&format!(" {op} "))
                    .any(|(at, found)| !text[at + found.len()..].starts_with("bool"))
            });
            filters && matches!(hearth, Said::Error(_, why) if why.starts_with("multiple matches for labels"))
        },
    },
    Explained {
        why: "timestamp() of a selector with both @ and offset: Prometheus, up to 3.14, forgets the offset there, against its own documentation",
        holds: |text, _| {
            arguments_of(text, "timestamp")
                .iter()
                .any(|a| a.contains("@ ") && a.contains(" offset ") && !a.replace("()", "").contains('('))
        },
    },
];

/// What stands between the parentheses of each call of a function.
fn arguments_of<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.match_indices(&format!("{name}("))
        .map(move |(at, call)| {
            let inside = &text[at + call.len()..];
            let mut depth = 1;
            let end = inside.find(|c| {
                depth += match c {
                    '(' => 1,
                    ')' => -1,
                    _ => 0,
                };
                depth == 0
            });
            &inside[..end.unwrap_or(inside.len())]
        })
        .collect()
}

/// What became of one question.
struct Outcome {
    functions: Vec<&'static str>,
    answer: Kind,
    explained: Option<&'static str>,
    difference: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Values,
    Nothing,
    Error,
}

#[test]
fn random_questions_get_the_answers_of_prometheus() {
    let number = |name: &str, usual: u64| {
        std::env::var(name)
            .map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
    };
    let seed = number("DIFFERENTIAL_SEED", SEED);
    let questions = number("DIFFERENTIAL_QUESTIONS", QUESTIONS);
    eprintln!("seed {seed}, {questions} questions");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = "enable_feature: [promql-experimental-functions]\nself_metrics_interval: 0s\n";
    let hearth = hearth::Start::at(folder.path()).config(config).ready();
    let prometheus = Prometheus::receiver(folder.path());
    let (prometheus, hearth) = (&prometheus.api, &hearth.api);
    let series = load::all(seed);
    assert!(series.len() > 190, "only {} series", series.len());
    for part in series.chunks(40) {
        prometheus.write(part);
        hearth.write(part);
    }
    same_samples(prometheus, hearth, series.len());

    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..ASKERS)
            .map(|first| {
                scope.spawn(move || {
                    let mine = (first..questions).step_by(ASKERS as usize);
                    mine.map(|index| ask(prometheus, hearth, seed, index)).collect::<Vec<_>>()
                })
            })
            .collect();
        askers.into_iter().flat_map(|asker| asker.join().expect("an asker does not panic")).collect()
    });
    judge(&outcomes, questions);
}

/// Nothing can be compared unless both hold every sample.
fn same_samples(prometheus: &Api, hearth: &Api, series: usize) {
    let all = format!("{{__name__=~\".+\"}}[{}ms]", SPAN_MS + 60_000);
    let end = START_MS + SPAN_MS + 1_000;
    let exact = Tolerance { relative: 0.0, absolute: 0.0 };
    let [a, b] = [prometheus, hearth].map(|api| Said::Data(api.instant(&all, end)));
    assert_eq!(difference(&a, &b, exact), None);
    assert!(matches!(&a, Said::Data(Data::Matrix(m)) if m.len() == series), "a series is missing");
}

fn ask(prometheus: &Api, hearth: &Api, seed: u64, index: u64) -> Outcome {
    let asked = question(seed, index);
    let (theirs, ours) = (side(&asked.text, true), side(&asked.text, false));
    let (expected, actual) = (put(prometheus, &asked, &theirs), put(hearth, &asked, &ours));
    let absolute = if asked.grade == Grade::Close { 1e-11 } else { 0.0 };
    let difference = difference(&expected, &actual, Tolerance { relative: 1e-9, absolute });
    let explained = difference
        .as_ref()
        .and_then(|_| EXPLAINED.iter().find(|e| (e.holds)(&theirs, &actual)))
        .map(|e| e.why);
    let answer = match &expected {
        Said::Error(..) => Kind::Error,
        Said::Data(data) if data.is_empty() => Kind::Nothing,
        Said::Data(_) => Kind::Values,
    };
    let times = match asked.steps {
        None => format!("at {}", seconds(asked.at_ms)),
        Some((steps, step)) => {
            let end = seconds(asked.at_ms + steps * step);
            format!("from {} to {end} by {} s", seconds(asked.at_ms), step / 1000)
        }
    };
    let written = if theirs == ours { ours } else { format!("{ours}\n      2.42: {theirs}") };
    Outcome {
        functions: ALL.iter().copied().filter(|name| calls(&theirs, name)).collect(),
        answer,
        explained,
        difference: difference.map(|d| format!("number {index}: {written}\n      {times}: {d}")),
    }
}

fn put(api: &Api, asked: &Question, text: &str) -> Said {
    let answer = match asked.steps {
        None => api.post_form("/api/v1/query", &[("query", text), ("time", &seconds(asked.at_ms))]),
        Some((steps, step)) => {
            let (start, end) = (seconds(asked.at_ms), seconds(asked.at_ms + steps * step));
            let pairs = [("query", text), ("start", &start), ("end", &end), ("step", &seconds(step))];
            api.post_form("/api/v1/query_range", &pairs)
        }
    };
    said(&answer)
}

/// Whether an expression calls a function or an aggregation of this name.
fn calls(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].trim_start();
        let whole = !before.is_some_and(|c| c.is_alphanumeric() || c == '_');
        whole && (after.starts_with('(') || after.starts_with("by (") || after.starts_with("without ("))
    })
}

fn judge(outcomes: &[Outcome], questions: u64) {
    let mut kinds: BTreeMap<Kind, u64> = BTreeMap::new();
    let mut explained: BTreeMap<&str, u64> = BTreeMap::new();
    let mut used: BTreeMap<&str, u64> = ALL.iter().map(|name| (*name, 0)).collect();
    let mut unexplained = Vec::new();
    for outcome in outcomes {
        *kinds.entry(outcome.answer).or_default() += 1;
        match (&outcome.difference, outcome.explained) {
            (Some(_), Some(why)) => *explained.entry(why).or_default() += 1,
            (Some(difference), None) => unexplained.push(difference.as_str()),
            (None, _) if outcome.answer == Kind::Values => {
                outcome.functions.iter().for_each(|name| *used.entry(name).or_default() += 1);
            }
            (None, _) => {}
        }
    }
    eprintln!("{questions} questions put to Prometheus 2.42 and Hearth; answered with {kinds:?}");
    for (why, count) in &explained {
        eprintln!("{count} differ as they must: {why}");
    }
    let few: Vec<_> = unexplained.iter().take(60).copied().collect();
    assert!(few.is_empty(), "{} of {questions} answers differ:\n  {}", unexplained.len(), few.join("\n  "));
    // The test must not pass by asking nothing.
    let values = kinds.get(&Kind::Values).copied().unwrap_or_default();
    assert!(values * 2 > questions, "only {values} of {questions} questions had an answer with values");
    let never: Vec<_> = used.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    assert!(questions < QUESTIONS || never.is_empty(), "no question with an answer used {never:?}");
}
