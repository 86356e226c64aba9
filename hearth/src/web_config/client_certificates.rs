//! What is asked of a client's certificate: `client_auth_type`, authorities, and the names that it may have.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

use super::subject_names::subject_names;

/// Go's names of policies, which the file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    None,
    /// A certificate may come, and is not checked.
    Request,
    /// One must come, and is not checked.
    RequireAny,
    VerifyIfGiven,
    RequireAndVerify,
}

impl ClientAuth {
    pub fn named(name: &str) -> Result<ClientAuth, String> {
        match name {
            "" | "NoClientCert" => Ok(ClientAuth::None),
            "RequestClientCert" => Ok(ClientAuth::Request),
            "RequireAnyClientCert" | "RequireClientCert" => Ok(ClientAuth::RequireAny),
            "VerifyClientCertIfGiven" => Ok(ClientAuth::VerifyIfGiven),
            "RequireAndVerifyClientCert" => Ok(ClientAuth::RequireAndVerify),
            other => Err(format!(
                "client_auth_type: {other:?} is none of NoClientCert, RequestClientCert, RequireAnyClientCert, VerifyClientCertIfGiven and RequireAndVerifyClientCert"
            )),
        }
    }

    /// Whether a certificate that is there can be believed.
    pub fn verifies(self) -> bool {
        matches!(self, ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify)
    }
}

/// What rustls asks clients by; `None` for no certificate. `authorities` are those of the file.
pub fn verifier(
    auth: ClientAuth,
    authorities: Option<RootCertStore>,
    allowed_names: Option<&[String]>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    if authorities.is_some() && auth == ClientAuth::None {
        return Err("client CAs are configured and client_auth_type asks for no certificate: set it, most likely to RequireAndVerifyClientCert".into());
    }
    if allowed_names.is_some() && !matches!(auth, ClientAuth::RequireAny | ClientAuth::RequireAndVerify) {
        return Err("client_allowed_sans needs a certificate to look at: set client_auth_type to RequireAnyClientCert or RequireAndVerifyClientCert".into());
    }
    let verifier: Arc<dyn ClientCertVerifier> = match auth {
        ClientAuth::None => return Ok(None),
        ClientAuth::Request => Arc::new(Unchecked { mandatory: false, provider: provider.clone() }),
        ClientAuth::RequireAny => Arc::new(Unchecked { mandatory: true, provider: provider.clone() }),
        ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify => {
            let authorities = authorities.ok_or(
                "client certificates are to be verified and there is nothing to verify them by: set client_ca_file",
            )?;
            let builder =
                WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider.clone());
            let builder = match auth {
                ClientAuth::VerifyIfGiven => builder.allow_unauthenticated(),
                _ => builder,
            };
            builder.build().map_err(|e| format!("client_ca: {e}"))?
        }
    };
    Ok(Some(match allowed_names {
        Some(allowed) => Arc::new(AllowedNames { inner: verifier, allowed: allowed.to_vec() }),
        None => verifier,
    }))
}

/// Takes any certificate whose key the client has.
#[derive(Debug)]
struct Unchecked {
    mandatory: bool,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Unchecked {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes, of what another verifier takes, the certificates with a name of a list.
#[derive(Debug)]
struct AllowedNames {
    inner: Arc<dyn ClientCertVerifier>,
    allowed: Vec<String>,
}

impl ClientCertVerifier for AllowedNames {
    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(certificate, intermediates, now)?;
        let names = subject_names(certificate);
        match names.iter().any(|name| self.allowed.contains(name)) {
            true => Ok(verified),
            false => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
