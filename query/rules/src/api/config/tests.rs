//! The configuration API over a store in memory.

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use query::api::single_tenant;
use tower::ServiceExt;

use super::*;
use crate::api::store::Pending;

#[derive(Default)]
struct Memory(Mutex<Stored>);

impl RuleStore for Memory {
    fn tenants(&self) -> Pending<'_, Vec<TenantId>> {
        Box::pin(async { Ok(vec![TenantId::single()]) })
    }

    fn list<'a>(&'a self, _: &'a TenantId) -> Pending<'a, Stored> {
        Box::pin(async { Ok(self.0.lock().clone()) })
    }

    fn put<'a>(
        &'a self,
        _: &'a TenantId,
        namespace: &'a str,
        group: &'a str,
        text: String,
    ) -> Pending<'a, ()> {
        Box::pin(async move {
            self.0.lock().entry(namespace.into()).or_default().insert(group.into(), text);
            Ok(())
        })
    }

    fn delete<'a>(&'a self, _: &'a TenantId, namespace: &'a str, group: &'a str) -> Pending<'a, ()> {
        Box::pin(async move {
            let mut all = self.0.lock();
            if let Some(groups) = all.get_mut(namespace) {
                groups.remove(group);
                if groups.is_empty() {
                    all.remove(namespace);
                }
            }
            Ok(())
        })
    }
}

fn api() -> (Router, Arc<Mutex<u32>>) {
    let changes = Arc::new(Mutex::new(0));
    let counted = changes.clone();
    let api = ConfigApi {
        store: Arc::new(Memory::default()),
        tenants: single_tenant(),
        parse: ParseOptions::default(),
        changed: Arc::new(move |_| *counted.lock() += 1),
    };
    (router(api), changes)
}

async fn ask(router: &Router, method: &str, path: &str, body: &str) -> (u16, String) {
    let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

const GROUP: &str = "name: my group
interval: 1m
rules:
    - record: job:up
      expr: \"sum by (job) (up)\"
    - alert: A
      expr: up == 0
      for: 5m
      labels: {severity: page}
      annotations: {text: '{{ $labels.x }}: yes'}
";

#[tokio::test]
async fn groups_are_written_read_and_deleted_as_mimirtool_does() {
    let (router, changes) = api();
    let base = "/prometheus/config/v1/rules";
    assert_eq!(ask(&router, "GET", base, "").await, (200, "{}\n".into()));
    let (status, body) = ask(&router, "POST", &format!("{base}/my%2Fspace"), GROUP).await;
    assert_eq!((status, body.contains(r#""status":"success""#)), (202, true));
    assert_eq!(*changes.lock(), 1);
    let (_, all) = ask(&router, "GET", "/config/v1/rules", "").await;
    let root = crate::file::yaml::read(&all).unwrap().unwrap();
    let spaces = root.fields("").unwrap();
    assert_eq!(spaces.keys().collect::<Vec<_>>(), ["my/space"], "{all}");
    let groups = spaces["my/space"].1.items("").unwrap().len();
    assert_eq!(groups, 1);
    let (status, one) = ask(&router, "GET", &format!("{base}/my%2Fspace/my%20group"), "").await;
    assert_eq!(status, 200);
    let read = |text: &str| parse_group(text, &FileOptions::default()).unwrap();
    assert_eq!(read(&one), read(GROUP), "{one}");
    // Cortex' paths are the same rules.
    assert_eq!(ask(&router, "GET", "/api/v1/rules/my%2Fspace", "").await.1, all);
    assert_eq!(
        ask(&router, "DELETE", &format!("{base}/my%2Fspace/other"), "").await,
        (404, "group does not exist\n".into())
    );
    assert_eq!(ask(&router, "DELETE", &format!("{base}/my%2Fspace/my%20group"), "").await.0, 202);
    assert_eq!(ask(&router, "GET", &format!("{base}/my%2Fspace"), "").await.0, 404);
    assert_eq!(
        ask(&router, "DELETE", &format!("{base}/my%2Fspace"), "").await,
        (404, "group namespace does not exist\n".into())
    );
    assert_eq!(*changes.lock(), 2);
}

#[tokio::test]
async fn group_that_is_wrong_is_refused_and_changes_nothing() {
    let (router, changes) = api();
    for (body, want) in [
        ("", "there is no rule group in it"),
        ("name: ''\nrules: []\n", "Groupname must not be empty"),
        ("name: g\nrules: [{record: r, expr: 'sum('}]\n", "could not parse expression"),
        ("name: g\nsource_tenants: [x]\n", "source_tenants"),
        ("name: g\nwhat: x\n", "field what not found"),
    ] {
        let (status, text) = ask(&router, "POST", "/config/v1/rules/ns", body).await;
        assert_eq!(status, 400, "{text}");
        assert!(text.contains(want), "{text}\nshould hold\n{want}");
    }
    let rules: String = (0..1001).map(|i| format!("- {{record: r{i}, expr: '1'}}\n")).collect();
    let (status, text) =
        ask(&router, "POST", "/config/v1/rules/ns", &format!("name: g\nrules:\n{rules}")).await;
    assert!(status == 400 && text.contains("1000 are allowed"), "{text}");
    let long = "x".repeat(300);
    assert_eq!(ask(&router, "POST", &format!("/config/v1/rules/{long}"), GROUP).await.0, 400);
    assert_eq!(ask(&router, "POST", "/config/v1/rules/ns", &"#".repeat(2 << 20)).await.0, 413);
    assert_eq!(*changes.lock(), 0);
}
