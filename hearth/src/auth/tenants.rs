//! Which tenants a request is about: the header that names them, checked against the identity.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, StatusCode};
use model::identity::{Identity, TenantSet, Tenants};
use model::tenant::TenantId;

use super::Denied;

/// Tenants that one request may name.
const MOST_NAMED: usize = 1_000;

/// The headers that may name tenants: Mimir's and Cortex', and Thanos'.
pub const USUAL: [HeaderName; 2] =
    [HeaderName::from_static("x-scope-orgid"), HeaderName::from_static("thanos-tenant")];

/// Which headers name tenants, and whether one has to.
#[derive(Clone, Debug, Default)]
pub struct TenantHeaders {
    /// None: there is one tenant for all who may act for it.
    pub names: Vec<HeaderName>,
    /// Whether a request without any is refused where the identity has all tenants.
    pub required: bool,
}

/// Tenants by their names, `*` for all; `None` for none.
pub fn tenant_set(names: &[String]) -> Result<Option<TenantSet>, String> {
    if names.iter().any(|name| name == "*") {
        return Ok(Some(TenantSet::All));
    }
    let tenants: Result<BTreeSet<TenantId>, _> = names.iter().map(|name| TenantId::new(name)).collect();
    let tenants = tenants.map_err(|e| e.to_string())?;
    Ok((!tenants.is_empty()).then_some(TenantSet::Only(tenants)))
}

/// Of a request that names none, or is about none.
pub fn unnamed(identity: &Identity) -> Tenants {
    match &identity.tenants {
        TenantSet::Only(tenants) => {
            tenants.first().cloned().map_or(Tenants::One(TenantId::single()), Tenants::One)
        }
        TenantSet::All => Tenants::One(TenantId::single()),
    }
}

/// Those of a request's headers, all of which the identity may act for.
pub fn named(
    headers: &TenantHeaders,
    request: &HeaderMap,
    identity: &Identity,
    federates: bool,
) -> Result<Tenants, Denied> {
    let bad = |reason: String| Denied::new(StatusCode::BAD_REQUEST, "tenant", reason);
    match header_value(headers, request).map_err(bad)? {
        None => by_default(headers, identity),
        Some((name, value)) => {
            let tenants = parse(value, &identity.tenants, federates).map_err(|why| match why {
                Wrong::Malformed(why) => bad(format!("{name}: {why}")),
                Wrong::Foreign(tenant) => Denied::forbidden(
                    "tenant",
                    format!("{} may not act for the tenant {:?}", identity.name, tenant.as_str()),
                ),
            })?;
            Ok(tenants)
        }
    }
}

/// The header that names tenants, if there is one; two that differ are nobody's word.
fn header_value<'a>(
    headers: &TenantHeaders,
    request: &'a HeaderMap,
) -> Result<Option<(HeaderName, &'a str)>, String> {
    let mut found: Option<(HeaderName, &str)> = None;
    for name in &headers.names {
        let mut values = request.get_all(name).iter();
        let Some(value) = values.next() else { continue };
        if values.next().is_some() {
            // Which of them a proxy checked is anybody's guess.
            return Err(format!("the request has more than one {name} header"));
        }
        let value = value.to_str().map_err(|_| format!("the {name} header is not ASCII"))?;
        match &found {
            Some((first, other)) if *other != value => {
                return Err(format!("the headers {first} and {name} name different tenants"));
            }
            Some(_) => {}
            None => found = Some((name.clone(), value)),
        }
    }
    Ok(found)
}

fn by_default(headers: &TenantHeaders, identity: &Identity) -> Result<Tenants, Denied> {
    let shown = headers.names.first().map_or("tenant", HeaderName::as_str);
    match &identity.tenants {
        TenantSet::All if headers.required => Err(Denied {
            challenge: false,
            ..Denied::unauthorized("tenant", format!("no tenant: the request has no {shown} header"))
        }),
        TenantSet::All => Ok(Tenants::One(TenantId::single())),
        TenantSet::Only(tenants) => match (tenants.first(), tenants.len()) {
            (Some(only), 1) => Ok(Tenants::One(only.clone())),
            _ => Err(Denied::new(
                StatusCode::BAD_REQUEST,
                "tenant",
                format!(
                    "no tenant: {} has several, and the header {shown} says for which of them",
                    identity.name
                ),
            )),
        },
    }
}

enum Wrong {
    Malformed(String),
    Foreign(TenantId),
}

/// Reads `a`, `a|b` or `*`.
fn parse(value: &str, allowed: &TenantSet, federates: bool) -> Result<Tenants, Wrong> {
    let several = || Wrong::Malformed("this is about one tenant, and the header names several".into());
    if value == "*" {
        return match allowed {
            _ if !federates => Err(several()),
            TenantSet::All => Ok(Tenants::Every),
            TenantSet::Only(tenants) => Ok(Tenants::Federated(tenants.iter().cloned().collect())),
        };
    }
    if value.split('|').count() > MOST_NAMED {
        return Err(Wrong::Malformed(format!("at most {MOST_NAMED} tenants can be asked at once")));
    }
    let mut tenants = BTreeSet::new();
    for name in value.split('|') {
        if name == "*" {
            return Err(Wrong::Malformed("* is all tenants and stands alone".into()));
        }
        let tenant = TenantId::new(name).map_err(|e| Wrong::Malformed(e.to_string()))?;
        if !allowed.contains(&tenant) {
            return Err(Wrong::Foreign(tenant));
        }
        tenants.insert(tenant);
    }
    match (tenants.pop_first(), tenants.is_empty()) {
        (Some(only), true) => Ok(Tenants::One(only)),
        _ if !federates => Err(several()),
        (first, _) => Ok(Tenants::Federated(first.into_iter().chain(tenants).collect::<Arc<[_]>>())),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use model::identity::Rights;

    use super::*;

    fn id(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn identity(tenants: &[&str]) -> Identity {
        let tenants = match tenants {
            ["*"] => TenantSet::All,
            names => TenantSet::Only(names.iter().map(|n| id(n)).collect()),
        };
        Identity { name: "token t".into(), tenants, rights: Rights::ALL }
    }

    fn headers(required: bool) -> TenantHeaders {
        TenantHeaders { names: USUAL.to_vec(), required }
    }

    fn request(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn asked(pairs: &[(&'static str, &str)], who: &[&str], federates: bool) -> Result<Tenants, u16> {
        named(&headers(true), &request(pairs), &identity(who), federates).map_err(|d| d.status.as_u16())
    }

    #[test]
    fn tenants_are_those_of_the_header_that_the_identity_has() {
        let org = "x-scope-orgid";
        assert_eq!(asked(&[(org, "a")], &["*"], false), Ok(Tenants::One(id("a"))));
        assert_eq!(asked(&[("thanos-tenant", "a")], &["a", "b"], false), Ok(Tenants::One(id("a"))));
        assert_eq!(asked(&[(org, "b|a|b")], &["*"], true), Ok(Tenants::Federated([id("a"), id("b")].into())));
        assert_eq!(asked(&[(org, "a|a")], &["*"], false), Ok(Tenants::One(id("a"))));
        assert_eq!(asked(&[(org, "*")], &["*"], true), Ok(Tenants::Every));
        assert_eq!(
            asked(&[(org, "*")], &["b", "a"], true),
            Ok(Tenants::Federated([id("a"), id("b")].into()))
        );
        assert_eq!(asked(&[], &["a"], false), Ok(Tenants::One(id("a"))));
        assert_eq!(asked(&[(org, "a"), ("thanos-tenant", "a")], &["a"], true), Ok(Tenants::One(id("a"))));
    }

    #[test]
    fn tenants_that_are_foreign_or_malformed_are_refused() {
        let org = "x-scope-orgid";
        assert_eq!(asked(&[(org, "c")], &["a"], true), Err(403));
        assert_eq!(asked(&[(org, "a|c")], &["a"], true), Err(403));
        assert_eq!(asked(&[(org, "a|b")], &["*"], false), Err(400));
        assert_eq!(asked(&[(org, "*")], &["*"], false), Err(400));
        assert_eq!(asked(&[(org, "a"), ("thanos-tenant", "b")], &["*"], true), Err(400));
        assert_eq!(asked(&[(org, "a"), (org, "a")], &["*"], true), Err(400));
        assert_eq!(asked(&[], &["a", "b"], true), Err(400));
        assert_eq!(asked(&[], &["*"], true), Err(401));
        let long = "x".repeat(10_000);
        let many = vec!["a"; 1_001].join("|");
        for name in [
            "*|*",
            "a|*",
            "*|a",
            "",
            "a/b",
            "..",
            "a||b",
            "|",
            "a\tb",
            "../../etc",
            "a\\b",
            "a b",
            &long,
            &many,
        ] {
            assert_eq!(asked(&[(org, name)], &["*"], true), Err(400), "{name:.20}");
        }
        let sentence = named(&headers(true), &request(&[(org, &long)]), &identity(&["*"]), true).unwrap_err();
        assert!(sentence.reason.len() < 400, "{}", sentence.reason.len());
    }
}
