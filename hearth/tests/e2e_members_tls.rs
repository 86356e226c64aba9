//! Members that ask one another over TLS with certificates on both sides, which are rotated meanwhile.

mod test_services;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use test_services::{Hearth, Start, installed, now_ms, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// An authority `ca.pem` of its own, and by it `NAME.pem` with `NAME.key` for this machine as server and
/// client; each put in its place by a rename.
fn certify(folder: &Path, names: &[&str]) {
    let openssl = |args: &str| {
        let mut command = Command::new(installed("openssl", "openssl"));
        let output = command.args(args.split(' ')).current_dir(folder).output().expect("openssl runs");
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    std::fs::write(
        folder.join("names"),
        "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n",
    )
    .expect("a file can be written");
    let authority = format!("/CN=authority-{}", now_ms());
    openssl(&format!("req -x509 {new_key} -keyout ca.key -out ca.new -days 2 -subj {authority}"));
    for name in names {
        openssl(&format!("req {new_key} -keyout {name}.key.new -out {name}.csr -subj /CN={name}"));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.new -CAkey ca.key -CAcreateserial -days 2 -extfile names -out {name}.pem.new"
        ));
        for end in ["key", "pem"] {
            std::fs::rename(folder.join(format!("{name}.{end}.new")), folder.join(format!("{name}.{end}")))
                .expect("a file can be renamed");
        }
    }
    std::fs::rename(folder.join("ca.new"), folder.join("ca.pem")).expect("a file can be renamed");
}

/// A process of a role; `more` are settings beside the usual ones.
fn process(folder: &Path, name: &str, role: &str, members: &str, more: &str) -> Start {
    let own = folder.join(name);
    std::fs::create_dir_all(&own).expect("a folder for a Hearth");
    std::fs::write(own.join("token"), "a-secret").expect("a token can be written");
    let mut start = Start::at(&own).config(&format!(
        "role: {role}\nmembers: {{token_file: token, interval: 1s{members}}}\nself_metrics_interval: 0\n{more}"
    ));
    start.objstore = Some(format!("file://{}", folder.join("bucket").display()));
    start
}

/// What a querier answers: 200 where every ingester could be asked.
fn asked(querier: &Hearth) -> (u16, String) {
    let answer = querier.api.get("/api/v1/query", &[("query", "up")]);
    (answer.status, answer.text())
}

#[test]
fn members_ask_over_tls_with_certificates_that_are_rotated() {
    let folder = tempfile::tempdir().expect("a folder");
    certify(folder.path(), &["ingester", "querier"]);
    let at = |name: &str| folder.path().join(name).display().to_string();
    let web = format!(
        "tls_server_config: {{cert_file: {}, key_file: {}, client_ca_file: {}, client_auth_type: RequireAndVerifyClientCert}}\n",
        at("ingester.pem"),
        at("ingester.key"),
        at("ca.pem")
    );
    std::fs::write(folder.path().join("web.yml"), web).expect("a web configuration");
    let web = format!("web: {{config_file: {}}}\n", at("web.yml"));
    let _ingester = process(folder.path(), "ingest-0", "ingest", "", &web).ready();

    let trusting = format!(", tls_ca_file: {}", at("ca.pem"));
    let whole =
        format!("{trusting}, tls_cert_file: {}, tls_key_file: {}", at("querier.pem"), at("querier.key"));
    for (name, members) in [("no-authority", ""), ("no-certificate", trusting.as_str())] {
        let querier = process(folder.path(), name, "query", members, "").ready();
        let (status, text) = asked(&querier);
        assert!(status == 500 && text.contains("does not answer"), "{name}: {text}");
    }
    let querier = process(folder.path(), "query-0", "query", &whole, "").ready();
    assert_eq!(asked(&querier).0, 200, "{}", asked(&querier).1);

    // Another authority: what was signed by the one before is worth nothing any more, on both sides.
    certify(folder.path(), &["ingester", "querier"]);
    std::thread::sleep(Duration::from_secs(7));
    wait_for("both to have read their files again", PATIENCE, || (asked(&querier).0 == 200).then_some(()));

    let half = process(
        folder.path(),
        "half",
        "query",
        &format!("{trusting}, tls_cert_file: {}", at("querier.pem")),
        "",
    );
    let mut refused = half.spawn();
    assert_eq!(refused.wait().code(), Some(2));
    assert!(refused.output().contains("belong together"), "{}", refused.output());
}
