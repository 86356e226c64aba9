//! Several sources followed at once: one task for each, and what all have found so far.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::teller::{Found, Teller};
use crate::{Discovery, Group, consul, dns, file, kubernetes, zookeeper};

/// Sources that are followed until this is dropped.
pub struct Followed {
    found: watch::Receiver<Vec<Found>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Followed {
    /// Begins to follow; runs on a tokio runtime. Static addresses are known at once.
    pub fn begin(sources: &[Discovery]) -> Followed {
        let at_first = |source: &Discovery| match source {
            Discovery::Static(groups) => Found { groups: groups.clone(), is_known: true, ..Found::default() },
            _ => Found::default(),
        };
        let (sender, found) = watch::channel(sources.iter().map(at_first).collect());
        let sender = Arc::new(sender);
        let mut tasks = Vec::new();
        for (at, source) in sources.iter().enumerate() {
            let teller = Teller::new(sender.clone(), at);
            tasks.push(match source.clone() {
                Discovery::Static(_) => continue,
                Discovery::Dns(names) => tokio::spawn(dns::follow(names, teller)),
                Discovery::File(files) => tokio::spawn(file::follow(files, teller)),
                Discovery::Consul(services) => tokio::spawn(consul::follow(*services, teller)),
                Discovery::ZooKeeper(paths) => tokio::spawn(zookeeper::follow(paths, teller)),
                Discovery::Kubernetes(slices) => tokio::spawn(kubernetes::follow(*slices, teller)),
            });
        }
        Followed { found, tasks }
    }

    /// What each source has found.
    pub fn found(&self) -> Vec<Found> {
        self.found.borrow().clone()
    }

    /// The groups of all sources.
    pub fn groups(&self) -> Vec<Group> {
        self.found.borrow().iter().flat_map(|found| found.groups.iter().cloned()).collect()
    }

    /// Why sources could not be read last.
    pub fn failures(&self) -> Vec<String> {
        self.found.borrow().iter().filter_map(|found| found.failure.clone()).collect()
    }

    /// Until every source was read, or could not be.
    pub async fn looked(&mut self) {
        let all = |found: &Vec<Found>| found.iter().all(|f| f.is_known || f.failure.is_some());
        // Without a sender nothing is followed, and nothing to wait for.
        let _ = self.found.wait_for(all).await;
    }

    /// Until something is found that was not; `false`: nothing will change any more.
    pub async fn changed(&mut self) -> bool {
        self.found.changed().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(target: &str) -> Group {
        Group { targets: vec![target.to_owned()], ..Group::default() }
    }

    #[tokio::test]
    async fn followed_keeps_what_was_found_while_a_source_fails() {
        let (sender, found) = watch::channel(vec![Found::default(), Found::default()]);
        let sender = Arc::new(sender);
        let tellers = [0, 1].map(|at| Teller::new(sender.clone(), at));
        let mut followed = Followed { found, tasks: Vec::new() };
        tellers[0].found(vec![group("a:1")]);
        tellers[1].failed("no answer".into());
        followed.looked().await;
        assert_eq!((followed.groups(), followed.failures()), (vec![group("a:1")], vec!["no answer".into()]));
        tellers[0].failed("gone".into());
        assert_eq!(followed.groups(), [group("a:1")]);
        tellers[0].found(vec![]);
        assert_eq!((followed.groups(), followed.failures().len()), (vec![], 1));
        drop((tellers, sender));
        while followed.changed().await {}
    }

    #[tokio::test]
    async fn followed_knows_static_addresses_at_once_and_that_they_do_not_change() {
        let mut followed = Followed::begin(&[Discovery::Static(vec![group("a:1")])]);
        assert_eq!(followed.groups(), [group("a:1")]);
        followed.looked().await;
        assert!(!followed.changed().await);
    }
}
