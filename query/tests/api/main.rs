//! The HTTP API from outside: every endpoint, every parameter's error, both methods, each status.

mod admin;
mod at_once;
mod bounds;
mod exemplars;
mod federate;
mod frame;
mod language;
mod large_results;
mod queries;
mod read;
mod replicas;
mod series;
mod status;
mod tenants;
mod thanos;
