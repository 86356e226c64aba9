//! The file of `auth.file`: who there is, and what they may do for which tenants.
//!
//! ```yaml
//! tokens:
//!   - name: team-a
//!     sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae   # of the token
//!     tenants: [team-a]
//!     rights: [write]
//! users:              # of basic_auth_users in web.config_file
//!   - name: grafana
//!     tenants: ['*']
//!     rights: [read]
//! certificates:       # of clients, by a name in them; web.config_file checks them
//!   - san: spiffe://cluster.local/ns/monitoring/sa/prometheus
//!     tenants: [team-a, team-b]
//!     rights: [write, metrics]
//! issuers:            # of JWTs
//!   - issuer: https://login.example.org/realms/ops
//!     audiences: [hearth]
//!     tenants_claim: tenants
//!     rights: [read]
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::identity::{Identity, Right, Rights};
use ring::digest::{SHA256, digest};
use serde::Deserialize;

use super::jwt::IssuerConfig;
use super::tenants::tenant_set;
use crate::config::value::{Span, Value};
use crate::live_file::{LiveFile, Read};

/// What the file says.
#[derive(Default)]
pub struct Grants {
    /// By the SHA-256 of the token.
    tokens: HashMap<[u8; 32], Arc<Identity>>,
    users: HashMap<String, Arc<Identity>>,
    /// By a name in the certificate.
    certificates: HashMap<String, Arc<Identity>>,
    pub issuers: Arc<[IssuerConfig]>,
}

impl Grants {
    pub fn of_token(&self, token: &str) -> Option<Arc<Identity>> {
        let hash = digest(&SHA256, token.as_bytes());
        let hash: [u8; 32] = hash.as_ref().try_into().ok()?;
        self.tokens.get(&hash).cloned()
    }

    pub fn of_user(&self, user: &str) -> Option<Arc<Identity>> {
        self.users.get(user).cloned()
    }

    /// By the first name of a certificate that is known.
    pub fn of_certificate(&self, names: &[String]) -> Option<Arc<Identity>> {
        names.iter().find_map(|name| self.certificates.get(name)).cloned()
    }
}

/// Reads the file for the first time.
pub fn open(path: &Path) -> Result<LiveFile<Grants>, String> {
    let path = path.to_owned();
    LiveFile::open("auth.file", move || {
        let shown = path.display();
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{shown}: {e}"))?;
        let value = parse(&text, path.parent().unwrap_or(Path::new("")));
        Ok(Read { value: value.map_err(|why| format!("{shown}: {why}"))?, files: vec![path.clone()] })
    })
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct File {
    tokens: Option<Vec<Token>>,
    users: Option<Vec<User>>,
    certificates: Option<Vec<Certificate>>,
    issuers: Option<Vec<Issuer>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    name: String,
    sha256: String,
    tenants: Vec<String>,
    rights: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    name: String,
    tenants: Vec<String>,
    rights: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Certificate {
    san: String,
    tenants: Vec<String>,
    rights: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Issuer {
    issuer: String,
    audiences: Vec<String>,
    #[serde(default)]
    jwks_url: String,
    #[serde(default)]
    ca_file: String,
    #[serde(default)]
    allow_http: bool,
    #[serde(default)]
    tenants_claim: String,
    #[serde(default)]
    name_claim: String,
    #[serde(default)]
    rights_claim: String,
    #[serde(default)]
    rights: Vec<String>,
    #[serde(default)]
    leeway: String,
}

/// Reads the file's text; relative paths in it are below `folder`.
fn parse(text: &str, folder: &Path) -> Result<Grants, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|e| {
        let place = e.location().map_or(String::new(), |at| format!("{}:{}: ", at.line(), at.column()));
        format!("{place}{}", e.without_snippet())
    })?;
    let mut grants = Grants::default();
    for token in file.tokens.unwrap_or_default() {
        let what = format!("the token {:?}", token.name);
        let hash = sha256(&token.sha256).ok_or_else(|| {
            format!("{what}: its sha256 is not 64 hexadecimal digits (`printf %s \"$TOKEN\" | sha256sum`)")
        })?;
        let identity = identity(&format!("token {}", token.name), &token.tenants, &token.rights);
        let identity = identity.map_err(|why| format!("{what}: {why}"))?;
        if grants.tokens.insert(hash, identity).is_some() {
            return Err(format!("{what} is there twice"));
        }
    }
    for user in file.users.unwrap_or_default() {
        let what = format!("the user {:?}", user.name);
        let identity = identity(&format!("user {}", user.name), &user.tenants, &user.rights);
        let identity = identity.map_err(|why| format!("{what}: {why}"))?;
        if grants.users.insert(user.name, identity).is_some() {
            return Err(format!("{what} is there twice"));
        }
    }
    for certificate in file.certificates.unwrap_or_default() {
        let what = format!("the certificate {:?}", certificate.san);
        let name = format!("certificate {}", certificate.san);
        let identity = identity(&name, &certificate.tenants, &certificate.rights);
        let identity = identity.map_err(|why| format!("{what}: {why}"))?;
        if grants.certificates.insert(certificate.san, identity).is_some() {
            return Err(format!("{what} is there twice"));
        }
    }
    let mut issuers: Vec<IssuerConfig> = Vec::new();
    for issuer in file.issuers.unwrap_or_default() {
        let what = format!("the issuer {:?}", issuer.issuer);
        let config = issuer_config(issuer, folder).map_err(|why| format!("{what}: {why}"))?;
        if issuers.iter().any(|other| other.issuer == config.issuer) {
            return Err(format!("{what} is there twice"));
        }
        issuers.push(config);
    }
    grants.issuers = issuers.into();
    Ok(grants)
}

fn issuer_config(issuer: Issuer, folder: &Path) -> Result<IssuerConfig, String> {
    for url in [&issuer.issuer, &issuer.jwks_url] {
        let fine = url.starts_with("https://") || (issuer.allow_http && url.starts_with("http://"));
        if !fine && !url.is_empty() {
            return Err(format!("{url:?} does not begin with https:// (allow_http: true takes http://)"));
        }
    }
    if issuer.issuer.is_empty() || issuer.audiences.is_empty() || issuer.audiences.contains(&String::new()) {
        return Err("it needs a URL and audiences, or tokens for others would do here".into());
    }
    if issuer.rights.is_empty() && issuer.rights_claim.is_empty() {
        return Err("it needs rights, or a rights_claim".into());
    }
    let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
    let leeway = match issuer.leeway.as_str() {
        "" => std::time::Duration::from_secs(60),
        text => Span::parse(text).map_err(|why| format!("leeway: {text:?} {why}"))?.0,
    };
    Ok(IssuerConfig {
        audiences: issuer.audiences,
        jwks_url: issuer.jwks_url,
        ca_file: if issuer.ca_file.is_empty() { PathBuf::new() } else { folder.join(issuer.ca_file) },
        allow_http: issuer.allow_http,
        tenants_claim: or(issuer.tenants_claim, "tenants"),
        name_claim: or(issuer.name_claim, "sub"),
        rights_claim: issuer.rights_claim,
        rights: rights(&issuer.rights)?,
        leeway,
        issuer: issuer.issuer,
    })
}

fn sha256(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut out = [0; 32];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(out)
}

fn identity(name: &str, tenants: &[String], rights_named: &[String]) -> Result<Arc<Identity>, String> {
    let tenants = tenant_set(tenants)?.ok_or("it has no tenants (`'*'` for all)")?;
    let rights = rights(rights_named)?;
    if rights == Rights::default() {
        return Err("it has no rights".into());
    }
    Ok(Arc::new(Identity { name: name.into(), tenants, rights }))
}

fn rights(names: &[String]) -> Result<Rights, String> {
    let right = |name: &String| {
        Right::named(name).ok_or_else(|| format!("{name:?} is no right: read, write, admin and metrics are"))
    };
    names.iter().map(right).collect()
}

#[cfg(test)]
mod tests {
    use model::identity::TenantSet;

    use super::*;

    #[test]
    fn grants_know_tokens_users_and_certificates() {
        let text = "
tokens:
  - {name: a, sha256: ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad, tenants: [a, b], rights: [write]}
users:
  - {name: g, tenants: ['*'], rights: [read, metrics]}
certificates:
  - {san: p.example, tenants: [a], rights: [write]}
issuers:
  - {issuer: 'https://i.example', audiences: [h], rights: [read]}
";
        let grants = parse(text, Path::new("/etc")).unwrap();
        let token = grants.of_token("abc").unwrap();
        assert_eq!((&*token.name, token.rights.write, token.rights.read), ("token a", true, false));
        assert!(grants.of_token("abd").is_none());
        assert_eq!(grants.of_user("g").unwrap().tenants, TenantSet::All);
        let names = ["x".to_owned(), "p.example".to_owned()];
        assert!(grants.of_certificate(&names).is_some() && grants.of_certificate(&names[..1]).is_none());
        assert_eq!(grants.issuers[0].tenants_claim, "tenants");
    }

    #[test]
    fn grants_that_are_wrong_say_what_and_show_no_hash() {
        for (text, told) in [
            ("tokens: [{name: a, sha256: abcd, tenants: [a], rights: [read]}]", "64 hexadecimal digits"),
            ("users: [{name: a, tenants: [], rights: [read]}]", "no tenants"),
            ("users: [{name: a, tenants: ['../x'], rights: [read]}]", "not a valid name"),
            ("users: [{name: a, tenants: [x], rights: [root]}]", "is no right"),
            ("users: [{name: a, tenants: [x], rights: []}]", "no rights"),
            ("users: [{name: a, tenants: [x], rights: [read], extra: 1}]", "extra"),
            ("issuers: [{issuer: 'http://i', audiences: [h], rights: [read]}]", "https://"),
            ("issuers: [{issuer: 'https://i', audiences: [], rights: [read]}]", "audiences"),
            ("issuers: [{issuer: 'https://i', audiences: [h]}]", "rights"),
        ] {
            let why = parse(text, Path::new("")).err().unwrap();
            assert!(why.contains(told) && !why.contains("abcd"), "{text}: {why}");
        }
    }
}
