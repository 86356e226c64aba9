//! Leases: one holder at a time as long as clocks agree, the next one when the time is over, and never a
//! number twice.

use std::sync::Arc;
use std::time::Duration;

use model::clock::ManualClock;
use model::tenant::TenantId;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tsdb::catalog::lease::Leases;

const MINUTE: Duration = Duration::from_secs(60);

fn holder(store: &Arc<dyn ObjectStore>, clock: &ManualClock, name: &str) -> Leases {
    Leases::new(store.clone(), Arc::new(clock.clone()), TenantId::single(), name)
}

#[tokio::test]
async fn lease_is_held_until_it_is_given_back_or_runs_out() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let clock = ManualClock::at(1_000_000);
    let (a, b) = (holder(&store, &clock, "a"), holder(&store, &clock, "b"));
    let held = a.take("slot-1", MINUTE).await.unwrap().expect("free");
    assert!(b.take("slot-1", MINUTE).await.unwrap().is_none());
    assert!(b.take("slot-2", MINUTE).await.unwrap().is_some(), "another name is another lease");
    clock.advance(50_000);
    let held = a.renew(&held, MINUTE).await.unwrap().expect("still ours");
    clock.advance(50_000);
    assert!(b.take("slot-1", MINUTE).await.unwrap().is_none(), "renewed");
    a.give_back(held).await;
    let second = b.take("slot-1", MINUTE).await.unwrap().expect("given back");
    clock.advance(60_001);
    assert!(a.take("slot-1", MINUTE).await.unwrap().is_some(), "run out");
    assert!(b.renew(&second, MINUTE).await.unwrap().is_none(), "another has it");
    // A restart under the same name does not wait for itself.
    assert!(holder(&store, &clock, "a").take("slot-1", MINUTE).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_goes_to_one_of_many_that_try_at_once() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let clock = ManualClock::at(5);
    for round in 0..20i64 {
        let tries = (0..8).map(|i| {
            let leases = holder(&store, &clock, &format!("worker-{i}"));
            tokio::spawn(async move { leases.take("slot-3", MINUTE).await.unwrap().is_some() })
        });
        let mut winners = 0;
        for t in tries.collect::<Vec<_>>() {
            winners += usize::from(t.await.unwrap());
        }
        assert_eq!(winners, 1, "round {round}");
        clock.advance(60_001);
    }
}
