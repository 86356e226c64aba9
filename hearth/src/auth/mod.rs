//! Who asks, and for whom: the one place where a request gets its identity, for writes, queries and changes
//! alike. The life of that question:
//!
//! 1. [`access`] says by method and path what a request needs: a right, over its tenants or over the process.
//! 2. [`mod@credential`] reads what it shows: a user with a password, a bearer token, or the certificate
//!    of its connection.
//! 3. [`passwords`] compares with the bcrypt hashes of `web.config_file`; [`grants`] has the file of
//!    `auth.file`, with the hashes of tokens and who may do what; [`jwt`] checks tokens that an issuer
//!    signed. What comes out is a [`model::identity::Identity`].
//! 4. [`tenants`] reads the header that names tenants, and checks each against the identity.
//! 5. Both go beside the request as a [`model::identity::Caller`], which is all that routes look at.
//! 6. [`audit`] writes down what was asked of the admin API, and with which result.
//!
//! Without a file and without passwords everybody may do everything, as in Prometheus.

pub mod access;
pub mod audit;
mod credential;
pub mod grants;
mod jwt;
mod metrics;
mod passwords;
pub mod tenants;

use std::sync::Arc;
use std::time::Instant;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use model::identity::{Caller, Identity, Right};
use prometheus_client::registry::Registry;

use access::{Access, Need};
use audit::AuditLog;
use credential::{Credential, credential};
use grants::Grants;
use jwt::Issuers;
pub use metrics::Metrics;
use passwords::{Passwords, Verdict};
use tenants::TenantHeaders;

use crate::live_file::{LiveFile, LiveFileMetrics};
use crate::web_config::WebConfig;

/// Names in the certificate of a connection, checked against the authorities of `web.config_file`: the
/// listener puts them beside each request.
#[derive(Clone)]
pub struct ClientCertificate(pub Arc<[String]>);

/// What every request is asked. Cheap to clone.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    web: Option<LiveFile<WebConfig>>,
    grants: Option<LiveFile<Grants>>,
    headers: TenantHeaders,
    passwords: Passwords,
    issuers: Issuers,
    audit: AuditLog,
    metrics: Metrics,
}

/// What [`Auth`] is made of.
#[derive(Default)]
pub struct Parts {
    pub web: Option<LiveFile<WebConfig>>,
    pub grants: Option<LiveFile<Grants>>,
    pub headers: TenantHeaders,
    pub audit: AuditLog,
}

/// Why a request is refused before it reaches a route.
#[derive(Debug)]
pub struct Denied {
    pub status: StatusCode,
    /// One sentence for the client, without anything it did not know.
    pub reason: String,
    /// What it is counted as.
    kind: &'static str,
    /// Whether the client should be asked for a credential.
    challenge: bool,
}

impl Denied {
    pub(in crate::auth) fn new(status: StatusCode, kind: &'static str, reason: impl Into<String>) -> Denied {
        Denied { status, reason: reason.into(), kind, challenge: status == StatusCode::UNAUTHORIZED }
    }

    pub(in crate::auth) fn unauthorized(kind: &'static str, reason: impl Into<String>) -> Denied {
        Denied::new(StatusCode::UNAUTHORIZED, kind, reason)
    }

    pub(in crate::auth) fn forbidden(kind: &'static str, reason: impl Into<String>) -> Denied {
        Denied::new(StatusCode::FORBIDDEN, kind, reason)
    }

    /// It cannot be decided now: senders try again, and lose nothing.
    pub(in crate::auth) fn busy(reason: impl Into<String>) -> Denied {
        Denied::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", reason)
    }
}

impl Auth {
    pub fn new(parts: Parts, registry: &mut Registry) -> Auth {
        let metrics = Metrics::register(registry);
        Auth(Arc::new(Inner {
            web: parts.web,
            grants: parts.grants,
            headers: parts.headers,
            passwords: Passwords::default(),
            issuers: Issuers::new(metrics.clone()),
            audit: parts.audit,
            metrics,
        }))
    }

    /// Everybody may do everything, for the one tenant.
    #[cfg(test)]
    pub fn open() -> Auth {
        Auth::new(Parts::default(), &mut Registry::default())
    }

    /// Reads files again while they change, and the issuers' keys before they are old. Needs a runtime.
    pub fn watch(&self, metrics: &LiveFileMetrics) {
        self.0.web.iter().for_each(|file| file.watch(metrics));
        if let Some(grants) = &self.0.grants {
            grants.watch(metrics);
            let (auth, grants) = (self.clone(), grants.clone());
            tokio::spawn(async move { auth.0.issuers.keep_fresh(|| grants.get().issuers.clone()).await });
        }
    }

    /// What `web.config_file` says now.
    pub fn web_config(&self) -> Option<Arc<WebConfig>> {
        self.0.web.as_ref().map(LiveFile::get)
    }

    /// Where calls of the admin API are written down.
    pub fn audit(&self) -> &AuditLog {
        &self.0.audit
    }

    /// Whether the limit of `web.config_file` lets another request pass.
    pub fn lets_pass(&self) -> bool {
        let limit = self.web_config().and_then(|web| web.rate_limit.clone());
        limit.is_none_or(|limit| limit.lets_pass(Instant::now()))
    }

    /// Who asks and for whom, or why the answer is no.
    pub async fn admit(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Caller, Denied> {
        let admitted = self.decide(method, path, headers, certificate).await;
        if let Err(denied) = &admitted {
            self.0.metrics.denied(denied.kind);
            tracing::debug!(status = denied.status.as_u16(), path, "request refused: {}", denied.reason);
        }
        admitted
    }

    async fn decide(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Caller, Denied> {
        let access = access::of(method, path);
        let identity = match path {
            // What they show is no credential of this server's.
            members::routes::ASK => Identity::anybody().into(),
            _ => self.identify(headers, certificate, access).await?,
        };
        allowed(&identity, access)?;
        let tenants = match access.need {
            Need::Nothing | Need::Process(_) => tenants::unnamed(&identity),
            Need::Tenant(_) => tenants::named(&self.0.headers, headers, &identity, access.federates)?,
        };
        Ok(Caller { identity, tenants })
    }

    /// Whose credential it is.
    async fn identify(
        &self,
        headers: &HeaderMap,
        certificate: Option<&ClientCertificate>,
        access: Access,
    ) -> Result<Arc<Identity>, Denied> {
        let web = self.web_config();
        let users = web.as_ref().map(|web| &web.users).filter(|users| !users.is_empty());
        let grants = self.0.grants.as_ref().map(LiveFile::get);
        let by_certificate = |names: &[String]| match &grants {
            None => Some(Identity { name: name_of_certificate(names), ..Identity::anybody() }.into()),
            Some(grants) => grants.of_certificate(names),
        };
        if users.is_none() && grants.is_none() {
            // As upstream: where nobody is asked, what is shown is not looked at.
            let known = certificate.and_then(|c| by_certificate(&c.0));
            return Ok(known.unwrap_or_else(|| Identity::anybody().into()));
        }
        match credential(headers)? {
            Some(Credential::Basic { user, password }) => {
                let none = Default::default();
                match self.0.passwords.check(users.unwrap_or(&none), &user, &password).await {
                    Verdict::Right => {}
                    Verdict::Wrong => return Err(Denied::unauthorized("password", "wrong user or password")),
                    Verdict::Busy => return Err(Denied::busy("too many logins at once: try again")),
                }
                match &grants {
                    None => {
                        Ok(Identity { name: format!("user {user}").into(), ..Identity::anybody() }.into())
                    }
                    Some(grants) => grants.of_user(&user).ok_or_else(|| {
                        Denied::forbidden("unknown", format!("the user {user:?} has no rights here"))
                    }),
                }
            }
            Some(Credential::Bearer(token)) => match &grants {
                Some(grants) => match grants.of_token(&token) {
                    Some(identity) => Ok(identity),
                    None => self.0.issuers.identify(&grants.issuers, &token).await,
                },
                None => Err(Denied::unauthorized("token", "this server takes no tokens")),
            },
            None => match certificate.and_then(|c| by_certificate(&c.0)) {
                Some(identity) => Ok(identity),
                // Upstream asks for passwords everywhere, health checks included.
                None if users.is_some() => Err(Denied::unauthorized("missing", "Unauthorized")),
                None if access.need == Need::Nothing => Ok(Identity::anybody().into()),
                None if certificate.is_some() => {
                    Err(Denied::forbidden("unknown", "the client's certificate has no rights here"))
                }
                None => Err(Denied::unauthorized("missing", "this needs a token or a password")),
            },
        }
    }

    /// The header of a `401` that says which credentials are taken.
    pub fn challenges(&self, denied: &Denied) -> Vec<(HeaderName, HeaderValue)> {
        if !denied.challenge {
            return Vec::new();
        }
        let users = self.web_config().is_some_and(|web| !web.users.is_empty());
        let basic = users.then_some("Basic");
        let bearer = self.0.grants.is_some().then_some("Bearer");
        let named = basic.into_iter().chain(bearer);
        named.map(|scheme| (header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme))).collect()
    }
}

/// Whether the identity may do that.
fn allowed(identity: &Identity, access: Access) -> Result<(), Denied> {
    let rights = identity.rights;
    let of_all = identity.tenants == model::identity::TenantSet::All;
    let fine = match access.need {
        Need::Nothing => true,
        Need::Tenant(right) => rights.allow(right),
        Need::Process(Right::Metrics) => rights.metrics || (rights.read && of_all),
        Need::Process(right) => rights.allow(right) && of_all,
    };
    match access.need {
        _ if fine => Ok(()),
        Need::Process(right) if rights.allow(right) => Err(Denied::forbidden(
            "right",
            format!("{} may not do this: it concerns all tenants", identity.name),
        )),
        Need::Tenant(right) | Need::Process(right) => {
            Err(Denied::forbidden("right", format!("{} has no right to {}", identity.name, right.as_str())))
        }
        Need::Nothing => Ok(()),
    }
}

fn name_of_certificate(names: &[String]) -> Arc<str> {
    match names.first() {
        Some(name) => format!("certificate {name}").into(),
        None => "certificate".into(),
    }
}

#[cfg(test)]
mod tests;
