//! The write path from HTTP to the store.
//!
//! The life of a write:
//!
//! 1. It arrives at [`http::router`]. Content type and encoding say which protocol it speaks (else 415), a
//!    header or the absence of one says whose it is.
//! 2. Who sends faster than its tenant may is told to come again (503). The first bytes of the body declare
//!    its decoded length. If that is within the [`limits::Limits`], which a tenant may have of its own, the
//!    rest of the body is read; memory for what has arrived, and then for what it becomes, is reserved from
//!    what all requests share (else 503).
//! 3. Snappy is undone; a hand-written parser walks the message once ([`remote_write::v1`],
//!    [`remote_write::v2`]), every string borrowed, and fills one set of vectors per request. A series that
//!    comes as it came before is recognised ([`remote_write::series_cache`]) and its labels only compared.
//! 4. Each series is checked as upstream checks it: good ones go into the store's appender
//!    ([`remote_write::sink::Sink`]), bad ones are counted by [`reject::Reason`], the first few in words.
//! 5. The appender commits: when that returns, the samples are in the log. The answer is a 204, or a 400 that
//!    names what was left out.
//!
//! Exemplars go the same way. One that is late, broken or too long is left out as upstream leaves it out:
//! 2.0's answer tells of it, 1.0's does not. `REMOTE_WRITE.md` beside this crate goes through 2.0's
//! specification sentence by sentence, with the test that holds each.
//!
//! A second way in: text as targets expose it ([`text::parse`]) goes through the same checks into an appender
//! ([`text::append`]). That is how the server's own metrics get into itself.
//!
//! A third: what other programs have kept, block by block straight into the object store ([`import`]).

pub mod http;
pub mod import;
pub mod limits;
pub mod memory;
pub mod metrics;
pub mod protocol;
mod rate;
pub mod reject;
pub mod remote_write;
pub mod text;

pub use limits::Limits;
pub use remote_write::{DecodeError, Malformed, Outcome};
