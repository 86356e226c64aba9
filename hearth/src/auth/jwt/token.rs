//! A token in its parts (RFC 7519, the compact form of RFC 7515), and whether its claims fit.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::IssuerConfig;

/// Why a token is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("cannot be read")]
    Malformed,
    #[error("asks for a way of reading it that is not known here")]
    Critical,
    #[error("has expired")]
    Expired,
    #[error("does not say when it expires")]
    Endless,
    #[error("is not valid yet")]
    Early,
    #[error("is for another audience")]
    Audience,
}

/// What stands before the claims.
#[derive(Deserialize)]
pub struct Header {
    pub alg: String,
    /// The name of the key that it is signed with.
    pub kid: Option<String>,
    crit: Option<Value>,
}

/// A token that nobody has checked.
pub struct Token<'a> {
    pub header: Header,
    pub claims: Claims,
    /// What the signature is of.
    pub signed: &'a str,
    pub signature: Vec<u8>,
}

/// What a token says.
pub struct Claims(Map<String, Value>);

impl Token<'_> {
    /// Takes a token apart.
    pub fn parse(text: &str) -> Result<Token<'_>, TokenError> {
        let malformed = TokenError::Malformed;
        let Some((signed, signature)) = text.rsplit_once('.') else { return Err(malformed) };
        let Some((header, claims)) = signed.split_once('.') else { return Err(malformed) };
        let [header, claims, signature] =
            [header, claims, signature].map(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let (Some(header), Some(claims), Some(signature)) = (header, claims, signature) else {
            return Err(malformed);
        };
        let Ok(header) = serde_json::from_slice::<Header>(&header) else { return Err(malformed) };
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let Ok(claims) = serde_json::from_slice(&claims) else { return Err(malformed) };
        Ok(Token { header, claims: Claims(claims), signed, signature })
    }
}

impl Claims {
    pub fn text(&self, claim: &str) -> Option<&str> {
        self.0.get(claim)?.as_str()
    }

    /// The texts of a claim: a list, or one text with blanks between them as `scope` has it.
    pub fn words(&self, claim: &str) -> Vec<String> {
        match self.0.get(claim) {
            Some(Value::String(text)) => text.split_whitespace().map(str::to_owned).collect(),
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether audience and times fit, at that second since 1970. The issuer is known to fit already.
    pub fn check(&self, config: &IssuerConfig, now_s: i64) -> Result<(), TokenError> {
        let (now, leeway) = (now_s as f64, config.leeway.as_secs_f64());
        let time = |claim: &str| match self.0.get(claim) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or(TokenError::Malformed),
        };
        let expires = time("exp")?.ok_or(TokenError::Endless)?;
        if now - leeway >= expires {
            return Err(TokenError::Expired);
        }
        if time("nbf")?.is_some_and(|from| now + leeway < from) {
            return Err(TokenError::Early);
        }
        let audiences: Vec<&str> = match self.0.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        match config.audiences.iter().any(|wanted| audiences.contains(&wanted.as_str())) {
            true => Ok(()),
            false => Err(TokenError::Audience),
        }
    }
}
