//! Two tenants with samples, rules, deletions and queries of their own: every route that the API's
//! description names, and others, is asked by each of them in every way, and shows nothing of the other.

mod test_services;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use test_services::api::percent;
use test_services::remote_write::{bytes_field, series, snappy, varint, write_request};
use test_services::{Hearth, Start, now_ms, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// A tenant, and a word that stands in everything it stores and nowhere else.
#[derive(Clone, Copy)]
struct Side {
    tenant: &'static str,
    secret: &'static str,
    token: &'static str,
}

const NORTH: Side = Side { tenant: "northern-team", secret: "nightingale", token: "token-of-north" };
const SOUTH: Side = Side { tenant: "southern-team", secret: "sandpiper", token: "token-of-south" };
const ROOT: &str = "token-of-root";

/// Paths that show nothing of anybody and need nothing.
const OPEN: [&str; 2] = ["/-/healthy", "/-/ready"];

fn sha256(token: &str) -> String {
    digest(&SHA256, token.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn start(folder: &Path) -> Hearth {
    let mut grants = "tokens:\n".to_owned();
    for (token, tenant) in [(NORTH.token, NORTH.tenant), (SOUTH.token, SOUTH.tenant), (ROOT, "*")] {
        let metrics = if tenant == "*" { ", metrics" } else { "" };
        let hash = sha256(token);
        grants += &format!(
            "  - {{name: {token}, sha256: {hash}, tenants: ['{tenant}'], rights: [read, write, admin{metrics}]}}\n"
        );
    }
    std::fs::write(folder.join("auth.yml"), grants).expect("a file can be written");
    let mut limits = "overrides:\n".to_owned();
    let mut config = "tenant_header: X-Scope-OrgID
admin_api: true
enable_feature: [search-api]
http: {enable_lifecycle: true}
rules: {config_api: true, evaluation_interval: 1s}
auth: {file: auth.yml, audit_file: audit.jsonl}
limits: {file: limits.yaml}
self_metrics_interval: 1s
"
    .to_owned();
    let (mut times, mut rules) = (String::new(), String::new());
    for side in [NORTH, SOUTH] {
        limits += &format!(
            "  {}:\n    max_total_query_length: 90d\n    blocked_queries: [{{pattern: {}_blocked, reason: no}}]\n",
            side.tenant, side.secret
        );
        times += &format!("  - {}=300d\n", side.tenant);
        rules += &format!("  - '{}{{job=\"{}\"}}=200d'\n", side.tenant, side.secret);
    }
    config += &format!("retention_tenants:\n{times}retention_rules:\n{rules}");
    std::fs::write(folder.join("limits.yaml"), limits).expect("a file can be written");
    Start::at(folder).config(&config).ready()
}

/// One request on a connection of its own, sent as it stands: no client mends the path or a header. Status 0
/// where there was no answer.
fn ask(hearth: &Hearth, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(hearth.address()).expect("a connection");
    // One route streams for ever.
    let patience = if target.contains("/live") { Duration::from_millis(300) } else { PATIENCE };
    stream.set_read_timeout(Some(patience)).expect("a timeout");
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n", body.len());
    let sent = stream.write_all(request.as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = Vec::new();
    let _ = sent.and_then(|()| stream.read_to_end(&mut answer).map(|_| ()));
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, answer)
}

/// With a token, for a tenant if one is given.
fn ask_as(
    hearth: &Hearth,
    token: &str,
    tenant: Option<&str>,
    method: &str,
    target: &str,
    body: (&str, &[u8]),
) -> (u16, String) {
    let bearer = format!("Bearer {token}");
    let mut headers = vec![("Authorization", bearer.as_str())];
    headers.extend(tenant.map(|tenant| ("X-Scope-OrgID", tenant)));
    if !body.0.is_empty() {
        headers.push(("Content-Type", body.0));
    }
    ask(hearth, method, target, &headers, body.1)
}

const FORM: &str = "application/x-www-form-urlencoded";

/// What a side sends: series, one with labels that the other has as well, with an exemplar and metadata.
fn samples(side: Side, value: f64, at_ms: i64) -> Vec<u8> {
    let name = format!("{}_metric", side.secret);
    let own = [("__name__", name.as_str()), ("job", side.secret), (side.secret, "x")];
    let gone = [("__name__", "gone"), ("job", side.secret)];
    let common = [("__name__", "common"), ("job", "both")];
    let of = |labels: &[(&str, &str)]| series(labels, &[(at_ms, value)]);
    let mut out = write_request(&[of(&own), of(&gone), of(&common)]);
    let pair = |name: &str, value: &str| {
        let mut label = Vec::new();
        bytes_field(&mut label, 1, name.as_bytes());
        bytes_field(&mut label, 2, value.as_bytes());
        label
    };
    let mut exemplar = Vec::new();
    bytes_field(&mut exemplar, 1, &pair("trace_id", side.secret));
    exemplar.push((2 << 3) | 1);
    exemplar.extend(value.to_bits().to_le_bytes());
    exemplar.push(3 << 3);
    varint(&mut exemplar, at_ms as u64);
    let mut with_exemplar = Vec::new();
    for (name, value) in [("__name__", "common"), ("job", "both")] {
        bytes_field(&mut with_exemplar, 1, &pair(name, value));
    }
    bytes_field(&mut with_exemplar, 3, &exemplar);
    bytes_field(&mut out, 1, &with_exemplar);
    let mut metadata = vec![1 << 3, 1];
    bytes_field(&mut metadata, 2, b"common");
    bytes_field(&mut metadata, 4, format!("help of {}", side.secret).as_bytes());
    bytes_field(&mut out, 3, &metadata);
    snappy(&out)
}

/// Everything that a tenant can leave in a server, for both; and what asks about both at once.
fn fill(hearth: &Hearth) {
    let now = now_ms();
    for (value, side) in [(1.0, NORTH), (2.0, SOUTH)] {
        let own = |method: &str, target: &str, body: (&str, &[u8])| {
            let (status, answer) = ask_as(hearth, side.token, None, method, target, body);
            assert!((200..300).contains(&status), "{method} {target}: {answer}");
        };
        for at_ms in [now - 60_000, now - 30_000] {
            let headers = [
                ("Authorization", format!("Bearer {}", side.token)),
                ("Content-Encoding", "snappy".into()),
                ("Content-Type", "application/x-protobuf".into()),
            ];
            let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let written = ask(hearth, "POST", "/api/v1/write", &headers, &samples(side, value, at_ms));
            assert_eq!(written.0, 204, "{}", written.1);
            let flushed = ask_as(hearth, ROOT, None, "POST", "/-/flush", ("", b""));
            assert_eq!(flushed.0, 200, "{}", flushed.1);
        }
        let group = format!(
            "name: g\ninterval: 1s\nrules:\n- {{record: '{0}_recorded', expr: '7'}}\n- {{alert: A_{0}, expr: vector(1), annotations: {{summary: {0}}}}}\n",
            side.secret
        );
        own("POST", "/config/v1/rules/ns", ("application/yaml", group.as_bytes()));
        let form =
            format!("match[]={}", percent(format!("gone{{job=\"{}\"}}", side.secret).as_bytes(), false));
        own("POST", "/api/v1/admin/tsdb/delete_series", (FORM, form.as_bytes()));
        own("GET", "/api/v1/storage/cardinality", ("", b""));
        // Queries that are listed with their text and their error.
        let fails = format!(
            "{0}_metric + on(job) group_left label_replace({0}_metric, \"a\", \"\", \"\", \"\")",
            side.secret
        );
        own("GET", &format!("/api/v1/query?query={}", percent(fails.as_bytes(), false)), ("", b""));
        for tenants in [format!("{}|{}", NORTH.tenant, SOUTH.tenant), "*".into()] {
            for query in [
                format!("{}_metric", side.secret),
                format!("label_replace({{job=\"{}\"}}, \"__name__\", \"x\", \"\", \"\")", side.secret),
            ] {
                let target = format!("/api/v1/query?query={}", percent(query.as_bytes(), false));
                let (status, answer) = ask_as(hearth, ROOT, Some(&tenants), "GET", &target, ("", b""));
                assert!(matches!(status, 200 | 422), "{answer}");
            }
        }
    }
    for side in [NORTH, SOUTH] {
        wait_for("the alert of a tenant", PATIENCE, || {
            let (_, alerts) = ask_as(hearth, side.token, None, "GET", "/api/v1/alerts", ("", b""));
            alerts.contains(side.secret).then_some(())
        });
        wait_for("what blocks cost to be counted", PATIENCE, || {
            let path = "/api/v1/storage/cardinality";
            let (_, counted) = ask_as(hearth, side.token, None, "GET", path, ("", b""));
            counted.contains(side.secret).then_some(())
        });
    }
}

/// Every method and path of the API's description, and those beside it, with names filled in.
fn routes() -> Vec<(String, String)> {
    let text = include_str!("../../query/src/api/endpoints/openapi.yaml");
    let mut all: BTreeSet<(String, String)> = BTreeSet::new();
    let mut path = "";
    for line in text.lines().take_while(|line| *line != "components:") {
        if let Some(named) = line.strip_prefix("  /").and_then(|l| l.strip_suffix(':')) {
            path = named;
        }
        let method = line.strip_prefix("    ").and_then(|l| l.strip_suffix(':'));
        if let Some(method) = method.filter(|m| ["get", "head", "post", "put", "delete"].contains(m)) {
            all.insert((method.to_uppercase(), format!("/{path}")));
        }
    }
    for (path, methods) in query::api::listed() {
        all.extend(methods.iter().map(|method| (method.to_string(), path.to_owned())));
    }
    for path in [
        "/api/prom/rules",
        "/api/prom/rules/{namespace}",
        "/debug/pprof/",
        "/debug/pprof/heap",
        "/api/v1/status/self_metrics",
        "/",
        "/graph",
        "/nowhere",
        "/api/v1/nowhere",
    ] {
        all.insert(("GET".into(), path.into()));
    }
    all.insert(("POST".into(), members::routes::ASK.into()));
    all.insert(("POST".into(), "/api/v1/otlp/v1/metrics".into()));
    assert!(all.len() > 95, "{} routes: {all:?}", all.len());
    let filled = |path: String| {
        let names = [("{namespace}", "ns"), ("{group}", "g"), ("{id}", "1"), ("{name}", "job")];
        names.iter().fold(path, |path, (name, value)| path.replace(name, value))
    };
    all.into_iter().map(|(method, path)| (method, filled(path))).collect()
}

/// Parameters that ask for all there is, for what is the other's, and for it by the federation's label.
fn forms(other: Side) -> Vec<String> {
    let selectors = [
        "{__name__=~\".+\"}".to_owned(),
        format!("{{__tenant_id__=\"{}\",__name__=~\".+\"}}", other.tenant),
        "{__tenant_id__=~\".+\"} or {original___tenant_id__!=\"\"} or {job=~\".*\"}".to_owned(),
    ];
    let form = |selector: &String| {
        let selector = percent(selector.as_bytes(), false);
        format!(
            "query={selector}&match[]={selector}&start=0&end=4000000000&step=400000&limit=500&label=job&search[]=a&tenant={0}&X-Scope-OrgID={0}",
            other.tenant
        )
    };
    let now_s = now_ms() / 1000;
    let all = percent(selectors[0].as_bytes(), false);
    let recent = format!("query={all}&start={}&end={now_s}&step=15", now_s - 600);
    selectors.iter().map(form).chain([recent, String::new()]).collect()
}

/// Says what is wrong with an answer to one who is not `other`, if anything is.
fn leaks(answer: &str, other: Side, named: bool) -> Option<String> {
    let lower = answer.to_lowercase();
    // Who named the tenant may find its name in the refusal.
    let words = [(other.secret, true), (other.tenant, !named)];
    words.iter().find(|(word, counts)| *counts && lower.contains(*word)).map(|(word, _)| {
        let at = lower.find(word).unwrap_or(0);
        let around: String = answer.chars().skip(at.saturating_sub(200)).take(500).collect();
        format!("{word:?} in …{around}…")
    })
}

#[test]
fn isolation_holds_on_every_route() {
    let folder = tempfile::tempdir().expect("a folder");
    let hearth = start(folder.path());
    fill(&hearth);
    let routes = routes();
    let (mut found, mut own_seen) = (BTreeSet::new(), BTreeSet::new());
    for (me, other) in [(NORTH, SOUTH), (SOUTH, NORTH)] {
        let both = format!("{}|{}", me.tenant, other.tenant);
        let reversed = format!("{}|{}", other.tenant, me.tenant);
        let ways: [Option<&str>; 7] = [
            None,
            Some(me.tenant),
            Some("*"),
            Some(other.tenant),
            Some(&both),
            Some(&reversed),
            Some("default"),
        ];
        for (method, path) in &routes {
            for form in forms(other) {
                for tenant in ways {
                    // What changes something is only asked for others' data here.
                    let changes = matches!(method.as_str(), "PUT" | "DELETE")
                        || path.contains("/admin/")
                        || path.starts_with("/-/");
                    let names_foreign = tenant.is_some_and(|t| t.contains(other.tenant) || t == "default");
                    if changes && !names_foreign && method != "GET" && method != "HEAD" {
                        continue;
                    }
                    let (target, body) = match method.as_str() {
                        "POST" | "PUT" => (path.clone(), form.as_bytes()),
                        _ => (format!("{path}?{form}"), &b""[..]),
                    };
                    let kind = if body.is_empty() { "" } else { FORM };
                    let (status, answer) = ask_as(&hearth, me.token, tenant, method, &target, (kind, body));
                    let what = format!("{method} {path} of {} as {tenant:?}", me.tenant);
                    // Lists of queries have what was asked here, with the name.
                    let asked_with = form.contains(other.tenant) || path.ends_with("/queries");
                    let named = names_foreign || asked_with;
                    // Which parameters there are stands in some refusals.
                    if let Some(leak) = leaks(&answer, other, named) {
                        found.insert(format!("{what}: {leak}"));
                    }
                    let open = OPEN.contains(&path.as_str()) || matches!(path.as_str(), "/" | "/graph");
                    if names_foreign && !open && !matches!(status, 400 | 401 | 403 | 404 | 405) {
                        found.insert(format!("{what} is answered with {status}"));
                    }
                    if answer.to_lowercase().contains(me.secret) {
                        own_seen.insert(path.clone());
                    }
                }
            }
        }
    }
    let found: Vec<_> = found.into_iter().collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    // The same requests do show everything to whom it belongs.
    for path in [
        "/api/v1/query",
        "/api/v1/query_range",
        "/api/v1/query_exemplars",
        "/api/v1/series",
        "/api/v1/labels",
        "/api/v1/label/job/values",
        "/api/v1/metadata",
        "/api/v1/search/metric_names",
        "/api/v1/rules",
        "/api/v1/alerts",
        "/api/v1/queries",
        "/api/v1/status/queries",
        "/api/v1/status/tsdb",
        "/api/v1/storage",
        "/api/v1/storage/cardinality",
        "/federate",
        "/config/v1/rules",
        "/config/v1/rules/ns/g",
        "/prometheus/config/v1/rules",
        "/api/v1/rules/ns",
    ] {
        assert!(own_seen.contains(path), "{path} shows nothing of anybody: {own_seen:?}");
    }
    let (status, answer) = ask_as(&hearth, ROOT, Some("*"), "GET", "/api/v1/queries", ("", b""));
    assert!(status == 200 && answer.contains(NORTH.secret) && answer.contains(SOUTH.secret), "{answer}");
    all_of_one_goes_and_nothing_of_the_other(&hearth);
}

/// One deletes whatever it can; the other has all it had.
fn all_of_one_goes_and_nothing_of_the_other(hearth: &Hearth) {
    let all = format!("match[]={}", percent(b"{__name__=~\".+\"}", false));
    for (method, path, body) in [
        ("POST", "/api/v1/admin/tsdb/delete_series", all.as_bytes()),
        ("PUT", "/api/v1/admin/tsdb/clean_tombstones", b""),
        ("DELETE", "/config/v1/rules/ns/g", b""),
    ] {
        let (status, answer) = ask_as(hearth, NORTH.token, None, method, path, (FORM, body));
        assert!((200..300).contains(&status), "{method} {path}: {answer}");
    }
    for path in ["/-/quit", "/-/reload", "/-/flush", "/api/v1/admin/tsdb/snapshot"] {
        let (status, answer) = ask_as(hearth, NORTH.token, None, "POST", path, ("", b""));
        assert_eq!(status, 403, "{path}: {answer}");
    }
    let query = |side: Side, text: &str| {
        let target = format!("/api/v1/query?query={}", percent(text.as_bytes(), false));
        ask_as(hearth, side.token, None, "GET", &target, ("", b"")).1
    };
    let last = |side: Side| query(side, "last_over_time(common[1h])");
    assert!(last(NORTH).contains("\"result\":[]"), "{}", last(NORTH));
    assert!(last(SOUTH).contains(",\"2\"]"), "{}", last(SOUTH));
    let rules = |side: Side| ask_as(hearth, side.token, None, "GET", "/config/v1/rules", ("", b""));
    assert!(!rules(NORTH).1.contains(NORTH.secret), "{}", rules(NORTH).1);
    assert!(rules(SOUTH).1.contains(SOUTH.secret));
}

#[test]
fn isolation_is_not_circumvented_by_spellings_of_paths_and_tenants() {
    let folder = tempfile::tempdir().expect("a folder");
    let hearth = start(folder.path());
    fill(&hearth);
    let mut found = Vec::new();
    // Paths that only whoever may do everything is answered: the tenant itself is not.
    for path in ["status/config", "status/flags", "status/self_metrics", "admin/tsdb/snapshot"] {
        for spelled in [
            format!("/api/v1/{path}/"),
            format!("/api/v1//{path}"),
            format!("//api/v1/{path}"),
            format!("/./api/v1/{path}"),
            format!("/api/v1/query/../{path}"),
            format!("/api/v1/query/%2e%2e/{path}"),
            format!("/api/v1/query%2f..%2f{path}"),
            format!("/api/v1/{}", path.replace('/', "%2F")),
            format!("/api/v1/rules/../{path}"),
            format!("/api/v1/rules/%2e%2e/{path}"),
            format!("/config/v1/rules/..%2f..%2f..%2fapi/v1/{path}"),
            format!("/api/v1/%73tatus/{path}"),
            format!("/api/v1/{}", path.replacen('s', "%73", 1)),
            format!("/api/v1/{path}%00"),
            format!("/api/v1/{path};x=1"),
            format!("http://localhost/api/v1/{path}"),
            format!("/API/V1/{path}"),
            format!("/prometheus/api/v1/{path}"),
        ] {
            for method in ["GET", "POST", "PUT"] {
                let (status, answer) = ask_as(&hearth, NORTH.token, None, method, &spelled, ("", b""));
                if (200..300).contains(&status) || leaks(&answer, SOUTH, false).is_some() {
                    found.push(format!("{method} {spelled}: {answer}"));
                }
            }
        }
    }
    // Namespaces that would be another tenant's, were they paths.
    for namespace in
        ["..%2F..%2Fsouthern-team%2Frules%2Fns", "..", "%2e%2e%2f..", "%252e%252e%252fns", "ns%00"]
    {
        for base in ["/config/v1/rules", "/prometheus/config/v1/rules", "/api/prom/rules", "/api/v1/rules"] {
            for method in ["GET", "DELETE"] {
                let target = format!("{base}/{namespace}/g");
                let (_, answer) = ask_as(&hearth, NORTH.token, None, method, &target, ("", b""));
                // A namespace that is not there is named in the refusal, as it was sent.
                if answer.contains(SOUTH.secret) {
                    found.push(format!("{method} {target}: {answer}"));
                }
            }
        }
    }
    let long = "x".repeat(10_000);
    let many = vec!["northern-team"; 1_001].join("|");
    let (with_nul, with_escape) = ("north\u{0}", "a\u{1b}[2J");
    for name in [
        "",
        " ",
        ".",
        "..",
        "a/b",
        "../southern-team",
        "./northern-team",
        "northern-team/../southern-team",
        "a\\b",
        "a%2Fb",
        "southern%2Dteam",
        "northern-team|",
        "|northern-team",
        "northern-team||southern-team",
        "*|*",
        "*|northern-team",
        "northern-team|*",
        "northern-team,southern-team",
        "northern-team southern-team",
        "northern-team;southern-team",
        "s\u{f6}uth",
        "a\tb",
        with_nul,
        with_escape,
        "\u{7f}",
        &long,
        &many,
    ] {
        for (token, allowed) in [(NORTH.token, false), (ROOT, true)] {
            for path in [
                "/api/v1/query?query=common",
                "/api/v1/write",
                "/config/v1/rules",
                "/api/v1/status/tsdb",
                "/federate?match[]=common",
            ] {
                let method = if path.ends_with("write") { "POST" } else { "GET" };
                let (status, answer) = ask_as(&hearth, token, Some(name), method, path, ("", b""));
                let shown: String = name.chars().take(40).collect();
                let sentence = answer.split("\r\n\r\n").nth(1).unwrap_or(&answer).trim();
                let refused = if allowed { matches!(status, 400) } else { matches!(status, 400 | 403) };
                if !refused || sentence.lines().count() > 1 || answer.len() > 2_000 {
                    found.push(format!("{method} {path} as {shown:?}: {answer:.300}"));
                }
                if answer.contains('\u{1b}') || answer.contains(SOUTH.secret) {
                    found.push(format!("{method} {path} as {shown:?} is told back: {answer:.300}"));
                }
            }
        }
    }
    // Two headers that differ are nobody's word, whichever comes first.
    let bearer = format!("Bearer {}", NORTH.token);
    for other in ["X-Scope-OrgID", "THANOS-TENANT", "x-scope-orgid"] {
        for pair in [[NORTH.tenant, SOUTH.tenant], [SOUTH.tenant, NORTH.tenant]] {
            let headers = [("Authorization", bearer.as_str()), ("X-Scope-OrgID", pair[0]), (other, pair[1])];
            let (status, answer) = ask(&hearth, "GET", "/api/v1/query?query=common", &headers, b"");
            if !matches!(status, 400 | 403) {
                found.push(format!("{other} {pair:?}: {answer}"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n---\n"));
    let (status, answer) = ask_as(&hearth, SOUTH.token, None, "GET", "/config/v1/rules/ns/g", ("", b""));
    assert!(status == 200 && answer.contains(SOUTH.secret), "{answer}");
}
