//! A name server on loopback, with the records that it is given.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

/// Ports of the SRV records of names; their host is always this machine.
type Records = Arc<Mutex<BTreeMap<String, Vec<u16>>>>;

pub struct Dns {
    pub address: SocketAddr,
    records: Records,
}

impl Dns {
    /// Answers until the test ends.
    pub fn start() -> Dns {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("its address");
        let records = Records::default();
        let of = records.clone();
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                let told = answer(&question[..length], &of.lock().expect("no test panics here"));
                let _ = socket.send_to(&told, from);
            }
        });
        Dns { address, records }
    }

    /// Puts records in the place of those that a name had.
    pub fn set(&self, name: &str, ports: &[u16]) {
        self.records.lock().expect("no test panics here").insert(name.to_owned(), ports.to_vec());
    }
}

/// To a question for an address, this machine's; for SRV records, those there are.
fn answer(question: &[u8], records: &BTreeMap<String, Vec<u16>>) -> Vec<u8> {
    let (mut at, mut labels) = (12, Vec::new());
    while question[at] != 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..end]).into_owned());
        at = end;
    }
    let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    let ports = records.get(&labels.join("."));
    let data: Vec<Vec<u8>> = match (kind, ports) {
        (1, Some(_)) => vec![vec![127, 0, 0, 1]],
        (33, Some(ports)) => {
            let host = b"\x09localhost\0";
            ports.iter().map(|port| [&[0, 0, 0, 0][..], &port.to_be_bytes(), host].concat()).collect()
        }
        _ => Vec::new(),
    };
    let code = if ports.is_some() { 0 } else { 3 };
    let mut out = [&question[..2], &[0x81, 0x80 | code, 0, 1, 0, data.len() as u8, 0, 0, 0, 0]].concat();
    out.extend(&question[12..at + 5]);
    for data in data {
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 30]);
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
    }
    out
}
