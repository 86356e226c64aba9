//! ZooKeeper as a register: persistent nodes created, read and removed over its own protocol.
//!
//! Of the protocol ([its
//! definition](https://github.com/apache/zookeeper/blob/master/zookeeper-jute/src/main/resources/zookeeper.jute))
//! this speaks what a register needs: connect, create, get, sync, delete, authentication. A session holds
//! nothing that would have to outlive it, so there are no pings and no watches: an idle connection ends, and
//! the next operation makes another.

use std::fmt;
use std::io;
use std::sync::Arc;

use model::backoff::Backoff;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tsdb::catalog::RegisterError;
use tsdb::cause::Cause;

use super::{Address, FIRST_PAUSE, LONGEST_PAUSE, Login, PATIENCE};

/// A session longer unused than this may have ended on the server's side; the server's shortest is two ticks,
/// 4 s as it is delivered.
const SESSION_MS: i32 = 10_000;
const IDLE: std::time::Duration = std::time::Duration::from_secs(3);
/// The longest answer that is read; a node holds at most 1 MiB.
const LONGEST_ANSWER_BYTES: usize = 2 << 20;

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const GET_DATA: i32 = 4;
const SYNC: i32 = 9;
const AUTH: i32 = 100;

const NO_NODE: i32 = -101;
const BAD_VERSION: i32 = -103;
const NODE_EXISTS: i32 = -110;

pub struct ZooKeeper {
    address: Address,
    login: Option<Login>,
    connection: tokio::sync::Mutex<Option<Connection>>,
}

struct Connection {
    stream: TcpStream,
    next_xid: i32,
    used: Instant,
}

/// An operation that the server refused, or a connection that broke.
enum Failure {
    Code(i32),
    Broken(String),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Failure {
        Failure::Io(e)
    }
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

/// A request's body as it is put together.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn int(mut self, n: i32) -> Body {
        self.0.extend(n.to_be_bytes());
        self
    }

    fn long(mut self, n: i64) -> Body {
        self.0.extend(n.to_be_bytes());
        self
    }

    fn bytes(self, bytes: &[u8]) -> Body {
        let mut with = self.int(bytes.len() as i32);
        with.0.extend(bytes);
        with
    }

    fn byte(mut self, b: u8) -> Body {
        self.0.push(b);
        self
    }
}

/// An answer as it is taken apart.
struct Answer {
    bytes: Vec<u8>,
    at: usize,
}

impl Answer {
    fn take(&mut self, n: usize) -> Result<&[u8], Failure> {
        let from = self.at;
        let to = from.checked_add(n).filter(|to| *to <= self.bytes.len());
        self.at = to.ok_or_else(|| Failure::Broken("an answer ends too early".into()))?;
        Ok(&self.bytes[from..self.at])
    }

    fn int(&mut self) -> Result<i32, Failure> {
        let four = self.take(4)?;
        Ok(i32::from_be_bytes(four.try_into().expect("four bytes were taken")))
    }

    fn buffer(&mut self) -> Result<Vec<u8>, Failure> {
        let length = usize::try_from(self.int()?).unwrap_or(0);
        self.take(length).map(<[u8]>::to_vec)
    }
}

impl Connection {
    async fn open(host: &str, login: Option<&Login>) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let mut new = Connection { stream, next_xid: 1, used: Instant::now() };
        // Protocol 0, nothing seen, a new session without a password, no read-only server.
        let hello = Body::default().int(0).long(0).int(SESSION_MS).long(0).bytes(&[0; 16]).byte(0);
        new.send(&hello.0).await?;
        let mut answer = new.receive().await?;
        let (_, granted_ms) = (answer.int()?, answer.int()?);
        if granted_ms <= 0 {
            return Err(Failure::Broken("the session was refused".into()));
        }
        if let Some(login) = login {
            let secret = format!("{}:{}", login.user, login.password);
            let auth = Body::default().int(-4).int(AUTH).int(0).bytes(b"digest").bytes(secret.as_bytes());
            new.send(&auth.0).await?;
            new.answer_to(-4).await?;
        }
        Ok(new)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut framed = (bytes.len() as i32).to_be_bytes().to_vec();
        framed.extend(bytes);
        Ok(self.stream.write_all(&framed).await?)
    }

    async fn receive(&mut self) -> Result<Answer, Failure> {
        let length = usize::try_from(self.stream.read_i32().await?).unwrap_or(usize::MAX);
        if length > LONGEST_ANSWER_BYTES {
            return Err(Failure::Broken(format!("an answer of {length} bytes is not one of ZooKeeper's")));
        }
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).await?;
        Ok(Answer { bytes, at: 0 })
    }

    async fn answer_to(&mut self, xid: i32) -> Result<Answer, Failure> {
        let mut answer = self.receive().await?;
        let got = answer.int()?;
        answer.take(8)?;
        let code = answer.int()?;
        match got {
            got if got != xid => Err(Failure::Broken(format!("answer {got} to request {xid}"))),
            _ if code != 0 => Err(Failure::Code(code)),
            _ => Ok(answer),
        }
    }

    async fn call(&mut self, kind: i32, body: Body) -> Result<Answer, Failure> {
        let xid = self.next_xid;
        self.next_xid = self.next_xid.wrapping_add(1).max(1);
        let mut bytes = Body::default().int(xid).int(kind).0;
        bytes.extend(body.0);
        self.send(&bytes).await?;
        let answer = self.answer_to(xid).await;
        self.used = Instant::now();
        answer
    }

    async fn create(&mut self, path: &str, text: &str, ours_alone: bool) -> Result<(), Failure> {
        // All rights: to everybody, or to whoever is logged in as we are.
        let (scheme, id): (&[u8], &[u8]) = if ours_alone { (b"auth", b"") } else { (b"world", b"anyone") };
        let body = Body::default().bytes(path.as_bytes()).bytes(text.as_bytes());
        let body = body.int(1).int(31).bytes(scheme).bytes(id).int(0);
        self.call(CREATE, body).await.map(drop)
    }

    /// A node's text and version, after the server we talk to has caught up with the others.
    async fn get(&mut self, path: &str) -> Result<Option<(String, i32)>, Failure> {
        self.call(SYNC, Body::default().bytes(path.as_bytes())).await?;
        match self.call(GET_DATA, Body::default().bytes(path.as_bytes()).byte(0)).await {
            Ok(mut answer) => {
                let text = String::from_utf8_lossy(&answer.buffer()?).into_owned();
                // Four longs come before the version.
                answer.take(32)?;
                Ok(Some((text, answer.int()?)))
            }
            Err(Failure::Code(NO_NODE)) => Ok(None),
            Err(e) => Err(e),
        }
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
                let mut connection = match held.take().filter(|c| c.used.elapsed() < IDLE) {
                    Some(kept) => kept,
                    None => Connection::open(host, self.login.as_ref()).await?,
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
                match connection.call(DELETE, Body::default().bytes(path.as_bytes()).int(version)).await {
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

fn meaning(code: i32) -> String {
    let text = match code {
        NO_NODE => "it, or what it is below, is not there: has the coordinator lost its contents?",
        -102 => "not permitted: catalog.lock_credentials_file should hold user:password of who may",
        -115 => "the credentials are refused",
        -4 => "connection lost",
        -7 => "operation timed out",
        -112 => "session expired",
        _ => "",
    };
    if text.is_empty() { format!("error {code} of ZooKeeper's") } else { text.to_string() }
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
