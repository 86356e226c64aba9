//! Rules and alerts: recording rules write new series, alerting rules tell Alertmanagers.
//!
//! The life of a rule:
//!
//! 1. It is written in a rule file (`file`), as Prometheus has them, or sent over HTTP by a tenant.
//!    Everything that is wrong with a file is said with its line and column, and what ran before runs on.
//! 2. Its group ([`group`]) is evaluated at slots of its interval, on threads that may block: each rule's
//!    query goes through the engine of [`query`], one after the other, and what a rule writes is there for
//!    the next one. Series that are gone are marked stale.
//! 3. Slots that nobody could look at in time are filled afterwards, oldest first, for what recording rules
//!    would have written.
//! 4. What an alerting rule finds moves its alerts ([`alert`]) from pending to firing to resolved; their
//!    labels and annotations are templates ([`template`]). Their state is written as series, out of which a
//!    restart reads it back.
//! 5. Alerts that have to be told go to the Alertmanagers ([`notifier`]): a queue for each, so that one
//!    which is away holds up no other.
//!
//! Beside it: the [`api`] that shows and changes rules, and the tools, which check files ([`mod@check`]),
//! run their unit tests ([`unit_test`]) and compute rules for the past ([`backfill`]).

pub mod alert;
pub mod api;
pub mod backfill;
pub mod check;
pub mod file;
pub mod group;
mod links;
pub mod metrics;
pub mod notifier;
mod regex;
pub mod relabel;
pub mod sources;
pub mod template;
pub mod unit_test;
