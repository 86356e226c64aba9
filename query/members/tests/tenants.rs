//! Questions about all tenants know those of whom only some member's head has anything.

mod in_process;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use in_process::{InProcess, Ingester, querier};
use members::ingesters::Ingesters;
use members::tenants::known_tenants;
use model::source::TenantList;
use model::source::at_once::at_once;
use model::tenant::TenantId;
use object_store::ObjectStore;
use object_store::memory::InMemory;

const T0: i64 = 1_700_000_000_000;

struct World {
    store: Arc<dyn ObjectStore>,
    transport: Arc<InProcess>,
    ingesters: [Ingester; 2],
    querier: Arc<Ingesters>,
}

impl World {
    /// Two members, each with a tenant of its own.
    async fn new() -> World {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let transport = Arc::new(InProcess::default());
        let mut ingesters = Vec::new();
        for n in 0..2 {
            let ingester = Ingester::start(n, &store, &transport).await;
            write(&ingester, &format!("team-{n}")).await;
            ingesters.push(ingester);
        }
        let querier = querier(&store, &transport, Duration::from_secs(3)).await;
        let Ok(ingesters) = ingesters.try_into() else { panic!("two were started") };
        World { store, transport, ingesters, querier }
    }

    async fn known(&self) -> TenantList {
        let querier = self.querier.clone();
        tokio::task::spawn_blocking(move || known_tenants(&querier)).await.unwrap()
    }

    /// The tenants, where everybody said.
    async fn all(&self) -> BTreeSet<String> {
        let known = self.known().await;
        assert!(known.unknown.is_empty(), "{:?}", known.unknown);
        known.tenants.iter().map(ToString::to_string).collect()
    }
}

async fn write(ingester: &Ingester, tenant: &str) {
    let db = ingester.db.clone().unwrap();
    let mut appender = db.appender(&TenantId::new(tenant).unwrap()).await.unwrap();
    let series = appender.series(&[("__name__", "up")]);
    appender.float(series, T0, 1.0, 0);
    appender.commit().await.unwrap();
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_of_heads_alone_are_known_at_once_and_once_flushed() {
    let mut world = World::new().await;
    assert!(world.querier.reader().tenants().is_empty(), "nothing is in the bucket");
    assert_eq!(world.all().await, names(["team-0", "team-1"]));
    write(&world.ingesters[0], "team-2").await;
    assert_eq!(world.all().await, names(["team-0", "team-1", "team-2"]));
    // The querier has not read the roster since: it finds out when the member does not answer.
    world.ingesters[0].hand_over(&world.store, &world.transport).await;
    assert_eq!(world.all().await, names(["team-0", "team-1", "team-2"]));
    assert_eq!(world.querier.reader().tenants().len(), 2, "they are in the bucket now");
}

#[tokio::test(flavor = "multi_thread")]
async fn member_that_does_not_say_its_tenants_is_named_until_it_does() {
    let mut world = World::new().await;
    world.ingesters[1].die(&world.transport).await;
    let known = world.known().await;
    assert_eq!(known.tenants.iter().map(ToString::to_string).collect::<Vec<_>>(), ["team-0"]);
    let [unknown] = &known.unknown[..] else { panic!("{:?}", known.unknown) };
    assert!(unknown.why.to_string().contains(&world.ingesters[1].name), "{}", unknown.why);
    assert_eq!(unknown.from_ms, None);
    // By its own word it has nothing older than this.
    world.ingesters[1].owes_from_ms = Some(T0);
    world.ingesters[1].tell(&world.store).await;
    assert_eq!(world.known().await.unknown[0].from_ms, Some(T0));
    world.ingesters[1].come_back(&world.store, &world.transport).await;
    assert_eq!(world.all().await, names(["team-0", "team-1"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_of_its_replica_group_speaks_for_a_member() {
    let mut world = World::new().await;
    for ingester in &mut world.ingesters {
        ingester.join_group(&world.store, "pair").await;
    }
    world.querier.refresh().await.unwrap();
    world.ingesters[1].die(&world.transport).await;
    assert_eq!(world.all().await, names(["team-0"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn member_at_anothers_address_does_not_speak_for_it() {
    let world = World::new().await;
    let other = world.ingesters[0].db.clone().unwrap();
    world.transport.open.lock().unwrap().insert(world.ingesters[1].address.clone(), other);
    let known = world.known().await;
    assert_eq!(known.unknown.len(), 1, "{:?}", known.unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_that_may_not_wait_are_not_made_to() {
    let world = World::new().await;
    let (known, refused) = at_once(10, || known_tenants(&world.querier));
    assert!(refused.is_some() && known.unknown.len() == 1, "{known:?}");
}
