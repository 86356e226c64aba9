//! Several processes, one database: which of them take samples, and how a query sees what they have not
//! brought to the bucket yet, each sample once.
//!
//! The life of a question:
//!
//! 1. Every process writes a record of itself into the bucket ([`roster`]), again and again. That of one
//!    which takes samples is a debt: until it is withdrawn, after a last flush, nobody may answer without it.
//! 2. A querier reads the roster and the catalogs ([`ingesters`]). For a query it pins both: the members that
//!    owe samples, and one snapshot S of the tenant's catalog.
//! 3. It asks every such member for what lies above its watermark in S, the *floor* ([`wire::request`]). The
//!    member answers out of [`tsdb::db::Db::above`] ([`answer`]): a header, the label sets that will come,
//!    and the samples in columns, as one Arrow stream ([`wire`]). What the bucket has by now and the member
//!    has let go of is answered with the number of a newer snapshot, and the query begins again on that one.
//! 4. [`source`] makes one [`model::source::Source`] of S's blocks and all answers. Copies of a sample are
//!    one by the rule of [`model::source::merge::conflict`]: of several members' values the greatest stands.
//! 5. A member that does not answer fails the query and is named, unless another of its replica group
//!    answered, or the client wants a part rather than an error: then the answer says what is missing.
//!
//! Questions about all tenants first ask members whose samples they have ([`tenants`]).
//!
//! Why each sample is there once: one commit moves blocks and watermark together. A sample is in S's blocks,
//! and then its segment of the log is at or below the floor; or it is above the floor, and then the member
//! has it. Whoever flushes, compacts or restarts meanwhile changes neither.

pub mod addresses;
pub mod answer;
pub mod ask;
pub mod client;
pub mod error;
pub mod ingesters;
pub mod roster;
pub mod routes;
pub mod source;
pub mod tenants;
pub mod who;
pub mod wire;

/// The version of questions and answers between processes. One that is asked in another version refuses.
pub const PROTOCOL: u32 = 1;
