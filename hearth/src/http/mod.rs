//! HTTP: the listener with its bounds, and the routes behind it.

pub mod listener;
mod routes;

pub use routes::Server;
