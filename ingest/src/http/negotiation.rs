//! What a client speaks, by its headers.

use axum::http::{HeaderMap, StatusCode, header};

use super::refusal::Refusal;
use crate::protocol::Protocol;

/// Which protocol the headers speak. Without a content type, without its `proto` parameter or without an
/// encoding, upstream takes 1.0 and snappy for granted, because the first senders named neither.
pub(super) fn negotiate(headers: &HeaderMap) -> Result<Protocol, Refusal> {
    let unsupported = |reason: String| Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason);
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"snappy")
    {
        return Err(unsupported(format!(
            "Content-Encoding {encoding:?} is not taken, only snappy (block format) is"
        )));
    }
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else {
        return Ok(Protocol::V1);
    };
    let Ok(content_type) = content_type.to_str() else {
        return Err(unsupported("Content-Type is not ASCII".into()));
    };
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/x-protobuf")) {
        return Err(unsupported(format!(
            "Content-Type {content_type:?} is not taken, only application/x-protobuf is"
        )));
    }
    for parameter in parts.filter(|p| !p.is_empty()) {
        let Some((name, value)) = parameter.split_once('=') else {
            return Err(unsupported(format!(
                "Content-Type {content_type:?} has a parameter without a value"
            )));
        };
        if name.trim().eq_ignore_ascii_case("proto") {
            return match value.trim().trim_matches('"') {
                "prometheus.WriteRequest" => Ok(Protocol::V1),
                "io.prometheus.write.v2.Request" => Ok(Protocol::V2),
                other => Err(unsupported(format!(
                    "messages of type {other:?} are not taken, only prometheus.WriteRequest and io.prometheus.write.v2.Request"
                ))),
            };
        }
    }
    Ok(Protocol::V1)
}
