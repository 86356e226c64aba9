//! What a request shows: the header `Authorization`.

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Denied;

/// Longer ones are nobody's.
const MAX_BYTES: usize = 16 << 10;

/// What the header says.
pub enum Credential {
    Basic { user: String, password: String },
    Bearer(String),
}

/// Reads it; `None` where there is none. One that cannot be read is refused, as a wrong one is: whoever
/// shows something wants to be known by it.
pub fn credential(headers: &HeaderMap) -> Result<Option<Credential>, Denied> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let wrong = |reason: &str| Denied::unauthorized("malformed", reason);
    if values.next().is_some() {
        return Err(wrong("the request has more than one Authorization header"));
    }
    let text = value.to_str().map_err(|_| wrong("the Authorization header is not ASCII"))?;
    if text.len() > MAX_BYTES {
        return Err(wrong("the Authorization header is too long"));
    }
    let (scheme, value) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !value.is_empty() {
        return Ok(Some(Credential::Bearer(value.to_owned())));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(wrong("the Authorization header is neither Basic nor Bearer"));
    }
    let decoded = STANDARD.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
    let (user, password) =
        pair.ok_or_else(|| wrong("the Authorization header is not base64 of USER:PASSWORD"))?;
    Ok(Some(Credential::Basic { user: user.to_owned(), password: password.to_owned() }))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn credential_is_read_or_refused_and_never_overlooked() {
        let read = |text: &str| {
            let value = HeaderValue::from_str(text).unwrap();
            credential(&HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
        };
        assert!(credential(&HeaderMap::new()).unwrap().is_none());
        assert!(matches!(read("bearer  abc").unwrap(), Some(Credential::Bearer(t)) if t == "abc"));
        let basic = read("Basic dTpwOnc=").unwrap();
        assert!(
            matches!(basic, Some(Credential::Basic { user, password }) if user == "u" && password == "p:w")
        );
        for bad in
            ["", "Bearer", "Basic", "Basic !!!", "Basic dQ==", "Digest x", "Basic //79", &"x".repeat(20_000)]
        {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
