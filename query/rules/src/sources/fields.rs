//! Fields that sections of sources have in common.

use std::path::Path;
use std::time::Duration;

use discovery::SHORTEST_REFRESH;
use discovery::http::{Access, Secret};

use crate::file::yaml::Node;
use crate::file::{FileError, Position};

pub fn unknown(place: Position, field: &str, type_name: &str) -> FileError {
    FileError::at(place, format!("field {field} not found in type {type_name}"))
}

/// The value of `scheme`.
pub fn scheme(node: &Node) -> Result<String, FileError> {
    let text = node.text()?;
    match text.as_str() {
        "http" | "https" => Ok(text),
        _ => Err(FileError::at(node.place, "scheme is http or https".into())),
    }
}

pub fn texts(node: &Node) -> Result<Vec<String>, FileError> {
    node.items("[]string")?.iter().map(|item| item.text()).collect()
}

/// How often a source is looked at.
pub fn interval(node: &Node) -> Result<Duration, FileError> {
    Ok(Duration::from_millis(node.duration_ms()?.unsigned_abs()).max(SHORTEST_REFRESH))
}

/// Takes a field that says how a service is reached; `false` where it is another.
pub fn access(access: &mut Access, name: &str, node: &Node, folder: &Path) -> Result<bool, FileError> {
    match name {
        "bearer_token" => access.bearer = Some(Secret::Text(node.text()?)),
        "bearer_token_file" => access.bearer = Some(Secret::File(folder.join(node.text()?))),
        "authorization" => authorization(access, node, folder)?,
        "tls_config" => tls(access, node, folder)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn authorization(access: &mut Access, node: &Node, folder: &Path) -> Result<(), FileError> {
    for (name, (place, value)) in node.fields("config.Authorization")? {
        match name.as_str() {
            "type" if value.text()?.eq_ignore_ascii_case("bearer") => {}
            "type" => {
                return Err(FileError::at(value.place, "only the type Bearer is supported here".into()));
            }
            "credentials" => access.bearer = Some(Secret::Text(value.text()?)),
            "credentials_file" => access.bearer = Some(Secret::File(folder.join(value.text()?))),
            other => return Err(unknown(place, other, "config.plain")),
        }
    }
    Ok(())
}

fn tls(access: &mut Access, node: &Node, folder: &Path) -> Result<(), FileError> {
    let (mut cert, mut key) = (None, None);
    for (name, (place, value)) in node.fields("config.TLSConfig")? {
        match name.as_str() {
            "cert_file" => cert = Some(folder.join(value.text()?)),
            "key_file" => key = Some(folder.join(value.text()?)),
            "ca_file" => access.ca_file = Some(folder.join(value.text()?)),
            "insecure_skip_verify" => access.insecure_skip_verify = value.truth()?,
            other => {
                let known = "ca_file, cert_file, key_file and insecure_skip_verify are";
                return Err(FileError::at(place, format!("tls_config: {other} is not supported: {known}")));
            }
        }
    }
    access.client_certificate = match (cert, key) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((cert, key)),
        _ => {
            let text =
                "exactly one of key or key_file must be configured when a client certificate is configured";
            return Err(FileError::at(node.place, text.into()));
        }
    };
    Ok(())
}
