//! RE2 expressions, the language of `=~`, `!~` and `label_replace`: a few shapes matched without an engine, the rest on regex-automata.

use std::sync::OnceLock;

use regex_automata::meta::{Config, Regex};
use regex_syntax::hir::{Class, Hir, HirKind, Look};

use super::translate::translate;

/// Largest compiled program, in bytes: what `\pL{40}` takes. Larger expressions are refused.
const MAX_PROGRAM_BYTES: usize = 10 << 20;

/// Most strings a set of literals may have; beyond, looking each up costs more than running the engine.
const MAX_SET: usize = 1024;

/// A compiled, fully anchored expression: `^(?s:…)$`.
pub struct Re2 {
    hir: Hir,
    /// Compiled at once where values are matched by it, on demand (for captures) where they are not.
    regex: OnceLock<Regex>,
    plan: Plan,
    set: Option<Vec<String>>,
    prefix: String,
}

impl std::fmt::Debug for Re2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Re2").field("plan", &self.plan).field("set", &self.set).finish_non_exhaustive()
    }
}

/// Why an expression was refused, in RE2's words where it has them.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("{0}")]
pub struct Re2Error(pub String);

/// How values are matched, cheapest first.
#[derive(Debug)]
enum Plan {
    /// `.*`
    All,
    /// `.+`
    NonEmpty,
    /// One of the strings of the set.
    Set,
    /// Just this, as a branch.
    Exact(String),
    /// Text with `.*` between, before or after: `foo.*`, `.*foo.*`, `a.*b.*c`. Each piece is sought in what the ones before left.
    Pieces {
        starts: String,
        middles: Vec<String>,
        ends: String,
    },
    /// `foo.+`, `.+foo`: so many bytes more than the text.
    Longer {
        starts: String,
        ends: String,
    },
    /// Any of these: `foo.*|.*bar`.
    AnyOf(Vec<Plan>),
    Engine,
}

impl Re2 {
    /// Compiles an expression that must match a whole value.
    pub fn anchored(expr: &str) -> Result<Self, Re2Error> {
        let inner = translate(expr)?;
        let set = literals(&inner).map(|mut set| {
            set.sort_unstable();
            set.dedup();
            set
        });
        let plan = if set.is_some() { Plan::Set } else { plan(&inner) };
        let prefix = match &set {
            Some(set) => common_prefix(set),
            None => prefix(&inner).0,
        };
        let hir = Hir::concat(vec![Hir::look(Look::Start), inner, Hir::look(Look::End)]);
        let regex = OnceLock::new();
        if matches!(plan, Plan::Engine) {
            let _ = regex.set(compile(&hir, expr)?);
        }
        Ok(Re2 { hir, regex, plan, set, prefix })
    }

    #[inline]
    pub fn is_match(&self, value: &str) -> bool {
        match &self.plan {
            Plan::Engine => self.regex().is_match(value),
            plan => self.matches_plan(plan, value),
        }
    }

    fn matches_plan(&self, plan: &Plan, value: &str) -> bool {
        match plan {
            Plan::All => true,
            Plan::NonEmpty => !value.is_empty(),
            Plan::Set => {
                self.set.as_ref().is_some_and(|set| set.binary_search_by(|x| x.as_str().cmp(value)).is_ok())
            }
            Plan::Exact(text) => value == text,
            Plan::Longer { starts, ends } => {
                value.len() > starts.len() + ends.len()
                    && value.starts_with(starts.as_str())
                    && value.ends_with(ends.as_str())
            }
            Plan::Pieces { starts, middles, ends } => {
                let Some(mut rest) = value.strip_prefix(starts.as_str()) else { return false };
                for middle in middles {
                    match rest.find(middle.as_str()) {
                        Some(at) => rest = &rest[at + middle.len()..],
                        None => return false,
                    }
                }
                rest.ends_with(ends.as_str())
            }
            Plan::AnyOf(plans) => plans.iter().any(|plan| self.matches_plan(plan, value)),
            Plan::Engine => self.regex().is_match(value),
        }
    }

    /// The few strings that are all it can match (`a|b|c`), ascending, each once; `None` where there are others.
    pub fn set_matches(&self) -> Option<&[String]> {
        self.set.as_deref()
    }

    /// What every matching value starts with; empty where nothing is known.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// About how much memory it holds, in bytes: its program and its set.
    pub fn size_bytes(&self) -> usize {
        let set: usize = self.set.iter().flatten().map(|s| s.len() + size_of::<String>()).sum();
        set + self.regex.get().map_or(0, Regex::memory_usage)
    }

    /// The engine, for captures.
    pub fn regex(&self) -> &Regex {
        self.regex.get_or_init(|| {
            // What is matched without the engine is text, its program no larger than the text by much; were it refused, nothing matches.
            compile(&self.hir, "")
                .or_else(|_| compile(&Hir::fail(), ""))
                .unwrap_or_else(|e| unreachable!("{e}"))
        })
    }
}

fn compile(hir: &Hir, expr: &str) -> Result<Regex, Re2Error> {
    let config = Config::new()
        .nfa_size_limit(Some(MAX_PROGRAM_BYTES))
        .onepass_size_limit(Some(1 << 20))
        .dfa(false)
        .hybrid_cache_capacity(2 << 20);
    Regex::builder()
        .configure(config)
        .build_from_hir(hir)
        .map_err(|_| Re2Error(format!("error parsing regexp: expression too large: `{expr}`")))
}

/// All strings that a tree matches, if they are few and it looks at nothing around it.
fn literals(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Empty => Some(vec![String::new()]),
        HirKind::Literal(l) => Some(vec![std::str::from_utf8(&l.0).ok()?.to_string()]),
        HirKind::Class(Class::Unicode(class)) => {
            let mut all = Vec::new();
            for range in class.ranges() {
                if all.len() + range.len() > MAX_SET {
                    return None;
                }
                all.extend((range.start()..=range.end()).map(String::from));
            }
            Some(all)
        }
        HirKind::Class(Class::Bytes(_)) | HirKind::Look(_) => None,
        HirKind::Capture(c) => literals(&c.sub),
        HirKind::Repetition(r) if r.min == 0 && r.max == Some(1) => {
            let mut all = literals(&r.sub)?;
            all.push(String::new());
            Some(all)
        }
        HirKind::Repetition(_) => None,
        HirKind::Concat(parts) => {
            let mut all = vec![String::new()];
            for part in parts {
                let next = literals(part)?;
                if all.len() * next.len() > MAX_SET {
                    return None;
                }
                all = all.iter().flat_map(|a| next.iter().map(move |b| format!("{a}{b}"))).collect();
            }
            Some(all)
        }
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                all.extend(literals(branch)?);
                if all.len() > MAX_SET {
                    return None;
                }
            }
            Some(all)
        }
    }
}

fn common_prefix(sorted: &[String]) -> String {
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else {
        return String::new();
    };
    first.chars().zip(last.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
}

/// What every match of a tree starts with, and whether that is the whole of every match.
fn prefix(hir: &Hir) -> (String, bool) {
    match hir.kind() {
        HirKind::Empty => (String::new(), true),
        HirKind::Literal(l) => match std::str::from_utf8(&l.0) {
            Ok(text) => (text.to_string(), true),
            Err(_) => (String::new(), false),
        },
        HirKind::Capture(c) => prefix(&c.sub),
        HirKind::Repetition(r) if r.min > 0 => (prefix(&r.sub).0, false),
        HirKind::Concat(parts) => {
            let mut text = String::new();
            for part in parts {
                let (more, whole) = prefix(part);
                text += &more;
                if !whole {
                    return (text, false);
                }
            }
            (text, true)
        }
        HirKind::Look(_) => (String::new(), true),
        _ => (String::new(), false),
    }
}

fn strip_captures(mut hir: &Hir) -> &Hir {
    while let HirKind::Capture(c) = hir.kind() {
        hir = &c.sub;
    }
    hir
}

/// `.*` or `.+`, newlines included; its least count.
fn anything(hir: &Hir) -> Option<u32> {
    let HirKind::Repetition(r) = hir.kind() else { return None };
    let HirKind::Class(Class::Unicode(class)) = strip_captures(&r.sub).kind() else { return None };
    let all = matches!(class.ranges(), [only] if only.start() == '\0' && only.end() == char::MAX);
    (all && r.max.is_none() && r.min <= 1).then_some(r.min)
}

fn plan(hir: &Hir) -> Plan {
    let hir = strip_captures(hir);
    if let HirKind::Alternation(branches) = hir.kind() {
        let plans: Vec<Plan> = branches.iter().map(plan).collect();
        let cheap = plans.len() <= 32 && !plans.iter().any(|p| matches!(p, Plan::Engine | Plan::AnyOf(_)));
        return if cheap { Plan::AnyOf(plans) } else { Plan::Engine };
    }
    let mut parts = Vec::new();
    flatten(hir, &mut parts);
    let (mut text, mut pieces, mut wild, mut longer) = (String::new(), Vec::new(), 0, false);
    for part in parts {
        match part.kind() {
            HirKind::Empty => {}
            HirKind::Literal(l) => match std::str::from_utf8(&l.0) {
                Ok(more) => text += more,
                Err(_) => return Plan::Engine,
            },
            _ => match anything(part) {
                Some(min) => {
                    wild += 1;
                    longer |= min == 1;
                    pieces.push(std::mem::take(&mut text));
                }
                None => return Plan::Engine,
            },
        }
    }
    if wild == 0 {
        return Plan::Exact(text);
    }
    let ends = text;
    let middles: Vec<String> = pieces.drain(1..).filter(|p| !p.is_empty()).collect();
    let starts = pieces.pop().unwrap_or_default();
    let bare = starts.is_empty() && ends.is_empty() && middles.is_empty();
    match (longer, wild) {
        (true, 1) if bare => Plan::NonEmpty,
        (true, 1) => Plan::Longer { starts, ends },
        (true, _) => Plan::Engine,
        (false, _) if bare => Plan::All,
        (false, _) => Plan::Pieces { starts, middles, ends },
    }
}

/// The parts of a concatenation, groups opened; nesting is bounded by the translator.
fn flatten<'a>(hir: &'a Hir, out: &mut Vec<&'a Hir>) {
    let hir = strip_captures(hir);
    match hir.kind() {
        HirKind::Concat(parts) => parts.iter().for_each(|part| flatten(part, out)),
        _ => out.push(hir),
    }
}
