//! Asking name servers: over UDP, and over TCP where an answer does not fit.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::message::{Answer, MAX_ANSWER, Record, answer, question};

/// How long one name server has to answer, as resolv.conf's default.
const PATIENCE: Duration = Duration::from_secs(5);

/// The records of a name, of all types together, from the first name server that answers. `server` stands in
/// the place of the system's. A name without records has none.
pub async fn records(server: Option<SocketAddr>, name: &str, kinds: &[u16]) -> Result<Vec<Record>, String> {
    let config = match server {
        Some(_) => String::new(),
        None => std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
    };
    let servers = server.map_or_else(|| servers(&config), |server| vec![server]);
    for name in spellings(&config, name) {
        let mut found = Vec::new();
        for kind in kinds {
            found.extend(ask_any(&servers, &name, *kind).await?);
        }
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// The name servers of a resolv.conf; this machine's own where it names none.
fn servers(config: &str) -> Vec<SocketAddr> {
    let named = config.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next())??;
        // A zone behind an IPv6 address is of no use to a socket address.
        address.split('%').next()?.parse::<IpAddr>().ok()
    });
    let mut servers: Vec<SocketAddr> = named.map(|ip| SocketAddr::new(ip, 53)).collect();
    if servers.is_empty() {
        servers.push(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 53));
    }
    servers
}

/// A name as it is, and in the domains that resolv.conf says to search; a final dot says that it is whole.
fn spellings(config: &str, name: &str) -> Vec<String> {
    let mut out = vec![name.to_owned()];
    if !name.ends_with('.') {
        let search = config.lines().filter_map(|line| line.trim_start().strip_prefix("search")).next_back();
        out.extend(search.unwrap_or("").split_whitespace().map(|domain| format!("{name}.{domain}")));
    }
    out
}

async fn ask_any(servers: &[SocketAddr], name: &str, kind: u16) -> Result<Vec<Record>, String> {
    let mut why = String::from("there is no name server");
    for server in servers {
        let asked = tokio::time::timeout(PATIENCE, ask(*server, name, kind)).await;
        match asked.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs()))) {
            Ok(found) => return Ok(found),
            Err(e) => why = format!("name server {server}: {e}"),
        }
    }
    Err(why)
}

async fn ask(server: SocketAddr, name: &str, kind: u16) -> Result<Vec<Record>, String> {
    let id = number(server, name);
    let question = question(id, name, kind)?;
    let message = over_udp(server, id, &question).await.map_err(|e| e.to_string())?;
    let mut told = answer(&message)?;
    if told == Answer::CutShort {
        told = answer(&over_tcp(server, &question).await.map_err(|e| format!("over TCP: {e}"))?)?;
    }
    match told {
        Answer::Records(records) => Ok(records),
        Answer::CutShort => Err("its answer over TCP is cut short too".to_owned()),
    }
}

async fn over_udp(server: SocketAddr, id: u16, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut message = vec![0; usize::from(MAX_ANSWER)];
    loop {
        let length = socket.recv(&mut message).await?;
        // An answer to another question, or a forged one.
        if length >= 12 && message[..2] == id.to_be_bytes() {
            message.truncate(length);
            return Ok(message);
        }
    }
}

/// Of two bytes of length, 64 KiB at most.
async fn over_tcp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let mut framed = (question.len() as u16).to_be_bytes().to_vec();
    framed.extend(question);
    stream.write_all(&framed).await?;
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// A number that somebody else does not guess easily.
fn number(server: SocketAddr, name: &str) -> u16 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((server, name)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::message::{TYPE_A, TYPE_SRV};
    use tokio::net::TcpListener;

    /// An answer with some addresses.
    fn addresses(question: &[u8], many: u16) -> Vec<u8> {
        let mut out = question[..question.len() - 11].to_vec();
        out[2..4].copy_from_slice(&[0x81, 0x80]);
        out[6..12].copy_from_slice(&[(many >> 8) as u8, many as u8, 0, 0, 0, 0]);
        for n in 0..many {
            out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 0, (n >> 8) as u8, n as u8]);
        }
        out
    }

    #[tokio::test]
    async fn answer_that_is_forged_is_passed_over_and_a_long_one_comes_over_tcp() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = socket.local_addr().unwrap();
        let listener = TcpListener::bind(server).await.unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            for cut_short in [false, true] {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let mut told = addresses(&buffer[..length], 2);
                told[2] |= u8::from(cut_short) << 1;
                let mut forged = told.clone();
                forged[0] ^= 1;
                socket.send_to(&forged, from).await.unwrap();
                socket.send_to(&told, from).await.unwrap();
            }
        });
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut question).await.unwrap();
            let told = addresses(&question, 1000);
            stream.write_u16(told.len() as u16).await.unwrap();
            stream.write_all(&told).await.unwrap();
        });
        let records = async |name| super::records(Some(server), name, &[TYPE_A]).await.unwrap();
        assert_eq!(records("a.local").await.len(), 2);
        assert_eq!(records("many.local").await.len(), 1000);
        assert!(super::records(Some(server), "a..b", &[TYPE_SRV]).await.is_err());
    }

    #[test]
    fn name_servers_and_domains_are_those_of_the_system() {
        let config = "search x y.z\nnameserver 10.0.0.1\n# nameserver 1.1.1.1\nnameserver fe80::1%eth0\n";
        assert_eq!(servers(config), ["10.0.0.1:53".parse().unwrap(), "[fe80::1]:53".parse().unwrap()]);
        assert_eq!(servers(""), ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(spellings(config, "a"), ["a", "a.x", "a.y.z"]);
        assert_eq!(spellings(config, "a."), ["a."]);
    }
}
