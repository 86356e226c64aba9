//! Which tenants have anything, in the bucket or at a member that has not flushed it yet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use model::source::at_once::may_wait;
use model::source::{SourceError, TenantList, UnknownTenants};
use model::tenant::TenantId;

use crate::error::{AskError, span_text};
use crate::ingesters::Ingesters;
use crate::roster::Member;
use crate::source::{ATTEMPTS, shown, too_old, uncovered};

/// Asks all members that owe samples for the tenants they have anything of. Blocks, a few seconds at most.
///
/// What was acknowledged before the call counts: who owes is looked up first and the bucket after that, so
/// that what a member has handed over meanwhile is found there.
pub fn known_tenants(ingesters: &Arc<Ingesters>) -> TenantList {
    let (mut tenants, mut unknown) = (BTreeSet::new(), Vec::new());
    if let Err(why) = may_wait() {
        return TenantList { tenants: Vec::new(), unknown: vec![UnknownTenants { why, from_ms: None }] };
    }
    for _ in 0..ATTEMPTS {
        unknown.clear();
        if ask(ingesters, &mut tenants, &mut unknown) {
            break;
        }
    }
    TenantList { tenants: tenants.into_iter().collect(), unknown }
}

/// Asks once; `false` where it has to be asked again, because who owes samples has changed.
fn ask(
    ingesters: &Arc<Ingesters>,
    tenants: &mut BTreeSet<TenantId>,
    unknown: &mut Vec<UnknownTenants>,
) -> bool {
    let mut lacks = |why, from_ms| unknown.push(UnknownTenants { why, from_ms });
    let begun = Instant::now();
    let mut known = ingesters.known();
    if known.is_stale().is_some() {
        // Where that fails it stays too old, which is said below.
        let _ = ingesters.look_again(&known);
        known = ingesters.known();
    }
    if let Some(why) = too_old(ingesters) {
        lacks(SourceError::storage(why), None);
    }
    tenants.extend(ingesters.reader().tenants());
    let asked: Vec<_> = known.owing().map(|member| tenants_of(ingesters.clone(), member.clone())).collect();
    let told = match ingesters.wait(join_all(asked)) {
        Ok(told) => told,
        Err(why) => {
            lacks(why, None);
            return true;
        }
    };
    let (mut answers, mut failed) = (Vec::new(), Vec::new());
    for (member, told) in told {
        match told {
            Ok(own) => {
                tenants.extend(own);
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
        lacks(why.of(&shown(ingesters, &member), span), from_ms);
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
