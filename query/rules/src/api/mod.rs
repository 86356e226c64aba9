//! Rules over HTTP: what Prometheus' API shows of them ([`show`]), and the configuration API of Mimir and
//! Cortex ([`config`]) over what a tenant has stored ([`store`]).

pub mod config;
pub mod show;
pub mod store;
