//! The few requests to S3 that object_store has no call for, signed with AWS Signature Version 4
//! (https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html).

use super::api::percent;
use ring::{digest, hmac};
use std::time::Duration;

pub struct S3 {
    pub endpoint: String,
    pub region: String,
    pub key: String,
    pub secret: String,
}

impl S3 {
    /// Makes a bucket; one that is there already and ours is as good.
    pub fn create_bucket(&self, bucket: &str) {
        let (status, body) = self.request("PUT", &format!("/{bucket}"), &[]);
        assert!(status == 200 || status == 409, "bucket {bucket}: {status} {body}");
    }

    /// The keys of a bucket under a prefix, sorted.
    pub fn list(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let (status, body) =
            self.request("GET", &format!("/{bucket}"), &[("list-type", "2"), ("prefix", prefix)]);
        assert_eq!(status, 200, "{body}");
        assert!(!body.contains("<IsTruncated>true"), "more keys than one page: {body}");
        body.split("<Key>")
            .skip(1)
            .filter_map(|rest| rest.split("</Key>").next())
            .map(str::to_owned)
            .collect()
    }

    pub fn get(&self, bucket: &str, key: &str) -> (u16, String) {
        self.request("GET", &format!("/{bucket}/{key}"), &[])
    }

    /// Writes an object in one request.
    pub fn put(&self, bucket: &str, key: &str, body: &[u8]) {
        let (status, answer) = self.send("PUT", &format!("/{bucket}/{key}"), &[], body);
        assert_eq!(status, 200, "{key}: {answer}");
    }

    fn request(&self, method: &str, path: &str, query: &[(&str, &str)]) -> (u16, String) {
        self.send(method, path, query, b"")
    }

    fn send(&self, method: &str, path: &str, query: &[(&str, &str)], body: &[u8]) -> (u16, String) {
        let host = self.endpoint.trim_start_matches("http://");
        let path = percent(path.as_bytes(), true);
        let mut pairs: Vec<_> = query
            .iter()
            .map(|(k, v)| format!("{}={}", percent(k.as_bytes(), false), percent(v.as_bytes(), false)))
            .collect();
        pairs.sort();
        let query = pairs.join("&");
        let time = amz_time(super::now_ms() / 1000);
        let day = &time[..8];
        let payload = hex(digest::digest(&digest::SHA256, body).as_ref());
        let signed = "host;x-amz-content-sha256;x-amz-date";
        let canonical = format!(
            "{method}\n{path}\n{query}\nhost:{host}\nx-amz-content-sha256:{payload}\nx-amz-date:{time}\n\n{signed}\n{payload}"
        );
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let hashed = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashed}");
        let mut secret = format!("AWS4{}", self.secret).into_bytes();
        for part in [day, &self.region, "s3", "aws4_request"] {
            secret = mac(&secret, part.as_bytes());
        }
        let signature = hex(&mac(&secret, to_sign.as_bytes()));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, Signature={signature}",
            self.key
        );
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .proxy(None)
            .build()
            .new_agent();
        let url = if query.is_empty() {
            format!("{}{path}", self.endpoint)
        } else {
            format!("{}{path}?{query}", self.endpoint)
        };
        let headers = [
            ("x-amz-content-sha256", payload),
            ("x-amz-date", time.clone()),
            ("authorization", authorization),
        ];
        let sent = if method == "PUT" {
            headers.iter().fold(agent.put(url), |r, (k, v)| r.header(*k, v)).send(body)
        } else {
            headers.iter().fold(agent.get(url), |r, (k, v)| r.header(*k, v)).call()
        };
        let mut answer = sent.unwrap_or_else(|e| panic!("{method} {path} on S3: {e}"));
        let body = answer.body_mut().read_to_string().unwrap_or_default();
        (answer.status().as_u16(), body)
    }
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// `YYYYMMDDTHHMMSSZ`; the day from the days since 1970 as Howard Hinnant's "chrono-Compatible Low-Level Date
/// Algorithms" has it.
fn amz_time(unix_s: i64) -> String {
    let (days, rest) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}
