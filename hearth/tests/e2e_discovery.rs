//! Members that are reached where DNS, files and others say, not where they say themselves: followed as they
//! move.

mod test_services;

use std::path::{Path, PathBuf};
use std::time::Duration;

use discovery::zookeeper::connection::{Connection, Failure};
use test_services::coordinators::{Coordinator, Kind};
use test_services::dns::Dns;
use test_services::registries::{Registry, SECRET};
use test_services::{Hearth, Start, free_port, now_ms, series, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// Two ingesters that say of themselves that they are where nobody is, on a bucket of their own. Each has
/// one series `alone`.
struct Fleet {
    folder: PathBuf,
    t_ms: i64,
    ingesters: Vec<Hearth>,
}

impl Fleet {
    fn start(folder: &Path) -> Fleet {
        let mut fleet = Fleet { folder: folder.to_owned(), t_ms: now_ms() - 60_000, ingesters: Vec::new() };
        let lost = "advertise_address: 'http://127.0.0.1:1'";
        fleet.ingesters =
            (0..2).map(|n| fleet.process(&format!("ingest-{n}"), "ingest", lost).spawn()).collect();
        fleet.ingesters.iter_mut().for_each(Hearth::wait_ready);
        for (n, ingester) in fleet.ingesters.iter().enumerate() {
            let labels = [("__name__", "alone"), ("n", &*n.to_string())];
            ingester.api.write(&[series(&labels, &[(fleet.t_ms, 1.0)])]);
        }
        fleet
    }

    /// A process of a role; `members` are its settings of members.
    fn process(&self, name: &str, role: &str, members: &str) -> Start {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder).expect("a folder for a Hearth");
        std::fs::write(folder.join("token"), "a-secret").expect("a token can be written");
        let mut start = Start::at(&folder).config(&format!(
            "role: {role}\nmembers: {{token_file: token, interval: 1s, {members}}}\nself_metrics_interval: 0\n"
        ));
        start.objstore = Some(format!("file://{}", self.folder.join("bucket").display()));
        start
    }

    fn querier(&self, name: &str, members: &str) -> Hearth {
        self.process(name, "query", members).ready()
    }

    fn ports(&self) -> [u16; 2] {
        [self.ingesters[0].start.port, self.ingesters[1].start.port]
    }

    /// One ingester stops without a word and comes back on another port.
    fn move_one(&mut self) {
        let mut one = self.ingesters.pop().expect("a second one");
        one.kill();
        let port = free_port();
        let mut start = one.start.clone();
        start.port = port;
        drop(one);
        self.ingesters.push(start.ready());
    }

    /// How many of the two series a querier shows; an error is none.
    fn seen_by(&self, querier: &Hearth) -> usize {
        let time = test_services::api::seconds(self.t_ms);
        let answer = querier.api.get("/api/v1/query", &[("query", "alone"), ("time", &time)]);
        match answer.status {
            200 => test_services::api::data(&answer.data()).vector().len(),
            _ => 0,
        }
    }

    fn wait_seen(&self, what: &str, querier: &Hearth) {
        wait_for(what, PATIENCE, || (self.seen_by(querier) == 2).then_some(()));
    }
}

fn targets(ports: &[u16]) -> String {
    serde_json::json!([{ "targets": ports.iter().map(|p| format!("127.0.0.1:{p}")).collect::<Vec<_>>() }])
        .to_string()
}

#[test]
fn discovery_by_dns_and_files_follows_members_that_move() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::start(folder.path());
    let dns = Dns::start();
    dns.set("_hearth._tcp.test", &fleet.ports());
    dns.set("one.test", &[]);
    let file = folder.path().join("targets.json");
    std::fs::write(&file, targets(&fleet.ports())).expect("a file of targets");
    std::fs::write(folder.path().join("members.yml"), "file_sd_configs: [{files: [targets.json]}]\n")
        .expect("a file of sources");

    let by_srv = format!("addresses: ['dnssrv+http://_hearth._tcp.test?refresh=1s&server={}']", dns.address);
    let by_srv = fleet.querier("by-srv", &by_srv);
    // One by its address record, the other by a URL without a name.
    let [first, second] = fleet.ports();
    let by_address = fleet.querier(
        "by-address",
        &format!(
            "addresses: ['dns+http://one.test:{first}?server={}', 'http://127.0.0.1:{second}']",
            dns.address
        ),
    );
    let sources = folder.path().join("members.yml").display().to_string();
    let by_file = fleet.querier("by-file", &format!("discovery_file: '{sources}'"));
    let queriers = [&by_srv, &by_address, &by_file];
    for querier in queriers {
        assert_eq!(fleet.seen_by(querier), 2, "{}", querier.process.log_tail());
    }
    // Without a source they are sought where they say that they are.
    let lost = fleet.querier("lost", "zone: nowhere");
    assert_eq!(fleet.seen_by(&lost), 0);

    fleet.move_one();
    assert_eq!(fleet.seen_by(&by_address), 0, "nobody told where it is now");
    dns.set("_hearth._tcp.test", &fleet.ports());
    std::fs::write(&file, targets(&fleet.ports())).expect("a file of targets");
    fleet.wait_seen("DNS to say where it is", &by_srv);
    fleet.wait_seen("the file to say where it is", &by_file);
    // A file that nobody understands changes nothing.
    std::fs::write(&file, "[{").expect("a broken file");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(fleet.seen_by(&by_file), 2);
}

#[test]
fn discovery_asks_who_is_there_and_believes_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(folder.path());
    let other = tempfile::tempdir().expect("a folder");
    let stranger = Fleet::start(other.path());
    let away = free_port();
    let [first, second] = fleet.ports();
    let [theirs, _] = stranger.ports();
    let urls: Vec<String> =
        [first, second, theirs, away].iter().map(|p| format!("'http://127.0.0.1:{p}'")).collect();
    let querier = fleet.querier("query-0", &format!("addresses: [{}]", urls.join(", ")));
    assert_eq!(fleet.seen_by(&querier), 2);
    let status = querier.api.get("/api/v1/status/members", &[]).data();
    let found = |port: u16| {
        let all = status["found"].as_array().expect("a list");
        let address = format!("http://127.0.0.1:{port}");
        all.iter()
            .find(|f| f["address"] == *address)
            .unwrap_or_else(|| panic!("{address} in {status}"))
            .clone()
    };
    assert_eq!((&found(first)["isKnown"], &found(second)["isKnown"]), (&true.into(), &true.into()));
    assert_eq!(found(theirs)["isKnown"], false, "it is of another bucket: {status}");
    assert!(found(away)["error"].as_str().is_some_and(|e| e.contains("does not answer")), "{status}");

    // Who is known by name stays where the setting says.
    let name = found(second)["name"].as_str().expect("a name").to_owned();
    let wrong = fleet.querier(
        "query-1",
        &format!("addresses: [{}, '{name}=http://127.0.0.1:{away}']", urls[..2].join(", ")),
    );
    assert_eq!(fleet.seen_by(&wrong), 0);

    // A token that is not theirs.
    let start = fleet.process("query-2", "query", &format!("addresses: [{}]", urls[..2].join(", ")));
    std::fs::write(start.folder.join("token"), "another").expect("a token");
    let stranger = start.ready();
    let status = stranger.api.get("/api/v1/status/members", &[]).data();
    assert!(status["found"][0]["error"].as_str().is_some_and(|e| e.contains("status 401")), "{status}");
}

/// A querier that finds members by a file of sources.
fn by(fleet: &Fleet, name: &str, sources: &str) -> Hearth {
    let file = fleet.folder.join(format!("{name}.yml"));
    std::fs::write(&file, sources).expect("a file of sources");
    fleet.querier(name, &format!("discovery_file: '{}'", file.display()))
}

/// Puts the ports of members into ZooKeeper, in the place of what was there: a serverset below `/set`, and
/// what Nerve writes below `/nerve/hearth`.
fn register(address: &str, ports: &[u16]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let put = async {
        let mut zookeeper = Connection::open(address, Duration::from_secs(10), None).await?;
        for parent in ["/set", "/nerve", "/nerve/hearth"] {
            match zookeeper.create(parent, "", false).await {
                Ok(()) | Err(Failure::Code(discovery::zookeeper::connection::NODE_EXISTS)) => {}
                Err(e) => return Err(e),
            }
        }
        for parent in ["/set", "/nerve/hearth"] {
            let (_, below) = zookeeper.watch(parent).await?.expect("it was created");
            for name in below {
                zookeeper.delete(&format!("{parent}/{name}"), -1).await?;
            }
        }
        for port in ports {
            let set = format!(
                r#"{{"serviceEndpoint":{{"host":"127.0.0.1","port":{port}}},"additionalEndpoints":{{}},"status":"ALIVE"}}"#
            );
            zookeeper.create(&format!("/set/member_{port}"), &set, false).await?;
            let nerve = format!(r#"{{"host":"127.0.0.1","port":{port},"name":"hearth-{port}"}}"#);
            zookeeper.create(&format!("/nerve/hearth/{port}"), &nerve, false).await?;
        }
        Ok(())
    };
    let put: Result<(), Failure> = runtime.block_on(put);
    put.map_err(|e| e.told()).expect("ZooKeeper takes what is registered");
}

#[test]
fn discovery_by_zookeeper_follows_members_that_move() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut zookeeper = Coordinator::start(Kind::ZooKeeper, folder.path());
    let mut fleet = Fleet::start(folder.path());
    let at = zookeeper.address();
    // The path is not there yet when this one begins.
    let early = by(&fleet, "early", &format!("nerve_sd_configs: [{{servers: ['{at}'], paths: [/nerve]}}]\n"));
    assert_eq!(fleet.seen_by(&early), 0);
    register(&at, &fleet.ports());
    fleet.wait_seen("Nerve's path to come", &early);
    let by_set =
        by(&fleet, "by-set", &format!("serverset_sd_configs: [{{servers: ['{at}'], paths: [/set]}}]\n"));
    assert_eq!(fleet.seen_by(&by_set), 2, "{}", by_set.process.log_tail());

    fleet.move_one();
    register(&at, &fleet.ports());
    for querier in [&early, &by_set] {
        fleet.wait_seen("ZooKeeper to say where it is", querier);
    }
    // While it is away, what it said stays.
    zookeeper.stop();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((fleet.seen_by(&early), fleet.seen_by(&by_set)), (2, 2));
}

#[test]
fn discovery_by_consul_follows_members_that_move() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::start(folder.path());
    let consul = Registry::consul(&fleet.ports());
    let at = &consul.address;
    let sources = |token: &str| {
        format!("consul_sd_configs: [{{server: '{at}', services: [hearth], token: '{token}'}}]\n")
    };
    let querier = by(&fleet, "by-consul", &sources(SECRET));
    assert_eq!(fleet.seen_by(&querier), 2, "{}", querier.process.log_tail());
    fleet.move_one();
    assert_eq!(fleet.seen_by(&querier), 0);
    consul.set(&fleet.ports());
    fleet.wait_seen("Consul to say where it is", &querier);

    // Refused, it says why; a file that is mended is read again.
    let refused = by(&fleet, "refused", &sources("wrong"));
    assert_eq!(fleet.seen_by(&refused), 0);
    let log = refused.process.log_tail();
    assert!(log.contains("Consul, service hearth: status 403: Permission denied"), "{log}");
    std::fs::write(folder.path().join("refused.yml"), sources(SECRET)).expect("a file of sources");
    fleet.wait_seen("the file to be read again", &refused);
}

#[test]
fn discovery_by_kubernetes_follows_members_that_move() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::start(folder.path());
    let api = Registry::kubernetes(&fleet.ports());
    let token = folder.path().join("account-token");
    std::fs::write(&token, format!("{SECRET}\n")).expect("a token");
    let sources = format!(
        "kubernetes_sd_configs:
- role: endpointslice
  api_server: http://{}
  namespaces: {{names: [metrics]}}
  selectors: [{{role: endpointslice, label: kubernetes.io/service-name=hearth}}]
  bearer_token_file: account-token
relabel_configs:
- {{source_labels: [__meta_kubernetes_endpointslice_port_name], regex: 'http-.*', action: keep}}
",
        api.address
    );
    let querier = by(&fleet, "by-kubernetes", &sources);
    assert_eq!(fleet.seen_by(&querier), 2, "{}", querier.process.log_tail());
    fleet.move_one();
    assert_eq!(fleet.seen_by(&querier), 0);
    api.set(&fleet.ports());
    fleet.wait_seen("a watch to say where it is", &querier);
    fleet.move_one();
    api.set_and_forget(&fleet.ports());
    fleet.wait_seen("a new list to say where it is", &querier);
    assert_eq!(fleet.seen_by(&querier), 2);
}
