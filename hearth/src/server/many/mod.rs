//! This process as one of several on a bucket: what it shows the others, what it refuses because another role
//! does it, and the role that only answers queries.

mod addresses;
mod membership;
mod querier;
mod storage;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use members::roster::Member;
use members::routes::Tokens;
use model::clock::Clock;
use parking_lot::Mutex;

use self::addresses::Addresses;
pub use self::membership::Membership;
pub use self::querier::serve;
use super::memory_limit::MemoryPlan;
use super::names;
use crate::config::Settings;
use crate::config::value::Role;
use crate::secrets::read_secret;

/// How long the members' token is taken as it was read.
const TOKEN_FRESH: Duration = Duration::from_secs(5);

/// How long the token before is good as well: processes read their files at different times, and Kubernetes
/// takes about a minute to bring a secret to all of them.
const TOKEN_BEFORE: Duration = Duration::from_secs(600);

/// What is wrong with settings that do not go with the role; the text says what to do.
pub fn check(settings: &Settings) -> Result<(), String> {
    let role = settings.role;
    let has_token = !settings.members_token_file.0.as_os_str().is_empty();
    Addresses::of(settings)?;
    if tls::is_asked_for(settings) {
        tls::client(settings)?;
    }
    if has_token {
        read_secret("members.token_file", &settings.members_token_file.0)?;
    }
    if role == Role::All {
        return match has_token {
            false => Ok(()),
            true => Err("members.token_file: a process of the role `all` answers out of itself alone and asks no others. Start processes of the roles ingest and query instead (role)".into()),
        };
    }
    let loopback = settings.listen.host.eq_ignore_ascii_case("localhost")
        || settings.listen.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let asks = [&settings.auth_file, &settings.web_config_file].iter().any(|f| !f.0.as_os_str().is_empty());
    if role == Role::Ingest && !has_token && (!loopback || asks) {
        return Err(format!(
            "members.token_file: a process of the role `ingest` answers other members, and on {} strangers reach it too: name a file with a secret that all members have",
            settings.listen
        ));
    }
    let has_rules = !settings.rule_files.0.is_empty() || settings.rules_config_api;
    match role {
        Role::Rules if !has_rules => Err(
            "role: a process of the role `rules` has none to evaluate: name files with rules.files, or let tenants keep theirs in the bucket with rules.config_api".into(),
        ),
        Role::Rules => Ok(()),
        _ if has_rules || settings.rules_share => Err(format!(
            "rules.*: rules have to read all samples and to write some, and a process of the role `{role}` does only one of these: start one of the role `rules` with these settings"
        )),
        _ => Ok(()),
    }
}

/// What was read of the members' token.
struct TokenRead {
    at: Instant,
    token: String,
    /// The one before, and when it was replaced.
    before: Option<(String, Instant)>,
}

impl TokenRead {
    fn first(token: String) -> TokenRead {
        TokenRead { at: Instant::now(), token, before: None }
    }

    fn replaced(self, token: String) -> TokenRead {
        let now = Instant::now();
        let before = match token == self.token {
            true => self.before.filter(|(_, since)| since.elapsed() < TOKEN_BEFORE),
            false => Some((self.token, now)),
        };
        TokenRead { at: now, token, before }
    }

    fn all(&self) -> Vec<String> {
        std::iter::once(&self.token).chain(self.before.iter().map(|(token, _)| token)).cloned().collect()
    }
}

/// What members show one another: the file's text, read again every few seconds, and for a while what it was
/// before. A file that cannot be read for the moment leaves what was read before.
fn tokens(settings: &Settings) -> Tokens {
    let path: PathBuf = settings.members_token_file.0.clone();
    if path.as_os_str().is_empty() {
        return Arc::new(Vec::new);
    }
    let read: Mutex<Option<TokenRead>> = Mutex::default();
    Arc::new(move || {
        let mut read = read.lock();
        if read.as_ref().is_none_or(|read| read.at.elapsed() > TOKEN_FRESH) {
            *read = Some(match (read_secret("members.token_file", &path), read.take()) {
                (Ok(token), None) => TokenRead::first(token),
                (Ok(token), Some(before)) => before.replaced(token),
                (Err(why), before) => {
                    tracing::warn!("{why}");
                    // Nobody knows a token that was never read.
                    before.map_or_else(
                        || TokenRead::first(ulid::Ulid::new().to_string()),
                        |before| TokenRead { at: Instant::now(), ..before },
                    )
                }
            });
        }
        read.as_ref().map_or_else(Vec::new, TokenRead::all)
    })
}

/// What this process says of itself, before anything is owed.
pub fn member(settings: &Settings, name: &str, address: SocketAddr, clock: &dyn Clock) -> Member {
    let given = settings.members_advertise.with_secrets().trim_end_matches('/');
    let url = if given.is_empty() { names::own_url(settings, address) } else { given.to_owned() };
    Member {
        zone: settings.members_zone.clone(),
        replica_group: settings.members_replica_group.clone(),
        started_ms: clock.now_ms(),
        interval_ms: u64::try_from(settings.members_interval.0.as_millis()).unwrap_or(u64::MAX),
        hearth: env!("CARGO_PKG_VERSION").to_owned(),
        ..Member::new(name, &settings.role.to_string(), &url)
    }
}

/// The route by which other members read what this process has not flushed.
pub fn router(settings: &Settings, db: &Arc<tsdb::db::Db>) -> axum::Router {
    let answerer = members::answer::Answerer {
        db: db.clone(),
        memory: model::source::MemoryPool::new(MemoryPlan::of(settings).queries),
        longest: settings.query_timeout.0,
    };
    members::routes::router(answerer, tokens(settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        for (key, value) in pairs {
            let option = crate::config::TABLE.iter().find(|o| o.key == *key).unwrap();
            (option.set)(&mut settings, value).unwrap();
        }
        settings
    }

    #[test]
    fn role_refuses_settings_that_it_cannot_live_up_to() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "secret\n").unwrap();
        let file = file.to_str().unwrap();
        for good in [
            with(&[]),
            with(&[("role", "ingest")]),
            with(&[("role", "ingest"), ("listen", ":1"), ("members.token_file", file)]),
            with(&[("role", "query"), ("listen", ":1"), ("members.addresses", "a=http://b:1")]),
            with(&[("role", "rules"), ("rules.files", "a.yml"), ("rules.write_urls", "http://b:1")]),
        ] {
            assert_eq!(check(&good), Ok(()), "{}", good.role);
        }
        for (bad, says) in [
            (with(&[("role", "ingest"), ("listen", ":1")]), "strangers"),
            (with(&[("members.token_file", file)]), "asks no others"),
            (with(&[("role", "query"), ("members.token_file", "/nowhere/x")]), "cannot be read"),
            (with(&[("role", "query"), ("rules.files", "a.yml")]), "rules have to read all"),
            (with(&[("role", "rules")]), "has none to evaluate"),
            (with(&[("role", "query"), ("members.addresses", "a")]), "NAME=URL"),
        ] {
            let why = check(&bad).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn token_is_read_again_and_outlives_its_file_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "one\n").unwrap();
        let of = tokens(&with(&[("members.token_file", file.to_str().unwrap())]));
        assert_eq!(of(), ["one"]);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(of(), ["one"]);
        assert!(tokens(&Settings::default())().is_empty());
        // The others may not have read the new one yet.
        let read = TokenRead::first("one".into()).replaced("two".into()).replaced("two".into());
        assert_eq!(read.all(), ["two", "one"]);
        assert_eq!(read.replaced("three".into()).all(), ["three", "two"]);
    }
}
