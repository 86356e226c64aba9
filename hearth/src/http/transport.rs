//! The bytes of a client's connection: plain, or through TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::auth::ClientCertificate;
use crate::web_config::{ServerTls, subject_names};

/// The stream of a connection.
pub enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that requests can come on.
pub struct Accepted {
    pub transport: Transport,
    /// What client and server agreed on; without TLS it is HTTP/1.
    pub is_http2: bool,
    /// Of the client, if it has one that was checked.
    pub certificate: Option<ClientCertificate>,
}

impl From<TcpStream> for Accepted {
    fn from(stream: TcpStream) -> Accepted {
        Accepted { transport: Transport::Plain(stream), is_http2: false, certificate: None }
    }
}

/// What Go's server answers to plain HTTP where it expects TLS.
const PLAIN_ON_TLS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// Shakes hands, within the time.
pub async fn handshake(mut stream: TcpStream, tls: &ServerTls, timeout: Duration) -> io::Result<Accepted> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long");
    let shaking = async {
        let mut first = [0];
        // A handshake begins with a byte that is no letter.
        if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
            stream.write_all(PLAIN_ON_TLS).await?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "plain HTTP, where TLS is expected"));
        }
        TlsAcceptor::from(tls.config.clone()).accept(stream).await
    };
    let stream = tokio::time::timeout(timeout, shaking).await.map_err(late)??;
    let (_, session) = stream.get_ref();
    let chain = session.peer_certificates().filter(|_| tls.verifies_clients);
    Ok(Accepted {
        is_http2: session.alpn_protocol() == Some(b"h2"),
        certificate: chain
            .and_then(|chain| chain.first())
            .map(|c| ClientCertificate(subject_names(c).into())),
        transport: Transport::Tls(Box::new(stream)),
    })
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
