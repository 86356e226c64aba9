//! A client's connection as hyper sees it: heads are read whole and made readable first, and a client that
//! does not read is let go.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::request_line::{BodyLength, MAX_TARGET_BYTES, Refusal, lenient, parse};
use super::transport::Transport;

/// Bytes of headers, without the query of the URL.
pub const MAX_HEADER_BYTES: usize = 200 << 10;
/// A head up to this size is nobody else's business; more is taken from what all connections share.
const OWN_HEAD_BYTES: usize = 16 << 10;
/// Bytes of heads that all connections together may hold beyond that.
const SHARED_HEAD_BYTES: usize = 64 << 20;
/// How much of a head that is too long is read and dropped, so that the client is done with sending when its
/// answer comes.
const MAX_DROPPED_BYTES: usize = 16 << 20;
/// Queries put aside that hyper has not asked for yet: it reads one request ahead at most.
const MAX_ASIDE: usize = 4;
/// What stands in place of a query that was put aside.
const ASIDE: &str = "hearth-query=";

/// Memory for long heads, shared by all connections.
#[derive(Debug, Default)]
pub struct HeadMemory(AtomicUsize);

/// A part of it, given back when dropped.
#[derive(Debug)]
pub struct HeadReservation {
    memory: Arc<HeadMemory>,
    bytes: usize,
}

impl HeadReservation {
    fn new(memory: Arc<HeadMemory>) -> HeadReservation {
        HeadReservation { memory, bytes: 0 }
    }

    /// Grows to so many bytes, if there is room.
    fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let before = self.memory.0.fetch_add(more, Ordering::Relaxed);
        if more > 0 && before + more > SHARED_HEAD_BYTES {
            self.memory.0.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes += more;
        true
    }
}

impl Drop for HeadReservation {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A query that is too long for hyper's URLs, with the memory it takes.
pub struct AsideQuery {
    pub query: String,
    pub reservation: HeadReservation,
}

/// What a connection's stream tells its service.
#[derive(Default)]
pub struct Aside {
    /// By the mark that stands in the URL.
    queries: Mutex<VecDeque<(String, AsideQuery)>>,
    refusal: Mutex<Option<Refusal>>,
}

impl Aside {
    /// The query that a URL's query stands for.
    pub fn take_query(&self, query: &str) -> Option<AsideQuery> {
        let mark = query.strip_prefix(ASIDE)?;
        let mut queries = self.queries.lock();
        let index = queries.iter().position(|(m, _)| m == mark)?;
        queries.remove(index).map(|(_, aside)| aside)
    }

    /// Why the head was refused that hyper takes this request for.
    pub fn take_refusal(&self) -> Option<Refusal> {
        self.refusal.lock().take()
    }
}

enum State {
    /// A head, or a part of one, is gathered.
    Head,
    /// So many bytes of a body are still to come.
    Body(u64),
    /// Nothing is looked at any more.
    Through,
    /// The rest of a head that was refused is read and dropped: so many bytes so far.
    Dropping(Refusal, usize),
    /// The answer to a head that was refused is on its way; nothing more is read.
    Ended,
}

/// The stream.
pub struct ClientStream {
    transport: Transport,
    state: State,
    /// Bytes of a head that is not whole, and what came behind one.
    gathered: Vec<u8>,
    /// How far the end of the head was looked for.
    searched: usize,
    /// What hyper is to read next, from `given` on.
    out: Vec<u8>,
    given: usize,
    max_url_bytes: usize,
    reservation: HeadReservation,
    memory: Arc<HeadMemory>,
    aside: Arc<Aside>,
    /// Not to be guessed by clients.
    secret: u64,
    put_aside: u64,
    write_timeout: Duration,
    /// Runs while the client does not take what is written.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl ClientStream {
    pub fn new(
        transport: Transport,
        max_url_bytes: usize,
        write_timeout: Duration,
        memory: Arc<HeadMemory>,
        aside: Arc<Aside>,
    ) -> ClientStream {
        use std::hash::{BuildHasher, RandomState};
        ClientStream {
            transport,
            state: State::Head,
            gathered: Vec::new(),
            searched: 0,
            out: Vec::new(),
            given: 0,
            max_url_bytes,
            reservation: HeadReservation::new(memory.clone()),
            memory,
            aside,
            secret: RandomState::new().hash_one(0),
            put_aside: 0,
            write_timeout,
            stalled: None,
        }
    }

    /// The same for a connection whose heads are nothing to look at, as HTTP/2's: only a client that does not
    /// read is let go.
    pub fn through(transport: Transport, write_timeout: Duration, memory: Arc<HeadMemory>) -> ClientStream {
        let mut stream = ClientStream::new(transport, 0, write_timeout, memory, Arc::default());
        stream.state = State::Through;
        stream
    }

    /// The end of the head in what was gathered: behind its empty line.
    fn head_end(&mut self) -> Option<usize> {
        // Empty lines before a request mean nothing.
        if self.searched == 0 {
            let empty = self.gathered.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            self.gathered.drain(..empty);
        }
        let from = self.searched;
        for (i, b) in self.gathered.iter().enumerate().skip(from) {
            if *b == b'\n' && i > 0 {
                let before = &self.gathered[..i];
                if before.ends_with(b"\n") || before.ends_with(b"\n\r") {
                    return Some(i + 1);
                }
            }
        }
        self.searched = self.gathered.len();
        None
    }

    /// Whether what was gathered can become a request: a method and a blank come first.
    fn may_be_http(&self) -> bool {
        let method = self
            .gathered
            .iter()
            .take(32)
            .take_while(|b| b.is_ascii_alphabetic() || **b == b'-' || **b == b'_')
            .count();
        method > 0 && method < 32 && self.gathered.get(method).is_none_or(|b| *b == b' ')
    }

    /// Hands a head that is whole to hyper, as hyper can read it.
    fn pass_head(&mut self, end: usize) {
        let head = match parse(&self.gathered[..end]) {
            Ok(head) if head.len == end => head,
            Ok(_) => return self.pass_all(),
            Err(refusal) => return self.refuse(refusal),
        };
        let written = head.target.len();
        if written > self.max_url_bytes {
            return self.refuse(Refusal::new(
                414,
                format!("the URL has {written} bytes, and {} are allowed (http.max_url_bytes): send the parameters as a form with POST", self.max_url_bytes),
            ));
        }
        if end - written > MAX_HEADER_BYTES {
            return self
                .refuse(Refusal::new(431, format!("the headers have more than {MAX_HEADER_BYTES} bytes")));
        }
        let target = lenient(&self.gathered[head.target.clone()]).into_owned();
        self.out.clear();
        self.given = 0;
        self.out.extend_from_slice(&self.gathered[..head.target.start]);
        if target.len() <= MAX_TARGET_BYTES {
            self.out.extend_from_slice(&target);
        } else if let Some(refusal) = self.put_aside(target) {
            return self.refuse(refusal);
        }
        self.out.extend_from_slice(&self.gathered[head.target.end..end]);
        self.gathered.drain(..end);
        if self.gathered.is_empty() {
            self.gathered = Vec::new();
        }
        self.searched = 0;
        match head.body {
            BodyLength::Unknown => {
                self.state = State::Through;
                self.out.append(&mut self.gathered);
            }
            BodyLength::Bytes(length) => {
                let here = self.gathered.len().min(usize::try_from(length).unwrap_or(usize::MAX));
                self.out.extend(self.gathered.drain(..here));
                self.state = match length - here as u64 {
                    0 => State::Head,
                    left => State::Body(left),
                };
            }
        }
    }

    /// Writes the path to hyper and keeps the query for the service.
    fn put_aside(&mut self, target: Vec<u8>) -> Option<Refusal> {
        let query = target.iter().position(|b| *b == b'?').unwrap_or(target.len());
        if query > MAX_TARGET_BYTES {
            return Some(Refusal::new(
                414,
                format!("the URL's path has {query} bytes, which no path here has"),
            ));
        }
        let mut queries = self.aside.queries.lock();
        if queries.len() >= MAX_ASIDE {
            return Some(Refusal::new(
                400,
                "too many long requests one after the other without waiting for answers",
            ));
        }
        self.put_aside += 1;
        let mark = format!("{:016x}{:x}", self.secret, self.put_aside);
        self.out.extend_from_slice(&target[..query]);
        self.out.push(b'?');
        self.out.extend_from_slice(ASIDE.as_bytes());
        self.out.extend_from_slice(mark.as_bytes());
        let reservation = std::mem::replace(&mut self.reservation, HeadReservation::new(self.memory.clone()));
        // All of it is ASCII by now.
        let query = String::from_utf8_lossy(&target[query + 1..]).into_owned();
        queries.push_back((mark, AsideQuery { query, reservation }));
        None
    }

    /// What was gathered is for hyper to judge, and all that follows.
    fn pass_all(&mut self) {
        self.out = std::mem::take(&mut self.gathered);
        self.given = 0;
        self.state = State::Through;
    }

    /// Has the service answer a request of its own making with the refusal, after which the connection is
    /// closed.
    fn refuse(&mut self, refusal: Refusal) {
        *self.aside.refusal.lock() = Some(refusal);
        self.gathered = Vec::new();
        self.reservation = HeadReservation::new(self.memory.clone());
        self.out = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_vec();
        self.given = 0;
        self.state = State::Ended;
    }

    /// Begins to drop the rest of a head that is too long.
    fn drop_rest(&mut self, refusal: Refusal) {
        let dropped = self.gathered.len();
        // The end of the head may lie across the border.
        let kept = self.gathered.split_off(dropped.saturating_sub(3));
        self.gathered = kept;
        self.searched = 1;
        self.reservation = HeadReservation::new(self.memory.clone());
        self.state = State::Dropping(refusal, dropped);
    }

    /// Reads more of a head. `false` at the end of the stream.
    fn gather(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut space = [0u8; 8 << 10];
        let mut buffer = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.transport).poll_read(cx, &mut buffer))?;
        self.gathered.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(!buffer.filled().is_empty()))
    }

    /// One step of reading a head; what it found is in `state` and `out`. `false` at the end of the stream.
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if let Some(end) = self.head_end() {
            self.pass_head(end);
            return Poll::Ready(Ok(true));
        }
        if !self.gathered.is_empty() && !self.may_be_http() {
            self.pass_all();
            return Poll::Ready(Ok(true));
        }
        let most = self.max_url_bytes.saturating_add(MAX_HEADER_BYTES);
        if self.gathered.len() > most {
            let is_url = !self.gathered.contains(&b'\n');
            let refusal = match is_url {
                true => Refusal::new(
                    414,
                    format!(
                        "the URL has more than {} bytes (http.max_url_bytes): send the parameters as a form with POST",
                        self.max_url_bytes
                    ),
                ),
                false => Refusal::new(431, format!("the request's head has more than {most} bytes")),
            };
            self.drop_rest(refusal);
            return Poll::Ready(Ok(true));
        }
        // A vector that grows holds up to twice of what is in it.
        if self.gathered.len() > OWN_HEAD_BYTES && !self.reservation.grow(3 * self.gathered.len()) {
            self.drop_rest(Refusal::new(503, "too many long requests at once: try again"));
            return Poll::Ready(Ok(true));
        }
        let more = ready!(self.gather(cx))?;
        if !more && !self.gathered.is_empty() {
            // A part of a head, and no more: hyper knows what to do.
            self.pass_all();
            return Poll::Ready(Ok(true));
        }
        Poll::Ready(Ok(more))
    }

    /// Reads and drops; `false` at the end of the stream.
    fn step_dropping(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let end = self.head_end().is_some();
        let State::Dropping(refusal, dropped) = &mut self.state else { return Poll::Ready(Ok(true)) };
        if end || *dropped > MAX_DROPPED_BYTES {
            let refusal = refusal.clone();
            self.refuse(refusal);
            return Poll::Ready(Ok(true));
        }
        let kept = self.gathered.len().saturating_sub(3);
        *dropped += kept;
        self.gathered.drain(..kept);
        self.searched = 1;
        let more = ready!(self.gather(cx))?;
        if !more && let State::Dropping(refusal, _) = &self.state {
            let refusal = refusal.clone();
            self.refuse(refusal);
        }
        Poll::Ready(Ok(true))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.given < this.out.len() {
                let n = buf.remaining().min(this.out.len() - this.given);
                buf.put_slice(&this.out[this.given..this.given + n]);
                this.given += n;
                if this.given == this.out.len() {
                    (this.out, this.given) = (Vec::new(), 0);
                }
                return Poll::Ready(Ok(()));
            }
            match this.state {
                State::Head => {
                    if !ready!(this.step(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                State::Dropping(..) => {
                    ready!(this.step_dropping(cx))?;
                }
                State::Through => return Pin::new(&mut this.transport).poll_read(cx, buf),
                State::Body(left) => {
                    let before = buf.filled().len();
                    ready!(Pin::new(&mut this.transport).poll_read(cx, buf))?;
                    let read = (buf.filled().len() - before) as u64;
                    if read >= left {
                        // What came behind the body is the next head's.
                        let end = before + left as usize;
                        this.gathered.extend_from_slice(&buf.filled()[end..]);
                        buf.set_filled(end);
                        this.state = State::Head;
                    } else {
                        this.state = State::Body(left - read);
                    }
                    return Poll::Ready(Ok(()));
                }
                State::Ended => {
                    // An end of the stream would have hyper give up its answer.
                    while ready!(this.gather(cx))? {
                        this.gathered.clear();
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

impl ClientStream {
    /// Lets go of a client that has taken nothing for too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        match stalled.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the client has taken nothing of its answer for {timeout:?} (http.write_timeout)"),
            ))),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.transport).poll_write(cx, buf);
        this.watch(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.transport).poll_write_vectored(cx, bufs);
        this.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }
}
