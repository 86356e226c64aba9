//! The request of remote read.

use model::matcher::{MatchOp, Matcher};

use crate::api::protobuf::{Fields, Malformed, Value};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    pub queries: Vec<ReadQuery>,
    pub response_type: ResponseType,
}

/// Series that all matchers take, times in milliseconds, ends included.
#[derive(Clone, Debug, Default)]
pub struct ReadQuery {
    pub start_ms: i64,
    pub end_ms: i64,
    pub matchers: Vec<Matcher>,
}

/// The two answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseType {
    Samples,
    StreamedXorChunks,
}

/// Queries and matchers that are read of one request: readers send one query and a handful of matchers.
const MOST_QUERIES: usize = 1_000;
const MOST_MATCHERS: usize = 1_000;

/// Kinds of answers that are looked at: there are two.
const MOST_KINDS: usize = 64;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the request is not valid UTF-8 in a {0}")]
    NotText(&'static str),
    #[error("unknown matcher type {0}")]
    MatcherType(u64),
    #[error("matcher on {name}: {why}")]
    Matcher { name: String, why: String },
    #[error("the request has more than {0}")]
    TooMuch(&'static str),
    #[error(
        "server does not support any of the requested response types: {0:?}; supported: 0 (SAMPLES), 1 (STREAMED_XOR_CHUNKS)"
    )]
    ResponseType(Vec<u64>),
}

/// Reads a request. Compiles its regular expressions: to be called where that may take a while.
pub fn decode(message: &[u8]) -> Result<ReadRequest, RequestError> {
    let mut queries = Vec::new();
    let mut accepted = Vec::new();
    for field in Fields::of(message) {
        match field? {
            (1, Value::Bytes(message)) => {
                if queries.len() == MOST_QUERIES {
                    return Err(RequestError::TooMuch("1000 queries"));
                }
                queries.push(query(message)?);
            }
            (2, Value::Varint(kind)) if accepted.len() < MOST_KINDS => accepted.push(kind),
            (2, Value::Bytes(mut packed)) => {
                while accepted.len() < MOST_KINDS
                    && let Some(kind) = model::codec::varint::take_u64(&mut packed)
                {
                    accepted.push(kind);
                }
            }
            _ => {}
        }
    }
    Ok(ReadRequest { queries, response_type: response_type(&accepted)? })
}

/// The first that is known; samples where nothing is said.
fn response_type(accepted: &[u64]) -> Result<ResponseType, RequestError> {
    let known = accepted.iter().find_map(|kind| match kind {
        0 => Some(ResponseType::Samples),
        1 => Some(ResponseType::StreamedXorChunks),
        _ => None,
    });
    match known {
        Some(known) => Ok(known),
        None if accepted.is_empty() => Ok(ResponseType::Samples),
        None => Err(RequestError::ResponseType(accepted.iter().copied().take(16).collect())),
    }
}

fn query(message: &[u8]) -> Result<ReadQuery, RequestError> {
    let mut query = ReadQuery::default();
    for field in Fields::of(message) {
        match field? {
            (1, Value::Varint(start)) => query.start_ms = start as i64,
            (2, Value::Varint(end)) => query.end_ms = end as i64,
            (3, Value::Bytes(message)) => {
                if query.matchers.len() == MOST_MATCHERS {
                    return Err(RequestError::TooMuch("1000 matchers in a query"));
                }
                query.matchers.push(matcher(message)?);
            }
            // Hints say what the reader will do with the samples: it gets all of them.
            _ => {}
        }
    }
    Ok(query)
}

fn matcher(message: &[u8]) -> Result<Matcher, RequestError> {
    let (mut kind, mut name, mut value) = (0, "", "");
    for field in Fields::of(message) {
        match field? {
            (1, Value::Varint(k)) => kind = k,
            (2, Value::Bytes(b)) => name = text(b, "matcher's name")?,
            (3, Value::Bytes(b)) => value = text(b, "matcher's value")?,
            _ => {}
        }
    }
    let op = match kind {
        0 => MatchOp::Equal,
        1 => MatchOp::NotEqual,
        2 => MatchOp::Regex,
        3 => MatchOp::NotRegex,
        other => return Err(RequestError::MatcherType(other)),
    };
    Matcher::new(op, name, value)
        .map_err(|e| RequestError::Matcher { name: name.to_owned(), why: e.to_string() })
}

fn text<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, RequestError> {
    std::str::from_utf8(bytes).map_err(|_| RequestError::NotText(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::protobuf::{bytes, message, varint};

    fn request(kinds: &[u64], matcher_kind: u64, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        message(&mut out, 1, |q| {
            varint(q, 1, -5i64 as u64);
            varint(q, 2, 9);
            message(q, 3, |m| {
                varint(m, 1, matcher_kind);
                bytes(m, 2, b"job");
                bytes(m, 3, value);
            });
            message(q, 4, |hints| varint(hints, 1, 15));
        });
        kinds.iter().for_each(|kind| {
            out.push(2 << 3);
            model::codec::varint::put_u64(&mut out, *kind);
        });
        out
    }

    #[test]
    fn read_request_is_understood_and_the_first_known_answer_taken() {
        let read = decode(&request(&[7, 1, 0], 3, b"a|b")).unwrap();
        assert_eq!(read.response_type, ResponseType::StreamedXorChunks);
        let query = &read.queries[0];
        assert_eq!((query.start_ms, query.end_ms, query.matchers.len()), (-5, 9, 1));
        let matcher = &query.matchers[0];
        assert_eq!((&*matcher.name, matcher.op, &*matcher.value), ("job", MatchOp::NotRegex, "a|b"));
        assert_eq!(decode(&request(&[], 0, b"")).unwrap().response_type, ResponseType::Samples);
        // As proto3 packs them.
        let mut packed = request(&[], 0, b"");
        bytes(&mut packed, 2, &[5, 0]);
        assert_eq!(decode(&packed).unwrap().response_type, ResponseType::Samples);
    }

    #[test]
    fn read_request_that_makes_no_sense_is_refused_with_a_reason() {
        for (bytes, reason) in [
            (request(&[7], 0, b""), "response types: [7]"),
            (request(&[], 4, b""), "matcher type 4"),
            (request(&[], 2, b"("), "matcher on job"),
            (request(&[], 0, b"\xff"), "UTF-8"),
            (vec![0x0a, 0xff], "malformed protobuf"),
        ] {
            let e = decode(&bytes).unwrap_err().to_string();
            assert!(e.contains(reason), "{e}");
        }
    }

    proptest::proptest! {
        #[test]
        fn read_request_of_any_bytes_is_read_or_refused(message in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = decode(&message);
        }
    }
}
