//! Signatures of tokens, with ring (RFC 7518), and the keys for them as issuers publish them (RFC 7517).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;

/// Why a signature is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("is signed with an algorithm that its key is not for")]
    Algorithm,
    #[error("has a wrong signature")]
    Wrong,
}

/// A public key.
pub struct Key {
    /// What tokens call it.
    pub id: Option<String>,
    /// The one algorithm it is for, where its issuer says so.
    only: Option<String>,
    public: PublicKey,
}

enum PublicKey {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// As ring takes it: the point of the curve.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// The fields of a published key that are looked at.
#[derive(Deserialize)]
pub struct Published {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    used_for: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Key {
    /// The key, if tokens can be checked with it: public, for signatures, and of a kind that ring knows. A
    /// shared secret (`oct`) is nothing that anybody publishes.
    pub fn published(key: &Published) -> Option<Key> {
        if key.used_for.as_ref().is_some_and(|used_for| used_for != "sig") {
            return None;
        }
        let bytes = |field: &Option<String>| URL_SAFE_NO_PAD.decode(field.as_deref()?).ok();
        let public = match (key.kty.as_str(), key.crv.as_deref()) {
            ("RSA", _) => PublicKey::Rsa { modulus: bytes(&key.n)?, exponent: bytes(&key.e)? },
            ("EC", Some("P-256")) => PublicKey::P256(point(&bytes(&key.x)?, &bytes(&key.y)?, 32)?),
            ("EC", Some("P-384")) => PublicKey::P384(point(&bytes(&key.x)?, &bytes(&key.y)?, 48)?),
            ("OKP", Some("Ed25519")) => PublicKey::Ed25519(bytes(&key.x)?),
            _ => return None,
        };
        Some(Key { id: key.kid.clone(), only: key.alg.clone(), public })
    }

    /// Checks a signature by the algorithm of that name, which has to be one of this key's.
    pub fn verify(&self, algorithm: &str, signed: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        if self.only.as_ref().is_some_and(|only| only != algorithm) {
            return Err(SignatureError::Algorithm);
        }
        let by = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(signed, signature)
        };
        let verified = match (&self.public, algorithm) {
            (PublicKey::Rsa { modulus, exponent }, name) => {
                let parameters = rsa(name).ok_or(SignatureError::Algorithm)?;
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(parameters, signed, signature)
            }
            (PublicKey::P256(point), "ES256") => by(&signature::ECDSA_P256_SHA256_FIXED, point),
            (PublicKey::P384(point), "ES384") => by(&signature::ECDSA_P384_SHA384_FIXED, point),
            (PublicKey::Ed25519(key), "EdDSA" | "Ed25519") => by(&signature::ED25519, key),
            _ => return Err(SignatureError::Algorithm),
        };
        verified.map_err(|_| SignatureError::Wrong)
    }
}

/// Algorithms of RSA keys, all of at least 2,048 bits.
fn rsa(name: &str) -> Option<&'static RsaParameters> {
    Some(match name {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
        "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// An uncompressed point, whose coordinates are `len` bytes long.
fn point(x: &[u8], y: &[u8], len: usize) -> Option<Vec<u8>> {
    (x.len() == len && y.len() == len).then(|| [&[4], x, y].concat())
}
