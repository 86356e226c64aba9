//! The configuration API of Mimir and Cortex: tenants read and write their own groups, as mimirtool and
//! Grafana do.
//!
//! Its paths are `/prometheus/config/v1/rules…`, `/config/v1/rules…` (what Grafana makes of a data source's
//! URL), Cortex' older `/api/prom/rules…`, and its `/api/v1/rules/…` with a namespace behind, where it does
//! not collide with Prometheus' own.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use model::tenant::TenantId;
use query::api::TenantResolver;
use query::parse::ParseOptions;

use super::store::{MAX_NAME_BYTES, RuleStore, StoreError, Stored};
use crate::file::{FileOptions, parse_group, quoted, write_group};

/// Largest group that is taken.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Groups that a tenant may have.
const MAX_GROUPS: usize = 10_000;
/// Rules that a group may have.
const MAX_RULES: usize = 1_000;

/// What the routes need.
#[derive(Clone)]
pub struct ConfigApi {
    pub store: Arc<dyn RuleStore>,
    pub tenants: TenantResolver,
    pub parse: ParseOptions,
    /// Told after each change, so that it is in force at once.
    pub changed: Arc<dyn Fn(TenantId) + Send + Sync>,
}

/// The routes.
pub fn router(api: ConfigApi) -> Router {
    let mut router = Router::new();
    for prefix in ["/prometheus/config/v1/rules", "/config/v1/rules", "/api/prom/rules"] {
        router = router.route(prefix, get(all));
    }
    for prefix in ["/prometheus/config/v1/rules", "/config/v1/rules", "/api/prom/rules", "/api/v1/rules"] {
        router = router
            .route(
                &format!("{prefix}/{{namespace}}"),
                get(of_namespace).post(put_group).delete(delete_namespace),
            )
            .route(&format!("{prefix}/{{namespace}}/{{group}}"), get(one).delete(delete_group));
    }
    router.layer(DefaultBodyLimit::max(MAX_BODY_BYTES)).with_state(api)
}

/// A refusal, in plain text as Mimir's.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let text = format!("{}\n", self.1);
        (self.0, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
    }
}

fn bad(text: impl Into<String>) -> Refused {
    Refused(StatusCode::BAD_REQUEST, text.into())
}

fn unavailable(why: StoreError) -> Refused {
    Refused(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("the rules' store does not answer, nothing was changed: {why}"),
    )
}

fn missing(what: &str) -> Refused {
    Refused(StatusCode::NOT_FOUND, what.to_owned())
}

/// As Mimir answers to what it will do.
fn accepted() -> Response {
    let body = r#"{"status":"success","data":null,"errorType":"","error":""}"#;
    (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn yaml(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/yaml")], text).into_response()
}

/// Whose rules a request is about.
struct Tenant(TenantId);

impl FromRequestParts<ConfigApi> for Tenant {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, api: &ConfigApi) -> Result<Tenant, Refused> {
        let tenants = (api.tenants)(parts).map_err(|e| Refused(e.status(), e.text))?;
        let one = tenants.one().cloned();
        one.map(Tenant).ok_or_else(|| bad("rules are kept and changed for one tenant at a time"))
    }
}

impl ConfigApi {
    async fn stored(&self, tenant: &TenantId) -> Result<Stored, Refused> {
        self.store.list(tenant).await.map_err(unavailable)
    }
}

/// Namespaces with their groups.
fn write_stored(stored: &Stored, parse: &ParseOptions) -> String {
    let options = FileOptions { mimir_keys: true, strict: false, parse: *parse };
    let mut out = String::new();
    for (namespace, groups) in stored {
        out += &format!("{}:\n", quoted(namespace));
        for text in groups.values() {
            // It was checked before it was stored; what another version wrote and this one cannot read is
            // left out.
            if let Ok(group) = parse_group(text, &options) {
                let mut shown = String::new();
                write_group(&mut shown, &group, 6);
                shown.replace_range(4..6, "- ");
                out += &shown;
            }
        }
    }
    if out.is_empty() { "{}\n".into() } else { out }
}

async fn all(State(api): State<ConfigApi>, Tenant(tenant): Tenant) -> Result<Response, Refused> {
    let stored = api.stored(&tenant).await?;
    Ok(yaml(write_stored(&stored, &api.parse)))
}

async fn of_namespace(
    State(api): State<ConfigApi>,
    Tenant(tenant): Tenant,
    Path(namespace): Path<String>,
) -> Result<Response, Refused> {
    let mut stored = api.stored(&tenant).await?;
    stored.retain(|name, _| *name == namespace);
    if stored.is_empty() {
        return Err(missing("no rule groups found"));
    }
    Ok(yaml(write_stored(&stored, &api.parse)))
}

async fn one(
    State(api): State<ConfigApi>,
    Tenant(tenant): Tenant,
    Path((namespace, group)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let stored = api.stored(&tenant).await?;
    let text = stored
        .get(&namespace)
        .and_then(|groups| groups.get(&group))
        .ok_or_else(|| missing("group does not exist"))?;
    let options = FileOptions { mimir_keys: true, strict: false, parse: api.parse };
    let mut shown = String::new();
    if let Ok(group) = parse_group(text, &options) {
        write_group(&mut shown, &group, 0);
    }
    Ok(yaml(shown))
}

async fn put_group(
    State(api): State<ConfigApi>,
    Tenant(tenant): Tenant,
    Path(namespace): Path<String>,
    body: Bytes,
) -> Result<Response, Refused> {
    let text = std::str::from_utf8(&body).map_err(|_| bad("the body is not UTF-8"))?;
    let options = FileOptions { mimir_keys: true, strict: true, parse: api.parse };
    let group = parse_group(text, &options)
        .map_err(|errors| bad(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    for (what, name) in [("namespace", namespace.as_str()), ("group's name", group.name.as_str())] {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(bad(format!(
                "the {what} has {} bytes: 1 to {MAX_NAME_BYTES} are allowed",
                name.len()
            )));
        }
    }
    if group.rules.len() > MAX_RULES {
        return Err(bad(format!("the group has {} rules: {MAX_RULES} are allowed", group.rules.len())));
    }
    let stored = api.stored(&tenant).await?;
    let is_new = !stored.get(&namespace).is_some_and(|groups| groups.contains_key(&group.name));
    if is_new && stored.values().map(|groups| groups.len()).sum::<usize>() >= MAX_GROUPS {
        return Err(bad(format!("the tenant has {MAX_GROUPS} groups, more are not allowed")));
    }
    let mut canonical = String::new();
    write_group(&mut canonical, &group, 0);
    api.store.put(&tenant, &namespace, &group.name, canonical).await.map_err(unavailable)?;
    (api.changed)(tenant);
    Ok(accepted())
}

async fn delete_group(
    State(api): State<ConfigApi>,
    Tenant(tenant): Tenant,
    Path((namespace, group)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let stored = api.stored(&tenant).await?;
    if !stored.get(&namespace).is_some_and(|groups| groups.contains_key(&group)) {
        return Err(missing("group does not exist"));
    }
    api.store.delete(&tenant, &namespace, &group).await.map_err(unavailable)?;
    (api.changed)(tenant);
    Ok(accepted())
}

async fn delete_namespace(
    State(api): State<ConfigApi>,
    Tenant(tenant): Tenant,
    Path(namespace): Path<String>,
) -> Result<Response, Refused> {
    let stored = api.stored(&tenant).await?;
    let groups = stored.get(&namespace).ok_or_else(|| missing("group namespace does not exist"))?;
    for group in groups.keys() {
        api.store.delete(&tenant, &namespace, group).await.map_err(unavailable)?;
    }
    (api.changed)(tenant);
    Ok(accepted())
}

#[cfg(test)]
mod tests;
