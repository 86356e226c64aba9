//! What lies behind an error, kept below its sentence: whoever has to tell one failure from another looks
//! there and does not read text.

use std::error::Error;
use std::io;
use std::sync::Arc;

use object_store::Error as StoreError;
use rustls::AlertDescription;

/// The cause of an error. Shared, because one failure is told to everybody who waited for the same thing.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why something did not work: a text for whoever has to mend it, and whether it may pass by itself.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct AttemptError {
    text: String,
    passes: bool,
    #[source]
    cause: Option<Cause>,
}

impl AttemptError {
    /// Something that a person has to mend.
    pub fn mend(text: impl Into<String>) -> AttemptError {
        AttemptError { text: text.into(), passes: false, cause: None }
    }

    /// Something that may pass by itself: worth to be tried again.
    pub fn wait(text: impl Into<String>) -> AttemptError {
        AttemptError { text: text.into(), passes: true, cause: None }
    }

    /// Something that passes if its cause does, which the text tells already.
    pub fn because(text: impl Into<String>, cause: impl Error + Send + Sync + 'static) -> AttemptError {
        AttemptError { text: text.into(), passes: passes(&cause), cause: Some(Arc::new(cause)) }
    }

    /// The same with what caused it, which the text tells already.
    pub fn caused_by(self, cause: impl Error + Send + Sync + 'static) -> AttemptError {
        AttemptError { cause: Some(Arc::new(cause)), ..self }
    }

    /// The same with what caused it, where that is known.
    pub fn with(self, cause: Option<Cause>) -> AttemptError {
        AttemptError { cause, ..self }
    }

    /// Whether it may pass by itself.
    pub fn passes(&self) -> bool {
        self.passes
    }
}

/// An error, then what caused it, and so on. Nothing is passed over: of a shared error and of an error of
/// input or output, `source` tells what is below the one inside.
pub fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        if let Some(shared) = error.downcast_ref::<Cause>() {
            return Some(&**shared);
        }
        if let Some(shared) = error.downcast_ref::<Arc<StoreError>>() {
            return Some(&**shared);
        }
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inside) => Some(inside),
            None => error.source(),
        }
    })
}

/// Whether an error, or one that caused it, is what the object store said: it failed, which tells nothing of
/// what lies in it.
pub fn is_of_the_store(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|e| e.is::<StoreError>())
}

/// Whether an error may pass by itself. Refused credentials, a bucket that is not there and a certificate
/// that nobody knows do not, wherever in its causes they stand.
pub fn passes(error: &(dyn Error + 'static)) -> bool {
    !causes(error).any(|e| e.downcast_ref().is_some_and(stays) || e.downcast_ref().is_some_and(refuses))
}

/// Whether a certificate was refused, ours or the other side's: waiting makes none valid.
pub fn is_of_a_certificate(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|e| e.downcast_ref().is_some_and(refuses))
}

fn stays(e: &StoreError) -> bool {
    matches!(
        e,
        StoreError::NotFound { .. }
            | StoreError::InvalidPath { .. }
            | StoreError::NotSupported { .. }
            | StoreError::NotImplemented { .. }
            | StoreError::PermissionDenied { .. }
            | StoreError::Unauthenticated { .. }
            | StoreError::UnknownConfigurationKey { .. }
    )
}

fn refuses(e: &rustls::Error) -> bool {
    matches!(
        e,
        rustls::Error::InvalidCertificate(_)
            | rustls::Error::NoCertificatesPresented
            | rustls::Error::AlertReceived(
                AlertDescription::BadCertificate
                    | AlertDescription::UnsupportedCertificate
                    | AlertDescription::CertificateRevoked
                    | AlertDescription::CertificateExpired
                    | AlertDescription::CertificateUnknown
                    | AlertDescription::UnknownCA
                    | AlertDescription::CertificateRequired
            )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::CertificateError;

    #[derive(Debug, thiserror::Error)]
    #[error("a level")]
    struct Level(#[source] Cause);

    fn generic(cause: impl Error + Send + Sync + 'static) -> StoreError {
        StoreError::Generic { store: "S3", source: Box::new(cause) }
    }

    #[test]
    fn causes_reach_through_shared_errors_and_those_of_input_and_output() {
        let refused = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let io = io::Error::new(io::ErrorKind::InvalidData, refused);
        let deep = Level(Arc::new(Level(Arc::new(generic(io)))));
        assert!(is_of_the_store(&deep) && is_of_a_certificate(&deep) && !passes(&deep));
        assert!(!is_of_the_store(&Level(Arc::new(io::Error::other("disk")))));
    }

    #[test]
    fn error_passes_by_what_it_is_and_not_by_its_words() {
        let named = io::Error::other("cannot connect to certificate-store.example");
        assert!(passes(&generic(named)), "the word stands in a host's name");
        let alert = |a| io::Error::other(rustls::Error::AlertReceived(a));
        assert!(!passes(&generic(alert(AlertDescription::CertificateRequired))));
        assert!(passes(&generic(alert(AlertDescription::InternalError))));
        let denied = StoreError::PermissionDenied { path: "a/b".into(), source: "403".into() };
        assert!(!passes(&Level(Arc::new(denied))), "behind another error too");
    }
}
