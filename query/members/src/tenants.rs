//! Which tenants have anything, in the bucket or at a member that has not flushed it yet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use model::source::SourceError;
use model::source::at_once::may_wait;
use model::tenant::TenantId;

use crate::error::{AskError, span_text};
use crate::ingesters::Ingesters;
use crate::roster::Member;
use crate::source::{ATTEMPTS, shown, too_old, uncovered};

/// The tenants that have anything, as far as members said.
#[derive(Debug, Default)]
pub struct KnownTenants {
    pub tenants: BTreeSet<TenantId>,
    /// Who did not say whose samples it has.
    pub unknown: Vec<Unknown>,
}

/// A member that did not say whose samples it has, and that nobody else has answered for.
#[derive(Debug)]
pub struct Unknown {
    /// Names it, and says what to do.
    pub why: SourceError,
    /// It has nothing older than this, in milliseconds; `None`: what it has may be of all times.
    pub from_ms: Option<i64>,
}

impl KnownTenants {
    fn add(&mut self, why: SourceError, from_ms: Option<i64>) {
        self.unknown.push(Unknown { why, from_ms });
    }
}

/// Asks all members that owe samples for the tenants they have anything of. Blocks, a few seconds at most.
///
/// What was acknowledged before the call counts: who owes is looked up first and the bucket after that, so
/// that what a member has handed over meanwhile is found there.
pub fn known_tenants(ingesters: &Arc<Ingesters>) -> KnownTenants {
    let mut all = KnownTenants::default();
    if let Err(why) = may_wait() {
        all.add(why, None);
        return all;
    }
    for _ in 0..ATTEMPTS {
        all.unknown.clear();
        if ask(ingesters, &mut all) {
            return all;
        }
    }
    all
}

/// Asks once; `false` where it has to be asked again, because who owes samples has changed.
fn ask(ingesters: &Arc<Ingesters>, all: &mut KnownTenants) -> bool {
    let begun = Instant::now();
    let mut known = ingesters.known();
    if known.is_stale().is_some() {
        // Where that fails it stays too old, which is said below.
        let _ = ingesters.look_again(&known);
        known = ingesters.known();
    }
    if let Some(why) = too_old(ingesters) {
        all.add(SourceError::storage(why), None);
    }
    all.tenants.extend(ingesters.reader().tenants());
    let asked: Vec<_> = known.owing().map(|member| tenants_of(ingesters.clone(), member.clone())).collect();
    let told = match ingesters.wait(join_all(asked)) {
        Ok(told) => told,
        Err(why) => {
            all.add(why, None);
            return true;
        }
    };
    let (mut answers, mut failed) = (Vec::new(), Vec::new());
    for (member, told) in told {
        match told {
            Ok(tenants) => {
                all.tenants.extend(tenants);
                answers.push((member, ()));
            }
            Err(why) => failed.push((member, why)),
        }
    }
    let failed = uncovered(failed, &answers);
    if failed.is_empty() {
        return true;
    }
    let changed = ingesters.look_again(&known);
    let now = ingesters.known();
    for (member, why) in failed {
        let owes = now.owing().find(|m| m.name == member.name).filter(|_| now.read_since(begun));
        let from_ms = owes.and_then(|member| member.owes_from_ms);
        let span = span_text((from_ms.unwrap_or(i64::MIN), i64::MAX));
        all.add(why.of(&shown(ingesters, &member), span), from_ms);
    }
    !matches!(changed, Ok(true))
}

/// The tenants that a member has anything of.
async fn tenants_of(ingesters: Arc<Ingesters>, member: Member) -> (Member, Result<Vec<TenantId>, AskError>) {
    let address = ingesters.address(&member);
    let told = ingesters.transport().who(&address, true).await;
    let tenants = told.and_then(|who| match who.name == member.name {
        true => Ok(who.tenants.iter().filter_map(|tenant| TenantId::new(tenant).ok()).collect()),
        false => Err(AskError::Wrong(format!("it is of {}, which is at its address", who.name))),
    });
    (member, tenants)
}
