//! The object store is the only state that matters: with `--objstore s3://…` on a real Ceph RGW, a Hearth
//! that lost its disk still answers.

mod test_services;

use std::process::Command;

use test_services::ceph::Ceph;
use test_services::plain_s3::PlainS3;
use test_services::roles::{MACHINE_KEY, POD_KEY, POD_TOKEN, Roles};
use test_services::{Model, Series, Start, now_ms, series};

const HOUR_MS: i64 = 3_600_000;

fn some(count: usize, from_ms: i64, samples: usize, shift: f64) -> Vec<Series> {
    (0..count)
        .map(|n| {
            let samples: Vec<_> = (0..samples as i64)
                .map(|i| (from_ms + i * 15_000, shift + n as f64 + i as f64 / 8.0))
                .collect();
            series(&[("__name__", "in_bucket"), ("job", "s3"), ("n", &n.to_string())], &samples)
        })
        .collect()
}

#[test]
fn bucket_answers_for_a_hearth_that_lost_its_disk() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut ceph = Ceph::start(folder.path());
    ceph.s3.create_bucket("hearth-blocks");
    let mut start = Start::at(folder.path());
    start.objstore = Some("s3://hearth-blocks/fleet".to_owned());
    start.env = ceph.environment();
    let mut hearth = start.ready();
    let mut model = Model::default();
    let end = now_ms();
    let begin = end - 5 * HOUR_MS;

    let first = some(20, begin, 600, 0.0);
    hearth.api.write(&first);
    model.acknowledged(&first);
    hearth.api.flush();
    let check = |hearth: &test_services::Hearth, model: &Model, when: &str| {
        assert_eq!(model.check(&hearth.api, "in_bucket", end, 6 * HOUR_MS, when), model.samples(), "{when}");
    };
    check(&hearth, &model, "flushed to S3");

    // Into the same windows again: late samples, a conflict, and new time.
    for all in [
        some(20, begin + 5_000, 200, 1e6),
        some(20, begin, 10, 77.0),
        some(20, begin + 600 * 15_000, 500, 5e5),
    ] {
        hearth.api.write(&all);
        model.acknowledged(&all);
    }
    check(&hearth, &model, "bucket and head");
    hearth = hearth.again();
    check(&hearth, &model, "after kill -9, bucket and log");
    hearth.api.flush();
    hearth = hearth.restart();
    check(&hearth, &model, "after a flush and a restart");

    let keys = ceph.s3.list("hearth-blocks", "fleet/");
    for part in ["meta.json", "series.parquet", "timelines.parquet", "samples.parquet"] {
        assert!(
            keys.iter().filter(|k| k.ends_with(part)).count() >= 2,
            "{part} of the blocks of two flushes in the bucket: {keys:?}"
        );
    }
    assert!(keys.iter().any(|k| k.contains("catalog")), "the catalog lies in the bucket: {keys:?}");
    let meta = keys.iter().find(|k| k.ends_with("meta.json")).expect("there is one");
    let (status, text) = ceph.s3.get("hearth-blocks", meta);
    assert_eq!(status, 200, "{text}");
    assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|m| m.is_object()), "{text}");

    // The store goes away. Writes are taken, a flush says why it fails, a query has all or says what it has
    // not.
    ceph.stop_gateway();
    let late = some(20, begin + 1_120 * 15_000, 40, 3e5);
    hearth.api.write(&late);
    model.acknowledged(&late);
    let refused = hearth.api.call("POST", "/-/flush");
    assert!(refused.status >= 500, "a flush to a store that is gone: {} {}", refused.status, refused.text());
    assert!(refused.text().len() > 20, "and says why: {}", refused.text());
    eprintln!("flush without a store: {} {}", refused.status, refused.text());
    let whole = [("query", "in_bucket[6h]"), ("time", &test_services::api::seconds(end))];
    let whole = hearth.api.post_form("/api/v1/query", &whole);
    eprintln!("query without a store: {} {}", whole.status, test_services::api::start_of(&whole.text()));
    if whole.status == 200 {
        check(&hearth, &model, "answered from memory while the store is gone");
    } else {
        assert!((500..600).contains(&whole.status) || whole.status == 422, "{}", whole.text());
        assert_eq!(whole.json()["status"], "error", "{}", whole.text());
    }
    hearth.api.write(&late);
    ceph.start_gateway();
    check(&hearth, &model, "the store is back");
    hearth = hearth.again();
    check(&hearth, &model, "the store is back, after kill -9");
    let rates = hearth.api.range("sum by (n) (rate(in_bucket[10m]))", begin, end, 5 * 60_000);

    // The disk is gone. A fresh process on the same bucket has everything.
    hearth.api.flush();
    hearth.kill();
    std::fs::remove_dir_all(hearth.start.data_dir()).expect("the data folder can go");
    let hearth = hearth.again();
    check(&hearth, &model, "on an empty disk");
    assert_eq!(hearth.api.range("sum by (n) (rate(in_bucket[10m]))", begin, end, 5 * 60_000), rates);
    let names = hearth.api.get("/api/v1/label/n/values", &[("match[]", "in_bucket")]).data();
    assert_eq!(names.as_array().map(Vec::len), Some(20), "{names}");

    // Older data, in spans that have ended: compacted and downsampled in the bucket by a process of its own,
    // beside the server.
    for hours in [80, 79, 78] {
        let old = some(20, end - hours * HOUR_MS, 120, hours as f64);
        hearth.api.write(&old);
        model.acknowledged(&old);
        hearth.api.flush();
    }
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        command.args(arguments).args(["--objstore", "s3://hearth-blocks/fleet", "--data-dir"]);
        command.arg(folder.path().join("beside")).current_dir(folder.path()).envs(ceph.environment());
        let out = command.output().expect("hearth runs");
        let said =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{arguments:?}: {said}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    // The server compacts too; whoever is first does it, so there may be nothing left for this one.
    eprintln!("{}", run(&["compact", "--once"]));
    let compacted = || {
        let listed: serde_json::Value =
            serde_json::from_str(&run(&["bucket", "ls", "--json"])).expect("JSON");
        let blocks = listed[0]["blocks"].as_array().cloned().unwrap_or_default();
        let has = |resolution_ms: i64| {
            blocks.iter().any(|b| b["level"].as_u64() >= Some(1) && b["resolution_ms"] == resolution_ms)
        };
        (has(0) && has(300_000) && has(3_600_000)).then_some(())
    };
    test_services::wait_for(
        "blocks to be compacted in the bucket",
        std::time::Duration::from_secs(120),
        compacted,
    );
    let verified = run(&["bucket", "verify"]);
    assert!(verified.contains("all whole"), "{verified}");
    let stats: serde_json::Value =
        serde_json::from_str(&run(&["bucket", "stats", "--top", "1000", "--json"])).expect("JSON");
    let metrics = stats[0]["metrics"].as_array().expect("metrics");
    let shares: f64 = metrics.iter().filter_map(|m| m["bytes"].as_f64()).sum();
    let whole = stats[0]["bytes"].as_f64().expect("a number");
    assert!((shares - whole).abs() < 1.0, "every byte falls to some metric: {shares} of {whole}");
    assert!(metrics.iter().any(|m| m["metric"] == "in_bucket" && m["series"] == 20), "{stats}");
    // Windows and all are written anew as they are.
    let rewritten: serde_json::Value =
        serde_json::from_str(&run(&["bucket", "rewrite", "--all", "--commit", "--json"])).expect("JSON");
    for block in rewritten["blocks"].as_array().expect("blocks") {
        assert_eq!(block["samples"], block["new_samples"], "{rewritten}");
    }
    assert!(run(&["bucket", "verify"]).contains("all whole"));
    let hearth = hearth.restart();
    let when = "compacted in S3";
    assert_eq!(model.check(&hearth.api, "in_bucket", end, 96 * HOUR_MS, when), model.samples(), "{when}");
}

#[test]
fn google_bucket_is_committed_to_by_its_own_condition() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // The same requests as Google's XML API takes, without its login.
    let server = PlainS3::honest();
    let gcs = format!(
        "gcs:\n  endpoint: http://127.0.0.1:{}\n  allow_http: true\n  anonymous: true\n",
        server.port()
    );
    let mut start = Start::at(folder.path()).config(&gcs);
    start.objstore = Some("gs://plain/fleet".to_owned());
    let hearth = start.ready();
    let mut model = Model::default();
    let end = now_ms();
    let all = some(5, end - HOUR_MS, 100, 0.0);
    hearth.api.write(&all);
    model.acknowledged(&all);
    hearth.api.flush();
    let mut hearth = hearth;
    hearth.kill();
    std::fs::remove_dir_all(hearth.start.data_dir()).expect("the data folder can go");
    let hearth = hearth.again();
    let when = "on an empty disk";
    assert_eq!(model.check(&hearth.api, "in_bucket", end, 2 * HOUR_MS, when), model.samples(), "{when}");
    assert!(server.keys().iter().any(|k| k.starts_with("/plain/fleet/tenants/")), "{:?}", server.keys());
}

#[test]
fn google_service_account_signs_every_request() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = PlainS3::honest();
    let made = Command::new(test_services::installed("openssl", "openssl"))
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output()
        .expect("openssl runs");
    let account = serde_json::json!({
        "type": "service_account",
        "client_email": "hearth@example.iam.gserviceaccount.com",
        "private_key_id": "the-key",
        "private_key": String::from_utf8(made.stdout).expect("a key is text"),
    });
    let file = folder.path().join("account.json");
    std::fs::write(&file, account.to_string()).expect("a file of credentials");
    let gcs = format!(
        "gcs:\n  endpoint: http://127.0.0.1:{}\n  allow_http: true\n  credentials_file: {}\n",
        server.port(),
        file.display()
    );
    let mut start = Start::at(folder.path()).config(&gcs);
    start.objstore = Some("gs://plain/fleet".to_owned());
    let hearth = start.ready();
    hearth.api.write(&some(2, now_ms() - HOUR_MS, 5, 0.0));
    hearth.api.flush();
    assert_eq!(server.signers(), [("the-key".to_owned(), String::new())]);
}

#[test]
fn credentials_come_from_the_role_of_the_machine_or_of_the_pod() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let roles = Roles::start();
    let token = folder.path().join("token");
    std::fs::write(&token, POD_TOKEN).expect("a token");
    let pod = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/pod", roles.url)),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.display().to_string()),
    ];
    let machine = [("AWS_METADATA_ENDPOINT", roles.url.clone())];
    for (name, role, key) in [("pod", &pod[..], POD_KEY), ("machine", &machine[..], MACHINE_KEY)] {
        let server = PlainS3::honest();
        let own = folder.path().join(name);
        std::fs::create_dir_all(&own).expect("a folder");
        let mut start = Start::at(&own);
        start.objstore = Some("s3://plain/fleet".to_owned());
        start.env = server.environment();
        start.env.retain(|(name, _)| !name.contains("ACCESS_KEY"));
        start.env.extend(role.iter().map(|(name, value)| (name.to_string(), value.clone())));
        let hearth = start.ready();
        hearth.api.write(&some(2, now_ms() - HOUR_MS, 5, 0.0));
        hearth.api.flush();
        assert_eq!(server.signers(), [(key.to_owned(), format!("session of {key}"))], "{name}");
    }
}

#[test]
fn bucket_that_is_not_there_is_a_clear_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut start = Start::at(folder.path());
    start.objstore = Some("s3://no-such-bucket".to_owned());
    let nobody = format!("http://127.0.0.1:{}", test_services::free_port());
    start.env = [
        ("AWS_ENDPOINT", nobody.as_str()),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "k"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .to_vec();
    start.env.push(("AWS_ALLOW_HTTP".to_owned(), "true".to_owned()));
    let mut hearth = start.spawn();
    // A store that is away may come back: it waits, not ready, and says for what.
    let patience = std::time::Duration::from_secs(90);
    let said = test_services::wait_for("hearth to say what it waits for", patience, || {
        let answer = hearth.api.try_get("/-/ready", &[]).ok()?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        (answer.status == 503 && text.contains("no-such-bucket")).then_some(text)
    });
    assert!(hearth.process.exited().is_none() && !hearth.process.log_tail().contains("panicked"), "{said}");
}
