//! RE2 expressions, the language of `=~`, `!~` and `label_replace`: a few shapes matched without an engine,
//! the rest on regex-automata.

use std::sync::OnceLock;

use aho_corasick::AhoCorasick;
use regex_automata::meta::{Config, Regex};
use regex_automata::nfa::thompson;
use regex_syntax::hir::{Class, Hir, HirKind, Look};

use super::translate::{Re2Error, translate};

/// Largest compiled program, in bytes: what `\pL{40}` takes. Larger expressions are refused.
const MAX_PROGRAM_BYTES: usize = 10 << 20;

/// Memory that the places of all groups may take while a value is matched: one for each group in each state.
const MAX_CAPTURE_BYTES: usize = 32 << 20;

/// Groups up to which that needs no look: the program's own limit bounds it well enough.
const FEW_CAPTURES: usize = 16;

/// Most strings a set of literals may have that is made by multiplying parts (`[a-z]{2}x?`), or that is
/// looked up one by one; beyond, that costs more than running over all values.
const MAX_SET: usize = 1024;

/// Most bytes of such strings together: a few branches before a long text are each as long as the text.
const MAX_SET_BYTES: usize = 256 << 10;

/// Most strings that are written down as such (`pod-1|pod-2|…`), and their bytes: a selector may name all
/// pods of a cluster. A value is sought among them, where a program would have a state for each letter.
const MAX_WRITTEN: usize = 200_000;
const MAX_WRITTEN_BYTES: usize = 16 << 20;

/// Most ways through an expression's alternations that are matched without the engine, and parts they have
/// together.
const MAX_WAYS: usize = 4096;
const MAX_PARTS: usize = 32_768;
/// Most of them that begin with a text.
const FEW_BRANCHES: usize = 32;
/// Texts up to which looking for each costs less than looking for all at once.
const FEW_TEXTS: usize = 4;

/// Bytes of programs, by values, from which on matching is slow: some tenths of a second at the worst.
const SLOW_BYTES: usize = 256 << 20;

/// Most prefixes that are told apart; of more, what they have in common is all that is known.
const MAX_PREFIXES: usize = 64;

/// A compiled, fully anchored expression: `^(?s:…)$`.
pub struct Re2 {
    /// To compile from on demand; an expression whose values are matched by the engine is compiled already
    /// and has none, as its tree may be much larger than its program.
    hir: Option<Hir>,
    /// Compiled at once where values are matched by it, on demand (for captures) where they are not.
    regex: OnceLock<Regex>,
    plan: Strategy,
    set: Option<Vec<String>>,
    prefixes: Vec<String>,
}

impl std::fmt::Debug for Re2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Re2").field("plan", &self.plan).field("set", &self.set).finish_non_exhaustive()
    }
}

/// How values are matched, cheapest first.
#[derive(Debug)]
enum Strategy {
    /// `.*`
    All,
    /// `.+`
    NonEmpty,
    /// One of the strings of the set.
    Set,
    /// Just this, as a branch.
    Exact(String),
    /// Text with `.*` between, before or after: `foo.*`, `.*foo.*`, `a.*b.*c`. Each piece is sought in what
    /// the ones before left.
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
    AnyOf(Branches),
    Engine,
}

/// Branches that are each matched without the engine.
#[derive(Debug)]
struct Branches {
    /// The texts of those that are a text with `.*` before and after, sought all at once.
    within: Option<AhoCorasick>,
    others: Vec<Strategy>,
}

impl Re2 {
    /// Compiles an expression that must match a whole value, and tells what its groups match.
    pub fn anchored(expr: &str) -> Result<Self, Re2Error> {
        Re2::of(translate(expr)?, expr)
    }

    /// The same where nobody asks what its groups match: they cost memory by their number.
    pub fn anchored_without_groups(expr: &str) -> Result<Self, Re2Error> {
        Re2::of(without_captures(translate(expr)?), expr)
    }

    fn of(inner: Hir, expr: &str) -> Result<Self, Re2Error> {
        let set = literals(&inner).map(|mut set| {
            set.sort_unstable();
            set.dedup();
            set
        });
        check_captures(&inner, expr)?;
        let plan = if set.is_some() { Strategy::Set } else { plan(&inner) };
        let prefixes = shortest(beginnings(&inner).0);
        let hir = Hir::concat(vec![Hir::look(Look::Start), inner, Hir::look(Look::End)]);
        if matches!(plan, Strategy::Engine) {
            let regex = compile(&hir, expr)?;
            return Ok(Re2 { hir: None, regex: OnceLock::from(regex), plan, set, prefixes });
        }
        Ok(Re2 { hir: Some(hir), regex: OnceLock::new(), plan, set, prefixes })
    }

    #[inline]
    pub fn is_match(&self, value: &str) -> bool {
        match &self.plan {
            Strategy::Engine => self.regex().is_match(value),
            plan => self.matches_plan(plan, value),
        }
    }

    fn matches_plan(&self, plan: &Strategy, value: &str) -> bool {
        match plan {
            Strategy::All => true,
            Strategy::NonEmpty => !value.is_empty(),
            Strategy::Set => {
                self.set.as_ref().is_some_and(|set| set.binary_search_by(|x| x.as_str().cmp(value)).is_ok())
            }
            Strategy::Exact(text) => value == text,
            Strategy::Longer { starts, ends } => {
                value.len() > starts.len() + ends.len()
                    && value.starts_with(starts.as_str())
                    && value.ends_with(ends.as_str())
            }
            Strategy::Pieces { starts, middles, ends } => {
                let Some(mut rest) = value.strip_prefix(starts.as_str()) else { return false };
                for middle in middles {
                    match rest.find(middle.as_str()) {
                        Some(at) => rest = &rest[at + middle.len()..],
                        None => return false,
                    }
                }
                rest.ends_with(ends.as_str())
            }
            Strategy::AnyOf(branches) => {
                branches.within.as_ref().is_some_and(|texts| texts.is_match(value))
                    || branches.others.iter().any(|plan| self.matches_plan(plan, value))
            }
            Strategy::Engine => self.regex().is_match(value),
        }
    }

    /// The few strings that are all it can match (`a|b|c`), ascending, each once; `None` where there are
    /// others, or many.
    pub fn set_matches(&self) -> Option<&[String]> {
        self.set.as_deref().filter(|set| set.len() <= MAX_SET)
    }

    /// Texts with one of which every matching value starts, ascending, none the beginning of another; empty
    /// where nothing is known.
    pub fn prefixes(&self) -> &[String] {
        &self.prefixes
    }

    /// Whether matching so many values may take longer than others should wait for: about so many bytes of
    /// programs are walked through for each letter.
    pub fn is_slow_for(&self, values: usize) -> bool {
        let bytes = match &self.plan {
            Strategy::Engine => self.regex().memory_usage(),
            Strategy::AnyOf(branches) => branches.others.len() * 64,
            _ => 0,
        };
        bytes.saturating_mul(values) > SLOW_BYTES
    }

    /// One that matches these values and no others; it has no groups.
    pub(super) fn of_values(mut values: Vec<String>) -> Re2 {
        values.sort_unstable();
        values.dedup();
        let (regex, prefixes) = (OnceLock::new(), Vec::new());
        Re2 { hir: Some(Hir::fail()), regex, plan: Strategy::Set, set: Some(values), prefixes }
    }

    /// Whether it is known to match every value that is not empty: `.*`, `.+`.
    pub fn matches_all(&self) -> bool {
        matches!(self.plan, Strategy::All | Strategy::NonEmpty)
    }

    /// About how much memory it holds, in bytes: its program, its set and its prefixes.
    pub fn size_bytes(&self) -> usize {
        let texts = |all: &[String]| all.iter().map(|s| s.len() + size_of::<String>()).sum::<usize>();
        size_of::<Re2>()
            + texts(self.set.as_deref().unwrap_or_default())
            + texts(&self.prefixes)
            + self.regex.get().map_or(0, Regex::memory_usage)
            + self.branches().map_or(0, |b| {
                b.within.as_ref().map_or(0, AhoCorasick::memory_usage)
                    + b.others.len() * size_of::<Strategy>()
            })
    }

    /// Whether values are matched by the engine.
    #[cfg(test)]
    pub(super) fn uses_engine(&self) -> bool {
        matches!(self.plan, Strategy::Engine)
    }

    fn branches(&self) -> Option<&Branches> {
        match &self.plan {
            Strategy::AnyOf(branches) => Some(branches),
            _ => None,
        }
    }

    /// Whether values are matched by something that took time to compile.
    pub(super) fn is_compiled(&self) -> bool {
        matches!(self.plan, Strategy::Engine) || self.branches().is_some_and(|b| b.within.is_some())
    }

    /// The engine, for captures.
    pub fn regex(&self) -> &Regex {
        self.regex.get_or_init(|| {
            // What is matched without the engine is text, its program no larger than the text by much; were
            // it refused, nothing matches.
            let hir = self.hir.clone().unwrap_or_else(Hir::fail);
            compile(&hir, "").or_else(|_| compile(&Hir::fail(), "")).unwrap_or_else(|e| unreachable!("{e}"))
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

/// Fails where the places of an expression's groups would take too much memory.
fn check_captures(hir: &Hir, expr: &str) -> Result<(), Re2Error> {
    let groups = hir.properties().explicit_captures_len();
    if groups <= FEW_CAPTURES {
        return Ok(());
    }
    let too_large = || Re2Error(format!("error parsing regexp: expression too large: `{expr}`"));
    let config = thompson::Config::new().nfa_size_limit(Some(MAX_PROGRAM_BYTES));
    let nfa = thompson::Compiler::new().configure(config).build_from_hir(hir).map_err(|_| too_large())?;
    // Of each group a beginning and an end, for the states of one byte of the value and of the next.
    let bytes = nfa.states().len().saturating_mul(groups * 4 * size_of::<usize>());
    if bytes > MAX_CAPTURE_BYTES { Err(too_large()) } else { Ok(()) }
}

/// A tree without its groups; nesting is bounded by the translator.
fn without_captures(hir: Hir) -> Hir {
    if hir.properties().explicit_captures_len() == 0 {
        return hir;
    }
    match hir.into_kind() {
        HirKind::Capture(c) => without_captures(*c.sub),
        HirKind::Repetition(mut r) => {
            r.sub = Box::new(without_captures(*r.sub));
            Hir::repetition(r)
        }
        HirKind::Concat(parts) => Hir::concat(parts.into_iter().map(without_captures).collect()),
        HirKind::Alternation(branches) => {
            Hir::alternation(branches.into_iter().map(without_captures).collect())
        }
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(l) => Hir::literal(l.0),
        HirKind::Class(class) => Hir::class(class),
        HirKind::Look(look) => Hir::look(look),
    }
}

/// All strings that a tree matches, if they are few or written down, and it looks at nothing around it.
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
                // What all strings begin or end with does not multiply them.
                let (most, most_bytes) = match all.len() == 1 || next.len() == 1 {
                    true => (MAX_WRITTEN, MAX_WRITTEN_BYTES),
                    false => (MAX_SET, MAX_SET_BYTES),
                };
                let bytes = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
                if all.len() * next.len() > most
                    || bytes(&all) * next.len() + bytes(&next) * all.len() > most_bytes
                {
                    return None;
                }
                all = all.iter().flat_map(|a| next.iter().map(move |b| format!("{a}{b}"))).collect();
            }
            Some(all)
        }
        HirKind::Alternation(branches) => {
            let (mut all, mut bytes) = (Vec::new(), 0);
            for branch in branches {
                let of_branch = literals(branch)?;
                bytes += of_branch.iter().map(String::len).sum::<usize>();
                all.extend(of_branch);
                if all.len() > MAX_WRITTEN || bytes > MAX_WRITTEN_BYTES {
                    return None;
                }
            }
            Some(all)
        }
    }
}

/// Leaves out what begins with another one of them; nothing is left where one is empty.
fn shortest(mut prefixes: Vec<String>) -> Vec<String> {
    prefixes.sort_unstable();
    prefixes.dedup_by(|longer, shorter| longer.starts_with(shorter.as_str()));
    if prefixes.first().is_some_and(String::is_empty) { Vec::new() } else { prefixes }
}

/// Texts with one of which every match of a tree begins, and whether they are the whole of every match.
fn beginnings(hir: &Hir) -> (Vec<String>, bool) {
    let unknown = || (vec![String::new()], false);
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => (vec![String::new()], true),
        HirKind::Literal(l) => match std::str::from_utf8(&l.0) {
            Ok(text) => (vec![text.to_string()], true),
            Err(_) => unknown(),
        },
        HirKind::Class(Class::Unicode(class)) => {
            let count: usize = class.ranges().iter().map(|r| r.len()).sum();
            // Letters of whole alphabets say nothing.
            if count * 4 > MAX_PREFIXES {
                return unknown();
            }
            (class.ranges().iter().flat_map(|r| r.start()..=r.end()).map(String::from).collect(), true)
        }
        HirKind::Capture(c) => beginnings(&c.sub),
        HirKind::Repetition(r) if r.min > 0 => (beginnings(&r.sub).0, false),
        HirKind::Concat(parts) => {
            let mut texts = vec![String::new()];
            for part in parts {
                let (next, whole) = beginnings(part);
                let bytes = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
                if texts.len() * next.len() > MAX_PREFIXES
                    || bytes(&texts) * next.len() + bytes(&next) * texts.len() > MAX_SET_BYTES
                {
                    return (texts, false);
                }
                texts = texts.iter().flat_map(|a| next.iter().map(move |b| format!("{a}{b}"))).collect();
                if !whole {
                    return (texts, false);
                }
            }
            (texts, true)
        }
        HirKind::Alternation(branches) => {
            let (mut texts, mut all_whole) = (Vec::new(), true);
            for branch in branches {
                let (more, whole) = beginnings(branch);
                texts.extend(more);
                all_whole &= whole;
                if texts.len() > MAX_PREFIXES {
                    return unknown();
                }
            }
            (texts, all_whole)
        }
        _ => unknown(),
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

fn plan(hir: &Hir) -> Strategy {
    let Some(Ways { all, .. }) = ways(hir) else { return Strategy::Engine };
    if let [parts] = &all[..] {
        return plan_of_parts(parts);
    }
    let (mut within, mut others, mut led) = (Vec::new(), Vec::new(), 0);
    for parts in &all {
        match plan_of_parts(parts) {
            Strategy::Engine => return Strategy::Engine,
            Strategy::All => return Strategy::All,
            Strategy::Pieces { starts, mut middles, ends }
                if starts.is_empty() && ends.is_empty() && middles.len() == 1 =>
            {
                within.append(&mut middles);
            }
            plan => {
                led += usize::from(plan.begins_with_text());
                others.push(plan);
            }
        }
    }
    // The engine is good at telling many beginnings apart, and bad where each branch may begin anywhere.
    if led > FEW_BRANCHES {
        return Strategy::Engine;
    }
    if within.len() <= FEW_TEXTS {
        let pieces =
            |text| Strategy::Pieces { starts: String::new(), middles: vec![text], ends: String::new() };
        others.extend(within.drain(..).map(pieces));
    }
    let within = match within.is_empty() {
        true => None,
        false => match AhoCorasick::new(&within) {
            Ok(program) if program.memory_usage() <= MAX_PROGRAM_BYTES => Some(program),
            _ => return Strategy::Engine,
        },
    };
    Strategy::AnyOf(Branches { within, others })
}

impl Strategy {
    fn begins_with_text(&self) -> bool {
        match self {
            Strategy::Exact(_) | Strategy::Set => true,
            Strategy::Pieces { starts, .. } | Strategy::Longer { starts, .. } => !starts.is_empty(),
            _ => false,
        }
    }
}

/// The ways through a tree's alternations, each as a list of what must follow one another, and how many parts
/// they have together.
struct Ways<'a> {
    all: Vec<Vec<&'a Hir>>,
    parts: usize,
}

/// All ways through a tree: `a(b|c.*)` is `a b` and `a c .*`. `None` where they are more than [`MAX_WAYS`],
/// or have more than [`MAX_PARTS`] together. Nesting is bounded by the translator.
fn ways(hir: &Hir) -> Option<Ways<'_>> {
    let hir = strip_captures(hir);
    match hir.kind() {
        HirKind::Alternation(branches) => {
            let mut found = Ways { all: Vec::new(), parts: 0 };
            for branch in branches {
                let mut of_branch = ways(branch)?;
                found.all.append(&mut of_branch.all);
                found.parts += of_branch.parts;
                if found.all.len() > MAX_WAYS || found.parts > MAX_PARTS {
                    return None;
                }
            }
            Some(found)
        }
        HirKind::Concat(parts) => {
            let mut found = Ways { all: vec![Vec::new()], parts: 0 };
            for part in parts {
                let next = ways(part)?;
                let (ways, parts) = (
                    found.all.len() * next.all.len(),
                    found.parts * next.all.len() + next.parts * found.all.len(),
                );
                // One way is as long as the text, and no longer.
                if ways > MAX_WAYS || (ways > 1 && parts > MAX_PARTS) {
                    return None;
                }
                found.parts = parts;
                if let [only] = &next.all[..] {
                    found.all.iter_mut().for_each(|way| way.extend(only));
                } else {
                    let both = |way: &[_], more: &[_]| [way, more].concat();
                    let product = found.all.iter().flat_map(|way| next.all.iter().map(|n| both(way, n)));
                    found.all = product.collect();
                }
            }
            Some(found)
        }
        _ => Some(Ways { all: vec![vec![hir]], parts: 1 }),
    }
}

fn plan_of_parts(parts: &[&Hir]) -> Strategy {
    let (mut text, mut pieces, mut wild, mut longer) = (String::new(), Vec::new(), 0, false);
    for part in parts {
        match part.kind() {
            HirKind::Empty => {}
            HirKind::Literal(l) => match std::str::from_utf8(&l.0) {
                Ok(more) => text += more,
                Err(_) => return Strategy::Engine,
            },
            _ => match anything(part) {
                Some(min) => {
                    wild += 1;
                    longer |= min == 1;
                    pieces.push(std::mem::take(&mut text));
                }
                None => return Strategy::Engine,
            },
        }
    }
    if wild == 0 {
        return Strategy::Exact(text);
    }
    let ends = text;
    let middles: Vec<String> = pieces.drain(1..).filter(|p| !p.is_empty()).collect();
    let starts = pieces.pop().unwrap_or_default();
    let bare = starts.is_empty() && ends.is_empty() && middles.is_empty();
    match (longer, wild) {
        (true, 1) if bare => Strategy::NonEmpty,
        (true, 1) => Strategy::Longer { starts, ends },
        (true, _) => Strategy::Engine,
        (false, _) if bare => Strategy::All,
        (false, _) => Strategy::Pieces { starts, middles, ends },
    }
}
