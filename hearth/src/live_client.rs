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
