//! Sources that name what they find: addresses themselves, names in DNS, and files.

use std::path::Path;

use discovery::dns::{self, Kind};
use discovery::{Discovery, Group, file};

use super::fields::{interval, texts, unknown};
use crate::file::FileError;
use crate::file::yaml::Node;

/// A group of `static_configs`.
pub fn target_group(node: &Node) -> Result<Group, FileError> {
    let mut group = Group::default();
    for (name, (place, value)) in node.fields("targetgroup.Group")? {
        match name.as_str() {
            "targets" => group.targets = texts(&value)?,
            "labels" => group.labels = value.text_map()?,
            other => return Err(unknown(place, other, "struct")),
        }
    }
    Ok(group)
}

/// An item of `dns_sd_configs`.
pub fn dns(node: &Node) -> Result<Discovery, FileError> {
    let (mut names, mut kind, mut port, mut refresh) = (Vec::new(), "SRV".to_owned(), 0, dns::REFRESH);
    for (name, (place, value)) in node.fields("dns.SDConfig")? {
        match name.as_str() {
            "names" => names = texts(&value)?,
            "type" => kind = value.text()?.to_ascii_uppercase(),
            "port" => port = value.integer()?,
            "refresh_interval" => refresh = interval(&value)?,
            other => return Err(unknown(place, other, "dns.plain")),
        }
    }
    let wrong = |text: String| Err(FileError::at(node.place, text));
    if names.is_empty() {
        return wrong("DNS-SD config must contain at least one SRV record name".into());
    }
    let records = match kind.as_str() {
        "SRV" => Kind::Srv,
        "A" => Kind::A,
        "AAAA" => Kind::Aaaa,
        other => return wrong(format!("invalid DNS-SD records type {other}")),
    };
    let port = match u16::try_from(port) {
        Ok(port) if port > 0 || records == Kind::Srv => port,
        _ => return wrong(format!("a port is required in DNS-SD configs for {kind} records")),
    };
    Ok(Discovery::Dns(dns::Names { names, kind: records, port, server: None, refresh }))
}

/// An item of `file_sd_configs`.
pub fn files(node: &Node, folder: &Path) -> Result<Discovery, FileError> {
    let (mut patterns, mut refresh) = (Vec::new(), file::REFRESH);
    for (name, (place, value)) in node.fields("file.SDConfig")? {
        match name.as_str() {
            "files" => {
                for item in value.items("[]string")? {
                    let pattern = item.text()?;
                    if !file::is_pattern(&pattern) {
                        let text = format!("path name {pattern:?} is not valid for file discovery");
                        return Err(FileError::at(item.place, text));
                    }
                    patterns.push(folder.join(pattern).display().to_string());
                }
            }
            "refresh_interval" => refresh = interval(&value)?,
            other => return Err(unknown(place, other, "file.plain")),
        }
    }
    if patterns.is_empty() {
        let text = "file service discovery config must contain at least one path name".to_owned();
        return Err(FileError::at(node.place, text));
    }
    Ok(Discovery::File(file::Files { patterns, refresh }))
}
