//! The coordinators that can decide about commits where the object store cannot: ZooKeeper and etcd, as
//! registers of small texts.

mod etcd;
mod zookeeper;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use discovery::zookeeper::connection::Login;
use tsdb::catalog::Register;

use crate::secrets::{read_secret, redacted};

/// How long one operation on a coordinator may take, all its hosts and attempts together.
const PATIENCE: Duration = Duration::from_secs(4);

/// Pauses between attempts: each host is asked again soon, and then less often.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Where a coordinator is and what part of it is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    /// `host:port`, in the order in which they are tried.
    hosts: Vec<String>,
    /// Begins with a slash and does not end with one.
    path: String,
}

/// Reads `catalog.lock` and makes what it names, without asking it anything. `credentials` is a file that
/// holds `user:password`.
pub fn open(text: &str, credentials: Option<&std::path::PathBuf>) -> Result<Arc<dyn Register>, String> {
    let login = credentials.map(|file| login(file)).transpose()?;
    let wrong = |why: &str| {
        format!(
            "catalog.lock: {:?} {why}: write zookeeper://HOST:2181,HOST:2181/path or etcd://HOST:2379/path (etcd+tls:// with TLS)",
            redacted(text)
        )
    };
    let Some((scheme, rest)) = text.split_once("://") else { return Err(wrong("is not a URL")) };
    if rest.contains('@') {
        return Err(format!(
            "catalog.lock: it holds credentials, which belong in a file: catalog.lock_credentials_file (after {scheme}://)"
        ));
    }
    let port = match scheme {
        "zookeeper" | "zk" => 2181,
        "etcd" | "etcd+tls" => 2379,
        _ => return Err(wrong("is of a kind that is not known here")),
    };
    let address = address(rest, port).map_err(wrong)?;
    Ok(match scheme {
        "zookeeper" | "zk" => Arc::new(zookeeper::ZooKeeper::new(address, login)),
        scheme => Arc::new(etcd::Etcd::new(address, scheme == "etcd+tls", login)?),
    })
}

fn address(rest: &str, port: u16) -> Result<Address, &'static str> {
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_end_matches('/');
    if path.is_empty() || path.split('/').any(|p| p.is_empty() || p == "." || p == "..") {
        return Err("names no path of its own in the coordinator");
    }
    let hosts: Vec<String> = hosts
        .split(',')
        .filter(|h| !h.is_empty())
        .map(|h| {
            let has_port =
                h.rsplit_once(':').is_some_and(|(name, p)| !name.is_empty() && p.parse::<u16>().is_ok());
            if has_port && (h.matches(':').count() == 1 || h.starts_with('[')) {
                h.to_owned()
            } else {
                format!("{h}:{port}")
            }
        })
        .collect();
    if hosts.is_empty() { Err("names no host") } else { Ok(Address { hosts, path: format!("/{path}") }) }
}

fn login(file: &Path) -> Result<Login, String> {
    let text = read_secret("catalog.lock_credentials_file", file)?;
    match text.split_once(':') {
        Some((user, password)) => Ok(Login { user: user.to_owned(), password: password.to_owned() }),
        None => Err(format!("catalog.lock_credentials_file: {} should hold user:password", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_hosts_and_a_path() {
        let expected = |hosts: &[&str], path: &str| {
            Ok(Address { hosts: hosts.iter().map(|h| h.to_string()).collect(), path: path.into() })
        };
        assert_eq!(address("a,b:99/x/y/", 2181), expected(&["a:2181", "b:99"], "/x/y"));
        assert_eq!(address("[::1]:7/x", 2181), expected(&["[::1]:7"], "/x"));
        for bad in ["a", "a/", "/x", "a//x", "a/../x"] {
            assert!(address(bad, 1).is_err(), "{bad}");
        }
        let error = open("zookeeper://me:secret@a/x", None).unwrap_err();
        assert!(!error.contains("secret") && error.contains("catalog.lock_credentials_file"), "{error}");
        assert!(open("etcd://a", None).unwrap_err().contains("names no path"));
        assert_eq!(open("zk://a,b/hearth", None).unwrap().to_string(), "zookeeper://a:2181,b:2181/hearth");
    }
}
