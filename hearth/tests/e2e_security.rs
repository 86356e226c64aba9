//! TLS, passwords, tokens, client certificates and tenants, with curl and a real Prometheus as clients.

mod test_services;

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use test_services::certificates::{Folder, run};
use test_services::prometheus::Prometheus;
use test_services::remote_write::{snappy, write_request};
use test_services::{Api, Hearth, Start, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// bcrypt of `open sesame` with cost 4.
const HASH: &str = "$2b$04$XkaT3QbrE9Dj1fN5pFQj7.Ql86aHmUcRLWLRlOeEVa0FsFLGA5i2q";

impl Folder {
    /// Starts Hearth with these files, and waits for it.
    fn hearth(&self, grants: &str) -> Hearth {
        self.hearth_with("", grants)
    }

    /// The same with sections of the web configuration file beside that of TLS.
    fn hearth_with(&self, sections: &str, grants: &str) -> Hearth {
        let tls = "tls_server_config:
  cert_file: server.pem
  key_file: server.key
  client_auth_type: VerifyClientCertIfGiven
  client_ca_file: ca.pem
http_server_config:
  headers: {X-Frame-Options: deny}
";
        self.write("web.yml", &format!("{tls}{sections}"));
        self.write("auth.yml", grants);
        let config = format!(
            "web: {{config_file: {}}}\nauth: {{file: {}, audit_file: {}}}\nadmin_api: true\nrules: {{config_api: true}}\nself_metrics_interval: 0\n",
            self.shown("web.yml"),
            self.shown("auth.yml"),
            self.shown("audit.jsonl")
        );
        let mut hearth = Start::at(self.0.path()).config(&config).spawn();
        wait_for("hearth to answer over TLS", PATIENCE, || {
            if let Some(status) = hearth.process.exited() {
                panic!("hearth ended: {status}\n{}", hearth.process.log_tail());
            }
            let ready = self.curl(hearth.start.port, "/-/ready", &["-H", &bearer("root")]);
            (ready.status == 200).then_some(())
        });
        hearth
    }

    /// Asks with curl; status 0 where there was no answer.
    fn curl(&self, port: u16, path: &str, more: &[&str]) -> Curl {
        let out = Command::new("curl")
            .args(["-sS", "-g", "-m", "30", "--cacert", &self.shown("ca.pem")])
            .args(["-w", "\n%{http_code} %{http_version}"])
            .args(more)
            .arg(format!("https://127.0.0.1:{port}{path}"))
            .output()
            .expect("curl is installed");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let (body, end) = text.rsplit_once('\n').unwrap_or(("", "0 0"));
        let (status, version) = end.split_once(' ').unwrap_or(("0", "0"));
        Curl { status: status.parse().unwrap_or(0), version: version.to_owned(), body: body.to_owned() }
    }
}

#[derive(Debug)]
struct Curl {
    status: u16,
    version: String,
    body: String,
}

fn sha256(token: &str) -> String {
    digest(&SHA256, token.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn token(name: &str, tenants: &str, rights: &str) -> String {
    format!("  - {{name: {name}, sha256: {}, tenants: {tenants}, rights: {rights}}}\n", sha256(name))
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// The grants of most tests; a token's name is the token.
fn grants() -> String {
    let mut text = "tokens:\n".to_owned();
    text += &token("writer-a", "[a]", "[write]");
    text += &token("writer-b", "[b]", "[write]");
    text += &token("reader-a", "[a]", "[read]");
    text += &token("reader-ab", "[a, b]", "[read]");
    text += &token("all-of-a", "[a]", "[read, write, admin]");
    text += &token("root", "['*']", "[read, write, admin, metrics]");
    text += &token("scraper", "[none]", "[metrics]");
    text += "certificates:\n  - {san: 'spiffe://cluster/prometheus', tenants: [mtls], rights: [write]}\n";
    text += "users:\n  - {name: ann, tenants: [basic], rights: [write, read]}\n";
    text
}

/// One Prometheus that scrapes Hearth and sends what it has by the sections of `writes`.
fn prometheus(folder: &Folder, hearth: &Hearth, writes: &str) -> Prometheus {
    let (port, ca) = (hearth.start.port, folder.shown("ca.pem"));
    let own = folder.path("prometheus");
    fs::create_dir_all(&own).unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: hearth
    scheme: https
    authorization: {{credentials: scraper}}
    tls_config: {{ca_file: {ca}}}
    static_configs: [{{targets: ['127.0.0.1:{port}']}}]
remote_write:
{}",
        writes.replace("{port}", &port.to_string()).replace("{ca}", &ca)
    );
    Prometheus::with_config(&own, &config, &[])
}

#[test]
fn prometheus_writes_and_scrapes_with_tls_certificates_and_tokens() {
    let folder = Folder::new();
    let hearth = folder.hearth(&grants());
    let writes = format!(
        "  - url: https://127.0.0.1:{{port}}/api/v1/write
    authorization: {{credentials: writer-a}}
    tls_config: {{ca_file: {{ca}}}}
    queue_config: {{batch_send_deadline: 1s}}
  - url: https://127.0.0.1:{{port}}/api/v1/push
    name: mtls
    tls_config: {{ca_file: {{ca}}, cert_file: {}, key_file: {}}}
    queue_config: {{batch_send_deadline: 1s}}
",
        folder.shown("client.pem"),
        folder.shown("client.key")
    );
    let prometheus = prometheus(&folder, &hearth, &writes);
    let root = bearer("root");
    for tenant in ["a", "mtls"] {
        let header = format!("X-Scope-OrgID: {tenant}");
        wait_for("samples of a tenant", PATIENCE, || {
            let answer =
                folder.curl(hearth.start.port, "/api/v1/query?query=up", &["-H", &root, "-H", &header]);
            answer.body.contains(r#""job":"hearth""#).then_some(())
        });
    }
    wait_for("Prometheus to have scraped Hearth", PATIENCE, || {
        let up = prometheus.api.instant("up{job=\"hearth\"} == 1", test_services::now_ms());
        (!up.is_empty()).then_some(())
    });
    // Over HTTP/2, both tenants at once, with the headers of the file.
    let both = ["-H", &root, "-H", "X-Scope-OrgID: a|mtls", "--http2", "-i"];
    let query = "/api/v1/query?query=count%20by(__tenant_id__)(up)";
    let answer = folder.curl(hearth.start.port, query, &both);
    assert_eq!((answer.status, answer.version.as_str()), (200, "2"), "{answer:?}");
    assert!(
        answer.body.contains(r#""__tenant_id__":"a""#) && answer.body.contains(r#""__tenant_id__":"mtls""#)
    );
    assert!(answer.body.to_lowercase().contains("x-frame-options: deny"), "{}", answer.body);
    // Plain HTTP gets a sentence, a stranger's certificate no rights, a forged one no connection.
    let plain = Api::new(hearth.start.port).try_get("/-/ready", &[]).expect("an answer");
    assert_eq!(plain.status, 400);
    let with = |name: &str| {
        let (cert, key) = (folder.shown(&format!("{name}.pem")), folder.shown(&format!("{name}.key")));
        folder.curl(hearth.start.port, "/api/v1/write", &["--cert", &cert, "--key", &key, "-d", ""])
    };
    assert_eq!(with("stranger").status, 403);
    assert_eq!(with("forged").status, 0);
    assert_ne!(with("client").status, 403);
}

#[test]
fn prometheus_writes_and_scrapes_with_a_password_over_tls() {
    let folder = Folder::new();
    let hearth = folder.hearth_with(&format!("basic_auth_users: {{ann: {HASH}}}\n"), &grants());
    folder.write("password", "open sesame");
    let writes = format!(
        "  - url: https://127.0.0.1:{{port}}/api/v1/write
    basic_auth: {{username: ann, password_file: {}}}
    tls_config: {{ca_file: {{ca}}}}
    queue_config: {{batch_send_deadline: 1s}}
",
        folder.shown("password")
    );
    let _prometheus = prometheus(&folder, &hearth, &writes);
    wait_for("samples of the user's tenant", PATIENCE, || {
        let query = "/api/v1/query?query=up%7Bjob%3D%22hearth%22%7D%20%3D%3D%201";
        let answer = folder.curl(hearth.start.port, query, &["-u", "ann:open sesame"]);
        answer.body.contains(r#""job":"hearth""#).then_some(())
    });
    for (user, expected) in [("ann:open sesame", 200), ("ann:no", 401), ("eve:open sesame", 401)] {
        let answer = folder.curl(hearth.start.port, "/api/v1/query?query=1", &["-u", user]);
        assert_eq!(answer.status, expected, "{user}");
    }
    assert_eq!(folder.curl(hearth.start.port, "/-/ready", &[]).status, 401, "as upstream");
}

/// One Prometheus that scrapes Hearth (a job each) and sends it all, in every one of some ways of showing who
/// it is.
fn prometheus_by(folder: &Folder, hearth: &Hearth, ways: &[(&str, String)]) -> Prometheus {
    let (port, ca) = (hearth.start.port, folder.shown("ca.pem"));
    let own = folder.path("prometheus");
    fs::create_dir_all(&own).unwrap();
    let mut config = "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n".to_owned();
    for (way, shows) in ways {
        config += &format!(
            "  - {{job_name: {way}, scheme: https, {}, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n",
            shows.replace("{ca}", &ca)
        );
    }
    config += "remote_write:\n";
    for (way, shows) in ways {
        config += &format!(
            "  - {{name: {way}, url: 'https://127.0.0.1:{port}/api/v1/write', {}, queue_config: {{batch_send_deadline: 1s}}}}\n",
            shows.replace("{ca}", &ca)
        );
    }
    Prometheus::with_config(&own, &config, &[])
}

#[test]
fn prometheus_writes_and_scrapes_by_password_token_and_certificate() {
    let folder = Folder::new();
    let mut grants = "tokens:\n".to_owned();
    grants += &token("both-ways", "[of-token]", "[write, metrics]");
    grants += &token("root", "['*']", "[read]");
    grants += "certificates:\n  - {san: 'spiffe://cluster/prometheus', tenants: [of-certificate], rights: [write, metrics]}\n";
    grants += "users:\n  - {name: ann, tenants: [of-password], rights: [write, metrics]}\n";
    let hearth = folder.hearth_with(&format!("basic_auth_users: {{ann: {HASH}}}\n"), &grants);
    folder.write("password", "open sesame");
    let ways = [
        ("token", "authorization: {credentials: both-ways}, tls_config: {ca_file: {ca}}".to_owned()),
        (
            "password",
            format!(
                "basic_auth: {{username: ann, password_file: {}}}, tls_config: {{ca_file: {{ca}}}}",
                folder.shown("password")
            ),
        ),
        (
            "certificate",
            format!(
                "tls_config: {{ca_file: {{ca}}, cert_file: {}, key_file: {}}}",
                folder.shown("client.pem"),
                folder.shown("client.key")
            ),
        ),
        ("nothing", "tls_config: {ca_file: {ca}}".to_owned()),
    ];
    let _prometheus = prometheus_by(&folder, &hearth, &ways);
    let up = |tenant: &str, job: &str| {
        let query = format!("/api/v1/query?query=up%7Bjob%3D%22{job}%22%7D");
        let header = format!("X-Scope-OrgID: {tenant}");
        folder.curl(hearth.start.port, &query, &["-H", &bearer("root"), "-H", &header]).body
    };
    for tenant in ["of-token", "of-password", "of-certificate"] {
        for job in ["token", "password", "certificate"] {
            wait_for(&format!("{tenant} to have what was scraped by {job}"), PATIENCE, || {
                up(tenant, job).contains(",\"1\"]").then_some(())
            });
        }
        assert!(up(tenant, "nothing").contains(",\"0\"]"), "{}", up(tenant, "nothing"));
    }
}

#[test]
fn prometheus_writes_and_scrapes_over_tls_alone_and_where_certificates_are_required() {
    let folder = Folder::new();
    let tls = "tls_server_config: {cert_file: server.pem, key_file: server.key";
    for (required, job) in [(false, "plain"), (true, "mutual")] {
        let more = if required {
            ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem"
        } else {
            ""
        };
        folder.write("web.yml", &format!("{tls}{more}}}\n"));
        let own = folder.path(job);
        fs::create_dir_all(&own).unwrap();
        let config = format!("web: {{config_file: {}}}\nself_metrics_interval: 0\n", folder.shown("web.yml"));
        let hearth = Start::at(&own).config(&config).spawn();
        let certificate =
            ["--cert".to_owned(), folder.shown("client.pem"), "--key".into(), folder.shown("client.key")];
        let certificate: Vec<&str> = certificate.iter().map(String::as_str).collect();
        wait_for("hearth to answer over TLS", PATIENCE, || {
            (folder.curl(hearth.start.port, "/-/ready", &certificate).status == 200).then_some(())
        });
        let mutual = format!(
            "tls_config: {{ca_file: {{ca}}, cert_file: {}, key_file: {}}}",
            certificate[1], certificate[3]
        );
        let ways = [("plain", "tls_config: {ca_file: {ca}}".to_owned()), ("mutual", mutual)];
        let _prometheus = prometheus_by(&folder, &hearth, &ways);
        let up = |job: &str| {
            let query = format!("/api/v1/query?query=up%7Bjob%3D%22{job}%22%7D");
            folder.curl(hearth.start.port, &query, &certificate).body
        };
        wait_for("what was scraped and sent", PATIENCE, || up("mutual").contains(",\"1\"]").then_some(()));
        let without = if required { ",\"0\"]" } else { ",\"1\"]" };
        wait_for("what was scraped without a certificate", PATIENCE, || {
            up("plain").contains(without).then_some(())
        });
        fs::remove_dir_all(folder.path("prometheus")).unwrap();
    }
}

#[test]
fn secrets_and_certificates_are_rotated_under_load_without_an_error() {
    let folder = Folder::new();
    let hearth = folder.hearth(&grants());
    let port = hearth.start.port;
    folder.write("token", "writer-a");
    let writes = format!(
        "  - url: https://127.0.0.1:{{port}}/api/v1/write
    authorization: {{credentials_file: {}}}
    tls_config: {{ca_file: {{ca}}}}
    queue_config: {{batch_send_deadline: 1s}}
",
        folder.shown("token")
    );
    let prometheus = prometheus(&folder, &hearth, &writes);
    let stop = AtomicBool::new(false);
    let (asked, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let serial = || {
        let address = format!("127.0.0.1:{port}");
        let shake = format!(
            "openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -noout -serial"
        );
        run("sh", &["-c", &shake])
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let answer = folder.curl(port, "/api/v1/query?query=1", &["-H", &bearer("reader-a")]);
                asked.fetch_add(1, Ordering::Relaxed);
                if answer.status != 200 {
                    failed.fetch_add(1, Ordering::Relaxed);
                    eprintln!("{answer:?}");
                }
            }
        });
        for round in 0..3 {
            let before = serial();
            folder.certificate("server", "ca", "DNS:localhost,IP:127.0.0.1", "serverAuth");
            wait_for("the new certificate", PATIENCE, || (serial() != before).then_some(()));
            // A token is added, taken into use, and the old one taken away.
            let next = format!("next-{round}");
            let both = [next.clone(), fs::read_to_string(folder.path("token")).unwrap()];
            let both: String = both.iter().map(|name| token(name, "[a]", "[write]")).collect();
            let mut others = grants();
            others = others.replace(&token("writer-a", "[a]", "[write]"), "");
            folder.write("auth.yml", &others.replace("certificates:", &format!("{both}certificates:")));
            wait_for("the new token", PATIENCE, || {
                let answer = folder.curl(port, "/api/v1/write", &["-H", &bearer(&next), "-d", ""]);
                (answer.status != 401).then_some(())
            });
            folder.write("token", &next);
        }
        std::thread::sleep(Duration::from_secs(3));
        stop.store(true, Ordering::Relaxed);
    });
    assert!(asked.load(Ordering::Relaxed) > 10);
    assert_eq!(failed.load(Ordering::Relaxed), 0);
    for lost in
        ["prometheus_remote_storage_samples_failed_total", "prometheus_remote_storage_samples_retried_total"]
    {
        let text = prometheus.api.try_get("/metrics", &[]).expect("Prometheus answers").text();
        let line = text.lines().find(|line| line.starts_with(lost)).unwrap_or_else(|| panic!("{lost}"));
        assert!(line.ends_with(" 0"), "{line}");
    }
}

#[test]
fn refusals_are_one_sentence_and_admin_calls_are_written_down() {
    let folder = Folder::new();
    let hearth = folder.hearth(&grants());
    let ask = |path: &str, more: &[&str]| folder.curl(hearth.start.port, path, more);
    let query = "/api/v1/query?query=up";
    let long = format!("X-Scope-OrgID: {}", "x".repeat(10_000));
    let long_token = bearer(&"x".repeat(10_000));
    let (reader, root) = (bearer("reader-a"), bearer("root"));
    let tenant = |name: &str| format!("X-Scope-OrgID: {name}");
    for (headers, expected) in [
        (vec![], 401),
        (vec![bearer("nobody")], 401),
        (vec![long_token], 401),
        (vec![bearer("eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4In0.")], 401),
        (vec!["Authorization: Basic YW5uOm9wZW4gc2VzYW1l".into()], 401),
        (vec!["Authorization: Digest x".into()], 401),
        (vec![bearer("writer-a")], 403),
        (vec![reader.clone(), tenant("b")], 403),
        (vec![reader.clone(), tenant("a|b")], 403),
        (vec![root.clone(), tenant("a/b")], 400),
        (vec![root.clone(), tenant("..")], 400),
        (vec![root.clone(), long], 400),
        (vec![bearer("reader-ab")], 400),
        (vec![reader.clone()], 200),
    ] {
        let more: Vec<&str> = headers.iter().flat_map(|h| ["-H", h.as_str()]).collect();
        let answer = ask(query, &more);
        assert_eq!(answer.status, expected, "{headers:.60?}: {:.300}", answer.body);
        assert!(answer.body.len() < 1_000 && !answer.body.contains("panicked"), "{:.300}", answer.body);
    }
    // HTTP/2 ends such a request itself.
    let control = ["--http1.1", "-H", &root, "-H", &tenant("a\u{1}b")];
    assert_eq!(ask(query, &control).status, 400);
    let delete = "/api/v1/admin/tsdb/delete_series?match[]=up";
    assert_eq!(ask(delete, &["-X", "POST", "-H", &reader]).status, 403);
    assert_eq!(ask(delete, &["-X", "POST", "-H", &bearer("all-of-a")]).status, 204);
    assert_eq!(
        ask("/-/flush", &["-X", "POST", "-H", &bearer("all-of-a")]).status,
        403,
        "it is of all tenants"
    );
    assert_eq!(ask("/-/flush", &["-X", "POST", "-H", &root]).status, 200);
    let audit = fs::read_to_string(folder.path("audit.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = audit.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let seen: Vec<(&str, u64)> =
        lines.iter().map(|l| (l["who"].as_str().unwrap(), l["status"].as_u64().unwrap())).collect();
    assert_eq!(
        seen[1..],
        [("token all-of-a", 204), ("nobody known", 403), ("token root", 200)][..],
        "{audit}"
    );
    assert_eq!((lines[1]["tenant"].as_str(), lines[1]["query"].as_str()), (Some("a"), Some("?match[]=up")));
    let log = fs::read_to_string(folder.path("hearth.log")).unwrap();
    assert!(log.contains("admin call") && !log.contains(&sha256("root")), "{log}");
}

#[test]
fn tenants_are_strangers_on_every_route() {
    let folder = Folder::new();
    let hearth = folder.hearth(&grants());
    let port = hearth.start.port;
    let ask = |path: &str, more: &[&str]| folder.curl(port, path, more);
    // Both tenants get a series by Prometheus' own sender; b's has a name that nobody else may see.
    let body = folder.path("write");
    let labels = [("__name__", "hidden_of_b"), ("hidden", "secret_of_b")];
    let series = [test_services::series(&labels, &[(test_services::now_ms(), 1.0)])];
    fs::write(&body, snappy(&write_request(&series))).unwrap();
    let data = format!("@{}", body.display());
    let write = [
        "-H",
        "Content-Encoding: snappy",
        "-H",
        "Content-Type: application/x-protobuf",
        "--data-binary",
        &data,
    ];
    let written = ask("/api/v1/write", &[&write[..], &["-H", &bearer("writer-b")]].concat());
    assert_eq!(written.status, 204, "{written:?}");
    let own = ask("/api/v1/query?query=hidden_of_b", &["-H", &bearer("reader-ab"), "-H", "X-Scope-OrgID: b"]);
    assert!(own.body.contains("secret_of_b"), "{own:?}");

    let parameters = "query=%7B__name__%3D~%22.%2B%22%7D&match[]=%7B__name__%3D~%22.%2B%22%7D&start=0&end=4000000000&step=400000&limit=0";
    let mut routes: Vec<(String, &str)> = Vec::new();
    for (path, methods) in query::api::listed() {
        let path = path.replace("{name}", "hidden").replace("{id}", "1");
        routes.extend(methods.iter().map(|method| (path.clone(), *method)));
    }
    for path in [
        "/config/v1/rules",
        "/prometheus/config/v1/rules",
        "/api/prom/rules",
        "/api/v1/rules/x",
        "/config/v1/rules/x/y",
        "/metrics",
        "/api/v1/status/compaction",
        "/version",
    ] {
        routes.push((path.into(), "GET"));
    }
    for path in ["/-/flush", "/-/reload", "/-/quit", "/api/v1/write", "/api/v1/push", "/config/v1/rules/x"] {
        routes.push((path.into(), "POST"));
    }
    routes.retain(|(path, method)| !path.ends_with("/live") && *method != "OPTIONS");
    assert!(routes.len() > 50, "{routes:?}");
    for (path, method) in routes {
        let full = format!("{path}?{parameters}");
        let of = |more: &[&str]| ask(&full, &[&["-X", method, "-m", "10"], more].concat());
        let nobody = of(&[]);
        assert_eq!(nobody.status, 401, "{method} {path}: {nobody:?}");
        // As another tenant: refused for it, or for want of the right over the process.
        let foreign = of(&["-H", &bearer("all-of-a"), "-H", "X-Scope-OrgID: b"]);
        assert_eq!(foreign.status, 403, "{method} {path}: {foreign:?}");
        let both = of(&["-H", &bearer("all-of-a"), "-H", "X-Scope-OrgID: a|b"]);
        assert!(matches!(both.status, 400 | 403), "{method} {path}: {both:?}");
        let every = of(&["-H", &bearer("all-of-a"), "-H", "X-Scope-OrgID: *"]);
        // As itself: whatever comes, it is not b's.
        let own = of(&["-H", &bearer("all-of-a")]);
        for answer in [&foreign, &both, &every, &own] {
            assert!(!answer.body.contains("secret_of_b"), "{method} {path}: {answer:?}");
            // What is switched off says so with 500, as upstream does.
            let fine = answer.status < 500 || answer.status == 503 || path.contains("/search/");
            assert!(fine, "{method} {path}: {answer:?}");
        }
    }
    let still = ask("/api/v1/query?query=hidden_of_b", &["-H", &bearer("root"), "-H", "X-Scope-OrgID: b"]);
    assert!(still.body.contains("secret_of_b"), "what was asked of all routes changed b's data: {still:?}");
}

#[test]
fn start_with_wrong_files_ends_with_what_and_where() {
    let folder = Folder::new();
    folder.write("web.yml", "tls_server_config: {cert_file: server.pem, key_file: client.key}\n");
    let ended = |config: &str| {
        let hearth = Start::at(folder.0.path()).config(config).spawn();
        let mut hearth = hearth;
        let status = wait_for("hearth to end", PATIENCE, || hearth.process.exited());
        let log = fs::read_to_string(folder.path("hearth.log")).unwrap();
        fs::remove_file(folder.path("hearth.log")).unwrap();
        (status.code(), log)
    };
    let (code, log) = ended(&format!("web: {{config_file: {}}}\n", folder.shown("web.yml")));
    assert_eq!(code, Some(2), "{log}");
    assert!(
        log.contains("web.config_file") && log.contains("server.pem") && log.contains("do not go together"),
        "{log}"
    );
    let (code, log) = ended(&format!("auth: {{file: {}}}\n", folder.shown("none.yml")));
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("auth.file") && log.contains("none.yml"), "{log}");
}

#[test]
fn passwords_work_over_plain_http_as_upstream_has_them() {
    let folder = Folder::new();
    folder.write("web.yml", &format!("basic_auth_users: {{ann: {HASH}}}\n"));
    let config = format!("web: {{config_file: {}}}\n", folder.shown("web.yml"));
    let hearth = Start::at(folder.0.path()).config(&config).spawn();
    let status = |user: &str| {
        let out = Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-u", user])
            .arg(format!("http://127.0.0.1:{}/-/healthy", hearth.start.port))
            .output()
            .expect("curl is installed");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    wait_for("hearth to answer", PATIENCE, || (status("ann:open sesame") == "200").then_some(()));
    assert_eq!(status("ann:wrong"), "401");
    assert_eq!(status("eve:open sesame"), "401");
}
