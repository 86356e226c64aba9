//! A plain TCP balancer: it knows nothing of HTTP, takes the servers in turn, and for a connection that a
//! server does not take the next one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub struct Balancer {
    pub port: u16,
    stopped: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Balancer {
    /// Listens on a free port for servers at these ports of this machine.
    pub fn start(servers: Vec<u16>) -> Balancer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let (stopped, connections) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stop, count) = (stopped.clone(), connections.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let first = count.fetch_add(1, Ordering::Relaxed);
                let in_turn = (0..servers.len()).map(|n| servers[(first + n) % servers.len()]);
                // Where none takes it, the client's connection is closed.
                let taken = in_turn.filter_map(|port| TcpStream::connect(("127.0.0.1", port)).ok()).next();
                if let Some(server) = taken {
                    join(client, server);
                }
            }
        });
        Balancer { port, stopped, connections }
    }

    /// How many connections it has taken.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // So that it looks.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Hands bytes on in both directions until one side has ended.
fn join(client: TcpStream, server: TcpStream) {
    let both = || Some((client.try_clone().ok()?, server.try_clone().ok()?));
    let Some((from_client, to_server)) = both() else { return };
    std::thread::spawn(move || copy(from_client, to_server));
    std::thread::spawn(move || copy(server, client));
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}
