//! etcd as a register: transactions over the JSON gateway of its version 3 API, so that no gRPC has to be
//! compiled.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
// As JSON has bytes in etcd's gateway.
use base64::engine::general_purpose::STANDARD as BASE64;
use model::backoff::Backoff;
use serde_json::{Value, json};
use tokio::time::Instant;
use tsdb::catalog::{Register, RegisterError};
use tsdb::cause::{Cause, is_of_a_certificate};

use super::{Address, FIRST_PAUSE, LONGEST_PAUSE, Login, PATIENCE};
use crate::error_chain::error_chain;
use crate::live_client::{Live, body_within};

/// More than all keys of a register with their values. Whatever answers more is no register.
const MAX_ANSWER_BYTES: usize = 64 << 20;

pub struct Etcd {
    address: Address,
    scheme: &'static str,
    login: Option<Login>,
    client: Live<reqwest::Client>,
    /// Of the login; asked for again when it is refused.
    token: parking_lot::Mutex<Option<String>>,
}

impl fmt::Display for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.scheme == "https" { "+tls" } else { "" };
        write!(f, "etcd{tls}://{}{}", self.address.hosts.join(","), self.address.path)
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An answer that is none: try another host, or give up.
enum Failure {
    Refused(String, Option<Cause>),
    Unreachable(String, Option<Cause>),
}

impl Etcd {
    pub fn new(address: Address, tls: bool, login: Option<Login>) -> Result<Etcd, String> {
        let client = Live::new(|| reqwest::Client::builder().timeout(PATIENCE / 3).no_proxy().build());
        let client = client.map_err(|e| format!("catalog.lock: {e}"))?;
        let scheme = if tls { "https" } else { "http" };
        Ok(Etcd { address, scheme, login, client, token: parking_lot::Mutex::default() })
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.address.path)
    }

    /// One call, tried on each host in turn.
    async fn call(&self, method: &str, body: &Value) -> Result<Value, RegisterError> {
        let begun = Instant::now();
        let mut last = ("no host answered".to_string(), None);
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        for host in self.address.hosts.iter().cycle() {
            if begun.elapsed() >= PATIENCE {
                break;
            }
            match self.call_host(host, method, body).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Refused(why, cause)) => {
                    return Err(RegisterError::mend(format!("{self}: {why}")).with(cause));
                }
                Err(Failure::Unreachable(why, cause)) => last = (format!("{host}: {why}"), cause),
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
        let (why, cause) = last;
        Err(RegisterError::wait(format!("{self} cannot be used: {why}")).with(cause))
    }

    async fn call_host(&self, host: &str, method: &str, body: &Value) -> Result<Value, Failure> {
        for again in [true, false] {
            let token = self.token(host).await?;
            let (status, answer) = self.post(host, method, body, token.as_deref()).await?;
            let said = answer["message"].as_str().or(answer["error"].as_str()).unwrap_or("").to_string();
            match status {
                200 => return Ok(answer),
                // A token runs out; the next one may do.
                401 if again && self.login.is_some() => *self.token.lock() = None,
                400 | 401 | 403 | 404 => {
                    let hint = if self.login.is_none() { " (see catalog.lock_credentials_file)" } else { "" };
                    return Err(Failure::Refused(format!("status {status}: {said}{hint}"), None));
                }
                _ => return Err(Failure::Unreachable(format!("status {status}: {said}"), None)),
            }
        }
        Err(Failure::Refused("the credentials are refused".into(), None))
    }

    async fn token(&self, host: &str) -> Result<Option<String>, Failure> {
        let Some(login) = &self.login else { return Ok(None) };
        if let Some(token) = self.token.lock().clone() {
            return Ok(Some(token));
        }
        let body = json!({ "name": login.user, "password": login.password });
        let (status, answer) = self.post(host, "auth/authenticate", &body, None).await?;
        let Some(token) = answer["token"].as_str().filter(|_| status == 200) else {
            return Err(Failure::Refused(format!("the credentials are refused (status {status})"), None));
        };
        *self.token.lock() = Some(token.to_string());
        Ok(Some(token.to_string()))
    }

    async fn post(
        &self,
        host: &str,
        method: &str,
        body: &Value,
        token: Option<&str>,
    ) -> Result<(u16, Value), Failure> {
        let url = format!("{}://{host}/v3/{method}", self.scheme);
        let request =
            self.client.get().post(url).header("content-type", "application/json").body(body.to_string());
        let request = match token {
            Some(token) => request.header("authorization", token),
            None => request,
        };
        let unreachable = |e: reqwest::Error| {
            let e = e.without_url();
            let why = error_chain(&e);
            // Waiting makes no certificate valid.
            match is_of_a_certificate(&e) {
                true => Failure::Refused(why, Some(Arc::new(e))),
                false => Failure::Unreachable(why, Some(Arc::new(e))),
            }
        };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status().as_u16();
        let Some(text) = body_within(answer, MAX_ANSWER_BYTES).await.map_err(unreachable)? else {
            let why = format!("its answer is longer than {MAX_ANSWER_BYTES} bytes; is it etcd?");
            return Err(Failure::Refused(why, None));
        };
        match serde_json::from_slice(&text) {
            Ok(value) => Ok((status, value)),
            Err(_) if status != 200 => Ok((status, Value::Null)),
            Err(e) => {
                let why = format!("its answer is not JSON: {e}; is it etcd?");
                Err(Failure::Refused(why, Some(Arc::new(e))))
            }
        }
    }
}

/// The text of the first key of a range answer.
fn first(range: &Value) -> Result<Option<String>, RegisterError> {
    let Some(value) = range["kvs"][0].as_object() else { return Ok(None) };
    let text = value.get("value").and_then(Value::as_str).unwrap_or("");
    let bytes = BASE64
        .decode(text)
        .map_err(|e| RegisterError::wait(format!("{text:?} is not base64: {e}")).caused_by(e))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

#[async_trait::async_trait]
impl Register for Etcd {
    async fn create(&self, name: &str, text: &str) -> Result<String, RegisterError> {
        let key = BASE64.encode(self.key(name));
        let mut compare = vec![json!({ "key": key, "target": "VERSION", "result": "EQUAL", "version": "0" })];
        if let Some((parent, _)) = name.split_once('/') {
            let parent = BASE64.encode(self.key(parent));
            compare.push(json!({ "key": parent, "target": "VERSION", "result": "GREATER", "version": "0" }));
        }
        let put = json!({ "request_put": { "key": key, "value": BASE64.encode(text) } });
        let get = json!({ "request_range": { "key": key } });
        let answer =
            self.call("kv/txn", &json!({ "compare": compare, "success": [put], "failure": [get] })).await?;
        if answer["succeeded"] == json!(true) {
            return Ok(text.to_string());
        }
        let there = first(&answer["responses"][0]["response_range"])?;
        there.ok_or_else(|| {
            RegisterError::wait(format!(
                "{self}: what {name} is below is not there: has the coordinator lost its contents?"
            ))
        })
    }

    async fn read(&self, name: &str) -> Result<Option<String>, RegisterError> {
        // Linearizable unless asked otherwise.
        first(&self.call("kv/range", &json!({ "key": BASE64.encode(self.key(name)) })).await?)
    }

    async fn remove(&self, name: &str, text: &str) -> Result<(), RegisterError> {
        let key = BASE64.encode(self.key(name));
        let value = BASE64.encode(text);
        let compare = json!([{ "key": key, "target": "VALUE", "result": "EQUAL", "value": value }]);
        let delete = json!([{ "request_delete_range": { "key": key } }]);
        self.call("kv/txn", &json!({ "compare": compare, "success": delete })).await.map(drop)
    }
}
