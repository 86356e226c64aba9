//! Who may ask what, as the settings say, and how the roles learn it of a request.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::request::Parts;
use ingest::http::TenantRefused;
use model::identity::{Caller, Tenants};
use prometheus_client::registry::Registry;
use query::api::ApiError;

use crate::auth::audit::AuditLog;
use crate::auth::tenants::{TenantHeaders, USUAL};
use crate::auth::{self, Auth, grants};
use crate::config::Settings;
use crate::live_file::LiveFileMetrics;
use crate::web_config;

/// Reads the files that the settings name, and has them read again while they change. Needs a runtime.
pub fn auth(settings: &Settings, registry: &mut Registry) -> Result<Auth, String> {
    let named = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
    let web = named(&settings.web_config_file.0).map(|path| web_config::open(&path)).transpose()?;
    let grants = named(&settings.auth_file.0).map(|path| grants::open(&path)).transpose()?;
    let asks = grants.is_some() || web.as_ref().is_some_and(|web| !web.get().users.is_empty());
    check_tenant_header(settings, asks)?;
    let mut headers = TenantHeaders {
        names: settings.tenant_header.0.iter().cloned().collect(),
        required: settings.tenant_header.0.is_some(),
    };
    if grants.is_some() {
        headers
            .names
            .extend(USUAL.into_iter().filter(|name| settings.tenant_header.0.as_ref() != Some(name)));
    }
    let audit = AuditLog::to(named(&settings.auth_audit_file.0));
    let auth = Auth::new(auth::Parts { web, grants, headers, audit }, registry);
    auth.watch(&LiveFileMetrics::register(registry));
    Ok(auth)
}

/// Whoever can send a header could name any tenant: that is fine on one's own machine, and where a proxy in
/// front sets the header.
fn check_tenant_header(settings: &Settings, asks: bool) -> Result<(), String> {
    let host = &settings.listen.host;
    let loopback = host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match &settings.tenant_header.0 {
        Some(header) if !asks && !loopback && !settings.auth_trust_tenant_header => Err(format!(
            "tenant_header: whoever reaches {} could name any tenant in {header}: say in auth.file who may act for which, or set auth.trust_tenant_header where a proxy in front sets the header and lets no client's through",
            settings.listen
        )),
        _ => Ok(()),
    }
}

/// The tenants of a request for the query API.
pub fn tenants_of_query(parts: &Parts) -> Result<Tenants, ApiError> {
    match parts.extensions.get::<Caller>() {
        Some(caller) => Ok(caller.tenants.clone()),
        None => Err(ApiError::bad_data(UNKNOWN).with_status(StatusCode::UNAUTHORIZED)),
    }
}

/// The tenant of a write.
pub fn tenant_of_write(parts: &Parts) -> Result<model::tenant::TenantId, TenantRefused> {
    let caller = parts.extensions.get::<Caller>();
    let tenant = caller.and_then(|caller| caller.tenants.one()).cloned();
    tenant.ok_or_else(|| TenantRefused { status: StatusCode::UNAUTHORIZED, reason: UNKNOWN.into() })
}

/// No request comes here without: it would have gone around the one place that lets requests in.
const UNKNOWN: &str = "nobody said who sends this request";

/// The resolvers that the roles get.
pub fn resolvers() -> (ingest::http::TenantResolver, query::api::TenantResolver) {
    (Arc::new(tenant_of_write), Arc::new(tenants_of_query))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TABLE;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        for (key, value) in pairs {
            let option = TABLE.iter().find(|o| o.key == *key).expect("a key of the table");
            (option.set)(&mut settings, value).expect("a value of its kind");
        }
        settings
    }

    #[test]
    fn tenant_header_alone_is_believed_on_this_machine_or_behind_a_proxy() {
        let header = ("tenant_header", "X-Scope-OrgID");
        let check =
            |more: &[(&str, &str)], asks| check_tenant_header(&settings(&[&[header], more].concat()), asks);
        assert!(check(&[], false).is_ok());
        let open = ("listen", ":9494");
        assert!(check(&[open], false).unwrap_err().contains("auth.trust_tenant_header"));
        assert!(check(&[open], true).is_ok());
        assert!(check(&[open, ("auth.trust_tenant_header", "true")], false).is_ok());
        assert!(check_tenant_header(&settings(&[open]), false).is_ok());
    }
}
