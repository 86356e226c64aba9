//! What a request needs, by its method and path.
//!
//! What is named nowhere needs the most, so a route that somebody adds is closed until it is named here.

use axum::http::Method;
use members::routes::ASK;
use model::identity::Right;
use query::api::federates;
use query::ui::PAGES;

/// What has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Anybody may have it: health, and the files of the page, which show nothing by themselves.
    Nothing,
    /// A right over the tenants of the request.
    Tenant(Right),
    /// A right over the whole process: over all tenants.
    Process(Right),
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub need: Need,
    /// Whether several tenants may be asked at once.
    pub federates: bool,
}

/// Of a request, with its path as routes see it.
pub fn of(method: &Method, path: &str) -> Access {
    let need = match path {
        // What browsers ask of origins carries no credentials.
        _ if *method == Method::OPTIONS => Need::Nothing,
        "/-/healthy" | "/-/ready" => Need::Nothing,
        // Members show a secret of their own, which the route asks for.
        ASK => Need::Nothing,
        "/metrics" => Need::Process(Right::Metrics),
        "/version" => Need::Tenant(Right::Read),
        "/federate" => Need::Tenant(Right::Read),
        "/runtime_config" => Need::Process(Right::Read),
        _ if is_page(path) => Need::Nothing,
        _ => of_api(method, path),
    };
    // Of changes, only a query of several tenants can be called off for all of them.
    let may = matches!(need, Need::Tenant(Right::Read)) || *method == Method::DELETE;
    Access { need, federates: may && federates(path) }
}

/// Of paths that are an API's.
fn of_api(method: &Method, path: &str) -> Need {
    let looks = matches!(*method, Method::GET | Method::HEAD);
    // Mimir's configuration of rules: all of these paths.
    for rules in ["/prometheus/config/v1/rules", "/config/v1/rules", "/api/prom/rules", "/api/v1/rules/"] {
        if path.starts_with(rules) {
            return Need::Tenant(if looks { Right::Read } else { Right::Admin });
        }
    }
    let Some(api) = path.strip_prefix("/api/v1/") else { return Need::Process(Right::Admin) };
    match api {
        "write" | "push" => Need::Tenant(Right::Write),
        _ if api.starts_with("otlp/") => Need::Tenant(Right::Write),
        // A copy of everything.
        "admin/tsdb/snapshot" => Need::Process(Right::Admin),
        _ if api.starts_with("admin/tsdb/") => Need::Tenant(Right::Admin),
        // They show settings, metrics and jobs of all tenants.
        "status/config" | "status/flags" | "status/self_metrics" | "status/compaction" => {
            Need::Process(Right::Read)
        }
        _ if is_question(api) || (looks && !api.starts_with("admin")) => Need::Tenant(Right::Read),
        _ => Need::Tenant(Right::Admin),
    }
}

/// Paths below `/api/v1/` that are asked with POST as well, and change nothing.
fn is_question(api: &str) -> bool {
    const QUESTIONS: [&str; 10] = [
        "query",
        "query_range",
        "query_exemplars",
        "explain",
        "estimate",
        "format_query",
        "parse_query",
        "series",
        "labels",
        "read",
    ];
    QUESTIONS.contains(&api) || api.starts_with("search/")
}

/// The page and its files.
fn is_page(path: &str) -> bool {
    let Some(name) = path.strip_prefix('/') else { return false };
    name.is_empty()
        || name == "graph"
        || name == "favicon.ico"
        || PAGES.contains(&name)
        || name.strip_prefix("ui/").is_some_and(|file| !file.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_is_by_method_and_path() {
        let need = |method: Method, path: &str| of(&method, path).need;
        for (method, path, expected) in [
            (Method::GET, "/-/ready", Need::Nothing),
            (Method::GET, "/query", Need::Nothing),
            (Method::GET, "/ui/index.js", Need::Nothing),
            (Method::OPTIONS, "/api/v1/write", Need::Nothing),
            (Method::POST, "/api/v1/write", Need::Tenant(Right::Write)),
            (Method::GET, "/api/v1/query", Need::Tenant(Right::Read)),
            (Method::POST, "/api/v1/query_range", Need::Tenant(Right::Read)),
            (Method::GET, "/api/v1/label/job/values", Need::Tenant(Right::Read)),
            (Method::GET, "/api/v1/rules", Need::Tenant(Right::Read)),
            (Method::GET, "/api/v1/rules/ns", Need::Tenant(Right::Read)),
            (Method::POST, "/api/v1/rules/ns", Need::Tenant(Right::Admin)),
            (Method::DELETE, "/config/v1/rules/ns/g", Need::Tenant(Right::Admin)),
            (Method::DELETE, "/api/v1/queries/7", Need::Tenant(Right::Admin)),
            (Method::POST, "/api/v1/admin/tsdb/delete_series", Need::Tenant(Right::Admin)),
            (Method::POST, "/api/v1/admin/tsdb/snapshot", Need::Process(Right::Admin)),
            (Method::GET, "/api/v1/status/config", Need::Process(Right::Read)),
            (Method::GET, "/metrics", Need::Process(Right::Metrics)),
            (Method::POST, "/-/reload", Need::Process(Right::Admin)),
            (Method::POST, "/-/quit", Need::Process(Right::Admin)),
            (Method::GET, "/somewhere/new", Need::Process(Right::Admin)),
            (Method::PUT, "/api/v1/something/new", Need::Tenant(Right::Admin)),
        ] {
            assert_eq!(need(method.clone(), path), expected, "{method} {path}");
        }
        assert!(of(&Method::GET, "/api/v1/query").federates);
        assert!(!of(&Method::POST, "/api/v1/write").federates);
        assert!(!of(&Method::GET, "/api/v1/rules").federates);
        assert!(of(&Method::GET, "/api/v1/status/queries").federates);
        assert!(of(&Method::DELETE, "/api/v1/queries/7").federates);
        assert!(!of(&Method::DELETE, "/api/v1/rules/ns").federates);
    }
}
