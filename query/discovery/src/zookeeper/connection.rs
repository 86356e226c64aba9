//! ZooKeeper's own protocol, as far as anybody here needs it ([its
//! definition](https://github.com/apache/zookeeper/blob/master/zookeeper-jute/src/main/resources/zookeeper.jute)):
//! a session, requests one after the other, pings, and word of what changed.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// The longest answer that is read; a node holds at most 1 MiB.
const LONGEST_ANSWER_BYTES: usize = 2 << 20;

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const EXISTS: i32 = 3;
const GET_DATA: i32 = 4;
const GET_CHILDREN: i32 = 8;
const SYNC: i32 = 9;
const PING: i32 = 11;
const AUTH: i32 = 100;

/// Numbers of requests that are not counted.
const XID_EVENT: i32 = -1;
const XID_PING: i32 = -2;
const XID_AUTH: i32 = -4;

/// Errors of the server's.
pub const NO_NODE: i32 = -101;
pub const BAD_VERSION: i32 = -103;
pub const NODE_EXISTS: i32 = -110;

/// A user's name and password.
#[derive(Clone)]
pub struct Login {
    pub user: String,
    pub password: String,
}

/// An operation that the server refused, or a connection that broke.
pub enum Failure {
    Code(i32),
    Broken(String),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Failure {
        Failure::Io(e)
    }
}

impl Failure {
    /// What happened, as the end of a sentence.
    pub fn told(&self) -> String {
        match self {
            Failure::Code(code) => meaning(*code),
            Failure::Broken(why) => why.clone(),
            Failure::Io(e) => e.to_string(),
        }
    }
}

/// What an error of the server's means.
pub fn meaning(code: i32) -> String {
    let text = match code {
        NO_NODE => "it, or what it is below, is not there",
        -102 => "not permitted",
        -115 => "the credentials are refused",
        -4 => "connection lost",
        -7 => "operation timed out",
        -112 => "session expired",
        _ => "",
    };
    if text.is_empty() { format!("error {code} of ZooKeeper's") } else { text.to_string() }
}

/// A session with one server, which ends with this value.
pub struct Connection {
    stream: TcpStream,
    next_xid: i32,
    /// When the server was heard of last.
    used: Instant,
    /// How long the server keeps the session without a word.
    granted: Duration,
    /// Whether something changed that was watched, since [`Connection::watch_anew`].
    changed: bool,
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

    /// A path, and whether it is to be watched.
    fn watched(path: &str, watch: bool) -> Body {
        Body::default().bytes(path.as_bytes()).byte(u8::from(watch))
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

    fn texts(&mut self) -> Result<Vec<String>, Failure> {
        let many = usize::try_from(self.int()?).unwrap_or(0);
        // Each has four bytes of length at least.
        let mut out = Vec::with_capacity(many.min(self.bytes.len() / 4));
        for _ in 0..many {
            out.push(String::from_utf8_lossy(&self.buffer()?).into_owned());
        }
        Ok(out)
    }
}

impl Connection {
    /// Opens a session that the server keeps for so long without a word.
    pub async fn open(host: &str, session: Duration, login: Option<&Login>) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (used, granted) = (Instant::now(), Duration::ZERO);
        let mut new = Connection { stream, next_xid: 1, used, granted, changed: false };
        let session_ms = i32::try_from(session.as_millis()).unwrap_or(i32::MAX);
        // Protocol 0, nothing seen, a new session without a password, no read-only server.
        let hello = Body::default().int(0).long(0).int(session_ms).long(0).bytes(&[0; 16]).byte(0);
        new.send(&hello.0).await?;
        let mut answer = new.receive().await?;
        let (_, granted_ms) = (answer.int()?, answer.int()?);
        new.granted = match u64::try_from(granted_ms) {
            Ok(ms) if ms > 0 => Duration::from_millis(ms),
            _ => return Err(Failure::Broken("the session was refused".into())),
        };
        if let Some(login) = login {
            let secret = format!("{}:{}", login.user, login.password);
            let auth =
                Body::default().int(XID_AUTH).int(AUTH).int(0).bytes(b"digest").bytes(secret.as_bytes());
            new.send(&auth.0).await?;
            new.answer_to(XID_AUTH).await?;
        }
        Ok(new)
    }

    /// How long nothing was heard of the server.
    pub fn idle(&self) -> Duration {
        self.used.elapsed()
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
        self.used = Instant::now();
        Ok(Answer { bytes, at: 0 })
    }

    /// The next answer with its number; what else is said before is noted.
    async fn next_answer(&mut self) -> Result<(i32, Answer), Failure> {
        let mut answer = self.receive().await?;
        let xid = answer.int()?;
        self.changed |= xid == XID_EVENT;
        Ok((xid, answer))
    }

    async fn answer_to(&mut self, wanted: i32) -> Result<Answer, Failure> {
        loop {
            let (xid, mut answer) = self.next_answer().await?;
            if xid != wanted && matches!(xid, XID_EVENT | XID_PING) {
                continue;
            }
            answer.take(8)?;
            let code = answer.int()?;
            return match xid {
                xid if xid != wanted => Err(Failure::Broken(format!("answer {xid} to request {wanted}"))),
                _ if code != 0 => Err(Failure::Code(code)),
                _ => Ok(answer),
            };
        }
    }

    async fn call(&mut self, kind: i32, body: Body) -> Result<Answer, Failure> {
        let xid = self.next_xid;
        self.next_xid = self.next_xid.wrapping_add(1).max(1);
        let mut bytes = Body::default().int(xid).int(kind).0;
        bytes.extend(body.0);
        self.send(&bytes).await?;
        self.answer_to(xid).await
    }

    /// Creates a node that outlives the session; `ours_alone`: for who is logged in as this is.
    pub async fn create(&mut self, path: &str, text: &str, ours_alone: bool) -> Result<(), Failure> {
        // All rights: to everybody, or to whoever is logged in as we are.
        let (scheme, id): (&[u8], &[u8]) = if ours_alone { (b"auth", b"") } else { (b"world", b"anyone") };
        let body = Body::default().bytes(path.as_bytes()).bytes(text.as_bytes());
        let body = body.int(1).int(31).bytes(scheme).bytes(id).int(0);
        self.call(CREATE, body).await.map(drop)
    }

    /// A node's text and version, after the server we talk to has caught up with the others.
    pub async fn get(&mut self, path: &str) -> Result<Option<(String, i32)>, Failure> {
        self.call(SYNC, Body::default().bytes(path.as_bytes())).await?;
        let Some(mut answer) = found(self.call(GET_DATA, Body::watched(path, false)).await)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&answer.buffer()?).into_owned();
        // Four longs come before the version.
        answer.take(32)?;
        Ok(Some((text, answer.int()?)))
    }

    /// Removes a node of this version.
    pub async fn delete(&mut self, path: &str, version: i32) -> Result<(), Failure> {
        self.call(DELETE, Body::default().bytes(path.as_bytes()).int(version)).await.map(drop)
    }

    /// Forgets what changed until now.
    pub fn watch_anew(&mut self) {
        self.changed = false;
    }

    /// A node's data and the names below it, all of which are watched from now on; of one that is not there,
    /// whether it comes.
    pub async fn watch(&mut self, path: &str) -> Result<Option<(Vec<u8>, Vec<String>)>, Failure> {
        let data = match found(self.call(GET_DATA, Body::watched(path, true)).await)? {
            Some(mut answer) => answer.buffer()?,
            None => {
                // It may have come since: then the watch is on its data, and this tree is read again.
                let came = found(self.call(EXISTS, Body::watched(path, true)).await)?.is_some();
                self.changed |= came;
                return Ok(None);
            }
        };
        let below = found(self.call(GET_CHILDREN, Body::watched(path, true)).await)?;
        Ok(below.map(|mut answer| answer.texts()).transpose()?.map(|below| (data, below)))
    }

    /// Until something changes that was watched.
    pub async fn until_changed(&mut self) -> Result<(), Failure> {
        let pause = self.granted / 3;
        let mut is_asked = false;
        while !self.changed {
            match timeout(pause, self.stream.readable()).await {
                Ok(ready) => {
                    ready?;
                    let late = |_| Failure::Broken("an answer was not ended".into());
                    timeout(self.granted, self.next_answer()).await.map_err(late)??;
                    is_asked = false;
                }
                Err(_) if is_asked => return Err(Failure::Broken("it does not answer".into())),
                Err(_) => {
                    self.send(&Body::default().int(XID_PING).int(PING).0).await?;
                    is_asked = true;
                }
            }
        }
        Ok(())
    }
}

/// An answer, or that there is no such node.
fn found(answer: Result<Answer, Failure>) -> Result<Option<Answer>, Failure> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Failure::Code(NO_NODE)) => Ok(None),
        Err(e) => Err(e),
    }
}
