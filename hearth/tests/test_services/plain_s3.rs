//! An S3 server in this process that answers 200 to every conditional write and overwrites, as Garage 2.5
//! does, with a little time between taking a request and doing it, so that writers truly race. Or one that
//! keeps its word, to S3's header and to Google's, whose XML API is alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;

/// Every object is as old as the first listing: clean-up must not take what is being written for something
/// forgotten.
static STARTED: LazyLock<String> = LazyLock::new(|| {
    jiff::Timestamp::now().round(jiff::Unit::Millisecond).expect("the time of day can be rounded").to_string()
});

type Objects = Arc<Mutex<BTreeMap<String, Bytes>>>;

#[derive(Clone, Default)]
struct Bucket {
    /// By `/bucket/key`.
    objects: Objects,
    /// Parts of uploads under way, by upload and number.
    parts: Arc<Mutex<BTreeMap<(String, u32), Bytes>>>,
    next: Arc<AtomicU64>,
    /// Keys that requests were signed with, and Amazon's session tokens that they bore.
    signers: Arc<Mutex<BTreeSet<(String, String)>>>,
    honest: bool,
}

pub struct PlainS3 {
    port: u16,
    bucket: Bucket,
    _runtime: tokio::runtime::Runtime,
}

const MODIFIED: &str = "Wed, 25 Nov 2026 12:00:00 GMT";

impl PlainS3 {
    /// Ignores conditions.
    pub fn start() -> PlainS3 {
        PlainS3::serve(false)
    }

    /// Creates an object only if it is absent, where it is asked to.
    pub fn honest() -> PlainS3 {
        PlainS3::serve(true)
    }

    /// The same at a port that was said before.
    pub fn honest_at(port: u16) -> PlainS3 {
        PlainS3::serve_at(true, port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    fn serve(honest: bool) -> PlainS3 {
        PlainS3::serve_at(honest, 0)
    }

    fn serve_at(honest: bool, port: u16) -> PlainS3 {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("threads for an S3 server");
        let bucket = Bucket { honest, ..Bucket::default() };
        let app = Router::new().fallback(answer).with_state(bucket.clone());
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port));
        let listener = runtime.block_on(listener).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        runtime.spawn(async move { axum::serve(listener, app).await });
        PlainS3 { port, bucket, _runtime: runtime }
    }

    /// What Hearth needs in its environment to use it.
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", "k".into()),
            ("AWS_SECRET_ACCESS_KEY", "s".into()),
            ("AWS_ALLOW_HTTP", "true".into()),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .to_vec()
    }

    /// The keys that requests were signed with, each with its session token.
    pub fn signers(&self) -> Vec<(String, String)> {
        self.bucket.signers.lock().expect("nobody panicked with it").iter().cloned().collect()
    }

    /// All keys with their bucket, sorted.
    pub fn keys(&self) -> Vec<String> {
        self.bucket.objects.lock().expect("nobody panicked with it").keys().cloned().collect()
    }
}

fn respond(status: u16, body: impl Into<Body>) -> Response {
    let answer = Response::builder().status(status).header("etag", "\"x\"").header("last-modified", MODIFIED);
    answer.body(body.into()).expect("a response")
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// `%XX` undone.
fn plain(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut i) = (Vec::new(), 0);
    while i < bytes.len() {
        let hex = (bytes[i] == b'%').then(|| text.get(i + 1..i + 3)).flatten();
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The name of the key that a JSON Web Token is signed with, as Google's service accounts sign them.
fn key_of_token(token: &str) -> Option<String> {
    use base64::Engine;
    let head = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    let head: serde_json::Value = serde_json::from_slice(&head).ok()?;
    (head["alg"] == "RS256").then(|| head["kid"].as_str().map(str::to_owned))?
}

async fn answer(State(bucket): State<Bucket>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 64 << 20).await else { return respond(400, "") };
    let path = plain(head.uri.path());
    let query: BTreeMap<String, String> = head
        .uri
        .query()
        .unwrap_or("")
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|p| p.split_once('=').map_or((plain(p), String::new()), |(k, v)| (plain(k), plain(v))))
        .collect();
    let of = |name: &str| query.get(name).cloned();
    let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    let signature = header("authorization");
    let amazons = signature.split("Credential=").nth(1).and_then(|c| c.split('/').next()).map(str::to_owned);
    if let Some(key) = amazons.or_else(|| signature.strip_prefix("Bearer ").and_then(key_of_token)) {
        let signer = (key, header("x-amz-security-token").to_owned());
        bucket.signers.lock().expect("nobody panicked with it").insert(signer);
    }
    let range = head.headers.get("range").and_then(|r| r.to_str().ok()).map(str::to_owned);
    let turn = bucket.next.fetch_add(1, Ordering::Relaxed);
    match (head.method, of("uploadId")) {
        (Method::PUT, Some(upload)) => {
            let number = of("partNumber").and_then(|n| n.parse().ok()).unwrap_or(0);
            bucket.parts.lock().expect("nobody panicked with it").insert((upload, number), body);
            respond(200, "")
        }
        (Method::PUT, None) => {
            // Between nothing and 6 ms.
            tokio::time::sleep(Duration::from_micros(turn.wrapping_mul(2_654_435_761) % 6_000)).await;
            let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok());
            let absent_only =
                header("if-none-match") == Some("*") || header("x-goog-if-generation-match") == Some("0");
            let mut objects = bucket.objects.lock().expect("nobody panicked with it");
            if bucket.honest && absent_only && objects.contains_key(&path) {
                return respond(412, "<Error><Code>PreconditionFailed</Code></Error>");
            }
            objects.insert(path, body);
            respond(200, "")
        }
        (Method::POST, Some(upload)) => {
            let mut parts = bucket.parts.lock().expect("nobody panicked with it");
            let numbers: Vec<_> = parts.keys().filter(|(u, _)| *u == upload).cloned().collect();
            let whole: Vec<u8> = numbers.iter().filter_map(|n| parts.remove(n)).flatten().collect();
            bucket.objects.lock().expect("nobody panicked with it").insert(path, whole.into());
            respond(200, "<CompleteMultipartUploadResult><ETag>\"x\"</ETag></CompleteMultipartUploadResult>")
        }
        (Method::POST, None) if query.contains_key("uploads") => respond(
            200,
            format!(
                "<InitiateMultipartUploadResult><UploadId>u{turn}</UploadId></InitiateMultipartUploadResult>"
            ),
        ),
        (Method::POST, None) => {
            let text = String::from_utf8_lossy(&body).into_owned();
            let keys = text.split("<Key>").skip(1).filter_map(|k| k.split("</Key>").next());
            let mut done = String::new();
            for key in keys {
                bucket.objects.lock().expect("nobody panicked with it").remove(&format!("{path}/{key}"));
                done += &format!("<Deleted><Key>{key}</Key></Deleted>");
            }
            respond(200, format!("<DeleteResult>{done}</DeleteResult>"))
        }
        (Method::DELETE, None) => {
            bucket.objects.lock().expect("nobody panicked with it").remove(&path);
            respond(204, "")
        }
        (Method::GET, _) if query.contains_key("list-type") => {
            let folder = format!("{}/", path.trim_end_matches('/'));
            respond(200, list(&bucket.objects, &folder, &of("prefix").unwrap_or_default(), of("delimiter")))
        }
        (method @ (Method::GET | Method::HEAD), _) => {
            let found = bucket.objects.lock().expect("nobody panicked with it").get(&path).cloned();
            let Some(found) = found else {
                return respond(404, "<Error><Code>NoSuchKey</Code></Error>");
            };
            let size = found.len();
            let asked = range.as_deref().and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
            let asked =
                asked.map(|(a, b)| (a.parse().unwrap_or(0), b.parse().unwrap_or(size - 1).min(size - 1)));
            if method == Method::HEAD {
                let mut head = respond(200, "");
                head.headers_mut().insert("content-length", size.into());
                return head;
            }
            match asked {
                Some((from, to)) => {
                    let mut part = respond(StatusCode::PARTIAL_CONTENT.as_u16(), found.slice(from..=to));
                    let range = format!("bytes {from}-{to}/{size}").parse().expect("a header");
                    part.headers_mut().insert("content-range", range);
                    part
                }
                None => respond(200, found),
            }
        }
        _ => respond(501, ""),
    }
}

fn list(objects: &Objects, folder: &str, prefix: &str, delimiter: Option<String>) -> String {
    let objects = objects.lock().expect("nobody panicked with it");
    let (mut contents, mut folders) = (String::new(), std::collections::BTreeSet::new());
    for (path, bytes) in objects.iter() {
        let Some(key) = path.strip_prefix(folder).filter(|k| k.starts_with(prefix)) else { continue };
        let below = delimiter.as_ref().filter(|d| !d.is_empty());
        match below.and_then(|d| key[prefix.len()..].find(d.as_str()).map(|at| at + d.len())) {
            Some(end) => {
                folders.insert(key[..prefix.len() + end].to_owned());
            }
            None => {
                contents += &format!(
                    "<Contents><Key>{}</Key><Size>{}</Size><LastModified>{}</LastModified><ETag>x</ETag></Contents>",
                    xml(key),
                    bytes.len(),
                    *STARTED
                );
            }
        }
    }
    let folders: String = folders
        .iter()
        .map(|f| format!("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", xml(f)))
        .collect();
    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}{folders}</ListBucketResult>")
}
