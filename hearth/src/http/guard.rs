//! Which requests of browsers are turned away: changes that a page of another origin asks for, and names that
//! this server does not have.

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, header};
use model::matcher::Matcher;

/// Paths that POST asks something of and changes nothing by: Prometheus' clients send long queries so.
const ASKING: [&str; 15] = [
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/query_exemplars",
    "/api/v1/estimate",
    "/api/v1/explain",
    "/api/v1/format_query",
    "/api/v1/parse_query",
    "/api/v1/series",
    "/api/v1/labels",
    "/api/v1/metadata",
    "/api/v1/read",
    "/api/v1/search/metric_names",
    "/api/v1/search/label_names",
    "/api/v1/search/label_values",
    "/federate",
];

/// What the settings say of it.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Origins whose pages may change something besides those of this server; `None`: no others.
    pub write_origins: Option<Matcher>,
    /// Names under which requests may ask for this server; `None`: any.
    pub hosts: Option<Vec<String>>,
}

impl Guard {
    /// What is set, on an address to listen on. Where only this machine can connect, a name that is neither
    /// an address nor of this machine was made to point here by somebody else (DNS rebinding).
    pub fn new(write_origins: Option<Matcher>, allowed_hosts: &[String], listen_host: &str) -> Guard {
        let loopback = listen_host.eq_ignore_ascii_case("localhost")
            || listen_host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let hosts = (loopback || !allowed_hosts.is_empty()).then(|| allowed_hosts.to_vec());
        Guard { write_origins, hosts }
    }

    /// Why a request is turned away, if it is.
    pub fn refuses(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<String> {
        self.refuses_host(headers).or_else(|| self.refuses_change(method, path, headers))
    }

    fn refuses_host(&self, headers: &HeaderMap) -> Option<String> {
        let allowed = self.hosts.as_ref()?;
        let mut hosts = headers.get_all(header::HOST).iter();
        // Browsers always send one.
        let host = hosts.next()?;
        let text = host.to_str().unwrap_or("");
        let name = host_name(text);
        let own = name.parse::<IpAddr>().is_ok()
            // A name without a dot is nobody's in the public DNS.
            || (!name.contains('.') && !name.is_empty())
            || name.ends_with(".localhost")
            || allowed.iter().any(|a| a == "*" || a.eq_ignore_ascii_case(name));
        if own && hosts.next().is_none() {
            return None;
        }
        Some(format!(
            "this server does not answer to the name {name:?} (of the Host header): where that is meant, add it to http.allowed_hosts"
        ))
    }

    fn refuses_change(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<String> {
        let asks = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if asks || ASKING.contains(&path) || (path.starts_with("/api/v1/label/") && path.ends_with("/values"))
        {
            return None;
        }
        let of = |name| headers.get(name).map(|v| v.to_str().unwrap_or("?"));
        let (origin, site) = (of(header::ORIGIN.as_str()), of("sec-fetch-site"));
        let allowed = |origin: &str| self.write_origins.as_ref().is_some_and(|m| m.matches(origin));
        let foreign = match (origin, site) {
            // The browser's own word, which does not depend on what proxies make of names.
            (_, Some("same-origin" | "none")) => false,
            (Some(origin), None) => !is_same(origin, headers),
            (_, Some(_)) => true,
            // No browser.
            (None, None) => false,
        };
        if !foreign || origin.is_some_and(allowed) {
            return None;
        }
        Some(format!(
            "a page of another origin ({}) asked for a change, which is refused: where that is meant, allow it with http.write_origins",
            origin.unwrap_or("not told")
        ))
    }
}

/// Whether an origin is the server's own, as far as its name and port go: the scheme may be a proxy's.
fn is_same(origin: &str, headers: &HeaderMap) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("");
    let usual = |authority: &str| {
        let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
        authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase()
    };
    !host.is_empty() && usual(authority) == usual(host)
}

/// A Host header without its port and brackets.
fn host_name(host: &str) -> &str {
    let host = host.trim();
    if let Some(v6) = host.strip_prefix('[') {
        return v6.split(']').next().unwrap_or("");
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use model::matcher::MatchOp;

    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap())).collect()
    }

    #[test]
    fn guard_lets_browsers_of_other_origins_change_nothing() {
        let guard = Guard::default();
        let refused = |method: Method, path: &str, all: &[(&'static str, &str)]| {
            guard.refuses(&method, path, &headers(all)).is_some()
        };
        let (host, evil) = (("host", "hearth.example:9494"), ("origin", "http://evil.example"));
        for path in ["/api/v1/write", "/-/flush", "/api/v1/admin/tsdb/delete_series", "/api/v1/anything/new"]
        {
            assert!(refused(Method::POST, path, &[host, evil]), "{path}");
            assert!(refused(Method::POST, path, &[host, ("origin", "null")]), "{path}");
            assert!(refused(Method::PUT, path, &[host, ("sec-fetch-site", "cross-site")]), "{path}");
            assert!(refused(Method::DELETE, path, &[host, ("sec-fetch-site", "same-site")]), "{path}");
            assert!(!refused(Method::POST, path, &[host]), "no browser: {path}");
            assert!(
                !refused(Method::POST, path, &[host, ("origin", "http://hearth.example:9494")]),
                "{path}"
            );
            assert!(!refused(
                Method::POST,
                path,
                &[host, ("origin", "https://x.example"), ("sec-fetch-site", "same-origin")]
            ));
            assert!(refused(Method::POST, path, &[host, ("origin", "http://hearth.example:9495")]), "{path}");
        }
        assert!(!refused(Method::POST, "/api/v1/query", &[host, evil]));
        assert!(!refused(Method::GET, "/api/v1/label/job/values", &[host, evil]));
        assert!(!refused(Method::POST, "/-/flush", &[("host", "h"), ("origin", "http://h:80")]));
        let trusting = Guard {
            write_origins: Some(Matcher::new(MatchOp::Regex, "origin", "https://.*\\.example").unwrap()),
            hosts: None,
        };
        let of = |origin| trusting.refuses(&Method::POST, "/-/flush", &headers(&[host, ("origin", origin)]));
        assert_eq!(of("https://a.example"), None);
        assert!(of("https://a.example.evil").is_some());
    }

    #[test]
    fn guard_answers_to_no_foreign_name_on_a_loopback_address() {
        let of = |listen: &str, allowed: &[String], host: &str| {
            Guard::new(None, allowed, listen)
                .refuses(&Method::GET, "/", &headers(&[("host", host)]))
                .is_none()
        };
        for host in
            ["127.0.0.1:9494", "localhost", "LOCALHOST:1", "[::1]:9494", "x", "hearth:9494", "a.localhost"]
        {
            assert!(of("127.0.0.1", &[], host), "{host}");
        }
        for host in ["evil.example", "evil.example:9494", "127.0.0.1.evil.example", "localhost.evil.example."]
        {
            for listen in ["127.0.0.1", "::1", "localhost", "127.1.2.3"] {
                assert!(!of(listen, &[], host), "{host} on {listen}");
            }
            assert!(of("0.0.0.0", &[], host), "{host}");
            assert!(!of("0.0.0.0", &["metrics.example".into()], host), "{host}");
        }
        assert!(of("127.0.0.1", &["metrics.example".into()], "metrics.example:443"));
        assert!(of("127.0.0.1", &["*".into()], "evil.example"));
        assert!(Guard::new(None, &[], "::1").refuses(&Method::GET, "/", &HeaderMap::new()).is_none());
    }
}
