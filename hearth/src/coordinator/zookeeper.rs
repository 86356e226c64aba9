//! ZooKeeper as a register: persistent nodes created, read and removed over its own protocol.
//!
//! A session holds nothing that would have to outlive it, so there are no pings and no watches: an idle
//! connection ends, and the next operation makes another.

use std::fmt;
use std::sync::Arc;

use discovery::zookeeper::connection::{BAD_VERSION, Connection, Failure, NO_NODE, NODE_EXISTS};
use model::backoff::Backoff;
use tokio::time::{Instant, timeout};
use tsdb::catalog::RegisterError;
use tsdb::cause::Cause;

use super::{Address, FIRST_PAUSE, LONGEST_PAUSE, Login, PATIENCE};

/// A session longer unused than this may have ended on the server's side; the server's shortest is two ticks,
/// 4 s as it is delivered.
const SESSION: std::time::Duration = std::time::Duration::from_secs(10);
const IDLE: std::time::Duration = std::time::Duration::from_secs(3);

pub struct ZooKeeper {
    address: Address,
    login: Option<Login>,
    connection: tokio::sync::Mutex<Option<Connection>>,
}

impl fmt::Display for ZooKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zookeeper://{}{}", self.address.hosts.join(","), self.address.path)
    }
}

impl fmt::Debug for ZooKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a register does, as one operation that is tried again on another connection.
enum Operation<'a> {
    Create(&'a str),
    Read,
    Remove(&'a str),
}

impl ZooKeeper {
    pub fn new(address: Address, login: Option<Login>) -> ZooKeeper {
        ZooKeeper { address, login, connection: tokio::sync::Mutex::default() }
    }

    async fn run(&self, name: &str, operation: Operation<'_>) -> Result<Option<String>, RegisterError> {
        let begun = Instant::now();
        let mut held = self.connection.lock().await;
        let mut last = ("no host answered".to_string(), None);
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        // Each host twice at least: the connection that was kept may have been one that is gone.
        for host in self.address.hosts.iter().cycle() {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            let attempt = async {
                let mut connection = match held.take().filter(|c| c.idle() < IDLE) {
                    Some(kept) => kept,
                    None => Connection::open(host, SESSION, self.login.as_ref()).await?,
                };
                let done = self.operate(&mut connection, name, &operation).await?;
                Ok((connection, done))
            };
            match timeout(left.min(PATIENCE / 3), attempt).await {
                Ok(Ok((connection, done))) => {
                    *held = Some(connection);
                    return Ok(done);
                }
                Ok(Err(Failure::Code(code))) if !is_passing(code) => {
                    return Err(RegisterError::mend(format!("{self}: {name}: {}", meaning(code))));
                }
                Ok(Err(Failure::Code(code))) => last = (format!("{host}: {}", meaning(code)), None),
                Ok(Err(Failure::Broken(why))) => last = (format!("{host}: {why}"), None),
                Ok(Err(Failure::Io(e))) => last = (format!("{host}: {e}"), Some(Arc::new(e) as Cause)),
                Err(_) => last = (format!("{host} does not answer"), None),
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
        let (why, cause) = last;
        Err(RegisterError::wait(format!("{self} cannot be used: {why}")).with(cause))
    }

    async fn operate(
        &self,
        connection: &mut Connection,
        name: &str,
        operation: &Operation<'_>,
    ) -> Result<Option<String>, Failure> {
        let path = format!("{}/{name}", self.address.path);
        match operation {
            Operation::Read => Ok(connection.get(&path).await?.map(|(text, _)| text)),
            Operation::Create(text) => {
                match connection.create(&path, text, self.login.is_some()).await {
                    Ok(()) => return Ok(Some(text.to_string())),
                    Err(Failure::Code(NODE_EXISTS)) => {}
                    // Only what stands at the top makes its own parents; a claim without its parent is one on
                    // a register that lost its contents.
                    Err(Failure::Code(NO_NODE)) if !name.contains('/') => {
                        self.make_parents(connection).await?;
                        match connection.create(&path, text, self.login.is_some()).await {
                            Ok(()) => return Ok(Some(text.to_string())),
                            Err(Failure::Code(NODE_EXISTS)) => {}
                            Err(e) => return Err(e),
                        }
                    }
                    Err(e) => return Err(e),
                }
                match connection.get(&path).await? {
                    Some((there, _)) => Ok(Some(there)),
                    None => Err(Failure::Broken(format!("{name} came and went"))),
                }
            }
            Operation::Remove(text) => {
                let Some((_, version)) = connection.get(&path).await?.filter(|(there, _)| there == text)
                else {
                    return Ok(None);
                };
                match connection.delete(&path, version).await {
                    Ok(_) | Err(Failure::Code(NO_NODE | BAD_VERSION)) => Ok(None),
                    Err(e) => Err(e),
                }
            }
        }
    }

    async fn make_parents(&self, connection: &mut Connection) -> Result<(), Failure> {
        let ends = self.address.path.match_indices('/').map(|(at, _)| at).skip(1);
        for end in ends.chain([self.address.path.len()]) {
            match connection.create(&self.address.path[..end], "", self.login.is_some()).await {
                Ok(()) | Err(Failure::Code(NODE_EXISTS)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Whether another attempt may do better: a connection or session that was lost, a server that is behind or
/// busy.
fn is_passing(code: i32) -> bool {
    matches!(code, -4 | -7 | -112 | -118 | -9 | -5 | -123 | -127)
}

/// What an error means, and what to do where that depends on settings.
fn meaning(code: i32) -> String {
    let text = discovery::zookeeper::connection::meaning(code);
    match code {
        NO_NODE => text + ": has the coordinator lost its contents?",
        -102 => text + ": catalog.lock_credentials_file should hold user:password of who may",
        _ => text,
    }
}

#[async_trait::async_trait]
impl tsdb::catalog::Register for ZooKeeper {
    async fn create(&self, name: &str, text: &str) -> Result<String, RegisterError> {
        let there = self.run(name, Operation::Create(text)).await?;
        there.ok_or_else(|| RegisterError::wait(format!("{self}: {name} was neither created nor found")))
    }

    async fn read(&self, name: &str) -> Result<Option<String>, RegisterError> {
        self.run(name, Operation::Read).await
    }

    async fn remove(&self, name: &str, text: &str) -> Result<(), RegisterError> {
        self.run(name, Operation::Remove(text)).await.map(drop)
    }
}
