//! HTTP. The life of a request:
//!
//! 1. The [`listener`] accepts a connection: within the bound on them, or else into the reserve, where health
//!    checks are answered and everything else waits a little for room.
//! 2. Its bytes come as they are or through TLS ([`transport`]), and are HTTP/1 or [`http2`].
//! 3. Its [`client_stream`] reads the request's head, makes a URL of what people type ([`request_line`]) and
//!    lets go of a client that does not read its answer.
//! 4. hyper makes a request of it, which the [`guard`] turns away if a browser was led here by a foreign page
//!    or name.
//! 5. The [`prefix`] that all paths begin with is taken off, where there is one.
//! 6. It is asked who sends it and for whom ([`admission`]).
//! 7. The [`routes`] of the roles answer, wrapped in counting, compression and an answer for handlers that
//!    panic.
//! 8. What the client still sends of a body that nobody read is dropped ([`unread_body`]), so that it sees
//!    the answer.

mod admission;
mod client_stream;
mod elsewhere;
mod error_json;
mod exposition;
pub mod guard;
mod http2;
pub mod listener;
pub mod prefix;
mod request_line;
mod routes;
mod transport;
mod unread_body;

pub use routes::Server;
