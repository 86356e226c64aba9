//! pprof's format: [`profile.proto`](https://github.com/google/pprof/blob/main/proto/profile.proto), packed
//! by gzip.

use std::collections::HashMap;
use std::hash::Hash;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use query::api::protobuf::{bytes, message, varint};

/// What a column of a profile counts.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub name: &'static str,
    pub unit: &'static str,
}

/// A place in the source. Functions that were inlined have frames of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    pub function: String,
    pub file: String,
    /// 0 where it is not known.
    pub line: u32,
}

/// Numbers of things, in the order in which they were met first, from 0.
struct Table<T>(HashMap<T, u64>);

impl<T: Hash + Eq> Table<T> {
    /// The number of a thing, and whether it is new.
    fn number(&mut self, of: T) -> (u64, bool) {
        let next = self.0.len() as u64;
        let number = *self.0.entry(of).or_insert(next);
        (number, number == next)
    }
}

/// A profile under construction: messages as they are written, and numbers of what they name.
pub struct Profile {
    /// Samples, locations and functions.
    body: Vec<u8>,
    texts: Table<String>,
    text_list: Vec<String>,
    functions: Table<(u64, u64)>,
    locations: Table<Frame>,
    kinds: Vec<(u64, u64)>,
    begun: SystemTime,
    took: Duration,
    period: i64,
}

impl Profile {
    /// `period` is how much of the last kind lies between two samples.
    pub fn new(kinds: &[Kind], begun: SystemTime, took: Duration, period: i64) -> Profile {
        let mut profile = Profile {
            body: Vec::new(),
            texts: Table(HashMap::new()),
            text_list: Vec::new(),
            functions: Table(HashMap::new()),
            locations: Table(HashMap::new()),
            kinds: Vec::new(),
            begun,
            took,
            period,
        };
        // The first text has to be the empty one.
        profile.text("");
        profile.kinds = kinds.iter().map(|kind| (profile.text(kind.name), profile.text(kind.unit))).collect();
        profile
    }

    fn text(&mut self, text: &str) -> u64 {
        let (number, new) = self.texts.number(text.to_owned());
        if new {
            self.text_list.push(text.to_owned());
        }
        number
    }

    /// A stack, innermost frame first, with what was counted of it, kind by kind.
    pub fn add(&mut self, stack: impl Iterator<Item = Frame>, values: &[i64], thread: Option<&str>) {
        let locations: Vec<u64> = stack.map(|frame| self.location(frame)).collect();
        let thread = thread.map(|thread| (self.text("thread"), self.text(thread)));
        message(&mut self.body, 2, |out| {
            locations.iter().for_each(|location| varint(out, 1, *location));
            values.iter().for_each(|value| varint(out, 2, *value as u64));
            if let Some((key, thread)) = thread {
                message(out, 3, |out| {
                    varint(out, 1, key);
                    varint(out, 2, thread);
                });
            }
        });
    }

    fn location(&mut self, frame: Frame) -> u64 {
        let (name, file, line) = (self.text(&frame.function), self.text(&frame.file), frame.line);
        let (function, new) = self.functions.number((name, file));
        // Numbers of functions and locations begin with 1.
        let function = function + 1;
        if new {
            message(&mut self.body, 5, |out| {
                varint(out, 1, function);
                varint(out, 2, name);
                varint(out, 3, name);
                varint(out, 4, file);
            });
        }
        let (location, new) = self.locations.number(frame);
        let location = location + 1;
        if new {
            message(&mut self.body, 4, |out| {
                varint(out, 1, location);
                message(out, 4, |out| {
                    varint(out, 1, function);
                    varint(out, 2, line.into());
                });
            });
        }
        location
    }

    /// The whole message, packed.
    pub fn packed(mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let kind = |out: &mut Vec<u8>, number, (name, unit): (u64, u64)| {
            message(out, number, |out| {
                varint(out, 1, name);
                varint(out, 2, unit);
            });
        };
        self.kinds.iter().for_each(|of| kind(&mut out, 1, *of));
        out.append(&mut self.body);
        self.text_list.iter().for_each(|text| bytes(&mut out, 6, text.as_bytes()));
        let begun = self.begun.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        varint(&mut out, 9, u64::try_from(begun.as_nanos()).unwrap_or(0));
        varint(&mut out, 10, u64::try_from(self.took.as_nanos()).unwrap_or(0));
        self.kinds.last().iter().for_each(|of| kind(&mut out, 11, **of));
        varint(&mut out, 12, self.period as u64);
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&out)?;
        packed.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use query::api::protobuf::{Fields, Value};
    use std::io::Read;

    #[test]
    fn profile_names_each_text_function_and_location_once() {
        let kinds = [Kind { name: "samples", unit: "count" }, Kind { name: "cpu", unit: "nanoseconds" }];
        let mut profile = Profile::new(&kinds, SystemTime::UNIX_EPOCH, Duration::from_secs(1), 10);
        let frame = |function: &str, line| Frame { function: function.into(), file: "a.rs".into(), line };
        profile.add([frame("inner", 7), frame("main", 2)].into_iter(), &[3, 30], Some("hearth"));
        profile.add([frame("inner", 8), frame("main", 2)].into_iter(), &[1, 10], None);
        let packed = profile.packed().unwrap();
        let mut message = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut message).unwrap();
        let fields: Vec<_> = Fields::of(&message).map(|f| f.unwrap()).collect();
        let count = |number| fields.iter().filter(|(n, _)| *n == number).count();
        // Kinds, samples, locations (two lines of one function), functions.
        assert_eq!([1, 2, 4, 5].map(count), [2, 2, 3, 2]);
        let texts: Vec<&[u8]> = fields
            .iter()
            .filter_map(|f| if let (6, Value::Bytes(b)) = f { Some(*b) } else { None })
            .collect();
        assert_eq!(texts[0], b"");
        let mut sorted = texts.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), texts.len());
        let Some((2, Value::Bytes(sample))) = fields.iter().find(|f| f.0 == 2) else { panic!("{fields:?}") };
        let sample: Vec<_> = Fields::of(sample).take(4).map(|f| f.unwrap()).collect();
        let want = [(1, 1), (1, 2), (2, 3), (2, 30)].map(|(n, v)| (n, Value::Varint(v)));
        assert_eq!(sample, want);
    }
}
