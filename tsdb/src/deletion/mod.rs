//! What must not be seen although it is stored: deleted samples, and those of series that are kept less long
//! than others.
//!
//! A [`Visibility`] is made of a snapshot's tombstones and of retention rules at one moment. It is applied to
//! each block before blocks are merged, so that a sample written again after its deletion is seen; queries
//! and compaction read through the same one, and what a compaction wrote that way holds nothing hidden any
//! more. Where nothing concerns a block, and that is the usual case, it costs a comparison of times.
//!
//! Readers of a snapshot's blocks: `BucketSource::new(..).with_visibility(snapshot.visibility())`. A
//! compaction reads its inputs through the visibility of the same snapshot that it was planned from and
//! commits [`Edit::written_through`](crate::catalog::Edit::written_through) that snapshot; the commit drops
//! the tombstones that no live block needs any more. A block that holds no such series needs no rewriting:
//! `Edit::clean` says so.

mod intervals;
mod visibility;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::block_meta::BlockMeta;
use crate::ulid_text;
use model::labels::Labels;
use model::matcher::matches_all;
use model::matcher::{MatchOp, Matcher};
use model::tenant::TenantId;

pub use intervals::{Cutter, Intervals};
pub(crate) use visibility::{BlockVisibility, Concern, Resolved};

/// The rules of retention of a tenant.
pub type RetentionOf = Arc<dyn Fn(&TenantId) -> Arc<RetentionRules> + Send + Sync>;

/// A deletion: the samples of some series in a range of time, in blocks that were there when it was asked
/// for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// Ascending in the order of commits.
    #[serde(with = "ulid_text::one")]
    pub ulid: Ulid,
    /// All must match. A label that a series lacks counts as empty.
    #[serde(with = "matcher_texts")]
    pub matchers: Vec<Matcher>,
    /// First and last timestamp that is deleted, both included, in milliseconds.
    pub min_t_ms: i64,
    pub max_t_ms: i64,
    /// It reaches blocks whose [`BlockMeta::order`] is not beyond this; what was written later is not its
    /// business.
    #[serde(with = "ulid_text::one")]
    pub covers: Ulid,
    /// When it was asked for, in milliseconds.
    pub created_ms: i64,
}

impl Tombstone {
    /// A deletion that is to be committed; the commit sets how far it reaches.
    pub fn new(matchers: Vec<Matcher>, min_t_ms: i64, max_t_ms: i64, now_ms: i64) -> Tombstone {
        Tombstone { ulid: Ulid::new(), matchers, min_t_ms, max_t_ms, covers: Ulid::nil(), created_ms: now_ms }
    }

    /// Whether a block may hold samples of it: by order and time, not by labels.
    pub fn concerns(&self, block: &BlockMeta) -> bool {
        block.overlaps(self.min_t_ms, self.max_t_ms) && block.order() <= self.covers
    }

    /// Whether all that another one deletes, this one deletes too.
    pub(crate) fn includes(&self, other: &Tombstone) -> bool {
        self.matchers == other.matchers
            && self.min_t_ms <= other.min_t_ms
            && other.max_t_ms <= self.max_t_ms
            && other.covers <= self.covers
    }

    /// About how many bytes it takes in a snapshot.
    pub(crate) fn text_bytes(&self) -> usize {
        200 + self.matchers.iter().map(|m| 40 + m.name.len() + m.value.len()).sum::<usize>()
    }
}

/// How long the samples of some series are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionRule {
    pub matchers: Vec<Matcher>,
    /// Counted back from now; `None` for ever.
    pub keep_ms: Option<i64>,
}

/// Rules by selector. The first that matches a series decides; where none does, the last word is
/// `otherwise_ms`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionRules {
    pub rules: Vec<RetentionRule>,
    /// `None` keeps for ever.
    pub otherwise_ms: Option<i64>,
}

impl RetentionRules {
    /// Whether everything is kept for ever.
    pub fn is_endless(&self) -> bool {
        self.otherwise_ms.is_none() && self.rules.iter().all(|r| r.keep_ms.is_none())
    }

    /// The first timestamp that is kept of a series, in milliseconds; `None`: all are.
    pub fn first_kept_ms(&self, labels: &Labels, now_ms: i64) -> Option<i64> {
        let rule = self.rules.iter().find(|r| matches_all(labels, &r.matchers));
        rule.map_or(self.otherwise_ms, |r| r.keep_ms).map(|keep| now_ms.saturating_sub(keep))
    }

    /// Before this every sample of every series has expired; `None`: some are kept for ever.
    pub fn nothing_kept_before_ms(&self, now_ms: i64) -> Option<i64> {
        let longest = self.rules.iter().map(|r| r.keep_ms).chain([self.otherwise_ms]);
        let longest = longest.reduce(|a, b| Some(a?.max(b?)))?;
        longest.map(|keep| now_ms.saturating_sub(keep))
    }

    /// The youngest age at which a rule takes a sample away.
    fn shortest_ms(&self) -> Option<i64> {
        self.rules.iter().filter_map(|r| r.keep_ms).chain(self.otherwise_ms).min()
    }
}

/// What readers of a snapshot must not see: what tombstones and rules of retention hide.
#[derive(Clone, Debug, Default)]
pub struct Visibility {
    /// Ascending by ULID.
    tombstones: Vec<Arc<Tombstone>>,
    /// Block → the newest tombstone of which it holds nothing any more.
    clean: BTreeMap<Ulid, Ulid>,
    retention: Arc<RetentionRules>,
    now_ms: i64,
}

impl Visibility {
    pub(crate) fn of(tombstones: &[Arc<Tombstone>], clean: &BTreeMap<Ulid, Ulid>) -> Visibility {
        Visibility { tombstones: tombstones.to_vec(), clean: clean.clone(), ..Visibility::default() }
    }

    /// The same with rules of retention as they stand at `now_ms`.
    pub fn with_retention(self, retention: Arc<RetentionRules>, now_ms: i64) -> Visibility {
        Visibility { retention, now_ms, ..self }
    }

    /// Whether nothing is hidden, in no block.
    pub fn is_empty(&self) -> bool {
        self.tombstones.is_empty() && self.retention.is_endless()
    }

    /// The tombstones that may hide samples of a block.
    pub fn tombstones_of(&self, block: &BlockMeta) -> Vec<Arc<Tombstone>> {
        if self.tombstones.is_empty() {
            return Vec::new();
        }
        let clean_to = self.clean.get(&block.ulid);
        let left =
            self.tombstones.iter().filter(|t| clean_to.is_none_or(|c| t.ulid > *c) && t.concerns(block));
        left.cloned().collect()
    }

    /// Whether anything of a block may be hidden, by order and time.
    pub fn concerns(&self, block: &BlockMeta) -> bool {
        !self.tombstones_of(block).is_empty() || self.expires_in(block)
    }

    /// Samples before this have expired, or some of them have; `None` where all are kept for ever.
    pub fn expires_before_ms(&self) -> Option<i64> {
        self.retention.shortest_ms().map(|keep| self.now_ms.saturating_sub(keep))
    }

    /// Whether rules of retention hide something of a block's time.
    fn expires_in(&self, block: &BlockMeta) -> bool {
        self.retention.shortest_ms().is_some_and(|keep| block.min_t_ms < self.now_ms.saturating_sub(keep))
    }

    /// What of one series in one block is hidden. For readers that have labels at hand; whoever reads whole
    /// blocks has it resolved once against the block's series table.
    pub fn hidden(&self, block: &BlockMeta, labels: &Labels) -> Intervals {
        let mut hidden = Intervals::default();
        for t in self.tombstones_of(block) {
            if matches_all(labels, &t.matchers) {
                hidden.add(t.min_t_ms, t.max_t_ms);
            }
        }
        if let Some(first) = self.retention.first_kept_ms(labels, self.now_ms) {
            hidden.add(i64::MIN, first.saturating_sub(1));
        }
        hidden
    }
}

/// Matchers as a selector, for people: `{job="x",le!=""}`.
pub fn selector_text(matchers: &[Matcher]) -> String {
    let mut out = String::from("{");
    for (i, m) in matchers.iter().enumerate() {
        // Writing into a string does not fail.
        let _ = write!(out, "{}{m}", if i > 0 { "," } else { "" });
    }
    out.push('}');
    out
}

/// Matchers as a list of `{name, op, value}`.
mod matcher_texts {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{MatchOp, Matcher};

    #[derive(Serialize, Deserialize)]
    struct Text {
        name: String,
        op: String,
        value: String,
    }

    pub fn serialize<S: Serializer>(matchers: &[Matcher], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(matchers.iter().map(|m| Text {
            name: m.name.to_string(),
            op: m.op.as_str().to_string(),
            value: m.value.to_string(),
        }))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Matcher>, D::Error> {
        let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
        let one = |t: Text| {
            let op = ops.into_iter().find(|op| op.as_str() == t.op);
            let op = op.ok_or_else(|| serde::de::Error::custom(format!("{:?} is no way to match", t.op)))?;
            Matcher::new(op, &t.name, &t.value).map_err(serde::de::Error::custom)
        };
        Vec::<Text>::deserialize(d)?.into_iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_rule_that_matches_first_decides_how_long_a_series_is_kept() {
        let rule = |name: &str, value: &str, keep_ms| RetentionRule {
            matchers: vec![Matcher::equal(name, value)],
            keep_ms,
        };
        let retention = RetentionRules {
            rules: vec![rule("job", "audit", None), rule("env", "debug", Some(10))],
            otherwise_ms: Some(100),
        };
        let of = |pairs: &[(&str, &str)]| {
            retention.first_kept_ms(&Labels::from_pairs(pairs.iter().copied()), 1000)
        };
        assert_eq!(of(&[("job", "audit"), ("env", "debug")]), None);
        assert_eq!(of(&[("job", "web"), ("env", "debug")]), Some(990));
        assert_eq!(of(&[("job", "web")]), Some(900));
        assert_eq!(retention.nothing_kept_before_ms(1000), None, "an audit is for ever");
        let short = RetentionRules { rules: vec![rule("env", "debug", Some(10))], otherwise_ms: Some(100) };
        assert_eq!(short.nothing_kept_before_ms(1000), Some(900));
        assert!(RetentionRules::default().is_endless() && Visibility::default().is_empty());
    }
}
