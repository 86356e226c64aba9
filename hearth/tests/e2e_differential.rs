//! Thousands of random expressions over random series, put to a real Prometheus and to Hearth.
//!
//! Both are sent the same series by remote write, then asked the same questions, each from a seed and a
//! number; their answers must have the same series with the same values, or both must be errors of the same
//! type. Prometheus is Debian's 2.42, Hearth answers as 3.14 does: what changed between the two is explained
//! where the generator avoids it or writes it in two ways, or in [`EXPLAINED`]. More questions, or other
//! ones: `DIFFERENTIAL_QUESTIONS=100000 DIFFERENTIAL_SEED=7 cargo test -p hearth --test e2e_differential`.
//!
//! `DIFFERENTIAL_PROMETHEUS=/path/to/prometheus` puts them to that one instead. If it is a 3.x, half of the
//! questions use all of its language, native histograms included, and the answers must agree to the letter:
//! errors, warnings, infos, and the order where one is promised. With an even seed both drop names late.

mod differential;
mod test_services;

use differential::compare::{Said, Tolerance, difference, said};
use differential::generate::{ALL, Grade, Question, question, side};
use differential::load::{self, SPAN_MS, START_MS};
use differential::{language, native, strict};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use test_services::api::{Answer, seconds};
use test_services::prometheus::Prometheus;
use test_services::{Api, hearth};

const SEED: u64 = 1;
const QUESTIONS: u64 = 3_000;
const FEATURES: &str = "promql-experimental-functions,promql-extended-range-selectors,promql-binop-fill-modifiers,type-and-unit-labels";
/// Threads that ask. Each server also works on several cores.
const ASKERS: u64 = 3;

/// A difference that is understood: what it is, and in which questions it may show itself. The last argument
/// is what Hearth said.
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
        why: "timestamp() of a selector with both @ and offset: 2.42 and 3.14 read other samples there, Hearth those of 3.14",
        holds: |text, _| {
            arguments_of(text, "timestamp")
                .iter()
                .any(|a| a.contains("@ ") && a.contains(" offset ") && !a.replace("()", "").contains('('))
        },
    },
];

/// A difference to Prometheus 3 that is understood. `holds` is told the question and the difference.
struct Explained3 {
    why: &'static str,
    holds: fn(&str, &str) -> bool,
}

const EXPLAINED_3: &[Explained3] = &[
    Explained3 {
        why: "limitk takes the first series, topk and bottomk the first of equal ones, and a warning names the first it met: behind a \
              calculation over several steps, or info(), Prometheus' order is that of a Go map",
        holds: |text, difference| {
            let first = ["limitk", "topk", "bottomk"].iter().any(|name| text.contains(name));
            first && !difference.contains("error")
                || difference.starts_with("warnings") && text.contains("info(")
        },
    },
    Explained3 {
        why: "Prometheus does not see that two series have the same labels where one has floats and the other histograms",
        holds: |text, difference| {
            text.contains("__name__=~")
                && difference.contains("vector cannot contain metrics with the same labelset")
        },
    },
    Explained3 {
        why: "the value of a matcher that is not UTF-8 and an offset of NaN are errors in Hearth; in Prometheus the former is like no label and \
              the latter some offset or other",
        holds: |text, difference| {
            let not_utf8 = difference.contains("is not valid UTF-8, which label names and values always are");
            not_utf8 || text.contains("NaN") && difference.contains("duration out of range")
        },
    },
    Explained3 {
        why: "count_values makes labels of the last digits of what was calculated",
        holds: |text, difference| text.contains("count_values") && !difference.contains("error"),
    },
    Explained3 {
        why: "Prometheus' chunks give a histogram the empty buckets of its neighbours, and infinity times nothing is NaN",
        holds: |_, difference| {
            let no_zero_bucket = difference.contains("histograms with custom buckets have no zero bucket");
            no_zero_bucket || difference.contains("buckets") && difference.contains("\"NaN\"]")
        },
    },
    Explained3 {
        why: "a scalar pinned by @ that is the parameter of an aggregation is NaN at the last step of Prometheus' range queries",
        holds: |text, difference| {
            let pinned = text.contains("scalar(") && text.contains('@');
            pinned
                && ["quantile", "topk", "bottomk", "limitk", "limit_ratio"].iter().any(|f| text.contains(f))
                && difference.contains("NaN")
        },
    },
    Explained3 {
        why: "the last digit of a power or an angle, told in a warning or left by a modulo",
        holds: |text, difference| {
            let told = difference.contains("value should be between")
                && (text.contains('^') || text.contains("atan2"));
            told || text.contains('^') && text.contains('%')
        },
    },
    Explained3 {
        why: "histograms with different zero buckets, added in an order that Prometheus leaves to a Go map, may keep other empty or overlapping buckets, \
              and a sum that meets floats, exponential and custom buckets warns of what it meets first",
        holds: |text, difference| {
            ["info(", "limit_ratio", " or "].iter().any(|f| text.contains(f))
                && (difference.contains("buckets") || difference.contains("mix of"))
        },
    },
    Explained3 {
        why: "Prometheus reads only count and sum below histogram_count, _sum and _avg, and so does not see what it would say of buckets and resets",
        holds: |text, difference| {
            let below =
                ["histogram_count(", "histogram_sum(", "histogram_avg("].iter().any(|f| text.contains(f));
            below && (difference.starts_with("infos") || difference.starts_with("warnings"))
        },
    },
    Explained3 {
        why: "Prometheus breaks down: an anchored range on its own without enough samples, and a matcher of the label without a name",
        holds: |_, difference| {
            difference.contains("runtime error") || difference.contains("unexpected all postings")
        },
    },
    Explained3 {
        why: "a plus before a calculation in parentheses is where Prometheus says an argument begins; Hearth names the calculation",
        holds: |text, difference| text.contains("(+(") && difference.starts_with("warnings"),
    },
    Explained3 {
        why: "sort_by_label: upstream's comparison puts a label that is missing neither before nor after others",
        holds: |text, difference| {
            text.starts_with("sort_by_label") && difference.starts_with("another order")
        },
    },
    Explained3 {
        why: "absent() reads its labels from matchers that Prometheus' storage has reordered, but only where it has anything at that time",
        holds: |text, difference| text.contains("absent") && !difference.contains("error"),
    },
    Explained3 {
        why: "a deviation of Unix times has few digits left, and which depends on the order of the series",
        holds: |text, _| ["stddev", "stdvar"].iter().any(|f| text.contains(f)) && text.contains("time"),
    },
    Explained3 {
        why: "trimmed histograms that are added up differ between Prometheus' own range and instant answers",
        holds: |text, _| [" </ ", " >/ "].iter().any(|op| text.contains(op)) && text.contains("avg"),
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
    let program = std::env::var_os("DIFFERENTIAL_PROMETHEUS").map_or_else(Prometheus::debian, PathBuf::from);
    let version = Prometheus::version_of(&program);
    let late = version.0 > 2 && seed.is_multiple_of(2);
    let features = format!("{FEATURES}{}", if late { ",promql-delayed-name-removal" } else { "" });
    eprintln!("seed {seed}, {questions} questions, Prometheus {version:?} with {features}");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = format!("enable_feature: [{features}]\nself_metrics_interval: 0s\n");
    let hearth = hearth::Start::at(folder.path()).config(&config).ready();
    let theirs = if version.0 > 2 { features.as_str() } else { "" };
    let prometheus = Prometheus::receiver(folder.path(), &program, theirs);
    let (prometheus, hearth) = (&prometheus.api, &hearth.api);
    let mut series = load::all(seed);
    assert!(series.len() > 190, "only {} series", series.len());
    if version.0 > 2 {
        series.extend(native::all(seed));
        // Prometheus reads series in the order in which it first saw them, Hearth in that of their labels.
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
    }
    for part in series.chunks(40) {
        prometheus.write(part);
        hearth.write(part);
    }
    let distinct: BTreeSet<_> = series.iter().map(|s| &s.labels).collect();
    same_samples(prometheus, hearth, distinct.len());

    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..ASKERS)
            .map(|first| {
                scope.spawn(move || {
                    let mine = (first..questions).step_by(ASKERS as usize);
                    mine.map(|index| match version.0 {
                        0..3 => ask(prometheus, hearth, seed, index),
                        _ => ask_to_the_letter(prometheus, hearth, seed, index),
                    })
                    .collect::<Vec<_>>()
                })
            })
            .collect();
        askers.into_iter().flat_map(|asker| asker.join().expect("an asker does not panic")).collect()
    });
    judge(&outcomes, questions, version);
}

/// Nothing can be compared unless both hold every sample.
fn same_samples(prometheus: &Api, hearth: &Api, series: usize) {
    let all = format!("{{__name__=~\".+\"}}[{}ms]", SPAN_MS + 60_000);
    let end = seconds(START_MS + SPAN_MS + 1_000);
    let [a, b] =
        [prometheus, hearth].map(|api| api.post_form("/api/v1/query", &[("query", &all), ("time", &end)]));
    assert_eq!(strict::difference(&a, &b, false), None);
    assert_eq!(a.data()["result"].as_array().map(Vec::len), Some(series), "a series is missing");
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
    let times = times(&asked);
    let written = if theirs == ours { ours } else { format!("{ours}\n      2.42: {theirs}") };
    Outcome {
        functions: ALL.iter().copied().filter(|name| calls(&theirs, name)).collect(),
        answer,
        explained,
        difference: difference.map(|d| format!("number {index}: {written}\n      {times}: {d}")),
    }
}

/// The question of a number put to two servers of one language.
fn ask_to_the_letter(prometheus: &Api, hearth: &Api, seed: u64, index: u64) -> Outcome {
    let asked = if index.is_multiple_of(2) { language::question(seed, index) } else { question(seed, index) };
    let text = side(&asked.text, false);
    let (expected, actual) = (put_raw(prometheus, &asked, &text), put_raw(hearth, &asked, &text));
    let ordered = asked.steps.is_none() && text.starts_with("sort");
    let difference = strict::difference(&expected, &actual, ordered);
    let explained = difference
        .as_ref()
        .and_then(|difference| EXPLAINED_3.iter().find(|e| (e.holds)(&text, difference)))
        .map(|e| e.why);
    let answer = match expected.status {
        200 if expected.data()["result"].as_array().is_some_and(Vec::is_empty) => Kind::Nothing,
        200 => Kind::Values,
        _ => Kind::Error,
    };
    let names = ALL.iter().chain(language::NEWER).copied();
    Outcome {
        functions: names.filter(|name| calls(&text, name)).collect(),
        answer,
        explained,
        difference: difference.map(|d| format!("number {index}: {text}\n      {}: {d}", times(&asked))),
    }
}

fn times(asked: &Question) -> String {
    match asked.steps {
        None => format!("at {}", seconds(asked.at_ms)),
        Some((steps, step)) => {
            let end = seconds(asked.at_ms + steps * step);
            format!("from {} to {end} by {} s", seconds(asked.at_ms), step / 1000)
        }
    }
}

fn put(api: &Api, asked: &Question, text: &str) -> Said {
    said(&put_raw(api, asked, text))
}

fn put_raw(api: &Api, asked: &Question, text: &str) -> Answer {
    match asked.steps {
        None => api.post_form("/api/v1/query", &[("query", text), ("time", &seconds(asked.at_ms))]),
        Some((steps, step)) => {
            let (start, end) = (seconds(asked.at_ms), seconds(asked.at_ms + steps * step));
            let pairs = [("query", text), ("start", &start), ("end", &end), ("step", &seconds(step))];
            api.post_form("/api/v1/query_range", &pairs)
        }
    }
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

fn judge(outcomes: &[Outcome], questions: u64, version: (u32, u32)) {
    let mut kinds: BTreeMap<Kind, u64> = BTreeMap::new();
    let mut explained: BTreeMap<&str, u64> = BTreeMap::new();
    let mut used: BTreeMap<&str, u64> = ALL.iter().map(|name| (*name, 0)).collect();
    if version.0 > 2 {
        used.remove("holt_winters");
        used.extend(language::NEWER.iter().map(|name| (*name, 0)));
    }
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
    eprintln!("{questions} questions put to Prometheus {version:?} and Hearth; answered with {kinds:?}");
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
