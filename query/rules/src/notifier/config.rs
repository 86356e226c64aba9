//! Which Alertmanagers there are: the `alerting` section of Prometheus' configuration, or a list of URLs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use discovery::{Discovery, Group};

use crate::file::yaml::{self, Node};
use crate::file::{FileError, Position};
use crate::relabel::{self, Relabel};
use crate::sources;

/// How alerts are changed, and where they go.
#[derive(Clone, Debug, Default)]
pub struct Alerting {
    pub alert_relabel: Vec<Relabel>,
    pub alertmanagers: Vec<AlertmanagerSet>,
}

/// Alertmanagers that are reached alike.
#[derive(Clone, Debug)]
pub struct AlertmanagerSet {
    pub scheme: String,
    pub path_prefix: String,
    pub timeout: Duration,
    pub login: Login,
    /// Certificates that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The certificate that is shown to the Alertmanager, and its key: both or neither.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    pub insecure_skip_verify: bool,
    pub relabel: Vec<Relabel>,
    pub alert_relabel: Vec<Relabel>,
    pub discoveries: Vec<Discovery>,
}

/// What a request shows of who it is from. Files are read for each request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Login {
    #[default]
    None,
    Basic {
        user: String,
        password: Secret,
    },
    Header {
        kind: String,
        credentials: Secret,
    },
}

/// A secret, or the file that holds it.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Text(String),
    File(PathBuf),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Secret::Text(_) => f.write_str("<secret>"),
            Secret::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Secret {
    /// The secret itself, without the line's end of a file.
    pub fn read(&self) -> Result<String, SecretError> {
        match self {
            Secret::Text(text) => Ok(text.clone()),
            Secret::File(path) => std::fs::read_to_string(path)
                .map(|text| text.trim_end().to_owned())
                .map_err(|cause| SecretError { path: path.clone(), cause }),
        }
    }
}

/// The file of a secret that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", path.display())]
pub struct SecretError {
    pub path: PathBuf,
    #[source]
    pub cause: std::io::Error,
}

impl Default for AlertmanagerSet {
    fn default() -> Self {
        AlertmanagerSet {
            scheme: "http".into(),
            path_prefix: String::new(),
            timeout: Duration::from_secs(10),
            login: Login::None,
            ca_file: None,
            client_certificate: None,
            insecure_skip_verify: false,
            relabel: Vec::new(),
            alert_relabel: Vec::new(),
            discoveries: Vec::new(),
        }
    }
}

/// The set of one URL: `http://host:9093/prefix`, with a user and a password if need be;
/// `dns+http://name:9093` stands for all addresses of the name.
pub fn from_url(url: &str) -> Result<AlertmanagerSet, String> {
    let how = "write http://HOST:PORT, https://HOST/PREFIX or dns+http://NAME:PORT";
    let (dns, plain) = match url.strip_prefix("dns+") {
        Some(rest) => (true, rest),
        None => (false, url),
    };
    let parsed = reqwest::Url::parse(plain).map_err(|e| format!("{url:?} is not a URL ({e}): {how}"))?;
    let Some(host) = parsed.host_str().filter(|_| matches!(parsed.scheme(), "http" | "https")) else {
        return Err(format!("{url:?} is not the URL of an Alertmanager: {how}"));
    };
    let port = parsed.port_or_known_default().unwrap_or(80);
    let login = match parsed.password() {
        Some(password) => {
            Login::Basic { user: parsed.username().to_owned(), password: Secret::Text(password.to_owned()) }
        }
        None => Login::None,
    };
    let discovery = match dns {
        true => Discovery::addresses_of(host, port),
        false => {
            Discovery::Static(vec![Group { targets: vec![format!("{host}:{port}")], ..Group::default() }])
        }
    };
    Ok(AlertmanagerSet {
        scheme: parsed.scheme().to_owned(),
        path_prefix: parsed.path().trim_end_matches('/').to_owned(),
        login,
        discoveries: vec![discovery],
        ..AlertmanagerSet::default()
    })
}

/// Reads the `alerting` section of a file, which may be a whole `prometheus.yml`: its other sections are
/// not looked at. Relative paths are those of `folder`.
pub fn parse(text: &str, folder: &Path) -> Result<Alerting, FileError> {
    let Some(root) = yaml::read(text)? else { return Ok(Alerting::default()) };
    let fields = root.fields("config.Config")?;
    let Some((_, section)) = fields.get("alerting") else { return Ok(Alerting::default()) };
    let mut alerting = Alerting::default();
    for (name, (place, value)) in section.fields("config.AlertingConfig")? {
        match name.as_str() {
            "alert_relabel_configs" => alerting.alert_relabel = relabel::parse_list(&value)?,
            "alertmanagers" => {
                for set in value.items("config.AlertmanagerConfigs")? {
                    alerting.alertmanagers.push(alertmanager_set(set, folder)?);
                }
            }
            other => return Err(unknown(place, other, "config.plain")),
        }
    }
    Ok(alerting)
}

fn unknown(place: Position, field: &str, type_name: &str) -> FileError {
    FileError::at(place, format!("field {field} not found in type {type_name}"))
}

fn alertmanager_set(node: &Node, folder: &Path) -> Result<AlertmanagerSet, FileError> {
    let mut set = AlertmanagerSet::default();
    for (name, (place, value)) in node.fields("config.AlertmanagerConfig")? {
        match name.as_str() {
            "scheme" => set.scheme = sources::scheme(&value)?,
            "path_prefix" => set.path_prefix = value.text()?.trim_end_matches('/').to_owned(),
            "timeout" => set.timeout = Duration::from_millis(value.duration_ms()?.unsigned_abs()),
            "api_version" => {
                if value.text()? != "v2" {
                    let text = "expected Alertmanager api version to be one of [v2]".to_owned();
                    return Err(FileError::at(value.place, text));
                }
            }
            "relabel_configs" => set.relabel = relabel::parse_list(&value)?,
            "alert_relabel_configs" => set.alert_relabel = relabel::parse_list(&value)?,
            "basic_auth" => set.login = basic_auth(&value, folder)?,
            "authorization" => set.login = authorization(&value, folder)?,
            "bearer_token" => {
                set.login = Login::Header { kind: "Bearer".into(), credentials: Secret::Text(value.text()?) };
            }
            "bearer_token_file" => {
                let credentials = Secret::File(folder.join(value.text()?));
                set.login = Login::Header { kind: "Bearer".into(), credentials };
            }
            "tls_config" => tls(&mut set, &value, folder)?,
            other if sources::is_section(other) => {
                set.discoveries.extend(sources::section(other, place, &value, folder)?);
            }
            "follow_redirects"
            | "enable_http2"
            | "proxy_url"
            | "no_proxy"
            | "proxy_from_environment"
            | "oauth2"
            | "sigv4"
            | "http_headers" => {
                return Err(FileError::at(place, format!("{name} is not supported here")));
            }
            other => return Err(unknown(place, other, "config.plain")),
        }
    }
    Ok(set)
}

fn tls(set: &mut AlertmanagerSet, node: &Node, folder: &Path) -> Result<(), FileError> {
    let (mut cert, mut key) = (None, None);
    for (name, (place, value)) in node.fields("config.TLSConfig")? {
        match name.as_str() {
            "cert_file" => cert = Some((place, folder.join(value.text()?))),
            "key_file" => key = Some((place, folder.join(value.text()?))),
            "ca_file" => set.ca_file = Some(folder.join(value.text()?)),
            "insecure_skip_verify" => set.insecure_skip_verify = value.truth()?,
            other => {
                let text = format!(
                    "tls_config: {other} is not supported: ca_file, cert_file, key_file and insecure_skip_verify are"
                );
                return Err(FileError::at(place, text));
            }
        }
    }
    match (cert, key) {
        (Some((_, cert)), Some((_, key))) => set.client_certificate = Some((cert, key)),
        (None, None) => {}
        (Some((place, _)), None) | (None, Some((place, _))) => {
            let text =
                "exactly one of key or key_file must be configured when a client certificate is configured";
            return Err(FileError::at(place, text.into()));
        }
    }
    Ok(())
}

fn basic_auth(node: &Node, folder: &Path) -> Result<Login, FileError> {
    let (mut user, mut password) = (String::new(), Secret::Text(String::new()));
    for (name, (place, value)) in node.fields("config.BasicAuth")? {
        match name.as_str() {
            "username" => user = value.text()?,
            "password" => password = Secret::Text(value.text()?),
            "password_file" => password = Secret::File(folder.join(value.text()?)),
            other => return Err(unknown(place, other, "config.plain")),
        }
    }
    Ok(Login::Basic { user, password })
}

fn authorization(node: &Node, folder: &Path) -> Result<Login, FileError> {
    let (mut kind, mut credentials) = ("Bearer".to_owned(), Secret::Text(String::new()));
    for (name, (place, value)) in node.fields("config.Authorization")? {
        match name.as_str() {
            "type" => kind = value.text()?,
            "credentials" => credentials = Secret::Text(value.text()?),
            "credentials_file" => credentials = Secret::File(folder.join(value.text()?)),
            other => return Err(unknown(place, other, "config.plain")),
        }
    }
    Ok(Login::Header { kind, credentials })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerting_section_of_a_prometheus_file_is_read() {
        let text = "global: {scrape_interval: 15s}
alerting:
  alert_relabel_configs:
  - {regex: replica, action: labeldrop}
  alertmanagers:
  - scheme: https
    path_prefix: /am/
    timeout: 3s
    basic_auth: {username: u, password_file: pw}
    tls_config: {ca_file: ca, cert_file: crt, key_file: /k}
    static_configs:
    - targets: ['a:9093', b]
      labels: {dc: x}
    dns_sd_configs:
    - {names: [am.local], type: A, port: 9093}
    - {names: [_am._tcp.local]}
    file_sd_configs:
    - {files: ['am/*.json'], refresh_interval: 10s}
scrape_configs: [{job_name: x, whatever: 1}]
";
        let alerting = parse(text, Path::new("/etc/p")).unwrap();
        assert_eq!(alerting.alert_relabel.len(), 1);
        let set = &alerting.alertmanagers[0];
        assert_eq!((set.scheme.as_str(), set.path_prefix.as_str()), ("https", "/am"));
        assert_eq!(set.login, Login::Basic { user: "u".into(), password: Secret::File("/etc/p/pw".into()) });
        assert_eq!(set.client_certificate, Some(("/etc/p/crt".into(), "/k".into())));
        assert_eq!(set.discoveries.len(), 4);
        let files = discovery::file::Files {
            patterns: vec!["/etc/p/am/*.json".into()],
            refresh: Duration::from_secs(10),
        };
        assert!(set.discoveries.contains(&Discovery::File(files)), "{:?}", set.discoveries);
    }

    #[test]
    fn alerting_section_says_where_it_is_wrong_and_what_there_is() {
        for (text, want) in [
            (
                "alerting:\n  alertmanagers:\n  - api_version: v1\n",
                "3:18: expected Alertmanager api version to be one of [v2]",
            ),
            (
                "alerting:\n  alertmanagers:\n  - eureka_sd_configs: []\n",
                "3:5: eureka_sd_configs is not supported here: static_configs, dns_sd_configs, file_sd_configs, consul_sd_configs, serverset_sd_configs, nerve_sd_configs and kubernetes_sd_configs are",
            ),
            (
                "alerting:\n  alertmanagers:\n  - tls_config: {cert_file: a}\n",
                "3:18: exactly one of key or key_file must be configured when a client certificate is configured",
            ),
            ("alerting:\n  alertmanager: []\n", "2:3: field alertmanager not found in type config.plain"),
            (
                "alerting:\n  alertmanagers:\n  - dns_sd_configs: [{names: [a], type: A}]\n",
                "3:22: a port is required in DNS-SD configs for A records",
            ),
        ] {
            assert_eq!(parse(text, Path::new(".")).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn url_of_an_alertmanager_has_prefix_port_and_login() {
        let set = from_url("https://me:pw@am.example.org/x/").unwrap();
        assert_eq!((set.scheme.as_str(), set.path_prefix.as_str()), ("https", "/x"));
        assert_eq!(
            set.discoveries,
            [Discovery::Static(vec![Group {
                targets: vec!["am.example.org:443".into()],
                ..Group::default()
            }])]
        );
        assert!(matches!(&set.login, Login::Basic { user, .. } if user == "me"));
        assert!(matches!(&from_url("dns+http://am:9093").unwrap().discoveries[0], Discovery::Dns(_)));
        for bad in ["am:9093", "ftp://am", "", "http://"] {
            assert!(from_url(bad).is_err(), "{bad}");
        }
    }
}
