//! Tokens: their kinds, the keywords, and how error texts name them.

use model::quote::quote;

use super::ast::{AggregateOp, BinaryOp, Span};

/// What a token is. Binary operators and aggregations carry their AST name, so the parser needs no second
/// table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Eof,
    Error,
    Equal,
    EqualRegex,
    NotRegex,
    Blank,
    Colon,
    Comma,
    Number,
    Duration,
    Str,
    Identifier,
    MetricIdentifier,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    LeftParen,
    RightParen,
    OpenHist,
    CloseHist,
    Space,
    Times,
    At,
    Op(BinaryOp),
    Aggregate(AggregateOp),
    Bool,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Fill,
    FillLeft,
    FillRight,
    Offset,
    Anchored,
    Smoothed,
    Start,
    End,
    Step,
    Range,
    MaxOf,
    MinOf,
    HistKey(HistKey),
    ResetHint(ResetHint),
}

/// The keys of a `{{…}}` histogram description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistKey {
    Sum,
    Count,
    Schema,
    Offset,
    NegativeOffset,
    Buckets,
    NegativeBuckets,
    ZeroBucket,
    ZeroBucketWidth,
    CustomValues,
    CounterResetHint,
}

impl HistKey {
    pub fn as_str(self) -> &'static str {
        match self {
            HistKey::Sum => "sum",
            HistKey::Count => "count",
            HistKey::Schema => "schema",
            HistKey::Offset => "offset",
            HistKey::NegativeOffset => "n_offset",
            HistKey::Buckets => "buckets",
            HistKey::NegativeBuckets => "n_buckets",
            HistKey::ZeroBucket => "z_bucket",
            HistKey::ZeroBucketWidth => "z_bucket_w",
            HistKey::CustomValues => "custom_values",
            HistKey::CounterResetHint => "counter_reset_hint",
        }
    }

    pub(super) fn from_lower(word: &str) -> Option<HistKey> {
        Some(match word {
            "sum" => HistKey::Sum,
            "count" => HistKey::Count,
            "schema" => HistKey::Schema,
            "offset" => HistKey::Offset,
            "n_offset" => HistKey::NegativeOffset,
            "buckets" => HistKey::Buckets,
            "n_buckets" => HistKey::NegativeBuckets,
            "z_bucket" => HistKey::ZeroBucket,
            "z_bucket_w" => HistKey::ZeroBucketWidth,
            "custom_values" => HistKey::CustomValues,
            "counter_reset_hint" => HistKey::CounterResetHint,
            _ => return None,
        })
    }
}

/// The values of `counter_reset_hint:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetHint {
    Unknown,
    Reset,
    NotReset,
    Gauge,
}

/// A token and its bytes in the text.
#[derive(Clone, Copy, Debug)]
pub struct Token {
    pub kind: Kind,
    pub start: u32,
    pub end: u32,
}

impl Token {
    pub fn span(self) -> Span {
        Span { start: self.start, end: self.end }
    }
}

/// The keyword a word is, whatever its case; `inf` and `nan` are numbers.
pub(super) fn keyword(word: &str) -> Option<Kind> {
    let mut buf = [0u8; 12];
    let lower = buf.get_mut(..word.len())?;
    lower.copy_from_slice(word.as_bytes());
    lower.make_ascii_lowercase();
    Some(match &*lower {
        b"and" => Kind::Op(BinaryOp::And),
        b"or" => Kind::Op(BinaryOp::Or),
        b"unless" => Kind::Op(BinaryOp::Unless),
        b"atan2" => Kind::Op(BinaryOp::Atan2),
        b"sum" => Kind::Aggregate(AggregateOp::Sum),
        b"avg" => Kind::Aggregate(AggregateOp::Avg),
        b"count" => Kind::Aggregate(AggregateOp::Count),
        b"min" => Kind::Aggregate(AggregateOp::Min),
        b"max" => Kind::Aggregate(AggregateOp::Max),
        b"group" => Kind::Aggregate(AggregateOp::Group),
        b"stddev" => Kind::Aggregate(AggregateOp::Stddev),
        b"stdvar" => Kind::Aggregate(AggregateOp::Stdvar),
        b"topk" => Kind::Aggregate(AggregateOp::Topk),
        b"bottomk" => Kind::Aggregate(AggregateOp::Bottomk),
        b"count_values" => Kind::Aggregate(AggregateOp::CountValues),
        b"quantile" => Kind::Aggregate(AggregateOp::Quantile),
        b"limitk" => Kind::Aggregate(AggregateOp::Limitk),
        b"limit_ratio" => Kind::Aggregate(AggregateOp::LimitRatio),
        b"offset" => Kind::Offset,
        b"smoothed" => Kind::Smoothed,
        b"anchored" => Kind::Anchored,
        b"by" => Kind::By,
        b"without" => Kind::Without,
        b"on" => Kind::On,
        b"ignoring" => Kind::Ignoring,
        b"group_left" => Kind::GroupLeft,
        b"group_right" => Kind::GroupRight,
        b"fill" => Kind::Fill,
        b"fill_left" => Kind::FillLeft,
        b"fill_right" => Kind::FillRight,
        b"bool" => Kind::Bool,
        b"start" => Kind::Start,
        b"end" => Kind::End,
        b"step" => Kind::Step,
        b"range" => Kind::Range,
        b"max_of" => Kind::MaxOf,
        b"min_of" => Kind::MinOf,
        b"inf" | b"nan" => Kind::Number,
        _ => return None,
    })
}

/// A token as error texts name it: `identifier "foo"`, `<by>`, `<op:+>`, `end of input`.
pub fn describe(token: Token, text: &str) -> String {
    let raw = text.get(token.start as usize..token.end as usize).unwrap_or_default();
    let shortened = || {
        if raw.len() > 10 {
            let head: String = raw.chars().take(10).collect();
            format!("{}...", quote(head))
        } else {
            quote(raw)
        }
    };
    match token.kind {
        Kind::Eof => "end of input".into(),
        Kind::Error => "error".into(),
        Kind::Identifier => format!("identifier {}", quote(raw)),
        Kind::MetricIdentifier => format!("metric identifier {}", quote(raw)),
        Kind::Str => format!("string {}", shortened()),
        Kind::Number => format!("number {}", shortened()),
        Kind::Duration => format!("duration {}", shortened()),
        Kind::Op(_) | Kind::At | Kind::EqualRegex | Kind::NotRegex => format!("<op:{raw}>"),
        Kind::Aggregate(_) => format!("<aggr:{raw}>"),
        Kind::Bool
        | Kind::By
        | Kind::Without
        | Kind::On
        | Kind::Ignoring
        | Kind::GroupLeft
        | Kind::GroupRight
        | Kind::Fill
        | Kind::FillLeft
        | Kind::FillRight
        | Kind::Offset
        | Kind::Anchored
        | Kind::Smoothed => format!("<{raw}>"),
        Kind::HistKey(_) => format!("histogram key {}", shortened()),
        Kind::ResetHint(_) => format!("counter reset hint {}", shortened()),
        Kind::Equal
        | Kind::Blank
        | Kind::Colon
        | Kind::Comma
        | Kind::LeftBrace
        | Kind::RightBrace
        | Kind::LeftBracket
        | Kind::RightBracket
        | Kind::LeftParen
        | Kind::RightParen
        | Kind::OpenHist
        | Kind::CloseHist
        | Kind::Space
        | Kind::Times
        | Kind::Start
        | Kind::End
        | Kind::Step
        | Kind::Range
        | Kind::MaxOf
        | Kind::MinOf => shortened(),
    }
}
