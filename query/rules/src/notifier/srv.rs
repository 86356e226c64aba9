//! SRV records, which say under which names and ports a service is: one question to the system's name
//! servers, as RFC 1035 and 2782 have it.
//!
//! Written here because a resolver crate would bring half a DNS server with it for this one record.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;

/// How long one name server has to answer, as resolv.conf's default.
const PATIENCE: Duration = Duration::from_secs(5);

const TYPE_SRV: u16 = 33;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;

/// Largest answer over UDP that is asked for, and taken.
const MAX_ANSWER: u16 = 4096;

/// The hosts and ports of a record's name. A name without records has none.
pub async fn lookup(name: &str) -> Result<Vec<(String, u16)>, String> {
    let config = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut why = String::from("no name server in /etc/resolv.conf");
    for server in servers(&config) {
        match ask(server, name).await {
            Ok(found) => return Ok(found),
            Err(e) => why = format!("name server {server}: {e}"),
        }
    }
    Err(why)
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

async fn ask(server: SocketAddr, name: &str) -> Result<Vec<(String, u16)>, String> {
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let id = number(server, name);
    let question = question(id, name)?;
    let exchange = async {
        let socket = UdpSocket::bind(local).await?;
        socket.connect(server).await?;
        socket.send(&question).await?;
        let mut answer = vec![0; usize::from(MAX_ANSWER)];
        loop {
            let length = socket.recv(&mut answer).await?;
            // An answer to another question, or a forged one.
            if length >= 12 && answer[..2] == id.to_be_bytes() {
                answer.truncate(length);
                return Ok::<_, std::io::Error>(answer);
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, exchange)
        .await
        .map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))?
        .map_err(|e| e.to_string())?;
    records(&answer)
}

/// A number that somebody else does not guess easily.
fn number(server: SocketAddr, name: &str) -> u16 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((server, name)) as u16
}

fn question(id: u16, name: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(64);
    out.extend(id.to_be_bytes());
    // Recursion is wanted; one question, one additional record.
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|l| (1..=63).contains(l));
        out.push(length.ok_or_else(|| format!("{name:?} is not a DNS name"))?);
        out.extend(label.as_bytes());
    }
    if out.len() > 12 + 254 {
        return Err(format!("{name:?} is longer than a DNS name may be"));
    }
    out.push(0);
    out.extend(TYPE_SRV.to_be_bytes());
    out.extend(CLASS_IN.to_be_bytes());
    // EDNS: how long an answer may be.
    out.push(0);
    out.extend(TYPE_OPT.to_be_bytes());
    out.extend(MAX_ANSWER.to_be_bytes());
    out.extend([0; 6]);
    Ok(out)
}

/// A message that is read from front to back.
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, String> {
        let byte = *self.message.get(self.at).ok_or("the answer is cut short")?;
        self.at += 1;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u16, String> {
        Ok(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    /// A name, compressed or not. A pointer must point backwards, so that there is an end to it.
    fn name(&mut self) -> Result<String, String> {
        let mut out = String::new();
        let (mut at, mut bound, mut jumped) = (self.at, self.at + 1, false);
        loop {
            let length = *self.message.get(at).ok_or("the answer is cut short")?;
            match length {
                0 => {
                    at += 1;
                    break;
                }
                1..=63 => {
                    let label = self.message.get(at + 1..at + 1 + usize::from(length));
                    let label = label.ok_or("the answer is cut short")?;
                    if !out.is_empty() {
                        out.push('.');
                    }
                    out.push_str(&String::from_utf8_lossy(label));
                    at += 1 + usize::from(length);
                }
                192.. => {
                    let low = *self.message.get(at + 1).ok_or("the answer is cut short")?;
                    if !jumped {
                        self.at = at + 2;
                    }
                    jumped = true;
                    at = usize::from(u16::from_be_bytes([length & 63, low]));
                    if at >= bound {
                        return Err("the answer has a name that points forwards".into());
                    }
                    bound = at;
                }
                _ => return Err("the answer has a name of an unknown kind".into()),
            }
        }
        if !jumped {
            self.at = at;
        }
        Ok(out)
    }
}

/// The records of an answer.
fn records(message: &[u8]) -> Result<Vec<(String, u16)>, String> {
    let mut reader = Reader { message, at: 2 };
    let flags = reader.number()?;
    match flags & 15 {
        0 => {}
        // There is no such name.
        3 => return Ok(Vec::new()),
        code => return Err(format!("it answers with error {code}")),
    }
    if flags & 0x0200 != 0 {
        return Err(format!("the answer is longer than {MAX_ANSWER} bytes"));
    }
    let (questions, answers) = (reader.number()?, reader.number()?);
    reader.at += 4;
    for _ in 0..questions {
        reader.name()?;
        reader.at += 4;
    }
    let mut found = Vec::new();
    for _ in 0..answers {
        reader.name()?;
        let kind = reader.number()?;
        reader.at += 6;
        let length = usize::from(reader.number()?);
        let end = reader.at + length;
        if kind == TYPE_SRV {
            // Priority and weight do not matter: all Alertmanagers get everything.
            reader.at += 4;
            let port = reader.number()?;
            found.push((reader.name()?, port));
        }
        reader.at = end;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to a question, with two records whose targets are written in both ways.
    fn answer(question: &[u8]) -> Vec<u8> {
        let mut out = question[..question.len() - 11].to_vec();
        out[2..4].copy_from_slice(&[0x81, 0x80]);
        out[6..12].copy_from_slice(&[0, 2, 0, 0, 0, 0]);
        let whole = b"\x03am1\x05local\0";
        for (data, port) in [(&whole[..], 9093u16), (b"\x03am2\xc0\x0c", 9094)] {
            out.extend([0xc0, 12]);
            out.extend(TYPE_SRV.to_be_bytes());
            out.extend(CLASS_IN.to_be_bytes());
            out.extend([0, 0, 0, 30]);
            out.extend((6 + data.len() as u16).to_be_bytes());
            out.extend([0, 10, 0, 5]);
            out.extend(port.to_be_bytes());
            out.extend(data);
        }
        out
    }

    #[test]
    fn srv_records_are_read_and_broken_answers_are_errors() {
        let question = question(7, "_am._tcp.local").unwrap();
        let whole = answer(&question);
        assert_eq!(
            records(&whole).unwrap(),
            [("am1.local".to_string(), 9093), ("am2._am._tcp.local".to_string(), 9094)]
        );
        for length in 0..whole.len() {
            assert!(records(&whole[..length]).is_err(), "cut at {length}");
        }
        // A pointer to itself, and one forwards.
        let at = whole.len() - 1;
        for to in [at as u8 - 1, at as u8, 0xff] {
            let mut looped = whole.clone();
            looped[at] = to;
            assert!(records(&looped).is_err());
        }
        let mut missing = whole.clone();
        missing[3] = 0x83;
        assert_eq!(records(&missing), Ok(vec![]));
        for bad in ["", "a..b", &"x".repeat(64), &"a.".repeat(200)] {
            assert!(super::question(1, bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn srv_records_come_from_a_name_server() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            let mut forged = answer(&buffer[..length]);
            forged[0] ^= 1;
            server.send_to(&forged[..40], from).await.unwrap();
            server.send_to(&answer(&buffer[..length]), from).await.unwrap();
        });
        assert_eq!(ask(address, "_am._tcp.local").await.unwrap().len(), 2);
    }

    #[test]
    fn name_servers_are_those_of_the_system() {
        let config = "search x\nnameserver 10.0.0.1\n# nameserver 1.1.1.1\nnameserver fe80::1%eth0\n";
        assert_eq!(servers(config), ["10.0.0.1:53".parse().unwrap(), "[fe80::1]:53".parse().unwrap()]);
        assert_eq!(servers(""), ["127.0.0.1:53".parse().unwrap()]);
    }

    proptest::proptest! {
        #[test]
        fn answer_of_any_bytes_neither_panics_nor_hangs(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = records(&bytes);
        }
    }
}
