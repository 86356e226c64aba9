//! Questions and answers of DNS, as RFC 1035, 2782 and 3596 have them.
//!
//! Written here because a resolver crate would bring half a DNS server with it for these three records.

use std::net::IpAddr;

pub const TYPE_A: u16 = 1;
pub const TYPE_AAAA: u16 = 28;
pub const TYPE_SRV: u16 = 33;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;

/// Largest answer over UDP that is asked for, and taken.
pub const MAX_ANSWER: u16 = 4096;

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Address(IpAddr),
    /// A service is at this host (without its final dot) and port.
    Service {
        host: String,
        port: u16,
    },
}

/// A question for the records of a name and a type.
pub fn question(id: u16, name: &str, kind: u16) -> Result<Vec<u8>, String> {
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
    out.extend(kind.to_be_bytes());
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

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.message.get(self.at..self.at + N).and_then(|bytes| bytes.try_into().ok());
        self.at += N;
        bytes.ok_or_else(|| "the answer is cut short".to_owned())
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

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Records(Vec<Record>),
    /// It did not fit, and is to be had over TCP.
    CutShort,
}

/// What an answer has to a question; a name that is not there has nothing. Aliases are followed by the name
/// server, whose answer then has the records of the last.
pub fn answer(message: &[u8]) -> Result<Answer, String> {
    let mut reader = Reader { message, at: 2 };
    let flags = reader.number()?;
    match flags & 15 {
        0 => {}
        // There is no such name.
        3 => return Ok(Answer::Records(Vec::new())),
        code => return Err(format!("it answers with error {code}")),
    }
    if flags & 0x0200 != 0 {
        return Ok(Answer::CutShort);
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
        match (kind, length) {
            (TYPE_SRV, _) => {
                // Priority and weight do not matter: all that are there are wanted.
                reader.at += 4;
                let port = reader.number()?;
                found.push(Record::Service { host: reader.name()?, port });
            }
            (TYPE_A, 4) => found.push(Record::Address(IpAddr::from(reader.bytes::<4>()?))),
            (TYPE_AAAA, 16) => found.push(Record::Address(IpAddr::from(reader.bytes::<16>()?))),
            _ => {}
        }
        reader.at = end;
    }
    Ok(Answer::Records(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to a question, with two records whose targets are written in both ways.
    fn told(question: &[u8]) -> Vec<u8> {
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
        let question = question(7, "_am._tcp.local", TYPE_SRV).unwrap();
        let whole = told(&question);
        let service = |host: &str, port| Record::Service { host: host.to_owned(), port };
        assert_eq!(
            answer(&whole).unwrap(),
            Answer::Records(vec![service("am1.local", 9093), service("am2._am._tcp.local", 9094)])
        );
        for length in 0..whole.len() {
            assert!(answer(&whole[..length]).is_err(), "cut at {length}");
        }
        // A pointer to itself, and one forwards.
        let at = whole.len() - 1;
        for to in [at as u8 - 1, at as u8, 0xff] {
            let mut looped = whole.clone();
            looped[at] = to;
            assert!(answer(&looped).is_err());
        }
        let mut missing = whole.clone();
        missing[3] = 0x83;
        assert_eq!(answer(&missing), Ok(Answer::Records(vec![])));
        let mut longer = whole.clone();
        longer[2] |= 2;
        assert_eq!(answer(&longer), Ok(Answer::CutShort));
        for bad in ["", "a..b", &"x".repeat(64), &"a.".repeat(200)] {
            assert!(super::question(1, bad, TYPE_A).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_read_of_both_families_behind_an_alias() {
        let mut message = vec![0, 7, 0x81, 0x80, 0, 0, 0, 3, 0, 0, 0, 0];
        let data: [(u16, &[u8]); 3] = [
            (5, b"\x01b\0"),
            (TYPE_A, &[10, 0, 0, 1]),
            (TYPE_AAAA, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ];
        for (kind, data) in data {
            message.push(0);
            message.extend(kind.to_be_bytes());
            message.extend([0, 1, 0, 0, 0, 30]);
            message.extend((data.len() as u16).to_be_bytes());
            message.extend(data);
        }
        let address = |text: &str| Record::Address(text.parse().unwrap());
        assert_eq!(answer(&message), Ok(Answer::Records(vec![address("10.0.0.1"), address("::1")])));
    }

    proptest::proptest! {
        #[test]
        fn answer_of_any_bytes_neither_panics_nor_hangs(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = answer(&bytes);
        }
    }
}
