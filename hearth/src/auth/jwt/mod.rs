//! Tokens that an issuer signed: JWTs, with the issuer's keys kept fresh.
//!
//! 1. [`token`] takes one apart. It says which issuer it is of; only those of `auth.file` are looked at
//!    further.
//! 2. [`keys`] has what the issuer publishes: found by discovery, read again every five minutes, and at once
//!    (though not too often) where a token names a key that is not there.
//! 3. [`signature`] checks the token with that key. The key says which algorithms there are, not the token:
//!    `none` and those with a shared secret are never among them.
//! 4. Issuer, audience and times have to fit; claims say who it is, for which tenants, and what they may do.

mod keys;
mod signature;
mod token;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::clock::{Clock, SystemClock};
use model::identity::{Identity, Right, Rights};
use parking_lot::Mutex;

use self::keys::{Found, IssuerKeys};
use self::token::{Claims, Token};
use super::tenants::tenant_set;
use super::{Denied, Metrics};

/// An issuer as `auth.file` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// Its URL, which is the claim `iss`.
    pub issuer: String,
    /// One of them has to be among the claim `aud`.
    pub audiences: Vec<String>,
    /// Where its keys are; empty: where its discovery says.
    pub jwks_url: String,
    /// Authorities for both; empty: the system's.
    pub ca_file: PathBuf,
    pub allow_http: bool,
    pub tenants_claim: String,
    pub name_claim: String,
    /// Empty: all tokens have `rights`.
    pub rights_claim: String,
    pub rights: Rights,
    /// How far clocks may differ.
    pub leeway: Duration,
}

/// The issuers' keys.
pub struct Issuers {
    known: Mutex<Vec<Arc<IssuerKeys>>>,
    metrics: Metrics,
}

/// How often it is looked whether keys are old.
const LOOK_EVERY: Duration = Duration::from_secs(15);

impl Issuers {
    pub fn new(metrics: Metrics) -> Issuers {
        Issuers { known: Mutex::default(), metrics }
    }

    /// The keys of an issuer, which outlive a change of the file that leaves it as it is.
    fn of(&self, config: &IssuerConfig) -> Arc<IssuerKeys> {
        let mut known = self.known.lock();
        if let Some(keys) = known.iter().find(|keys| keys.config == *config) {
            return keys.clone();
        }
        known.retain(|keys| keys.config.issuer != config.issuer);
        let keys = Arc::new(IssuerKeys::new(config.clone(), self.metrics.clone()));
        known.push(keys.clone());
        keys
    }

    /// Reads keys before they are old, for ever. `configs` are the issuers of the moment.
    pub async fn keep_fresh(&self, configs: impl Fn() -> Arc<[IssuerConfig]>) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let configs = configs();
            self.known.lock().retain(|keys| configs.contains(&keys.config));
            for config in configs.iter() {
                self.of(config).refresh_if_old().await;
            }
        }
    }

    /// Whose token it is.
    pub async fn identify(&self, configs: &[IssuerConfig], text: &str) -> Result<Arc<Identity>, Denied> {
        let parts = text.split('.').count();
        if configs.is_empty() || parts != 3 {
            return Err(Denied::unauthorized("token", "the token is not known here"));
        }
        let wrong = |reason: &str| Denied::unauthorized("jwt", format!("the token {reason}"));
        let token = Token::parse(text).map_err(|e| wrong(&e.to_string()))?;
        let issuer = token.claims.text("iss").unwrap_or_default();
        let config = configs.iter().find(|config| config.issuer == issuer);
        let config = config.ok_or_else(|| wrong("is not one of an issuer that is known here"))?;
        let key = match self.of(config).find(token.header.kid.as_deref()).await {
            Found::Key(key) => key,
            Found::NoSuchKey => return Err(wrong("is signed with a key that its issuer does not have")),
            Found::Unavailable => {
                return Err(Denied::busy("the keys of the token's issuer cannot be read now: try again"));
            }
        };
        key.verify(&token.header.alg, token.signed.as_bytes(), &token.signature)
            .map_err(|e| wrong(&e.to_string()))?;
        let now_s = SystemClock.now_ms() / 1000;
        token.claims.check(config, now_s).map_err(|e| wrong(&e.to_string()))?;
        identity(config, &token.claims)
    }
}

/// What the claims of a token that is right say.
fn identity(config: &IssuerConfig, claims: &Claims) -> Result<Arc<Identity>, Denied> {
    let name: String = claims.text(&config.name_claim).unwrap_or("?").chars().take(200).collect();
    let no = |what: &str| Denied::forbidden("unknown", format!("the token of {name:?} {what}"));
    let tenants = tenant_set(&claims.words(&config.tenants_claim));
    let tenants = tenants.map_err(|_| no("names a tenant that cannot be one"))?;
    let tenants =
        tenants.ok_or_else(|| no(&format!("names no tenants (claim {:?})", config.tenants_claim)))?;
    let rights: Rights = match config.rights_claim.as_str() {
        "" => config.rights,
        claim => {
            let named = claims.words(claim);
            let named = named.iter().map(|word| word.strip_prefix("hearth:").unwrap_or(word));
            named.filter_map(Right::named).collect()
        }
    };
    Ok(Arc::new(Identity { name: format!("jwt {name}").into(), tenants, rights }))
}

#[cfg(test)]
mod tests;
