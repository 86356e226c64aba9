//! A stand-in for what gives a machine or a pod its role's credentials for a while: Amazon's instance
//! metadata (version 2) and EKS Pod Identity.

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, put};

/// What a pod shows, and whose credentials it gets for it.
pub const POD_TOKEN: &str = "token-of-the-pod";
pub const POD_KEY: &str = "KEY-OF-THE-POD";
pub const MACHINE_KEY: &str = "KEY-OF-THE-MACHINE";
const SESSION: &str = "session-of-the-machine";

pub struct Roles {
    pub url: String,
    _runtime: tokio::runtime::Runtime,
}

impl Roles {
    pub fn start() -> Roles {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread for the roles");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let roles = "/latest/meta-data/iam/security-credentials/";
        let app = Router::new()
            .route("/latest/api/token", put(async || SESSION))
            .route(
                roles,
                get(async |h: HeaderMap| if_shown(&h, "x-aws-ec2-metadata-token", SESSION, "writer".into())),
            )
            .route(
                &format!("{roles}writer"),
                get(async |h: HeaderMap| {
                    if_shown(&h, "x-aws-ec2-metadata-token", SESSION, credentials(MACHINE_KEY))
                }),
            )
            .route(
                "/pod",
                get(async |h: HeaderMap| if_shown(&h, "authorization", POD_TOKEN, credentials(POD_KEY))),
            );
        runtime.spawn(async move { axum::serve(listener, app).await });
        Roles { url, _runtime: runtime }
    }
}

fn if_shown(headers: &HeaderMap, name: &str, token: &str, text: String) -> (StatusCode, String) {
    match headers.get(name).and_then(|v| v.to_str().ok()) == Some(token) {
        true => (StatusCode::OK, text),
        false => (StatusCode::UNAUTHORIZED, String::new()),
    }
}

/// Good for an hour.
fn credentials(key: &str) -> String {
    let until = jiff::Timestamp::from_second(super::now_ms() / 1000 + 3600).expect("a time of today");
    serde_json::json!({
        "AccessKeyId": key, "SecretAccessKey": "s", "Token": format!("session of {key}"), "Expiration": until.to_string(),
    })
    .to_string()
}
