//! Sources of addresses in Prometheus' words: `static_configs`, the sections that end in `_sd_configs`, and
//! relabelling.

mod fields;
mod named;
mod registries;

use std::path::Path;

use discovery::zookeeper::Kind;
use discovery::{Discovery, Group};
use model::labels::Labels;

use crate::file::yaml::{self, Node};
use crate::file::{FileError, Position};
use crate::relabel::{self, Relabel};

pub use fields::scheme;

pub const ADDRESS: &str = "__address__";
pub const SCHEME: &str = "__scheme__";

/// Sources of addresses that are one list.
#[derive(Clone, Debug)]
pub struct Sources {
    pub scheme: String,
    /// Before the paths of whoever is found; without a slash at its end.
    pub path_prefix: String,
    pub relabel: Vec<Relabel>,
    pub discoveries: Vec<Discovery>,
}

impl Default for Sources {
    fn default() -> Sources {
        Sources {
            scheme: "http".into(),
            path_prefix: String::new(),
            relabel: Vec::new(),
            discoveries: Vec::new(),
        }
    }
}

impl Sources {
    /// Reads a file that says where addresses come from, and nothing else. Relative paths are those of
    /// `folder`.
    pub fn parse(text: &str, folder: &Path) -> Result<Sources, FileError> {
        let mut sources = Sources::default();
        let Some(root) = yaml::read(text)? else { return Ok(sources) };
        for (name, (place, value)) in root.fields("a file of sources")? {
            match name.as_str() {
                "scheme" => sources.scheme = scheme(&value)?,
                "path_prefix" => sources.path_prefix = value.text()?.trim_end_matches('/').to_owned(),
                "relabel_configs" => sources.relabel = relabel::parse_list(&value)?,
                other if is_section(other) => {
                    sources.discoveries.extend(section(other, place, &value, folder)?);
                }
                other => {
                    let text = format!(
                        "field {other} not found: {KNOWN}, scheme, path_prefix and relabel_configs are"
                    );
                    return Err(FileError::at(place, text));
                }
            }
        }
        Ok(sources)
    }

    /// URLs of what was found, relabelled; ascending, each once.
    pub fn urls(&self, groups: &[Group]) -> Vec<String> {
        let mut urls = Vec::new();
        for group in groups {
            for target in &group.targets {
                let mut labels = Labels::from_pairs(&group.labels).to_builder();
                labels.set(ADDRESS, target);
                if labels.get(SCHEME).is_none() {
                    labels.set(SCHEME, &self.scheme);
                }
                let kept = relabel::apply(&self.relabel, &labels.build());
                let kept = kept.filter(|kept| !kept.value(ADDRESS).is_empty());
                urls.extend(kept.map(|kept| origin(&kept) + &self.path_prefix));
            }
        }
        urls.sort();
        urls.dedup();
        urls
    }
}

/// The beginning of a URL, out of scheme and address; the scheme's port where the address has none.
pub fn origin(labels: &Labels) -> String {
    let (scheme, address) = (labels.value(SCHEME), labels.value(ADDRESS));
    let has_port = address.rsplit_once(':').is_some_and(|(host, port)| {
        !port.is_empty()
            && port.bytes().all(|b| b.is_ascii_digit())
            && (!host.contains(':') || host.ends_with(']'))
    });
    let port = match (has_port, scheme) {
        (true, _) => "",
        (false, "https") => ":443",
        (false, _) => ":80",
    };
    format!("{scheme}://{address}{port}")
}

/// The sections that are known.
const KNOWN: &str = "static_configs, dns_sd_configs, file_sd_configs, consul_sd_configs, serverset_sd_configs, nerve_sd_configs and kubernetes_sd_configs";

/// Whether a field is a section of sources, known or not.
pub fn is_section(name: &str) -> bool {
    name == "static_configs" || name.ends_with("_sd_configs")
}

/// The sources of a section.
pub fn section(name: &str, place: Position, node: &Node, folder: &Path) -> Result<Vec<Discovery>, FileError> {
    let each = |what: &str, read: &dyn Fn(&Node) -> Result<Discovery, FileError>| {
        node.items(what)?.iter().map(|config| read(config)).collect()
    };
    match name {
        "static_configs" => {
            let groups = node.items("[]*targetgroup.Group")?;
            let groups = groups.iter().map(|group| named::target_group(group)).collect::<Result<_, _>>()?;
            Ok(vec![Discovery::Static(groups)])
        }
        "dns_sd_configs" => each("[]*dns.SDConfig", &named::dns),
        "file_sd_configs" => each("[]*file.SDConfig", &|config| named::files(config, folder)),
        "consul_sd_configs" => each("[]*consul.SDConfig", &|config| registries::consul(config, folder)),
        "serverset_sd_configs" => {
            each("[]*zookeeper.ServersetSDConfig", &|c| registries::zookeeper(c, Kind::Serverset))
        }
        "nerve_sd_configs" => each("[]*zookeeper.NerveSDConfig", &|c| registries::zookeeper(c, Kind::Nerve)),
        "kubernetes_sd_configs" => {
            each("[]*kubernetes.SDConfig", &|config| registries::kubernetes(config, folder))
        }
        other => Err(FileError::at(place, format!("{other} is not supported here: {KNOWN} are"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_and_what_they_find_is_relabelled() {
        let text = "scheme: https
static_configs:
- targets: [b:1, a, drop:1, a]
- {targets: [c:1], labels: {__scheme__: http}}
dns_sd_configs:
- {names: [x.local], type: A, port: 9}
file_sd_configs:
- {files: [y/*.json]}
relabel_configs:
- {source_labels: [__address__], regex: 'drop.*', action: drop}
";
        let sources = Sources::parse(text, Path::new("/etc")).unwrap();
        assert_eq!(sources.discoveries.len(), 3);
        let Discovery::Static(groups) = &sources.discoveries[2] else { panic!() };
        assert_eq!(sources.urls(groups), ["http://c:1", "https://a:443", "https://b:1"]);
    }

    #[test]
    fn sources_say_where_they_are_wrong() {
        for (text, want) in [
            ("eureka_sd_configs: []\n", "1:1: eureka_sd_configs is not supported here: static_configs"),
            ("scheme: ftp\n", "1:9: scheme is http or https"),
            ("file_sd_configs: [{files: [a.txt]}]\n", "1:28: path name \"a.txt\" is not valid"),
            ("alertmanagers: []\n", "1:1: field alertmanagers not found"),
            ("dns_sd_configs: [{names: [a], type: MX}]\n", "1:18: invalid DNS-SD records type MX"),
        ] {
            let why = Sources::parse(text, Path::new(".")).unwrap_err().to_string();
            assert!(why.starts_with(want), "{why}");
        }
    }
}
