//! The kinds of values an option can have: each is read from text and written back the way people write it.

use std::fmt;
use std::time::Duration;

use model::matcher::{MatchOp, Matcher};
use query::plan::resolution::MaxResolution;
use tsdb::db::LogSync;

use crate::secrets::redacted;

/// A value of an option. `parse` says what is wrong and how to write it; `Display` gives text that `parse`
/// takes.
pub trait Value: Sized + Clone + fmt::Display {
    /// What stands in `--help` where the value goes.
    const NAME: &'static str;
    fn parse(text: &str) -> Result<Self, String>;
    /// Whether the flag alone means "true".
    const SWITCH: bool = false;
    /// Whether the flag may be given several times.
    const LIST: bool = false;
}

/// A length of time, to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    pub fn ms(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Milliseconds in each unit, as Prometheus has them: a year is 365 days, and units come in this order, each
/// at most once.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

impl Value for Span {
    const NAME: &'static str = "DURATION";

    /// `1h30m`, `15d`, `100ms`; `0` needs no unit ([Prometheus'
    /// durations](https://prometheus.io/docs/prometheus/latest/querying/basics/#float-literals-and-time-durations)).
    fn parse(text: &str) -> Result<Self, String> {
        const HOW: &str =
            "is not a duration: write a number and a unit, such as 100ms, 30s, 5m, 2h, 15d or 1h30m";
        if text == "0" {
            return Ok(Span(Duration::ZERO));
        }
        let (mut rest, mut next, mut ms) = (text, 0, 0u64);
        while !rest.is_empty() || next == 0 {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let letters = rest[digits..].bytes().take_while(u8::is_ascii_lowercase).count();
            let unit = UNITS.iter().position(|(name, _)| *name == &rest[digits..digits + letters]);
            let (Ok(number), Some(unit)) = (rest[..digits].parse::<u64>(), unit) else {
                return Err(HOW.into());
            };
            if unit < next {
                return Err("is not a duration: units go from the largest to the smallest, each once".into());
            }
            let part = number.checked_mul(UNITS[unit].1).and_then(|part| part.checked_add(ms));
            ms = part.filter(|ms| *ms <= i64::MAX as u64).ok_or("is longer than 292 million years")?;
            (next, rest) = (unit + 1, &rest[digits + letters..]);
        }
        Ok(Span(Duration::from_millis(ms)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ms = self.0.as_millis() as u64;
        if ms == 0 {
            return f.write_str("0");
        }
        for (unit, length) in UNITS {
            // `7d` says more than `1w` to most people, and `365d` more than `1y`.
            if matches!(unit, "y" | "w") {
                continue;
            }
            if ms >= length {
                write!(f, "{}{unit}", ms / length)?;
                ms %= length;
            }
        }
        Ok(())
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

impl Value for Size {
    const NAME: &'static str = "SIZE";

    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = (&text[..digits], text[digits..].trim_start());
        let factor = match unit {
            "" => Some(1),
            unit => SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor),
        };
        let (Ok(number), Some(factor)) = (number.parse::<u64>(), factor) else {
            return Err(
                "is not a size: write bytes, or a whole number with KiB, MiB, GiB, TiB, KB, MB, GB or TB"
                    .into(),
            );
        };
        number.checked_mul(factor).map(Size).ok_or_else(|| "is more bytes than 64 bits can count".into())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = SIZES.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match whole {
            Some((unit, factor)) if *factor > 1 => write!(f, "{}{unit}", self.0 / factor),
            _ => write!(f, "{}", self.0),
        }
    }
}

/// An amount of memory: a size, or a share of what there is, which may have an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemorySize {
    Bytes(u64),
    Share { percent: u64, most: Option<u64> },
}

impl MemorySize {
    /// In bytes, where `all` are there; `None`: nobody knows how many, and a share of them has no end.
    pub fn of(self, all: Option<u64>) -> Option<u64> {
        match self {
            MemorySize::Bytes(bytes) => Some(bytes),
            MemorySize::Share { percent, most } => {
                let share = all.map(|all| (u128::from(all) * u128::from(percent) / 100) as u64);
                share.into_iter().chain(most).min()
            }
        }
    }
}

impl Value for MemorySize {
    const NAME: &'static str = "SIZE|PERCENT";

    fn parse(text: &str) -> Result<Self, String> {
        let Some((percent, rest)) = text.split_once('%') else {
            return Size::parse(text)
                .map(|size| MemorySize::Bytes(size.0))
                .map_err(|why| format!("{why}; or a share, such as 25% or 25% up to 4GiB"));
        };
        let percent = percent.trim().parse().ok().filter(|p| (1..=100).contains(p));
        let percent = percent.ok_or("is no share: write 1% to 100%")?;
        let most = match rest.trim() {
            "" => None,
            rest => {
                let size = rest.strip_prefix("up to").ok_or("is no share: write 25% or 25% up to 4GiB")?;
                Some(Size::parse(size.trim())?.0)
            }
        };
        Ok(MemorySize::Share { percent, most })
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemorySize::Bytes(bytes) => Size(*bytes).fmt(f),
            MemorySize::Share { percent, most: None } => write!(f, "{percent}%"),
            MemorySize::Share { percent, most: Some(most) } => write!(f, "{percent}% up to {}", Size(*most)),
        }
    }
}

/// A number of things, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub u64);

impl Count {
    pub fn get(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Value for Count {
    const NAME: &'static str = "NUMBER";

    fn parse(text: &str) -> Result<Self, String> {
        match text.replace('_', "").parse() {
            Ok(0) | Err(_) => Err("is not a whole number of at least 1".into()),
            Ok(n) => Ok(Count(n)),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number that bounds something; 0 for no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bound(pub u64);

impl Value for Bound {
    const NAME: &'static str = "NUMBER";

    fn parse(text: &str) -> Result<Self, String> {
        let number = text.replace('_', "").parse();
        number.map(Bound).map_err(|_| "is not a whole number, or 0 for no limit".into())
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Value for bool {
    const NAME: &'static str = "BOOL";
    const SWITCH: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("is neither true nor false".into()),
        }
    }
}

impl Value for String {
    const NAME: &'static str = "TEXT";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

/// A URL, read where it is used. It is shown and logged without what may be a secret in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// As it was written, secrets included: for the one place that connects.
    pub fn with_secrets(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&redacted(&self.0), f)
    }
}

impl Value for Url {
    const NAME: &'static str = "URL";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Url(text.trim().to_owned()))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(&self.0))
    }
}

/// Origins of web pages, as an anchored regular expression; empty for none.
#[derive(Clone, Debug)]
pub struct Origins {
    pub pattern: String,
    /// `None` where the pattern is empty.
    pub matcher: Option<Matcher>,
}

impl Value for Origins {
    const NAME: &'static str = "REGEX";

    fn parse(text: &str) -> Result<Self, String> {
        let matcher = (!text.is_empty()).then(|| Matcher::new(MatchOp::Regex, "origin", text)).transpose();
        let matcher = matcher.map_err(|e| format!("is not a regular expression: {e}"))?;
        Ok(Origins { pattern: text.to_owned(), matcher })
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pattern)
    }
}

/// Names of hosts, without ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNames(pub Vec<String>);

impl Value for HostNames {
    const NAME: &'static str = "HOST,…";
    const LIST: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let names: Vec<String> =
            text.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect();
        match names.iter().find(|n| n.contains([':', '/', ' '])) {
            Some(bad) => {
                Err(format!("has {bad:?}, which is no host's name: write it without scheme, port and path"))
            }
            None => Ok(HostNames(names)),
        }
    }
}

impl fmt::Display for HostNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// A file or folder, relative to where the process was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(pub std::path::PathBuf);

impl Value for Path {
    const NAME: &'static str = "PATH";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Path(text.into()))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// A path that begins with a slash and does not end with one; `/` alone for none, empty where nothing is
/// said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathPrefix(pub String);

impl Value for PathPrefix {
    const NAME: &'static str = "PATH";

    fn parse(text: &str) -> Result<Self, String> {
        let bare = text.trim().trim_matches('/');
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
        let is_path = bare.bytes().all(plain) && bare.split('/').all(|s| !matches!(s, "." | ".."));
        match (text.trim(), bare) {
            ("", _) => Ok(PathPrefix::default()),
            (_, "") => Ok(PathPrefix("/".into())),
            _ if is_path && !bare.contains("//") => Ok(PathPrefix(format!("/{bare}"))),
            _ => Err("is no path: write /prometheus, of letters, digits, dashes, dots and slashes".into()),
        }
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where to listen: a host or address and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub host: String,
    pub port: u16,
}

impl Value for Listen {
    const NAME: &'static str = "HOST:PORT";

    /// `:9494` means every address of the machine; `[::1]:9494` is IPv6.
    fn parse(text: &str) -> Result<Self, String> {
        const HOW: &str = "is not HOST:PORT: write 127.0.0.1:9494, [::1]:9494, or :9494 for all addresses";
        let (host, port) = text.rsplit_once(':').ok_or(HOW)?;
        let port = port.parse().map_err(|_| HOW)?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = match bare {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().map_err(|_| HOW)?.to_string(),
            None if host.is_empty() => "0.0.0.0".into(),
            None if host.contains([':', '/', ' ', '[']) => return Err(HOW.into()),
            None => host.to_owned(),
        };
        Ok(Listen { host, port })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sync(pub LogSync);

impl Value for Sync {
    const NAME: &'static str = "always|DURATION";

    fn parse(text: &str) -> Result<Self, String> {
        if text == "always" {
            return Ok(Sync(LogSync::Always));
        }
        match Span::parse(text) {
            Ok(Span(every)) if every > Duration::ZERO && every <= Duration::from_secs(60) => {
                Ok(Sync(LogSync::Every(every)))
            }
            _ => Err("is neither always nor a duration from 1ms to 1m".into()),
        }
    }
}

impl fmt::Display for Sync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            LogSync::Always => f.write_str("always"),
            LogSync::Every(every) => Span(every).fmt(f),
        }
    }
}

/// An enum of words, with the one text that says which there are.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident: $list:literal { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($variant),+ }

        impl Value for $name {
            const NAME: &'static str = $list;

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($name::$variant),)+
                    _ => Err(format!("is none of {}", $list.replace('|', ", "))),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($name::$variant => $word),+ })
            }
        }
    };
}

words! {
    /// How log lines look.
    LogFormat: "text|json" { Text = "text", Json = "json" }
}

words! {
    /// Where the bucket's name goes in an S3 request.
    Addressing: "path|virtual-host" { Path = "path", VirtualHost = "virtual-host" }
}

words! {
    /// A checksum that S3 is asked to verify and keep with each object.
    S3Checksum: "none|sha256|crc64nvme" { None = "none", Sha256 = "sha256", Crc64nvme = "crc64nvme" }
}

words! {
    /// What a process does of all that Hearth does.
    Role: "all|ingest|query|compact|rules" {
        All = "all", Ingest = "ingest", Query = "query", Compact = "compact", Rules = "rules"
    }
}

words! {
    /// How HA replicas become one series in queries.
    Dedup: "hearth|thanos" { Hearth = "hearth", Thanos = "thanos" }
}

/// Several lengths of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spans(pub Vec<Span>);

impl Value for Spans {
    const NAME: &'static str = "DURATION,…";
    const LIST: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let all = text.split(',').map(str::trim).filter(|t| !t.is_empty());
        all.map(|t| Span::parse(t).map_err(|why| format!("has {t:?}, which {why}")))
            .collect::<Result<_, _>>()
            .map(Spans)
    }
}

impl fmt::Display for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(Span::to_string).collect::<Vec<_>>().join(","))
    }
}

/// Names of labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelNames(pub Vec<String>);

impl Value for LabelNames {
    const NAME: &'static str = "LABEL,…";
    const LIST: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let names: Vec<String> =
            text.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect();
        match names.iter().any(|n| n == model::labels::METRIC_NAME) {
            true => {
                Err("has __name__, which every series needs: name the label that tells replicas apart".into())
            }
            false => Ok(LabelNames(names)),
        }
    }
}

impl fmt::Display for LabelNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// Texts without commas, such as files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts(pub Vec<String>);

impl Value for Texts {
    const NAME: &'static str = "TEXT,…";
    const LIST: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Texts(text.split(',').map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect()))
    }
}

impl fmt::Display for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// URLs, read where they are used; passwords in them are not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Urls(Vec<String>);

impl Urls {
    /// As they were written, secrets included: for the one place that connects.
    pub fn with_secrets(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Debug for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for Urls {
    const NAME: &'static str = "URL,…";
    const LIST: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        Texts::parse(text).map(|texts| Urls(texts.0))
    }
}

impl fmt::Display for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.0.iter().map(|url| redacted(url)).collect();
        f.write_str(&shown.join(","))
    }
}

/// Labels with their values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelPairs(pub std::collections::BTreeMap<String, String>);

impl Value for LabelPairs {
    const NAME: &'static str = "LABEL=VALUE,…";
    const LIST: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let mut pairs = std::collections::BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let Some((name, value)) = part.split_once('=').filter(|(name, _)| !name.trim().is_empty()) else {
                return Err("is not a list of labels: write cluster=eu,replica=a".into());
            };
            pairs.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        Ok(LabelPairs(pairs))
    }
}

impl fmt::Display for LabelPairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&pairs.join(","))
    }
}

/// The coarsest resolution that a query may be answered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceResolution(pub MaxResolution);

impl Value for SourceResolution {
    const NAME: &'static str = "auto|raw|DURATION";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(SourceResolution(match text {
            "auto" => MaxResolution::Auto,
            "raw" => MaxResolution::AtMost(0),
            text => match Span::parse(text) {
                Ok(span) => MaxResolution::AtMost(span.ms()),
                Err(_) => return Err("is none of auto, raw, 5m, 1h".to_string()),
            },
        }))
    }
}

impl fmt::Display for SourceResolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            MaxResolution::Auto => f.write_str("auto"),
            MaxResolution::AtMost(0) => f.write_str("raw"),
            MaxResolution::AtMost(ms) => Span(Duration::from_millis(ms.unsigned_abs())).fmt(f),
        }
    }
}

/// Parts of PromQL that are off unless asked for, under Prometheus' own names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features(pub Vec<String>);

/// The names that [`Features`] takes.
pub const FEATURES: [&str; 8] = [
    "promql-experimental-functions",
    "promql-duration-expr",
    "promql-extended-range-selectors",
    "promql-binop-fill-modifiers",
    "promql-delayed-name-removal",
    "use-start-timestamps",
    "type-and-unit-labels",
    "search-api",
];

impl Features {
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|f| f == name)
    }
}

impl Value for Features {
    const NAME: &'static str = "NAME,…";
    const LIST: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let names: Vec<String> =
            text.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect();
        match names.iter().find(|n| !FEATURES.contains(&n.as_str())) {
            Some(unknown) => Err(format!("has {unknown:?}, which is none of {}", FEATURES.join(", "))),
            None => Ok(Features(names)),
        }
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// Which log lines are written: a level, or directives such as `info,tsdb=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(pub String);

impl Value for LogLevel {
    const NAME: &'static str = "LEVEL";

    fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: String| {
            format!("is not a log level ({why}): write error, warn, info, debug, trace, or info,tsdb=debug")
        };
        for directive in text.split(',') {
            let level = directive.rsplit('=').next().unwrap_or("");
            if level.parse::<tracing_subscriber::filter::LevelFilter>().is_err() || level.is_empty() {
                return Err(bad(format!("{directive:?}")));
            }
        }
        tracing_subscriber::EnvFilter::try_new(text).map_err(|e| bad(e.to_string()))?;
        Ok(LogLevel(text.to_owned()))
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The request header that names the tenant; empty where there is one tenant only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderOption(pub Option<axum::http::HeaderName>);

impl Value for HeaderOption {
    const NAME: &'static str = "HEADER";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(HeaderOption(None));
        }
        let name = text.parse().map_err(|_| "is not the name of an HTTP header, such as X-Scope-OrgID")?;
        Ok(HeaderOption(Some(name)))
    }
}

impl fmt::Display for HeaderOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_ref().map_or("", |h| h.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_prometheus_does() {
        for (text, ms) in [
            ("0", 0),
            ("100ms", 100),
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("15d", 15 * 86_400_000),
            ("1y2w", 379 * 86_400_000),
            ("1d0s5ms", 86_400_005),
        ] {
            let span = Span::parse(text).unwrap();
            assert_eq!(span.ms(), ms, "{text}");
            assert_eq!(Span::parse(&span.to_string()), Ok(span), "{text} comes back as {span}");
        }
        for bad in [
            "",
            "1",
            "h",
            "1.5h",
            "1m1h",
            "1m1m",
            "-1s",
            "1 s",
            "1H",
            "99999999999999999999s",
            "999999999999y",
            "2hours",
            "1µs",
        ] {
            assert!(Span::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_take_binary_and_decimal_units() {
        for (text, bytes, back) in [
            ("0", 0, "0"),
            ("512MiB", 512 << 20, "512MiB"),
            ("1GB", 1_000_000_000, "1GB"),
            ("1024", 1024, "1KiB"),
            ("3 kib", 3072, "3KiB"),
            ("1000001", 1_000_001, "1000001"),
        ] {
            let size = Size::parse(text).unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, back), "{text}");
        }
        for bad in ["", "MiB", "1.5GiB", "-1", "1 parsec", "99999999999TiB", "1é"] {
            assert!(Size::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_to_listen_on() {
        for (text, shown) in [
            ("127.0.0.1:9494", "127.0.0.1:9494"),
            (":80", "0.0.0.0:80"),
            ("[::1]:0", "[::1]:0"),
            ("localhost:1", "localhost:1"),
        ] {
            assert_eq!(Listen::parse(text).unwrap().to_string(), shown);
        }
        for bad in ["", "9494", "host:", "host:99999", "::1:80", "http://host:80", "[::1:80"] {
            assert!(Listen::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn other_kinds_refuse_what_they_are_not() {
        assert_eq!(Sync::parse("100ms").unwrap().to_string(), "100ms");
        assert!(Sync::parse("0").is_err() && Sync::parse("2h").is_err() && Sync::parse("never").is_err());
        assert_eq!(Count::parse("50_000_000").unwrap().0, 50_000_000);
        assert!(Count::parse("0").is_err() && Count::parse("-1").is_err());
        assert!(bool::parse("yes").is_err());
        assert!(
            LogLevel::parse("info,tsdb=debug").is_ok()
                && LogLevel::parse("loud").is_err()
                && LogLevel::parse("").is_err()
        );
        assert!(Features::parse("promql-experimental-functions").is_ok());
        assert!(Features::parse("promql-everything").unwrap_err().contains("promql-experimental-functions"));
        assert!(HeaderOption::parse("X Y").is_err() && HeaderOption::parse("X-Scope-OrgID").is_ok());
    }
}
