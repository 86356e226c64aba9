//! The HTTP server of a process, whatever its role: it listens before anything is open, and is drained last.

use std::net::SocketAddr;

use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{bounds, guard, identity};
use crate::config::Settings;
use crate::config::value::Role;
use crate::http::Server;
use crate::http::listener;
use crate::http::prefix::RoutePrefix;

/// A server that answers, at first only that it is not ready.
pub struct Listening {
    pub address: SocketAddr,
    pub web: Server,
    stop: watch::Sender<bool>,
    serving: JoinHandle<usize>,
}

impl Listening {
    /// Binds the address of the settings and serves; `registry` gets the server's metrics. An error is for
    /// the person who started the process.
    pub async fn begin(settings: &Settings, mut registry: Registry, role: Role) -> Result<Listening, String> {
        let (socket, address) = listener::bind(&settings.listen.host, settings.listen.port).await?;
        let auth = identity::auth(settings, &mut registry)?;
        let web = Server::new(registry, guard(settings), RoutePrefix::of(settings), auth.clone(), role);
        let (stop, stopped) = watch::channel(false);
        let of = web.clone();
        let leaving = std::sync::Arc::new(move || of.stopping());
        let serving =
            listener::serve(socket, web.app(), auth, bounds(settings), leaving, super::until(stopped));
        Ok(Listening { address, web, stop, serving: tokio::spawn(serving) })
    }

    /// Takes no more connections and waits for the requests in flight, up to the deadline.
    pub async fn drain(self) {
        let _ = self.stop.send(true);
        match self.serving.await {
            Ok(0) => {}
            Ok(cut) => tracing::warn!("{cut} connections were cut off at the deadline"),
            Err(e) => tracing::error!("the HTTP server ended unexpectedly: {e}"),
        }
    }
}
