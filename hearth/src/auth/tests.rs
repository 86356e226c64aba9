//! Who is let in by which credential, and for which tenants.

use axum::http::HeaderValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::tenant::TenantId;

use super::*;

const GRANTS: &str = "
tokens:
  - {name: w, sha256: 50e721e49c013f00c62cf59f2163542a9d8df02464efeb615d31051b0fddc326, tenants: [a], rights: [write]}
  - {name: all, sha256: 6dcd4ce23d88e2ee9568ba546c007c63d9131c1b5a1e1f0e8d6cb7b0f8a4a9d1, tenants: ['*'], rights: [read]}
users:
  - {name: ann, tenants: [a, b], rights: [read]}
certificates:
  - {san: p.example, tenants: [b], rights: [write, metrics]}
";

struct Files(tempfile::TempDir);

impl Files {
    fn write(name: &str, text: &str, files: Option<Files>) -> Files {
        let files = files.unwrap_or_else(|| Files(tempfile::tempdir().unwrap()));
        std::fs::write(files.0.path().join(name), text).unwrap();
        files
    }

    fn web(&self) -> LiveFile<WebConfig> {
        crate::web_config::open(&self.0.path().join("web.yml")).unwrap()
    }

    fn grants(&self) -> LiveFile<Grants> {
        grants::open(&self.0.path().join("auth.yml")).unwrap()
    }
}

fn passwords() -> String {
    let hash = |password| bcrypt::hash(password, 4).unwrap();
    format!("basic_auth_users:\n  ann: {}\n  bob: {}\n", hash("one"), hash("two"))
}

fn auth(web: Option<LiveFile<WebConfig>>, grants: Option<LiveFile<Grants>>) -> Auth {
    let headers = TenantHeaders { names: tenants::USUAL.to_vec(), required: false };
    Auth::new(Parts { web, grants, headers, ..Parts::default() }, &mut Registry::default())
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap())).collect()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

async fn asked(
    auth: &Auth,
    method: Method,
    path: &str,
    pairs: &[(&'static str, &str)],
) -> Result<Caller, u16> {
    auth.admit(&method, path, &headers(pairs), None).await.map_err(|denied| denied.status.as_u16())
}

#[tokio::test]
async fn auth_lets_everybody_do_everything_where_nothing_is_set() {
    let auth = auth(None, None);
    for path in ["/api/v1/query", "/metrics", "/-/reload", "/api/v1/admin/tsdb/delete_series"] {
        let caller = asked(&auth, Method::POST, path, &[]).await.unwrap();
        assert_eq!(caller.tenants.one(), Some(&TenantId::single()));
    }
    let caller = asked(&auth, Method::GET, "/api/v1/query", &[("x-scope-orgid", "a|b")]).await.unwrap();
    assert_eq!(caller.tenants.to_string(), "a|b", "whoever may do everything may name anybody");
    for ignored in ["Basic dTpwOnc=", "Bearer x", "Digest x"] {
        let shown = [("authorization", ignored)];
        assert!(asked(&auth, Method::GET, "/api/v1/query", &shown).await.is_ok(), "{ignored}");
    }
}

#[tokio::test]
async fn passwords_are_asked_for_everywhere_as_upstream_does() {
    let files = Files::write("web.yml", &passwords(), None);
    let auth = auth(Some(files.web()), None);
    for path in ["/", "/-/healthy", "/metrics", "/api/v1/query"] {
        assert_eq!(asked(&auth, Method::GET, path, &[]).await.unwrap_err(), 401, "{path}");
        let right = basic("ann", "one");
        let caller = asked(&auth, Method::GET, path, &[("authorization", &right)]).await.unwrap();
        assert_eq!(&*caller.identity.name, "user ann");
        for wrong in [basic("ann", "two"), basic("eve", "one"), "Bearer x".into()] {
            let refused = asked(&auth, Method::GET, path, &[("authorization", &wrong)]).await;
            assert_eq!(refused.unwrap_err(), 401, "{path} {wrong}");
        }
    }
}

#[tokio::test]
async fn grants_bind_identities_to_tenants_and_rights() {
    // The hashes of the two tokens.
    let hash = |token: &str| {
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        digest.as_ref().iter().map(|b| format!("{b:02x}")).collect::<String>()
    };
    let text = GRANTS
        .replace("50e721e49c013f00c62cf59f2163542a9d8df02464efeb615d31051b0fddc326", &hash("writer"))
        .replace("6dcd4ce23d88e2ee9568ba546c007c63d9131c1b5a1e1f0e8d6cb7b0f8a4a9d1", &hash("reader"));
    let files = Files::write("auth.yml", &text, None);
    let auth = auth(None, Some(files.grants()));
    let (org, bearer) = ("x-scope-orgid", "authorization");
    let (writer, reader) = ("Bearer writer", "Bearer reader");
    let (write, query) = ("/api/v1/write", "/api/v1/query");
    let caller = asked(&auth, Method::POST, write, &[(bearer, writer)]).await.unwrap();
    assert_eq!((caller.tenants.to_string(), &*caller.identity.name), ("a".into(), "token w"));
    let caller = asked(&auth, Method::GET, query, &[(bearer, reader), (org, "x|y")]).await.unwrap();
    assert_eq!(caller.tenants.to_string(), "x|y");
    for (method, path, pairs, expected) in [
        (Method::POST, write, vec![], 401),
        (Method::POST, write, vec![(bearer, "Bearer other")], 401),
        (Method::POST, write, vec![(bearer, writer), (org, "b")], 403),
        (Method::GET, query, vec![(bearer, writer)], 403),
        (Method::POST, write, vec![(bearer, reader), (org, "a")], 403),
        (Method::POST, "/-/reload", vec![(bearer, reader)], 403),
        (Method::GET, "/metrics", vec![(bearer, writer)], 403),
        (Method::GET, "/metrics", vec![], 401),
        (Method::GET, query, vec![(bearer, reader), (org, "a/b")], 400),
        (Method::GET, "/api/v1/rules", vec![(bearer, reader), (org, "a|b")], 400),
    ] {
        let refused = asked(&auth, method.clone(), path, &pairs).await;
        assert_eq!(refused.unwrap_err(), expected, "{method} {path} {pairs:?}");
    }
    assert!(asked(&auth, Method::GET, "/-/ready", &[]).await.is_ok(), "probes need nothing");
    assert!(asked(&auth, Method::GET, "/metrics", &[(bearer, reader)]).await.is_ok());

    let certificate = |name: &str| ClientCertificate([name.to_owned()].into());
    let by = |name: &str, path: &'static str| {
        let (auth, certificate) = (auth.clone(), certificate(name));
        async move {
            let admitted = auth.admit(&Method::POST, path, &HeaderMap::new(), Some(&certificate)).await;
            admitted.map(|c| c.tenants.to_string()).map_err(|d| d.status.as_u16())
        }
    };
    assert_eq!(by("p.example", write).await, Ok("b".into()));
    assert_eq!(by("p.example", query).await, Err(403));
    assert_eq!(by("q.example", write).await, Err(403));

    // A token that was taken away is gone with the next look at the file.
    std::fs::write(files.0.path().join("auth.yml"), "tokens: []\n").unwrap();
    auth.0.grants.as_ref().unwrap().refresh();
    assert_eq!(asked(&auth, Method::POST, write, &[(bearer, writer)]).await.unwrap_err(), 401);
}

#[tokio::test]
async fn users_have_the_rights_of_their_grants() {
    let files = Files::write("auth.yml", GRANTS, Some(Files::write("web.yml", &passwords(), None)));
    let auth = auth(Some(files.web()), Some(files.grants()));
    let (ann, bob) = (basic("ann", "one"), basic("bob", "two"));
    let query = "/api/v1/query";
    let of = |who: &str, tenant: &str| {
        let (auth, who, tenant) = (auth.clone(), who.to_owned(), tenant.to_owned());
        async move {
            let pairs = [("authorization", who.as_str()), ("x-scope-orgid", tenant.as_str())];
            asked(&auth, Method::GET, query, &pairs).await.map(|c| c.tenants.to_string())
        }
    };
    assert_eq!(of(&ann, "b").await, Ok("b".into()));
    assert_eq!(of(&ann, "*").await, Ok("a|b".into()));
    assert_eq!(of(&ann, "c").await, Err(403));
    assert_eq!(of(&bob, "a").await, Err(403), "a password alone gives no rights here");
    assert_eq!(asked(&auth, Method::GET, query, &[("authorization", &ann)]).await.unwrap_err(), 400);
    assert_eq!(asked(&auth, Method::GET, "/-/healthy", &[]).await.unwrap_err(), 401);
    let denied = auth.admit(&Method::GET, query, &HeaderMap::new(), None).await.unwrap_err();
    let challenges: Vec<_> = auth.challenges(&denied).into_iter().map(|(_, value)| value).collect();
    assert_eq!(challenges, ["Basic", "Bearer"]);
}
