//! Clients of other servers that trust the authorities of the moment: made anew, without a restart, when the
//! certificates in the system's files or in those of `SSL_CERT_FILE` and `SSL_CERT_DIR` are others.

use std::fmt::{self, Display};
use std::sync::Arc;

use async_trait::async_trait;
use model::authorities;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use parking_lot::Mutex;

/// The beginning of an answer's text, `most` bytes of it: what a server says when it refuses is shown to
/// people, and may be of any length.
pub async fn beginning_of(mut answer: reqwest::Response, most: usize) -> String {
    let mut text = Vec::new();
    while text.len() < most
        && let Ok(Some(piece)) = answer.chunk().await
    {
        text.extend_from_slice(&piece[..piece.len().min(most - text.len())]);
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// An answer's body, or `None` where it is longer than `most` bytes.
pub async fn body_within(mut answer: reqwest::Response, most: usize) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        if piece.len() > most - body.len() {
            return Ok(None);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Some(body))
}

/// Makes a client, or says why not.
type Make<T> = Box<dyn Fn() -> Result<T, String> + Send + Sync>;

/// A client that is made anew. Requests under way end with the client they began with.
pub struct Live<T> {
    make: Make<T>,
    made: Mutex<Made<T>>,
}

struct Made<T> {
    client: T,
    /// Of the authorities it was made with.
    generation: u64,
}

impl<T: Clone> Live<T> {
    pub fn new<E: Display>(make: impl Fn() -> Result<T, E> + Send + Sync + 'static) -> Result<Live<T>, E> {
        let generation = authorities::generation();
        let made = Made { client: make()?, generation };
        let make: Make<T> = Box::new(move || make().map_err(|e| e.to_string()));
        Ok(Live { make, made: Mutex::new(made) })
    }

    /// The client of the moment.
    pub fn get(&self) -> T {
        let generation = authorities::generation();
        let mut made = self.made.lock();
        if made.generation != generation {
            made.generation = generation;
            match (self.make)() {
                Ok(client) => made.client = client,
                // In the middle of a rotation: the files change once more.
                Err(why) => {
                    tracing::warn!(
                        "the system's authorities have changed and cannot be used, the old ones stay: {why}"
                    );
                }
            }
        }
        made.client.clone()
    }
}

/// Connects to object stores in this way.
#[derive(Clone, Copy, Debug, Default)]
pub struct LiveConnector;

impl HttpConnector for LiveConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let options = options.clone();
        let live = Live::new(move || ReqwestConnector::default().connect(&options))?;
        Ok(HttpClient::new(ToStore(Arc::new(live))))
    }
}

/// The connection to one store.
struct ToStore(Arc<Live<HttpClient>>);

impl fmt::Debug for ToStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ToStore")
    }
}

#[async_trait]
impl HttpService for ToStore {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.0.get().execute(request).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::{beginning_of, body_within};

    /// A server that refuses everything with a text without end.
    async fn talkative() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let head = "HTTP/1.1 500 No\r\ncontent-length: 1000000000000\r\n\r\n";
                let _ = stream.write_all(head.as_bytes()).await;
                while stream.write_all(&[b'a'; 4096]).await.is_ok() {}
            }
        });
        format!("http://{address}/")
    }

    #[tokio::test]
    async fn answers_without_end_are_read_up_to_a_bound() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = talkative().await;
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let ask = || client.get(&url).send();
        let said = beginning_of(ask().await.expect("an answer"), 300).await;
        assert_eq!(said, "a".repeat(300));
        let whole = body_within(ask().await.expect("an answer"), 1 << 20).await.expect("a connection");
        assert_eq!(whole, None);
    }
}
