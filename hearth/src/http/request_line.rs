//! Request lines as people and Go write them: what hyper's URLs refuse is percent-encoded, and a query longer
//! than they may be is put aside.

use std::borrow::Cow;

/// Bytes of a target that hyper's URLs take: 64 KiB less two, less a little for what stands in place of a
/// query that was put aside.
pub const MAX_TARGET_BYTES: usize = 65_000;

/// What a body's end is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    Bytes(u64),
    /// Chunks, an upgrade, or lengths that contradict one another: for hyper to judge.
    Unknown,
}

/// A request's head, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// Where the target is within the head's bytes.
    pub target: std::ops::Range<usize>,
    /// Bytes of the head, its empty line included.
    pub len: usize,
    pub body: BodyLength,
}

/// Why a head is refused: the status and a sentence for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub reason: String,
}

impl Refusal {
    pub fn new(status: u16, reason: impl Into<String>) -> Refusal {
        Refusal { status, reason: reason.into() }
    }
}

/// Headers of one request: as many as hyper takes.
const MAX_HEADERS: usize = 100;

/// Reads a head that is whole: it ends with an empty line.
pub fn parse(bytes: &[u8]) -> Result<Head, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Err(Refusal::new(400, "the request's head has no end")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::new(431, format!("the request has more than {MAX_HEADERS} headers")));
        }
        Err(e) => return Err(Refusal::new(400, format!("this is no request of HTTP/1.1: {e}"))),
    };
    let path = request.path.unwrap_or("");
    let start = path.as_ptr() as usize - bytes.as_ptr() as usize;
    let mut length = None;
    let mut unknown = request.version == Some(0);
    for header in request.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let text = std::str::from_utf8(header.value).ok().map(str::trim);
            let digits = text.filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()));
            let bytes = digits.and_then(|t| t.parse::<u64>().ok());
            unknown |= bytes.is_none() || length.is_some();
            length = bytes;
        }
        unknown |= is("transfer-encoding") || is("upgrade");
    }
    unknown |= request.method == Some("CONNECT");
    let body = if unknown { BodyLength::Unknown } else { BodyLength::Bytes(length.unwrap_or(0)) };
    Ok(Head { target: start..start + path.len(), len, body })
}

/// Whether hyper's URLs take a byte as it is: in the path, or behind its `?`.
fn is_taken(b: u8, in_query: bool) -> bool {
    match b {
        b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'|' => false,
        b'{' | b'}' => false,
        b'?' => !in_query || b == b'?',
        0x21..=0x7e => true,
        _ => false,
    }
}

/// The target with everything percent-encoded that hyper would refuse or cut off. Go takes all of it but
/// control characters, and reads a `#` as a part of the query.
pub fn lenient(target: &[u8]) -> Cow<'_, [u8]> {
    let mut in_query = false;
    let plain = target.iter().all(|b| {
        let taken = is_taken(*b, in_query);
        in_query |= *b == b'?';
        taken
    });
    if plain {
        return Cow::Borrowed(target);
    }
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(target.len() + 64);
    in_query = false;
    for b in target {
        if is_taken(*b, in_query) {
            out.push(*b);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
        }
        in_query |= *b == b'?';
    }
    Cow::Owned(out)
}

/// The path to answer for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathIs {
    /// As it was written.
    Plain,
    /// Another spelling of this one, in which nothing is escaped that needs no escape.
    Spelled(String),
    /// To be asked for by this one, as Go's `ServeMux` sends clients on: without `//`, `.` and `..`.
    Elsewhere(String),
    /// An escape in it is none.
    Malformed,
}

/// Reads a path as Prometheus' router does: cleaned first, and matched unescaped, so that `%2F` parts what it
/// stands between.
pub fn path(raw: &str) -> PathIs {
    let clean = cleaned(raw);
    if clean != raw {
        return PathIs::Elsewhere(clean);
    }
    if !raw.contains('%') {
        return PathIs::Plain;
    }
    let Some(bytes) = unescaped(raw.as_bytes()) else { return PathIs::Malformed };
    let mut spelled = String::with_capacity(raw.len());
    for b in bytes {
        match b {
            b'/' | b'-' | b'_' | b'.' | b'~' | b':' | b'@' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')'
            | b'*' | b'+' | b',' | b';' | b'=' => spelled.push(char::from(b)),
            b if b.is_ascii_alphanumeric() => spelled.push(char::from(b)),
            b => spelled.push_str(&format!("%{b:02X}")),
        }
    }
    if spelled == raw { PathIs::Plain } else { PathIs::Spelled(spelled) }
}

/// Go's `path.Clean`, with the slash kept at the end.
fn cleaned(raw: &str) -> String {
    if !raw.contains("//") && !raw.contains("/.") {
        return raw.to_owned();
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in raw.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut out = format!("/{}", parts.join("/"));
    if raw.ends_with('/') && !out.ends_with('/') {
        out.push('/');
    }
    out
}

fn unescaped(raw: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let [high, low, after @ ..] = rest else { return None };
        let digit = |b: u8| char::from(b).to_digit(16);
        out.push((digit(*high)? * 16 + digit(*low)?) as u8);
        rest = after;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(head: &str) -> String {
        let bytes = head.as_bytes();
        String::from_utf8(bytes[parse(bytes).unwrap().target].to_vec()).unwrap()
    }

    #[test]
    fn head_says_where_its_target_is_and_how_long_its_body() {
        let body = |head: &str| parse(head.as_bytes()).unwrap().body;
        assert_eq!(target("GET /a?b={c=\"d\"} HTTP/1.1\r\nHost: x\r\n\r\n"), "/a?b={c=\"d\"}");
        assert_eq!(body("GET / HTTP/1.1\r\n\r\n"), BodyLength::Bytes(0));
        assert_eq!(body("POST / HTTP/1.1\r\nContent-length: 12\r\n\r\n"), BodyLength::Bytes(12));
        for odd in [
            "Content-Length: 1\r\nContent-Length: 1",
            "Transfer-Encoding: chunked",
            "Content-Length: +1",
            "Upgrade: x",
        ] {
            assert_eq!(body(&format!("POST / HTTP/1.1\r\n{odd}\r\n\r\n")), BodyLength::Unknown, "{odd}");
        }
        assert_eq!(parse(b"GET / HTTP/9.9\r\n\r\n").unwrap_err().status, 400);
        assert_eq!(
            parse(format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101)).as_bytes()).unwrap_err().status,
            431
        );
    }

    #[test]
    fn targets_become_what_hyper_takes_and_mean_the_same() {
        for (written, taken) in [
            ("/q?query=up", "/q?query=up"),
            ("/q?query=up{job=\"x\"}", "/q?query=up%7Bjob=%22x%22%7D"),
            ("/q?query=a<b|c>d^e`f\\g", "/q?query=a%3Cb%7Cc%3Ed%5Ee%60f%5Cg"),
            ("/q?query=up#x", "/q?query=up%23x"),
            ("/q?query=a?b", "/q?query=a?b"),
            ("/q?query=\u{e9}\u{a0}", "/q?query=%C3%A9%C2%A0"),
            ("/label/{a}/values", "/label/%7Ba%7D/values"),
        ] {
            let out = lenient(written.as_bytes());
            assert_eq!(std::str::from_utf8(&out).unwrap(), taken);
            let uri: axum::http::Uri = taken.parse().unwrap();
            assert_eq!(uri.to_string(), taken);
        }
        for b in 0x21..=0xffu8 {
            let written = [b"/p?q=".as_slice(), &[b]].concat();
            let uri: axum::http::Uri = std::str::from_utf8(&lenient(&written)).unwrap().parse().unwrap();
            assert!(uri.query().is_some_and(|q| q.len() > 2), "{b:#x}");
        }
    }

    #[test]
    fn paths_are_read_as_prometheus_router_reads_them() {
        for (raw, is) in [
            ("/api/v1/query", PathIs::Plain),
            ("/", PathIs::Plain),
            ("/api/v1/label//values", PathIs::Elsewhere("/api/v1/label/values".into())),
            ("/api/v1/../../etc/passwd", PathIs::Elsewhere("/etc/passwd".into())),
            ("/api/./v1/query/", PathIs::Elsewhere("/api/v1/query/".into())),
            ("/api/v1/label/a%2Fb/values", PathIs::Spelled("/api/v1/label/a/b/values".into())),
            ("/api/v1/%71uery", PathIs::Spelled("/api/v1/query".into())),
            ("/api/v1/label/a%20b/values", PathIs::Plain),
            ("/api/v1/label/50%25/values", PathIs::Plain),
            ("/api/v1/label/%zz/values", PathIs::Malformed),
            ("/a%2", PathIs::Malformed),
            ("/.well-known", PathIs::Plain),
        ] {
            assert_eq!(path(raw), is, "{raw}");
        }
    }
}
