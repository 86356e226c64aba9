//! Profiles of the running process over HTTP, at Go's paths, so that `go tool pprof` and its like read them:
//!
//! 1. `GET /debug/pprof/profile?seconds=30` samples the stacks of all threads that work ([`cpu`]), a hundred
//!    times in each second of processor time, and counts them.
//! 2. `GET /debug/pprof/heap` shows what memory is for ([`heap`]).
//! 3. Stacks become functions, and what was counted a message of pprof's format ([`mod@format`]), packed.
//!
//! All of it is off unless `admin_api` is set: a profile costs time, and its names tell what runs here.

mod cpu;
mod format;
mod heap;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::http::Server;
use crate::secrets::redacted;

const LISTED: &str = "Profiles of this process, for `go tool pprof http://…`:\n\n\
    /debug/pprof/profile?seconds=30   processor time\n\
    /debug/pprof/heap                 memory in use, by kind\n\
    /debug/pprof/cmdline              the command line\n";

/// The routes; `enabled` is `admin_api`.
pub fn router(enabled: bool, server: Server) -> Router {
    let allow = move |request: Request, next: Next| async move {
        match enabled {
            true => next.run(request).await,
            false => refusal(StatusCode::FORBIDDEN, "profiles are off: admin_api: true switches them on"),
        }
    };
    Router::new()
        .route("/debug/pprof/", get(|| async { LISTED }))
        .route("/debug/pprof/cmdline", get(command_line))
        .route("/debug/pprof/profile", get(cpu::profile))
        .route("/debug/pprof/heap", get(heap::profile))
        .route_layer(middleware::from_fn(allow))
        .with_state(server)
}

/// The arguments with a zero between them, as Go has it, and without secrets.
async fn command_line() -> Response {
    let arguments: Vec<String> = std::env::args().map(|argument| redacted(&argument)).collect();
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], arguments.join("\0")).into_response()
}

/// A profile as a file, by the name that Go gives it.
fn download(profile: Vec<u8>, name: &str) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
        // It is packed already.
        (header::CONTENT_ENCODING, "identity".to_owned()),
    ];
    (headers, profile).into_response()
}

/// Why there is none, as Go says it: in plain text, with a header by which its tools know.
fn refusal(status: StatusCode, why: impl std::fmt::Display) -> Response {
    (status, [("x-go-pprof", "1")], format!("{why}\n")).into_response()
}

/// A parameter that is a number of seconds; `None` where it is not given.
fn seconds(uri: &Uri) -> Result<Option<u64>, String> {
    let query = uri.query().unwrap_or("");
    let given = query.split('&').find_map(|pair| pair.strip_prefix("seconds="));
    let Some(text) = given else { return Ok(None) };
    match text.parse() {
        Ok(seconds) if (1..=cpu::LONGEST_S).contains(&seconds) => Ok(Some(seconds)),
        _ => Err(format!("seconds is {text:?}, and has to be a whole number from 1 to {}", cpu::LONGEST_S)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_of_a_profile_are_bounded() {
        let of = |query: &str| seconds(&format!("/debug/pprof/profile?{query}").parse().unwrap());
        assert_eq!((of(""), of("seconds=5"), of("x=1&seconds=300")), (Ok(None), Ok(Some(5)), Ok(Some(300))));
        for wrong in ["seconds=0", "seconds=301", "seconds=-1", "seconds=", "seconds=1.5", "seconds=1e9"] {
            assert!(of(wrong).unwrap_err().contains("from 1 to 300"), "{wrong}");
        }
    }
}
