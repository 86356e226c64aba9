//! Matchers against what Go's `regexp` says: every line of the tables was checked with Go 1.26.

use proptest::prelude::*;

use super::*;

/// Pattern, values it matches, values it does not.
const MATCHES: &[(&str, &[&str], &[&str])] = &[
    ("", &[""], &["a", "\n"]),
    ("foo|bar|baz", &["foo", "bar", "baz"], &["", "fo", "foobar", "xfoo"]),
    ("foo.*", &["foo", "foobar", "foo\nbar"], &["xfoo", "fo", ""]),
    (".*foo", &["foo", "barfoo", "\nfoo"], &["foox", ""]),
    (".*foo.*", &["foo", "xfoox", "foo\nbar"], &["fo", "bar", ""]),
    ("a.*b.*c", &["abc", "axbxc", "abbcc"], &["ac", "acb", "bc"]),
    ("a.*a", &["aa", "aba"], &["a", ""]),
    (".*", &["", "a", "\n"], &[]),
    (".+", &["a", "\n", "日"], &[""]),
    ("foo.+", &["foox", "foo日"], &["foo", "xfoox"]),
    (".+foo", &["xfoo"], &["foo", "foox"]),
    ("foo.*|.*bar|baz", &["foo1", "1bar", "baz"], &["1foo", "bar1", "baz1"]),
    ("(foo).*", &["foo", "foox"], &["xfoo"]),
    ("a(b|c)d?", &["ab", "ac", "abd", "acd"], &["a", "ad", "abdd"]),
    ("(?i)foo", &["foo", "FOO", "fOo"], &["bar"]),
    ("(?i:k)s", &["ks", "Ks", "\u{212a}s"], &["kS"]),
    ("(?i)ſ", &["s", "S", "ſ"], &["ss"]),
    ("(?i)a(?-i)b", &["ab", "Ab"], &["aB", "AB"]),
    (r"\d+", &["0", "42"], &["٣", "", "a"]),
    (r"\w+", &["foo_1"], &["é", "日本", "a-b"]),
    (r"\W+", &["é", "日本", "-"], &["a", ""]),
    (r"\s+", &["\t ", "\n", "\r"], &["\u{a0}", "\u{2028}", "\x0b"]),
    (r".*\bfoo\b.*", &["foo", "a foo b", "éfooé"], &["xfoo", "foo1"]),
    (r"\Bo\B", &[], &["o"]),
    (r"\pL+", &["aé日"], &["1", "a1", ""]),
    (r"\p{Greek}+", &["αβγ"], &["abc"]),
    (r"\P{Greek}+|\p{^Lu}", &["abc", "α"], &["αa"]),
    (r"\p{lowercase_letter}", &["a", "é"], &["A"]),
    (r"[a&&b]+", &["a", "b", "&", "a&&b"], &["c"]),
    (r"[a~~b]+", &["a~b"], &["c"]),
    (r"[[a]]+", &["[]", "a]"], &["a", "[a", "]"]),
    (r"[[:alpha:]]+", &["abc"], &["é", "1"]),
    (r"[[:^alpha:]]+", &["é1"], &["a"]),
    (r"[]a]+", &["]a"], &["b"]),
    (r"[^]a]", &["b"], &["]", "a"]),
    (r"[\d-a]+", &["1-a"], &["b"]),
    (r"[^a]", &["\n", "b"], &["a"]),
    (r"\Qa.b*\E", &["a.b*"], &["axb*"]),
    (r"\Qa.b", &["a.b"], &["axb"]),
    (r"\Qab\E+", &["ab", "abb"], &["abab"]),
    (r"\101\x42\x{43}\0", &["ABC\0"], &["ABC"]),
    ("a{2}", &["aa"], &["a", "aaa"]),
    ("a{,3}", &["a{,3}"], &["a", "aaa"]),
    ("a{01}", &["a{01}"], &["a"]),
    ("{", &["{"], &[""]),
    ("a|", &["a", ""], &["b"]),
    ("^a$|^^b$$", &["a", "b"], &["a\n", "\nb"]),
    ("a^b|a$b", &[], &["ab", "a\nb"]),
    ("(?m)a$\n^b", &["a\nb"], &["ab"]),
    ("(?-s)a.b", &["axb"], &["a\nb"]),
    (r"\Aa\z", &["a"], &["a\n"]),
    (r"[\x{d800}-\x{dfff}]|b", &["b"], &["\u{fffd}", ""]),
    ("(?U)a*(?i)*", &["", "aa"], &["A"]),
];

#[test]
fn regex_matches_as_go_does() {
    for (pattern, yes, no) in MATCHES {
        let positive = Matcher::new(MatchOp::Regex, "l", pattern).unwrap();
        let negative = Matcher::new(MatchOp::NotRegex, "l", pattern).unwrap();
        for (values, want) in [(yes, true), (no, false)] {
            for value in *values {
                assert_eq!(positive.matches(value), want, "{pattern:?} on {value:?}");
                assert_eq!(negative.matches(value), !want, "not {pattern:?} on {value:?}");
                assert_eq!(
                    positive.regex().unwrap().regex().is_match(*value),
                    want,
                    "{pattern:?} by the engine"
                );
            }
        }
    }
}

#[test]
fn regex_refuses_as_go_does() {
    for (pattern, code, expr) in [
        ("a)(b", "unexpected )", "a)(b"),
        ("(a", "missing closing )", "(a"),
        ("(?:a", "missing closing )", "(?:a"),
        ("[a", "missing closing ]", "[a"),
        ("[]", "missing closing ]", "[]"),
        ("[z-a]", "invalid character class range", "z-a"),
        ("[[:foo:]]", "invalid character class range", "[:foo:]"),
        (r"\p{Foo}", "invalid character class range", r"\p{Foo}"),
        (r"\p{Alphabetic}", "invalid character class range", r"\p{Alphabetic}"),
        (r"\p{Zyyy}", "invalid character class range", r"\p{Zyyy}"),
        (r"\p{L", "invalid character class range", r"\p{L"),
        ("*a", "missing argument to repetition operator", "*"),
        ("a|*", "missing argument to repetition operator", "*"),
        ("a**", "invalid nested repetition operator", "**"),
        ("a{2}{3}", "invalid nested repetition operator", "{2}{3}"),
        ("a{1001}", "invalid repeat count", "{1001}"),
        ("a{3,2}", "invalid repeat count", "{3,2}"),
        ("(a{10}){101}", "invalid repeat count", "{101}"),
        ("(?x)a", "invalid or unsupported Perl syntax", "(?x"),
        ("(?u)a", "invalid or unsupported Perl syntax", "(?u"),
        ("(?=a)", "invalid or unsupported Perl syntax", "(?="),
        ("(?<=a)", "invalid named capture", "(?<=a)"),
        ("(?i-)a", "invalid or unsupported Perl syntax", "(?i-)"),
        ("(?P<a-b>c)", "invalid named capture", "(?P<a-b>"),
        (r"\u0061", "invalid escape sequence", r"\u"),
        (r"\1", "invalid escape sequence", r"\1"),
        (r"\C", "invalid escape sequence", r"\C"),
        (r"\E", "invalid escape sequence", r"\E"),
        (r"\x{110000}", "invalid escape sequence", r"\x{110000"),
        (r"\é", "invalid escape sequence", r"\é"),
        (r"a\", "trailing backslash at end of expression", ""),
    ] {
        let error = Matcher::new(MatchOp::Regex, "l", pattern).unwrap_err();
        assert_eq!(error.to_string(), format!("error parsing regexp: {code}: `{expr}`"), "{pattern}");
    }
}

#[test]
fn regex_refuses_hostile_patterns_and_no_small_ones() {
    let deep = format!("{}a{}", "(".repeat(10_000), ")".repeat(10_000));
    let stacked = format!("a{}", "*(?i)".repeat(10_000));
    let classes = r"\pL".repeat(10_000);
    for (pattern, want) in [
        (deep.as_str(), "nests too deeply"),
        (&stacked, "nests too deeply"),
        (&classes, "too large"),
        (r"(?i)(\pL{30}\pN){30}", "too large"),
        (r"((\pL{10}x){10}y){10}", "too large"),
    ] {
        let error = Re2::anchored(pattern).unwrap_err().to_string();
        assert!(error.contains(want), "{pattern:.20}…: {error:.60}…");
    }
    let nested = format!("{}a{}", "(".repeat(200), ")".repeat(200));
    assert!(Re2::anchored(&nested).unwrap().is_match("a"));
    let names: Vec<String> = (0..5000).map(|i| format!("pod-{i}")).collect();
    let many = Re2::anchored(&names.join("|")).unwrap();
    assert!(many.is_match("pod-4999") && !many.is_match("pod-5000") && many.set_matches().is_none());
}

#[test]
fn regex_takes_the_names_of_a_large_cluster() {
    let names: Vec<String> =
        (0..18_000).map(|i| format!("web-deployment-{i:05}-abcde-yyyyyyyyyyyyyyyy")).collect();
    let last = names.last().unwrap();
    let text = names.join("|");
    assert!(text.len() > 763 << 10);
    for pattern in
        [text.clone(), format!("({text})"), format!("(?:{text})?"), format!("({})", names.join(")|("))]
    {
        let many = Re2::anchored_without_groups(&pattern).unwrap();
        assert!(many.is_match(last) && !many.is_match("web-deployment-18000-abcde-yyyyyyyyyyyyyyyy"));
        assert!(!many.is_match(&last[1..]) && many.set_matches().is_none());
        assert!(many.size_bytes() < 4 << 20, "{}", many.size_bytes());
    }
}

#[test]
fn regex_groups_cost_no_memory_by_their_number() {
    let groups: Vec<String> = (0..5_000).map(|i| format!("(pod-{i}[a-z]+)")).collect();
    let pattern = groups.join("|");
    // Their places would take gigabytes as soon as a value is matched.
    assert!(Re2::anchored(&pattern).unwrap_err().to_string().contains("too large"));
    let many = Re2::anchored_without_groups(&pattern).unwrap();
    assert!(many.is_match("pod-4999x") && !many.is_match("pod-4999"));
    assert!(Matcher::new(MatchOp::Regex, "pod", &pattern).unwrap().matches("pod-17abc"));
    let few = Re2::anchored(&groups[..20].join("|")).unwrap();
    let mut captures = few.regex().create_captures();
    few.regex().captures("pod-19abc", &mut captures);
    assert_eq!(captures.get_group(20).map(|g| (g.start, g.end)), Some((0, 9)));
}

#[test]
fn regex_sets_are_whole_and_bounded() {
    let set = |p: &str| Re2::anchored(p).unwrap().set_matches().map(<[String]>::to_vec);
    let some = |values: &[&str]| Some(values.iter().map(|v| v.to_string()).collect::<Vec<_>>());
    assert_eq!(set("b|a|b"), some(&["a", "b"]));
    assert_eq!(set("a(b|c)d?"), some(&["ab", "abd", "ac", "acd"]));
    assert_eq!(set("web-[0-2]"), some(&["web-0", "web-1", "web-2"]));
    assert_eq!(set(""), some(&[""]));
    assert_eq!(set("a|"), some(&["", "a"]));
    assert_eq!(set("(?i)ab"), some(&["AB", "Ab", "aB", "ab"]));
    for none in ["a.*", "a+", "^a", r"a\b", ".", "[a-z]{3}[a-z]", r"\pL"] {
        assert_eq!(set(none), None, "{none}");
    }
}

#[test]
fn regex_prefixes_are_what_every_match_begins_with() {
    for (pattern, want) in [
        ("foo.*", &["foo"][..]),
        ("foo", &["foo"]),
        ("foobar|foobaz", &["foobar", "foobaz"]),
        ("web-.*|api-.+|api-x.*", &["api-", "web-"][..]),
        ("(web|api)-.*", &["api-", "web-"]),
        ("(foo)+x", &["foo"]),
        ("fo*", &["f"]),
        (".*foo", &[]),
        ("a.*|.*b", &[]),
        ("", &[]),
        ("a?b", &[]),
        ("(?i)fo.*", &["FO", "Fo", "fO", "fo"]),
        ("(?i)abcdefg.*", &[]),
        ("^foo[0-4]+", &["foo0", "foo1", "foo2", "foo3", "foo4"]),
        ("foo[[:word:]]+", &["foo"]),
        ("日本.*|日光", &["日光", "日本"]),
    ] {
        let got = Re2::anchored(pattern).unwrap();
        if pattern == "(?i)abcdefg.*" {
            // So many letters in two cases each are cut where there are enough.
            assert_eq!(got.prefixes().len(), 64, "{pattern}");
            assert!(got.prefixes().iter().all(|p| p.eq_ignore_ascii_case("abcdef")), "{pattern}");
            continue;
        }
        let mut want = want.to_vec();
        want.sort_unstable();
        assert_eq!(got.prefixes(), want, "{pattern}");
    }
}

#[test]
fn regex_captures_are_gos() {
    for (pattern, value, want) in [
        ("([^:]+):([0-9]+)", "host:90", &[Some("host"), Some("90")][..]),
        ("(a+?)(a+)", "aaa", &[Some("a"), Some("aa")]),
        ("(a*)*", "aa", &[Some("aa")]),
        ("(?:a|ab)(?:c|bcd)(d*)", "abcd", &[Some("")]),
        ("(a)|(b)", "b", &[None, Some("b")]),
        ("(?P<n>a)(?P<n>b)", "ab", &[Some("a"), Some("b")]),
    ] {
        let re = Re2::anchored(pattern).unwrap();
        let mut captures = re.regex().create_captures();
        re.regex().captures(value, &mut captures);
        let got: Vec<Option<&str>> =
            captures.iter().skip(1).map(|g| g.map(|g| &value[g.start..g.end])).collect();
        assert_eq!(got, want, "{pattern}");
    }
}

#[test]
fn matchers_print_as_they_are_written() {
    let m = |op, name: &str, value: &str| Matcher::new(op, name, value).unwrap().to_string();
    assert_eq!(m(MatchOp::Equal, "a", "b\"\n"), r#"a="b\"\n""#);
    assert_eq!(m(MatchOp::NotRegex, "a.b", "x|y"), r#""a.b"!~"x|y""#);
    assert_eq!(m(MatchOp::Regex, "", ""), r#"""=~"""#);
    assert!(m(MatchOp::NotEqual, "é", "é") == r#""é"!="é""#);
}

/// Substrings that many branches look for are sought all at once: what is counted is that none of it needs
/// the engine, whose states hold all branches.
#[test]
fn regex_of_many_substrings_needs_no_engine() {
    let names: Vec<String> = (0..2000).map(|i| format!("name-{i}x")).collect();
    let within = names.iter().map(|n| format!(".*{n}.*")).collect::<Vec<_>>().join("|");
    let ends = names.iter().map(|n| format!(".*{n}")).collect::<Vec<_>>().join("|");
    let inside = format!(".*({}).*", names.join("|"));
    for (expr, tail) in [(&within, true), (&ends, false), (&inside, true)] {
        let re = Re2::anchored_without_groups(expr).unwrap();
        assert!(!re.uses_engine());
        assert!(re.is_match("a-name-1999x") && !re.is_match("a-name-2000x") && !re.is_match(""));
        assert_eq!(re.is_match("a-name-7x-b"), tail);
        assert!(re.size_bytes() < 4 << 20, "{}", re.size_bytes());
    }
    // Branches that multiply go to the engine, or are refused, and take no memory by their product.
    let product = "(a.*|b.*)".repeat(40);
    assert!(
        Re2::anchored_without_groups(&product)
            .is_ok_and(|re| re.uses_engine() && re.is_match(&"b".repeat(40)))
    );
    let long = "a.*".repeat(10_000);
    assert!(Re2::anchored_without_groups(&long).is_ok_and(|re| re.is_match(&"a".repeat(10_000))));
}

proptest! {
    /// The short ways of matching agree with the engine, and sets and prefixes say the truth.
    #[test]
    fn regex_plans_agree_with_the_engine(
        pattern in "([ab-]|\\(\\.\\*a\\.\\*\\|\\.\\*b\\)|\\.\\*|\\.\\+|\\||\\(a\\|b\\)|\\(ab\\)|[ab]\\?|\\(a\\.\\*\\)|\\[ab\\]|日){0,7}",
        values in proptest::collection::vec("[ab日\n-]{0,6}", 12),
    ) {
        // Two repetitions in a row are refused, rightly.
        let Ok(re) = Re2::anchored(&pattern) else { return Ok(()) };
        for value in values {
            let want = re.regex().is_match(&value);
            prop_assert_eq!(re.is_match(&value), want, "{} on {:?}", pattern, value);
            if let Some(set) = re.set_matches() {
                prop_assert_eq!(set.contains(&value), want);
            }
            let begins = re.prefixes().iter().any(|p| value.starts_with(p.as_str()));
            prop_assert!(!want || re.prefixes().is_empty() || begins, "{pattern} on {value:?}");
            prop_assert!(!re.matches_all() || want || value.is_empty());
        }
    }

    #[test]
    fn regex_of_any_text_is_compiled_or_refused(pattern in ".{0,40}", value in ".{0,10}") {
        if let Ok(re) = Re2::anchored(&pattern) {
            prop_assert_eq!(re.is_match(&value), re.regex().is_match(&value));
        }
    }
}
