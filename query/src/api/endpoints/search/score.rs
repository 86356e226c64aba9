//! How well a text matches what was typed: by its letters in order, or by Jaro and Winkler's similarity.

/// How texts are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// The letters of the term, in order, with gaps.
    Subsequence,
    /// The term itself somewhere, or a similarity of at least the threshold.
    JaroWinkler,
}

/// Terms of which any has to match.
#[derive(Clone, Debug)]
pub struct Filter {
    terms: Vec<Vec<char>>,
    algorithm: Algorithm,
    /// 0 to 1.
    threshold: f64,
    case_sensitive: bool,
}

impl Filter {
    /// Empty terms are none.
    pub fn new(terms: &[String], algorithm: Algorithm, threshold: f64, case_sensitive: bool) -> Filter {
        let folded = |term: &String| if case_sensitive { term.clone() } else { term.to_lowercase() };
        let terms = terms.iter().filter(|t| !t.is_empty()).map(|t| folded(t).chars().collect()).collect();
        Filter { terms, algorithm, threshold, case_sensitive }
    }

    /// The best of the terms' scores, 0 to 1; `None` where none matches. Without terms everything does.
    pub fn score(&self, text: &str) -> Option<f64> {
        if self.terms.is_empty() {
            return Some(1.0);
        }
        let text: Vec<char> =
            if self.case_sensitive { text.chars().collect() } else { text.to_lowercase().chars().collect() };
        self.terms.iter().filter_map(|term| self.one(term, &text)).max_by(f64::total_cmp)
    }

    fn one(&self, term: &[char], text: &[char]) -> Option<f64> {
        match self.algorithm {
            Algorithm::Subsequence if text.starts_with(term) => Some(1.0),
            Algorithm::Subsequence => {
                Some(subsequence(term, text)).filter(|s| *s > 0.0 && *s >= self.threshold)
            }
            Algorithm::JaroWinkler => substring(term, text).or_else(|| {
                let similar = (self.threshold > 0.0).then(|| jaro_winkler(term, text));
                similar.filter(|s| *s >= self.threshold)
            }),
        }
    }
}

/// 1 at the beginning, towards 0.1 at the end.
fn substring(term: &[char], text: &[char]) -> Option<f64> {
    let at = text.windows(term.len()).position(|w| w == term)?;
    Some(match text.len() - term.len() {
        0 => 1.0,
        last => 1.0 - 0.9 * at as f64 / last as f64,
    })
}

/// Squares of the lengths of runs, less a little for what lies between them and after the last, against the
/// square of the term's length; the best of all beginnings. Quadratic in the text's length, which is bounded.
fn subsequence(term: &[char], text: &[char]) -> f64 {
    if term.len() > text.len() {
        return 0.0;
    }
    let mut best = -1.0f64;
    for start in (0..=text.len() - term.len()).filter(|i| text[*i] == term[0]) {
        // What does not fit from here fits from no later beginning.
        let Some(score) = runs(term, text, start) else { break };
        best = best.max(score);
    }
    if best < 0.0 {
        return 0.0;
    }
    // Only the whole text itself is a perfect match, and that begins with the term.
    0.999 * best / (term.len() * term.len()) as f64
}

fn runs(term: &[char], text: &[char], start: usize) -> Option<f64> {
    let length = text.len() as f64;
    let (mut score, mut at, mut matched, mut end) = (0.0, start, 0, 0);
    while matched < term.len() {
        let from = at + text[at..].iter().position(|c| *c == term[matched])?;
        let run = text[from..].iter().zip(&term[matched..]).take_while(|(a, b)| a == b).count();
        score += (run * run) as f64 - (from - end) as f64 / length;
        (matched, at, end) = (matched + run, from + run, from + run);
    }
    Some(score - (text.len() - end) as f64 / length / 2.0)
}

/// Jaro's similarity, raised by Winkler's for a common beginning of up to four letters.
fn jaro_winkler(a: &[char], b: &[char]) -> f64 {
    if a == b {
        return 1.0;
    }
    let (short, long) = if a.len() > b.len() { (b, a) } else { (a, b) };
    if short.is_empty() {
        return 0.0;
    }
    let window = (long.len() / 2).saturating_sub(1);
    let mut taken = vec![false; long.len()];
    let mut matched = Vec::new();
    for (i, c) in short.iter().enumerate() {
        let from = i.saturating_sub(window);
        let to = (i + window + 1).min(long.len());
        if let Some(j) = (from..to).find(|j| !taken[*j] && long[*j] == *c) {
            taken[j] = true;
            matched.push(*c);
        }
    }
    if matched.is_empty() {
        return 0.0;
    }
    let others = long.iter().zip(&taken).filter(|(_, taken)| **taken).map(|(c, _)| c);
    let transposed = matched.iter().zip(others).filter(|(a, b)| a != b).count() as f64;
    let m = matched.len() as f64;
    let jaro = (m / short.len() as f64 + m / long.len() as f64 + (m - transposed / 2.0) / m) / 3.0;
    let prefix = short.iter().zip(long).take(4).take_while(|(a, b)| a == b).count() as f64;
    jaro + prefix * 0.1 * (1.0 - jaro)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(term: &str, algorithm: Algorithm, threshold: f64, text: &str) -> Option<f64> {
        let score = Filter::new(&[term.into()], algorithm, threshold, true).score(text);
        score.map(|s| (s * 1e4).round() / 1e4)
    }

    #[test]
    fn search_by_letters_in_order_prefers_runs_and_beginnings() {
        let score = |term, text| of(term, Algorithm::Subsequence, 0.0, text);
        assert_eq!(score("http", "http_requests_total"), Some(1.0));
        assert_eq!(score("", "anything"), Some(1.0));
        assert_eq!(score("xyz", "http"), None);
        assert_eq!(score("longer than the text", "longer"), None);
        // Two runs of two: (4 + 4 - 1/5) / 16, a little below.
        assert_eq!(score("abcd", "ab_cd"), Some(0.487));
        let (inner, spread) = (score("cpu", "node_cpu_total"), score("cpu", "c_p_u_total"));
        assert!(inner > spread && spread.is_some(), "{inner:?} {spread:?}");
        assert_eq!(of("cpu", Algorithm::Subsequence, 0.99, "node_cpu_total"), None);
    }

    #[test]
    fn search_by_similarity_knows_the_textbook_pairs() {
        let score = |term, text| of(term, Algorithm::JaroWinkler, 0.5, text);
        assert_eq!(score("martha", "marhta"), Some(0.9611));
        assert_eq!(score("dwayne", "duane"), Some(0.84));
        assert_eq!(score("dixon", "dicksonx"), Some(0.8133));
        // The term itself goes first: its place counts.
        assert_eq!(score("cpu", "cpu_x"), Some(1.0));
        assert_eq!(score("cpu", "xcpu"), Some(0.1));
        assert_eq!(of("martha", Algorithm::JaroWinkler, 0.0, "marhta"), None);
    }

    #[test]
    fn search_terms_are_alternatives_and_fold_case_if_asked() {
        let terms = ["CPU".to_owned(), "mem".to_owned(), String::new()];
        let folded = Filter::new(&terms, Algorithm::Subsequence, 0.0, false);
        assert!(folded.score("node_cpu").is_some() && folded.score("Memory").is_some());
        let exact = Filter::new(&terms, Algorithm::Subsequence, 0.0, true);
        assert!(exact.score("node_cpu").is_none() && exact.score("mem").is_some());
    }

    proptest::proptest! {
        #[test]
        fn search_scores_lie_between_nothing_and_all(term in ".{0,12}", text in ".{0,24}") {
            for algorithm in [Algorithm::Subsequence, Algorithm::JaroWinkler] {
                let score = Filter::new(std::slice::from_ref(&term), algorithm, 0.3, false).score(&text);
                proptest::prop_assert!(score.is_none_or(|s| (0.0..=1.0).contains(&s)), "{score:?}");
            }
        }
    }
}
